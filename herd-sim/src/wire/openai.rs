//! `/v1/chat/completions` and `/v1/completions`: `data:` events that end in `[DONE]`.

use bytes::Bytes;
use serde::Serialize;

use super::{Encoder, Frames, Said, Totals};
use crate::{
    clock::Clock,
    json,
    plan::{Piece, Plan, ToolCall},
};

const FINGERPRINT: &str = "fp_ollama";
const DONE: Bytes = Bytes::from_static(b"data: [DONE]\n\n");

/// Writes `/v1/chat/completions`.
pub(super) struct Chat {
    id: String,
    created: u64,
    model: String,
    tool: Option<ToolCall>,
    include_usage: bool,
    started: bool,
}

#[derive(Serialize, Clone, Copy, Default)]
#[expect(clippy::struct_field_names, reason = "the names are OpenAI's")]
struct Usage {
    prompt_tokens: u32,
    completion_tokens: u32,
    total_tokens: u32,
}

impl Usage {
    fn of(totals: &Totals) -> Self {
        let (prompt_tokens, completion_tokens) = (totals.prompt_tokens, totals.eval_tokens);
        Self { prompt_tokens, completion_tokens, total_tokens: prompt_tokens.saturating_add(completion_tokens) }
    }
}

#[derive(Serialize)]
struct ChatObject<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    system_fingerprint: &'static str,
    choices: Vec<ChatChoice<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Usage>,
}

#[derive(Serialize)]
struct ChatChoice<'a> {
    index: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    delta: Option<Delta<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<Delta<'a>>,
    finish_reason: Option<&'static str>,
}

#[derive(Serialize, Default)]
struct Delta<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_calls: Option<[Call<'a>; 1]>,
}

#[derive(Serialize)]
struct Call<'a> {
    id: &'a str,
    index: u32,
    r#type: &'static str,
    function: Function<'a>,
}

#[derive(Serialize)]
struct Function<'a> {
    name: &'a str,
    arguments: String,
}

impl Chat {
    pub(super) fn new(plan: &Plan, clock: Clock) -> Self {
        Self {
            id: format!("chatcmpl-{}", fastrand::u32(..999)),
            created: clock.wall_now().as_secs(),
            model: plan.echo.clone(),
            tool: plan.answer.tool.clone(),
            include_usage: plan.form.include_usage,
            started: false,
        }
    }

    fn object<'a>(&'a self, object: &'static str, choices: Vec<ChatChoice<'a>>) -> ChatObject<'a> {
        let (id, created, model) = (self.id.as_str(), self.created, self.model.as_str());
        ChatObject { id, object, created, model, system_fingerprint: FINGERPRINT, choices, usage: None }
    }

    /// Who speaks: said by the first chunk, and only by that.
    fn role(&mut self) -> Option<&'static str> {
        (!std::mem::replace(&mut self.started, true)).then_some("assistant")
    }

    fn chunk(&self, delta: Delta<'_>, finish_reason: Option<&'static str>) -> Bytes {
        let choice = ChatChoice { index: 0, delta: Some(delta), message: None, finish_reason };
        event(&self.object("chat.completion.chunk", vec![choice]))
    }

    fn tool_calls(&self) -> Option<[Call<'_>; 1]> {
        let tool = self.tool.as_ref()?;
        let function = Function { name: &tool.name, arguments: json::to_string(&tool.arguments) };
        Some([Call { id: &tool.id, index: 0, r#type: "function", function }])
    }

    fn finish_reason(&self, totals: &Totals) -> &'static str {
        if self.tool.is_some() { "tool_calls" } else { reason(totals) }
    }
}

impl Encoder for Chat {
    fn begin(&mut self, _prompt_tokens: u32, _out: &mut Frames) {}

    fn piece(&mut self, piece: Piece, out: &mut Frames) {
        let role = self.role();
        let delta = match piece {
            Piece::Thought(token) => Delta { role, content: Some(""), reasoning: Some(token), tool_calls: None },
            Piece::Text(token) => Delta { role, content: Some(token), ..Delta::default() },
        };
        out.push_back(self.chunk(delta, None));
    }

    fn end(&mut self, totals: &Totals, out: &mut Frames) {
        if self.tool.is_some() {
            let role = self.role();
            let call = Delta { role, content: Some(""), reasoning: None, tool_calls: self.tool_calls() };
            out.push_back(self.chunk(call, None));
        }
        out.push_back(self.chunk(Delta::default(), Some(self.finish_reason(totals))));
        if self.include_usage {
            let usage = Some(Usage::of(totals));
            out.push_back(event(&ChatObject { usage, ..self.object("chat.completion.chunk", Vec::new()) }));
        }
        out.push_back(DONE);
    }

    fn crash(&mut self) -> Option<Bytes> {
        let delta = Some(Delta { content: Some(""), ..Delta::default() });
        let choice = ChatChoice { index: 0, delta, message: None, finish_reason: None };
        Some(event(&ChatObject { model: "", ..self.object("chat.completion.chunk", vec![choice]) }))
    }

    fn whole(&mut self, said: &Said, totals: &Totals) -> Vec<u8> {
        let message = Some(Delta {
            role: Some("assistant"),
            content: Some(&said.text),
            reasoning: Some(said.thinking.as_str()).filter(|thinking| !thinking.is_empty()),
            tool_calls: self.tool_calls(),
        });
        let choice = ChatChoice { index: 0, delta: None, message, finish_reason: Some(self.finish_reason(totals)) };
        let usage = Some(Usage::of(totals));
        line(&ChatObject { usage, ..self.object("chat.completion", vec![choice]) })
    }
}

/// Writes `/v1/completions`.
pub(super) struct Completion {
    id: String,
    created: u64,
    model: String,
    include_usage: bool,
}

/// In a stream `choices` comes before `model`; in a whole answer after it.
#[derive(Serialize)]
struct TextChunk<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    choices: Vec<TextChoice<'a>>,
    model: &'a str,
    system_fingerprint: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Usage>,
}

#[derive(Serialize)]
struct TextObject<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    system_fingerprint: &'static str,
    choices: [TextChoice<'a>; 1],
    usage: Usage,
}

#[derive(Serialize)]
struct TextChoice<'a> {
    text: &'a str,
    index: u32,
    finish_reason: Option<&'static str>,
}

impl Completion {
    pub(super) fn new(plan: &Plan, clock: Clock) -> Self {
        Self {
            id: format!("cmpl-{}", fastrand::u32(..999)),
            created: clock.wall_now().as_secs(),
            model: plan.echo.clone(),
            include_usage: plan.form.include_usage,
        }
    }

    /// With usage asked for, every chunk carries one, of zeros but for the last.
    fn chunk(&self, choices: Vec<TextChoice<'_>>, usage: Usage) -> Bytes {
        event(&TextChunk {
            id: &self.id,
            object: "text_completion",
            created: self.created,
            choices,
            model: &self.model,
            system_fingerprint: FINGERPRINT,
            usage: self.include_usage.then_some(usage),
        })
    }
}

impl Encoder for Completion {
    fn begin(&mut self, _prompt_tokens: u32, _out: &mut Frames) {}

    fn piece(&mut self, piece: Piece, out: &mut Frames) {
        let (Piece::Text(text) | Piece::Thought(text)) = piece;
        out.push_back(self.chunk(vec![TextChoice { text, index: 0, finish_reason: None }], Usage::default()));
    }

    fn end(&mut self, totals: &Totals, out: &mut Frames) {
        let last = TextChoice { text: "", index: 0, finish_reason: Some(reason(totals)) };
        out.push_back(self.chunk(vec![last], Usage::default()));
        if self.include_usage {
            out.push_back(self.chunk(Vec::new(), Usage::of(totals)));
        }
        out.push_back(DONE);
    }

    fn crash(&mut self) -> Option<Bytes> {
        // The chunk is made from an error that knows no model.
        self.model.clear();
        Some(self.chunk(vec![TextChoice { text: "", index: 0, finish_reason: None }], Usage::default()))
    }

    fn whole(&mut self, said: &Said, totals: &Totals) -> Vec<u8> {
        let choice = TextChoice { text: &said.text, index: 0, finish_reason: Some(reason(totals)) };
        line(&TextObject {
            id: &self.id,
            object: "text_completion",
            created: self.created,
            model: &self.model,
            system_fingerprint: FINGERPRINT,
            choices: [choice],
            usage: Usage::of(totals),
        })
    }
}

fn reason(totals: &Totals) -> &'static str {
    if totals.cut { "length" } else { "stop" }
}

fn event<T: Serialize>(value: &T) -> Bytes {
    let mut event = b"data: ".to_vec();
    event.extend_from_slice(&json::to_vec(value));
    event.extend_from_slice(b"\n\n");
    event.into()
}

fn line<T: Serialize>(value: &T) -> Vec<u8> {
    let mut line = json::to_vec(value);
    line.push(b'\n');
    line
}
