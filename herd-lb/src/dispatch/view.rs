//! What waits, for observers (the admin API): a picture that is made by the one who hands out slots, so that looking takes no
//! lock that a request could meet.

use std::sync::Arc;

use herd_admin::{QueueView, WaitingView};
use herd_core::exchange::{Dispatch as _, Parked};
use herd_core::queue::Waiter;

use super::{Caller, Dispatcher};

/// Requests that are shown one by one; the counts are of all.
const SHOWN: usize = 256;
/// Shortest time between two pictures: with thousands waiting one costs as much as many decisions.
const EVERY_MS: u64 = 100;

impl Dispatcher {
    pub(super) fn publish_view(&self) {
        let at_ms = self.fleet.now_ms();
        let last = self.view.load();
        let picture = self.room(|room| {
            // That anything waits, and that nothing does any more, is told at once.
            let turned = room.is_empty() != (last.total == 0);
            let due = turned || at_ms.saturating_sub(last.at_ms) >= EVERY_MS;
            due.then(|| (room.len(), room.iter().map(|(waiter, parked)| shown(waiter, parked)).collect::<Vec<_>>()))
        });
        let Some((total, mut waiting)) = picture else { return };
        waiting.sort_by_key(|one| one.since_ms);
        waiting.truncate(SHOWN);
        self.view.store(Arc::new(QueueView { total, waiting, at_ms }));
    }
}

fn shown(waiter: &Waiter, parked: &Parked<Caller>) -> WaitingView {
    WaitingView {
        request_id: Arc::clone(&parked.caller.request_id),
        model: parked.seek.profile.model.clone(),
        class: waiter.class.name(),
        reason: parked.reason,
        since_ms: waiter.since_ms,
        predicted_ms: parked.predicted_ms,
    }
}
