//! How many files this process may have open: each connection is one, and each request under way has two.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files besides connections: listeners, databases, logs, each runtime's own.
const SPARE: u64 = 256;

/// Raises the soft limit, which is often a thousand for old programs' sake, to the hard one, and tells when that is
/// less than `connections` clients need.
pub(crate) fn raise(connections: usize) {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let allowed = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(error) => {
            tracing::warn!(%error, "cannot raise the limit on open files");
            limit.current
        }
    };
    let needed = needed(connections);
    if let Some(allowed) = allowed.filter(|allowed| *allowed < needed) {
        tracing::warn!(allowed, needed, "fewer open files are allowed than limits.connections may need (ulimit -n)");
    }
}

/// A connection of a client and one to a node, for each.
fn needed(connections: usize) -> u64 {
    (connections as u64).saturating_mul(2).saturating_add(SPARE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        raise(1);
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
        assert_eq!((needed(1_000), needed(usize::MAX)), (2_256, u64::MAX));
    }
}
