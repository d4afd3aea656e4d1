//! Why a pull is not started.

use std::fmt;

use crate::name::{ModelName, NodeId};

/// Why a pull is not started. Its text is for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PullRefusal {
    /// Models are not pulled because requests ask for them.
    Disabled,
    /// No pattern allows it.
    NotAllowed {
        /// The model.
        model: ModelName,
    },
    /// It is larger than models that are pulled by themselves may be.
    TooLarge {
        /// Bytes on disk.
        needed_bytes: u64,
        /// The most allowed.
        max_bytes: u64,
    },
    /// As much as may be was pulled automatically within a day.
    DayIsFull {
        /// Bytes of the last day, what runs now included.
        used_bytes: u64,
        /// The most allowed.
        max_bytes: u64,
    },
    /// There is no node of that id.
    UnknownNode,
    /// The node that was asked for is not reachable, or its Ollama does not answer.
    NodeUnavailable {
        /// The node.
        node: NodeId,
    },
    /// No node takes models now.
    NoNode,
    /// Every node that takes models has it.
    AlreadyThere,
    /// No node has the memory.
    NoMemory {
        /// Bytes of the weights.
        needed_bytes: u64,
        /// The most that a node has.
        best_bytes: u64,
    },
    /// No node has the disk space.
    NoDisk {
        /// Bytes of the model; `None` = not known yet.
        needed_bytes: Option<u64>,
        /// Bytes that stay free besides.
        reserve_bytes: u64,
        /// The most that a node has free.
        best_bytes: u64,
    },
    /// The nodes that could take it pull other models, or the node that was asked for does.
    Busy,
    /// As many pulls run as may.
    TooMany {
        /// How many.
        max: usize,
    },
    /// It failed lately, and is not tried again by itself yet.
    BackingOff {
        /// Until it may be tried again.
        retry_after_ms: u64,
        /// Why it failed.
        last: String,
    },
    /// The registry did not have it lately.
    UnknownModel {
        /// What was said.
        last: String,
    },
    /// This edge is stopping, or its admin service does not run.
    Stopping,
}

impl PullRefusal {
    /// Its name in JSON, metrics and logs.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Disabled => "pull_disabled",
            Self::NotAllowed { .. } => "pull_not_allowed",
            Self::TooLarge { .. } => "pull_too_large",
            Self::DayIsFull { .. } => "pull_day_full",
            Self::UnknownNode => "unknown_node",
            Self::NodeUnavailable { .. } => "node_unavailable",
            Self::NoNode => "no_node",
            Self::AlreadyThere => "already_there",
            Self::NoMemory { .. } => "no_memory",
            Self::NoDisk { .. } => "no_disk",
            Self::Busy => "pull_busy",
            Self::TooMany { .. } => "too_many_pulls",
            Self::BackingOff { .. } => "pull_backing_off",
            Self::UnknownModel { .. } => "unknown_model",
            Self::Stopping => "stopping",
        }
    }
}

impl std::error::Error for PullRefusal {}

impl fmt::Display for PullRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disabled => f.write_str("models are not pulled automatically"),
            Self::NotAllowed { model } => write!(f, "model '{model}' is not among those that are pulled automatically"),
            Self::TooLarge { needed_bytes, max_bytes } => {
                write!(f, "the model has {}, at most {} are pulled automatically", Gb(*needed_bytes), Gb(*max_bytes))
            }
            Self::DayIsFull { used_bytes, max_bytes } => {
                write!(
                    f,
                    "{} were pulled automatically within a day, at most {} may be (auto_pull.bytes_per_day)",
                    Gb(*used_bytes),
                    Gb(*max_bytes)
                )
            }
            Self::UnknownNode => f.write_str("there is no node of that id"),
            Self::NodeUnavailable { node } => write!(f, "node {node} is not reachable"),
            Self::NoNode => f.write_str("no node takes models now"),
            Self::AlreadyThere => f.write_str("every node that takes models has it"),
            Self::NoMemory { needed_bytes, best_bytes } => {
                write!(f, "no node has the memory: needs {}, the best has {}", Gb(*needed_bytes), Gb(*best_bytes))
            }
            Self::NoDisk { needed_bytes, reserve_bytes, best_bytes } => {
                f.write_str("not enough disk space: needs ")?;
                if let Some(needed) = needed_bytes {
                    write!(f, "{} and ", Gb(*needed))?;
                }
                write!(f, "a reserve of {}, the most that is free is {}", Gb(*reserve_bytes), Gb(*best_bytes))
            }
            Self::Busy => f.write_str("the nodes that could take it pull other models"),
            Self::TooMany { max } => write!(f, "{max} pulls run already, the most at a time"),
            Self::BackingOff { retry_after_ms, last } => {
                write!(f, "pulling it failed, to be tried again in {} s: {last}", retry_after_ms.div_ceil(1000))
            }
            Self::UnknownModel { last } => write!(f, "the registry does not have it: {last}"),
            Self::Stopping => f.write_str("pulls are stopped"),
        }
    }
}

/// Bytes in decimal gigabytes, as disks and models are told. Models are compared to limits, so small ones keep a digit
/// that is not zero.
pub(super) struct Gb(pub(super) u64);

impl fmt::Display for Gb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gigabytes = self.0 as f64 / 1e9;
        if gigabytes >= 0.1 || self.0 == 0 { write!(f, "{gigabytes:.1} GB") } else { write!(f, "{} bytes", self.0) }
    }
}
