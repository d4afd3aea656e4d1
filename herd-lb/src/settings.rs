//! What may change while the edge runs: read with its source and its meaning, changed as a whole or not at all, and
//! kept in `settings.json`, which goes over the file and under environment and flags.

mod saved;

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use herd_admin::{Setting, SettingsChange, SettingsError};
use serde_json::Value;

use crate::config::{Config, ConfigError, ConfigFile, Layers, LiveConfig, Source, help, variable};
use crate::fleet::Fleet;

pub use saved::{check_owner, load, settings_file};

/// Keys of which nothing but their being set is told, and which are not changed here.
const SECRET: [&str; 1] = ["fleet.join_token"];

/// Keys and sections that are read once, at the start.
const AT_START: [&str; 19] = [
    "store",
    "listen",
    "data_dir",
    "threads",
    "admin",
    "access",
    "log",
    "agent",
    "mdns",
    "fleet.networks",
    "fleet.nodes_max",
    "fleet.models_max",
    "fleet.nodes_per_address_max",
    "fleet.models_total_max",
    "fleet.heartbeat_body_bytes",
    "probe",
    "limits",
    "upstream.keepalive_connections",
    "retry.budget_",
];

/// The settings of a running edge.
pub struct Settings {
    layers: Mutex<Layers>,
    file: PathBuf,
    live: LiveConfig,
    fleet: Arc<Fleet>,
    follower: OnceLock<Follower>,
    /// What the bounds were at the start, for those that are read then alone.
    at_start: BTreeMap<String, f64>,
}

/// Told of every configuration that comes into force, before it does.
type Follower = Box<dyn Fn(&Config) + Send + Sync>;

impl Settings {
    /// Those of an edge that was started with `layers`, whose configuration in force is `live`.
    #[must_use]
    pub fn new(layers: Layers, live: LiveConfig, fleet: Arc<Fleet>) -> Self {
        let file = settings_file(&live.now().data_dir);
        let at_start = bounds(&layers).collect();
        Self { layers: Mutex::new(layers), file, live, fleet, follower: OnceLock::new(), at_start }
    }

    /// Every bound of the configuration as it is in force, by its key.
    #[must_use]
    pub fn bounds(&self) -> Vec<(String, f64)> {
        let in_force = |(key, now): (String, f64)| {
            let bound = if needs_restart(&key) { self.at_start.get(&key).copied().unwrap_or(now) } else { now };
            (key, bound)
        };
        bounds(&self.lock()).map(in_force).collect()
    }

    /// Has `follower` told of every configuration that comes into force, before it does; one at a time. The first that
    /// is set stays.
    pub fn follow(&self, follower: impl Fn(&Config) + Send + Sync + 'static) {
        drop(self.follower.set(Box::new(follower)));
    }

    /// Every key.
    #[must_use]
    pub fn list(&self) -> Vec<Setting> {
        let explained = help();
        let defaults: BTreeMap<String, serde_yaml::Value> = ConfigFile::keys().into_iter().collect();
        let values = self.lock().values().unwrap_or_default();
        let tell = |(key, value, source): (String, serde_yaml::Value, Source)| Setting {
            value: shown(&key, &value),
            default: defaults.get(&key).map_or(Value::Null, |default| shown(&key, default)),
            source: source.name(),
            variable: variable(&key),
            needs_restart: needs_restart(&key),
            changeable: is_changeable(&key, source),
            help: explained.get(&key).cloned().unwrap_or_default(),
            key,
        };
        values.into_iter().map(tell).collect()
    }

    /// Makes all of `changes` or none; null takes a key back to what it would be without. Keys that do not exist are named
    /// and keep no others from being changed: scripts of ollama-herd set some that herd does not have.
    ///
    /// # Errors
    /// With each key that cannot be changed so, or when there is none that exists.
    pub fn change(&self, changes: &serde_json::Map<String, Value>) -> Result<SettingsChange, SettingsError> {
        let mut changes = flat(changes);
        let mut layers = self.lock();
        let unknown = unknown_keys(&layers, &changes);
        if unknown.len() < changes.len() {
            changes.retain(|key, _| !unknown.contains(key));
        }
        let wrong = refusals(&layers, &changes);
        if !wrong.is_empty() {
            return Err(SettingsError { wrong });
        }
        let mut next = layers.clone();
        for (key, value) in &changes {
            match serde_yaml::to_value(value) {
                Ok(value) if !value.is_null() => drop(next.saved.insert(key.clone(), value)),
                _ => drop(next.saved.remove(key)),
            }
        }
        let config = next.build().map_err(|error| SettingsError { wrong: vec![named(&error)] })?;
        let wrong = keeps_from_starting(&self.live.now(), &config);
        if !wrong.is_empty() {
            return Err(SettingsError { wrong });
        }
        let persisted = saved::write(&self.file, &next.saved);
        *layers = next;
        // Under the lock: of two changes at once, the one that is told last must be in force last.
        self.apply(config);
        drop(layers);
        let keys: Vec<String> = changes.keys().cloned().collect();
        let needs_restart = keys.iter().filter(|key| needs_restart(key)).cloned().collect();
        let (persisted, error) = (persisted.is_ok(), persisted.err());
        Ok(SettingsChange { changed: keys, unknown, needs_restart, persisted, error })
    }

    /// Puts a configuration in force wherever it is read from.
    fn apply(&self, config: Config) {
        if let Some(follower) = self.follower.get() {
            follower(&config);
        }
        self.fleet.set_policy(config.policy.clone());
        self.live.replace(config);
        self.fleet.changed().nudge();
    }

    fn lock(&self) -> MutexGuard<'_, Layers> {
        // It is replaced as a whole.
        self.layers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Every bound that `layers` make, by its key.
fn bounds(layers: &Layers) -> impl Iterator<Item = (String, f64)> {
    let mut values: BTreeMap<String, serde_yaml::Value> =
        layers.values().unwrap_or_default().into_iter().map(|(key, value, _)| (key, value)).collect();
    ConfigFile::bounds().filter_map(move |key| {
        let bound = values.remove(&key)?.as_f64()?;
        Some((key, bound))
    })
}

/// What of the configuration `next` would keep an edge from starting that runs with `now`: told while there is somebody to
/// tell, and not by an edge that does not come back.
fn keeps_from_starting(now: &Config, next: &Config) -> Vec<(String, String)> {
    let own_ports = [now.listen.port(), now.admin_listen.port()];
    let mut wrong = Vec::new();
    for (key, was, is) in [("listen", now.listen, next.listen), ("admin.listen", now.admin_listen, next.admin_listen)] {
        let failed = (was != is).then(|| TcpListener::bind(is).err()).flatten();
        // What this edge itself holds will be free by then.
        let failed = failed.filter(|error| error.kind() != ErrorKind::AddrInUse || !own_ports.contains(&is.port()));
        if let Some(error) = failed {
            wrong.push((key.to_owned(), format!("cannot listen on {is}: {error}; herd would not start again")));
        }
    }
    if now.data_dir != next.data_dir
        && let Err(error) = std::fs::create_dir_all(&next.data_dir)
    {
        wrong.push(("data_dir".to_owned(), format!("{} cannot be made: {error}", next.data_dir.display())));
    }
    wrong
}

/// What to say of a key that takes no value.
fn unknown(key: &str, sources: &BTreeMap<String, Source>) -> String {
    let section = format!("{key}.");
    match sources.keys().find(|known| known.starts_with(&section)) {
        Some(first) if key == "auto_pull" => format!("takes true or false, or keys of its own such as {first}"),
        Some(first) => format!("takes no value but keys of its own, such as {first}"),
        None => "there is no such key".to_owned(),
    }
}

/// Those of `changes` that are no keys at all.
fn unknown_keys(layers: &Layers, changes: &BTreeMap<String, Value>) -> Vec<String> {
    let known: Vec<String> = layers.values().unwrap_or_default().into_iter().map(|(key, ..)| key).collect();
    let is_section =
        |key: &str| known.iter().any(|known| known.strip_prefix(key).is_some_and(|rest| rest.starts_with('.')));
    changes.keys().filter(|key| !known.contains(key) && !is_section(key)).cloned().collect()
}

fn refusals(layers: &Layers, changes: &BTreeMap<String, Value>) -> Vec<(String, String)> {
    let values = layers.values().unwrap_or_default();
    let sources: BTreeMap<String, Source> = values.into_iter().map(|(key, _, source)| (key, source)).collect();
    let refusal = |key: &String| match sources.get(key) {
        None => Some((key.clone(), unknown(key, &sources))),
        Some(_) if SECRET.contains(&key.as_str()) => Some((key.clone(), "is not changed at run time".to_owned())),
        Some(Source::Env) => Some((key.clone(), format!("is set by the environment ({})", variable(key)))),
        Some(Source::Flag) => Some((key.clone(), "is set by a flag".to_owned())),
        Some(_) => None,
    };
    changes.keys().filter_map(refusal).collect()
}

fn named(error: &ConfigError) -> (String, String) {
    match error {
        ConfigError::Yaml(message) => (String::new(), message.clone()),
        ConfigError::Type { key, message } => (key.clone(), message.clone()),
        ConfigError::Value { key, value, allowed } => {
            ((*key).to_owned(), format!("{value} is not allowed: must be {allowed}"))
        }
    }
}

fn is_changeable(key: &str, source: Source) -> bool {
    !SECRET.contains(&key) && !matches!(source, Source::Env | Source::Flag)
}

fn needs_restart(key: &str) -> bool {
    AT_START.iter().any(|start| {
        key.strip_prefix(start).is_some_and(|rest| rest.is_empty() || rest.starts_with('.') || start.ends_with('_'))
    })
}

fn shown(key: &str, value: &serde_yaml::Value) -> Value {
    if SECRET.contains(&key) {
        return Value::Bool(value.as_str().is_some_and(|secret| !secret.is_empty()));
    }
    serde_json::to_value(value).unwrap_or(Value::Null)
}

/// Nested objects as dotted keys. `{"auto_pull": false}` and `{"vram_fallback": false}` are how scripts of ollama-herd
/// switch them off.
fn flat(changes: &serde_json::Map<String, Value>) -> BTreeMap<String, Value> {
    let mappings: Vec<String> =
        ConfigFile::keys().into_iter().filter(|(_, default)| default.is_mapping()).map(|(key, _)| key).collect();
    let mut found = BTreeMap::new();
    let mut open: Vec<(String, &Value)> = changes.iter().map(|(key, value)| (key.clone(), value)).collect();
    while let Some((key, value)) = open.pop() {
        match value {
            Value::Object(members) if !mappings.contains(&key) => {
                open.extend(members.iter().map(|(member, value)| (format!("{key}.{member}"), value)));
            }
            Value::Bool(_) if key == "auto_pull" => drop(found.insert("auto_pull.enabled".to_owned(), value.clone())),
            Value::Bool(_) if key == "vram_fallback" => drop(found.insert("fallback.vram".to_owned(), value.clone())),
            _ => drop(found.insert(key, value.clone())),
        }
    }
    found
}

#[cfg(test)]
mod tests;
