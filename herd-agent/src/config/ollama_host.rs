//! Ollama's own forms of an address, read as Ollama reads `OLLAMA_HOST`.

use reqwest::Url;

const DEFAULT_PORT: u16 = 11434;

/// Where Ollama listens when nobody said otherwise.
pub(crate) fn default_url() -> Url {
    parse("").expect("the default address is a URL")
}

/// Reads `OLLAMA_HOST`: empty, `host`, `host:port`, `:port`, an IP address with or without brackets, or a URL.
///
/// A URL without a port means port 80, as Ollama's own client has it; anything else without a port, 11434.
/// An address to listen on everywhere (`0.0.0.0`, `::`, no host) is asked on loopback. A bad port is the default, also
/// as Ollama has it. `None` for what cannot be a host, and for https.
pub(crate) fn parse(text: &str) -> Option<Url> {
    let text = text.trim().trim_matches(['"', '\'']);
    let (default_port, rest) = match text.split_once("://") {
        None => (DEFAULT_PORT, text),
        Some(("http", rest)) => (80, rest),
        Some(_) => return None,
    };
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (host, port) = split_port(authority);
    let port = port.map_or(default_port, |port| port.parse().unwrap_or(default_port));
    let host = match host {
        "" | "0.0.0.0" | "::" => "127.0.0.1".to_owned(),
        ipv6 if ipv6.contains(':') => format!("[{ipv6}]"),
        host => host.to_owned(),
    };
    http_url(&format!("http://{host}:{port}/{path}"))
}

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

/// An `http` URL whose path ends in `/`, so that API paths can be joined to it. `None` for anything else.
pub(crate) fn http_url(text: &str) -> Option<Url> {
    let mut url: Url = text.trim().parse().ok()?;
    let plain = url.username().is_empty() && url.password().is_none() && url.query().is_none();
    if url.scheme() != "http" || !url.has_host() || !plain {
        return None;
    }
    if !url.path().ends_with('/') {
        url.set_path(&format!("{}/", url.path()));
    }
    Some(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Option<&str>) {
        assert_eq!(parse(text).as_ref().map(Url::as_str), expected, "{text:?}");
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
        check("http://gpu-1:11434/base", Some("http://gpu-1:11434/base/"));
        check(" \"gpu-1:9000\" ", Some("http://gpu-1:9000/"));
    }

    #[test]
    fn what_cannot_be_asked_is_refused() {
        check("https://gpu-1", None);
        check("ftp://gpu-1", None);
        check("two words", None);
        assert_eq!(http_url("http://user:pw@edge:1/"), None);
    }
}
