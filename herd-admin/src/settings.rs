//! `GET /dashboard/api/settings`: every key with its value, its source and its meaning; `POST` changes some.

use axum::extract::{Request, State};
use axum::response::Response;
use http::{HeaderMap, StatusCode};
use serde::Serialize;
use serde_json::Value;

use crate::answer::{JSON, json};
use crate::body;
use crate::guard::Operator;
use crate::history::{self, Ask};
use crate::refusal::Refusal;
use crate::state::AdminState;

/// Largest body of a change.
const BODY_MAX_BYTES: usize = 64 << 10;

/// One key of the configuration.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Setting {
    /// Its dotted name.
    pub key: String,
    /// Its value now; of a secret, whether there is one.
    pub value: Value,
    /// Its default.
    pub default: Value,
    /// Where the value comes from: `default`, `file`, `runtime`, `env`, `flag`.
    pub source: &'static str,
    /// Its environment variable.
    pub variable: String,
    /// A change is in force only after a restart.
    pub needs_restart: bool,
    /// It may be changed here: not when environment or flags have set it.
    pub changeable: bool,
    /// What it means.
    pub help: String,
}

/// What came of a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SettingsChange {
    /// The keys that have changed.
    pub changed: Vec<String>,
    /// Keys that do not exist, and have no effect.
    pub unknown: Vec<String>,
    /// Those of them that are in force only after a restart.
    pub needs_restart: Vec<String>,
    /// Whether all will still hold after a restart.
    pub persisted: bool,
    /// Why not.
    pub error: Option<String>,
}

/// Why nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingsError {
    /// Keys and what is wrong with them.
    pub wrong: Vec<(String, String)>,
}

#[derive(Serialize)]
struct Settings {
    settings: Vec<Setting>,
}

/// Every key.
pub(crate) async fn list(State(state): State<AdminState>, ask: Ask, headers: HeaderMap) -> Response {
    history::told(&ask, &headers, &Settings { settings: state.source().settings() }, "settings")
}

/// Changes the keys in the body that exist, all or none: dotted (`"context.protection"`) or nested; null = back to the default.
pub(crate) async fn change(
    State(state): State<AdminState>,
    operator: Operator,
    request: Request,
) -> Result<Response, Refusal> {
    let body = body::read(request.into_body(), BODY_MAX_BYTES, state.config().body_timeout).await?;
    let changes: serde_json::Map<String, Value> = serde_json::from_slice(&body)
        .map_err(|error| Refusal::bad_request("invalid_request", format!("a JSON object is wanted: {error}")))?;
    let before = state.source().settings();
    let worker = state.clone();
    let made = tokio::task::spawn_blocking(move || worker.source().change_settings(&changes)).await;
    let failed = |_| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the change was cut off");
    let change = made.map_err(failed)?.map_err(|error| Refusal::bad_request("invalid_setting", told(&error)))?;
    let detail = differences(&change.changed, &before, &state.source().settings());
    state.audit(&operator.actor, "settings_change", &change.changed.join(","), &detail);
    Ok(json(StatusCode::OK, JSON, &Told::of(&change)))
}

/// A change, with the fields that scripts of ollama-herd read.
#[derive(Serialize)]
struct Told<'a> {
    status: &'static str,
    restart_required: &'a [String],
    not_persisted: &'a [String],
    #[serde(flatten)]
    change: &'a SettingsChange,
}

impl<'a> Told<'a> {
    fn of(change: &'a SettingsChange) -> Self {
        let not_persisted = if change.persisted { &[][..] } else { &change.changed };
        let status = if change.changed.is_empty() { "no_change" } else { "updated" };
        Self { status, restart_required: &change.needs_restart, not_persisted, change }
    }
}

/// Longest that the value of one key is told, in characters.
const VALUE_CHARS: usize = 200;

/// What became of the `changed` keys, for people. Secrets are no values here.
fn differences(changed: &[String], before: &[Setting], after: &[Setting]) -> String {
    let value = |all: &[Setting], key: &str| {
        let found = all.iter().find(|setting| setting.key == key);
        let text = found.map_or_else(|| "unset".to_owned(), |setting| setting.value.to_string());
        text.chars().take(VALUE_CHARS).collect::<String>()
    };
    let told = changed.iter().map(|key| format!("{key}: {} -> {}", value(before, key), value(after, key)));
    told.collect::<Vec<_>>().join("; ")
}

fn told(error: &SettingsError) -> String {
    let wrong = error.wrong.iter().map(|(key, message)| format!("{key}: {message}"));
    wrong.collect::<Vec<_>>().join("; ")
}
