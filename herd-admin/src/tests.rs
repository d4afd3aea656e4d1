//! The admin service as its clients see it: requests through the router, over a fleet made of heartbeats.

mod actions;
mod alias;
mod benchmark;
mod catalogue;
mod checks;
mod errors;
mod events;
mod explain;
mod fleet;
mod fuzz;
mod health;
mod heartbeat;
mod history;
mod manage;
mod openapi;
mod pull;
mod pull_jobs;
mod scripted;
mod serve;
mod show;
mod surface;
