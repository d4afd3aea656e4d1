//! What the backend says, in the words of each API.

use std::collections::HashMap;
use std::io::Write as _;

use super::MODEL;
use crate::load::stamp::MARK;
use crate::load::workload::Api;

/// Numbers in a vector: those of a common embedding model.
const DIMENSIONS: usize = 768;

/// Answers in one piece, made once.
pub(super) struct Replies {
    by_path: HashMap<&'static str, Vec<u8>>,
    not_found: Vec<u8>,
}

impl Replies {
    pub(super) fn new() -> Self {
        let vector = vec!["0.012345678"; DIMENSIONS].join(",");
        let counts = r#""done":true,"done_reason":"stop","total_duration":1500000,"load_duration":100000,"prompt_eval_count":200,"prompt_eval_duration":400000,"eval_count":12,"eval_duration":1000000"#;
        let head = format!(r#"{{"model":"{MODEL}","created_at":"2026-11-24T12:00:00.000000000Z","#);
        let usage = r#""usage":{"prompt_tokens":200,"completion_tokens":12,"total_tokens":212}"#;
        let model = format!(
            r#""name":"{MODEL}","model":"{MODEL}","size":4920753328,"digest":"{}","details":{{"format":"gguf","family":"llama","families":["llama"],"parameter_size":"8.0B","quantization_level":"Q4_K_M"}}"#,
            "5".repeat(64)
        );
        let text = "The shortest way is rarely the one that everybody takes.";
        let bodies = [
            ("/api/version", r#"{"version":"0.33.0"}"#.to_owned()),
            ("/api/tags", format!(r#"{{"models":[{{{model},"modified_at":"2026-11-24T12:00:00Z"}}]}}"#)),
            (
                "/api/ps",
                format!(
                    r#"{{"models":[{{{model},"expires_at":"2026-11-25T12:00:00Z","size_vram":4920753328,"context_length":32768}}]}}"#
                ),
            ),
            ("/api/chat", format!(r#"{head}"message":{{"role":"assistant","content":"{text}"}},{counts}}}"#)),
            ("/api/generate", format!(r#"{head}"response":"{text}",{counts}}}"#)),
            (
                "/api/embed",
                format!(
                    r#"{{"model":"{MODEL}","embeddings":[[{vector}]],"total_duration":1500000,"load_duration":100000,"prompt_eval_count":200}}"#
                ),
            ),
            (
                "/v1/chat/completions",
                format!(
                    r#"{{"id":"chatcmpl-1","object":"chat.completion","created":1795521600,"model":"{MODEL}","system_fingerprint":"fp_ollama","choices":[{{"index":0,"message":{{"role":"assistant","content":"{text}"}},"finish_reason":"stop"}}],{usage}}}"#
                ),
            ),
            (
                "/v1/completions",
                format!(
                    r#"{{"id":"cmpl-1","object":"text_completion","created":1795521600,"model":"{MODEL}","system_fingerprint":"fp_ollama","choices":[{{"text":"{text}","index":0,"finish_reason":"stop"}}],{usage}}}"#
                ),
            ),
            (
                "/v1/embeddings",
                format!(
                    r#"{{"object":"list","data":[{{"object":"embedding","embedding":[{vector}],"index":0}}],"model":"{MODEL}","usage":{{"prompt_tokens":200,"total_tokens":200}}}}"#
                ),
            ),
        ];
        let by_path = bodies.into_iter().map(|(path, body)| (path, whole("200 OK", &body))).collect();
        Self { by_path, not_found: whole("404 Not Found", r#"{"error":"not found"}"#) }
    }

    /// The whole answer to a request for `path`.
    pub(super) fn of(&self, path: &str) -> &[u8] {
        self.by_path.get(path).unwrap_or(&self.not_found)
    }
}

fn whole(status: &str, body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json; charset=utf-8\r\nDate: Tue, 24 Nov 2026 12:00:00 GMT\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// The head of a streamed answer.
pub(super) fn stream_head(api: Api) -> &'static [u8] {
    match api {
        Api::Ollama => {
            b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nDate: Tue, 24 Nov 2026 12:00:00 GMT\r\n\
            Transfer-Encoding: chunked\r\n\r\n"
        }
        Api::OpenAi => {
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nDate: Tue, 24 Nov 2026 12:00:00 GMT\r\n\
            Transfer-Encoding: chunked\r\n\r\n"
        }
    }
}

/// Adds a chunk that was made at `now_ns`.
pub(super) fn chunk(bytes: &mut Vec<u8>, path: &str, now_ns: u64) {
    let mark = char::from(MARK);
    framed(
        bytes,
        &match path {
            "/api/generate" => format!(
                "{{\"model\":\"{MODEL}\",\"created_at\":\"2026-11-24T12:00:00.000000000Z\",\"response\":\" {mark}{now_ns}\",\"done\":false}}\n"
            ),
            "/v1/chat/completions" => format!(
                "data: {{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1795521600,\"model\":\"{MODEL}\",\"system_fingerprint\":\"fp_ollama\",\"choices\":[{{\"index\":0,\"delta\":{{\"role\":\"assistant\",\"content\":\" {mark}{now_ns}\"}},\"finish_reason\":null}}]}}\n\n"
            ),
            "/v1/completions" => format!(
                "data: {{\"id\":\"cmpl-1\",\"object\":\"text_completion\",\"created\":1795521600,\"model\":\"{MODEL}\",\"system_fingerprint\":\"fp_ollama\",\"choices\":[{{\"text\":\" {mark}{now_ns}\",\"index\":0,\"finish_reason\":null}}]}}\n\n"
            ),
            _ => format!(
                "{{\"model\":\"{MODEL}\",\"created_at\":\"2026-11-24T12:00:00.000000000Z\",\"message\":{{\"role\":\"assistant\",\"content\":\" {mark}{now_ns}\"}},\"done\":false}}\n"
            ),
        },
    );
}

/// Adds what ends a stream that had `chunks`.
pub(super) fn stream_end(bytes: &mut Vec<u8>, path: &str, chunks: u32) {
    let counts = format!(
        r#""done":true,"done_reason":"stop","total_duration":1500000,"load_duration":100000,"prompt_eval_count":200,"prompt_eval_duration":400000,"eval_count":{chunks},"eval_duration":1000000"#
    );
    match path {
        "/api/generate" => framed(
            bytes,
            &format!(
                "{{\"model\":\"{MODEL}\",\"created_at\":\"2026-11-24T12:00:00.000000000Z\",\"response\":\"\",{counts}}}\n"
            ),
        ),
        "/v1/chat/completions" => {
            framed(
                bytes,
                &format!(
                    "data: {{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1795521600,\"model\":\"{MODEL}\",\"system_fingerprint\":\"fp_ollama\",\"choices\":[{{\"index\":0,\"delta\":{{\"role\":\"assistant\",\"content\":\"\"}},\"finish_reason\":\"stop\"}}]}}\n\n"
                ),
            );
            framed(bytes, "data: [DONE]\n\n");
        }
        "/v1/completions" => {
            framed(
                bytes,
                &format!(
                    "data: {{\"id\":\"cmpl-1\",\"object\":\"text_completion\",\"created\":1795521600,\"model\":\"{MODEL}\",\"system_fingerprint\":\"fp_ollama\",\"choices\":[{{\"text\":\"\",\"index\":0,\"finish_reason\":\"stop\"}}]}}\n\n"
                ),
            );
            framed(bytes, "data: [DONE]\n\n");
        }
        _ => framed(
            bytes,
            &format!(
                "{{\"model\":\"{MODEL}\",\"created_at\":\"2026-11-24T12:00:00.000000000Z\",\"message\":{{\"role\":\"assistant\",\"content\":\"\"}},{counts}}}\n"
            ),
        ),
    }
    bytes.extend_from_slice(b"0\r\n\r\n");
}

fn framed(bytes: &mut Vec<u8>, text: &str) {
    // Writing to memory does not fail.
    write!(bytes, "{:x}\r\n{text}\r\n", text.len()).ok();
}

#[cfg(test)]
mod tests {
    use herd_core::answer::{Ending, Observer};
    use herd_core::request::Surface;

    use super::*;
    use crate::load::http::Reader;

    const STREAMS: [(&str, Surface); 4] = [
        ("/api/chat", Surface::OllamaChat),
        ("/api/generate", Surface::OllamaGenerate),
        ("/v1/chat/completions", Surface::OpenAiChat),
        ("/v1/completions", Surface::OpenAiCompletions),
    ];

    #[test]
    fn streams_are_whole_in_the_eyes_of_the_edge() {
        for (path, surface) in STREAMS {
            let mut bytes = stream_head(Api::Ollama).to_vec();
            (0..3).for_each(|number| chunk(&mut bytes, path, number));
            stream_end(&mut bytes, path, 3);
            let (mut reader, mut observer) = (Reader::default(), Observer::new(surface, true));
            assert!(reader.feed(&bytes, &mut |piece| observer.observe(piece)).unwrap(), "{path}");
            assert_eq!((observer.finish(), observer.seen().garbage), (Ending::Complete, false), "{path}");
        }
    }

    #[test]
    fn whole_answers_are_whole_in_the_eyes_of_the_edge() {
        let replies = Replies::new();
        let embeds = [("/api/embed", Surface::OllamaEmbed), ("/v1/embeddings", Surface::OpenAiEmbeddings)];
        for (path, surface) in STREAMS.into_iter().chain(embeds) {
            let (mut reader, mut observer) = (Reader::default(), Observer::new(surface, false));
            reader.feed(replies.of(path), &mut |piece| observer.observe(piece)).unwrap();
            assert_eq!((reader.status, observer.finish(), observer.seen().garbage), (200, Ending::Complete, false));
        }
        assert!(replies.of("/nowhere").starts_with(b"HTTP/1.1 404"));
    }
}
