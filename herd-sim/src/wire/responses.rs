//! `/v1/responses`: numbered events that end in `response.completed`.
//!
//! Ollama builds these events from Go maps, so that their keys are in alphabetical order: so are those of
//! `serde_json::json!` as long as nobody turns its `preserve_order` on. The whole answer is a Go struct, with an order
//! of its own.

mod whole;

use bytes::Bytes;
use serde_json::{Value, json};

use super::{Encoder, Frames, Said, Totals, anthropic::event};
use crate::{
    clock::Clock,
    json,
    plan::{Form, Piece, Plan, ToolCall},
};

/// Writes `/v1/responses`.
pub(super) struct Responses {
    clock: Clock,
    created: u64,
    number: u32,
    model: String,
    form: Form,
    tool: Option<ToolCall>,
    sequence: u32,
    said: Said,
    /// Finished items of the output.
    output: Vec<Value>,
    /// What is being written.
    open: Open,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Open {
    Nothing,
    Reasoning,
    Message,
}

impl Responses {
    pub(super) fn new(plan: &Plan, clock: Clock) -> Self {
        Self {
            clock,
            created: clock.wall_now().as_secs(),
            number: fastrand::u32(..999_999),
            model: plan.echo.clone(),
            form: plan.form.clone(),
            tool: plan.answer.tool.clone(),
            sequence: 0,
            said: Said::default(),
            output: Vec::new(),
            open: Open::Nothing,
        }
    }

    fn id(&self, prefix: &str) -> String {
        format!("{prefix}_{}", self.number)
    }

    /// The tools of the request, as the answer repeats them.
    fn tools(&self) -> Vec<Value> {
        let with_strict = |tool: &Value| {
            let mut tool = tool.clone();
            if let Value::Object(fields) = &mut tool {
                fields.entry("strict").or_insert(Value::Null);
            }
            tool
        };
        self.form.tools.iter().map(with_strict).collect()
    }

    fn send(&mut self, name: &str, mut fields: Value, out: &mut Frames) {
        if let Value::Object(fields) = &mut fields {
            fields.insert("type".to_owned(), name.into());
            fields.insert("sequence_number".to_owned(), self.sequence.into());
        }
        self.sequence += 1;
        out.push_back(event(name, &fields));
    }

    /// The response object of an event, before (`totals` absent) or after its completion.
    fn object(&self, totals: Option<&Totals>) -> Value {
        let number = |value: Option<f64>| value.map_or(json!(1), |value| json!(value));
        let usage = totals.map(|totals| {
            json!({
                "input_tokens": totals.prompt_tokens, "output_tokens": totals.eval_tokens,
                "total_tokens": totals.prompt_tokens.saturating_add(totals.eval_tokens),
                "input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0},
            })
        });
        json!({
            "id": self.id("resp"), "object": "response", "created_at": self.created,
            "completed_at": totals.map(|_| self.clock.wall_now().as_secs()),
            "status": if totals.is_some() { "completed" } else { "in_progress" },
            "incomplete_details": null, "model": self.model, "previous_response_id": null,
            "instructions": self.form.instructions, "output": self.output, "error": null, "tools": self.tools(),
            "tool_choice": "auto", "truncation": "disabled", "parallel_tool_calls": true,
            "text": {"format": {"type": "text"}}, "top_p": number(self.form.top_p), "presence_penalty": 0,
            "frequency_penalty": 0, "top_logprobs": 0, "temperature": number(self.form.temperature),
            "reasoning": null, "usage": usage, "max_output_tokens": self.form.max_output_tokens,
            "max_tool_calls": null, "store": false, "background": false, "service_tier": "default", "metadata": {},
            "safety_identifier": null, "prompt_cache_key": null,
        })
    }

    fn open_item(&mut self, open: Open, out: &mut Frames) {
        if self.open == open {
            return;
        }
        self.close_item(out);
        self.open = open;
        let index = self.output.len();
        if open == Open::Reasoning {
            let item = json!({"id": self.id("rs"), "summary": [], "type": "reasoning"});
            self.send("response.output_item.added", json!({"item": item, "output_index": index}), out);
        } else {
            let id = self.id("msg");
            let item =
                json!({"content": [], "id": id, "role": "assistant", "status": "in_progress", "type": "message"});
            self.send("response.output_item.added", json!({"item": item, "output_index": index}), out);
            let part = json!({"content_index": 0, "item_id": id, "output_index": index, "part": output_text("")});
            self.send("response.content_part.added", part, out);
        }
    }

    fn close_item(&mut self, out: &mut Frames) {
        let index = self.output.len();
        let item = match std::mem::replace(&mut self.open, Open::Nothing) {
            Open::Nothing => return,
            Open::Reasoning => {
                let (id, text) = (self.id("rs"), self.said.thinking.clone());
                let done = json!({"item_id": id, "output_index": index, "summary_index": 0, "text": text});
                self.send("response.reasoning_summary_text.done", done, out);
                let summary = json!([{"text": text, "type": "summary_text"}]);
                json!({"encrypted_content": text, "id": id, "summary": summary, "type": "reasoning"})
            }
            Open::Message => {
                let (id, text) = (self.id("msg"), self.said.text.clone());
                let place =
                    |fields: Value| merge(json!({"content_index": 0, "item_id": id, "output_index": index}), fields);
                let done = place(json!({"logprobs": [], "text": text}));
                self.send("response.output_text.done", done, out);
                let part = place(json!({"part": output_text(&text)}));
                self.send("response.content_part.done", part, out);
                let content = [output_text(&text)];
                json!({"content": content, "id": id, "role": "assistant", "status": "completed", "type": "message"})
            }
        };
        self.send("response.output_item.done", json!({"item": item, "output_index": index}), out);
        self.output.push(item);
    }

    /// A call comes in one piece.
    fn call(&mut self, tool: &ToolCall, out: &mut Frames) {
        let (index, id) = (self.output.len(), format!("fc_{}_0", self.number));
        let arguments = json::to_string(&tool.arguments);
        let item = |arguments: &str, status: &str| {
            json!({"arguments": arguments, "call_id": tool.id, "id": id, "name": tool.name, "status": status,
                "type": "function_call"})
        };
        let added = json!({"item": item("", "in_progress"), "output_index": index});
        self.send("response.output_item.added", added, out);
        let delta = json!({"delta": arguments, "item_id": id, "output_index": index});
        self.send("response.function_call_arguments.delta", delta, out);
        let done = json!({"arguments": arguments, "item_id": id, "output_index": index});
        self.send("response.function_call_arguments.done", done, out);
        let item = item(&arguments, "completed");
        self.send("response.output_item.done", json!({"item": item, "output_index": index}), out);
        self.output.push(item);
    }
}

impl Encoder for Responses {
    fn begin(&mut self, _prompt_tokens: u32, out: &mut Frames) {
        for name in ["response.created", "response.in_progress"] {
            let object = self.object(None);
            self.send(name, json!({"response": object}), out);
        }
    }

    fn piece(&mut self, piece: Piece, out: &mut Frames) {
        self.said.push(piece);
        match piece {
            Piece::Thought(token) => {
                self.open_item(Open::Reasoning, out);
                let (id, index) = (self.id("rs"), self.output.len());
                let delta = json!({"delta": token, "item_id": id, "output_index": index, "summary_index": 0});
                self.send("response.reasoning_summary_text.delta", delta, out);
            }
            Piece::Text(token) => {
                self.open_item(Open::Message, out);
                let (id, index) = (self.id("msg"), self.output.len());
                let delta =
                    json!({"content_index": 0, "delta": token, "item_id": id, "logprobs": [], "output_index": index});
                self.send("response.output_text.delta", delta, out);
            }
        }
    }

    fn end(&mut self, totals: &Totals, out: &mut Frames) {
        self.close_item(out);
        if let Some(tool) = self.tool.clone() {
            self.call(&tool, out);
        }
        let object = self.object(Some(totals));
        self.send("response.completed", json!({"response": object}), out);
    }

    fn crash(&mut self) -> Option<Bytes> {
        None
    }

    fn whole(&mut self, said: &Said, totals: &Totals) -> Vec<u8> {
        let mut line = json::to_vec(&self.whole_object(said, totals));
        line.push(b'\n');
        line
    }
}

fn output_text(text: &str) -> Value {
    json!({"annotations": [], "logprobs": [], "text": text, "type": "output_text"})
}

fn merge(mut into: Value, fields: Value) -> Value {
    if let (Value::Object(into), Value::Object(fields)) = (&mut into, fields) {
        into.extend(fields);
    }
    into
}
