//! What herd-core reads from the network, against mutated inputs: recorded requests and answers, and what was found.
//!
//! `cargo xtask fuzz` runs these for long; see `herd_fuzz`.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails where it stands")]

use herd_core::answer::Observer;
use herd_core::fleet::{Applied, FleetSnapshot, HeartbeatLimits, LifeLimits, Sender};
use herd_core::inspect::{InspectLimits, inspect, inspect_form};
use herd_core::name::ModelName;
use herd_core::path::{Reading, read};
use herd_core::protect::set_options;
use herd_core::request::{RequestProfile, Surface};
use herd_core::splice::{Edit, json_string, splice};
use herd_core::wire::Heartbeat;
use serde_json::Value;

/// Recorded exchanges with a real Ollama: a request's lines, a ruler, the answer with its header.
const RECORDED: &[&str] = &[
    include_str!("../../herd-sim/src/tests/samples/010_chat_stream.txt"),
    include_str!("../../herd-sim/src/tests/samples/020_generate_stream.txt"),
    include_str!("../../herd-sim/src/tests/samples/021_generate_nostream.txt"),
    include_str!("../../herd-sim/src/tests/samples/030_embed.txt"),
    include_str!("../../herd-sim/src/tests/samples/040_v1_chat_stream_usage.txt"),
    include_str!("../../herd-sim/src/tests/samples/045_v1_completions_stream.txt"),
    include_str!("../../herd-sim/src/tests/samples/051_v1_responses.txt"),
    include_str!("../../herd-sim/src/tests/samples/052_v1_responses_stream.txt"),
    include_str!("../../herd-sim/src/tests/samples/054_v1_messages_stream.txt"),
];

/// Requests that hold all that is read of them.
const REQUESTS: &[&str] = &[
    r#"{"model":"Tiny","messages":[{"role":"user","content":"hi","images":["aGk="]}],"stream":false,"options":{"num_ctx":8192,"num_thread":4},"keep_alive":0,"fallback_models":["a","b"],"metadata":{"tags":["x"],"k":1},"think":true}"#,
    r#"{"MODEL":"tiny","model":"tiny","prompt":"p","options":null,"fallback":false}"#,
    r#" {"options":{},"model":"hf.co/a/b:q4","input":["a","b"],"user":"u","max_tokens":3,"tools":[{}]} trailing"#,
    r#"{"model":"m","system":[{"type":"text","text":"x-anthropic-billing-header: cc_version=1; cch=2;"}],"messages":[]}"#,
];

fn body(recorded: &str) -> &str {
    recorded.split("--- response ---").nth(1).and_then(|answer| answer.split_once("\n\n")).map_or("", |(_, body)| body)
}

fn asked(recorded: &str) -> &str {
    let request = recorded.split("--- response ---").next().unwrap_or_default();
    request.find('{').map_or("", |start| request[start..].trim())
}

/// The object as Go's decoder finds `key` in it: without case, the last counts.
fn keys<'a>(object: &'a Value, key: &'a str) -> impl Iterator<Item = &'a String> {
    object.as_object().into_iter().flat_map(|object| object.keys()).filter(move |known| known.eq_ignore_ascii_case(key))
}

/// The first value of `text`, as another parser reads it; `None` = it cannot be compared: that parser is stricter about
/// depth, numbers and text, and keeps one of keys that stand twice.
fn parsed(text: &[u8]) -> Option<Value> {
    serde_json::Deserializer::from_slice(text).into_iter::<Value>().next()?.ok()
}

fn rewritten(profile: &RequestProfile, body: &[u8]) -> Vec<u8> {
    let places = &profile.places;
    let mut edits: Vec<Edit> = places.private.iter().cloned().map(Edit::cut).collect();
    let models = std::iter::once(&places.model).chain(&places.model_again);
    edits.extend(models.map(|place| Edit { range: place.clone(), text: json_string("other:1") }));
    let volatile = places.volatile.iter();
    edits.extend(volatile.map(|(place, pinned)| Edit { range: place.clone(), text: (*pinned).to_owned() }));
    if profile.surface.carries_num_ctx() {
        edits.extend(set_options(places, &[("num_ctx", "4242".into()), ("num_thread", "null".into())]));
    }
    splice(body, &edits)
}

/// What the rewriting is meant to change of `value`.
fn meant(value: &mut Value, profile: &RequestProfile) {
    let names = |value: &Value, key| keys(value, key).cloned().collect::<Vec<_>>();
    for name in names(value, "model") {
        if !value[&name].is_null() {
            value[&name] = "other:1".into();
        }
    }
    for key in ["fallback_models", "fallback"] {
        for name in names(value, key) {
            value.as_object_mut().unwrap().remove(&name);
        }
    }
    for name in names(value, "metadata") {
        if let Some(metadata) = value[&name].as_object_mut() {
            metadata.remove("tags");
        }
    }
    if !profile.surface.carries_num_ctx() {
        return;
    }
    let options = names(value, "options");
    if options.is_empty() {
        value["options"] = serde_json::json!({});
    }
    for name in names(value, "options") {
        if value[&name].is_null() {
            value[&name] = serde_json::json!({});
        }
        value[&name]["num_ctx"] = 4242.into();
        if value[&name].get("num_thread").is_some() {
            value[&name]["num_thread"] = Value::Null;
        }
    }
}

#[test]
fn fuzz_bodies_are_read_and_rewritten_as_other_parsers_read_them() {
    let samples: Vec<&[u8]> =
        RECORDED.iter().map(|recorded| asked(recorded)).chain(REQUESTS.iter().copied()).map(str::as_bytes).collect();
    herd_fuzz::run("bodies", &samples, |body| {
        for surface in [Surface::OllamaChat, Surface::OllamaEmbed, Surface::OpenAiChat, Surface::AnthropicMessages] {
            let Ok(profile) = inspect(surface, body, &InspectLimits::default()) else { continue };
            let after = rewritten(&profile, body);
            let again = inspect(surface, &after, &InspectLimits::default());
            assert_eq!(again.as_ref().map(|again| again.model.as_str()), Ok("other:1"), "{surface:?}");
            let Some(mut expected) = parsed(body) else { continue };
            // Another parser keeps one of keys that stand twice, perhaps another one.
            let twice = ["model", "options", "metadata"].iter().any(|key| keys(&expected, key).count() > 1);
            if twice || has_duplicates(body) {
                continue;
            }
            let told = keys(&expected, "model").next().and_then(|key| expected[key].as_str()).map(ModelName::asked);
            assert_eq!(told.unwrap().as_ref(), Ok(&profile.model));
            if !profile.places.volatile.is_empty() {
                continue;
            }
            meant(&mut expected, &profile);
            assert_eq!(parsed(&after).as_ref(), Some(&expected), "{surface:?}: {}", String::from_utf8_lossy(&after));
        }
    });
}

/// Whether an object of `body` may have a key twice: then parsers differ in what they keep.
fn has_duplicates(body: &[u8]) -> bool {
    struct Keys;
    impl<'de> serde::de::DeserializeSeed<'de> for Keys {
        type Value = bool;
        fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
            deserializer.deserialize_any(self)
        }
    }
    impl<'de> serde::de::Visitor<'de> for Keys {
        type Value = bool;
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("JSON")
        }
        fn visit_bool<E>(self, _: bool) -> Result<bool, E> {
            Ok(false)
        }
        fn visit_i64<E>(self, _: i64) -> Result<bool, E> {
            Ok(false)
        }
        fn visit_u64<E>(self, _: u64) -> Result<bool, E> {
            Ok(false)
        }
        fn visit_f64<E>(self, _: f64) -> Result<bool, E> {
            Ok(false)
        }
        fn visit_str<E>(self, _: &str) -> Result<bool, E> {
            Ok(false)
        }
        fn visit_unit<E>(self) -> Result<bool, E> {
            Ok(false)
        }
        fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut list: A) -> Result<bool, A::Error> {
            let mut any = false;
            while let Some(one) = list.next_element_seed(Keys)? {
                any |= one;
            }
            Ok(any)
        }
        fn visit_map<A: serde::de::MapAccess<'de>>(self, mut object: A) -> Result<bool, A::Error> {
            let mut seen = std::collections::BTreeSet::new();
            let mut any = false;
            while let Some(key) = object.next_key::<String>()? {
                any |= !seen.insert(key.to_lowercase());
                any |= object.next_value_seed(Keys)?;
            }
            Ok(any)
        }
    }
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    serde::de::DeserializeSeed::deserialize(Keys, &mut deserializer).unwrap_or(true)
}

#[test]
fn fuzz_an_answer_is_judged_alike_however_it_is_cut() {
    let samples: Vec<&[u8]> = RECORDED.iter().map(|recorded| body(recorded).as_bytes()).collect();
    herd_fuzz::run("answers", &samples, |answer| {
        for surface in Surface::ALL {
            for streamed in [true, false] {
                let whole = {
                    let mut observer = Observer::new(surface, streamed);
                    observer.observe(answer);
                    observer
                };
                // Cut where the bytes say, so that a failure can be repeated.
                let step = answer.first().map_or(1, |byte| usize::from(*byte % 7) + 1);
                let mut pieces = Observer::new(surface, streamed);
                answer.chunks(step).for_each(|piece| pieces.observe(piece));
                // The verdict. What a broken answer tells of its tokens may depend on where it was cut, as a line that only
                // seems to hold a token is left unread; that sound ones are counted alike is tested beside the observer.
                let told = |observer: &Observer| {
                    let seen = observer.seen();
                    (seen.terminated, seen.unreadable, seen.backend_error)
                };
                assert_eq!(told(&pieces), told(&whole), "{surface:?} in pieces of {step}");
                assert_eq!(pieces.finish(), whole.finish(), "{surface:?}");
                assert_eq!(pieces.epilogue("x"), whole.epilogue("x"), "{surface:?}");
            }
        }
    });
}

#[test]
fn fuzz_forms_are_rewritten_where_the_model_stands() {
    const TYPE: &str = "multipart/form-data; boundary=b";
    let samples: [&[u8]; 3] = [
        b"--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nwhisper\r\n--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\nRIFF\r\n--b--\r\n",
        b"--b\nContent-Disposition: form-data; name=model\n\nm\n--b--",
        b"x\r\n--b \r\ncontent-disposition: form-data;\r\n name=\"model\"\r\n\r\nm\r\n--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nm:latest\r\n--b--",
    ];
    herd_fuzz::run("forms", &samples, |body| {
        let surface = Surface::OpenAiTranscriptions;
        let Ok(profile) = inspect_form(surface, TYPE, None, body) else { return };
        let places = std::iter::once(&profile.places.model).chain(&profile.places.model_again);
        let edits: Vec<_> = places.map(|place| Edit { range: place.clone(), text: "other:1".into() }).collect();
        let after = inspect_form(surface, TYPE, None, &splice(body, &edits));
        assert_eq!(after.as_ref().map(|after| after.model.as_str()), Ok("other:1"));
    });
}

#[test]
fn fuzz_heartbeats_leave_a_fleet_in_order() {
    let python = include_bytes!("../../tests/golden/heartbeat-ollama-herd-0.11.4.json");
    let ours = br#"{"node_id":"a","herd":{"schema":1,"boot":"b","seq":1,"interval_ms":5000,"memory":{"total_bytes":9,"available_bytes":3},"gpus":[{"name":"g","vram_total_bytes":9,"vram_free_bytes":8}],"ollama":{"state":"ok","address":"127.0.0.1:11434","version":"0.33.0","env":{"num_parallel":4},"loaded":[{"name":"tiny","size_bytes":5,"context_length":4096,"expires_at":"2026-01-01T00:00:00Z"}],"available":[{"name":"tiny","digest":"aa","size_bytes":5},{"name":"copy","digest":"aa"}],"runners":[{"model":"tiny","slots":4,"slots_busy":2}],"loading":["tiny"]}}}"#;
    let samples: [&[u8]; 3] = [python, ours, br#"{"node_id":"a","draining":true}"#];
    let mut fleet = FleetSnapshot::default();
    let mut now_ms = 0;
    herd_fuzz::run("heartbeats", &samples, |bytes| {
        let Ok(heartbeat) = serde_json::from_slice::<Heartbeat>(bytes) else { return };
        now_ms += 700;
        let sender = Sender::at("127.0.0.1".parse().unwrap());
        let (life, limits) = (LifeLimits::default(), HeartbeatLimits { nodes: 32, ..HeartbeatLimits::default() });
        if let Ok(Applied::Changed(next)) = fleet.apply(heartbeat, sender, now_ms, &life, &limits) {
            assert!(next.nodes.is_sorted_by(|a, b| a.id.as_str() < b.id.as_str()) && next.nodes.len() <= 32);
            for node in &next.nodes {
                assert!(node.models.is_sorted_by(|a, b| a.key < b.key), "{node:?}");
                assert!(node.models.len() <= 2 * limits.models + 64);
            }
            fleet = next;
        }
    });
}

#[test]
fn fuzz_paths_lead_nowhere_else() {
    let samples: [&[u8]; 4] = [b"/api/chat", b"/v1/models/hf.co%2Forg%2Fm", b"//api/./tags/..", b"/fleet/status/"];
    herd_fuzz::run("paths", &samples, |bytes| {
        let Ok(path) = std::str::from_utf8(bytes) else { return };
        if !path.starts_with('/') {
            return;
        }
        match read("GET", path) {
            Reading::Moved(to) => assert!(to.starts_with('/') && !to.starts_with("//"), "{to}"),
            Reading::Routed(to) => assert!(!to.contains("//") && !to.contains("/../"), "{to}"),
        }
    });
}

#[test]
fn fuzz_names_have_one_spelling() {
    let samples: [&[u8]; 4] = [b"tiny", b"hf.co/Org/M:Q4_K_M", b"registry.ollama.ai/library/a:1", b"a@sha256:00"];
    herd_fuzz::run("names", &samples, |bytes| {
        let Ok(text) = std::str::from_utf8(bytes) else { return };
        if let Ok(name) = ModelName::new(text) {
            assert_eq!(ModelName::new(name.as_str()).as_ref(), Ok(&name), "{text:?}");
        }
    });
}
