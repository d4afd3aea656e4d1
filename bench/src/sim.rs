//! The simulator of routing policies: virtual time, from a seed, with the decisions of `herd-core` that serve traffic.
//!
//! `workload` says what is asked of which fleet, `catalogue` what machines and models are like, `node` what a machine
//! with an Ollama does; `policy` holds herd and what it is compared with, each a `router`; `engine` lets time pass between
//! them; `bound` is what nobody can beat. `matrix` runs everything, `metrics` and `report` tell what came of it.

/// Adds formatted words to a text.
macro_rules! put {
    ($text:expr, $($words:tt)*) => { $text.push_str(&format!($($words)*)) };
}

/// The same with the end of the line.
macro_rules! putln {
    ($text:expr, $($words:tt)*) => {{
        put!($text, $($words)*);
        $text.push('\n');
    }};
}

mod bound;
mod catalogue;
mod cli;
mod engine;
#[cfg(test)]
mod laws;
mod matrix;
mod metrics;
mod node;
mod policy;
mod report;
pub(crate) mod rng;
mod router;
mod svg;
mod validate;
mod workload;

pub use cli::main;
