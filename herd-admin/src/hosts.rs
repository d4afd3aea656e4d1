//! The names and addresses of this machine, and the pages that it trusts.

use std::net::{IpAddr, SocketAddr};

use herd_core::access::origins::Origins;
use http::uri::Authority;

/// The names and addresses by which changes may be asked for.
///
/// Against DNS rebinding: a page of another site can have its own name resolve to this machine, but cannot make a
/// browser reach it by one of these.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hosts {
    /// In lower case, with a port where only that one is meant.
    names: Vec<(String, Option<u16>)>,
    /// The same, of those that proxies in front of this machine may have.
    listed: Vec<(String, Option<u16>)>,
    addresses: Vec<IpAddr>,
    any_address: bool,
    /// Pages of other sites that may use the models.
    origins: Origins,
}

impl Hosts {
    /// Loopback, the addresses of `listeners`, and this machine's own `names`.
    ///
    /// A listener on all interfaces has every address of the machine, and those that are forwarded to it, so then any
    /// address will do: rebinding needs a name. Ports are not compared, as they are forwarded too.
    #[must_use]
    pub fn new(listeners: &[SocketAddr], names: impl IntoIterator<Item = String>) -> Self {
        let addresses = listeners.iter().map(|listener| listener.ip().to_canonical());
        Self {
            names: names.into_iter().filter_map(|name| parse(&name)).collect(),
            listed: Vec::new(),
            addresses: addresses.clone().filter(|ip| !ip.is_unspecified()).collect(),
            any_address: addresses.into_iter().any(|ip| ip.is_unspecified()),
            origins: Origins::default(),
        }
    }

    /// With further names, each with a port where only that one is meant.
    #[must_use]
    pub fn with_names(self, names: &[String]) -> Self {
        Self { listed: names.iter().filter_map(|name| parse(name)).collect(), ..self }
    }

    /// With another list of pages that may use the models than Ollama's.
    #[must_use]
    pub fn with_origins(self, origins: Origins) -> Self {
        Self { origins, ..self }
    }

    /// Whether `text` can be one of the names.
    #[must_use]
    pub fn is_name(text: &str) -> bool {
        parse(text).is_some()
    }

    /// Whether a page of `origin` that is not our own may ask models: one of the list, or of a name that is ours.
    #[must_use]
    pub fn trusts_page(&self, origin: &str) -> bool {
        let authority = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
        let by_name = authority.and_then(parse).is_some_and(|(name, port)| self.is_named(&name, port));
        by_name || self.origins.allows(origin)
    }

    /// Whether changes may be asked for by `host`.
    pub(crate) fn has(&self, host: &str) -> bool {
        let Some((name, port)) = parse(host) else { return false };
        let Ok(ip) = name.parse::<IpAddr>() else { return name == "localhost" || self.is_named(&name, port) };
        let ip = ip.to_canonical();
        ip.is_loopback() || self.any_address || self.addresses.contains(&ip) || self.is_named(&name, port)
    }

    /// Whether models and the fleet may be asked for by `host`: a name of this machine, any address, any name that only a
    /// local network resolves. No page of another site has one of these.
    #[must_use]
    pub fn admits(&self, host: &str) -> bool {
        let Some((name, _)) = parse(host) else { return false };
        let name = name.strip_suffix('.').unwrap_or(&name);
        let is_local = !name.contains('.') || LOCAL_DOMAINS.iter().any(|domain| name.ends_with(domain));
        name.parse::<IpAddr>().is_ok() || is_local || self.has(host)
    }

    /// Whether whoever asks by `host` on a loopback connection means this machine: not one whose name a proxy passes on.
    #[must_use]
    pub fn is_here(&self, host: &str) -> bool {
        let Some((name, port)) = parse(host) else { return false };
        match name.parse::<IpAddr>() {
            Ok(ip) => ip.is_loopback() || ip.is_unspecified() || self.addresses.contains(&ip.to_canonical()),
            Err(_) => is_localhost(&name) || self.names.iter().any(|(known, only)| fits(known, *only, &name, port)),
        }
    }

    fn is_named(&self, name: &str, port: Option<u16>) -> bool {
        self.names.iter().chain(&self.listed).any(|(known, only)| fits(known, *only, name, port))
    }
}

/// Domains that no public name server answers for: multicast DNS, those of home networks (RFC 8375, RFC 6762), and the
/// one that ICANN keeps for private use.
const LOCAL_DOMAINS: [&str; 5] = [".local", ".lan", ".home.arpa", ".internal", ".localhost"];

fn is_localhost(name: &str) -> bool {
    name == "localhost" || name.ends_with(".localhost")
}

fn fits(known: &str, only: Option<u16>, name: &str, port: Option<u16>) -> bool {
    known == name && only.is_none_or(|only| port == Some(only))
}

/// Name and port, the name in lower case and an IPv6 address without its brackets; `None` = it is no host.
fn parse(host: &str) -> Option<(String, Option<u16>)> {
    let authority: Authority = host.parse().ok()?;
    let name = authority.host();
    let port = authority.as_str().strip_prefix(name)?;
    let port = match port.strip_prefix(':') {
        Some(digits) => Some(digits.parse().ok()?),
        None if port.is_empty() => None,
        None => return None,
    };
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    match address {
        Some(address) => address.parse::<std::net::Ipv6Addr>().ok().map(|ip| (ip.to_string(), port)),
        None => (!name.is_empty()).then(|| (name.to_ascii_lowercase(), port)),
    }
}
