//! Prometheus metrics of the fleet, made from one snapshot per scrape. Their names stand in [`gauges`].
//!
//! Labels are bounded: `node` by the most nodes that a fleet may have, `gpu` by the devices of one heartbeat, `limit`,
//! `state` and `condition` by this program's own words, `model` by [`MODEL_LABELS`]. What is not known has no sample.

mod fed;
mod gauges;
mod http;
mod samples;

use std::collections::HashMap;
use std::sync::Arc;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;

pub(crate) use fed::Later;
pub use fed::fed_counter;
pub(crate) use http::metrics;

use crate::FleetSource;
use crate::config::AdminConfig;
use gauges::Gauge;
use samples::Samples;

/// Most models that are labels of metrics: the most used ones.
pub const MODEL_LABELS: usize = 50;
/// The label of all other models. No model has this name, as names have a tag.
pub const OTHER_MODELS: &str = "other";

/// Turns the fleet into gauges when asked, so that a node that is gone leaves no series behind.
pub(crate) struct FleetCollector {
    source: Arc<dyn FleetSource>,
    /// Version, revision and compiler.
    build: [String; 3],
    descs: Vec<Desc>,
}

impl FleetCollector {
    /// Over `source`, of an edge that was built as `config` says.
    ///
    /// # Errors
    /// When Prometheus does not take a name.
    pub(crate) fn new(source: Arc<dyn FleetSource>, config: &AdminConfig) -> prometheus::Result<Self> {
        let describe = |gauge: &&Gauge| {
            let labels = gauge.labels.iter().map(ToString::to_string).collect();
            Desc::new(gauge.name.into(), gauge.help.into(), labels, HashMap::new())
        };
        let descs = gauges::ALL.iter().map(describe).collect::<prometheus::Result<_>>()?;
        let build = [&config.version, &config.revision, &config.rustc].map(Clone::clone);
        Ok(Self { source, build, descs })
    }
}

impl Collector for FleetCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.descs.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut samples = Samples::default();
        samples.set(&gauges::BUILD_INFO, &self.build.each_ref().map(String::as_str), 1.0);
        samples.edge(self.source.as_ref());
        samples.fleet(self.source.as_ref());
        samples.families()
    }
}
