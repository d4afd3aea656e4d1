//! Nodes: are they there, do they work, are they of an age.

use super::fix;
use super::{Inputs, Seen, Severity, human_ms, share};
use crate::fleet::{Condition, Node};
use crate::version::Version;
use crate::wire::SCHEMA;

/// Nothing can be served at all, and the edge looks well.
pub(super) fn fleet_empty(inputs: &Inputs<'_>, _: u64) -> Vec<Seen> {
    if inputs.snapshot.nodes.is_empty() {
        let seen = Seen::in_fleet("No machine has sent a heartbeat to this edge.").with("nodes", 0_u64);
        return vec![seen.fix("herd-agent --router-url http://EDGE:11435  # on each machine that runs Ollama")];
    }
    Vec::new()
}

fn in_condition<'a>(inputs: &Inputs<'a>, condition: Condition) -> impl Iterator<Item = (&'a Node, u64)> {
    let (now_ms, life) = (inputs.now_ms, inputs.policy.life);
    inputs
        .nodes()
        .filter(move |node| !node.draining && node.condition(now_ms, &life) == condition)
        .map(move |node| (node, now_ms.saturating_sub(node.heartbeat_at_ms)))
}

/// A host lost its power or its network, and each request finds out by itself.
pub(super) fn down(inputs: &Inputs<'_>, _: u64) -> Vec<Seen> {
    let gone = in_condition(inputs, Condition::Unreachable);
    gone.filter(|(_, age_ms)| *age_ms > inputs.policy.life.offline_after_ms)
        .map(|(node, age_ms)| {
            let detail = format!("Nothing heard for {}, and its Ollama does not answer.", human_ms(age_ms as f64));
            Seen::on(node, detail)
                .with("silent_ms", age_ms)
                .with("address", node.address.to_string())
                .fix(format!("ping -c 3 {}  # then start the machine, or its herd-agent", node.address.ip()))
        })
        .collect()
}

/// The same on its way: some heartbeats are missing.
pub(super) fn silent(inputs: &Inputs<'_>, _: u64) -> Vec<Seen> {
    let late = in_condition(inputs, Condition::Unreachable);
    late.filter(|(_, age_ms)| *age_ms <= inputs.policy.life.offline_after_ms)
        .map(|(node, age_ms)| {
            Seen::on(node, format!("No heartbeat for {}.", human_ms(age_ms as f64)))
                .with("silent_ms", age_ms)
                .fix(format!("ping -c 3 {}", node.address.ip()))
        })
        .collect()
}

/// A frozen or stopped agent: the node is used only if no other is eligible, although nothing ails its Ollama.
pub(super) fn agent_silent(inputs: &Inputs<'_>, _: u64) -> Vec<Seen> {
    let frozen = in_condition(inputs, Condition::AgentSilent);
    let seen = frozen.map(|(node, age_ms)| {
        let detail = format!("Its agent has been silent for {}; its Ollama answers.", human_ms(age_ms as f64));
        Seen::on(node, detail)
            .with("silent_ms", age_ms)
            .fix("pkill -x herd-agent; herd-agent  # or restart the service that runs it")
    });
    seen.collect()
}

/// The host lives, its Ollama does not.
pub(super) fn ollama_down(inputs: &Inputs<'_>, _: u64) -> Vec<Seen> {
    let down = in_condition(inputs, Condition::OllamaDown);
    down.map(|(node, _)| {
        Seen::on(node, "Its agent finds nobody listening where its Ollama should be.")
            .with("address", node.address.to_string())
            .fix(fix::restart_ollama(node))
    })
    .collect()
}

/// An Ollama that accepts and never answers holds requests until they time out.
pub(super) fn ollama_hung(inputs: &Inputs<'_>, _: u64) -> Vec<Seen> {
    let hung = in_condition(inputs, Condition::OllamaHung);
    hung.map(|(node, _)| {
        Seen::on(node, "Its agent gets connections to Ollama, and no answers.")
            .with("address", node.address.to_string())
            .fix(fix::restart_ollama(node))
    })
    .collect()
}

/// What versions of Ollama have brought that herd relies on for single requests.
const OLLAMA_FEATURES: [(Version, Severity, &str); 3] = [
    (Version(0, 9, 7), Severity::Warning, "context protection (it does not tell the loaded context)"),
    (Version(0, 13, 3), Severity::Info, "/v1/responses"),
    (Version(0, 14, 0), Severity::Info, "/v1/messages"),
];

/// A forgotten old installation wins the port, and some requests fail on one node alone.
pub(super) fn ollama_old(inputs: &Inputs<'_>, _: u64) -> Vec<Seen> {
    let seen = inputs.nodes().filter_map(|node| {
        let text = ollama_version(node)?;
        let version = Version::parse(text)?;
        let lacks = || OLLAMA_FEATURES.iter().filter(move |(since, ..)| version < *since);
        let severity = lacks().map(|(_, severity, _)| *severity).max()?;
        let needed = lacks().map(|(since, ..)| *since).max()?;
        let missing: Vec<&str> = lacks().map(|(.., what)| *what).collect();
        let missing = missing.join(", ");
        Some(
            Seen::on(node, format!("Ollama {version} there lacks {missing}."))
                .severity(severity)
                .with("version", text)
                .with("needed", needed.to_string())
                .with("missing", missing)
                .fix(fix::update_ollama(node)),
        )
    });
    seen.collect()
}

fn ollama_version(node: &Node) -> Option<&str> {
    let ours = node.heartbeat.herd.as_ref().map(|report| report.ollama.version.as_str());
    let theirs = node.heartbeat.ollama.as_ref().map(|ollama| ollama.version.as_str());
    ours.filter(|version| !version.is_empty()).or(theirs)
}

/// An agent that reports less than the edge can use.
pub(super) fn agent_old(inputs: &Inputs<'_>, _: u64) -> Vec<Seen> {
    let ours = Version::parse(&inputs.policy.version);
    let seen = inputs.nodes().filter_map(|node| {
        let text = node.heartbeat.agent_version.as_str();
        let detail = match &node.heartbeat.herd {
            None => "Its agent is of another project: it tells neither true occupancy nor bytes.".to_owned(),
            Some(report) if report.schema < SCHEMA && report.schema > 0 => {
                format!("Its agent reports in form {}, this edge reads {SCHEMA}.", report.schema)
            }
            Some(_) => {
                let (ours, theirs) = (ours?, Version::parse(text)?);
                (theirs < ours).then(|| format!("Its agent is {theirs}, this edge is {ours}."))?
            }
        };
        let seen =
            Seen::on(node, detail).with("agent_version", text).with("edge_version", inputs.policy.version.as_str());
        Some(seen.fix("herd-agent --version  # install the edge's version there and restart it"))
    });
    seen.collect()
}

/// Times in a node's logs and in what Ollama tells cannot be put beside the edge's.
pub(super) fn clock_skew(inputs: &Inputs<'_>, _: u64) -> Vec<Seen> {
    let (limit, fresh_ms) = (inputs.policy.clock_skew_ms as f64, inputs.policy.life.degraded_after_ms);
    let seen = inputs.nodes().filter_map(|node| {
        let age_ms = inputs.now_ms.saturating_sub(node.heartbeat_at_ms);
        let told_ms = super::measured(node.heartbeat.timestamp)? * 1_000.0;
        let received_ms = inputs.unix_ms.checked_sub(age_ms).filter(|ms| *ms > 0)?;
        let skew_ms = told_ms - received_ms as f64;
        if age_ms > fresh_ms || !skew_ms.is_finite() || skew_ms.abs() <= limit {
            return None;
        }
        let side = if skew_ms > 0.0 { "ahead of" } else { "behind" };
        Some(
            Seen::on(node, format!("Its clock is {} {side} the edge's.", human_ms(skew_ms.abs())))
                .with("skew_ms", skew_ms)
                .fix("sudo timedatectl set-ntp true  # macOS: sudo sntp -sS time.apple.com"),
        )
    });
    seen.collect()
}

/// A node whose coming and going costs more than it serves.
pub(super) fn flapping(inputs: &Inputs<'_>, min_samples: u64) -> Vec<Seen> {
    let seen = inputs.nodes().filter_map(|node| {
        let departures = inputs.stats.nodes.get(node.id.as_str())?.hour.departures;
        (departures >= min_samples).then(|| {
            Seen::on(node, format!("It was lost {departures} times within the last hour."))
                .with("departures", departures)
                .fix(fix::post(&format!("/fleet/nodes/{}/drain", node.id), &[]))
        })
    });
    seen.collect()
}

/// Hardware that protects itself by slowing down.
pub(super) fn hot(inputs: &Inputs<'_>, _: u64) -> Vec<Seen> {
    let hot = inputs.nodes().filter_map(|node| Some((node, node.heartbeat.thermal.as_ref()?)));
    hot.filter(|(_, thermal)| thermal.state == "warning")
        .map(|(node, thermal)| {
            let celsius = thermal.temperature_c.and_then(super::measured);
            let at = celsius.map_or_else(String::new, |celsius| format!(" at {celsius:.0} degrees Celsius"));
            Seen::on(node, format!("Its hottest sensor warns{at}."))
                .with_known("temperature_c", celsius)
                .with("sensor", thermal.source.as_str())
                .fix("nvidia-smi -q -d TEMPERATURE,PERFORMANCE  # clean fans and filters, or lower the power limit")
        })
        .collect()
}

/// A runtime that crashes answers at once and would draw more and more requests.
pub(super) fn ejected(inputs: &Inputs<'_>, _: u64) -> Vec<Seen> {
    let now_ms = inputs.now_ms;
    let out = inputs.nodes().filter(|node| node.load.ejected_for_ms(now_ms) > 0 || node.load.on_trial());
    out.map(|node| {
        let rows = inputs.stats.on_node(node.id.as_str());
        let (failed, requests) = rows.fold((0_u64, 0_u64), |(failed, requests), row| {
            (failed.saturating_add(row.hour.failed), requests.saturating_add(row.hour.requests))
        });
        Seen::on(node, "Its last requests failed in a row; it is tried again from time to time.")
            .with("ejected_for_ms", node.load.ejected_for_ms(now_ms))
            .with("failed_share", share(failed, requests))
            .fix(fix::restart_ollama(node))
    })
    .collect()
}

/// Taken out for maintenance, and forgotten.
pub(super) fn cordoned(inputs: &Inputs<'_>, _: u64) -> Vec<Seen> {
    let out = inputs.nodes().filter(|node| node.cordoned);
    let seen = out.map(|node| {
        Seen::on(node, "It takes no requests until it is put back.")
            .with("in_flight", node.load.in_flight())
            .fix(fix::post(&format!("/fleet/nodes/{}/undrain", node.id), &[]))
    });
    seen.collect()
}
