//! The edge as its clients see it: real binaries, simulated nodes, raw bytes.

mod bodies;
mod clients;
mod failure;
mod input;
mod routing;
mod surfaces;
