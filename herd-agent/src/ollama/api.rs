//! Answers of Ollama's HTTP API, as far as the agent reads them. Everything may be missing or of another type: versions
//! differ, and other programs speak this API. What cannot be read is not told; it never costs the rest.

use herd_core::wire;
use serde_json::Value;

/// Longest text that is believed, in bytes; edges refuse a heartbeat with a longer one.
const TEXT_MAX: usize = 512;
/// Longest name of a model, in bytes.
const NAME_MAX: usize = 256;
/// Most capabilities and families of one model that are passed on.
const WORDS_MAX: usize = 16;

/// `GET /api/version`.
#[derive(Debug, Default)]
pub(crate) struct Version {
    pub(crate) version: String,
    /// It is a herd that answers, not an Ollama.
    pub(crate) is_herd: bool,
}

impl From<Value> for Version {
    fn from(answer: Value) -> Self {
        Self { version: text(&answer["version"]), is_herd: !answer["herd_version"].is_null() }
    }
}

/// The `models` of an answer, each read as far as it goes; one without a name is passed over.
pub(crate) fn models<T>(answer: &Value, read: impl Fn(&Value) -> Option<T>) -> Vec<T> {
    answer["models"].as_array().map_or(&[][..], Vec::as_slice).iter().filter_map(read).collect()
}

/// A model in memory.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Loaded {
    pub(crate) name: String,
    pub(crate) digest: String,
    pub(crate) size: u64,
    pub(crate) size_vram: u64,
    pub(crate) context_length: u64,
    pub(crate) expires_at: String,
    pub(crate) details: Details,
}

impl Loaded {
    /// An entry of `GET /api/ps`.
    pub(crate) fn read(entry: &Value) -> Option<Self> {
        Some(Self {
            name: name(entry)?,
            digest: text(&entry["digest"]),
            size: amount(&entry["size"]),
            size_vram: amount(&entry["size_vram"]),
            context_length: amount(&entry["context_length"]),
            expires_at: text(&entry["expires_at"]),
            details: Details::read(&entry["details"]),
        })
    }
}

/// A model on disk.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Tag {
    pub(crate) name: String,
    pub(crate) digest: String,
    pub(crate) size: u64,
    pub(crate) modified_at: String,
    pub(crate) details: Details,
    /// `None` from versions that list them only in `/api/show`.
    pub(crate) capabilities: Option<Vec<String>>,
    /// The model elsewhere that stands behind this one; empty = it runs here.
    pub(crate) remote_model: String,
    pub(crate) remote_host: String,
    /// Never of `/api/tags`: `PARAMETER num_ctx`, where `/api/show` was asked.
    pub(crate) num_ctx: Option<u64>,
}

impl Tag {
    /// An entry of `GET /api/tags`.
    pub(crate) fn read(entry: &Value) -> Option<Self> {
        Some(Self {
            name: name(entry)?,
            digest: text(&entry["digest"]),
            size: amount(&entry["size"]),
            modified_at: text(&entry["modified_at"]),
            details: Details::read(&entry["details"]),
            capabilities: entry["capabilities"].as_array().map(|list| words(list)),
            remote_model: text(&entry["remote_model"]),
            remote_host: text(&entry["remote_host"]),
            num_ctx: None,
        })
    }
}

/// What both have.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Details {
    pub(crate) parent_model: String,
    pub(crate) format: String,
    pub(crate) family: String,
    pub(crate) families: Option<Vec<String>>,
    pub(crate) parameter_size: String,
    pub(crate) quantization_level: String,
    /// Of `/api/tags` of recent versions: the context that the model was trained with.
    pub(crate) context_length: Option<u64>,
    /// The same: the length of its vectors.
    pub(crate) embedding_length: Option<u64>,
}

impl Details {
    fn read(details: &Value) -> Self {
        Self {
            parent_model: text(&details["parent_model"]),
            format: text(&details["format"]),
            family: text(&details["family"]),
            families: details["families"].as_array().map(|list| words(list)),
            parameter_size: text(&details["parameter_size"]),
            quantization_level: text(&details["quantization_level"]),
            context_length: Some(amount(&details["context_length"])).filter(|tokens| *tokens > 0),
            embedding_length: Some(amount(&details["embedding_length"])).filter(|length| *length > 0),
        }
    }
}

/// The model's name: `name`, or `model` where an entry has only that.
fn name(entry: &Value) -> Option<String> {
    let named = |key: &str| entry[key].as_str().filter(|name| !name.is_empty() && name.len() <= NAME_MAX);
    named("name").or_else(|| named("model")).map(str::to_owned)
}

/// A text; empty = not told, or nothing that can be passed on.
fn text(value: &Value) -> String {
    value.as_str().filter(|text| text.len() <= TEXT_MAX).unwrap_or_default().to_owned()
}

/// An amount; 0 = not told. Other servers of this API write it as a fraction, as a text, or below zero.
fn amount(value: &Value) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "saturates, and what is below zero is 0"
    )]
    let rounded = |number: f64| number as u64;
    let told = value.as_u64().or_else(|| value.as_f64().map(rounded));
    told.or_else(|| value.as_str()?.trim().parse().ok()).unwrap_or(0)
}

fn words(list: &[Value]) -> Vec<String> {
    list.iter().map(text).filter(|word| !word.is_empty()).take(WORDS_MAX).collect()
}

/// `POST /api/show`, which older versions must be asked for what `/api/tags` lacks.
#[derive(Debug, Default)]
pub(crate) struct Show {
    pub(crate) capabilities: Option<Vec<String>>,
    /// `<architecture>.context_length`.
    pub(crate) context_length: Option<u64>,
    /// `<architecture>.embedding_length`.
    pub(crate) embedding_length: Option<u64>,
    /// `PARAMETER num_ctx`.
    pub(crate) num_ctx: Option<u64>,
}

impl From<Value> for Show {
    fn from(answer: Value) -> Self {
        let info = &answer["model_info"];
        let architecture = info["general.architecture"].as_str().unwrap_or_default();
        let context_length = amount(&info[format!("{architecture}.context_length")]);
        let embedding_length = amount(&info[format!("{architecture}.embedding_length")]);
        // `PARAMETER` lines of the Modelfile without that word.
        let num_ctx = |line: &str| line.trim().strip_prefix("num_ctx")?.trim().parse().ok();
        Self {
            capabilities: answer["capabilities"].as_array().map(|list| words(list)),
            context_length: Some(context_length).filter(|tokens| *tokens > 0),
            embedding_length: Some(embedding_length).filter(|length| *length > 0),
            num_ctx: answer["parameters"].as_str().and_then(|text| text.lines().find_map(num_ctx)),
        }
    }
}

impl From<&Loaded> for wire::LoadedModel {
    fn from(model: &Loaded) -> Self {
        Self {
            name: model.name.clone(),
            digest: model.digest.clone(),
            size_bytes: model.size,
            size_vram_bytes: model.size_vram,
            context_length: model.context_length,
            expires_at: model.expires_at.clone(),
        }
    }
}

impl From<&Tag> for wire::AvailableModel {
    fn from(model: &Tag) -> Self {
        let details = model.details.clone();
        Self {
            name: model.name.clone(),
            digest: model.digest.clone(),
            size_bytes: model.size,
            modified_at: model.modified_at.clone(),
            format: details.format,
            family: details.family,
            families: details.families.unwrap_or_default(),
            parameter_size: details.parameter_size,
            quantization_level: details.quantization_level,
            context_length: details.context_length.unwrap_or(0),
            embedding_length: details.embedding_length.unwrap_or(0),
            parent_model: details.parent_model,
            capabilities: model.capabilities.clone().unwrap_or_default(),
            num_ctx: model.num_ctx.unwrap_or(0),
            remote_model: model.remote_model.clone(),
            remote_host: model.remote_host.clone(),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Bodies that Ollama 0.33 gave (samples `004_tags` and `025_ps_loaded`, fewer entries).
    pub(crate) const TAGS: &str = r#"{"models":[
        {"name":"tiny2k:latest","model":"tiny2k:latest","modified_at":"2026-11-22T12:54:07.621883931Z","size":9066581,
         "digest":"4ace5273784b8cc4186a211046a44d49d1df4508ffa8b390ae42abf8814eacb3",
         "details":{"parent_model":"tiny:latest","format":"gguf","family":"llama","families":["llama"],
          "parameter_size":"4.17M","quantization_level":"F16","context_length":8192,"embedding_length":64},
         "capabilities":["completion"]},
        {"name":"embed:latest","model":"embed:latest","modified_at":"2026-11-22T12:54:01.833714153Z","size":4805523,
         "digest":"edd5e86d28258d32aa372b605f510b069f239375129b5d0f90245e45d0e8dcf7",
         "details":{"parent_model":"","format":"gguf","family":"bert","families":null,
          "parameter_size":"2.05M","quantization_level":"F16","context_length":512,"embedding_length":64},
         "capabilities":["embedding"]}]}"#;
    pub(crate) const PS: &str = r#"{"models":[
        {"name":"tiny:latest","model":"tiny:latest","size":14763949,
         "digest":"3a2fbf54b2c5f56637725d397de74c756d88bc14f71634af25ef1ffc37ad65b2",
         "details":{"parent_model":"","format":"gguf","family":"llama","families":["llama"],
          "parameter_size":"4.17M","quantization_level":"F16"},
         "expires_at":"2026-11-22T12:59:53.46703432Z","size_vram":0,"context_length":4096}]}"#;

    /// The models on disk that `/api/tags` tells with `text`.
    pub(crate) fn tags(text: &str) -> Vec<Tag> {
        models(&serde_json::from_str(text).unwrap(), Tag::read)
    }

    /// The models in memory that `/api/ps` tells with `text`.
    pub(crate) fn ps(text: &str) -> Vec<Loaded> {
        models(&serde_json::from_str(text).unwrap(), Loaded::read)
    }

    #[test]
    fn lists_of_a_real_ollama_become_facts() {
        let available: Vec<wire::AvailableModel> = tags(TAGS).iter().map(Into::into).collect();
        assert_eq!(available[0].name, "tiny2k:latest");
        assert_eq!((available[0].size_bytes, available[0].context_length), (9_066_581, 8192));
        assert_eq!((available[0].embedding_length, available[0].parent_model.as_str()), (64, "tiny:latest"));
        assert_eq!(available[0].capabilities, ["completion"]);
        assert!(available[1].families.is_empty(), "null is no list");
        let loaded = wire::LoadedModel::from(&ps(PS)[0]);
        assert_eq!((loaded.size_bytes, loaded.size_vram_bytes, loaded.context_length), (14_763_949, 0, 4096));
        assert_eq!(loaded.expires_at, "2026-11-22T12:59:53.46703432Z");
    }

    #[test]
    fn an_old_or_empty_ollama_is_read_too() {
        let old = tags(r#"{"models":[{"name":"a:1","size":1,"details":{}}]}"#);
        assert_eq!((old[0].capabilities.as_ref(), old[0].details.context_length), (None, None));
        for none in [r#"{"models":null}"#, "{}", "[]", "null", r#"{"models":{}}"#, r#"{"data":[]}"#] {
            assert_eq!(tags(none), [], "{none}");
        }
        let show = |text: &str| Show::from(serde_json::from_str::<Value>(text).unwrap());
        let plain =
            show(r#"{"model_info":{"general.architecture":"llama","llama.context_length":8192},"license":"x"}"#);
        assert_eq!((plain.context_length, plain.num_ctx, plain.capabilities), (Some(8192), None, None));
        let parameters =
            "stop                           \\\"<|end|>\\\"\\nnum_ctx                        2048\\nnum_keep 4";
        assert_eq!(show(&format!(r#"{{"parameters":"{parameters}"}}"#)).num_ctx, Some(2048));
        assert_eq!(show(r#"{"model_info":null,"capabilities":"all","parameters":7}"#).context_length, None);
    }

    #[test]
    fn one_odd_entry_costs_that_entry_at_the_most() {
        let names = |entry: &str| -> Vec<String> {
            let listed = tags(&format!(r#"{{"models":[{{"name":"a:1","size":7}},{entry},{{"name":"z:1"}}]}}"#));
            assert_eq!((listed.first().map(|tag| tag.size), listed.len() >= 2), (Some(7), true), "{entry}");
            listed.into_iter().map(|tag| tag.name).filter(|name| name.starts_with('m')).collect()
        };
        for odd in [
            r#""modified_at":null"#,
            r#""details":null"#,
            r#""details":"gguf""#,
            r#""size":2.5e9"#,
            r#""size":-1"#,
            r#""size":"""#,
            r#""size":1e300"#,
            r#""digest":17"#,
            r#""capabilities":"tools""#,
            r#""capabilities":[null,7,"tools"]"#,
            r#""details":{"families":"llama","context_length":"8192"}"#,
            r#""remote_host":[]"#,
            r#""new_field":{"deep":[{}]}"#,
        ] {
            assert_eq!(names(&format!(r#"{{"name":"m:1",{odd}}}"#)), ["m:1"], "{odd}");
        }
        for nothing in ["null", "7", "[]", "\"m:1\"", "{}", r#"{"name":""}"#, r#"{"name":null}"#, r#"{"name":["m"]}"#] {
            assert_eq!(names(nothing), [""; 0], "{nothing}");
        }
        assert_eq!(names(r#"{"model":"m:1"}"#), ["m:1"]);
        let long = format!(r#"{{"name":"m:1","digest":"{}"}}"#, "x".repeat(513));
        assert_eq!(names(&long), ["m:1"]);
        assert_eq!(names(&format!(r#"{{"name":"{}"}}"#, "m".repeat(257))), [""; 0]);
        let sizes = |size: &str| tags(&format!(r#"{{"models":[{{"name":"m","size":{size}}}]}}"#))[0].size;
        assert_eq!([sizes("2.5e9"), sizes("\"12\""), sizes("-1"), sizes("null")], [2_500_000_000, 12, 0, 0]);
        let loaded = ps(r#"{"models":[{"name":"a","details":null,"expires_at":9},{"name":"b","size_vram":3}]}"#);
        assert_eq!((loaded.len(), loaded[1].size_vram), (2, 3));
    }

    #[test]
    fn fuzz_what_a_node_answers_becomes_a_heartbeat_that_edges_take() {
        const SHOW: &str = r#"{"model_info":{"general.architecture":"llama","llama.context_length":8192},"parameters":"num_ctx 2048"}"#;
        let samples = [TAGS, PS, SHOW, r#"{"version":"0.33.0"}"#].map(str::as_bytes);
        herd_fuzz::run("answers of a node", &samples, |bytes| {
            let Ok(answer) = serde_json::from_slice::<Value>(bytes) else { return };
            for tag in models(&answer, Tag::read) {
                let wire = wire::AvailableModel::from(&tag);
                assert!(!wire.name.is_empty() && wire.name.len() <= NAME_MAX && wire.digest.len() <= TEXT_MAX);
                assert!(wire.capabilities.len() <= WORDS_MAX && wire.families.len() <= WORDS_MAX);
            }
            for loaded in models(&answer, Loaded::read) {
                let wire = wire::LoadedModel::from(&loaded);
                assert!(!wire.name.is_empty() && wire.expires_at.len() <= TEXT_MAX);
            }
            drop((Show::from(answer.clone()), Version::from(answer)));
        });
    }

    #[test]
    fn what_newer_versions_add_does_no_harm() {
        let newer = r#"{"models":[
            {"name":"a:1","model":"a:1","digest":"d1","size":9,"size_vram":9,"context_length":4096,"runner":"llamacpp"},
            {"name":"a:1","model":"a:1","digest":"d2","size":9,"size_vram":9,"context_length":8192,"runner":"mlx"}]}"#;
        let loaded = ps(newer);
        assert_eq!(loaded.iter().map(|model| model.digest.as_str()).collect::<Vec<_>>(), ["d1", "d2"]);
    }

    #[test]
    fn models_of_the_cloud_keep_where_they_run() {
        let cloud = tags(
            r#"{"models":[{"name":"big:120b-cloud","size":384,"remote_model":"big:120b","remote_host":"https://ollama.com:443"}]}"#,
        );
        let wire = wire::AvailableModel::from(&cloud[0]);
        assert_eq!((wire.remote_model.as_str(), wire.remote_host.as_str()), ("big:120b", "https://ollama.com:443"));
    }

    #[test]
    fn a_herd_is_told_from_an_ollama() {
        let version = |text: &str| Version::from(serde_json::from_str::<Value>(text).unwrap());
        let ollama = version(r#"{"version":"0.33.0"}"#);
        assert_eq!((ollama.version.as_str(), ollama.is_herd), ("0.33.0", false));
        assert!(version(r#"{"version":"0.0.0","herd_version":"0.1.0"}"#).is_herd);
        assert_eq!(version(r#"{"version":33}"#).version, "");
    }
}
