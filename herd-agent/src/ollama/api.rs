//! Answers of Ollama's HTTP API, as far as the agent reads them. Everything may be missing: versions differ.

use herd_core::wire;
use serde::Deserialize;

/// `GET /api/version`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Version {
    pub(crate) version: String,
}

/// `GET /api/ps`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Ps {
    pub(crate) models: Option<Vec<Loaded>>,
}

/// `GET /api/tags`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Tags {
    pub(crate) models: Option<Vec<Tag>>,
}

/// A model in memory.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct Loaded {
    pub(crate) name: String,
    pub(crate) digest: String,
    pub(crate) size: u64,
    pub(crate) size_vram: u64,
    pub(crate) context_length: u64,
    pub(crate) expires_at: String,
    pub(crate) details: Details,
}

/// A model on disk.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct Tag {
    pub(crate) name: String,
    pub(crate) digest: String,
    pub(crate) size: u64,
    pub(crate) modified_at: String,
    pub(crate) details: Details,
    /// `None` from versions that list them only in `/api/show`.
    pub(crate) capabilities: Option<Vec<String>>,
    /// Never of `/api/tags`: `PARAMETER num_ctx`, where `/api/show` was asked.
    #[serde(skip)]
    pub(crate) num_ctx: Option<u64>,
}

/// What both have.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct Details {
    pub(crate) parent_model: String,
    pub(crate) format: String,
    pub(crate) family: String,
    pub(crate) families: Option<Vec<String>>,
    pub(crate) parameter_size: String,
    pub(crate) quantization_level: String,
    /// Of `/api/tags` of recent versions: the context that the model was trained with.
    pub(crate) context_length: Option<u64>,
}

/// `POST /api/show`, which older versions must be asked for what `/api/tags` lacks.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Show {
    pub(crate) capabilities: Option<Vec<String>>,
    pub(crate) model_info: serde_json::Map<String, serde_json::Value>,
    /// `PARAMETER` lines of the Modelfile without that word.
    pub(crate) parameters: Option<String>,
}

impl Show {
    /// `<architecture>.context_length`.
    pub(crate) fn context_length(&self) -> Option<u64> {
        let architecture = self.model_info.get("general.architecture")?.as_str()?;
        self.model_info.get(&format!("{architecture}.context_length"))?.as_u64()
    }

    /// `PARAMETER num_ctx`.
    pub(crate) fn num_ctx(&self) -> Option<u64> {
        let value = |line: &str| line.trim().strip_prefix("num_ctx")?.trim().parse().ok();
        self.parameters.as_ref()?.lines().find_map(value)
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
            capabilities: model.capabilities.clone().unwrap_or_default(),
            num_ctx: model.num_ctx.unwrap_or(0),
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

    #[test]
    fn lists_of_a_real_ollama_become_facts() {
        let tags: Tags = serde_json::from_str(TAGS).unwrap();
        let available: Vec<wire::AvailableModel> = tags.models.unwrap().iter().map(Into::into).collect();
        assert_eq!(available[0].name, "tiny2k:latest");
        assert_eq!((available[0].size_bytes, available[0].context_length), (9_066_581, 8192));
        assert_eq!(available[0].capabilities, ["completion"]);
        assert!(available[1].families.is_empty(), "null is no list");
        let ps: Ps = serde_json::from_str(PS).unwrap();
        let loaded = wire::LoadedModel::from(&ps.models.unwrap()[0]);
        assert_eq!((loaded.size_bytes, loaded.size_vram_bytes, loaded.context_length), (14_763_949, 0, 4096));
        assert_eq!(loaded.expires_at, "2026-11-22T12:59:53.46703432Z");
    }

    #[test]
    fn an_old_or_empty_ollama_is_read_too() {
        let old: Tags = serde_json::from_str(r#"{"models":[{"name":"a:1","size":1,"details":{}}]}"#).unwrap();
        let tag = &old.models.unwrap()[0];
        assert_eq!((tag.capabilities.as_ref(), tag.details.context_length), (None, None));
        let none: Tags = serde_json::from_str(r#"{"models":null}"#).unwrap();
        assert_eq!(none.models, None);
        let show: Show = serde_json::from_str(
            r#"{"model_info":{"general.architecture":"llama","llama.context_length":8192},"license":"x"}"#,
        )
        .unwrap();
        assert_eq!((show.context_length(), show.num_ctx(), show.capabilities), (Some(8192), None, None));
        let parameters = "stop                           \"<|end|>\"\nnum_ctx                        2048\nnum_keep 4";
        let show = Show { parameters: Some(parameters.to_owned()), ..Show::default() };
        assert_eq!(show.num_ctx(), Some(2048));
    }
}
