//! The models on a node's disk: what `/api/tags`, `/api/show` and every lookup by name go through.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use herd_core::name::ModelName;

use super::{
    config::{Capability, SimModel},
    text::hex_digest,
};

/// One model on disk.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Stored {
    /// As it is compared.
    pub(crate) name: ModelName,
    /// As lists show it: the spelling it was made with, and always a tag.
    pub(crate) shown: String,
    /// Of the manifest.
    pub(crate) digest: String,
    /// Of the weights: models with the same one share a runner.
    pub(crate) blob: String,
    /// Name of the model it was made from.
    pub(crate) parent: String,
    /// Since the Unix epoch.
    pub(crate) modified: Duration,
    pub(crate) model: SimModel,
}

impl Stored {
    /// Files `model` under `name`; the weights' digest comes from the name unless `blob` gives it.
    pub(crate) fn new(name: ModelName, model: SimModel, blob: Option<String>, modified: Duration) -> Self {
        let shown = shown_name(&model.name);
        let digest =
            model.digest.clone().unwrap_or_else(|| hex_digest(&format!("manifest {name} {:?}", model.num_ctx)));
        let blob = blob.unwrap_or_else(|| hex_digest(&format!("weights {name}")));
        let parent = model.from.as_deref().map(shown_name).unwrap_or_default();
        Self { name, shown, digest, blob, parent, modified, model }
    }

    /// Whether it makes vectors and nothing else.
    pub(crate) fn is_embedding_only(&self) -> bool {
        !self.model.can(Capability::Completion)
    }

    /// A model outside any catalog.
    #[cfg(test)]
    pub(crate) fn for_test(model: SimModel) -> Arc<Self> {
        let name = ModelName::new(&model.name).expect("a good name");
        Arc::new(Self::new(name, model, None, Duration::ZERO))
    }
}

/// The models of one node, by name.
#[derive(Debug, Default)]
pub(crate) struct Catalog {
    models: BTreeMap<ModelName, Arc<Stored>>,
}

impl Catalog {
    /// Files `models`, first those that others are made from. Names that do not parse are left out: a checked
    /// configuration has none.
    pub(crate) fn new(models: &[SimModel], modified: Duration) -> Self {
        let mut catalog = Self::default();
        let (aliases, bases): (Vec<_>, Vec<_>) = models.iter().partition(|model| model.from.is_some());
        for model in bases.into_iter().chain(aliases) {
            catalog.add(model.clone(), modified);
        }
        catalog
    }

    /// The model that `name` means, however it is spelled.
    pub(crate) fn find(&self, name: &str) -> Option<Arc<Stored>> {
        self.models.get(&ModelName::new(name).ok()?).cloned()
    }

    /// Adds or replaces a model; its `from` shares the weights of that model.
    pub(crate) fn add(&mut self, model: SimModel, modified: Duration) -> Option<Arc<Stored>> {
        let name = ModelName::new(&model.name).ok()?;
        let blob = model.from.as_deref().and_then(|from| self.find(from)).map(|base| base.blob.clone());
        let stored = Arc::new(Stored::new(name.clone(), model, blob, modified));
        self.models.insert(name, Arc::clone(&stored));
        Some(stored)
    }

    /// Removes a model; says whether it was there.
    pub(crate) fn remove(&mut self, name: &str) -> bool {
        ModelName::new(name).is_ok_and(|name| self.models.remove(&name).is_some())
    }

    /// All models, newest first as Ollama lists them.
    pub(crate) fn list(&self) -> Vec<Arc<Stored>> {
        let mut models: Vec<_> = self.models.values().cloned().collect();
        models.sort_by(|a, b| b.modified.cmp(&a.modified).then_with(|| a.name.cmp(&b.name)));
        models
    }

    /// Bytes on disk, shared weights once.
    pub(crate) fn disk_bytes(&self) -> u64 {
        let blobs: BTreeMap<&str, u64> =
            self.models.values().map(|stored| (stored.blob.as_str(), stored.model.size_bytes)).collect();
        blobs.values().sum()
    }
}

/// A name as lists show it: with its tag, without the default host and namespace.
pub(crate) fn shown_name(name: &str) -> String {
    let path = name.strip_prefix("registry.ollama.ai/").unwrap_or(name);
    let path = path.strip_prefix("library/").unwrap_or(path);
    let has_tag = path.rsplit('/').next().is_some_and(|last| last.contains(':'));
    if has_tag { path.to_owned() } else { format!("{path}:latest") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_found_however_it_is_spelled() {
        let catalog = Catalog::new(&[SimModel::named("Tiny")], Duration::ZERO);
        for spelling in ["tiny", "TINY:Latest", "library/tiny", "registry.ollama.ai/library/tiny:latest"] {
            assert_eq!(catalog.find(spelling).expect(spelling).shown, "Tiny:latest");
        }
        assert_eq!(catalog.find("tiny:2b"), None);
        assert_eq!(catalog.find(""), None);
    }

    #[test]
    fn an_alias_shares_the_weights_and_their_room() {
        let alias = SimModel { from: Some("base".to_owned()), num_ctx: Some(2048), ..SimModel::named("alias") };
        let catalog = Catalog::new(&[alias, SimModel::named("base")], Duration::ZERO);
        let (base, alias) = (catalog.find("base").expect("base"), catalog.find("alias").expect("alias"));
        assert_eq!(base.blob, alias.blob);
        assert_ne!(base.digest, alias.digest);
        assert_eq!(alias.parent, "base:latest");
        assert_eq!(catalog.disk_bytes(), base.model.size_bytes);
    }

    #[test]
    fn lists_show_the_newest_first() {
        let mut catalog = Catalog::new(&[SimModel::named("a"), SimModel::named("b")], Duration::ZERO);
        catalog.add(SimModel::named("c"), Duration::from_secs(1));
        let names: Vec<_> = catalog.list().iter().map(|stored| stored.shown.clone()).collect();
        assert_eq!(names, ["c:latest", "a:latest", "b:latest"]);
    }
}
