//! Web pages that may use the models: origins, as browsers name them.
//!
//! A browser adds `Origin` to what a page of another site asks for, and shows the page the answer only where that is
//! allowed. The list's default is Ollama's, so that what works with one Ollama works here.

/// What a page may come from by default: this machine, and pages inside applications.
pub const DEFAULT_ORIGINS: [&str; 13] = [
    "http://localhost:*",
    "https://localhost:*",
    "http://127.0.0.1:*",
    "https://127.0.0.1:*",
    "http://[::1]:*",
    "https://[::1]:*",
    "http://0.0.0.0:*",
    "https://0.0.0.0:*",
    "app://*",
    "file://*",
    "tauri://*",
    "vscode-webview://*",
    "vscode-file://*",
];

/// A list of origins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origins(Vec<Pattern>);

/// One entry of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Pattern {
    /// `*`
    Any,
    /// `scheme://*`: every page of it, whatever else it says.
    Scheme(String),
    /// `scheme://host:port`
    Page { scheme: String, host: Host, port: Port },
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Host {
    Is(String),
    /// `*.example.com`: what ends so, dot included.
    Below(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Port {
    /// None is given, so that it is the scheme's own.
    Default,
    Is(u16),
    /// `:*`
    Any,
}

impl Origins {
    /// Reads a list.
    ///
    /// # Errors
    /// With the first entry that is no origin: not `*`, `scheme://*`, `scheme://host`, `scheme://*.host`, the last two
    /// with `:port` or `:*` behind them.
    pub fn new<T: AsRef<str>>(entries: &[T]) -> Result<Self, String> {
        let pattern = |entry: &T| Pattern::parse(entry.as_ref()).ok_or_else(|| entry.as_ref().to_owned());
        entries.iter().map(pattern).collect::<Result<_, _>>().map(Self)
    }

    /// Whether a page of `origin` may use the models.
    #[must_use]
    pub fn allows(&self, origin: &str) -> bool {
        let origin = origin.to_ascii_lowercase();
        self.0.iter().any(|pattern| pattern.fits(&origin))
    }
}

impl Default for Origins {
    fn default() -> Self {
        Self(DEFAULT_ORIGINS.iter().filter_map(|entry| Pattern::parse(entry)).collect())
    }
}

impl Pattern {
    fn parse(entry: &str) -> Option<Self> {
        let entry = entry.trim().to_ascii_lowercase();
        if entry == "*" {
            return Some(Self::Any);
        }
        let (scheme, authority) = entry.split_once("://")?;
        let is_scheme = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
        if scheme.is_empty() || !scheme.chars().all(is_scheme) {
            return None;
        }
        let scheme = scheme.to_owned();
        if authority == "*" {
            return Some(Self::Scheme(scheme));
        }
        let (host, port) = split(authority.strip_suffix('/').unwrap_or(authority))?;
        let port = match port {
            None => Port::Default,
            Some("*") => Port::Any,
            Some(digits) => Port::Is(digits.parse().ok()?),
        };
        let host = match host.strip_prefix('*') {
            Some(below) if below.starts_with('.') && is_host(&below[1..]) => Host::Below(below.to_owned()),
            None if is_host(host) => Host::Is(host.to_owned()),
            _ => return None,
        };
        Some(Self::Page { scheme, host, port })
    }

    fn fits(&self, origin: &str) -> bool {
        let Some((its_scheme, authority)) = origin.split_once("://") else { return *self == Self::Any };
        let (scheme, host, port) = match self {
            Self::Any => return true,
            Self::Scheme(scheme) => return scheme == its_scheme,
            Self::Page { scheme, host, port } => (scheme, host, port),
        };
        let Some((its_host, its_port)) = split(authority).filter(|(host, _)| is_host(host)) else { return false };
        let fits = match host {
            Host::Is(host) => host == its_host,
            Host::Below(end) => its_host.len() > end.len() && its_host.ends_with(end.as_str()),
        };
        let port_fits = match (port, its_port) {
            (Port::Any | Port::Default, None) => true,
            (Port::Any, Some(digits)) => digits.parse::<u16>().is_ok(),
            (Port::Is(port), Some(digits)) => digits.parse() == Ok(*port),
            (Port::Default, Some(_)) | (Port::Is(_), None) => false,
        };
        scheme == its_scheme && fits && port_fits
    }
}

/// Host and port, an IPv6 address with its brackets.
fn split(authority: &str) -> Option<(&str, Option<&str>)> {
    let end = if authority.starts_with('[') {
        authority.find(']')? + 1
    } else {
        authority.find(':').unwrap_or(authority.len())
    };
    let (host, rest) = authority.split_at(end);
    match rest.strip_prefix(':') {
        Some(port) if !port.is_empty() => Some((host, Some(port))),
        None if rest.is_empty() => Some((host, None)),
        _ => None,
    }
}

fn is_host(host: &str) -> bool {
    let inside = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    match inside {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn allows(origins: &Origins, list: &[&str], expected: bool) {
        for origin in list {
            assert_eq!(origins.allows(origin), expected, "{origin}");
        }
    }

    #[test]
    fn the_default_is_ollamas() {
        let origins = Origins::default();
        assert_eq!(Origins::new(&DEFAULT_ORIGINS), Ok(origins.clone()));
        let trusted = [
            "http://localhost",
            "http://localhost:3000",
            "HTTPS://LocalHost:8443",
            "http://127.0.0.1:5173",
            "http://0.0.0.0:8080",
            "http://[::1]:3000",
            "app://obsidian.md",
            "tauri://localhost",
            "vscode-webview://1a2b3c",
            "vscode-file://vscode-app",
            "file://",
        ];
        allows(&origins, &trusted, true);
        let foreign = [
            "",
            "null",
            "https://evil.example",
            "http://localhost.evil.example",
            "http://localhost:3000.evil.example",
            "http://localhost@evil.example",
            "http://localhost:99999",
            "http://localhost:",
            "http://127.0.0.1.evil.example",
            "chrome-extension://abc",
            "capacitor://localhost",
            "xhttp://localhost",
            "http://192.168.1.5",
            "http://[::2]:3000",
            "localhost:3000",
        ];
        allows(&origins, &foreign, false);
    }

    #[test]
    fn a_list_of_ones_own_says_what_it_means() {
        let list = ["https://chat.example", "http://ui.example:8080", "https://*.apps.example", "http://lan.example:*"];
        let origins = Origins::new(&list).unwrap();
        let trusted = [
            "https://chat.example",
            "http://ui.example:8080",
            "https://a.apps.example",
            "https://a.b.apps.example",
            "http://lan.example",
            "http://lan.example:1",
        ];
        allows(&origins, &trusted, true);
        let foreign = [
            "http://chat.example",
            "https://chat.example:444",
            "http://ui.example",
            "http://ui.example:80",
            "https://apps.example",
            "https://.apps.example",
            "https://evilapps.example",
            "https://evil.example/.apps.example",
            "http://localhost:3000",
        ];
        allows(&origins, &foreign, false);
        let anybody = Origins::new(&["*"]).unwrap();
        allows(&anybody, &["https://evil.example", "null", "chrome-extension://abc"], true);
        allows(&Origins::new(&["chrome-extension://*"]).unwrap(), &["chrome-extension://abc"], true);
    }

    #[test]
    fn what_is_no_origin_is_refused() {
        let no = [
            "",
            "chat.example",
            "https://",
            "https://a/b",
            "https://a:b",
            "https://a:1:2",
            "https://*x",
            "https://x*",
            "ht tp://x",
        ];
        for entry in no {
            assert_eq!(Origins::new(&["*", entry]), Err(entry.to_owned()), "{entry}");
        }
    }
}
