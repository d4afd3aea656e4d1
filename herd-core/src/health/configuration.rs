//! Settings that stand in the way: of Ollama on a node, of clients, of the edge.

use super::fix;
use super::latency::{Unloaded, cold, cold_seen};
use super::{Inputs, Seen, human_bytes, human_ms, measured};
use crate::fleet::{Condition, Node};
use crate::recommend::memory::{cache_bytes, kv_bytes_per_token};
use crate::spot::usable_slots;

/// Ollama runs one request at a time unless told otherwise, and one user's long answer blocks all others.
///
/// Silent where a second slot's cache is known not to fit.
pub(super) fn num_parallel(inputs: &Inputs<'_>, min_samples: u64) -> Vec<Seen> {
    let seen = inputs.rows().filter_map(|(node, row)| {
        let wait = &row.hour.queue_wait;
        let p95_ms = measured(wait.p95_ms)?;
        let model = node.models.iter().find(|model| model.name.as_str() == row.model)?;
        let waits = wait.samples >= min_samples && p95_ms >= inputs.policy.queue_wait_p95_ms;
        if !waits || usable_slots(node, model, inputs.now_ms) > 1 || model.is_serial() {
            return None;
        }
        let context = model.resident.as_ref().and_then(|resident| resident.context_length);
        let per_token = kv_bytes_per_token(node, model, inputs.catalogue);
        let needed = per_token.zip(context).map(|(per_token, tokens)| cache_bytes(per_token, tokens, 1));
        if needed.zip(node.device.free_bytes).is_some_and(|(needed, free)| needed > free) {
            return None;
        }
        let takes = needed.map_or_else(String::new, |bytes| format!("; a second slot takes {}", human_bytes(bytes)));
        let detail = format!("5 of 100 requests waited {} for its one slot{takes}.", human_ms(p95_ms));
        Some(
            Seen::at(node, row, detail)
                .with("queue_wait_p95_ms", p95_ms)
                .with("requests", wait.samples)
                .with_known("num_parallel", node.env.num_parallel)
                .with_known("slot_bytes", needed)
                .fix(fix::ollama_env(node, "OLLAMA_NUM_PARALLEL", "2")),
        )
    });
    seen.collect()
}

/// A model goes when it has been idle, and the next request pays for it.
pub(super) fn keep_alive(inputs: &Inputs<'_>, min_samples: u64) -> Vec<Seen> {
    let by_time = cold(inputs, min_samples).filter(|(_, _, why)| *why == Unloaded::Idle);
    let seen = by_time.map(|(node, row, _)| {
        let (loads, requests) = (row.hour.cold_loads, row.hour.requests);
        let detail = format!("{loads} of {requests} requests waited for a load, and there is memory to keep it.");
        cold_seen(node, row, detail).with_known("free_bytes", node.device.free_bytes).fix(fix::ollama_env(
            node,
            "OLLAMA_KEEP_ALIVE",
            "30m",
        ))
    });
    seen.collect()
}

/// Ollama evicts by number before it evicts by memory.
pub(super) fn max_loaded(inputs: &Inputs<'_>, min_samples: u64) -> Vec<Seen> {
    let seen = cold(inputs, min_samples).filter_map(|(node, row, why)| {
        let Unloaded::Limit(limit) = why else { return None };
        let (loads, requests) = (row.hour.cold_loads, row.hour.requests);
        let detail = format!("{loads} of {requests} requests waited for a load: only {limit} models may be loaded.");
        let advised = limit.saturating_add(1).to_string();
        Some(
            cold_seen(node, row, detail)
                .with("max_loaded_models", limit)
                .with_known("free_bytes", node.device.free_bytes)
                .fix(fix::ollama_env(node, "OLLAMA_MAX_LOADED_MODELS", &advised)),
        )
    });
    seen.collect()
}

/// An Ollama that listens on its own machine alone, as it does by default: its agent is content, the edge finds nobody.
pub(super) fn local_only(inputs: &Inputs<'_>, _: u64) -> Vec<Seen> {
    let reaches_not =
        |node: &&Node| !node.draining && node.condition(inputs.now_ms, &inputs.policy.life) == Condition::ProbeFails;
    let seen = inputs.nodes().filter(reaches_not).map(|node| {
        let detail = format!("Its agent gets answers, the edge gets none at {}.", node.address);
        Seen::on(node, detail).with("address", node.address.to_string()).fix(fix::ollama_env(
            node,
            "OLLAMA_HOST",
            &format!("0.0.0.0:{}", node.address.port()),
        ))
    });
    seen.collect()
}

/// A heartbeat leads to something else: nothing is sent there.
pub(super) fn not_ollama(inputs: &Inputs<'_>, _: u64) -> Vec<Seen> {
    let is_other =
        |node: &&Node| !node.draining && node.condition(inputs.now_ms, &inputs.policy.life) == Condition::NotOllama;
    let seen = inputs.nodes().filter(is_other).map(|node| {
        let detail = format!("{} answers, and does not say that it is an Ollama.", node.address);
        Seen::on(node, detail)
            .with("address", node.address.to_string())
            .fix("herd-agent --ollama-url http://127.0.0.1:11434  # Ollama's own address, on that machine")
    });
    seen.collect()
}

/// Work that the edge does not see makes all its predictions too low. A second edge is such a client too.
pub(super) fn bypassed(inputs: &Inputs<'_>, _: u64) -> Vec<Seen> {
    let used = inputs.nodes().filter(|node| node.busy_by_others() > 0);
    let seen = used.map(|node| {
        let others = node.busy_by_others();
        Seen::on(node, format!("{others} requests run there that did not come through this edge."))
            .with("busy_by_others", others)
            .with("in_flight", node.load.in_flight())
            .fix("export OLLAMA_HOST=http://EDGE:11435  # for the clients that use it directly")
    });
    seen.collect()
}

/// Requests from this machine by another machine's or site's name: a reverse proxy passes its clients' name on, and does
/// not add where they come from.
pub(super) fn unmarked_proxy(inputs: &Inputs<'_>, min_samples: u64) -> Vec<Seen> {
    let requests = inputs.stats.edge.hour.unmarked_proxies;
    if requests < min_samples.max(1) {
        return Vec::new();
    }
    let detail = format!(
        "{requests} requests of the last hour came from this machine by another's name and without X-Forwarded-For. They \
         had no rights of this machine; but what such a proxy forwards by the name localhost would have."
    );
    let seen = Seen::in_fleet(detail).with("unmarked_proxies", requests);
    vec![seen.fix("proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;  # nginx; or access.require: always")]
}

/// Nodes on a network: whoever is on it may offer an Ollama, and read what is sent there.
pub(super) fn no_join_token(inputs: &Inputs<'_>, _: u64) -> Vec<Seen> {
    let remote = inputs.nodes().filter(|node| !node.address.ip().is_loopback()).count() as u64;
    if inputs.policy.has_join_token || remote == 0 {
        return Vec::new();
    }
    let detail = format!("{remote} nodes are on the network, and no token is asked of those that join.");
    let seen = Seen::in_fleet(detail).with("remote_nodes", remote);
    vec![seen.fix("FLEET_JOIN_TOKEN=$(openssl rand -hex 32)  # the same on the edge and on each agent")]
}
