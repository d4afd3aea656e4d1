//! The nodes that a request could have gone to, as they are kept with it.

use std::fmt;
use std::sync::Arc;

use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Serialize, Serializer};

use crate::decide::Candidate;
use crate::fleet::FleetSnapshot;
use crate::score::SIGNALS;

/// The nodes that were ranked, with their signals.
#[derive(Clone, Default)]
pub enum Candidates {
    /// None were, or they were left out.
    #[default]
    None,
    /// As they were ranked, on that picture of the fleet.
    Ranked(Vec<Candidate>, Arc<FleetSnapshot>),
    /// As JSON: what was read back.
    Json(Box<str>),
}

impl Candidates {
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        match self {
            Self::None => true,
            Self::Ranked(ranked, _) => ranked.is_empty(),
            Self::Json(json) => json.is_empty(),
        }
    }
}

impl fmt::Debug for Candidates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::Ranked(ranked, snapshot) => f.debug_tuple("Ranked").field(ranked).field(&snapshot.version).finish(),
            Self::Json(json) => f.debug_tuple("Json").field(json).finish(),
        }
    }
}

impl PartialEq for Candidates {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::None, Self::None) => true,
            (Self::Ranked(mine, on), Self::Ranked(others, of)) => mine == others && Arc::ptr_eq(on, of),
            (Self::Json(mine), Self::Json(others)) => mine == others,
            _ => false,
        }
    }
}

/// Those that were ranked as a list; what is JSON already, as a string.
impl Serialize for Candidates {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::None => serializer.serialize_none(),
            Self::Json(json) => serializer.serialize_str(json),
            Self::Ranked(ranked, snapshot) => {
                let mut list = serializer.serialize_seq(None)?;
                for candidate in ranked {
                    if let Some(node) = snapshot.nodes.get(candidate.node) {
                        list.serialize_element(&Ranked { node_id: node.id.as_str(), candidate })?;
                    }
                }
                list.end()
            }
        }
    }
}

/// One node's part in a decision.
struct Ranked<'a> {
    node_id: &'a str,
    candidate: &'a Candidate,
}

impl Serialize for Ranked<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Candidate { total, score, prediction, readiness, plan, last_resort, .. } = self.candidate;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("node_id", self.node_id)?;
        map.serialize_entry("total", &rounded(*total))?;
        map.serialize_entry("signals", &Signals(&score.parts))?;
        map.serialize_entry(
            "predicted",
            &Predicted {
                wait_ms: rounded(prediction.wait_ms),
                load_ms: rounded(prediction.load_ms),
                prefill_ms: rounded(prediction.prefill_ms),
                decode_ms: rounded(prediction.decode_ms),
                others_ms: rounded(prediction.others_ms),
            },
        )?;
        map.serialize_entry("readiness", readiness.name())?;
        map.serialize_entry("context_action", plan.action.name())?;
        if let Some(cause) = plan.cause {
            map.serialize_entry("reload_cause", cause.name())?;
        }
        if let Some(why) = last_resort {
            map.serialize_entry("last_resort", why)?;
        }
        map.end()
    }
}

#[derive(Serialize)]
#[expect(clippy::struct_field_names, reason = "units stand in names")]
struct Predicted {
    wait_ms: f64,
    load_ms: f64,
    prefill_ms: f64,
    decode_ms: f64,
    others_ms: f64,
}

/// The points of the signals, in the order of [`SIGNALS`].
struct Signals<'a>(&'a [f64]);

impl Serialize for Signals<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let by_name = SIGNALS.iter().zip(self.0);
        serializer.collect_map(by_name.map(|((name, _), points)| (name, rounded(*points))))
    }
}

/// Two decimals: more is noise, and sixteen candidates add up.
fn rounded(value: f64) -> f64 {
    (value * 1e2).round() / 1e2
}
