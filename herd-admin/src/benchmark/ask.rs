//! What an operator asks for, and the run that it makes of the fleet as it is.

use herd_core::fleet::{Node, NodeState};
use herd_core::name::ModelName;
use serde::Deserialize;

use super::record::{BenchmarkConfig, LeftOut};
use super::{
    ANSWER_TOKENS_MAX, CONCURRENCY_MAX, DURATION_MAX_S, OUTSTANDING_MAX, PAIRS_MAX, PROMPT_TOKENS_MAX, RATE_MAX_PER_S,
    RATE_MIN_PER_S, REQUESTS_MAX,
};
use crate::view::View;

/// Why no run is begun.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum BenchmarkRefusal {
    /// What was asked for is out of its limits.
    #[error("{key} must be {allowed}")]
    Invalid {
        /// The key.
        key: &'static str,
        /// What it may be.
        allowed: String,
    },
    /// There is no such node.
    #[error("there is no node {0:?}")]
    UnknownNode(String),
    /// None of the chosen nodes has that model.
    #[error("none of the chosen nodes has {0}")]
    UnknownModel(String),
    /// There is nothing to measure: no model was named, and none is in memory on a node that serves.
    #[error("name a model: none is in memory on a node that serves")]
    Nothing,
    /// A run is under way.
    #[error("the benchmark {run_id} is under way")]
    Busy {
        /// Which.
        run_id: String,
    },
    /// Nobody carries out runs: herd is stopping, or has no edge.
    #[error("herd takes no benchmarks now")]
    Stopping,
}

/// The body of `POST /dashboard/api/benchmarks/start`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct BenchmarkAsk {
    /// None = those that are in memory.
    models: Vec<String>,
    /// None = all that serve.
    node_ids: Vec<String>,
    requests: u64,
    concurrency: Option<u64>,
    rate_per_s: Option<f64>,
    prompt_tokens: u64,
    max_tokens: u64,
    seed: u64,
    max_duration_s: u64,
}

impl Default for BenchmarkAsk {
    fn default() -> Self {
        Self {
            models: Vec::new(),
            node_ids: Vec::new(),
            requests: 20,
            concurrency: None,
            rate_per_s: None,
            prompt_tokens: 256,
            max_tokens: 128,
            seed: 1,
            max_duration_s: DURATION_MAX_S,
        }
    }
}

/// A node and a model to be measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pair {
    pub(super) node_id: String,
    pub(super) model: String,
}

/// What a run will do.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Plan {
    pub(super) config: BenchmarkConfig,
    /// Pairs of one node stand together: they are measured one after another, those of different nodes at a time.
    pub(super) pairs: Vec<Pair>,
    pub(super) left_out: Vec<LeftOut>,
}

impl Plan {
    /// How many nodes are measured.
    pub(super) fn nodes(&self) -> usize {
        self.pairs.chunk_by(|a, b| a.node_id == b.node_id).count()
    }

    /// Most requests at a time for one pair.
    pub(super) fn room(&self) -> usize {
        let share = (OUTSTANDING_MAX / self.nodes().max(1)).max(1);
        let wanted = self.config.concurrency.and_then(|concurrency| usize::try_from(concurrency).ok());
        wanted.unwrap_or(share).min(share)
    }
}

impl BenchmarkAsk {
    /// The run that this makes of the fleet in `view`.
    pub(super) fn plan(&self, view: &View) -> Result<Plan, BenchmarkRefusal> {
        let config = self.config()?;
        let (pairs, left_out) = self.pairs(view)?;
        let plan = Plan { config, pairs, left_out };
        if plan.pairs.is_empty() {
            return Err(nothing(&plan));
        }
        check(plan.pairs.len() <= PAIRS_MAX, "models", || format!("at most {PAIRS_MAX} pairs of a node and a model"))?;
        let total = plan.config.requests.saturating_mul(plan.pairs.len() as u64);
        check(total <= REQUESTS_MAX, "requests", || format!("at most {REQUESTS_MAX} over all nodes and models"))?;
        let at_a_time = plan.config.concurrency.unwrap_or(1).saturating_mul(plan.nodes() as u64);
        check(at_a_time <= OUTSTANDING_MAX as u64, "concurrency", || {
            format!("at most {OUTSTANDING_MAX} over all nodes")
        })?;
        Ok(plan)
    }

    fn config(&self) -> Result<BenchmarkConfig, BenchmarkRefusal> {
        within("requests", self.requests, REQUESTS_MAX)?;
        within("prompt_tokens", self.prompt_tokens, PROMPT_TOKENS_MAX)?;
        within("max_tokens", self.max_tokens, ANSWER_TOKENS_MAX)?;
        within("max_duration_s", self.max_duration_s, DURATION_MAX_S)?;
        within("concurrency", self.concurrency.unwrap_or(1), CONCURRENCY_MAX)?;
        let rates = RATE_MIN_PER_S..=RATE_MAX_PER_S;
        check(self.rate_per_s.is_none_or(|rate| rates.contains(&rate)), "rate_per_s", || {
            format!("{RATE_MIN_PER_S} to {RATE_MAX_PER_S}")
        })?;
        check(self.rate_per_s.is_none() || self.concurrency.is_none(), "rate_per_s", || {
            "given without concurrency: one is an open loop, the other a closed one".to_owned()
        })?;
        Ok(BenchmarkConfig {
            requests: self.requests,
            concurrency: self.concurrency.or(self.rate_per_s.is_none().then_some(1)),
            rate_per_s: self.rate_per_s,
            prompt_tokens: self.prompt_tokens,
            max_tokens: self.max_tokens,
            seed: self.seed,
            max_duration_s: self.max_duration_s,
        })
    }

    fn pairs(&self, view: &View) -> Result<(Vec<Pair>, Vec<LeftOut>), BenchmarkRefusal> {
        let (mut pairs, mut left_out) = (Vec::new(), Vec::new());
        let models = self.names(view)?;
        for node in self.nodes(view)? {
            let state = node.state(view.now_ms, &view.policy.life);
            let serves = matches!(state, NodeState::Online | NodeState::Degraded);
            let (node_id, named) = (node.id.to_string(), !self.node_ids.is_empty());
            if models.is_empty() && serves {
                let loaded = view.models(node).filter(|model| model.resident.is_some() && !model.shares_runner);
                let loaded = loaded.filter(|model| model.capabilities.has("completion") != Some(false));
                pairs.extend(loaded.map(|model| Pair { node_id: node_id.clone(), model: model.name.to_string() }));
            }
            for name in &models {
                let (node_id, model) = (node_id.clone(), name.to_string());
                let reason = match view.model(node, name) {
                    // A node that was not named is only one of those that may have the model.
                    None if !named => continue,
                    None => "the node does not have the model".to_owned(),
                    Some(_) if !serves => format!("the node is {}", state.name()),
                    Some(model) if model.capabilities.has("completion") == Some(false) => {
                        "the model writes no text".to_owned()
                    }
                    Some(_) => {
                        pairs.push(Pair { node_id, model });
                        continue;
                    }
                };
                left_out.push(LeftOut { node_id, model, reason });
            }
        }
        Ok((pairs, left_out))
    }

    fn names(&self, view: &View) -> Result<Vec<ModelName>, BenchmarkRefusal> {
        let mut names: Vec<ModelName> = Vec::new();
        check(self.models.len() <= PAIRS_MAX, "models", || format!("at most {PAIRS_MAX} names"))?;
        for text in &self.models {
            let unknown = || BenchmarkRefusal::UnknownModel(text.chars().take(64).collect());
            let name = ModelName::new(text).map_err(|_| unknown())?;
            if !view.snapshot.nodes.iter().any(|node| self.chooses(node) && view.model(node, &name).is_some()) {
                return Err(unknown());
            }
            if !names.contains(&name) {
                names.push(name);
            }
        }
        Ok(names)
    }

    /// The chosen nodes, in the fleet's order.
    fn nodes<'a>(&self, view: &'a View) -> Result<Vec<&'a Node>, BenchmarkRefusal> {
        for id in &self.node_ids {
            if view.snapshot.node(id).is_none() {
                return Err(BenchmarkRefusal::UnknownNode(id.chars().take(64).collect()));
            }
        }
        Ok(view.snapshot.nodes.iter().map(AsRef::as_ref).filter(|node| self.chooses(node)).collect())
    }

    fn chooses(&self, node: &Node) -> bool {
        self.node_ids.is_empty() || self.node_ids.iter().any(|id| id == node.id.as_str())
    }
}

fn nothing(plan: &Plan) -> BenchmarkRefusal {
    match plan.left_out.first() {
        Some(LeftOut { node_id, model, reason }) => BenchmarkRefusal::Invalid {
            key: "models",
            allowed: format!("such that a node can serve them ({model} on {node_id}: {reason})"),
        },
        None => BenchmarkRefusal::Nothing,
    }
}

fn within(key: &'static str, value: u64, max: u64) -> Result<(), BenchmarkRefusal> {
    check((1..=max).contains(&value), key, || format!("1 to {max}"))
}

fn check(holds: bool, key: &'static str, allowed: impl FnOnce() -> String) -> Result<(), BenchmarkRefusal> {
    if holds { Ok(()) } else { Err(BenchmarkRefusal::Invalid { key, allowed: allowed() }) }
}
