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
    assert_eq!(profile.places.options.len(), 1);
    assert_eq!(&body[profile.places.options[0].1.clone()], "8192");
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
    refused("{", "unexpected EOF");
    refused(r#"{"model":"m""#, "unexpected EOF");
    refused("null", "model is required");
    refused(r#"{"model":"m",}"#, "invalid JSON at byte 13");
    refused("{}", "model is required");
    refused(r#"{"model":""}"#, "model is required");
    refused(r#"{"model":null}"#, "model is required");
    refused(r#"{"model":7}"#, "\"model\" must be a string");
    refused(r#"{"model":" "}"#, "model is required");
    refused(r#"{"model":"a b"}"#, "invalid model name");
    refused(r#"{"model":"a:"}"#, "invalid model name");
    refused(r#"{"model":"a:local:cloud"}"#, "use either :local or :cloud, not both: \"a:local:cloud\"");
    refused(r#"{"model":"a","model":"b"}"#, "duplicate key \"model\"");
    refused(r#"{"model":"a","MODEL":"b"}"#, "duplicate key \"model\"");
    refused("{\"model\":\"a\",\"mod\\u0065l\":\"b\"}", "duplicate key \"model\"");
    refused(r#"{"model":"a","stream":"yes"}"#, "\"stream\" must be a boolean");
    refused(r#"{"model":"a","options":{"num_ctx":"8k"}}"#, "\"options.num_ctx\" must be an integer");
    refused(r#"{"model":"a","options":{"num_ctx":1.5}}"#, "\"options.num_ctx\" must be an integer");
    refused(r#"{"model":"a","options":[]}"#, "\"options\" must be an object");
    refused(r#"{"model":"a","fallback_models":{}}"#, "\"fallback_models\" must be an array of strings");
    refused(r#"{"model":"a","fallback_models":["a b"]}"#, "\"fallback_models\": invalid model name");
    let deep = format!("{{\"model\":\"a\",\"x\":{}1{}}}", "[".repeat(10_000), "]".repeat(10_000));
    refused(&deep, "JSON nested deeper than 10000 levels");
    let latin = inspect(Surface::OllamaChat, b"{\"model\":\"\xff\"}", &InspectLimits::default());
    assert_eq!(latin.unwrap_err().to_string(), "invalid model name");
}

#[test]
fn a_request_without_a_model_is_told_so_as_ollama_tells_it() {
    for surface in Surface::ALL {
        let (status, message) = InspectError::NoModel.told_on(surface);
        let expected = match surface {
            Surface::OllamaGenerate | Surface::OllamaEmbed => (404, "model '' not found"),
            _ => (400, "model is required"),
        };
        assert_eq!((status, message.as_str()), expected, "{surface:?}");
    }
    let name = InspectError::Name { key: "model", why: NameError::Invalid };
    assert_eq!(name.told_on(Surface::OllamaGenerate), (400, "invalid model name".to_owned()));
}

#[test]
fn what_ollama_takes_is_taken() {
    let takes = |surface: Surface, body: &[u8]| {
        let read = inspect(surface, body, &InspectLimits::default());
        read.unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(body)))
    };
    let chat = |members: &str| takes(Surface::OpenAiChat, format!(r#"{{"model":"m",{members}}}"#).as_bytes());
    // Labels and estimates, of any kind and length.
    for members in [
        r#""user":{"id":"7"}"#,
        r#""user":[1]"#,
        r#""user":true"#,
        r#""metadata":{"tags":{"a":1}}"#,
        r#""metadata":{"tags":[{},[],null,true]}"#,
        r#""metadata":[1]"#,
        r#""metadata":"x""#,
        r#""max_tokens":"100""#,
        r#""max_completion_tokens":"100""#,
        r#""max_output_tokens":[1]"#,
        r#""max_tokens":1.5"#,
        r#""max_tokens":1e400"#,
        r#""options":7"#,
        r#""options":{"num_ctx":"8k"}"#,
        r#""keep_alive":{}"#,
        r#""think":7"#,
        r#""tools":"x""#,
        r#""name":"x","name":"y""#,
    ] {
        assert_eq!(chat(members).max_output_tokens, None, "{members}");
    }
    let native = |members: &str| read(&format!(r#"{{"model":"m",{members}}}"#)).unwrap();
    assert!(native(r#""metadata":{"tags":{"a":1}},"max_tokens":"100""#).tags.is_empty());
    assert!(!on(Surface::OllamaEmbed, r#"{"model":"m","stream":"yes"}"#).stream);
    // Bytes behind the value, text that is not UTF-8, deep nesting.
    for rest in ["x", "}", "\u{0}", r#"{"model":"b"}"#, "\n\n{"] {
        assert_eq!(
            takes(Surface::OllamaChat, format!(r#"{{"model":"m"}}{rest}"#).as_bytes()).model.as_str(),
            "m:latest"
        );
    }
    takes(Surface::OllamaChat, b"{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"caf\xe9\"}]}");
    for depth in [70, 200, 9_000] {
        let deep = format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
        takes(
            Surface::OllamaChat,
            format!(r#"{{"model":"m","x":{deep},"messages":[{deep}],"tools":{deep}}}"#).as_bytes(),
        );
    }
}

#[test]
fn labels_are_used_as_far_as_they_can_be() {
    let tags = |text: &str| read(&format!(r#"{{"model":"m","metadata":{{"tags":{text}}}}}"#)).unwrap().tags;
    assert_eq!(tags(r#""one""#), ["one"]);
    assert_eq!(tags("7"), ["7"]);
    assert_eq!(tags(r#"["a",1,{},"b","",null,2.5]"#), ["a", "1", "b", "2.5"]);
    assert_eq!(tags(&format!("[\"{}\"]", "x".repeat(200))), ["x".repeat(64)]);
    assert_eq!(tags(&format!("[\"{}\"]", "é".repeat(33))), ["é".repeat(32)]);
    let many: Vec<String> = (0..20).map(|number| format!("\"t{number}\"")).collect();
    assert_eq!(tags(&format!("[{}]", many.join(","))).len(), 16);
    let names: Vec<String> = (0..12).map(|number| format!("\"m{number}\"")).collect();
    let body = format!(r#"{{"model":"m","fallback_models":[{}]}}"#, names.join(","));
    assert_eq!(read(&body).unwrap().fallback_models.len(), 8);
}

#[test]
fn a_key_that_stands_twice_is_refused_where_it_means_two_things() {
    for (members, key) in [
        (r#""model":"b""#, "model"),
        (r#""MODEL":"a:2b""#, "model"),
        (r#""options":{"num_ctx":1,"num_ctx":9}"#, "options.num_ctx"),
        (r#""options":{"num_ctx":1},"options":{"num_ctx":9}"#, "options.num_ctx"),
        (r#""options":{"num_gpu":1,"num_gpu":2}"#, "options.num_gpu"),
        (r#""options":{"use_mmap":true},"Options":{"use_mmap":false}"#, "options.use_mmap"),
    ] {
        refused(&format!(r#"{{"model":"a",{members}}}"#), &format!("duplicate key {key:?}"));
    }
    for members in [
        r#""model":"a""#,
        r#""Model":"A:Latest","model":null"#,
        r#""options":{"num_ctx":4096,"num_ctx":4096.0}"#,
        r#""options":{"num_gpu":1},"options":{"num_gpu":1,"temperature":1}"#,
        r#""messages":[],"messages":[{"role":"user","content":"x"}]"#,
        r#""prompt":"x","prompt":"x""#,
        r#""stream":true,"stream":true"#,
        r#""metadata":{"tags":"a","tags":"b"},"user":"x","user":"y""#,
        r#""name":"x","name":"y""#,
    ] {
        assert!(read(&format!(r#"{{"model":"a",{members}}}"#)).is_ok(), "{members}");
    }
    let last = |text: &str| read(&format!(r#"{{"model":"a",{text}}}"#)).unwrap().stream;
    assert!(!last(r#""stream":true,"stream":false"#) && last(r#""stream":false,"stream":true,"stream":null"#));
    let body = r#"{"model":"a","x":1,"MODEL":"A"}"#;
    let places = read(body).unwrap().places;
    assert_eq!((&body[places.model.clone()], &body[places.model_again[0].clone()]), ("\"A\"", "\"a\""));
    let nine = r#","model":"a""#.repeat(9);
    refused(&format!(r#"{{"model":"a"{nine}}}"#), "duplicate key \"model\"");
}

/// A body with this part in a user's message.
fn part(part: &str) -> String {
    format!(r#"{{"model":"m","messages":[{{"role":"user","content":[{{"type":"text","text":"see"}},{part}]}}]}}"#)
}

#[test]
fn attachments_of_any_kind_are_not_text() {
    let data = "QUJD".repeat(500_000);
    let uri = |kind: &str| format!("data:{kind};base64,{data}");
    let parts = [
        (format!(r#"{{"type":"image_url","image_url":{{"url":"{}"}}}}"#, uri("image/png")), 1),
        (format!(r#"{{"type":"image_url","image_url":"{}"}}"#, uri("image/png")), 1),
        (format!(r#"{{"type":"input_image","image_url":"{}"}}"#, uri("image/webp")), 1),
        (format!(r#"{{"type":"input_audio","input_audio":{{"data":"{data}","format":"wav"}}}}"#), 0),
        (format!(r#"{{"type":"file","file":{{"filename":"a.pdf","file_data":"{}"}}}}"#, uri("application/pdf")), 0),
        (format!(r#"{{"type":"input_file","filename":"a.pdf","file_data":"{data}"}}"#), 0),
        (format!(r#"{{"type":"video_url","video_url":{{"url":"{}"}}}}"#, uri("video/mp4")), 0),
        (format!(r#"{{"type":"image","source":{{"type":"base64","media_type":"image/png","data":"{data}"}}}}"#), 1),
        (
            format!(
                r#"{{"type":"document","source":{{"type":"base64","media_type":"application/pdf","data":"{data}"}}}}"#
            ),
            0,
        ),
        (
            format!(
                r#"{{"type":"tool_result","content":[{{"type":"image","source":{{"type":"base64","media_type":"image/png","data":"{data}"}}}}]}}"#
            ),
            1,
        ),
        (format!(r#"{{"type":"image","data":"{data}","mimeType":"image/png"}}"#), 0),
        (format!(r#"{{"type":"image_generation_call","result":"{data}"}}"#), 0),
        (format!(r#"{{"type":"image","image":"{}"}}"#, uri("image/jpeg")), 1),
        (format!(r#"{{"images":["{data}","{data}"]}}"#), 2),
    ];
    for (attached, images) in parts {
        for surface in [Surface::OpenAiChat, Surface::AnthropicMessages, Surface::OllamaChat] {
            let profile = on(surface, &part(&attached));
            assert!(profile.text_tokens() < 60, "{} of {attached:.90}", profile.text_tokens());
            assert!((32..=4_096).contains(&profile.attachment_tokens), "{attached:.90}");
            assert_eq!(profile.prompt_tokens, profile.text_tokens() + profile.attachment_tokens);
            assert_eq!((profile.images, profile.tokens_at_once), (images, profile.text_tokens()), "{attached:.90}");
        }
    }
    let input = format!(r#"{{"model":"m","input":[{{"type":"input_image","image_url":"{}"}}]}}"#, uri("image/png"));
    assert_eq!(on(Surface::OpenAiResponses, &input).images, 1);
}

#[test]
fn text_is_text_below_whatever_key() {
    let long = "word ".repeat(2_000);
    for text in [
        format!(r#"{{"type":"document","source":{{"type":"text","media_type":"text/plain","data":"{long}"}}}}"#),
        format!(r#"{{"type":"document","source":{{"type":"content","content":[{{"type":"text","text":"{long}"}}]}}}}"#),
        format!(r#"{{"type":"search_result","source":"{long}"}}"#),
        format!(r#"{{"type":"text","text":"data:image/png;base64,{}"}}"#, "QUJD".repeat(2_500)),
        format!(r#"{{"type":"text","text":"{}"}}"#, "x".repeat(10_000)),
        format!(r#"{{"type":"tool_use","input":{{"source":"{long}"}}}}"#),
        format!(r#"{{"tool_calls":[{{"function":{{"arguments":{{"images":["{long}"],"image_url":"x"}}}}}}]}}"#),
    ] {
        let profile = on(Surface::OpenAiChat, &part(&text));
        assert!(profile.text_tokens() > 2_400 && profile.images == 0, "{} {text:.90}", profile.text_tokens());
    }
    let schema = r#"{"model":"m","tools":[{"type":"function","function":{"parameters":{"properties":{"images":{"type":"array"},"image_url":{"type":"string"},"source":{"type":"object"}}}}}]}"#;
    assert_eq!(on(Surface::OpenAiChat, schema).attachment_tokens, 0);
}

#[test]
fn audio_is_estimated_by_its_length() {
    let audio = |bytes: usize| {
        let data = "A".repeat(bytes);
        on(Surface::OpenAiChat, &part(&format!(r#"{{"type":"input_audio","input_audio":{{"data":"{data}"}}}}"#)))
    };
    assert_eq!(audio(100).attachment_tokens, 32);
    assert!((230..240).contains(&audio(400_000).attachment_tokens), "nine seconds");
    assert_eq!(audio(40_000_000).attachment_tokens, 2_048);
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
    assert_eq!(user("7").as_deref(), Some("7"));
    assert_eq!(user(&format!("\"{}\"", "x".repeat(300))).as_deref(), Some("x".repeat(256).as_str()));
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
fn every_launch_option_has_a_bit() {
    assert!(LAUNCH.len() <= 64 && LAUNCH.iter().all(|key| key.starts_with("options.")));
    assert!(PRIVATE.iter().all(|key| READ.contains(key)));
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
