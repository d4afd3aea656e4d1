//! From a request to what the model will do: which runner, how many tokens in and out, which words.

use std::sync::Arc;

use http::StatusCode;
use serde_json::{Map, Value};

use super::{
    catalog::{Catalog, Stored},
    config::{Capability, SimConfig},
    options::{self, Options},
    request::{Ask, Part, Prompt},
    scheduler::Want,
    surface::{ApiError, Surface},
    text::{THOUGHTS, Words, random_id},
};

/// A generation that may be scheduled.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) surface: Surface,
    /// The model as the client spelled it: answers echo it.
    pub(crate) echo: String,
    pub(crate) want: Want,
    pub(crate) prompt: Prompt,
    pub(crate) truncate: bool,
    pub(crate) stream: bool,
    pub(crate) answer: Answer,
    pub(crate) form: Form,
}

/// What the model will say.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Answer {
    pub(crate) think: bool,
    pub(crate) tool: Option<ToolCall>,
    /// Tokens in all, the invisible one that stops included.
    pub(crate) tokens: u32,
    /// Whether the limit ends it, not the model.
    pub(crate) cut: bool,
    pub(crate) seed: u64,
}

/// A call of a tool.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ToolCall {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) arguments: Map<String, Value>,
}

/// Fields of a request that shape its answer, or that `/v1/responses` repeats there.
#[derive(Debug, Clone, Default)]
pub(crate) struct Form {
    pub(crate) include_usage: bool,
    /// No template, and so no `context` to go on from.
    pub(crate) raw: bool,
    pub(crate) instructions: Option<String>,
    pub(crate) tools: Vec<Value>,
    pub(crate) temperature: Option<f64>,
    pub(crate) top_p: Option<f64>,
    pub(crate) max_output_tokens: Option<i64>,
}

/// One token of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Piece {
    /// Of the thinking.
    Thought(&'static str),
    /// Of the answer.
    Text(&'static str),
}

/// Tokens that a tool call takes.
const TOOL_CALL_TOKENS: u32 = 10;

impl Answer {
    /// The visible tokens, one by one.
    pub(crate) fn pieces(&self) -> impl Iterator<Item = Piece> + Send + use<> {
        let silent = u32::from(!self.cut);
        let visible =
            if self.tool.is_some() { THOUGHTS.len() as u64 } else { u64::from(self.tokens - silent.min(self.tokens)) };
        let thoughts = if self.think { THOUGHTS.as_slice() } else { &[] };
        let words = Words::new(self.seed).take(if self.tool.is_some() { 0 } else { usize::MAX });
        let all = thoughts.iter().copied().map(Piece::Thought).chain(words.map(Piece::Text));
        all.take(usize::try_from(visible).unwrap_or(usize::MAX))
    }
}

/// The model that a request names, or the error that Ollama has for it on `surface`.
pub(crate) fn find_model(catalog: &Catalog, ask: &Ask, surface: Surface) -> Result<Arc<Stored>, ApiError> {
    let name = ask.model();
    if name.is_empty()
        && matches!(surface, Surface::Chat | Surface::V1Chat | Surface::V1Messages | Surface::V1Responses)
    {
        return Err(ApiError::bad_request("model is required"));
    }
    let tag = name.rsplit_once(':').map_or("", |(_, tag)| tag);
    if tag == "cloud" || tag.ends_with("-cloud") {
        return Err(ApiError::new(StatusCode::FORBIDDEN, "ollama cloud is disabled: remote model is unavailable"));
    }
    catalog.find(name).ok_or_else(|| missing(name, surface))
}

/// What `surface` says of a model that is not there.
pub(crate) fn missing(name: &str, surface: Surface) -> ApiError {
    match surface {
        Surface::Embed | Surface::Embeddings | Surface::V1Embeddings => {
            let text = format!("model \"{name}\" not found, try pulling it first");
            ApiError::new(StatusCode::NOT_FOUND, text)
        }
        _ => ApiError::no_model(name),
    }
}

/// The options that `surface` takes from a request: `/v1` has none.
pub(crate) fn load_options(ask: &Ask, surface: Surface) -> Result<Options, ApiError> {
    let native = surface.dialect() == super::surface::Dialect::Native;
    let given = ask.options.as_ref().filter(|_| native);
    let mut options = given.map_or_else(|| Ok(Options::default()), Options::parse)?;
    options.load.strict.no_shift = native && ask.shift == Some(false);
    if !native {
        options.seed = ask.seed;
        options.num_predict = ask.max_tokens.or(ask.max_output_tokens);
    }
    Ok(options)
}

impl Form {
    fn of(ask: &Ask) -> Self {
        Self {
            include_usage: ask.stream_options.as_ref().and_then(|options| options.include_usage) == Some(true),
            raw: ask.raw == Some(true),
            instructions: ask.instructions.clone(),
            tools: ask.tools.clone().unwrap_or_default(),
            temperature: ask.temperature,
            top_p: ask.top_p,
            max_output_tokens: ask.max_output_tokens,
        }
    }
}

impl Plan {
    /// Plans a generation of `model`; refuses what the model cannot do.
    pub(crate) fn new(ask: &Ask, surface: Surface, model: Arc<Stored>, config: &SimConfig) -> Result<Self, ApiError> {
        let options = load_options(ask, surface)?;
        let native = surface.dialect() == super::surface::Dialect::Native;
        let keep_alive = ask.keep_alive.as_ref().filter(|_| native).map(options::keep_alive).transpose()?;
        let think = check_abilities(ask, surface, &model)?;
        let prompt = ask.prompt();
        let answer = answer(ask, surface, &model, config, &options, (&prompt, think));
        Ok(Self {
            surface,
            echo: ask.model().to_owned(),
            want: Want { model, options: options.load, keep_alive, slot: true },
            prompt,
            truncate: ask.truncate.unwrap_or(true),
            stream: ask.streams(surface),
            answer,
            form: Form::of(ask),
        })
    }

    /// Whether it only loads the model: a native request without a prompt.
    pub(crate) fn only_loads(&self) -> bool {
        let native = matches!(self.surface, Surface::Chat | Surface::Generate);
        native && self.prompt.parts.iter().all(|part| part.system || part.tokens == 0) && self.prompt.images == 0
    }

    /// Tokens of the prompt in a context of `num_ctx`, after Ollama has cut it, or why it refuses.
    pub(crate) fn fit(&self, num_ctx: u32) -> Result<u32, ApiError> {
        if self.prompt.images > 0 && !self.want.model.model.can(Capability::Vision) {
            let text = "Multimodal data provided, but model does not support multimodal requests.";
            let error = EngineError { code: 400, message: text, kind: "invalid_request_error", size: None };
            return Err(error.wrap(self.stream));
        }
        let all: u32 = self.prompt.parts.iter().map(|part| part.tokens).fold(0, u32::saturating_add).max(1);
        if all < num_ctx {
            return Ok(all);
        }
        let kept = if self.truncate { drop_oldest(&self.prompt.parts, num_ctx) } else { all };
        if kept < num_ctx {
            return Ok(kept);
        }
        let refuses = self.want.model.model.native_template && self.surface != Surface::Generate;
        if !self.truncate || refuses {
            let text = format!(
                "request ({kept} tokens) exceeds the available context size ({num_ctx} tokens), try increasing it"
            );
            let size = Some((kept, num_ctx));
            let error = EngineError { code: 400, message: &text, kind: "exceed_context_size_error", size };
            return Err(error.wrap(self.stream));
        }
        // What a real server reports for a prompt that it cut in silence.
        Ok(num_ctx / 2 + 3)
    }
}

/// Tokens left when the oldest messages are dropped until the rest fits; system messages and the last one stay.
fn drop_oldest(parts: &[Part], num_ctx: u32) -> u32 {
    let mut total = parts.iter().map(|part| part.tokens).fold(0, u32::saturating_add);
    let droppable = parts.split_last().map_or(&[][..], |(_, before)| before);
    for part in droppable.iter().filter(|part| !part.system) {
        if total < num_ctx {
            break;
        }
        total -= part.tokens.min(total);
    }
    total
}

/// An error of the engine: JSON that Ollama wraps in its own.
struct EngineError<'a> {
    code: u16,
    message: &'a str,
    kind: &'a str,
    /// Tokens of the prompt and of the context.
    size: Option<(u32, u32)>,
}

impl EngineError<'_> {
    fn wrap(&self, stream: bool) -> ApiError {
        let (code, kind) = (self.code, self.kind);
        let message = super::json::to_string(self.message);
        let size = self.size.map(|(prompt, ctx)| format!(",\"n_prompt_tokens\":{prompt},\"n_ctx\":{ctx}"));
        let size = size.unwrap_or_default();
        let text = format!("{{\"error\":{{\"code\":{code},\"message\":{message},\"type\":\"{kind}\"{size}}}}}");
        ApiError::bad_request(text).raised_by_engine(stream)
    }
}

/// Refuses what `model` cannot do; says whether it will think.
fn check_abilities(ask: &Ask, surface: Surface, model: &Stored) -> Result<bool, ApiError> {
    let name = super::json::to_string(ask.model());
    let full = format!("registry.ollama.ai/library/{}", model.name);
    if model.is_embedding_only() {
        let what = if surface == Surface::Generate || surface == Surface::V1Completions { "generate" } else { "chat" };
        return Err(ApiError::bad_request(format!("{name} does not support {what}")));
    }
    if ask.tools.as_ref().is_some_and(|tools| !tools.is_empty()) && !model.model.can(Capability::Tools) {
        return Err(ApiError::bad_request(format!("{full} does not support tools")));
    }
    if ask.suffix.as_ref().is_some_and(|suffix| !suffix.is_empty()) {
        return Err(ApiError::bad_request(format!("{full} does not support insert")));
    }
    match (wants_thought(ask), model.model.can(Capability::Thinking)) {
        (Some(true), false) => Err(ApiError::bad_request(format!("{name} does not support thinking"))),
        (wanted, can) => Ok(wanted.unwrap_or(true) && can),
    }
}

/// Whether the request asks for thinking, in whichever surface's words.
fn wants_thought(ask: &Ask) -> Option<bool> {
    let effort = ask.reasoning.as_ref().and_then(|reasoning| reasoning.get("effort")).and_then(Value::as_str);
    if let Some(effort) = effort.or(ask.reasoning_effort.as_deref()) {
        return Some(effort != "none");
    }
    if let Some(thinking) = ask.thinking.as_ref().and_then(|thinking| thinking.get("type")).and_then(Value::as_str) {
        return Some(thinking != "disabled");
    }
    match ask.think.as_ref()? {
        Value::Bool(think) => Some(*think),
        Value::String(level) => Some(level != "none"),
        _ => None,
    }
}

fn answer(
    ask: &Ask,
    surface: Surface,
    model: &Stored,
    config: &SimConfig,
    options: &Options,
    (prompt, think): (&Prompt, bool),
) -> Answer {
    let natural = config.answer_tokens.max(1);
    let limit = options.num_predict.and_then(|limit| u32::try_from(limit).ok()).filter(|limit| *limit > 0);
    // On /v1/messages everybody must send a limit, so that it says nothing about the length they expect.
    let fill = config.fill_to_limit && surface != Surface::V1Messages;
    let (tokens, cut) = match limit {
        Some(limit) if fill || limit < natural => (limit, true),
        _ => (natural, false),
    };
    let tool = tool_call(ask, prompt);
    let tokens = if tool.is_some() { TOOL_CALL_TOKENS } else { tokens };
    let seed = prompt.hash ^ model.name.key() ^ options.seed.unwrap_or_default().cast_unsigned();
    Answer { think, cut: cut && tool.is_none(), tool, tokens, seed }
}

/// A call of the first tool, if the last message speaks of tools.
fn tool_call(ask: &Ask, prompt: &Prompt) -> Option<ToolCall> {
    let tool = ask.tools.as_ref()?.first().filter(|_| prompt.last.to_lowercase().contains("tool"))?;
    let function = tool.get("function").unwrap_or(tool);
    let schema = function.get("parameters").or_else(|| function.get("input_schema"));
    let properties = schema.and_then(|schema| schema.get("properties")).and_then(Value::as_object);
    let arguments = properties.into_iter().flatten().map(|(name, schema)| (name.clone(), example(schema))).collect();
    Some(ToolCall { id: random_id(32), name: function.get("name")?.as_str()?.to_owned(), arguments })
}

/// A value that fits a schema's type.
fn example(schema: &Value) -> Value {
    match schema.get("type").and_then(Value::as_str) {
        Some("integer" | "number") => 1.into(),
        Some("boolean") => true.into(),
        Some("array") => Value::Array(Vec::new()),
        Some("object") => Value::Object(Map::new()),
        _ => schema.get("enum").and_then(|values| values.get(0)).cloned().unwrap_or_else(|| "Paris".into()),
    }
}
