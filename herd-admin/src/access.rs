//! API keys: kept in a file, known to the edge and to this service at once, and asked for by one gate before any route.
//!
//! A key's secret has 256 random bits, so its SHA-256 can be kept as it is: a slow hash protects secrets that people
//! choose, which can be guessed; nobody guesses these, and a slow hash would tax every request instead.

mod audit;
mod file;
mod gate;
mod history;
mod keys;
mod secret;
#[cfg(test)]
mod tests;

pub use audit::{Actor, Audit, AuditEntry, AuditSink};
pub use file::{KEYS_MAX, KeyFile, KeyFileError, KeyRecord, LimitsRecord, NewKey};
pub(crate) use gate::{gate, refused};
pub(crate) use history::audit;
pub(crate) use keys::scheme;
pub use keys::{Key, Keys};
pub use secret::random_hex;
