//! The fleet as this edge knows it: one immutable picture, replaced as a whole by one writer at a time.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, ArcSwapOption};
use herd_core::awake::AwakeClock;
use herd_core::choice::{FleetView, Freed};
use herd_core::decide::Policy;
use herd_core::fleet::{Applied, FleetSnapshot, HeartbeatError, HeartbeatLimits, Loaded, ModelChange, Sender};
use herd_core::name::ModelName;
use herd_core::network::Networks;
use herd_core::wire::Heartbeat;
use tokio::sync::Notify;

use crate::wake::Wake;

/// The fleet, and what all parts of the edge share about it.
#[derive(Debug)]
pub struct Fleet {
    snapshot: ArcSwap<FleetSnapshot>,
    writer: Mutex<()>,
    membership: Notify,
    /// Ollamas are looked for before anything is sent to them.
    verifies: bool,
    unverified: Notify,
    started: Instant,
    clock: AwakeClock,
    policy: ArcSwap<Policy>,
    limits: HeartbeatLimits,
    networks: ArcSwap<Networks>,
    /// Why the last agent was turned away; empty = none was since a node joined.
    refused: ArcSwap<String>,
    /// Nodes that were known before this start; `None` = not known yet who was.
    expected: ArcSwapOption<BTreeSet<String>>,
    wake: Arc<Wake>,
    tickets: AtomicU64,
    draining: AtomicBool,
    cutting: AtomicBool,
}

impl Fleet {
    /// An empty fleet.
    #[must_use]
    pub fn new(policy: Policy, limits: HeartbeatLimits) -> Self {
        Self {
            snapshot: ArcSwap::from_pointee(FleetSnapshot::default()),
            writer: Mutex::new(()),
            membership: Notify::new(),
            verifies: false,
            unverified: Notify::new(),
            started: Instant::now(),
            clock: AwakeClock::default(),
            policy: ArcSwap::from_pointee(policy),
            limits,
            networks: ArcSwap::from_pointee(Networks::lan()),
            refused: ArcSwap::default(),
            expected: ArcSwapOption::empty(),
            wake: Arc::default(),
            tickets: AtomicU64::new(0),
            draining: AtomicBool::new(false),
            cutting: AtomicBool::new(false),
        }
    }

    /// The same, where nothing is sent to a node before somebody who waits for [`Self::has_unverified`] has seen its
    /// Ollama.
    #[must_use]
    pub fn verifying(self) -> Self {
        Self { verifies: true, ..self }
    }

    /// A number that no earlier choice has had: equals take turns by it.
    #[must_use]
    pub fn ticket(&self) -> u64 {
        self.tickets.fetch_add(1, Relaxed) + 1
    }

    /// What is nudged when the fleet has changed or a slot is free.
    #[must_use]
    pub fn changed(&self) -> Arc<Wake> {
        Arc::clone(&self.wake)
    }

    /// Notes a load that a request has caused, ahead of the heartbeat that will tell of it.
    pub fn loaded(&self, loaded: &Loaded<'_>) {
        let now_ms = self.now_ms();
        self.update(|snapshot| snapshot.with_loaded(loaded, now_ms));
    }

    /// Notes what herd did to `model` on the node named `id`, ahead of the heartbeat that will tell of it.
    pub fn model_changed(&self, id: &str, model: &ModelName, change: ModelChange<'_>) {
        let now_ms = self.now_ms();
        self.update(|snapshot| snapshot.with_change(id, model, change, now_ms));
    }

    /// Stops taking new requests.
    pub fn begin_drain(&self) {
        self.draining.store(true, Relaxed);
    }

    /// Ends what still runs or waits: each request is told so.
    pub fn begin_cut(&self) {
        self.cutting.store(true, Relaxed);
        self.wake.nudge();
    }

    /// Whether requests that run or wait are to end now.
    #[must_use]
    pub fn cutting(&self) -> bool {
        self.cutting.load(Relaxed)
    }

    /// Resolves after nodes came, went or moved.
    pub async fn membership_changed(&self) {
        self.membership.notified().await;
    }

    /// Resolves after a heartbeat of a node whose Ollama nobody has seen.
    pub async fn has_unverified(&self) {
        self.unverified.notified().await;
    }

    /// Has every node that can serve `name`, a model of Ollama's cloud that no node lists.
    pub fn offer_remote(&self, name: &ModelName) {
        // Mostly they serve it already, and requests must not wait for each other or for a heartbeat.
        if name.is_cloud() && self.snapshot.load().with_remote(name).is_some() {
            self.update(|snapshot| snapshot.with_remote(name));
        }
    }

    /// Forgets the nodes that have been silent for too long.
    pub fn expire(&self) {
        let now_ms = self.now_ms();
        let life = self.policy.load().life;
        self.update(|snapshot| snapshot.expired(now_ms, &life));
    }

    /// Replaces the picture by what `change` makes of it; true = there is a new one.
    fn update(&self, change: impl FnOnce(&FleetSnapshot) -> Option<FleetSnapshot>) -> bool {
        let _writer = self.lock();
        let before = self.snapshot.load_full();
        let Some(after) = change(&before) else { return false };
        self.publish(&before, after);
        true
    }

    fn publish(&self, before: &FleetSnapshot, after: FleetSnapshot) {
        let members = |snapshot: &FleetSnapshot| -> Vec<_> {
            snapshot.nodes.iter().map(|node| (node.number, node.address)).collect()
        };
        let moved = members(before) != members(&after);
        self.snapshot.store(Arc::new(after));
        self.wake.nudge();
        if moved {
            self.membership.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, ()> {
        // It guards no data of its own, so that a panic while holding it leaves nothing half done.
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Fleet {
    /// The fleet now. Never waits.
    #[must_use]
    pub fn snapshot(&self) -> Arc<FleetSnapshot> {
        self.snapshot.load_full()
    }

    /// The edge's monotonic clock, milliseconds from its start. It stands still while this process does not run: what
    /// arrived meanwhile is not late.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        self.clock.read(|| self.raw_ms())
    }

    /// Says that the edge runs, at least every [`herd_core::awake::BEAT_MS`].
    pub fn beat(&self) {
        if let Some(slept_ms) = self.clock.beat(self.raw_ms()) {
            tracing::warn!(slept_ms, "the process did not run; ages and deadlines are put off by as much");
        }
    }

    /// How often the edge has not run for some seconds, and for how long in all, milliseconds.
    #[must_use]
    pub fn slept(&self) -> (u64, u64) {
        (self.clock.sleeps(), self.clock.slept_ms())
    }

    /// Resolves when [`Self::now_ms`] has reached `at_ms`.
    pub async fn until(&self, at_ms: u64) {
        loop {
            let left_ms = at_ms.saturating_sub(self.now_ms());
            if left_ms == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(left_ms)).await;
        }
    }

    fn raw_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// How requests are decided now.
    #[must_use]
    pub fn policy(&self) -> Arc<Policy> {
        self.policy.load_full()
    }

    /// The local networks, as this machine's interfaces are now. Never waits.
    #[must_use]
    pub fn networks(&self) -> Arc<Networks> {
        self.networks.load_full()
    }

    /// Reads the interfaces of this machine anew for what the operator `listed`.
    pub fn look_at_interfaces(&self, listed: &[String]) {
        // What is not a network was refused with the configuration.
        if let Ok(networks) = Networks::new(listed, &herd_agent::interfaces()) {
            self.networks.store(Arc::new(networks));
        }
    }

    /// Decides otherwise from now on.
    pub fn set_policy(&self, policy: Policy) {
        self.policy.store(Arc::new(policy));
    }

    /// Takes a heartbeat; returns the node's state then.
    ///
    /// # Errors
    /// When it is refused.
    pub fn heartbeat(&self, heartbeat: Heartbeat, sender: Sender) -> Result<&'static str, HeartbeatError> {
        let id = heartbeat.node_id.clone();
        let now_ms = self.now_ms();
        let life = self.policy.load().life;
        let _writer = self.lock();
        let before = self.snapshot.load_full();
        let sender = Sender { to_be_verified: self.verifies, ..sender };
        let applied = before.apply(heartbeat, sender, now_ms, &life, &self.limits);
        if let Err(error) = &applied {
            self.refused.store(Arc::new(format!("the agent at {} is turned away: {error}", sender.ip)));
        }
        if let Applied::Changed(after) = applied? {
            log_transitions(&before, &after, &id, now_ms, &life);
            self.publish(&before, after);
        }
        let now = self.snapshot.load();
        let node = now.node(&id);
        if node.is_some_and(|node| !node.load.is_verified()) {
            self.unverified.notify_one();
        }
        Ok(node.map_or("unknown", |node| node.state(now_ms, &life).name()))
    }

    /// Cordons the node named `id`, which then gets no new requests, or uncordons it; false = there is none.
    pub fn set_cordon(&self, id: &str, cordoned: bool) -> bool {
        self.update(|snapshot| snapshot.with_cordon(id, cordoned))
    }

    /// Forgets the node named `id` until its next heartbeat; false = there is none. Its requests finish.
    pub fn remove(&self, id: &str) -> bool {
        self.update(|snapshot| snapshot.without(&snapshot.node(id)?.id))
    }

    /// Says which nodes were known before this start.
    pub fn expect(&self, ids: BTreeSet<String>) {
        self.expected.store(Some(Arc::new(ids)));
        self.wake.nudge();
    }

    /// Whether a node that was known before this start may still come.
    #[must_use]
    pub fn awaits_known(&self) -> bool {
        let snapshot = self.snapshot.load();
        self.expected.load().as_ref().is_none_or(|ids| ids.iter().any(|id| snapshot.node(id).is_none()))
    }

    /// What to say where a fleet without nodes is asked for something; `None` = there are nodes.
    #[must_use]
    pub fn why_empty(&self) -> Option<String> {
        if !self.snapshot.load().nodes.is_empty() {
            return None;
        }
        let refused = self.refused.load();
        let turned_away = if refused.is_empty() { String::new() } else { format!("; {refused}") };
        Some(format!("{}{turned_away}", herd_admin::NO_NODES))
    }

    /// Whether new requests are turned away.
    #[must_use]
    pub fn draining(&self) -> bool {
        self.draining.load(Relaxed)
    }
}

impl FleetView for Fleet {
    fn snapshot(&self) -> Arc<FleetSnapshot> {
        self.snapshot()
    }

    fn policy(&self) -> Arc<Policy> {
        self.policy()
    }

    fn now_ms(&self) -> u64 {
        self.now_ms()
    }

    fn ticket(&self) -> u64 {
        self.ticket()
    }

    fn freed(&self) -> Option<Arc<dyn Freed>> {
        Some(self.changed())
    }
}

/// One line when a node joins or changes its state, none for every heartbeat.
fn log_transitions(
    before: &FleetSnapshot,
    after: &FleetSnapshot,
    id: &str,
    now_ms: u64,
    life: &herd_core::fleet::LifeLimits,
) {
    let state = |snapshot: &FleetSnapshot| snapshot.node(id).map(|node| node.state(now_ms, life).name());
    let Some(node) = after.node(id) else { return };
    match (state(before), state(after)) {
        (None, Some(now)) => {
            tracing::info!(node_id = id, address = %node.address, state = now, models = node.models.len(), "node joined");
        }
        (Some(was), Some(now)) if was != now => tracing::info!(node_id = id, was, now, "node changed its state"),
        _ => {}
    }
}
