//! Disks: of the nodes, where models are, and of the edge, where traces are.

use super::fix;
use super::{Inputs, Seen, Severity, StoreState, human_bytes, share};
use crate::fleet::Node;
use crate::pull::disk_available;

/// Bytes below which a disk counts as full.
const FULL_BYTES: u64 = 1_000_000_000;

/// A full disk fails pulls, and then the machine.
pub(super) fn disk_low(inputs: &Inputs<'_>, _: u64) -> Vec<Seen> {
    let reserve = inputs.policy.pull.disk_reserve_bytes;
    let low = inputs.nodes().filter_map(|node| Some((node, disk_available(node)?)));
    low.filter(|(_, free)| *free < reserve)
        .map(|(node, free)| {
            let severity = if free < FULL_BYTES { Severity::Critical } else { Severity::Warning };
            let detail = format!("{} are free; pulls leave {} alone.", human_bytes(free), human_bytes(reserve));
            let (fix, spare) = spare_model(inputs, node);
            Seen::on(node, detail)
                .severity(severity)
                .with("available_bytes", free)
                .with("reserve_bytes", reserve)
                .with_known("spare_model_bytes", spare)
                .fix(fix)
        })
        .collect()
}

/// The largest model there that was not asked for in a day, where a day has been counted.
fn spare_model(inputs: &Inputs<'_>, node: &Node) -> (String, Option<u64>) {
    const DAY_MS: u64 = 86_400_000;
    let stats = inputs.stats;
    let is_idle = |name: &str| stats.pair(node.id.as_str(), name).is_none_or(|row| row.day.requests == 0);
    let idle = node.models.iter().filter(|model| model.resident.is_none() && is_idle(model.name.as_str()));
    let largest = idle.filter(|_| stats.observed_ms >= DAY_MS).max_by_key(|model| model.size_bytes);
    match largest {
        Some(model) => (fix::ollama("rm", model.name.as_str()), model.size_bytes),
        None => ("ollama ls  # remove what is not needed: ollama rm MODEL".into(), None),
    }
}

/// Traffic goes on without it; usage, history and this page suffer.
pub(super) fn store_broken(inputs: &Inputs<'_>, _: u64) -> Vec<Seen> {
    let store = &inputs.stats.edge.store;
    let (severity, detail) = match store.state {
        StoreState::Ok | StoreState::Disabled => return Vec::new(),
        StoreState::Unwritable => (Severity::Critical, "It cannot be written."),
        StoreState::Broken => (Severity::Critical, "It cannot be opened."),
        StoreState::SetAside => (Severity::Warning, "Its file was corrupt; it is kept beside the new one."),
    };
    let seen = Seen::in_fleet(detail)
        .severity(severity)
        .with("file_bytes", store.file_bytes)
        .with_known("disk_free_bytes", store.disk_free_bytes);
    vec![seen.fix("ls -l ~/.fleet-manager && df -h ~/.fleet-manager")]
}

/// The writer does not keep up, or fails.
pub(super) fn traces_dropped(inputs: &Inputs<'_>, min_samples: u64) -> Vec<Seen> {
    let dropped = inputs.stats.edge.store.dropped_hour;
    if dropped < min_samples.max(1) {
        return Vec::new();
    }
    let requests = inputs.stats.edge.hour.requests;
    let seen = Seen::in_fleet(format!("{dropped} traces were lost within the last hour."))
        .with("dropped", dropped)
        .with("dropped_share", share(dropped, requests));
    vec![seen.fix("df -h ~/.fleet-manager && iostat -x 1 3  # is the disk full or slow?")]
}

/// Share of the store's own size that should be free for it.
const STORE_SHARE: u64 = 10;

/// The store is about to run out of disk.
pub(super) fn store_disk_low(inputs: &Inputs<'_>, _: u64) -> Vec<Seen> {
    let store = &inputs.stats.edge.store;
    let needed = FULL_BYTES.max(store.file_bytes / STORE_SHARE);
    match store.disk_free_bytes {
        Some(free) if free < needed && store.state != StoreState::Disabled => {
            let detail = format!("{} are free beside {} of traces.", human_bytes(free), human_bytes(store.file_bytes));
            let seen = Seen::in_fleet(detail).with("disk_free_bytes", free).with("file_bytes", store.file_bytes);
            vec![seen.fix("df -h ~/.fleet-manager  # make room, or set FLEET_DATA_DIR to another disk")]
        }
        _ => Vec::new(),
    }
}

/// Share of `store.max_bytes` from which on the store is about to be full, percent.
const FILLING_PERCENT: u64 = 80;

/// What is kept of the past is about to be cut.
pub(super) fn store_filling(inputs: &Inputs<'_>, _: u64) -> Vec<Seen> {
    let store = &inputs.stats.edge.store;
    if store.max_bytes == 0 || store.used_bytes < store.max_bytes / 100 * FILLING_PERCENT {
        return Vec::new();
    }
    let detail = format!(
        "{} of {} are used. Beyond that, roll-ups by the minute go, then those by the hour of more than a month ago, then \
         the oldest requests.",
        human_bytes(store.used_bytes),
        human_bytes(store.max_bytes)
    );
    let seen = Seen::in_fleet(detail).with("used_bytes", store.used_bytes).with("max_bytes", store.max_bytes);
    let larger_bytes = store.max_bytes.saturating_mul(2);
    vec![seen.fix(format!("FLEET_STORE_MAX_BYTES={larger_bytes} herd  # or keep less: lower FLEET_STORE_RAW_DAYS"))]
}

/// Ages of what is kept mean nothing while the clock may be wrong.
pub(super) fn clock_stepped(inputs: &Inputs<'_>, _: u64) -> Vec<Seen> {
    let Some(step_ms) = inputs.stats.edge.store.clock_step_ms else { return Vec::new() };
    let (seconds, way) = (step_ms.unsigned_abs() / 1_000, if step_ms < 0 { "back" } else { "ahead" });
    let detail = format!(
        "It was set {way} by {seconds} s within the last day. Until it has held for a day, nothing is deleted by age; charts \
         of that time have a gap or are doubled."
    );
    let seen = Seen::in_fleet(detail).with("step_seconds", step_ms as f64 / 1_000.0);
    vec![seen.fix("timedatectl status  # is the time synchronised?")]
}

/// A stopped process serves nobody, and its nodes look silent.
pub(super) fn edge_asleep(inputs: &Inputs<'_>, min_samples: u64) -> Vec<Seen> {
    let sleeps = inputs.stats.edge.hour.sleeps;
    if sleeps < min_samples.max(1) {
        return Vec::new();
    }
    let detail = format!("{sleeps} times within the last hour; ages and deadlines were put off by as much.");
    let seen = Seen::in_fleet(detail).with("sleeps", sleeps);
    vec![seen.fix("systemd-inhibit --what=sleep herd  # is the machine suspended, or short of memory?")]
}

/// Clients wait for models that never come.
pub(super) fn auto_pull_failed(inputs: &Inputs<'_>, min_samples: u64) -> Vec<Seen> {
    let day = &inputs.stats.edge.day;
    if day.auto_pulls_failed < min_samples.max(1) {
        return Vec::new();
    }
    let detail = format!("{} of {} pulls within a day failed.", day.auto_pulls_failed, day.auto_pulls);
    let seen = Seen::in_fleet(detail).with("failed", day.auto_pulls_failed).with("pulls", day.auto_pulls);
    vec![seen.fix("curl http://127.0.0.1:11435/fleet/pulls  # FLEET_AUTO_PULL_ENABLED=false stops them")]
}
