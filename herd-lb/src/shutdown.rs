//! The end: stop taking requests, let running ones finish, leave as soon as there are none.
//!
//! Pingora's own grace period is a blind sleep that an idle process waits out too, so the waiting is done here.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use herd_agent::Advertiser;
use pingora::server::{ShutdownSignal, ShutdownSignalWatch};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Mutex;

use crate::active::Active;
use crate::aliases::AliasKeeper;
use crate::fleet::Fleet;

/// How long those that are cut may take to be told so.
const FAREWELL: Duration = Duration::from_secs(2);

/// Waits for SIGTERM or SIGINT, then drains.
pub struct Drain {
    /// Told to take no more.
    pub fleet: Arc<Fleet>,
    /// Waited for.
    pub active: Active,
    /// How long running requests may take.
    pub limit: Duration,
    /// Taken away last.
    pub aliases: AliasKeeper,
    /// Taken back first, so that agents look for another edge.
    pub advertiser: Mutex<Option<Advertiser>>,
}

#[async_trait]
impl ShutdownSignalWatch for Drain {
    async fn recv(&self) -> ShutdownSignal {
        stop_signal().await;
        tracing::info!(active = self.active.count(), drain_ms = self.limit.as_millis(), "stopping");
        self.fleet.begin_drain();
        if let Some(advertiser) = self.advertiser.lock().await.take() {
            advertiser.stop().await;
        }
        tokio::select! {
            () = self.active.idle() => tracing::info!("all requests have finished"),
            () = tokio::time::sleep(self.limit) => {
                tracing::warn!(cut = self.active.count(), "shutdown.drain_ms is over: cutting what still runs");
                self.fleet.begin_cut();
                // Who is not reached by then takes nothing, or has nobody who could tell it.
                drop(tokio::time::timeout(FAREWELL, self.active.idle()).await);
            }
            () = stop_signal() => tracing::warn!(cut = self.active.count(), "second signal: stopping at once"),
        }
        self.aliases.end().await;
        ShutdownSignal::FastShutdown
    }
}

/// Resolves on SIGTERM or SIGINT; never, where signals cannot be listened to. A terminal that is closed, or who means to
/// reload with SIGHUP, does not cut streams.
async fn stop_signal() {
    let listening = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()), signal(SignalKind::hangup()));
    let (Ok(mut terminate), Ok(mut interrupt), Ok(mut hangup)) = listening else {
        tracing::error!("cannot listen to signals");
        return std::future::pending().await;
    };
    loop {
        tokio::select! {
            _ = terminate.recv() => return,
            _ = interrupt.recv() => return,
            Some(()) = hangup.recv() => {
                tracing::info!("SIGHUP is ignored: what may change while herd runs is changed in the dashboard");
            }
        }
    }
}
