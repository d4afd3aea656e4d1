//! The ways to ask: nine surfaces, six of them streamed and not.

use herd_harness::{Answer, post_with};

/// One way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Way {
    pub(super) path: &'static str,
    body: &'static str,
    pub(super) streamed: bool,
    /// What a whole stream ends with.
    pub(super) terminator: &'static str,
}

type Surface = (&'static str, &'static str, Option<&'static str>);

const SURFACES: [Surface; 9] = [
    ("/api/chat", r#""options":{"num_predict":8},"messages":[{"role":"user","content":"hi"}]"#, Some("\"done\":true")),
    ("/api/generate", r#""options":{"num_predict":8},"prompt":"hi""#, Some("\"done\":true")),
    ("/v1/chat/completions", r#""max_tokens":8,"messages":[{"role":"user","content":"hi"}]"#, Some("data: [DONE]")),
    ("/v1/completions", r#""max_tokens":8,"prompt":"hi""#, Some("data: [DONE]")),
    ("/v1/responses", r#""max_output_tokens":8,"input":"hi""#, Some("response.completed")),
    ("/v1/messages", r#""max_tokens":8,"messages":[{"role":"user","content":"hi"}]"#, Some("message_stop")),
    ("/api/embed", r#""input":"hi""#, None),
    ("/api/embeddings", r#""prompt":"hi""#, None),
    ("/v1/embeddings", r#""input":"hi""#, None),
];

/// All of them.
pub(super) fn ways() -> Vec<Way> {
    let both = |(path, body, end): Surface| {
        let whole = Way { path, body, streamed: false, terminator: "" };
        let stream = end.map(|terminator| Way { streamed: true, terminator, ..whole });
        [Some(whole), stream].into_iter().flatten()
    };
    SURFACES.into_iter().flat_map(both).collect()
}

/// Those in which answers come piece by piece.
pub(super) fn streams() -> Vec<Way> {
    ways().into_iter().filter(|way| way.streamed).collect()
}

/// One stream of each dialect and one whole answer: for failures that take their time.
pub(super) fn few() -> Vec<Way> {
    let picked = ["/api/chat", "/v1/chat/completions", "/v1/messages"];
    let is_few = |way: &Way| picked.contains(&way.path) && way.streamed || way.path == "/v1/embeddings";
    ways().into_iter().filter(is_few).collect()
}

impl Way {
    /// The request, for `model`; a surface that embeds asks for its namesake that does.
    pub(super) fn request(&self, id: &str, model: &str) -> Vec<u8> {
        post_with(self.path, &format!("X-Request-Id: {id}\r\n"), self.body(model).as_bytes())
    }

    pub(super) fn body(&self, model: &str) -> String {
        let (model, suffix) = (model, if self.path.contains("embed") { "-embed" } else { "" });
        format!("{{\"model\":\"{model}{suffix}\",{},\"stream\":{}}}", self.body, self.streamed)
    }

    fn is_openai(&self) -> bool {
        self.path.starts_with("/v1/") && self.path != "/v1/messages"
    }

    /// Asserts that `answer` is an error in the surface's own form, and returns its text.
    #[track_caller]
    pub(super) fn error(&self, answer: &Answer) -> String {
        let context = || format!("{self:?} {answer:?}");
        assert!(answer.whole, "{}", context());
        let content_type = answer.header("Content-Type").unwrap_or_default();
        assert!(content_type.starts_with("application/json"), "{}", context());
        self.error_in(&answer.text()).unwrap_or_else(|| panic!("no error: {}", context()))
    }

    /// The text of an error in the surface's own form, as the whole of `json`.
    pub(super) fn error_in(&self, json: &str) -> Option<String> {
        let json: serde_json::Value = serde_json::from_str(json).ok()?;
        let text = match self.path {
            "/v1/messages" => json.pointer("/error/message").filter(|_| json["type"] == "error"),
            _ if self.is_openai() => json.pointer("/error/message").filter(|_| json["error"]["type"].is_string()),
            _ => json.get("error"),
        };
        text.and_then(|text| text.as_str()).map(str::to_owned)
    }

    /// The text of the error that ends the stream `text`.
    #[track_caller]
    pub(super) fn last_words(&self, text: &str) -> String {
        let context = || format!("{self:?} {text}");
        if !self.path.starts_with("/v1/") {
            assert!(text.ends_with('\n'), "{}", context());
            let last = text.lines().last().unwrap_or_default();
            return self.error_in(last).unwrap_or_else(|| panic!("no error: {}", context()));
        }
        assert!(text.ends_with("\n\n"), "{}", context());
        let event = text.trim_end().rsplit("\n\n").next().unwrap_or_default();
        let event = event.trim_start_matches(": keep-alive\n");
        let data = event.lines().find_map(|line| line.strip_prefix("data: ")).unwrap_or_default();
        let named = matches!(self.path, "/v1/messages" | "/v1/responses");
        assert_eq!(event.starts_with("event: error\n"), named, "{}", context());
        self.error_in(data).unwrap_or_else(|| panic!("no error: {}", context()))
    }

    /// Asserts that `answer` is whole and faultless.
    #[track_caller]
    pub(super) fn fine(&self, answer: &Answer) {
        assert!(answer.status == 200 && answer.whole, "{self:?} {answer:?}");
        assert!(answer.text().contains(self.terminator) && self.error_in(&answer.text()).is_none(), "{answer:?}");
    }
}
