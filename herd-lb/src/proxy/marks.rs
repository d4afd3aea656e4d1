//! What the edge's own benchmarks say of their requests, in headers that count beside the edge's secret alone.

use herd_admin::{BENCHMARK_HEADER, EDGE_SECRET_HEADER, ONLY_NODE_HEADER, Secret};
use herd_core::fleet::FleetSnapshot;
use pingora::http::RequestHeader;

/// What is special about a request; of a client's, nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Marks {
    /// The one node that may serve it.
    pub only_node: Option<String>,
    /// It measures: it teaches the edge nothing, counts as nobody's use, and fails at once where another would wait for
    /// a node that is away, a pull, or another model.
    pub benchmark: bool,
}

impl Marks {
    /// Takes the headers that tell it out of `request`, whoever wrote them: no node and no client has use for them.
    pub(super) fn take(request: &mut RequestHeader, edge_secret: &str) -> Self {
        let shown = request.remove_header(&EDGE_SECRET_HEADER);
        let (node, run) = (request.remove_header(&ONLY_NODE_HEADER), request.remove_header(&BENCHMARK_HEADER));
        if !shown.is_some_and(|shown| Secret::from(edge_secret).is(shown.as_bytes())) {
            return Self::default();
        }
        let only_node = node.map(|id| String::from_utf8_lossy(id.as_bytes()).into_owned());
        Self { only_node, benchmark: run.is_some() }
    }

    /// Numbers of the nodes that may not serve it, as if they had been asked.
    pub(super) fn others(&self, snapshot: &FleetSnapshot) -> Vec<u32> {
        let Some(only) = &self.only_node else { return Vec::new() };
        snapshot.nodes.iter().filter(|node| node.id.as_str() != only).map(|node| node.number).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(secret: Option<&str>, expected: &Marks) {
        let mut request = RequestHeader::build("POST", b"/api/chat", None).unwrap();
        for (name, value) in [(ONLY_NODE_HEADER, "a"), (BENCHMARK_HEADER, "run")] {
            request.append_header(name.clone(), value).unwrap();
            // Doubled, as a hostile client may: none of them may be left.
            request.append_header(name, "again").unwrap();
        }
        if let Some(secret) = secret {
            request.append_header(EDGE_SECRET_HEADER, secret).unwrap();
        }
        assert_eq!(Marks::take(&mut request, "secret"), *expected, "{secret:?}");
        assert!(request.headers.is_empty(), "{:?}", request.headers);
    }

    #[test]
    fn marks_count_beside_the_secret_alone_and_are_never_left() {
        check(None, &Marks::default());
        check(Some(""), &Marks::default());
        check(Some("guess!"), &Marks::default());
        check(Some("secret"), &Marks { only_node: Some("a".into()), benchmark: true });
    }
}
