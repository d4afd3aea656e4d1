//! `/v1/messages`: named events that end in `message_stop`.

use bytes::Bytes;
use serde::Serialize;
use serde_json::{Map, Value};

use super::{Encoder, Frames, Said, Totals};
use crate::{
    json,
    plan::{Piece, Plan, ToolCall},
    text::random_hex24,
};

/// Writes `/v1/messages`.
pub(super) struct Messages {
    id: String,
    model: String,
    tool: Option<ToolCall>,
    /// Number of the block being written, and whether it thinks.
    open: Option<(u32, bool)>,
    blocks: u32,
}

#[derive(Serialize)]
struct MessageStart<'a> {
    r#type: &'static str,
    message: Message<'a>,
}

#[derive(Serialize)]
struct Message<'a> {
    id: &'a str,
    r#type: &'static str,
    role: &'static str,
    model: &'a str,
    content: Vec<Block<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stop_reason: Option<&'static str>,
    usage: Usage,
}

#[derive(Serialize)]
struct Usage {
    input_tokens: u32,
    output_tokens: u32,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Block<'a> {
    Text { text: &'a str },
    Thinking { thinking: &'a str },
    ToolUse { id: &'a str, name: &'a str, input: &'a Map<String, Value> },
}

#[derive(Serialize)]
struct BlockStart<'a> {
    r#type: &'static str,
    index: u32,
    content_block: Block<'a>,
}

#[derive(Serialize)]
struct BlockDelta<'a> {
    r#type: &'static str,
    index: u32,
    delta: Delta<'a>,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[expect(clippy::enum_variant_names, reason = "the names are Anthropic's")]
enum Delta<'a> {
    TextDelta { text: &'a str },
    ThinkingDelta { thinking: &'a str },
    InputJsonDelta { partial_json: &'a str },
}

#[derive(Serialize)]
struct BlockStop {
    r#type: &'static str,
    index: u32,
}

#[derive(Serialize)]
struct MessageDelta {
    r#type: &'static str,
    delta: StopReason,
    usage: Usage,
}

#[derive(Serialize)]
struct StopReason {
    stop_reason: &'static str,
}

#[derive(Serialize)]
struct MessageStop {
    r#type: &'static str,
}

impl Messages {
    pub(super) fn new(plan: &Plan) -> Self {
        let id = format!("msg_{}", random_hex24());
        Self { id, model: plan.echo.clone(), tool: plan.answer.tool.clone(), open: None, blocks: 0 }
    }

    fn message<'a>(&'a self, content: Vec<Block<'a>>, stop_reason: Option<&'static str>, usage: Usage) -> Message<'a> {
        Message { id: &self.id, r#type: "message", role: "assistant", model: &self.model, content, stop_reason, usage }
    }

    fn open(&mut self, block: Block<'_>, thinks: bool, out: &mut Frames) -> u32 {
        self.close(out);
        let index = self.blocks;
        self.blocks += 1;
        self.open = Some((index, thinks));
        let r#type = "content_block_start";
        out.push_back(event(r#type, &BlockStart { r#type, index, content_block: block }));
        index
    }

    fn close(&mut self, out: &mut Frames) {
        if let Some((index, _)) = self.open.take() {
            let r#type = "content_block_stop";
            out.push_back(event(r#type, &BlockStop { r#type, index }));
        }
    }

    fn delta(index: u32, delta: Delta<'_>, out: &mut Frames) {
        let r#type = "content_block_delta";
        out.push_back(event(r#type, &BlockDelta { r#type, index, delta }));
    }

    fn stop_reason(&self, totals: &Totals) -> &'static str {
        match (&self.tool, totals.cut) {
            (Some(_), _) => "tool_use",
            (None, true) => "max_tokens",
            (None, false) => "end_turn",
        }
    }
}

impl Encoder for Messages {
    fn begin(&mut self, prompt_tokens: u32, out: &mut Frames) {
        let r#type = "message_start";
        let usage = Usage { input_tokens: prompt_tokens, output_tokens: 0 };
        let message = self.message(Vec::new(), None, usage);
        out.push_back(event(r#type, &MessageStart { r#type, message }));
    }

    fn piece(&mut self, piece: Piece, out: &mut Frames) {
        let thinks = matches!(piece, Piece::Thought(_));
        let index = match self.open {
            Some((index, same)) if same == thinks => index,
            _ if thinks => self.open(Block::Thinking { thinking: "" }, true, out),
            _ => self.open(Block::Text { text: "" }, false, out),
        };
        let delta = match piece {
            Piece::Thought(thinking) => Delta::ThinkingDelta { thinking },
            Piece::Text(text) => Delta::TextDelta { text },
        };
        Self::delta(index, delta, out);
    }

    fn end(&mut self, totals: &Totals, out: &mut Frames) {
        if let Some(tool) = self.tool.clone() {
            let block = Block::ToolUse { id: &tool.id, name: &tool.name, input: &Map::new() };
            let index = self.open(block, false, out);
            let partial_json = json::to_string(&tool.arguments);
            Self::delta(index, Delta::InputJsonDelta { partial_json: &partial_json }, out);
        }
        self.close(out);
        let r#type = "message_delta";
        let usage = Usage { input_tokens: totals.prompt_tokens, output_tokens: totals.eval_tokens };
        let delta = StopReason { stop_reason: self.stop_reason(totals) };
        out.push_back(event(r#type, &MessageDelta { r#type, delta, usage }));
        out.push_back(event("message_stop", &MessageStop { r#type: "message_stop" }));
    }

    fn crash(&mut self) -> Option<Bytes> {
        None
    }

    fn whole(&mut self, said: &Said, totals: &Totals) -> Vec<u8> {
        let mut content = Vec::new();
        if !said.thinking.is_empty() {
            content.push(Block::Thinking { thinking: &said.thinking });
        }
        match &self.tool {
            Some(ToolCall { id, name, arguments }) => content.push(Block::ToolUse { id, name, input: arguments }),
            None => content.push(Block::Text { text: &said.text }),
        }
        let usage = Usage { input_tokens: totals.prompt_tokens, output_tokens: totals.eval_tokens };
        let mut line = json::to_vec(&self.message(content, Some(self.stop_reason(totals)), usage));
        line.push(b'\n');
        line
    }
}

/// One named event.
pub(super) fn event<T: Serialize>(name: &str, value: &T) -> Bytes {
    let mut event = format!("event: {name}\ndata: ").into_bytes();
    event.extend_from_slice(&json::to_vec(value));
    event.extend_from_slice(b"\n\n");
    event.into()
}
