//! What differs between two moments, as events.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::{Value, json};

use super::{Picture, event};

/// What changes all the time and says nothing: ages.
const AGES: [&str; 7] =
    ["heartbeat_age_ms", "known_for_ms", "ejected_for_ms", "age_ms", "queue_ms", "predicted_wait_ms", "idle_ms"];

/// One event for each kind that has changed.
pub(super) fn between(before: &Picture, now: &Picture) -> Vec<Bytes> {
    let mut events = Vec::new();
    let nodes = rows(&before.status, "nodes", "node_id").differences(&rows(&now.status, "nodes", "node_id"));
    if !nodes.is_empty() {
        let changed: Vec<_> = nodes.added.into_iter().chain(nodes.changed).collect();
        let fleet = now.status.get("fleet");
        events.push(event("nodes", &json!({ "nodes": changed, "removed": nodes.removed, "fleet": fleet })));
    }
    if lasting(&before.queue) != lasting(&now.queue) {
        events.push(event("queue", &now.queue));
    }
    let requests =
        rows(&before.requests, "requests", "request_id").differences(&rows(&now.requests, "requests", "request_id"));
    if !requests.is_empty() {
        let total = now.requests.get("total");
        let told = json!({ "total": total, "added": requests.added, "changed": requests.changed,
            "removed": requests.removed });
        events.push(event("requests", &told));
    }
    for (name, before, now) in
        [("pulls", &before.pulls, &now.pulls), ("health", &before.health, &now.health), ("now", &before.now, &now.now)]
    {
        if before != now {
            events.push(event(name, now));
        }
    }
    events
}

/// `value` without its ages.
fn lasting(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let lasting = fields.iter().filter(|(name, _)| !AGES.contains(&name.as_str()));
            lasting.map(|(name, value)| (name.clone(), lasting_of(value))).collect()
        }
        other => lasting_of(other),
    }
}

fn lasting_of(value: &Value) -> Value {
    match value {
        Value::Array(items) => items.iter().map(lasting).collect(),
        Value::Object(_) => lasting(value),
        other => other.clone(),
    }
}

/// Rows by their ids.
struct Rows<'a>(BTreeMap<&'a str, &'a Value>);

#[derive(Default)]
struct Differences<'a> {
    added: Vec<&'a Value>,
    changed: Vec<&'a Value>,
    removed: Vec<&'a str>,
}

impl Differences<'_> {
    fn is_empty(&self) -> bool {
        self.added.is_empty() && self.changed.is_empty() && self.removed.is_empty()
    }
}

fn rows<'a>(value: &'a Value, list: &str, id: &str) -> Rows<'a> {
    let rows = value.get(list).and_then(Value::as_array).into_iter().flatten();
    Rows(rows.filter_map(|row| Some((row.get(id)?.as_str()?, row))).collect())
}

impl<'a> Rows<'a> {
    fn differences(&self, now: &Rows<'a>) -> Differences<'a> {
        let mut found = Differences::default();
        for (id, row) in &now.0 {
            match self.0.get(id) {
                None => found.added.push(row),
                Some(before) if lasting(before) != lasting(row) => found.changed.push(row),
                Some(_) => {}
            }
        }
        found.removed = self.0.keys().filter(|id| !now.0.contains_key(*id)).copied().collect();
        found
    }
}
