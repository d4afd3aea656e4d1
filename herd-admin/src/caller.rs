//! Who calls.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::ConnectInfo;
use herd_core::access::Source;
use http::request::Parts;
use http::{HeaderMap, HeaderName};

use crate::peer_user::{LocalUsers, PeerUser};
use crate::secret::Secret;

/// The header by which the edge proves that a request was forwarded by it, and that `X-Forwarded-For` is its word.
pub const EDGE_SECRET_HEADER: HeaderName = HeaderName::from_static("x-herd-edge");

/// The header by which the edge says what [`Source`] its client is, beside its secret; see [`source_name`].
pub const SOURCE_HEADER: HeaderName = HeaderName::from_static("x-herd-source");

const SOURCES: [(&str, Source); 3] =
    [("local", Source::Local), ("network", Source::Network), ("proxied", Source::Proxied)];

/// The name of `source` in [`SOURCE_HEADER`].
#[must_use]
pub fn source_name(source: Source) -> &'static str {
    SOURCES.iter().find(|(_, known)| *known == source).map_or("proxied", |(name, _)| name)
}

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// What proxies add to requests that they forward.
const PROXY_HEADERS: [HeaderName; 7] = [
    FORWARDED_FOR,
    HeaderName::from_static("forwarded"),
    HeaderName::from_static("via"),
    HeaderName::from_static("x-real-ip"),
    HeaderName::from_static("x-forwarded-host"),
    HeaderName::from_static("x-forwarded-proto"),
    HeaderName::from_static("cf-connecting-ip"),
];

/// Whether a request says that a proxy has forwarded it. Who lies about that can only lose by it.
#[must_use]
pub fn is_proxied(headers: &HeaderMap) -> bool {
    PROXY_HEADERS.iter().any(|name| headers.contains_key(name))
}

/// This end of a request's connection, and whose the other is.
#[derive(Debug, Clone)]
pub(crate) struct Ends {
    pub(crate) local: SocketAddr,
    pub(crate) user: Arc<PeerUser>,
}

/// Where a request comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Caller {
    /// Address of the client: as the edge saw it, or of the connection itself. IPv4 is never in its IPv6 form.
    pub(crate) ip: IpAddr,
    /// It came through the edge's own listener.
    pub(crate) via_edge: bool,
    /// What it counts as for its rights.
    pub(crate) source: Source,
}

impl Caller {
    /// Reads it from `headers` of a request on a connection from `peer`. A loopback connection is not told from that of
    /// another user of this machine here.
    ///
    /// `X-Forwarded-For` counts only beside the edge's secret; from anybody else it is a wish. `None` = the edge's
    /// secret stands there without one readable address, so that nobody can tell who calls.
    pub(crate) fn read(headers: &HeaderMap, peer: IpAddr, edge_secret: Option<&Secret>) -> Option<Self> {
        let shown = headers.get(EDGE_SECRET_HEADER).map(http::HeaderValue::as_bytes);
        let via_edge = matches!((edge_secret, shown), (Some(secret), Some(shown)) if secret.is(shown));
        let ip = if via_edge { forwarded_for(headers)? } else { peer }.to_canonical();
        let told = headers.get(SOURCE_HEADER).map(http::HeaderValue::as_bytes).unwrap_or_default();
        let source = match via_edge {
            true => {
                SOURCES.iter().find(|(name, _)| name.as_bytes() == told).map_or(Source::Proxied, |(_, known)| *known)
            }
            false if is_proxied(headers) => Source::Proxied,
            false if ip.is_loopback() => Source::Local,
            false => Source::Network,
        };
        Some(Self { ip, via_edge, source })
    }
}

/// The one address that the edge wrote.
fn forwarded_for(headers: &HeaderMap) -> Option<IpAddr> {
    let mut values = headers.get_all(FORWARDED_FOR).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    value.to_str().ok()?.trim().parse().ok()
}

/// The same caller, a local one told from other users of this machine, whose connections are no operator's.
pub(crate) async fn told_apart(caller: Caller, parts: &Parts, users: LocalUsers) -> Caller {
    let ends = parts.extensions.get::<Ends>().zip(parts.extensions.get::<ConnectInfo<SocketAddr>>());
    let Some((ends, ConnectInfo(peer))) = ends.filter(|_| caller.source == Source::Local && !caller.via_edge) else {
        return caller;
    };
    let is_operator = ends.user.is_operator(users, *peer, ends.local).await;
    if is_operator { caller } else { Caller { source: Source::Network, ..caller } }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EDGE: &str = "random";

    #[track_caller]
    fn check(headers: &[(&HeaderName, &str)], expected: Option<(&str, bool)>) {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        let caller = Caller::read(&map, "::ffff:10.0.0.9".parse().unwrap(), Some(&Secret::from(EDGE)));
        let caller = caller.map(|caller| (caller.ip.to_string(), caller.via_edge));
        assert_eq!(caller, expected.map(|(ip, via_edge)| (ip.to_owned(), via_edge)), "{headers:?}");
    }

    #[test]
    fn forwarded_addresses_count_only_beside_the_edges_secret() {
        let secret = &EDGE_SECRET_HEADER;
        check(&[], Some(("10.0.0.9", false)));
        check(&[(&FORWARDED_FOR, "127.0.0.1")], Some(("10.0.0.9", false)));
        check(&[(&FORWARDED_FOR, "127.0.0.1"), (secret, "guess")], Some(("10.0.0.9", false)));
        check(&[(&FORWARDED_FOR, "127.0.0.1"), (secret, "")], Some(("10.0.0.9", false)));
        check(&[(&FORWARDED_FOR, "192.168.1.7"), (secret, EDGE)], Some(("192.168.1.7", true)));
        check(&[(&FORWARDED_FOR, "::ffff:192.168.1.7"), (secret, EDGE)], Some(("192.168.1.7", true)));
        check(&[(secret, EDGE)], None);
        check(&[(&FORWARDED_FOR, "unknown"), (secret, EDGE)], None);
        check(&[(&FORWARDED_FOR, "127.0.0.1, 10.0.0.1"), (secret, EDGE)], None);
        check(&[(&FORWARDED_FOR, "127.0.0.1"), (&FORWARDED_FOR, "10.0.0.1"), (secret, EDGE)], None);
    }

    #[track_caller]
    fn comes_from(headers: &[(&HeaderName, &str)], expected: Source) {
        let map = headers.iter().map(|(name, value)| ((*name).clone(), value.parse().unwrap())).collect();
        let caller = Caller::read(&map, "127.0.0.1".parse().unwrap(), Some(&Secret::from(EDGE))).unwrap();
        assert_eq!(caller.source, expected, "{headers:?}");
    }

    #[test]
    fn what_a_proxy_on_this_machine_forwards_does_not_come_from_here() {
        let (edge, here) = ((&EDGE_SECRET_HEADER, EDGE), (&FORWARDED_FOR, "127.0.0.1"));
        comes_from(&[], Source::Local);
        comes_from(&[here], Source::Proxied);
        comes_from(&[(&HeaderName::from_static("via"), "1.1 nginx")], Source::Proxied);
        comes_from(&[(&SOURCE_HEADER, "network")], Source::Local);
        for source in [Source::Local, Source::Network, Source::Proxied] {
            comes_from(&[edge, here, (&SOURCE_HEADER, source_name(source))], source);
        }
        comes_from(&[edge, here, (&SOURCE_HEADER, "root")], Source::Proxied);
        comes_from(&[edge, here], Source::Proxied);
    }

    #[test]
    fn without_a_configured_secret_nothing_is_forwarded() {
        let mut map = HeaderMap::new();
        map.insert(EDGE_SECRET_HEADER, "".parse().unwrap());
        map.insert(FORWARDED_FOR, "127.0.0.1".parse().unwrap());
        let peer = "10.0.0.9".parse().unwrap();
        let expected = Some(Caller { ip: peer, via_edge: false, source: Source::Proxied });
        assert_eq!(Caller::read(&map, peer, None), expected);
        assert_eq!(Caller::read(&map, peer, Some(&Secret::from(""))), expected);
    }
}
