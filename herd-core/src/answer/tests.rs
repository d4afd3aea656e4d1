mod pieces;
mod rename;
mod samples;
mod skim;

use super::*;
use samples::*;

fn observed(surface: Surface, streamed: bool, body: &str) -> Observer {
    let mut observer = Observer::new(surface, streamed);
    observer.observe(body.as_bytes());
    observer
}

fn tokens(prompt: u64, completion: u64) -> Counts {
    Counts { prompt_tokens: Some(prompt), completion_tokens: Some(completion), ..Counts::default() }
}

#[test]
fn complete_answers_tell_their_counts_on_every_surface() {
    #[track_caller]
    fn check(surface: Surface, streamed: bool, body: &str, reason: Option<Reason>, counts: Counts) {
        let observer = observed(surface, streamed, body);
        let pieces = observer.seen().pieces;
        assert_eq!(pieces > 0, streamed, "{surface:?}");
        let expected =
            Observation { terminated: true, first_token: true, pieces, reason, counts, ..Observation::default() };
        assert_eq!(*observer.seen(), expected, "{surface:?}");
        assert_eq!(observer.finish(), Ending::Complete);
        assert_eq!(observer.epilogue("lost"), None);
    }
    let native = |load_ms, prefill_ms, decode_ms, total_ms| Counts {
        load_ms: Some(load_ms),
        prefill_ms: Some(prefill_ms),
        decode_ms: Some(decode_ms),
        total_ms: Some(total_ms),
        ..tokens(29, 11)
    };
    let (stop, tools) = (Some(Reason::Stop), Some(Reason::ToolCalls));
    check(Surface::OllamaChat, true, CHAT_STREAM, stop, native(1.018_319, 22.026, 249.912, 276.821_856));
    check(Surface::OllamaChat, true, CHAT_TOOLS_STREAM, stop, tokens(205, 10));
    check(Surface::OllamaChat, false, CHAT, stop, native(1.350_304, 29.275, 251.012, 284.163_026));
    check(Surface::OllamaGenerate, true, GENERATE_STREAM, stop, native(1.514_969, 21.446, 286.247, 312.773_258));
    check(Surface::OllamaGenerate, false, GENERATE_LOAD, Some(Reason::Load), Counts::default());
    let embed =
        Counts { prompt_tokens: Some(6), load_ms: Some(264.992_703), total_ms: Some(274.307_937), ..Counts::default() };
    check(Surface::OllamaEmbed, false, EMBED, None, embed);
    check(Surface::OllamaEmbeddings, false, EMBEDDINGS, None, Counts::default());
    let v1_embed = Counts { prompt_tokens: Some(6), ..Counts::default() };
    check(Surface::OpenAiEmbeddings, false, V1_EMBEDDINGS, None, v1_embed);
    check(Surface::OpenAiChat, true, V1_CHAT_STREAM_USAGE, stop, tokens(29, 11));
    check(Surface::OpenAiChat, true, V1_CHAT_STREAM, stop, Counts::default());
    check(Surface::OpenAiChat, true, V1_CHAT_TOOLS_STREAM, tools, Counts::default());
    check(Surface::OpenAiChat, false, V1_CHAT, stop, tokens(29, 11));
    check(Surface::OpenAiCompletions, true, V1_COMPLETIONS_STREAM, stop, tokens(29, 11));
    check(Surface::OpenAiCompletions, false, V1_COMPLETIONS, stop, tokens(29, 11));
    check(Surface::OpenAiResponses, true, V1_RESPONSES_STREAM, stop, tokens(29, 11));
    check(Surface::OpenAiResponses, false, V1_RESPONSES, stop, tokens(29, 11));
    check(Surface::AnthropicMessages, true, V1_MESSAGES_STREAM, stop, tokens(29, 11));
    check(Surface::AnthropicMessages, true, V1_MESSAGES_TOOLS_STREAM, tools, tokens(205, 10));
    check(Surface::AnthropicMessages, false, V1_MESSAGES, stop, tokens(29, 11));
}

#[test]
fn streams_that_tell_no_tokens_are_counted_by_their_pieces() {
    #[track_caller]
    fn check(surface: Surface, body: &str, tokens_per_piece: Option<f64>, expected: Option<u64>) {
        let counts = observed(surface, true, body).seen().counts(tokens_per_piece);
        assert_eq!((counts.completion_tokens, counts.estimated), (expected, expected.is_some()), "{surface:?}");
    }
    let until = |body: &'static str, times: usize, end: &str| {
        body.match_indices(end).nth(times - 1).map(|(at, end)| &body[..at + end.len()]).unwrap()
    };
    // Three pieces and the end; cut after two.
    check(Surface::OpenAiChat, V1_CHAT_STREAM, None, Some(4));
    check(Surface::OpenAiChat, V1_CHAT_STREAM, Some(2.0), Some(7));
    check(Surface::OpenAiChat, until(V1_CHAT_STREAM, 2, "\n\n"), None, Some(2));
    check(Surface::OllamaChat, until(CHAT_STREAM, 2, "\n"), None, Some(2));
    check(Surface::OllamaGenerate, until(GENERATE_STREAM, 1, "\n"), Some(0.1), Some(1));
    check(Surface::OpenAiCompletions, until(V1_COMPLETIONS_STREAM, 2, "\n\n"), None, Some(2));
    check(Surface::OpenAiResponses, until(V1_RESPONSES_STREAM, 5, "\n\n"), None, Some(2));
    // Nothing has been said, or what it is is told.
    check(Surface::OpenAiChat, "", None, None);
    let told = observed(Surface::OpenAiChat, true, V1_CHAT_STREAM_USAGE);
    assert_eq!(told.seen().counts(Some(9.0)), tokens(29, 11));
    let whole = observed(Surface::OpenAiChat, false, V1_CHAT);
    assert_eq!((whole.seen().pieces, whole.seen().counts(None)), (0, tokens(29, 11)));
}

#[test]
fn a_tool_call_is_counted_by_its_length() {
    let call = |arguments: usize| {
        let arguments = "x".repeat(arguments);
        format!(
            "{{\"message\":{{\"content\":\"\",\"tool_calls\":[{{\"function\":{{\"name\":\"f\",\"arguments\":\
             {{\"a\":\"{arguments}\"}}}}}}]}},\"done\":false}}\n"
        )
    };
    let pieces = |body: &str| observed(Surface::OllamaChat, true, body).seen().pieces;
    assert_eq!(pieces(&call(4)), 1);
    assert!((950..1_050).contains(&pieces(&call(4_000))), "{}", pieces(&call(4_000)));
}

#[test]
fn an_answer_that_tells_its_tokens_teaches_how_many_a_piece_has() {
    let line = "{\"message\":{\"content\":\"a\"},\"done\":false}\n".repeat(10);
    let end = |reason: &str, tokens| {
        let body = format!("{line}{{\"done\":true,\"done_reason\":\"{reason}\",\"eval_count\":{tokens}}}\n");
        observed(Surface::OllamaChat, true, &body).seen().tokens_per_piece()
    };
    assert_eq!((end("stop", 11), end("stop", 21), end("length", 10)), (Some(1.0), Some(2.0), Some(1.0)));
    assert_eq!(observed(Surface::OllamaChat, true, CHAT_STREAM).seen().tokens_per_piece(), None, "too short");
    assert_eq!(observed(Surface::OllamaChat, true, &line).seen().tokens_per_piece(), None, "cut");
}

#[test]
fn a_load_only_answer_to_a_streamed_request_is_complete_without_a_newline() {
    let observer = observed(Surface::OllamaGenerate, true, GENERATE_LOAD);
    assert_eq!(observer.finish(), Ending::Complete);
    assert!(!observer.seen().first_token);
}

#[test]
fn errors_in_the_body_are_the_backends() {
    #[track_caller]
    fn check(surface: Surface, body: &str, expected: Option<BackendError>) {
        let observer = observed(surface, true, body);
        assert_eq!(observer.seen().backend_error, expected, "{surface:?} {body}");
        assert!(!observer.seen().terminated && !observer.seen().garbage, "{body}");
        let ending = if expected.is_some() { Ending::BackendError } else { Ending::Truncated };
        assert_eq!(observer.finish(), ending);
        assert_eq!(observer.epilogue("lost").is_none(), expected == Some(BackendError::Told));
    }
    let (told, hinted) = (Some(BackendError::Told), Some(BackendError::Hinted));
    let native_token = CHAT_STREAM.split_inclusive('\n').next().unwrap();
    check(Surface::OllamaChat, &format!("{native_token}{{\"error\":\"unexpected EOF\"}}\n"), told);
    check(Surface::OllamaChat, native_token, None);
    let token = V1_CHAT_STREAM.split_inclusive("\n\n").next().unwrap();
    check(Surface::OpenAiChat, &format!("{token}{V1_CHAT_BOGUS}"), hinted);
    check(Surface::OpenAiChat, &format!("{token}{V1_CHAT_ERROR}"), told);
    check(Surface::OpenAiChat, &format!("{token}{V1_CHAT_BOGUS}{V1_CHAT_ERROR}"), told);
    check(Surface::OpenAiChat, token, None);
    check(Surface::OpenAiResponses, "event: response.failed\ndata: {\"type\":\"response.failed\"}\n\n", told);
    check(Surface::OpenAiResponses, "data: {\"type\":\"error\",\"code\":null,\"message\":\"x\"}\n\n", told);
    check(Surface::OpenAiResponses, "data: {\"type\":\"x\",\"response\":{\"error\":null}}\n\n", None);
    check(Surface::AnthropicMessages, "event: error\r\ndata: {\"error\":{\"type\":\"api_error\"}}\r\n\r\n", told);
    check(Surface::OllamaChat, "{\"model\":\"\",\"message\":{\"content\":\"\"},\"done\":false}\n", None);
    // Without its data it never reaches the client.
    check(Surface::AnthropicMessages, "event: error\n", None);

    let failed = observed(Surface::OpenAiResponses, false, r#"{"status":"failed","error":{"code":"x"},"output":[]}"#);
    assert_eq!(failed.finish(), Ending::BackendError);
}

#[test]
fn an_incomplete_response_is_a_proper_end() {
    let body = "event: response.incomplete\n\
                data: {\"response\":{\"status\":\"incomplete\"},\"type\":\"response.incomplete\"}\n\n";
    let observer = observed(Surface::OpenAiResponses, true, body);
    assert_eq!((observer.finish(), observer.seen().reason), (Ending::Complete, Some(Reason::Length)));
}

#[test]
fn garbage_is_noticed_where_it_matters() {
    #[track_caller]
    fn check(surface: Surface, streamed: bool, body: &str, garbage: bool) {
        assert_eq!(observed(surface, streamed, body).seen().garbage, garbage, "{surface:?} {body:?}");
    }
    for (line, garbage) in [
        ("\n  \n\r\n", false),
        ("{\"done\":false}\n", false),
        ("<html>\n", true),
        ("{\"done\":true\n", false),
        ("{\"done\":true\n{\"done\":true}\n", true),
        ("{\"done\":true}}\n", true),
        ("[1]\n", true),
        ("{\"a\":1", false),
    ] {
        check(Surface::OllamaChat, true, line, garbage);
    }
    for (event, garbage) in [
        (": a comment\n\n", false),
        ("id: 1\nretry: 5\n\n", false),
        ("data: {\"a\":\ndata: 1}\n\n", false),
        ("data: {\"a\":\"\ndata: 1\"}\n\n", true),
        ("data: oops\n\n", true),
        ("data: [DONE]\n\n", false),
        ("data:[DONE]\n\n", false),
        ("data: oops\n", false),
    ] {
        check(Surface::OpenAiChat, true, event, garbage);
    }
    check(Surface::OpenAiChat, false, "{\"a\":1}\n", false);
    check(Surface::OpenAiChat, false, "{\"a\":1}{", true);
    check(Surface::OllamaEmbed, false, "Bad Gateway", true);
}

#[test]
fn words_of_the_protocol_inside_an_answer_mean_nothing() {
    let spoken = r#"{"model":"m","message":{"role":"assistant","content":"{\"done\":true} [DONE] \"error\":\"x\"",
        "tool_calls":[{"function":{"name":"f","arguments":{"done":true,"error":"x","usage":{"prompt_tokens":1}}}}]},
        "done":false,"x":1}"#
        .replace('\n', "");
    let observer = observed(Surface::OllamaChat, true, &format!("{spoken}\n"));
    let pieces = observer.seen().pieces;
    assert_eq!(*observer.seen(), Observation { first_token: true, pieces, ..Observation::default() });
    let spoken = "data: {\"model\":\"m\",\"choices\":[{\"delta\":{\"content\":\"data: [DONE]\"}}]}\n\n: data: [DONE]\n";
    assert_eq!(observed(Surface::OpenAiChat, true, spoken).finish(), Ending::Truncated);
}

#[test]
fn the_first_token_is_text_thinking_or_a_tool_call() {
    #[track_caller]
    fn check(surface: Surface, event: &str, expected: bool) {
        assert_eq!(observed(surface, true, event).seen().first_token, expected, "{event}");
    }
    check(Surface::OllamaChat, "{\"message\":{\"content\":\"\"},\"done\":false,\"status\":\"loading\"}\n", false);
    check(Surface::OllamaChat, "{\"message\":{\"content\":\"\",\"thinking\":\"I\"},\"done\":false}\n", true);
    check(Surface::OllamaChat, "{\"message\":{\"content\":\"\\n\"},\"done\":false}\n", true);
    check(
        Surface::OpenAiChat,
        "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n",
        false,
    );
    check(Surface::OpenAiChat, "data: {\"choices\":[{\"delta\":{\"reasoning\":\"I\"}}]}\n\n", true);
    check(Surface::OpenAiChat, "data: {\"choices\":[{\"delta\":{\"tool_calls\":[{}]}}]}\n\n", true);
    check(Surface::OpenAiResponses, "data: {\"type\":\"response.created\",\"response\":{\"model\":\"m\"}}\n\n", false);
    check(Surface::OpenAiResponses, "data: {\"delta\":\"Hi\",\"type\":\"response.output_text.delta\"}\n\n", true);
}

#[test]
fn signs_of_life_are_in_the_form_of_the_surface() {
    for surface in Surface::ALL {
        let native = surface.dialect() == Dialect::Ollama;
        assert_eq!(comment(surface).is_some(), surface.can_stream() && !native, "{surface:?}");
        let progress = Progress { model: "a\"b", created_at: "2026-11-22T12:54:51Z", status: "loading \u{1}" };
        let line = status_line(surface, &progress);
        assert_eq!(line.is_some(), surface.can_stream() && native, "{surface:?}");
        let Some(line) = line else { continue };
        let value: serde_json::Value = serde_json::from_slice(line.strip_suffix(b"\n").unwrap()).unwrap();
        assert_eq!((&value["model"], &value["done"]), (&"a\"b".into(), &false.into()));
        assert_eq!(value["status"], "loading \u{1}");
        assert_eq!(status_line(surface, &Progress { status: "success", ..progress }), None);
        let seen = observed(surface, true, std::str::from_utf8(&line).unwrap()).seen().clone();
        assert_eq!(seen, Observation::default(), "it is no token and no end");
    }
}

/// Answers that cannot be read: what a proxy has compressed unasked, a web page, another program's words.
#[test]
fn what_cannot_be_read_is_not_judged() {
    let gzip = [&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3][..], CHAT.as_bytes()].concat();
    let zstd = [&[0x28, 0xb5, 0x2f, 0xfd][..], CHAT.as_bytes()].concat();
    let (brotli, deflate) = (b"\x0b\x02\x80{\"done\":false}\n\x03", b"\x78\x9c\xab\x56\n\x0a");
    let page = b"<html>\n<body>Bad Gateway</body>\n";
    for body in [&gzip[..], &zstd[..], brotli, deflate, page, b"data: x\n", b"OK", b"[]\n"] {
        for (surface, streamed) in
            [(Surface::OllamaChat, true), (Surface::OllamaChat, false), (Surface::OllamaEmbed, false)]
        {
            let mut observer = Observer::new(surface, streamed);
            for byte in body {
                observer.observe(&[*byte]);
            }
            let long = [body, b"\n"].concat();
            let mut at_once = Observer::new(surface, streamed);
            at_once.observe(&long);
            for observer in [observer, at_once].iter().filter(|observer| observer.seen().garbage) {
                assert_eq!((observer.finish(), observer.epilogue("lost")), (Ending::Complete, None), "{body:?}");
            }
        }
    }
    let mut events = Observer::new(Surface::OpenAiChat, true);
    events.observe(b"data: <html>\n\n");
    assert_eq!((events.finish(), events.epilogue("lost")), (Ending::Complete, None));
    // Garbage in the middle of what could be read is the backend's fault.
    let broken =
        observed(Surface::OllamaChat, true, &format!("{}\n<html>\n", r#"{"message":{"content":"a"},"done":false}"#));
    assert_eq!(broken.finish(), Ending::Truncated);
    assert!(broken.epilogue("lost").is_some());
}

#[test]
fn a_text_over_several_lines_is_one_text() {
    let printed = "{\n  \"message\": {\n    \"content\": \"a\"\n  },\n  \"done\": false\n}\n";
    let last = "{\n \"done_reason\": \"stop\",\r\n \"done\": true\n}\n";
    let whole = observed(Surface::OllamaChat, true, &[printed, printed, last].concat());
    assert_eq!((whole.finish(), whole.seen().reason), (Ending::Complete, Some(Reason::Stop)));
    assert!(whole.seen().first_token && !whole.seen().garbage);
    let cut = observed(Surface::OllamaChat, true, &[printed, "{\n  \"message\": {\n"].concat());
    assert_eq!(cut.finish(), Ending::Truncated);
    assert!(cut.epilogue("lost").unwrap().starts_with(b"\n"));
}
