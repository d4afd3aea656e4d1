//! Prometheus metrics of the fleet, made from one snapshot per scrape. All their names stand here.
//!
//! Labels are bounded: `node` by the most nodes that a fleet may have, `state` by the life states. Models are no label,
//! as a fleet may have hundreds of thousands of (node, model) pairs. What is not known has no sample.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use herd_core::fleet::Node;
use http::header::CONTENT_TYPE;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Encoder, GaugeVec, Opts, TextEncoder};

use crate::FleetSource;
use crate::caller::Caller;
use crate::node_facts::{queue_depth, slots, takes_requests};
use crate::refusal::{Refusal, unknown_path};
use crate::state::AdminState;

/// One gauge: its name, its help and its labels.
struct Gauge {
    name: &'static str,
    help: &'static str,
    labels: &'static [&'static str],
}

const fn gauge(name: &'static str, help: &'static str, labels: &'static [&'static str]) -> Gauge {
    Gauge { name, help, labels }
}

const NODE: &[&str] = &["node"];

const BUILD_INFO: Gauge = gauge("herd_build_info", "Always 1; the version of this edge.", &["version"]);
const DRAINING: Gauge = gauge("herd_edge_draining", "1 while this edge takes no new requests because it stops.", &[]);
const UP: Gauge =
    gauge("herd_node_up", "1 when the node takes new requests, else 0; with its state.", &["node", "state"]);
const HEARTBEAT_AGE: Gauge =
    gauge("herd_heartbeat_age_seconds", "Time since the node's last heartbeat, by this edge's clock.", NODE);
const IN_FLIGHT: Gauge =
    gauge("herd_node_in_flight", "Requests that this edge has sent to the node and not seen end.", NODE);
const QUEUE_DEPTH: Gauge =
    gauge("herd_node_queue_depth", "Requests that wait at the node for a slot, as far as is known.", NODE);
const SLOTS: Gauge = gauge("herd_node_slots", "Requests that the node's loaded models can run at once.", NODE);
const MODELS_LOADED: Gauge = gauge("herd_node_models_loaded", "Models in the node's memory.", NODE);
const EJECTED: Gauge =
    gauge("herd_node_ejected_seconds", "Time until the node is tried again after failures; 0 = it is not out.", NODE);
const MEMORY_TOTAL: Gauge = gauge(
    "herd_node_vram_total_bytes",
    "Memory that models are loaded into: of GPUs, or the system's if shared.",
    NODE,
);
const MEMORY_FREE: Gauge =
    gauge("herd_node_vram_free_bytes", "The part of herd_node_vram_total_bytes not in use.", NODE);

const ALL: [&Gauge; 11] = [
    &BUILD_INFO,
    &DRAINING,
    &UP,
    &HEARTBEAT_AGE,
    &IN_FLIGHT,
    &QUEUE_DEPTH,
    &SLOTS,
    &MODELS_LOADED,
    &EJECTED,
    &MEMORY_TOTAL,
    &MEMORY_FREE,
];

/// Turns the fleet into gauges when asked, so that a node that is gone leaves no series behind.
pub(crate) struct FleetCollector {
    source: Arc<dyn FleetSource>,
    version: String,
    descs: Vec<Desc>,
}

impl FleetCollector {
    /// Over `source`; `version` is the edge's.
    ///
    /// # Errors
    /// When Prometheus does not take a name.
    pub(crate) fn new(source: Arc<dyn FleetSource>, version: &str) -> prometheus::Result<Self> {
        let describe = |gauge: &&Gauge| {
            let labels = gauge.labels.iter().map(ToString::to_string).collect();
            Desc::new(gauge.name.into(), gauge.help.into(), labels, HashMap::new())
        };
        let descs = ALL.iter().map(describe).collect::<prometheus::Result<_>>()?;
        Ok(Self { source, version: version.into(), descs })
    }
}

impl Collector for FleetCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.descs.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut samples = Samples::default();
        samples.set(&BUILD_INFO, &[&self.version], 1.0);
        samples.set(&DRAINING, &[], flag(self.source.draining()));
        let (snapshot, policy, now_ms) = (self.source.snapshot(), self.source.policy(), self.source.now_ms());
        for node in &snapshot.nodes {
            let state = node.state(now_ms, &policy.life).name();
            samples.set(&UP, &[node.id.as_str(), state], flag(takes_requests(node, &policy, now_ms)));
            samples.node(node, now_ms);
        }
        samples.families()
    }
}

/// Gauges of one scrape.
#[derive(Default)]
struct Samples(HashMap<&'static str, GaugeVec>);

impl Samples {
    fn set(&mut self, gauge: &'static Gauge, labels: &[&str], value: f64) {
        let vec = self.0.entry(gauge.name).or_insert_with(|| {
            GaugeVec::new(Opts::new(gauge.name, gauge.help), gauge.labels)
                .expect("FleetCollector::new tried these names")
        });
        vec.with_label_values(labels).set(value);
    }

    fn node(&mut self, node: &Node, now_ms: u64) {
        let seconds = |ms: u64| ms as f64 / 1e3;
        let id = [node.id.as_str()];
        let waiting = node.runners().map(|(model, _)| queue_depth(node, model)).fold(0, u32::saturating_add);
        let loaded = node.runners().count();
        self.set(&HEARTBEAT_AGE, &id, seconds(now_ms.saturating_sub(node.heartbeat_at_ms)));
        self.set(&IN_FLIGHT, &id, node.load.in_flight().into());
        self.set(&QUEUE_DEPTH, &id, waiting.into());
        self.set(&SLOTS, &id, slots(node).into());
        self.set(&MODELS_LOADED, &id, loaded as f64);
        self.set(&EJECTED, &id, seconds(node.load.ejected_for_ms(now_ms)));
        if let Some(bytes) = node.device.total_bytes {
            self.set(&MEMORY_TOTAL, &id, bytes as f64);
        }
        if let Some(bytes) = node.device.free_bytes {
            self.set(&MEMORY_FREE, &id, bytes as f64);
        }
    }

    fn families(self) -> Vec<MetricFamily> {
        self.0.into_values().flat_map(|vec| vec.collect()).collect()
    }
}

fn flag(value: bool) -> f64 {
    if value { 1.0 } else { 0.0 }
}

/// `GET /metrics`, on the admin listener alone: the port that clients reach need not tell them about the fleet.
pub(crate) async fn metrics(State(state): State<AdminState>, caller: Caller) -> Result<Response, Refusal> {
    if caller.via_edge {
        return Err(unknown_path().await);
    }
    let encoder = TextEncoder::new();
    let mut text = Vec::new();
    encoder.encode(&state.registry().gather(), &mut text).map_err(|error| {
        tracing::error!(%error, "metrics could not be written");
        Refusal::new(http::StatusCode::INTERNAL_SERVER_ERROR, "internal", "metrics could not be written")
    })?;
    Ok(([(CONTENT_TYPE, encoder.format_type().to_owned())], text).into_response())
}
