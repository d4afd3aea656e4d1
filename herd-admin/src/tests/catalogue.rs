//! The catalogue, against what Ollama and the Python project answered.

use std::fmt;

use herd_core::wire::{AvailableModel, LoadedModel, OllamaReport};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::testing::{App, PYTHON_HEARTBEAT, heartbeat, loaded, report};

/// The members of a JSON object, in their order and with the text of their values.
struct Members(Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Reader)
    }
}

/// The names of `json`'s members, those of the objects in it as `outer.inner`.
fn keys(json: &str) -> Vec<String> {
    let Ok(Members(members)) = serde_json::from_str(json) else { return Vec::new() };
    let paths = |(name, value): (String, Box<RawValue>)| {
        let inner = keys(value.get()).into_iter().map(|key| format!("{name}.{key}")).collect::<Vec<_>>();
        std::iter::once(name).chain(inner)
    };
    members.into_iter().flat_map(paths).collect()
}

/// The text of the first entry of the list `list`.
fn first(body: &str, list: &str) -> String {
    let Members(members) = serde_json::from_str(body).unwrap();
    let list = members.iter().find(|(name, _)| name == list).unwrap();
    serde_json::from_str::<Vec<Box<RawValue>>>(list.1.get()).unwrap()[0].get().to_owned()
}

/// `ours` has the members of `sample` in their order, but for those of `missing`, and beyond them only `added`.
#[track_caller]
fn check_keys(ours: &str, sample: &str, missing: &[&str], added: &[&str]) {
    let ours: Vec<_> = keys(ours).into_iter().filter(|key| !added.contains(&key.as_str())).collect();
    let sample: Vec<_> = keys(sample).into_iter().filter(|key| !missing.contains(&key.as_str())).collect();
    assert_eq!(ours, sample);
}

const TAGS: &str = include_str!("samples/tags.json");
const PS: &str = include_str!("samples/ps.json");

/// A node that holds what the recorded Ollama held.
fn recorded() -> herd_core::wire::Heartbeat {
    let tag: Value = serde_json::from_str(TAGS).unwrap();
    let ps: Value = serde_json::from_str(PS).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let available = |model: &Value, modified_at: String| AvailableModel {
        name: text(&model["name"]),
        digest: text(&model["digest"]),
        size_bytes: model["size"].as_u64().unwrap(),
        modified_at,
        format: text(&model["details"]["format"]),
        family: text(&model["details"]["family"]),
        families: vec![text(&model["details"]["family"])],
        parameter_size: text(&model["details"]["parameter_size"]),
        quantization_level: text(&model["details"]["quantization_level"]),
        context_length: 8192,
        embedding_length: 64,
        parent_model: text(&model["details"]["parent_model"]),
        capabilities: vec!["completion".into()],
        ..AvailableModel::default()
    };
    let loaded = LoadedModel {
        name: text(&ps["name"]),
        digest: text(&ps["digest"]),
        size_bytes: ps["size"].as_u64().unwrap(),
        size_vram_bytes: ps["size_vram"].as_u64().unwrap(),
        context_length: ps["context_length"].as_u64().unwrap(),
        expires_at: text(&ps["expires_at"]),
    };
    let models = vec![available(&tag, text(&tag["modified_at"])), available(&ps, "2026-01-01T00:00:00Z".into())];
    report("n", OllamaReport { available: models, loaded: vec![loaded], ..OllamaReport::default() })
}

#[tokio::test]
async fn tags_are_ollamas_and_name_their_nodes() {
    let answer = App::of([recorded()]).get("/api/tags").await;
    let ours = first(&answer.body, "models");
    check_keys(&ours, TAGS, &[], &["details.fleet_nodes"]);
    let mut expected: Value = serde_json::from_str(TAGS).unwrap();
    let details = expected["details"].as_object_mut().unwrap();
    details.insert("fleet_nodes".into(), json!(["n"]));
    assert_eq!(serde_json::from_str::<Value>(&ours).unwrap(), expected);
    assert_eq!(answer.header("content-type"), "application/json; charset=utf-8");
}

#[tokio::test]
async fn ps_is_ollamas_and_names_the_node() {
    let ours = first(&App::of([recorded()]).get("/api/ps").await.body, "models");
    check_keys(&ours, PS, &[], &["fleet_node"]);
    let mut expected: Value = serde_json::from_str(PS).unwrap();
    expected["fleet_node"] = "n".into();
    assert_eq!(serde_json::from_str::<Value>(&ours).unwrap(), expected);
}

#[tokio::test]
async fn tags_are_a_union_newest_first() {
    let dated = |id: &str, models: &[(&str, &str)]| {
        let mut heartbeat = heartbeat(id, &[]);
        let model = |(name, modified_at): &(&str, &str)| AvailableModel {
            name: (*name).into(),
            modified_at: (*modified_at).into(),
            ..AvailableModel::default()
        };
        heartbeat.herd.as_mut().unwrap().ollama.available = models.iter().map(model).collect();
        heartbeat
    };
    let app = App::of([
        dated("a", &[("old:latest", "2026-01-01T00:00:00Z"), ("Both:1b", "2026-03-01T00:00:00Z")]),
        dated("b", &[("both:1b", "2026-03-01T00:00:00Z"), ("east:1b", "2026-03-01T05:00:00+06:00")]),
    ]);
    let tags = app.get("/api/tags").await.json();
    let models: Vec<_> =
        tags["models"].as_array().unwrap().iter().map(|model| model["name"].as_str().unwrap()).collect();
    assert_eq!(models, ["Both:1b", "east:1b", "old:latest"], "by the moment, not by the text of the date");
    assert_eq!(tags["models"][0]["details"]["fleet_nodes"], json!(["a", "b"]));
    app.after_ms(31_000);
    assert_eq!(app.get("/api/tags").await.body, r#"{"models":[]}"#, "offline nodes offer nothing");
}

#[tokio::test]
async fn what_no_node_tells_is_not_null_and_not_a_fact() {
    let app = App::of([loaded(heartbeat("n", &[]), "bare:latest", 0)]);
    let tags = app.get("/api/tags").await.json();
    let model = &tags["models"][0];
    let digest = model["digest"].as_str().unwrap();
    assert_eq!((digest.len(), &digest[..48]), (64, "0".repeat(48).as_str()));
    assert!(crate::time::parse(model["modified_at"].as_str().unwrap()).is_some());
    assert_eq!(model["details"]["families"], json!([]));
    assert_eq!(app.get("/api/tags").await.json(), tags, "stand-ins stay the same");
    app.post("/heartbeat", PYTHON_HEARTBEAT).await;
    let ps = app.get("/api/ps").await.json();
    let python = ps["models"].as_array().unwrap().iter().find(|model| model["fleet_node"] == "node-a").unwrap();
    assert_eq!(python["size_vram"], Value::Null);
    let expires = crate::time::parse(python["expires_at"].as_str().unwrap()).unwrap();
    let now = crate::time::parse(&crate::time::now_rfc3339()).unwrap();
    assert!(expires > now, "a time that has passed would show it as stopping: {python}");
    assert_eq!(python["details"]["quantization_level"], "Q4_K_M");
}

#[tokio::test]
async fn names_of_one_blob_are_one_model_in_memory() {
    let mut node = loaded(heartbeat("n", &["tiny:latest", "copy:latest", "other:latest"]), "tiny:latest", 4096);
    for model in &mut node.herd.as_mut().unwrap().ollama.available {
        model.digest = if model.name == "other:latest" { "bb".into() } else { "aa".into() };
    }
    let ps = App::of([node]).get("/api/ps").await.json();
    let names: Vec<_> = ps["models"].as_array().unwrap().iter().map(|model| model["name"].clone()).collect();
    assert_eq!(names, ["tiny:latest"]);
}

#[tokio::test]
async fn a_model_that_has_just_been_loaded_does_not_stop_and_has_a_context() {
    use crate::FleetSource as _;
    use herd_core::fleet::{Loaded, ModelChange};
    let mut node = loaded(heartbeat("n", &["tiny:latest", "cold:latest"]), "tiny:latest", 4096);
    let ollama = &mut node.herd.as_mut().unwrap().ollama;
    ollama.env.context_length = Some(8192);
    ollama.loaded[0].expires_at = "2020-01-01T00:00:00Z".into();
    let app = App::of([node]);
    let name = herd_core::name::ModelName::new("cold").unwrap();
    let signature = herd_core::launch::Signature::DEFAULT;
    let loaded = Loaded { node: 0, model: &name, context_length: None, signature };
    app.source.change(|fleet| fleet.with_loaded(&loaded, 0));
    let told = |ps: &Value, name: &str| {
        let models = ps["models"].as_array().unwrap().clone();
        models.into_iter().find(|model| model["name"] == name)
    };
    let ps = app.get("/api/ps").await.json();
    let cold = told(&ps, "cold:latest").unwrap();
    assert_eq!(cold["context_length"], 8192);
    assert!(cold["expires_at"].as_str().unwrap() > crate::time::now_rfc3339().as_str(), "{cold}");
    assert_eq!(told(&ps, "tiny:latest").unwrap()["expires_at"], "2020-01-01T00:00:00Z", "as Ollama tells it");
    app.source.model_changed("n", &name, ModelChange::Unloaded);
    assert!(told(&app.get("/api/ps").await.json(), "cold:latest").is_none());
}

#[tokio::test]
async fn a_tag_that_moved_while_loaded_has_two_runners() {
    let mut twice = loaded(loaded(heartbeat("n", &["tiny:latest"]), "tiny:latest", 4096), "tiny:latest", 4096);
    let runners = &mut twice.herd.as_mut().unwrap().ollama.loaded;
    (runners[0].digest, runners[1].digest) = ("aa".into(), "bb".into());
    let ps = App::of([twice]).get("/api/ps").await.json();
    let digests: Vec<_> = ps["models"].as_array().unwrap().iter().map(|model| model["digest"].clone()).collect();
    assert_eq!(digests, ["aa", "bb"]);
}

#[tokio::test]
async fn v1_models_has_openais_list_and_the_pickers() {
    let answer = App::of([recorded()]).get("/v1/models").await;
    assert_eq!(answer.header("content-type"), "application/json");
    check_keys(&first(&answer.body, "data"), include_str!("samples/v1_model.json"), &[], &[]);
    let picker = include_str!("samples/v1_picker.json");
    check_keys(&first(&answer.body, "models"), picker, &[], &["max_context_window"]);
    let json = answer.json();
    let ids: Vec<_> = json["data"].as_array().unwrap().iter().map(|model| model["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["tiny2k:latest", "tiny:latest"]);
    assert_eq!((&json["data"][0]["created"], &json["data"][0]["owned_by"]), (&1_795_352_047.into(), &"library".into()));
}

#[tokio::test]
async fn the_picker_claims_what_the_fleet_reports() {
    let mut node = loaded(heartbeat("n", &[]), "chat:latest", 16_384);
    let capable = |name: &str, context_length, capabilities: &[&str]| AvailableModel {
        name: name.into(),
        context_length,
        capabilities: capabilities.iter().map(ToString::to_string).collect(),
        ..AvailableModel::default()
    };
    node.herd.as_mut().unwrap().ollama.available = vec![
        capable("chat:latest", 131_072, &["completion", "tools"]),
        capable("embed:latest", 512, &["embedding"]),
        capable("unknown:latest", 0, &[]),
        capable("vision:latest", 8192, &["completion", "vision"]),
    ];
    let json = App::of([node]).get("/v1/models").await.json();
    let fields = ["context_window", "max_context_window", "supports_tools", "supports_vision", "visibility"];
    let told = |model: &Value| fields.map(|field| model[field].clone());
    let models: Vec<_> = json["models"].as_array().unwrap().iter().map(told).collect();
    assert_eq!(models[0], [json!(16_384), json!(131_072), json!(true), json!(false), json!("list")]);
    assert_eq!(models[1], [json!(512), json!(512), json!(false), json!(false), json!("hide")]);
    assert_eq!(models[2], [json!(4096), json!(null), json!(false), json!(false), json!("list")]);
    assert_eq!(models[3], [json!(8192), json!(8192), json!(false), json!(true), json!("list")]);
}

#[tokio::test]
async fn one_model_is_found_by_any_of_its_names() {
    let app = App::of([heartbeat("n", &["tiny:latest", "hf.co/me/big:q4"])]);
    for id in ["tiny", "tiny:latest", "TINY", "hf.co/me/big:q4", "hf.co%2Fme%2Fbig:q4"] {
        let answer = app.get(&format!("/v1/models/{id}")).await;
        assert_eq!(answer.json()["id"], id.replace("%2F", "/"), "the id is echoed");
    }
    assert_eq!(app.get("/v1/models/hf.co/me/big:q4").await.json()["owned_by"], "hf.co/me");
    let missing = app.get("/v1/models/nope").await;
    let error =
        json!({ "message": "model 'nope:latest' not found", "type": "not_found_error", "param": null, "code": null });
    assert_eq!((missing.status.as_u16(), &missing.json()["error"]), (404, &error));
    for bad in ["a%20b", "%ff"] {
        let answer = app.get(&format!("/v1/models/{bad}")).await;
        assert_eq!((answer.status.as_u16(), &answer.json()["error"]["type"]), (404, &"not_found_error".into()));
    }
}

#[tokio::test]
async fn what_herd_made_on_nodes_is_in_no_catalogue() {
    let hides = |name: &herd_core::name::ModelName| name.as_str().contains("-ctx");
    let app = App::with(crate::AdminConfig { hides, ..crate::AdminConfig::default() });
    app.join(loaded(heartbeat("n", &["tiny:latest", "tiny-ctx8192:latest"]), "tiny-ctx8192:latest", 8192));
    for (path, expected) in [("/api/tags", 1), ("/api/ps", 0), ("/v1/models", 1)] {
        let list = app.get(path).await.json();
        let models = list.get("models").or(list.get("data")).unwrap().as_array().unwrap().len();
        assert_eq!(models, expected, "{path}");
    }
    assert_eq!(app.get("/v1/models/tiny-ctx8192").await.status, 404);
    assert!(app.get("/fleet/status").await.body.contains("tiny-ctx8192"), "operators see it");
}
