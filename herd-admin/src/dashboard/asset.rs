//! The files of the dashboard, in the binary.

use std::io::Write as _;
use std::sync::{LazyLock, OnceLock};

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use herd_core::name::fnv1a;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, ETAG, IF_NONE_MATCH, VARY};
use http::{HeaderMap, HeaderValue, StatusCode};

/// One file.
pub(super) struct Asset {
    path: &'static str,
    bytes: &'static [u8],
    /// Compressed on the first request; `None` in it = not worth it.
    zipped: OnceLock<Option<Bytes>>,
}

macro_rules! assets {
    ($($path:literal),* $(,)?) => {
        [$(Asset {
            path: $path,
            bytes: include_bytes!(concat!("../../assets/", $path)),
            zipped: OnceLock::new(),
        }),*]
    };
}

/// All of them. What is not named here is not served.
static ASSETS: [Asset; 46] = assets![
    "icon.svg",
    "main.js",
    "theme.js",
    "core/api.js",
    "core/format.js",
    "core/hues.js",
    "core/keys.js",
    "core/live.js",
    "core/resource.js",
    "core/route.js",
    "core/schedule.js",
    "core/view.js",
    "parts/bits.js",
    "parts/chart.js",
    "parts/dialog.js",
    "parts/menu.js",
    "parts/model-actions.js",
    "parts/node-actions.js",
    "parts/node-card.js",
    "parts/pulls.js",
    "parts/requests.js",
    "parts/shell.js",
    "parts/signals.js",
    "parts/table.js",
    "parts/waterfall.js",
    "style/base.css",
    "style/chart.css",
    "style/parts.css",
    "style/shell.css",
    "style/tabs.css",
    "tabs/apps.js",
    "tabs/benchmarks.js",
    "tabs/explain.js",
    "tabs/health.js",
    "tabs/models.js",
    "tabs/overview.js",
    "tabs/recommendations.js",
    "tabs/settings.js",
    "tabs/traces.js",
    "tabs/trends.js",
    "vendor/lit-html/directive-helpers.js",
    "vendor/lit-html/directive.js",
    "vendor/lit-html/directives/repeat.js",
    "vendor/lit-html/lit-html.js",
    "vendor/uplot/uPlot.esm.js",
    "vendor/uplot/uPlot.min.css",
];

/// Of all files together: it stands in their paths, so that a browser may keep them for good.
pub(super) static HASH: LazyLock<String> = LazyLock::new(|| {
    let each = ASSETS.iter().flat_map(|asset| fnv1a(asset.bytes).to_be_bytes());
    format!("{:016x}", fnv1a(&each.collect::<Vec<_>>()))
});

impl Asset {
    /// The file at `path`, below the folder of assets.
    pub(super) fn at(path: &str) -> Option<&'static Self> {
        ASSETS.iter().find(|asset| asset.path == path)
    }

    /// It, or that the client has it already.
    pub(super) fn answer(&'static self, request: &HeaderMap) -> Response {
        let tag = format!("\"{:016x}\"", fnv1a(self.bytes));
        let zipped = accepts_gzip(request).then(|| self.zipped.get_or_init(|| zip(self.bytes)).clone()).flatten();
        let encoding = zipped.is_some();
        let mut answer = tagged(request, &tag, self.content_type(), zipped.unwrap_or(Bytes::from_static(self.bytes)));
        answer.headers_mut().insert(VARY, HeaderValue::from_static("accept-encoding"));
        if encoding {
            answer.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        answer
    }

    fn content_type(&self) -> &'static str {
        match self.path.rsplit('.').next() {
            Some("js") => "text/javascript; charset=utf-8",
            Some("css") => "text/css; charset=utf-8",
            Some("svg") => "image/svg+xml",
            _ => "application/octet-stream",
        }
    }
}

/// `body` under its `tag`, or 304 for a client that has it.
pub(super) fn tagged(request: &HeaderMap, tag: &str, content_type: &'static str, body: Bytes) -> Response {
    let has_it = request.get(IF_NONE_MATCH).is_some_and(|tags| tags.to_str().is_ok_and(|tags| tags.contains(tag)));
    let mut answer = if has_it { StatusCode::NOT_MODIFIED.into_response() } else { Body::from(body).into_response() };
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    if let Ok(tag) = HeaderValue::try_from(tag) {
        answer.headers_mut().insert(ETAG, tag);
    }
    answer
}

fn accepts_gzip(request: &HeaderMap) -> bool {
    request.get(ACCEPT_ENCODING).is_some_and(|encodings| encodings.to_str().is_ok_and(|text| text.contains("gzip")))
}

fn zip(bytes: &[u8]) -> Option<Bytes> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).ok()?;
    let zipped = encoder.finish().ok()?;
    (zipped.len() < bytes.len()).then(|| Bytes::from(zipped))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn files(folder: &Path, found: &mut Vec<String>) {
        for entry in folder.read_dir().unwrap().map(Result::unwrap) {
            let path = entry.path();
            if path.is_dir() {
                files(&path, found);
            } else {
                found.push(path.to_str().unwrap().to_owned());
            }
        }
    }

    #[test]
    fn every_file_is_served_and_no_other() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets");
        let mut found = Vec::new();
        files(&folder, &mut found);
        let prefix = format!("{}/", folder.to_str().unwrap());
        let mut found: Vec<_> = found.iter().map(|path| path.strip_prefix(&prefix).unwrap()).collect();
        found.retain(|path| *path != "index.html" && !path.ends_with("LICENSE"));
        found.sort_unstable();
        let mut served: Vec<_> = ASSETS.iter().map(|asset| asset.path).collect();
        served.sort_unstable();
        assert_eq!(served, found);
    }

    /// The policy of the page forbids the rest; this names the place.
    #[test]
    fn no_file_of_ours_makes_markup_or_asks_elsewhere() {
        for asset in ASSETS.iter().filter(|asset| !asset.path.starts_with("vendor/")) {
            let text = std::str::from_utf8(asset.bytes).unwrap();
            for never in [
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "unsafeHTML",
                "eval(",
                "document.write",
                " style=\"",
                "@import",
            ] {
                assert!(!text.contains(never), "{never} in {}", asset.path);
            }
        }
    }
}
