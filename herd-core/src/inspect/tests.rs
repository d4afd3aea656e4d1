use proptest::prelude::*;

use super::*;

fn read(body: &str) -> Result<RequestProfile, InspectError> {
    inspect(Surface::OllamaChat, body.as_bytes(), &InspectLimits::default())
}

#[track_caller]
fn refused(body: &str, message: &str) {
    assert_eq!(read(body).unwrap_err().to_string(), message, "{body}");
}

#[test]
fn reads_what_a_decision_needs() {
    let body = r#"{"model":"Tiny","messages":[{"role":"user","content":"hello, you","images":["aGk="]}],
        "stream":false,"options":{"num_ctx":8192,"num_predict":100},"tools":[{"type":"function"}],
        "fallback_models":["a:1b","b"],"metadata":{"tags":["app","x"],"user_id":"u"}}"#;
    let profile = read(body).unwrap();
    assert_eq!(profile.model.as_str(), "tiny:latest");
    assert!(!profile.stream && profile.tools);
    assert_eq!((profile.num_ctx, profile.max_output_tokens, profile.images), (Some(8192), Some(100), 1));
    assert_eq!(profile.tags, ["app", "x"]);
    assert_eq!(profile.fallback_models.iter().map(ModelName::as_str).collect::<Vec<_>>(), ["a:1b", "b:latest"]);
    assert_eq!(&body[profile.places.model.clone()], "\"Tiny\"");
    assert_eq!(&body[profile.places.num_ctx.clone().unwrap()], "8192");
    assert!(profile.prompt_tokens > 256 && profile.prompt_tokens < 300, "{}", profile.prompt_tokens);
}

#[test]
fn stream_has_the_default_of_its_surface() {
    for surface in Surface::ALL {
        let native = matches!(surface, Surface::OllamaChat | Surface::OllamaGenerate);
        for (text, expected) in [
            (r#"{"model":"m"}"#, native),
            (r#"{"model":"m","stream":null}"#, native),
            (r#"{"model":"m","stream":true}"#, surface.can_stream()),
        ] {
            let profile = inspect(surface, text.as_bytes(), &InspectLimits::default()).unwrap();
            assert_eq!(profile.stream, expected, "{surface:?} {text}");
        }
    }
}

#[test]
fn bad_bodies_are_refused_with_a_reason() {
    refused("", "missing request body");
    refused(" \n", "missing request body");
    refused("[1]", "request body must be a JSON object");
    refused("{", "unexpected end of JSON input");
    refused(r#"{"model":"m""#, "unexpected end of JSON input");
    refused(r#"{"model":"m"} x"#, "invalid JSON at byte 14");
    refused(r#"{"model":"m",}"#, "invalid JSON at byte 13");
    refused("{}", "model is required");
    refused(r#"{"model":""}"#, "model is required");
    refused(r#"{"model":null}"#, "model is required");
    refused(r#"{"model":7}"#, "\"model\" must be a string");
    refused(r#"{"model":"a b"}"#, "\"model\" has a character that is not allowed: ' '");
    refused(r#"{"model":"a","model":"b"}"#, "duplicate key \"model\"");
    refused(r#"{"model":"a","MODEL":"b"}"#, "duplicate key \"model\"");
    refused("{\"model\":\"a\",\"mod\\u0065l\":\"b\"}", "duplicate key \"model\"");
    refused(r#"{"model":"a","stream":"yes"}"#, "\"stream\" must be a boolean");
    refused(r#"{"model":"a","options":{"num_ctx":"8k"}}"#, "\"options.num_ctx\" must be an integer");
    refused(r#"{"model":"a","options":{"num_ctx":1.5}}"#, "\"options.num_ctx\" must be an integer");
    refused(r#"{"model":"a","options":{"num_ctx":1,"num_ctx":2}}"#, "duplicate key \"options.num_ctx\"");
    refused(r#"{"model":"a","options":[]}"#, "\"options\" must be an object");
    refused(r#"{"model":"a","fallback_models":{}}"#, "\"fallback_models\" must be an array of strings");
    refused(
        r#"{"model":"a","fallback_models":["1","2","3","4","5","6","7","8","9"]}"#,
        "\"fallback_models\" exceeds its limit of 8",
    );
    let deep = format!("{{\"model\":\"a\",\"x\":{}1{}}}", "[".repeat(64), "]".repeat(64));
    refused(&deep, "JSON nested deeper than 64 levels");
    assert_eq!(
        inspect(Surface::OllamaChat, b"{\"model\":\"\xff\"}", &InspectLimits::default()),
        Err(InspectError::NotUtf8)
    );
}

#[test]
fn num_ctx_is_read_as_ollama_reads_it() {
    let num_ctx =
        |text: &str| read(&format!("{{\"model\":\"a\",\"options\":{{\"num_ctx\":{text}}}}}")).unwrap().num_ctx;
    assert_eq!(num_ctx("4096.0"), Some(4096));
    assert_eq!(num_ctx("0"), Some(4));
    assert_eq!(num_ctx("-1"), Some(4));
    assert_eq!(num_ctx("null"), None);
    let v1 =
        inspect(Surface::OpenAiChat, br#"{"model":"a","options":{"num_ctx":9}}"#, &InspectLimits::default()).unwrap();
    assert_eq!(v1.num_ctx, None, "Ollama ignores options there");
}

#[test]
fn private_members_can_be_cut_out_wherever_they_stand() {
    let cut = |body: &str| {
        let places = read(body).unwrap().places;
        let edits: Vec<_> = places.private.iter().map(|range| crate::splice::Edit::cut(range.clone())).collect();
        String::from_utf8(crate::splice::splice(body.as_bytes(), &edits)).unwrap()
    };
    assert_eq!(cut(r#"{"model":"m","fallback_models":["a"]}"#), r#"{"model":"m"}"#);
    assert_eq!(cut(r#"{"fallback_models":["a"], "model":"m"}"#), r#"{"model":"m"}"#);
    assert_eq!(cut(r#"{"a":1,"fallback_models":[],"model":"m"}"#), r#"{"a":1,"model":"m"}"#);
    assert_eq!(cut(r#"{"model":"m","metadata":{"tags":["t"]}}"#), r#"{"model":"m","metadata":{}}"#);
    assert_eq!(cut(r#"{"model":"m","metadata":{"tags":["t"],"u":1}}"#), r#"{"model":"m","metadata":{"u":1}}"#);
}

/// Any JSON value as text.
fn json() -> impl Strategy<Value = serde_json::Value> {
    use serde_json::Value;
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<f64>().prop_filter("finite", |n| n.is_finite()).prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        ".{0,40}".prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 64, 8, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
            prop::collection::vec((".{0,12}", inner), 0..8)
                .prop_map(|m| m.into_iter().collect::<serde_json::Map<_, _>>().into()),
        ]
    })
}

proptest! {
    #[test]
    fn valid_json_is_accepted_whole(value in json(), pretty: bool) {
        let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) }.unwrap();
        let mut scanner = Scanner::new(text.as_bytes(), 64);
        prop_assert_eq!(scanner.skip().unwrap(), 0..text.len());
        scanner.finish().unwrap();
    }

    #[test]
    fn agrees_with_a_full_parser_on_damaged_text(value in json(), at in any::<prop::sample::Index>(), byte in 0x20_u8..0x7f) {
        let mut text = serde_json::to_vec(&value).unwrap();
        let at = at.index(text.len());
        text[at] = byte;
        prop_assume!(std::str::from_utf8(&text).is_ok());
        let mut scanner = Scanner::new(&text, 64);
        let ours = scanner.skip().and_then(|_| scanner.finish()).is_ok();
        // A raw value is checked against the grammar only, as we do.
        let theirs = serde_json::from_slice::<Box<serde_json::value::RawValue>>(&text).is_ok();
        prop_assert_eq!(ours, theirs, "{}", String::from_utf8_lossy(&text));
    }

    #[test]
    fn never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        drop(inspect(Surface::OllamaChat, &bytes, &InspectLimits::default()));
    }

    #[test]
    fn strings_read_back(text in ".{0,60}") {
        let quoted = serde_json::to_string(&text).unwrap();
        let mut scanner = Scanner::new(quoted.as_bytes(), 4);
        let range = scanner.string().unwrap();
        prop_assert_eq!(scanner.text(&range), text);
    }
}
