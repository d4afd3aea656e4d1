//! Which addresses are the local network: the one definition that joining, the dashboard and everything else asks.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// The word in `fleet.networks` for [`LAN`] and the prefixes that this machine is on.
pub const LAN_WORD: &str = "lan";

/// What is a local network everywhere: RFC 1918, link-local, unique local, and the shared address space of RFC 6598,
/// which Tailscale, Headscale, `NetBird` and carrier-grade NAT give out and which nobody can send from on the Internet.
pub const LAN: [Prefix; 7] = [
    Prefix::v4([10, 0, 0, 0], 8),
    Prefix::v4([172, 16, 0, 0], 12),
    Prefix::v4([192, 168, 0, 0], 16),
    Prefix::v4([169, 254, 0, 0], 16),
    Prefix::v4([100, 64, 0, 0], 10),
    Prefix::v6(0xfc00, 7),
    Prefix::v6(0xfe80, 10),
];

/// Shortest prefix of an interface that is taken for a network of neighbours: a tunnel that routes a larger part of the
/// Internet (`0.0.0.0/1`) is none.
const ON_LINK_BITS_MIN: (u8, u8) = (12, 48);

/// A block of addresses, `10.0.0.0/8` or `fc00::/7`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefix {
    address: IpAddr,
    bits: u8,
}

impl Prefix {
    /// The block of `bits` leading bits around `address`; `None` = it has not so many.
    #[must_use]
    pub fn new(address: IpAddr, bits: u8) -> Option<Self> {
        // An IPv4 address in its IPv6 form is the same address, and its prefix 96 bits shorter.
        let (address, bits) = match (address, address.to_canonical()) {
            (IpAddr::V6(_), v4 @ IpAddr::V4(_)) if bits >= 96 => (v4, bits - 96),
            _ => (address, bits),
        };
        (bits <= width(address)).then_some(Self { address, bits })
    }

    const fn v4(octets: [u8; 4], bits: u8) -> Self {
        Self { address: IpAddr::V4(Ipv4Addr::from_octets(octets)), bits }
    }

    const fn v6(first: u16, bits: u8) -> Self {
        Self { address: IpAddr::V6(Ipv6Addr::new(first, 0, 0, 0, 0, 0, 0, 0)), bits }
    }

    /// Whether `ip` is in it. IPv4 in its IPv6 form is IPv4.
    #[must_use]
    pub fn contains(&self, ip: IpAddr) -> bool {
        let (own, bits) = number(self.address);
        let (other, of) = number(ip.to_canonical());
        let rest = u32::from(bits - self.bits);
        bits == of && (own ^ other).checked_shr(rest).unwrap_or(0) == 0
    }
}

impl FromStr for Prefix {
    type Err = PrefixError;

    /// Reads `ADDRESS/BITS`, or an address alone.
    fn from_str(text: &str) -> Result<Self, PrefixError> {
        let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address: IpAddr = address.parse().map_err(|_| PrefixError)?;
        let bits = bits.map_or(Ok(width(address)), |bits| bits.parse().map_err(|_| PrefixError))?;
        Self::new(address, bits).ok_or(PrefixError)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

/// A text that is not a block of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is not a network like 192.168.0.0/16 or fd00::/8")]
pub struct PrefixError;

fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// The bits of an address, and how many there are.
fn number(address: IpAddr) -> (u128, u8) {
    match address {
        IpAddr::V4(ip) => (u32::from(ip).into(), 32),
        IpAddr::V6(ip) => (ip.into(), 128),
    }
}

/// The networks from which nodes may join and from which the dashboard may be seen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Networks {
    prefixes: Vec<Prefix>,
    /// Addresses of this machine itself.
    own: Vec<IpAddr>,
}

impl Networks {
    /// What an operator lists as `fleet.networks`, for a machine whose interfaces have the addresses and prefix lengths
    /// `interfaces`. [`LAN_WORD`] stands for [`LAN`] and the prefixes of the interfaces.
    ///
    /// # Errors
    /// With the first entry that is neither that word nor a block of addresses.
    pub fn new<'a>(listed: &'a [String], interfaces: &[(IpAddr, u8)]) -> Result<Self, &'a str> {
        let mut prefixes = Vec::new();
        for entry in listed {
            if entry == LAN_WORD {
                prefixes.extend(LAN);
                prefixes.extend(interfaces.iter().filter_map(|(ip, bits)| on_link(*ip, *bits)));
            } else {
                prefixes.push(entry.parse().map_err(|_| entry.as_str())?);
            }
        }
        Ok(Self { prefixes, own: interfaces.iter().map(|(ip, _)| ip.to_canonical()).collect() })
    }

    /// The local networks of a machine of whose interfaces nothing is known.
    #[must_use]
    pub fn lan() -> Self {
        Self { prefixes: LAN.to_vec(), own: Vec::new() }
    }

    /// Whether `ip` is one of them. This machine itself always is.
    #[must_use]
    pub fn contains(&self, ip: IpAddr) -> bool {
        self.is_own(ip) || self.prefixes.iter().any(|prefix| prefix.contains(ip))
    }

    /// Whether `ip` is an address of this machine.
    #[must_use]
    pub fn is_own(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        ip.is_loopback() || self.own.contains(&ip)
    }
}

/// The network that an interface is on; `None` = it is too large to be one of neighbours.
fn on_link(ip: IpAddr, bits: u8) -> Option<Prefix> {
    let prefix = Prefix::new(ip, bits)?;
    let least = if prefix.address.is_ipv4() { ON_LINK_BITS_MIN.0 } else { ON_LINK_BITS_MIN.1 };
    (prefix.bits >= least).then_some(prefix)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(listed: &[&str], interfaces: &[(&str, u8)]) -> Networks {
        let listed: Vec<String> = listed.iter().map(|entry| (*entry).to_owned()).collect();
        let interfaces: Vec<_> = interfaces.iter().map(|(ip, bits)| (ip.parse().unwrap(), *bits)).collect();
        Networks::new(&listed, &interfaces).unwrap()
    }

    #[track_caller]
    fn check(networks: &Networks, inside: &[&str], outside: &[&str]) {
        let has = |ip: &&&str| networks.contains(ip.parse().unwrap());
        assert_eq!(inside.iter().filter(|ip| !has(ip)).collect::<Vec<_>>(), <Vec<&&str>>::new(), "are inside");
        assert_eq!(outside.iter().filter(has).collect::<Vec<_>>(), <Vec<&&str>>::new(), "are outside");
    }

    #[test]
    fn the_lan_is_private_and_overlay_addresses_and_the_links_of_this_machine() {
        let lan = networks(&["lan"], &[("203.0.113.5", 24), ("2001:db8:1::5", 64), ("198.51.100.9", 1)]);
        let private =
            ["127.0.0.1", "::1", "10.1.2.3", "172.31.0.1", "192.168.7.1", "169.254.1.1", "fe80::1", "fd00::7"];
        check(&lan, &private, &["172.32.0.1", "11.0.0.1", "8.8.8.8", "2001:4860::8888", "fec0::1"]);
        let overlays = ["100.64.0.1", "100.101.1.1", "100.127.255.254", "fd7a:115c:a1e0::1", "::ffff:100.101.1.1"];
        check(&lan, &overlays, &["100.63.255.255", "100.128.0.1", "::ffff:100.128.0.1"]);
        check(
            &lan,
            &["203.0.113.77", "2001:db8:1::99", "198.51.100.9"],
            &["203.0.114.1", "2001:db8:2::1", "198.51.100.8"],
        );
    }

    #[test]
    fn a_list_replaces_the_lan_but_never_this_machine() {
        let only = networks(&["10.20.0.0/16", "2001:db8::/32"], &[("192.168.1.2", 24)]);
        check(&only, &["10.20.3.4", "2001:db8:ffff::1", "127.0.0.1", "192.168.1.2"], &["10.21.0.1", "192.168.1.3"]);
        let both = networks(&["lan", "203.0.113.7"], &[]);
        check(&both, &["203.0.113.7", "192.168.1.3"], &["203.0.113.8"]);
        check(&networks(&["0.0.0.0/0", "::/0"], &[]), &["8.8.8.8", "2001:4860::8888"], &[]);
        check(&networks(&[], &[]), &["127.0.0.1"], &["10.0.0.1", "fe80::1"]);
    }

    #[test]
    fn what_is_no_network_is_named() {
        for wrong in ["", "LAN", "10.0.0.0/33", "10.0.0/8", "fd00::/129", "10.0.0.0/", "10.0.0.0/-1", "host"] {
            let listed = ["lan".to_owned(), wrong.to_owned()];
            assert_eq!(Networks::new(&listed, &[]), Err(wrong), "{wrong}");
        }
        assert_eq!("::ffff:10.0.0.0/104".parse::<Prefix>().unwrap().to_string(), "10.0.0.0/8");
    }
}
