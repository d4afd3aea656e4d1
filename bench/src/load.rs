//! The load generator: what a proxy adds to a request, measured beside other proxies on the same machine.
//!
//! Three kinds of process take part, each on loopback: the generator, the proxies one after the other, and a backend
//! that costs next to nothing ([`backend`]). The backend writes the time into every chunk, and all read one clock, so
//! that the transit of a chunk is a difference of two readings.
//!
//! Only ratios within one run mean something ([`rounds`]): on a machine that others use, absolute times do not.

pub mod backend;
pub mod beat;
pub mod choose;
pub mod clock;
pub mod drive;
pub mod history;
pub mod http;
pub mod process;
pub mod queue;
pub mod rounds;
pub mod samples;
pub mod scenario;
pub mod schedule;
pub mod stamp;
pub mod table;
pub mod target;
pub mod workload;
