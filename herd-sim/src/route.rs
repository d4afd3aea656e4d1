//! Which path is answered how, and by which methods.

use http::Method;

use super::surface::Surface;

/// What answers a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Endpoint {
    Root,
    Version,
    Status,
    Tags,
    Ps,
    Show,
    Generate(Surface),
    Embed(Surface),
    Transcribe,
    Pull,
    Push,
    Create,
    Copy,
    Delete,
    Blob,
    V1Models,
    V1Model,
}

impl Endpoint {
    /// Whether it runs a model.
    pub(crate) fn is_inference(self) -> bool {
        matches!(self, Self::Generate(_) | Self::Embed(_) | Self::Transcribe)
    }

    /// The surface whose form its errors have.
    pub(crate) fn surface(self) -> Surface {
        match self {
            Self::Generate(surface) | Self::Embed(surface) => surface,
            Self::V1Models | Self::V1Model | Self::Transcribe => Surface::V1Chat,
            _ => Surface::Chat,
        }
    }
}

/// Where a request goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Route<'a> {
    /// To an endpoint, with what follows its fixed path.
    To(Endpoint, &'a str),
    /// The path is there, but not for this method; these are allowed.
    WrongMethod(&'static str),
    /// The path is there without its last slash.
    Redirect(&'a str),
    /// Nowhere.
    Unknown,
}

/// Paths, the methods they allow as `Allow` lists them, and who answers. A path that ends in `/` takes one more segment.
const TABLE: [(&str, &str, Endpoint); 24] = [
    ("/", "GET, HEAD", Endpoint::Root),
    ("/api/version", "GET, HEAD", Endpoint::Version),
    ("/api/status", "GET", Endpoint::Status),
    ("/api/tags", "GET, HEAD", Endpoint::Tags),
    ("/api/ps", "GET", Endpoint::Ps),
    ("/api/show", "POST", Endpoint::Show),
    ("/api/chat", "POST", Endpoint::Generate(Surface::Chat)),
    ("/api/generate", "POST", Endpoint::Generate(Surface::Generate)),
    ("/api/embed", "POST", Endpoint::Embed(Surface::Embed)),
    ("/api/embeddings", "POST", Endpoint::Embed(Surface::Embeddings)),
    ("/api/pull", "POST", Endpoint::Pull),
    ("/api/push", "POST", Endpoint::Push),
    ("/api/create", "POST", Endpoint::Create),
    ("/api/copy", "POST", Endpoint::Copy),
    ("/api/delete", "DELETE", Endpoint::Delete),
    ("/api/blobs/", "HEAD, POST", Endpoint::Blob),
    ("/v1/chat/completions", "POST", Endpoint::Generate(Surface::V1Chat)),
    ("/v1/completions", "POST", Endpoint::Generate(Surface::V1Completions)),
    ("/v1/embeddings", "POST", Endpoint::Embed(Surface::V1Embeddings)),
    ("/v1/responses", "POST", Endpoint::Generate(Surface::V1Responses)),
    ("/v1/messages", "POST", Endpoint::Generate(Surface::V1Messages)),
    ("/v1/audio/transcriptions", "POST", Endpoint::Transcribe),
    ("/v1/models", "GET", Endpoint::V1Models),
    ("/v1/models/", "GET", Endpoint::V1Model),
];

/// Finds the way of a request.
pub(crate) fn find<'a>(method: &Method, path: &'a str) -> Route<'a> {
    match lookup(path) {
        Some((allowed, endpoint, rest)) if allowed.split(", ").any(|name| name == method.as_str()) => {
            Route::To(endpoint, rest)
        }
        Some((allowed, ..)) => Route::WrongMethod(allowed),
        None => match path.strip_suffix('/').filter(|shorter| lookup(shorter).is_some()) {
            Some(shorter) => Route::Redirect(shorter),
            None => Route::Unknown,
        },
    }
}

fn lookup(path: &str) -> Option<(&'static str, Endpoint, &str)> {
    TABLE.iter().find_map(|(pattern, allowed, endpoint)| {
        if path == *pattern && !(pattern.len() > 1 && pattern.ends_with('/')) {
            return Some((*allowed, *endpoint, ""));
        }
        let open = pattern.len() > 1 && pattern.ends_with('/');
        let rest = path.strip_prefix(pattern).filter(|rest| open && !rest.is_empty() && !rest.contains('/'))?;
        Some((*allowed, *endpoint, rest))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_find_their_way() {
        #[track_caller]
        fn check(method: &Method, path: &str, expected: Route<'_>) {
            assert_eq!(find(method, path), expected, "{method} {path}");
        }
        check(&Method::GET, "/", Route::To(Endpoint::Root, ""));
        check(&Method::HEAD, "/api/tags", Route::To(Endpoint::Tags, ""));
        check(&Method::HEAD, "/api/ps", Route::WrongMethod("GET"));
        check(&Method::GET, "/api/chat", Route::WrongMethod("POST"));
        check(&Method::GET, "/api/tags/", Route::Redirect("/api/tags"));
        check(&Method::GET, "/api/nope", Route::Unknown);
        check(&Method::GET, "/v1/models/tiny:latest", Route::To(Endpoint::V1Model, "tiny:latest"));
        check(&Method::GET, "/v1/models/me/tiny", Route::Unknown);
        check(&Method::POST, "/v1/messages/count_tokens", Route::Unknown);
        check(&Method::GET, "/v1/models/", Route::Redirect("/v1/models"));
    }
}
