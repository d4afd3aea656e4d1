//! A pull as it goes: its layers, and when they become too much.

use std::fmt;

use super::refusal::Gb;

/// Most layers of one model. Ollama's have about ten.
const LAYERS_MAX: usize = 128;

/// Why a running pull must stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PullStop {
    /// The model is larger than it may be.
    TooLarge {
        /// Bytes of the layers known so far.
        total_bytes: u64,
        /// The most allowed.
        max_bytes: u64,
    },
    /// It would use up the disk's reserve.
    NoDisk {
        /// Bytes still to be written when the pull began, as known so far.
        needed_bytes: u64,
        /// Bytes that may be written.
        room_bytes: u64,
    },
    /// It has more layers than any model.
    TooManyLayers,
}

impl fmt::Display for PullStop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge { total_bytes, max_bytes } => {
                write!(f, "the model has {} or more, at most {} are pulled", Gb(*total_bytes), Gb(*max_bytes))
            }
            Self::NoDisk { needed_bytes, room_bytes } => {
                write!(f, "the disk has {} to spare, the pull needs {} or more", Gb(*room_bytes), Gb(*needed_bytes))
            }
            Self::TooManyLayers => write!(f, "the model has more than {LAYERS_MAX} layers"),
        }
    }
}

/// The layers of one pull. Ollama announces them one after the other, so the sums grow.
#[derive(Debug, Clone, Default)]
pub struct Download {
    layers: Vec<Layer>,
    max_bytes: Option<u64>,
    room_bytes: Option<u64>,
}

#[derive(Debug, Clone)]
struct Layer {
    digest: Box<str>,
    total: u64,
    completed: u64,
    /// What the node had of it already when the pull came to it.
    found: u64,
}

impl Download {
    /// A pull that has not begun. `max_bytes`: the most that the model may have; `room_bytes`: the most that may be
    /// written. `None` = no limit, or not known.
    #[must_use]
    pub fn new(max_bytes: Option<u64>, room_bytes: Option<u64>) -> Self {
        Self { layers: Vec::new(), max_bytes, room_bytes }
    }

    /// Notes that `completed` of `total` bytes of the layer `digest` are there.
    ///
    /// # Errors
    /// When the pull must stop.
    pub fn note(&mut self, digest: &str, total: u64, completed: u64) -> Result<(), PullStop> {
        let completed = completed.min(total);
        if let Some(layer) = self.layers.iter_mut().find(|layer| *layer.digest == *digest) {
            layer.total = total;
            layer.completed = completed;
            layer.found = layer.found.min(completed);
        } else if self.layers.len() == LAYERS_MAX {
            return Err(PullStop::TooManyLayers);
        } else {
            self.layers.push(Layer { digest: digest.into(), total, completed, found: completed });
        }
        self.check()
    }

    fn check(&self) -> Result<(), PullStop> {
        let total_bytes = self.total_bytes();
        if let Some(max_bytes) = self.max_bytes.filter(|max| total_bytes > *max) {
            return Err(PullStop::TooLarge { total_bytes, max_bytes });
        }
        // Against the disk as it was at the start: some file systems take the space of a file when it is opened, and
        // then the disk of a running pull tells nothing about what is still to come.
        let needed_bytes = self.sum(|layer| layer.total.saturating_sub(layer.found));
        match self.room_bytes {
            Some(room_bytes) if needed_bytes > room_bytes => Err(PullStop::NoDisk { needed_bytes, room_bytes }),
            _ => Ok(()),
        }
    }

    /// Bytes of the layers known so far; 0 = none is.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        self.sum(|layer| layer.total)
    }

    /// Bytes of them that are on the node.
    #[must_use]
    pub fn completed_bytes(&self) -> u64 {
        self.sum(|layer| layer.completed)
    }

    /// Bytes of them that this pull brought.
    #[must_use]
    pub fn brought_bytes(&self) -> u64 {
        self.sum(|layer| layer.completed.saturating_sub(layer.found))
    }

    fn sum(&self, part: impl Fn(&Layer) -> u64) -> u64 {
        self.layers.iter().map(part).fold(0, u64::saturating_add)
    }
}
