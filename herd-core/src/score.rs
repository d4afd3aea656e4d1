//! The score of a node for a request: the weighted sum of seven signals. Higher is better.
//!
//! Every signal is a small pure function of [`Facts`] that says its unit, range and direction, and what a missing
//! input yields. To add an eighth: a function in [`signals`], a weight in [`Weights`], a row in [`SIGNALS`], a key in
//! `conf/herd.yaml` and a row in the table tests.

pub mod signals;

pub use signals::Facts;

/// The most that each signal can add (or take away), in points. The defaults are the product's promise.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Weights {
    /// Model warmth; it can also cost the sum of all other gains, see [`signals::thermal`].
    pub thermal: f64,
    /// Headroom after placing the model.
    pub memory_fit: f64,
    /// Work on the node against its slots; a penalty.
    pub queue_depth: f64,
    /// What requests take here; a penalty.
    pub latency_history: f64,
    /// Large models to large machines.
    pub role_affinity: f64,
    /// Availability stable or rising.
    pub availability_trend: f64,
    /// Whether the window holds the prompt; too small is a penalty.
    pub context_fit: f64,
}

impl Default for Weights {
    fn default() -> Self {
        Self {
            thermal: 50.0,
            memory_fit: 20.0,
            queue_depth: 30.0,
            latency_history: 25.0,
            role_affinity: 15.0,
            availability_trend: 10.0,
            context_fit: 15.0,
        }
    }
}

/// How many signals there are.
pub const SIGNAL_COUNT: usize = 7;

/// A signal: its name and its function.
pub type Signal = (&'static str, fn(&Facts<'_>, &Weights) -> f64);

/// The signals, in the order of every breakdown.
pub const SIGNALS: [Signal; SIGNAL_COUNT] = [
    ("thermal", signals::thermal),
    ("memory_fit", signals::memory_fit),
    ("queue_depth", signals::queue_depth),
    ("latency_history", signals::latency_history),
    ("role_affinity", signals::role_affinity),
    ("availability_trend", signals::availability_trend),
    ("context_fit", signals::context_fit),
];

/// A score with its parts, in points.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Score {
    /// One value per entry of [`SIGNALS`].
    pub parts: [f64; SIGNAL_COUNT],
}

impl Score {
    /// Scores what `facts` say.
    #[must_use]
    pub fn of(facts: &Facts<'_>, weights: &Weights) -> Self {
        // No penalty is zero, and not what floating-point numbers have as well, a zero below it.
        Self { parts: SIGNALS.map(|(_, signal)| signal(facts, weights) + 0.0) }
    }

    /// The sum of the parts.
    #[must_use]
    pub fn total(&self) -> f64 {
        self.parts.iter().sum()
    }

    /// The parts with their names.
    pub fn named(&self) -> impl Iterator<Item = (&'static str, f64)> + '_ {
        SIGNALS.iter().map(|(name, _)| *name).zip(self.parts)
    }
}
