//! What is asked: the requests of a run, as bytes.

use std::fmt::Write as _;
use std::time::Duration;

use super::backend::{MODEL, PLAN_HEADER};

/// What a request wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// An answer in a conversation.
    Chat,
    /// A text that goes on.
    Generate,
    /// A vector.
    Embed,
}

/// In whose words it is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Api {
    /// Ollama's own API.
    Ollama,
    /// The API of `OpenAI`.
    OpenAi,
}

/// How the answer comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// In one piece.
    Whole,
    /// In chunks.
    Stream {
        /// How many, the last one beside.
        chunks: u32,
        /// Time between two of them; zero = as fast as they go.
        every: Duration,
    },
}

/// Text as people write it, with what JSON must escape now and then.
const TEXT: &str = r"The edge of a fleet takes each request to the machine that answers it soonest.\n";

/// One kind of request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Workload {
    /// What it wants.
    pub call: Call,
    /// In whose words.
    pub api: Api,
    /// How the answer comes.
    pub answer: Answer,
    /// Length of its body; short ones are as long as they must be.
    pub body_bytes: usize,
}

impl Workload {
    /// A chat in Ollama's API whose answer comes whole.
    #[must_use]
    pub const fn chat(body_bytes: usize) -> Self {
        Self { call: Call::Chat, api: Api::Ollama, answer: Answer::Whole, body_bytes }
    }

    /// The same with its answer in `chunks`, `every_ms` apart.
    #[must_use]
    pub const fn streaming(self, chunks: u32, every_ms: u64) -> Self {
        Self { answer: Answer::Stream { chunks, every: Duration::from_millis(every_ms) }, ..self }
    }

    /// Where it goes.
    #[must_use]
    pub fn path(&self) -> &'static str {
        match (self.call, self.api) {
            (Call::Chat, Api::Ollama) => "/api/chat",
            (Call::Generate, Api::Ollama) => "/api/generate",
            (Call::Embed, Api::Ollama) => "/api/embed",
            (Call::Chat, Api::OpenAi) => "/v1/chat/completions",
            (Call::Generate, Api::OpenAi) => "/v1/completions",
            (Call::Embed, Api::OpenAi) => "/v1/embeddings",
        }
    }

    /// The whole request, for the server at `host`.
    #[must_use]
    pub fn request(&self, host: &str) -> Vec<u8> {
        let (body, path) = (self.body(), self.path());
        let mut head = format!("POST {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: herd-load/1\r\n");
        head.push_str("Content-Type: application/json\r\nAccept: */*\r\n");
        if let Answer::Stream { chunks, every } = self.answer {
            // Writing to a string does not fail.
            write!(head, "{PLAN_HEADER}: {chunks} {}\r\n", every.as_micros()).ok();
        }
        write!(head, "Content-Length: {}\r\n\r\n", body.len()).ok();
        let mut request = head.into_bytes();
        request.extend_from_slice(body.as_bytes());
        request
    }

    fn body(&self) -> String {
        let stream = matches!(self.answer, Answer::Stream { .. });
        let (before, after) = match (self.call, self.api) {
            (Call::Chat, _) => {
                (r#""messages":[{"role":"system","content":"Be brief."},{"role":"user","content":""#, r#""}]"#)
            }
            (Call::Generate, _) => (r#""prompt":""#, r#"""#),
            (Call::Embed, _) => (r#""input":""#, r#"""#),
        };
        let streams = if self.call == Call::Embed { String::new() } else { format!(r#""stream":{stream},"#) };
        let mut body = format!(r#"{{"model":"{MODEL}",{streams}{before}"#);
        let end = format!("{after}}}");
        let room = self.body_bytes.saturating_sub(body.len() + end.len());
        while body.len() + TEXT.len() + end.len() <= self.body_bytes {
            body.push_str(TEXT);
        }
        let rest = room.min(self.body_bytes.saturating_sub(body.len() + end.len()));
        body.extend(std::iter::repeat_n('.', rest));
        body + &end
    }
}

#[cfg(test)]
mod tests {
    use herd_core::inspect::{InspectLimits, inspect};
    use herd_core::request::Surface;

    use super::*;

    #[test]
    fn bodies_have_their_length_and_are_what_the_edge_reads() {
        let calls = [Call::Chat, Call::Generate, Call::Embed];
        let surfaces = [
            [Surface::OllamaChat, Surface::OllamaGenerate, Surface::OllamaEmbed],
            [Surface::OpenAiChat, Surface::OpenAiCompletions, Surface::OpenAiEmbeddings],
        ];
        for (api, surfaces) in [Api::Ollama, Api::OpenAi].into_iter().zip(surfaces) {
            for (call, surface) in calls.into_iter().zip(surfaces) {
                for body_bytes in [1 << 10, 5_000, 1 << 20] {
                    let workload = Workload { call, api, ..Workload::chat(body_bytes) };
                    let body = workload.body();
                    assert_eq!(body.len(), body_bytes, "{}", workload.path());
                    let profile = inspect(surface, body.as_bytes(), &InspectLimits::default()).unwrap();
                    assert_eq!(profile.model.as_str(), MODEL);
                    assert!(!profile.stream || call == Call::Embed);
                }
            }
        }
    }

    #[test]
    fn a_stream_says_so_to_the_edge_and_how_to_the_backend() {
        let text = String::from_utf8(Workload::chat(200).streaming(3, 20).request("h")).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains("\r\nX-Bench-Plan: 3 20000\r\n"), "{head}");
        assert!(head.ends_with(&format!("Content-Length: {}", body.len())), "{head}");
        assert!(body.contains(r#""stream":true"#), "{body}");
    }
}
