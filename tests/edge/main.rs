//! The edge as its clients see it: real binaries, simulated nodes, raw bytes.

#![expect(clippy::unwrap_used, reason = "a test fails where it stands")]

mod alias;
mod benchmark;
mod bodies;
mod clients;
mod failure;
mod input;
mod live;
mod routing;
mod settings;
mod surfaces;
