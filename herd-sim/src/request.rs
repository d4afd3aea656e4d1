//! A request's body, read for every surface into one structure.
//!
//! Surfaces share most names; where they differ only one of the fields is there. Bodies that do not fit are read a
//! second time, slowly, to answer with the text that Go's decoder would.

mod go_error;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::{
    surface::{ApiError, Surface},
    text::estimate_tokens,
};

/// What a client asks for.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Ask {
    pub(crate) model: Option<String>,
    /// The older name of `model` on native endpoints.
    pub(crate) name: Option<String>,
    pub(crate) stream: Option<bool>,
    pub(crate) messages: Option<Vec<Message>>,
    pub(crate) prompt: Option<String>,
    pub(crate) suffix: Option<String>,
    /// Text, or Anthropic's list of blocks.
    pub(crate) system: Value,
    /// Texts to embed, or what `/v1/responses` calls its messages.
    pub(crate) input: Value,
    pub(crate) instructions: Option<String>,
    pub(crate) images: Option<Vec<Value>>,
    pub(crate) raw: Option<bool>,
    pub(crate) options: Option<Map<String, Value>>,
    pub(crate) keep_alive: Option<Value>,
    pub(crate) tools: Option<Vec<Value>>,
    pub(crate) think: Option<Value>,
    pub(crate) thinking: Option<Value>,
    pub(crate) reasoning_effort: Option<String>,
    pub(crate) reasoning: Option<Value>,
    pub(crate) truncate: Option<bool>,
    pub(crate) shift: Option<bool>,
    pub(crate) dimensions: Option<usize>,
    pub(crate) encoding_format: Option<String>,
    pub(crate) stream_options: Option<StreamOptions>,
    pub(crate) max_tokens: Option<i64>,
    pub(crate) max_output_tokens: Option<i64>,
    pub(crate) seed: Option<i64>,
    pub(crate) temperature: Option<f64>,
    pub(crate) top_p: Option<f64>,
}

/// `stream_options` of the `OpenAI` surfaces.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct StreamOptions {
    pub(crate) include_usage: Option<bool>,
}

/// One message of a conversation.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Message {
    pub(crate) role: Option<String>,
    /// Text, or a list of parts.
    pub(crate) content: Value,
    pub(crate) images: Option<Vec<Value>>,
}

/// What of a prompt matters here: its size in parts that may be dropped, and whether it has images.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Prompt {
    pub(crate) parts: Vec<Part>,
    pub(crate) images: usize,
    /// Text of the last message, which decides whether a tool is called.
    pub(crate) last: String,
    /// Hash of all of it.
    pub(crate) hash: u64,
}

/// One message, or the whole prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) tokens: u32,
    /// System messages are never dropped.
    pub(crate) system: bool,
}

/// Tokens that an image takes.
const IMAGE_TOKENS: u32 = 256;

impl Prompt {
    fn push(&mut self, role: &str, text: &Flat) {
        let chars = text.text.chars().count();
        let images = u32::try_from(text.images).unwrap_or(u32::MAX);
        let tokens = estimate_tokens(chars).saturating_add(IMAGE_TOKENS.saturating_mul(images));
        self.hash = self.hash.rotate_left(5) ^ herd_core::name::fnv1a(text.text.as_bytes());
        self.parts.push(Part { tokens, system: matches!(role, "system" | "developer") });
        self.images += text.images;
        self.last.clone_from(&text.text);
    }

    fn push_text(&mut self, role: &str, text: &str) {
        self.push(role, &Flat { text: text.to_owned(), images: 0 });
    }
}

/// Members that native surfaces do not have, so that they are of any kind there.
const NOT_NATIVE: [&str; 7] =
    ["max_tokens", "max_output_tokens", "seed", "temperature", "top_p", "stream_options", "instructions"];

impl Ask {
    /// Reads `body`, or says why not in the words of `surface`.
    pub(crate) fn parse(body: &[u8], surface: Surface) -> Result<Self, ApiError> {
        if body.iter().all(u8::is_ascii_whitespace) {
            // Only the native endpoints look for this case; the others pass the decoder's word on.
            let native = matches!(surface, Surface::Chat | Surface::Generate | Surface::Embed | Surface::Embeddings);
            return Err(ApiError::unreadable(if native { "missing request body" } else { "EOF" }));
        }
        // Serde would take an array for a struct's fields in their order.
        if body.trim_ascii_start().first() == Some(&b'[') {
            let text = format!("json: cannot unmarshal array into Go value of type api.{}", surface.go_struct());
            return Err(ApiError::unreadable(text));
        }
        serde_json::from_slice(body).or_else(|error| {
            Self::parse_odd(body, surface).ok_or_else(|| ApiError::unreadable(go_error::text(body, surface, &error)))
        })
    }

    /// Reads what Go's decoder takes and ours does not: bytes behind the value, text that is not UTF-8, keys that stand
    /// twice, and members that the surface does not have.
    fn parse_odd(body: &[u8], surface: Surface) -> Option<Self> {
        let text = String::from_utf8_lossy(body);
        let mut values = serde_json::Deserializer::from_str(&text).into_iter::<Map<String, Value>>();
        let mut fields = values.next()?.ok()?;
        if matches!(surface, Surface::Chat | Surface::Generate | Surface::Embed | Surface::Embeddings) {
            fields.retain(|name, _| !NOT_NATIVE.contains(&name.as_str()));
        }
        serde_json::from_value(Value::Object(fields)).ok()
    }

    /// What `/v1` looks at before it knows the model.
    pub(crate) fn check(&self, surface: Surface) -> Result<(), ApiError> {
        let no_messages = self.messages.as_ref().is_none_or(Vec::is_empty);
        let text = match surface {
            Surface::V1Chat if no_messages => "[] is too short - 'messages'",
            Surface::V1Messages if self.model().is_empty() => "model is required",
            Surface::V1Messages if self.max_tokens.is_none_or(|limit| limit <= 0) => {
                "max_tokens is required and must be positive"
            }
            Surface::V1Messages if no_messages => "messages is required",
            _ => return Ok(()),
        };
        Err(ApiError::unreadable(text))
    }

    /// The model as the client spelled it, empty when absent.
    pub(crate) fn model(&self) -> &str {
        self.model.as_deref().filter(|model| !model.is_empty()).or(self.name.as_deref()).unwrap_or_default()
    }

    /// Whether the answer is streamed on `surface`.
    pub(crate) fn streams(&self, surface: Surface) -> bool {
        self.stream.unwrap_or(surface.streams_by_default())
    }

    /// `options.num_ctx`, if it is a whole number.
    pub(crate) fn num_ctx(&self) -> Option<i64> {
        self.options.as_ref()?.get("num_ctx")?.as_i64()
    }

    /// The prompt of a request that generates.
    pub(crate) fn prompt(&self) -> Prompt {
        let mut prompt = Prompt::default();
        for system in [flatten(&self.system).text.as_str(), self.instructions.as_deref().unwrap_or_default()] {
            if !system.is_empty() {
                prompt.push_text("system", system);
            }
        }
        if let Some(tools) = self.tools.as_ref().filter(|tools| !tools.is_empty()) {
            prompt.push_text("system", &super::json::to_string(tools));
        }
        for message in self.messages.iter().flatten() {
            let mut text = flatten(&message.content);
            text.images += message.images.as_ref().map_or(0, Vec::len);
            prompt.push(message.role.as_deref().unwrap_or("user"), &text);
        }
        match &self.input {
            Value::Array(items) => items.iter().for_each(|item| push_item(&mut prompt, item)),
            Value::String(text) => prompt.push_text("user", text),
            _ => {}
        }
        if let Some(text) = &self.prompt {
            let images = self.images.as_ref().map_or(0, Vec::len);
            prompt.push("user", &Flat { text: text.clone(), images });
        }
        prompt
    }

    /// The texts to embed.
    pub(crate) fn embed_inputs(&self) -> Result<Vec<String>, ApiError> {
        match &self.input {
            Value::Null => Ok(Vec::new()),
            Value::String(text) => Ok(vec![text.clone()]),
            Value::Array(items) => {
                let text = |item: &Value| item.as_str().map(str::to_owned);
                items.iter().map(text).collect::<Option<_>>().ok_or_else(|| ApiError::bad_request("invalid input type"))
            }
            _ => Err(ApiError::bad_request("invalid input type")),
        }
    }
}

/// An item of `/v1/responses`' input: a message, or the like.
fn push_item(prompt: &mut Prompt, item: &Value) {
    let role = item.get("role").and_then(Value::as_str).unwrap_or("user");
    let content = item.get("content").or_else(|| item.get("output")).unwrap_or(item);
    prompt.push(role, &flatten(content));
}

#[derive(Debug, Default)]
struct Flat {
    text: String,
    images: usize,
}

/// All text of a message's content, whatever form it has.
fn flatten(content: &Value) -> Flat {
    let mut flat = Flat::default();
    flatten_into(content, &mut flat);
    flat
}

fn flatten_into(content: &Value, flat: &mut Flat) {
    match content {
        Value::String(text) => flat.text.push_str(text),
        Value::Array(parts) => parts.iter().for_each(|part| flatten_into(part, flat)),
        Value::Object(part) => match part.get("type").and_then(Value::as_str) {
            Some("image" | "image_url" | "input_image") => flat.images += 1,
            _ => ["text", "content"].iter().filter_map(|key| part.get(*key)).for_each(|v| flatten_into(v, flat)),
        },
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(body: &str, expected: &str) {
        assert_eq!(Ask::parse(body.as_bytes(), Surface::Chat).expect_err("is refused").message, expected);
    }

    #[test]
    fn unreadable_bodies_are_refused_in_gos_words() {
        refused(r#"{"model":"tiny","#, "unexpected EOF");
        refused(" ", "missing request body");
        let text = "json: cannot unmarshal string into Go struct field ChatRequest.messages of type []api.Message";
        refused(r#"{"model":"tiny","messages":"hi"}"#, text);
        refused("[]", "json: cannot unmarshal array into Go value of type api.ChatRequest");
        refused("hello", "invalid character 'h' looking for beginning of value");
    }

    #[test]
    fn prompts_are_found_on_every_surface() {
        #[track_caller]
        fn check(body: &str, tokens: u32, images: usize) {
            let prompt = Ask::parse(body.as_bytes(), Surface::Chat).expect("is read").prompt();
            assert_eq!(prompt.parts.iter().map(|part| part.tokens).sum::<u32>(), tokens, "{body}");
            assert_eq!(prompt.images, images, "{body}");
        }
        check(r#"{"messages":[{"role":"user","content":"12345678"}]}"#, 2, 0);
        check(r#"{"prompt":"1234","system":"1234"}"#, 2, 0);
        check(r#"{"messages":[{"content":"1234","images":["x"]}]}"#, 257, 1);
        check(r#"{"messages":[{"content":[{"type":"text","text":"1234"},{"type":"image_url"}]}]}"#, 257, 1);
        check(r#"{"system":[{"type":"text","text":"1234"}],"messages":[{"content":null}]}"#, 1, 0);
        check(r#"{"input":"1234","instructions":"1234"}"#, 2, 0);
        check(r#"{"input":[{"role":"user","content":[{"type":"input_text","text":"1234"}]}]}"#, 1, 0);
    }
}
