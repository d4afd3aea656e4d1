//! The mark that requests to nodes carry, by which this process knows them when they come back.

use std::sync::LazyLock;

use http::HeaderMap;
use http::header::VIA;

use crate::access::random_hex;

/// What every request from here to a node carries as `Via`: the protocol, and a name that no other process has.
pub static MARK: LazyLock<String> = LazyLock::new(|| {
    // Without randomness from the system, which it never lacks, the process has a number that others may have elsewhere.
    let name = random_hex::<8>().unwrap_or_else(|_| std::process::id().to_string());
    format!("1.1 herd-{name}")
});

/// Whether a request has been here before, and was sent to a node that is a herd: it would go round for ever.
#[must_use]
pub fn has_come_back(headers: &HeaderMap) -> bool {
    let entries = headers.get_all(VIA).iter().filter_map(|value| value.to_str().ok());
    entries.flat_map(|value| value.split(',')).any(|entry| entry.trim() == MARK.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ones_own_mark_is_a_loop() {
        let check = |values: &[&str], expected: bool| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(VIA, value.parse().unwrap());
            }
            assert_eq!(has_come_back(&headers), expected, "{values:?}");
        };
        let own = MARK.as_str();
        check(&[], false);
        check(&["1.1 nginx", "1.1 herd-0123456789abcdef"], false);
        check(&[own], true);
        check(&["1.1 nginx", &format!("1.1 herd-0123456789abcdef,{own} , 1.1 caddy")], true);
        check(&[&format!("{own}0")], false);
    }
}
