//! What a check sees: where, how bad, in words and numbers, and what to do.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Check, ModelStats, Severity};
use crate::fleet::Node;

/// One piece of evidence.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Value {
    /// A count, or an amount in the unit that its name ends in.
    Count(u64),
    /// A share, a rate, a difference. Always finite.
    Number(f64),
    /// A name, a version.
    Text(String),
}

impl From<u64> for Value {
    fn from(count: u64) -> Self {
        Self::Count(count)
    }
}

impl From<u32> for Value {
    fn from(count: u32) -> Self {
        Self::Count(count.into())
    }
}

impl From<f64> for Value {
    /// What is not finite is 0: JSON has no other numbers.
    fn from(number: f64) -> Self {
        Self::Number(if number.is_finite() { number } else { 0.0 })
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

/// What one check sees at one place in one evaluation.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Observed {
    /// The check.
    pub check: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// The node; none = the fleet.
    pub node_id: Option<String>,
    /// The model; none = whatever runs there.
    pub model: Option<String>,
    /// One sentence with the numbers that matter.
    pub detail: String,
    /// All numbers that the check went by.
    pub evidence: BTreeMap<String, Value>,
    /// A command or a line of configuration, to be pasted.
    pub fix: String,
}

impl Observed {
    pub(super) fn new(check: &Check, seen: Seen) -> Self {
        Self {
            check: check.id,
            severity: seen.severity.unwrap_or(check.severity),
            node_id: seen.node_id,
            model: seen.model,
            detail: seen.detail,
            evidence: seen.evidence,
            fix: seen.fix,
        }
    }
}

/// The same while the check makes it.
#[derive(Debug, Default)]
pub(super) struct Seen {
    severity: Option<Severity>,
    node_id: Option<String>,
    model: Option<String>,
    detail: String,
    evidence: BTreeMap<String, Value>,
    fix: String,
}

impl Seen {
    /// In the fleet as a whole.
    pub(super) fn in_fleet(detail: impl fmt::Display) -> Self {
        Self { detail: detail.to_string(), ..Self::default() }
    }

    /// On a node.
    pub(super) fn on(node: &Node, detail: impl fmt::Display) -> Self {
        Self { node_id: Some(node.id.to_string()), ..Self::in_fleet(detail) }
    }

    /// At a model on a node.
    pub(super) fn at(node: &Node, row: &ModelStats, detail: impl fmt::Display) -> Self {
        Self::on(node, detail).model(&row.model)
    }

    pub(super) fn model(mut self, model: impl fmt::Display) -> Self {
        self.model = Some(model.to_string());
        self
    }

    /// Better or worse than the check mostly is.
    pub(super) fn severity(mut self, severity: Severity) -> Self {
        self.severity = Some(severity);
        self
    }

    pub(super) fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.evidence.insert(name.to_owned(), value.into());
        self
    }

    /// The same, where it is known.
    pub(super) fn with_known(self, name: &str, value: Option<impl Into<Value>>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    pub(super) fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = fix.into();
        self
    }
}

/// Bytes for people, in decimal units.
pub(crate) fn human_bytes(bytes: u64) -> String {
    match bytes {
        bytes if bytes >= 1_000_000_000 => format!("{:.1} GB", bytes as f64 / 1e9),
        bytes if bytes >= 1_000_000 => format!("{:.0} MB", bytes as f64 / 1e6),
        bytes => format!("{bytes} bytes"),
    }
}

/// A time for people.
pub(crate) fn human_ms(ms: f64) -> String {
    if ms >= 120_000.0 {
        format!("{:.0} min", ms / 60_000.0)
    } else if ms >= 1_000.0 {
        format!("{:.1} s", ms / 1_000.0)
    } else {
        format!("{ms:.0} ms")
    }
}
