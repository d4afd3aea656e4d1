//! What one JSON text of an answer says: which members matter, on all surfaces.

use super::skim::Value;
use super::{Counts, Reason};

/// A key that matters somewhere, or [`Key::Item`] for an element of an array.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    Other,
    Item,
    Choices,
    CompletionTokens,
    Content,
    Delta,
    Done,
    DoneReason,
    Error,
    EvalCount,
    EvalDuration,
    FinishReason,
    InputTokens,
    LoadDuration,
    Message,
    Model,
    OutputTokens,
    PartialJson,
    PromptEvalCount,
    PromptEvalDuration,
    PromptTokens,
    Reasoning,
    Response,
    Status,
    StopReason,
    Text,
    Thinking,
    ToolCalls,
    TotalDuration,
    Type,
    Usage,
}

impl Key {
    /// The key that is spelled so. Go compares keys without case but writes them as they are here.
    pub(super) fn of(text: &[u8]) -> Self {
        match text {
            b"choices" => Self::Choices,
            b"completion_tokens" => Self::CompletionTokens,
            b"content" => Self::Content,
            b"delta" => Self::Delta,
            b"done" => Self::Done,
            b"done_reason" => Self::DoneReason,
            b"error" => Self::Error,
            b"eval_count" => Self::EvalCount,
            b"eval_duration" => Self::EvalDuration,
            b"finish_reason" => Self::FinishReason,
            b"input_tokens" => Self::InputTokens,
            b"load_duration" => Self::LoadDuration,
            b"message" => Self::Message,
            b"model" => Self::Model,
            b"output_tokens" => Self::OutputTokens,
            b"partial_json" => Self::PartialJson,
            b"prompt_eval_count" => Self::PromptEvalCount,
            b"prompt_eval_duration" => Self::PromptEvalDuration,
            b"prompt_tokens" => Self::PromptTokens,
            b"reasoning" => Self::Reasoning,
            b"response" => Self::Response,
            b"status" => Self::Status,
            b"stop_reason" => Self::StopReason,
            b"text" => Self::Text,
            b"thinking" => Self::Thinking,
            b"tool_calls" => Self::ToolCalls,
            b"total_duration" => Self::TotalDuration,
            b"type" => Self::Type,
            b"usage" => Self::Usage,
            _ => Self::Other,
        }
    }
}

/// What an event is, by its name or its `type`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Kind {
    /// It has no name.
    #[default]
    Unnamed,
    /// Its name tells nothing that matters here.
    Dull,
    /// `error`, `response.failed`
    Error,
    /// `message_delta`: the counts of `/v1/messages`.
    Counts,
    /// `message_stop`, `response.completed`, `response.incomplete`
    End,
}

impl Kind {
    pub(super) fn of(name: &[u8]) -> Self {
        match name {
            b"" => Self::Unnamed,
            b"error" | b"response.failed" => Self::Error,
            b"message_delta" => Self::Counts,
            b"message_stop" | b"response.completed" | b"response.incomplete" => Self::End,
            _ => Self::Dull,
        }
    }
}

/// What one JSON text says.
#[expect(clippy::struct_excessive_bools, reason = "any of them can come with any other")]
#[derive(Debug, Clone, Default)]
pub(super) struct Heard {
    pub(super) kind: Kind,
    /// It tells an error.
    pub(super) error: bool,
    pub(super) done: bool,
    /// It has a part of the answer in it.
    pub(super) content: bool,
    /// It has a tool call in it.
    pub(super) tool_call: bool,
    /// `"model":""`, as Ollama writes when its engine died under `/v1/chat/completions`.
    pub(super) model_empty: bool,
    pub(super) reason: Option<Reason>,
    pub(super) counts: Counts,
}

impl Heard {
    /// Takes one value with the keys on the way to it.
    pub(super) fn take(&mut self, path: &[Key], value: Value<'_>) {
        match value {
            Value::Text(text) => self.text(path, text),
            Value::Number(number) => self.number(path, number),
            Value::Bool(value) => self.done |= path == [Key::Done] && value,
            Value::Container => {
                self.error |= path == [Key::Error];
                self.tool_call |= is_tool_call(path);
                self.content |= self.tool_call;
            }
            Value::Null => {}
        }
    }

    fn text(&mut self, path: &[Key], text: &[u8]) {
        match path {
            [Key::Model] => self.model_empty = text.is_empty(),
            _ if text.is_empty() => {}
            [Key::Error] => self.error = true,
            [Key::Type] => self.kind = Kind::of(text),
            [Key::Status] | [Key::Response, Key::Status] => match text {
                b"completed" | b"incomplete" => self.reason = Some(Reason::of(text)),
                b"failed" => self.error = true,
                _ => {}
            },
            [Key::DoneReason | Key::StopReason]
            | [Key::Delta, Key::StopReason]
            | [Key::Choices, Key::Item, Key::FinishReason] => self.reason = Some(Reason::of(text)),
            _ => self.content |= is_content(path),
        }
    }

    fn number(&mut self, path: &[Key], number: &[u8]) {
        let whole = || std::str::from_utf8(number).ok()?.parse::<u64>().ok();
        let milliseconds = || whole().map(|ns| ns as f64 / 1e6);
        let counts = &mut self.counts;
        match path {
            [Key::PromptEvalCount]
            | [Key::Usage, Key::PromptTokens | Key::InputTokens]
            | [Key::Response, Key::Usage, Key::InputTokens] => counts.prompt_tokens = whole(),
            [Key::EvalCount]
            | [Key::Usage, Key::CompletionTokens | Key::OutputTokens]
            | [Key::Response, Key::Usage, Key::OutputTokens] => counts.completion_tokens = whole(),
            [Key::LoadDuration] => counts.load_ms = milliseconds(),
            [Key::PromptEvalDuration] => counts.prefill_ms = milliseconds(),
            [Key::EvalDuration] => counts.decode_ms = milliseconds(),
            [Key::TotalDuration] => counts.total_ms = milliseconds(),
            _ => {}
        }
    }
}

fn is_content(path: &[Key]) -> bool {
    use Key::{Choices, Content, Delta, Item, Message, PartialJson, Reasoning, Response, Text, Thinking};
    matches!(
        path,
        [Response | Thinking | Delta]
            | [Message, Content | Thinking]
            | [Delta, Text | Thinking | PartialJson]
            | [Choices, Item, Text]
            | [Choices, Item, Delta, Content | Reasoning]
    )
}

fn is_tool_call(path: &[Key]) -> bool {
    matches!(
        path,
        [Key::Message, Key::ToolCalls, Key::Item] | [Key::Choices, Key::Item, Key::Delta, Key::ToolCalls, Key::Item]
    )
}
