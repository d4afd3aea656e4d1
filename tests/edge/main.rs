//! The edge as its clients see it: real binaries, simulated nodes, raw bytes.

#![expect(clippy::unwrap_used, reason = "a test fails where it stands")]

mod access;
mod alias;
mod alive;
mod attack;
mod attack_join;
mod attack_memory;
mod attack_names;
mod attack_nodes;
mod attack_silence;
mod benchmark;
mod bodies;
mod chaos;
mod clients;
mod context;
mod cors;
mod failure;
mod failure_table;
mod health;
mod http;
mod input;
mod lenient;
mod live;
mod logs;
mod manage;
mod metrics;
mod pins;
mod pull;
mod queue;
mod recommend;
mod records;
mod resilience;
mod routing;
mod scripted;
mod settings;
mod state;
mod surfaces;
