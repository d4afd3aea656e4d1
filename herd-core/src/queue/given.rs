//! How much work clients and their applications have been given.

use std::collections::HashMap;

/// Clients whose share is remembered while nothing of theirs waits.
const CLIENTS_REMEMBERED: usize = 1_024;
/// The same of the applications of one client, which can make them up.
const APPS_REMEMBERED: usize = 64;

/// Work given to clients, and within each to its applications.
#[derive(Debug, Default)]
pub(super) struct Given {
    clients: Shares,
    apps: HashMap<u64, Shares>,
}

impl Given {
    /// Where the next work starts: of `client` among all, and of `app` among those of that client.
    pub(super) fn start_ms(&self, client: u64, app: u64) -> (f64, f64) {
        let apps = self.apps.get(&client);
        (self.clients.start_ms(client), apps.map_or(0.0, |apps| apps.start_ms(app)))
    }

    /// Has `app` of `client` pay for work of `cost_ms`.
    pub(super) fn give(&mut self, client: u64, app: u64, cost_ms: f64) {
        self.clients.give(client, cost_ms, CLIENTS_REMEMBERED);
        if self.apps.len() >= CLIENTS_REMEMBERED {
            let clients = &self.clients.given_ms;
            self.apps.retain(|client, _| clients.contains_key(client));
        }
        if self.apps.len() < CLIENTS_REMEMBERED || self.apps.contains_key(&client) {
            self.apps.entry(client).or_default().give(app, cost_ms, APPS_REMEMBERED);
        }
    }
}

/// Work given to each of several, on a common virtual clock of milliseconds.
#[derive(Debug, Default)]
struct Shares {
    given_ms: HashMap<u64, f64>,
    /// Where the clock stands: nobody is behind it, so that idleness earns no credit.
    clock_ms: f64,
}

impl Shares {
    fn start_ms(&self, who: u64) -> f64 {
        self.given_ms.get(&who).copied().unwrap_or(0.0).max(self.clock_ms)
    }

    /// Remembers that `who` was given work of `cost_ms`, as long as `most` are not exceeded.
    fn give(&mut self, who: u64, cost_ms: f64, most: usize) {
        let start_ms = self.start_ms(who);
        self.clock_ms = self.clock_ms.max(start_ms);
        if self.given_ms.len() >= most {
            let clock_ms = self.clock_ms;
            self.given_ms.retain(|_, given_ms| *given_ms > clock_ms);
        }
        if self.given_ms.len() < most || self.given_ms.contains_key(&who) {
            self.given_ms.insert(who, start_ms + cost_ms);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_clients_make_up_takes_no_more_than_its_bounds() {
        let mut given = Given::default();
        for number in 0..5_000 {
            given.give(number, number, 10.0);
            given.give(1, number, 1.0);
        }
        assert!(given.clients.given_ms.len() <= CLIENTS_REMEMBERED && given.apps.len() <= CLIENTS_REMEMBERED);
        assert!(given.apps.values().all(|apps| apps.given_ms.len() <= APPS_REMEMBERED));
    }
}
