//! Answers cut into pieces and cut short.

use proptest::prelude::*;
use serde_json::Value;

use super::*;

const STREAMS: [(Surface, &str); 10] = [
    (Surface::OllamaChat, CHAT_STREAM),
    (Surface::OllamaChat, CHAT_TOOLS_STREAM),
    (Surface::OllamaGenerate, GENERATE_STREAM),
    (Surface::OpenAiChat, V1_CHAT_STREAM),
    (Surface::OpenAiChat, V1_CHAT_STREAM_USAGE),
    (Surface::OpenAiChat, V1_CHAT_TOOLS_STREAM),
    (Surface::OpenAiCompletions, V1_COMPLETIONS_STREAM),
    (Surface::OpenAiResponses, V1_RESPONSES_STREAM),
    (Surface::AnthropicMessages, V1_MESSAGES_STREAM),
    (Surface::AnthropicMessages, V1_MESSAGES_TOOLS_STREAM),
];

/// The name and data of the last event, as a client by the book reads them.
fn last_event(stream: &str) -> (String, String) {
    let (mut last, mut name, mut data) = (None, String::new(), Vec::new());
    for line in stream.lines() {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => name = value.to_owned(),
            "data" => data.push(value),
            "" if line.is_empty() => {
                let event = (std::mem::take(&mut name), std::mem::take(&mut data).join("\n"));
                last = Some(event).filter(|(_, data)| !data.is_empty()).or(last);
            }
            _ => {}
        }
    }
    last.unwrap()
}

#[track_caller]
fn assert_ends_in_error(surface: Surface, stream: &str, message: &str) {
    assert!(stream.ends_with('\n'));
    if surface.dialect() == Dialect::Ollama {
        assert!(stream.lines().all(|line| !line.is_empty()), "Ollama's clients fail on an empty line");
        let error: Value = serde_json::from_str(stream.lines().last().unwrap()).unwrap();
        return assert_eq!(error, serde_json::json!({ "error": message }));
    }
    let (name, data) = last_event(stream);
    let error: Value = serde_json::from_str(&data).unwrap();
    assert_eq!(error["error"]["message"], message);
    let named = matches!(surface, Surface::OpenAiResponses | Surface::AnthropicMessages);
    assert_eq!(name, if named { "error" } else { "" });
    assert_eq!(error.get("type"), named.then_some(&"error".into()));
    if surface == Surface::OpenAiResponses {
        assert_eq!(error["message"], message);
        assert!(error["sequence_number"].is_u64());
    }
}

#[test]
fn a_stream_cut_anywhere_is_truncated_and_ends_in_an_error_of_its_surface() {
    const MESSAGE: &str = "node \"a\" went away\n";
    for (surface, stream) in STREAMS {
        let end = stream.find("[DONE]").map_or_else(|| stream.rfind('}').unwrap() + 1, |at| at + "[DONE]".len());
        let mut observer = Observer::new(surface, true);
        for (cut, byte) in stream.bytes().enumerate() {
            assert_eq!(observer.finish(), Ending::Truncated, "{surface:?} {:?}", &stream[..cut]);
            let epilogue = String::from_utf8(observer.epilogue(MESSAGE).unwrap()).unwrap();
            assert_ends_in_error(surface, &format!("{}{epilogue}", &stream[..cut]), MESSAGE);
            observer.observe(&[byte]);
            if cut + 1 == end {
                break;
            }
        }
        assert_eq!((observer.finish(), observer.epilogue(MESSAGE)), (Ending::Complete, None), "{surface:?}");
        observer.observe(&stream.as_bytes()[end..]);
        assert_eq!(observer.seen(), observed(surface, true, stream).seen());
    }
}

#[test]
fn an_answer_that_is_not_streamed_is_complete_with_its_last_brace() {
    for (surface, body) in [
        (Surface::OllamaChat, CHAT),
        (Surface::OllamaEmbed, EMBED),
        (Surface::OpenAiChat, V1_CHAT),
        (Surface::OpenAiResponses, V1_RESPONSES),
        (Surface::AnthropicMessages, V1_MESSAGES),
    ] {
        let end = body.rfind('}').unwrap() + 1;
        for cut in 0..=body.len() {
            let observer = observed(surface, false, &body[..cut]);
            let expected = if cut < end { Ending::Truncated } else { Ending::Complete };
            assert_eq!(observer.finish(), expected, "{:?}", &body[..cut]);
            assert_eq!(observer.epilogue("lost"), None);
        }
    }
}

#[test]
fn the_number_of_the_last_event_follows_those_before() {
    let created = "event: response.created\ndata: {\"sequence_number\":0,\"type\":\"response.created\"}\n\n";
    for (tail, number) in [("", 1), (": x\n", 1), ("event: a\n", 1), ("data: {", 2), ("data: {}\n\n", 2)] {
        let body = format!("{created}{tail}");
        let epilogue = observed(Surface::OpenAiResponses, true, &body).epilogue("x").unwrap();
        let epilogue = String::from_utf8(epilogue).unwrap();
        assert!(epilogue.contains(&format!("\"sequence_number\":{number},")), "{tail:?} {epilogue}");
    }
}

#[test]
fn memory_does_not_grow_with_a_line() {
    // An observer holds no collection: what it is in itself is all that it takes.
    const { assert!(size_of::<Observer>() < 1024) };
    let long = "1,".repeat(5 << 20);
    let last = format!("{{\"response\":\"\",\"done\":true,\"context\":[{long}2],\"eval_count\":7}}\n");
    for size in [1 << 12, 1 << 16, last.len()] {
        let mut observer = Observer::new(Surface::OllamaGenerate, true);
        for chunk in last.as_bytes().chunks(size) {
            observer.observe(chunk);
        }
        assert_eq!(observer.finish(), Ending::Complete);
        assert_eq!(observer.seen().counts.completion_tokens, Some(7));
    }
    let mut observer = Observer::new(Surface::OpenAiChat, true);
    observer.observe(format!("data: {{\"a\":\"{}", "x".repeat(10 << 20)).as_bytes());
    observer.observe(b"\"}\n\ndata: [DONE]\n\n");
    assert_eq!(observer.finish(), Ending::Complete);
}

/// Bytes of the protocols in any order, so that what is not an answer is read the same way too, however it is cut.
fn anything() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("data: "),
        Just("data:"),
        Just("event: error"),
        Just("event: response.completed"),
        Just("event: content_block_delta"),
        Just("\n"),
        Just("\n\n"),
        Just("\r\n"),
        Just("{"),
        Just("}"),
        Just("[DONE]"),
        Just("{\"done\":true}"),
        Just("{\"response\":\"a\",\"done\":false}"),
        Just(",\"done\":false}"),
        Just("{\"error\":\"x\",\"done\":false}"),
        Just("{\"type\":\"message_stop\"}"),
        Just("{\"choices\":[{\"delta\":{\"content\":\"a\"},\"finish_reason\":null}]}"),
        Just("\"a\"},\"finish_reason\":null}]}"),
        Just("{\"model\":\"\"}"),
        Just(": é"),
        Just(" "),
        Just("\""),
    ];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

fn in_pieces(surface: Surface, streamed: bool, body: &[u8], cuts: &[prop::sample::Index]) -> Observer {
    let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(body.len() + 1)).collect();
    places.sort_unstable();
    let mut observer = Observer::new(surface, streamed);
    let mut from = 0;
    for to in places.into_iter().chain([body.len()]) {
        observer.observe(&body[from..to]);
        from = to;
    }
    observer
}

proptest! {
    #[test]
    fn pieces_do_not_matter_to_streams(
        at in 0..STREAMS.len(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..40),
    ) {
        let (surface, stream) = STREAMS[at];
        let pieced = in_pieces(surface, true, stream.as_bytes(), &cuts);
        let whole = observed(surface, true, stream);
        prop_assert_eq!(pieced.seen(), whole.seen());
    }

    #[test]
    fn pieces_do_not_matter_to_anything(
        surface in prop::sample::select(Surface::ALL.as_slice()),
        streamed: bool,
        body in anything(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let pieced = in_pieces(surface, streamed, body.as_bytes(), &cuts);
        let whole = observed(surface, streamed, &body);
        prop_assert_eq!(pieced.seen(), whole.seen());
        prop_assert_eq!(pieced.epilogue("x"), whole.epilogue("x"));
    }
}
