//! `/api/chat` and `/api/generate`: one JSON object per line.

use bytes::Bytes;
use serde::Serialize;
use serde_json::{Map, Value};

use super::{Encoder, Frames, Said, Totals, is_zero, nanos};
use crate::{
    clock::Clock,
    json,
    plan::{Piece, Plan, ToolCall},
    surface::{NativeError, Surface},
};

/// Most integers in the `context` of a generation; a real server repeats the whole prompt there.
const CONTEXT_LIMIT: u32 = 256;

/// Writes both native surfaces, which differ in where the text goes.
pub(super) struct Native {
    clock: Clock,
    model: String,
    chat: bool,
    raw: bool,
    tool: Option<ToolCall>,
}

#[derive(Serialize, Default)]
struct Line<'a> {
    model: &'a str,
    created_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<Message<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    thinking: Option<&'a str>,
    done: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    done_reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    context: Option<Vec<u32>>,
    #[serde(skip_serializing_if = "is_zero")]
    total_duration: u64,
    #[serde(skip_serializing_if = "is_zero")]
    load_duration: u64,
    #[serde(skip_serializing_if = "is_zero")]
    prompt_eval_count: u64,
    #[serde(skip_serializing_if = "is_zero")]
    prompt_eval_duration: u64,
    #[serde(skip_serializing_if = "is_zero")]
    eval_count: u64,
    #[serde(skip_serializing_if = "is_zero")]
    eval_duration: u64,
}

#[derive(Serialize)]
struct Message<'a> {
    role: &'static str,
    content: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    thinking: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_calls: Option<[Call<'a>; 1]>,
}

#[derive(Serialize)]
struct Call<'a> {
    id: &'a str,
    function: Function<'a>,
}

#[derive(Serialize)]
struct Function<'a> {
    index: u32,
    name: &'a str,
    arguments: &'a Map<String, Value>,
}

impl Native {
    pub(super) fn new(plan: &Plan, clock: Clock) -> Self {
        let chat = plan.surface == Surface::Chat;
        Self { clock, model: plan.echo.clone(), chat, raw: plan.form.raw, tool: plan.answer.tool.clone() }
    }

    /// A line with `text` and `thinking` where the surface has them.
    fn line<'a>(&'a self, text: &'a str, thinking: Option<&'a str>) -> Line<'a> {
        let created_at = self.clock.timestamp();
        let line = Line { model: &self.model, created_at, ..Line::default() };
        if self.chat {
            Line { message: Some(Message { role: "assistant", content: text, thinking, tool_calls: None }), ..line }
        } else {
            Line { response: Some(text), thinking, ..line }
        }
    }

    /// The object that ends an answer; in a stream its text is empty.
    fn last<'a>(&'a self, said: &'a Said, totals: &Totals) -> Line<'a> {
        let thinking = Some(said.thinking.as_str()).filter(|thinking| !thinking.is_empty());
        let mut line = self.line(&said.text, thinking);
        if let (Some(message), Some(tool)) = (&mut line.message, &self.tool) {
            let function = Function { index: 0, name: &tool.name, arguments: &tool.arguments };
            message.tool_calls = Some([Call { id: &tool.id, function }]);
        }
        let tokens = (totals.prompt_tokens + totals.eval_tokens).min(CONTEXT_LIMIT);
        Line {
            done: true,
            done_reason: Some(if totals.cut { "length" } else { "stop" }),
            context: (!self.chat && !self.raw).then(|| (0..tokens).map(|n| 1000 + n).collect()),
            total_duration: nanos(totals.total),
            load_duration: nanos(totals.load),
            prompt_eval_count: totals.prompt_tokens.into(),
            prompt_eval_duration: nanos(totals.prompt_time),
            eval_count: totals.eval_tokens.into(),
            eval_duration: nanos(totals.eval_time),
            ..line
        }
    }

    /// The answer to a request that only loads or unloads.
    pub(super) fn empty(&self, reason: &'static str) -> Vec<u8> {
        json::to_vec(&Line { done: true, done_reason: Some(reason), ..self.line("", None) })
    }
}

impl Encoder for Native {
    fn begin(&mut self, _prompt_tokens: u32, _out: &mut Frames) {}

    fn piece(&mut self, piece: Piece, out: &mut Frames) {
        let line = match piece {
            Piece::Thought(token) => self.line("", Some(token)),
            Piece::Text(token) => self.line(token, None),
        };
        out.push_back(ndjson(&line));
    }

    fn end(&mut self, totals: &Totals, out: &mut Frames) {
        out.push_back(ndjson(&self.last(&Said::default(), totals)));
    }

    fn crash(&mut self) -> Option<Bytes> {
        let error = "an error was encountered while running the model: unexpected EOF";
        Some(ndjson(&NativeError { error }))
    }

    fn whole(&mut self, said: &Said, totals: &Totals) -> Vec<u8> {
        json::to_vec(&self.last(said, totals))
    }
}

/// `value` as one line.
pub(crate) fn ndjson<T: Serialize>(value: &T) -> Bytes {
    let mut line = json::to_vec(value);
    line.push(b'\n');
    line.into()
}
