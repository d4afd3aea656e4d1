//! Agents that want to join and may not, and nodes that are there twice.

use super::fix;
use super::{Inputs, JoinRefusal, Seen};

/// Refusals that are told one by one; of more only the number is.
const TOLD_MAX: usize = 5;

/// An agent is turned away for as long as nobody reads its log.
pub(super) fn refused(inputs: &Inputs<'_>, _: u64) -> Vec<Seen> {
    let refusals = &inputs.stats.join_refusals;
    let Some(first) = refusals.first() else { return Vec::new() };
    let told: Vec<_> =
        refusals.iter().take(TOLD_MAX).map(|refusal| format!("{}: {}", who(refusal), refusal.message)).collect();
    let more = refusals.len().saturating_sub(TOLD_MAX);
    let rest = if more == 0 { String::new() } else { format!("; and {more} more") };
    let detail = format!("{}{rest}.", told.join("; ").trim_end_matches('.'));
    let seen = Seen::in_fleet(detail)
        .with("agents", refusals.len() as u64)
        .with("code", first.code.clone())
        .with("address", first.address.clone())
        .fix(remedy(first, inputs.nodes().count()));
    vec![seen]
}

fn who(refusal: &JoinRefusal) -> String {
    match refusal.node_id.as_str() {
        "" => refusal.address.clone(),
        id => format!("{id} from {}", refusal.address),
    }
}

/// What to do about `refusal` by a fleet of `nodes`.
fn remedy(refusal: &JoinRefusal, nodes: usize) -> String {
    match refusal.code.as_str() {
        "taken" => format!("herd-agent --node-id {}", fix::word(&format!("{}-2", refusal.node_id))),
        "source" => {
            format!("fleet: {{networks: [lan, \"{}\"]}}  # in the edge's herd.yaml, then restart it", refusal.address)
        }
        "join_token" | "elsewhere" => "FLEET_JOIN_TOKEN=...  # the same on the edge and for the agent".to_owned(),
        "itself" => "herd-agent --ollama-url http://127.0.0.1:11434  # Ollama's own address".to_owned(),
        "fleet_full" => {
            // A full fleet has as many nodes as it may.
            let larger = (2 * nodes).max(1);
            format!("fleet: {{nodes_max: {larger}}}  # in the edge's herd.yaml, then restart it")
        }
        _ => "herd-agent --log-level debug  # on that machine; its log has the reason too".to_owned(),
    }
}

/// Two agents report one Ollama: its slots are counted once, but both write its facts and neither is wrong.
pub(super) fn same_ollama(inputs: &Inputs<'_>, _: u64) -> Vec<Seen> {
    let twins = inputs.nodes().filter_map(|node| Some((node, node.same_ollama_as.as_ref()?)));
    let seen = twins.map(|(node, first)| {
        let detail = format!("It is the same Ollama as {first}, at {}; requests go there.", node.address);
        Seen::on(node, detail)
            .with("address", node.address.to_string())
            .with("node", first.to_string())
            .fix("agent: {embedded: \"off\"}  # in herd.yaml, or stop the second herd-agent on that machine")
    });
    seen.collect()
}
