//! The catalogue as `OpenAI`'s API tells it, and as the Codex desktop picker wants it.

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::Response;
use herd_core::name::ModelName;
use http::{HeaderMap, StatusCode};
use serde::Serialize;

use crate::answer::{JSON, json};
use crate::catalogue::{Entry, catalogue, find};
use crate::refusal::Refusal;
use crate::state::AdminState;

/// `OpenAI`'s four fields of a model.
#[derive(Serialize)]
struct Card<'a> {
    id: &'a str,
    object: &'static str,
    created: i64,
    owned_by: &'a str,
}

impl<'a> Card<'a> {
    fn of(entry: &Entry<'a>, id: &'a str) -> Self {
        Self { id, object: "model", created: entry.modified.seconds, owned_by: owner(entry.shown) }
    }
}

/// The namespace of a name, as Ollama tells it.
fn owner(name: &str) -> &str {
    name.rsplit_once('/').map_or("library", |(owner, _)| owner)
}

#[derive(Serialize)]
#[expect(clippy::struct_field_names, reason = "the API's name")]
struct Models<'a> {
    object: &'static str,
    data: Vec<Card<'a>>,
    models: Vec<PickerCard<'a>>,
}

/// `GET /v1/models`: `data` is `OpenAI`'s list, `models` the Codex picker's.
pub(crate) async fn models(State(state): State<AdminState>, headers: HeaderMap) -> Response {
    let view = state.view();
    state.answers().models.json_if_changed(&view, &headers, JSON, || {
        let mut entries = catalogue(&view);
        entries.sort_by_key(|entry| entry.shown);
        let data = entries.iter().map(|entry| Card::of(entry, entry.shown)).collect();
        let models = entries.iter().map(PickerCard::of).collect();
        Models { object: "list", data, models }
    })
}

/// `GET /v1/models/{id}`: one of `OpenAI`'s list. Names may have slashes; the id is echoed as it was asked for.
pub(crate) async fn model(
    State(state): State<AdminState>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, Refusal> {
    let missing = |name: &str| Refusal::not_found("model_not_found", format!("model '{name}' not found"));
    // No name is anything but UTF-8.
    let Path(id) = id.map_err(|_| missing("?"))?;
    let name = ModelName::asked(&id).map_err(|_| missing(&id))?;
    let view = state.view();
    let entry = find(&view, &name).ok_or_else(|| missing(name.as_str()))?;
    Ok(json(StatusCode::OK, JSON, &Card::of(&entry, &id)))
}

/// A model in the picker, which turns down entries that lack a field. What it claims is what the fleet reports.
#[derive(Serialize)]
#[expect(clippy::struct_excessive_bools, reason = "the picker's shape")]
struct PickerCard<'a> {
    id: &'a str,
    slug: &'a str,
    display_name: &'a str,
    description: String,
    object: &'static str,
    created: i64,
    owned_by: &'a str,
    /// What a request over this API would really get: `/v1` cannot say `num_ctx`, so that the trained context would be
    /// a promise that Ollama breaks silently.
    context_window: u64,
    /// The trained context, which a node may be set up to serve; null = not reported.
    max_context_window: Option<u64>,
    max_output_tokens: u64,
    supported_reasoning_efforts: [&'static str; 0],
    supported_reasoning_levels: [&'static str; 0],
    shell_type: &'static str,
    supports_tools: bool,
    supports_vision: bool,
    /// `hide` for what cannot chat.
    visibility: &'static str,
    supported_in_api: bool,
    priority: u32,
    base_instructions: &'static str,
    support_verbosity: bool,
    supports_parallel_tool_calls: bool,
    truncation_policy: Truncation,
}

/// How much of a tool's output the client may put into a prompt.
#[derive(Serialize)]
struct Truncation {
    mode: &'static str,
    limit: u64,
}

/// Ollama's own default, for nodes that tell neither a window nor a trained context.
const OLLAMA_DEFAULT_WINDOW: u64 = 4096;
/// Most tokens of a tool's output in one prompt.
const TOOL_OUTPUT_MAX: u64 = 32_768;

impl<'a> PickerCard<'a> {
    fn of(entry: &Entry<'a>) -> Self {
        let can = |name: &str| entry.details.capabilities.iter().any(|known| known == name);
        let chats = can("completion") || entry.details.capabilities.is_empty();
        let window = entry.window.or(entry.context_length_max).unwrap_or(OLLAMA_DEFAULT_WINDOW);
        let Card { id, object, created, owned_by } = Card::of(entry, entry.shown);
        Self {
            id,
            slug: id,
            display_name: id,
            description: description(entry),
            object,
            created,
            owned_by,
            context_window: window,
            max_context_window: entry.context_length_max,
            max_output_tokens: window,
            supported_reasoning_efforts: [],
            supported_reasoning_levels: [],
            shell_type: "default",
            supports_tools: can("tools"),
            supports_vision: can("vision"),
            visibility: if chats { "list" } else { "hide" },
            supported_in_api: true,
            priority: 0,
            base_instructions: "",
            support_verbosity: false,
            supports_parallel_tool_calls: can("tools"),
            // A quarter of the window, so that one tool cannot fill it.
            truncation_policy: Truncation { mode: "tokens", limit: (window / 4).min(TOOL_OUTPUT_MAX) },
        }
    }
}

fn description(entry: &Entry<'_>) -> String {
    let facts = [&entry.details.family, &entry.details.parameter_size, &entry.details.quantization_level];
    let facts: Vec<_> = facts.into_iter().filter(|fact| !fact.is_empty()).map(String::as_str).collect();
    let nodes = entry.nodes.len();
    let nodes = if nodes == 1 { "1 node".to_owned() } else { format!("{nodes} nodes") };
    if facts.is_empty() { format!("on {nodes}") } else { format!("{}, on {nodes}", facts.join(" ")) }
}
