//! The audit log: who changed what.

use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use herd_store::unix_ms;

/// Who changes something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    /// Where it comes from; `None` = from within, as from a file on this machine.
    pub ip: Option<IpAddr>,
    /// Id and name of the key that it showed.
    pub key: Option<(Arc<str>, Arc<str>)>,
}

impl Actor {
    /// What happens on this machine without a request.
    pub const HERE: Self = Self { ip: None, key: None };
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.ip, &self.key) {
            (Some(ip), None) => write!(f, "{ip}"),
            (Some(ip), Some((id, name))) => write!(f, "{name} ({id}) from {ip}"),
            (None, _) => f.write_str("this machine"),
        }
    }
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEntry {
    /// When, by the wall clock.
    pub unix_ms: u64,
    /// Who.
    pub actor: Actor,
    /// What was done, one of our own words.
    pub action: &'static str,
    /// To what: a node, a model, a key. May come from outside.
    pub target: String,
    /// Details for people.
    pub detail: String,
}

/// Keeps changes. It is called while a request waits, so it must not wait itself.
pub trait AuditSink: Send + Sync + 'static {
    /// Takes one.
    fn record(&self, entry: AuditEntry);
}

/// Where changes are told. All clones are one.
#[derive(Clone, Default)]
pub struct Audit(Arc<OnceLock<Box<dyn AuditSink>>>);

impl Audit {
    /// Has all further entries kept by `sink` too; false = there is one already.
    pub fn keep_in(&self, sink: impl AuditSink) -> bool {
        self.0.set(Box::new(sink)).is_ok()
    }

    /// Notes a change that was made.
    pub fn audit(&self, actor: &Actor, action: &'static str, target: &str, detail: &str) {
        let (ip, key_id) = (actor.ip.map(|ip| ip.to_string()), actor.key.as_ref().map(|(id, _)| id.as_ref()));
        let by = actor.to_string();
        tracing::info!(target: "herd::audit", action, on = target, detail, by, ip, key_id, "changed");
        if let Some(sink) = self.0.get() {
            let (target, detail) = (target.to_owned(), detail.to_owned());
            sink.record(AuditEntry { unix_ms: unix_ms(), actor: actor.clone(), action, target, detail });
        }
    }
}

impl fmt::Debug for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Audit(..)")
    }
}
