//! Benchmarks of herd: none yet.
//!
//! The package holds their place in the workspace. The load generator, the micro-benchmarks and the simulator of
//! policies come with the benchmark issue, and no speed is claimed before them.

pub mod sim;
