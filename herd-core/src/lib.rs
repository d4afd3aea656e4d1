//! The domain of herd: pure decisions over plain data.
//!
//! No async, no I/O, no clock, no randomness, no logging: time, configuration and randomness come in as arguments. The
//! same code serves traffic, tests, the explain endpoint and the simulator. Times that end in `_ms` and are not
//! durations count from an arbitrary start of the receiver's monotonic clock.

#[macro_use]
pub mod vocabulary;

pub mod access;
pub mod alias;
pub mod answer;
pub mod awake;
pub mod budget;
pub mod choice;
pub mod decide;
pub mod eligible;
pub mod estimate;
pub mod exchange;
pub mod explain;
pub mod fleet;
pub mod health;
pub mod histogram;
pub mod history;
pub mod inspect;
pub mod join;
pub mod launch;
pub mod lesson;
pub mod load;
pub mod name;
pub mod network;
pub mod path;
pub mod patience;
pub mod places;
pub mod protect;
pub mod pull;
pub mod queue;
pub mod ready;
pub mod recommend;
pub mod record;
pub mod request;
pub mod rules;
pub mod score;
pub mod splice;
pub mod spot;
pub mod substitute;
#[cfg(test)]
mod testing;
pub mod version;
pub mod wall;
pub mod wire;
