//! The whole answer of `/v1/responses`: a Go struct in Ollama, so that its fields have an order of their own.

use serde::Serialize;
use serde_json::Value;

use super::Responses;
use crate::{
    json,
    wire::{Said, Totals},
};

/// The whole answer, in the order of Ollama's struct.
#[derive(Serialize)]
struct Whole<'a> {
    id: String,
    object: &'static str,
    created_at: u64,
    completed_at: u64,
    status: &'static str,
    incomplete_details: Option<()>,
    model: &'a str,
    previous_response_id: Option<()>,
    instructions: Option<&'a str>,
    output: Vec<OutputItem<'a>>,
    error: Option<()>,
    tools: Vec<Value>,
    tool_choice: &'static str,
    truncation: &'static str,
    parallel_tool_calls: bool,
    text: TextFormat,
    top_p: Number,
    presence_penalty: u32,
    frequency_penalty: u32,
    top_logprobs: u32,
    temperature: Number,
    reasoning: Option<()>,
    usage: Usage,
    max_output_tokens: Option<i64>,
    max_tool_calls: Option<()>,
    store: bool,
    background: bool,
    service_tier: &'static str,
    metadata: Empty,
    safety_identifier: Option<()>,
    prompt_cache_key: Option<()>,
}

#[derive(Serialize)]
struct Empty {}

#[derive(Serialize)]
struct TextFormat {
    format: Format,
}

#[derive(Serialize)]
struct Format {
    r#type: &'static str,
}

#[derive(Serialize)]
struct Usage {
    input_tokens: u32,
    output_tokens: u32,
    total_tokens: u32,
    input_tokens_details: Cached,
    output_tokens_details: Reasoning,
}

#[derive(Serialize)]
struct Cached {
    cached_tokens: u32,
}

#[derive(Serialize)]
struct Reasoning {
    reasoning_tokens: u32,
}

#[derive(Serialize, Default)]
struct OutputItem<'a> {
    id: String,
    r#type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<[OutputText<'a>; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    call_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    arguments: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    summary: Option<[SummaryText<'a>; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    encrypted_content: Option<&'a str>,
}

#[derive(Serialize)]
struct OutputText<'a> {
    r#type: &'static str,
    text: &'a str,
    annotations: [(); 0],
    logprobs: [(); 0],
}

#[derive(Serialize)]
struct SummaryText<'a> {
    r#type: &'static str,
    text: &'a str,
}

/// A number that Go writes without a fraction when it has none.
#[derive(Serialize)]
#[serde(untagged)]
enum Number {
    Whole(u32),
    Real(f64),
}

impl Number {
    fn or_one(value: Option<f64>) -> Self {
        value.map_or(Self::Whole(1), Self::Real)
    }
}

impl Responses {
    /// The object, before it is written.
    pub(super) fn whole_object<'a>(&'a self, said: &'a Said, totals: &Totals) -> impl Serialize + use<'a> {
        Whole {
            id: self.id("resp"),
            object: "response",
            created_at: self.created,
            completed_at: self.clock.wall_now().as_secs(),
            status: "completed",
            incomplete_details: None,
            model: &self.model,
            previous_response_id: None,
            instructions: self.form.instructions.as_deref(),
            output: self.whole_output(said),
            error: None,
            tools: self.tools(),
            tool_choice: "auto",
            truncation: "disabled",
            parallel_tool_calls: true,
            text: TextFormat { format: Format { r#type: "text" } },
            top_p: Number::or_one(self.form.top_p),
            presence_penalty: 0,
            frequency_penalty: 0,
            top_logprobs: 0,
            temperature: Number::or_one(self.form.temperature),
            reasoning: None,
            usage: usage(totals),
            max_output_tokens: self.form.max_output_tokens,
            max_tool_calls: None,
            store: false,
            background: false,
            service_tier: "default",
            metadata: Empty {},
            safety_identifier: None,
            prompt_cache_key: None,
        }
    }

    fn whole_output<'a>(&'a self, said: &'a Said) -> Vec<OutputItem<'a>> {
        let mut output = Vec::new();
        if !said.thinking.is_empty() {
            let summary = Some([SummaryText { r#type: "summary_text", text: &said.thinking }]);
            let encrypted_content = Some(said.thinking.as_str());
            let (id, r#type) = (self.id("rs"), "reasoning");
            output.push(OutputItem { id, r#type, summary, encrypted_content, ..OutputItem::default() });
        }
        let status = Some("completed");
        output.push(match &self.tool {
            Some(tool) => OutputItem {
                id: format!("fc_{}_0", self.number),
                r#type: "function_call",
                status,
                call_id: Some(&tool.id),
                name: Some(&tool.name),
                arguments: Some(json::to_string(&tool.arguments)),
                ..OutputItem::default()
            },
            None => OutputItem {
                id: self.id("msg"),
                r#type: "message",
                status,
                role: Some("assistant"),
                content: Some([OutputText { r#type: "output_text", text: &said.text, annotations: [], logprobs: [] }]),
                ..OutputItem::default()
            },
        });
        output
    }
}

fn usage(totals: &Totals) -> Usage {
    Usage {
        input_tokens: totals.prompt_tokens,
        output_tokens: totals.eval_tokens,
        total_tokens: totals.prompt_tokens.saturating_add(totals.eval_tokens),
        input_tokens_details: Cached { cached_tokens: 0 },
        output_tokens_details: Reasoning { reasoning_tokens: 0 },
    }
}
