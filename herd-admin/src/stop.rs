//! Waiting for the end of the service.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

/// Waits until it is time to stop. A lost sender is one: nobody could stop the service any more.
pub(crate) async fn stopped(shutdown: &mut watch::Receiver<bool>) {
    drop(shutdown.wait_for(|stop| *stop).await);
}

/// Does `look` at once and then `every` so often, until it is time to stop; one that is under way then is dropped.
pub(crate) async fn repeated<F: Future<Output = ()>>(
    every: Duration,
    mut shutdown: watch::Receiver<bool>,
    mut look: impl FnMut() -> F,
) {
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let looks = async {
        loop {
            ticks.tick().await;
            look().await;
        }
    };
    tokio::select! {
        biased;
        () = stopped(&mut shutdown) => {}
        () = looks => {}
    }
}
