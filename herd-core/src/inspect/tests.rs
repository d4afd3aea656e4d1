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

fn on(surface: Surface, body: &str) -> RequestProfile {
    inspect(surface, body.as_bytes(), &InspectLimits::default()).unwrap()
}

#[test]
fn launch_options_are_read_where_they_count() {
    let all = r#"{"model":"m","prompt":"p","shift":false,"options":{"num_batch":256,"num_thread":8.0,"main_gpu":1,
        "draft_num_predict":4,"use_mmap":false,"num_gpu":20}}"#;
    let told = LaunchOptions {
        num_batch: Some(256),
        num_thread: Some(8),
        main_gpu: Some(1),
        draft_num_predict: Some(4),
        use_mmap: Some(false),
        no_shift: true,
        num_gpu: Some(20),
    };
    for surface in Surface::ALL {
        let shift = LaunchOptions { no_shift: surface.is_native_completion(), ..told };
        let expected = if surface.carries_num_ctx() { shift } else { LaunchOptions::default() };
        assert_eq!(on(surface, all).launch, Signature::new(&expected), "{surface:?}");
    }
    refused(r#"{"model":"m","options":{"num_gpu":1,"num_gpu":2}}"#, "duplicate key \"options.num_gpu\"");
}

#[test]
fn launch_options_that_say_nothing_are_absent() {
    for options in [
        r#""num_gpu":-1"#,
        r#""num_batch":null,"use_mmap":null"#,
        r#""num_batch":"9","num_thread":[1],"main_gpu":1.5,"draft_num_predict":true,"use_mmap":1,"num_gpu":{}"#,
        r#""NUM_BATCH":9,"Use_mmap":true"#,
    ] {
        let body = format!("{{\"model\":\"m\",\"options\":{{{options}}}}}");
        assert_eq!(read(&body).unwrap().launch, Signature::DEFAULT, "{options}");
    }
    for shift in ["true", "null", "0"] {
        let body = format!("{{\"model\":\"m\",\"shift\":{shift}}}");
        assert_eq!(read(&body).unwrap().launch, Signature::DEFAULT, "{shift}");
    }
}

#[test]
fn thinking_is_asked_for_by_a_level_or_true() {
    let think = |text: &str| read(&format!("{{\"model\":\"m\",\"think\":{text}}}")).unwrap().think;
    assert!(think("true") && think("\"high\""));
    assert!(!think("false") && !think("null") && !think("\"\"") && !think("1"));
    assert!(!on(Surface::OpenAiChat, r#"{"model":"m","think":true}"#).think, "Ollama does not read it there");
}

#[test]
fn the_client_says_whether_another_model_may_serve() {
    let fallback = |text: &str| read(&format!("{{\"model\":\"m\",\"fallback\":{text}}}")).map(|p| p.fallback);
    assert_eq!(fallback("true"), Ok(Some(true)));
    assert_eq!(fallback("false"), Ok(Some(false)));
    assert_eq!(fallback("null"), Ok(None));
    refused(r#"{"model":"m","fallback":"no"}"#, "\"fallback\" must be a boolean");
    assert_eq!(read(r#"{"model":"m"}"#).unwrap().fallback, None);
}

#[test]
fn the_user_of_an_openai_request_is_read() {
    let user = |text: &str| on(Surface::OpenAiChat, &format!("{{\"model\":\"m\",\"user\":{text}}}")).user;
    assert_eq!(user("\"jo\"").as_deref(), Some("jo"));
    assert_eq!((user("null"), user("\"\"")), (None, None));
    assert_eq!(on(Surface::OllamaChat, r#"{"model":"m","user":7}"#).user, None, "not a member there");
    let refused = |text: &str| {
        let body = format!("{{\"model\":\"m\",\"user\":{text}}}");
        inspect(Surface::OpenAiChat, body.as_bytes(), &InspectLimits::default()).unwrap_err().to_string()
    };
    assert_eq!(refused("7"), "\"user\" must be a string");
    assert_eq!(refused(&format!("\"{}\"", "x".repeat(257))), "\"user\" exceeds its limit of 256");
}

#[test]
fn a_request_to_load_or_unload_is_told_from_a_question() {
    use Surface::{OllamaChat, OllamaEmbed, OllamaGenerate, OpenAiChat};
    #[track_caller]
    fn check(surface: Surface, members: &str, empty: bool) {
        assert_eq!(on(surface, &format!("{{\"model\":\"m\"{members}}}")).empty, empty, "{surface:?} {members}");
    }
    for empty in ["", r#","messages":null"#, r#","messages":[ ]"#, r#","keep_alive":0"#, r#","prompt":"x""#] {
        check(OllamaChat, empty, true);
    }
    check(OllamaChat, r#","messages":[{"role":"user","content":""}]"#, false);
    for empty in ["", r#","prompt":"""#, r#","prompt":null,"system":"s""#] {
        check(OllamaGenerate, empty, true);
    }
    check(OllamaGenerate, r#","prompt":"x""#, false);
    check(OllamaGenerate, r#","images":["aGk="]"#, false);
    check(OllamaEmbed, "", false);
    check(OpenAiChat, "", false);
}

#[test]
fn an_empty_list_of_tools_is_none() {
    let tools = |text: &str| read(&format!("{{\"model\":\"m\",\"tools\":{text}}}")).unwrap().tools;
    assert!(!tools("[]") && !tools("[ \n   ]") && !tools("null"));
    assert!(tools("[{}]"));
}

#[test]
fn inputs_to_embed_need_the_window_one_by_one() {
    let texts = format!("{{\"model\":\"m\",\"input\":[\"{}\",\"{}\"]}}", "x".repeat(400), "y".repeat(800));
    let profile = on(Surface::OllamaEmbed, &texts);
    assert_eq!((profile.prompt_tokens, profile.tokens_at_once, profile.context_needed()), (300, 200, 200));
    let chat = on(Surface::OllamaGenerate, &texts.replace("input", "prompt"));
    assert_eq!((chat.prompt_tokens, chat.tokens_at_once), (300, 300));
}

#[test]
fn every_known_key_may_stand_once() {
    assert!(ONCE.len() <= 64, "one bit each");
    assert!(LAUNCH.iter().chain(PRIVATE).all(|key| ONCE.contains(key)));
}

#[test]
fn keep_alive_is_found_where_a_backend_reads_it() {
    let body = r#"{"model":"m","keep_alive":"5m","messages":[]}"#;
    let place = on(Surface::OllamaChat, body).places.keep_alive.unwrap();
    assert_eq!(&body[place], "\"5m\"");
    assert_eq!(on(Surface::OpenAiChat, body).places.keep_alive, None);
    assert_eq!(on(Surface::OllamaChat, r#"{"model":"m"}"#).places.keep_alive, None);
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
    assert_eq!(cut(r#"{"fallback":false,"Fallback_Models":[],"model":"m"}"#), r#"{"model":"m"}"#);
    assert_eq!(cut(r#"{"model":"m","fallback":true,"x":1,"fallback_models":null}"#), r#"{"model":"m","x":1}"#);
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

#[test]
fn a_conversation_is_known_by_how_it_begins() {
    let of = |surface: Surface, messages: &str| {
        let body = format!(r#"{{"model":"m","messages":{messages}}}"#);
        inspect(surface, body.as_bytes(), &InspectLimits::default()).unwrap().conversation
    };
    let chat = |messages: &str| of(Surface::OpenAiChat, messages);
    let (system, asks, answers) = (
        r#"{"role":"system","content":"Be brief."}"#,
        r#"{"role":"user","content":"Why?"}"#,
        r#"{"role":"assistant","content":"Because."}"#,
    );
    let begun = chat(&format!("[{system},{asks}]"));
    assert!(begun.is_some());
    assert_eq!(begun, chat(&format!("[{system},{asks},{answers},{asks}]")), "every turn of it is the same");
    assert_eq!(chat(&format!("[{asks}]")), chat(&format!("[{asks},{answers},{asks}]")), "without a system prompt too");
    assert_ne!(begun, chat(&format!(r#"[{system},{{"role":"user","content":"How?"}}]"#)));
    assert_ne!(begun, chat(&format!("[{asks}]")));
    let long =
        |last: &str| format!(r#"[{{"role":"user","content":"{}{last}{}"}}]"#, "x".repeat(9_000), "y".repeat(100));
    assert_ne!(chat(&long("a")), chat(&long("b")));
    assert_eq!(chat("[]"), None);
    assert_eq!(of(Surface::OllamaEmbed, &format!("[{asks}]")), None, "embeddings have no turns");
}
