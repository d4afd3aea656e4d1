//! What waits, for observers (the admin API): a picture that is made by the one who hands out slots, so that looking takes no
//! lock that a request could meet.

use std::sync::Arc;

use herd_admin::{QueueView, WaitingView};

use super::{Dispatcher, State};

/// Requests that are shown one by one; the counts are of all.
const SHOWN: usize = 256;
/// Shortest time between two pictures: with thousands waiting one costs as much as many decisions.
const EVERY_MS: u64 = 100;

impl Dispatcher {
    pub(super) fn publish_view(&self) {
        let at_ms = self.fleet.now_ms();
        let last = self.view.load();
        let state = self.lock();
        // That anything waits, and that nothing does any more, is told at once.
        let turned = state.queue.is_empty() != (last.total == 0);
        if !turned && at_ms.saturating_sub(last.at_ms) < EVERY_MS {
            return;
        }
        let total = state.queue.len();
        let mut waiting = waiting(&state);
        drop(state);
        waiting.sort_by_key(|one| one.since_ms);
        waiting.truncate(SHOWN);
        self.view.store(Arc::new(QueueView { total, waiting, at_ms }));
    }
}

fn waiting(state: &State) -> Vec<WaitingView> {
    let show = |waiter: &herd_core::queue::Waiter| {
        let parked = state.parked.get(&waiter.id)?;
        Some(WaitingView {
            request_id: Arc::clone(&parked.ask.request_id),
            model: parked.ask.seek.profile.model.clone(),
            class: waiter.class.name(),
            reason: parked.reason,
            since_ms: waiter.since_ms,
            predicted_ms: parked.predicted_ms,
        })
    };
    state.queue.iter().filter_map(show).collect()
}
