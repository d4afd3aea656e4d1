//! Ollama's own forms of an address, read as Ollama reads `OLLAMA_HOST`.

use reqwest::Url;

const DEFAULT_PORT: u16 = 11434;

/// Where Ollama listens when nobody said otherwise.
pub(crate) fn default_url() -> Url {
    ollama_url("").expect("the default address is a URL")
}

/// Reads `OLLAMA_HOST`: empty, `host`, `host:port`, `:port`, an IP address with or without brackets, or a URL.
///
/// A URL without a port means port 80, as Ollama's own client has it; anything else without a port, 11434.
/// An address to listen on everywhere (`0.0.0.0`, `::`, no host) is asked on loopback. A bad port is the default, also
/// as Ollama has it.
///
/// # Errors
/// With the reason why edges could not ask there: only a host and a port reach them.
pub fn ollama_url(text: &str) -> Result<Url, &'static str> {
    let url = parse(text)?;
    match url.path().trim_matches('/') {
        "" => Ok(url),
        "v1" | "api" | "api/tags" | "api/version" => Err("has a path: drop it, an Ollama is a host and a port alone"),
        _ => Err("has a path, and edges ask an Ollama at a host and a port alone"),
    }
}

/// The same with any path.
fn parse(text: &str) -> Result<Url, &'static str> {
    let text = text.trim().trim_matches(['"', '\'']);
    let (default_port, rest) = match text.split_once("://") {
        None => (DEFAULT_PORT, text),
        Some(("http", rest)) => (80, rest),
        Some(("https", _)) => return Err(HTTPS),
        Some(_) => return Err("is no http URL"),
    };
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    if authority.contains('@') {
        return Err(CREDENTIALS);
    }
    let (host, port) = split_port(authority);
    let port = port.map_or(default_port, |port| port.parse().unwrap_or(default_port));
    let host = match host {
        "" | "0.0.0.0" | "::" => "127.0.0.1".to_owned(),
        ipv6 if ipv6.contains(':') => format!("[{ipv6}]"),
        host => host.to_owned(),
    };
    http_url(&format!("http://{host}:{port}/{path}"))
}

const HTTPS: &str = "is https, which is not supported: use http in a network that you trust";
const CREDENTIALS: &str = "has a user name or password, which are not supported here";

/// Host without brackets, and what follows the last colon outside of them.
fn split_port(authority: &str) -> (&str, Option<&str>) {
    if let Some((host, rest)) = authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return (host, rest.strip_prefix(':'));
    }
    match authority.split_once(':') {
        Some((host, port)) if !port.contains(':') => (host, Some(port)),
        _ => (authority, None),
    }
}

/// An `http` URL whose path ends in `/`, so that API paths can be joined to it.
///
/// # Errors
/// With the reason why not.
pub(crate) fn http_url(text: &str) -> Result<Url, &'static str> {
    let mut url: Url = text.trim().parse().map_err(|_| "is no URL like http://192.168.1.10:11435")?;
    match url.scheme() {
        "http" => {}
        "https" => return Err(HTTPS),
        _ => return Err("is no http URL like http://192.168.1.10:11435"),
    }
    if !url.has_host() {
        return Err("has no host");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(CREDENTIALS);
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("has a query, which no base URL has");
    }
    if !url.path().ends_with('/') {
        url.set_path(&format!("{}/", url.path()));
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Option<&str>) {
        assert_eq!(ollama_url(text).ok().as_ref().map(Url::as_str), expected, "{text:?}");
    }

    #[test]
    fn addresses_are_read_as_ollama_reads_them() {
        check("", Some("http://127.0.0.1:11434/"));
        check("0.0.0.0", Some("http://127.0.0.1:11434/"));
        check("0.0.0.0:9000", Some("http://127.0.0.1:9000/"));
        check(":9000", Some("http://127.0.0.1:9000/"));
        check("gpu-1", Some("http://gpu-1:11434/"));
        check("gpu-1:9000", Some("http://gpu-1:9000/"));
        check("gpu-1:port", Some("http://gpu-1:11434/"));
        check("gpu-1:70000", Some("http://gpu-1:11434/"));
        check("10.0.0.7", Some("http://10.0.0.7:11434/"));
        check("::1", Some("http://[::1]:11434/"));
        check("[::1]", Some("http://[::1]:11434/"));
        check("[::1]:9000", Some("http://[::1]:9000/"));
        check("[::]:9000", Some("http://127.0.0.1:9000/"));
        check("http://gpu-1", Some("http://gpu-1/"));
        check("http://gpu-1:11434", Some("http://gpu-1:11434/"));
        check("http://0.0.0.0:11434/", Some("http://127.0.0.1:11434/"));
        check(" \"gpu-1:9000\" ", Some("http://gpu-1:9000/"));
    }

    #[test]
    fn what_cannot_be_asked_is_refused() {
        check("https://gpu-1", None);
        check("ftp://gpu-1", None);
        check("two words", None);
        assert!(http_url("http://user:pw@edge:1/").is_err());
        let refused = |text: &str| ollama_url(text).unwrap_err();
        for path in ["http://gpu-1:11434/v1", "gpu-1/v1/", "http://gpu-1:11434/api", "gpu-1:11434/base"] {
            assert!(refused(path).contains("path"), "{path}: a path would be lost on the way to the edge");
        }
        assert!(refused("https://gpu-1").contains("https") && refused("https://u:p@gpu-1/v1").contains("https"));
        assert!(refused("user:pw@gpu-1:11434").contains("password"));
        assert!(http_url("http://edge:1/?token=x").is_err() && http_url("edge:11435").is_err());
    }
}
