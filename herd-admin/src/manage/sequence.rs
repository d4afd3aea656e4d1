//! What belongs together: a client that creates a model sends its files first, and all of it must go to one node.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use herd_core::places::client_of;

/// Clients that are remembered; beyond it the one that was idle longest goes.
const CLIENTS_MAX: usize = 256;
/// Files that are remembered, the oldest goes first.
const FILES_MAX: usize = 4_096;
/// How long a client may pause between two requests of a sequence: an upload of tens of gigabytes ends with one request.
const PAUSE_MS: u64 = 3_600_000;

/// Which node each client's sequence of requests goes to, and where files were put. Never written to disk: after a restart
/// a client is told that its files are missing, and sends them again.
#[derive(Debug, Default)]
pub(crate) struct Sequences(Mutex<Book>);

#[derive(Debug, Default)]
struct Book {
    clients: BTreeMap<IpAddr, (String, u64)>,
    /// Digest and node.
    files: VecDeque<(String, String)>,
}

impl Sequences {
    /// The node of the sequence that `client` is in, if it is in one.
    pub(crate) fn node(&self, client: IpAddr, now_ms: u64) -> Option<String> {
        let book = self.book();
        let (node, used_ms) = book.clients.get(&client_of(client))?;
        (now_ms.saturating_sub(*used_ms) < PAUSE_MS).then(|| node.clone())
    }

    /// The sequence of `client` goes on at `node`.
    pub(crate) fn goes_on(&self, client: IpAddr, node: &str, now_ms: u64) {
        let mut book = self.book();
        let client = client_of(client);
        if book.clients.len() >= CLIENTS_MAX && !book.clients.contains_key(&client) {
            let idlest = book.clients.iter().min_by_key(|(_, (_, used_ms))| *used_ms).map(|(client, _)| *client);
            idlest.map(|client| book.clients.remove(&client));
        }
        book.clients.insert(client, (node.to_owned(), now_ms));
    }

    /// The file of `digest` is on `node`.
    pub(crate) fn has_file(&self, digest: &str, node: &str) {
        let mut book = self.book();
        if book.files.iter().any(|(known, at)| known == digest && at == node) {
            return;
        }
        if book.files.len() >= FILES_MAX {
            book.files.pop_front();
        }
        book.files.push_back((digest.to_owned(), node.to_owned()));
    }

    /// The node that has most of the files of `digests`, as far as they were put there through herd; `None` = no node has
    /// any.
    pub(crate) fn node_with_files(&self, digests: &[&str]) -> Option<String> {
        let book = self.book();
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for (digest, node) in &book.files {
            if digests.contains(&digest.as_str()) {
                *counts.entry(node).or_default() += 1;
            }
        }
        counts.into_iter().max_by_key(|(_, count)| *count).map(|(node, _)| node.to_owned())
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        // Each change is complete before anything can panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_sequence_stays_on_its_node_until_its_client_pauses_for_long() {
        let sequences = Sequences::default();
        sequences.goes_on(ip("10.0.0.1"), "a", 1_000);
        assert_eq!(sequences.node(ip("::ffff:10.0.0.1"), 2_000).as_deref(), Some("a"));
        assert_eq!(sequences.node(ip("10.0.0.2"), 2_000), None);
        assert_eq!(sequences.node(ip("10.0.0.1"), 1_000 + PAUSE_MS), None);
    }

    #[test]
    fn files_are_found_where_most_of_them_are() {
        let sequences = Sequences::default();
        for (digest, node) in [("d1", "a"), ("d1", "b"), ("d2", "b"), ("d2", "b")] {
            sequences.has_file(digest, node);
        }
        assert_eq!(sequences.node_with_files(&["d1", "d2"]).as_deref(), Some("b"));
        assert_eq!(sequences.node_with_files(&["d3"]), None);
        assert_eq!(sequences.book().files.len(), 3);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let sequences = Sequences::default();
        for number in 0..u32::try_from(2 * CLIENTS_MAX).unwrap() {
            sequences.goes_on(IpAddr::from(number.to_be_bytes()), "a", u64::from(number));
        }
        let full = (0..FILES_MAX).map(|number| (number.to_string(), "a".to_owned()));
        sequences.book().files.extend(full);
        sequences.has_file("new", "a");
        assert_eq!(sequences.book().clients.len(), CLIENTS_MAX);
        assert_eq!(sequences.book().files.len(), FILES_MAX);
        assert_eq!(sequences.node_with_files(&["0"]), None, "the oldest went");
        assert_eq!(sequences.node(ip("0.0.0.0"), 9_000), None, "the idlest went");
    }
}
