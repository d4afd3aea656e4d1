//! What the operator says about single models.

use std::collections::BTreeMap;

use crate::name::ModelName;

/// Aliases and fallbacks from the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ModelRules {
    aliases: BTreeMap<ModelName, ModelName>,
    fallbacks: BTreeMap<ModelName, Vec<ModelName>>,
}

impl ModelRules {
    /// From names as they are requested to the models that serve them, and from requested models to those that may
    /// serve in their place, in order.
    #[must_use]
    pub fn new(aliases: BTreeMap<ModelName, ModelName>, fallbacks: BTreeMap<ModelName, Vec<ModelName>>) -> Self {
        Self { aliases, fallbacks }
    }

    /// The model that serves requests for `requested`, if it is an alias. An alias of an alias is not followed.
    #[must_use]
    pub fn alias(&self, requested: &ModelName) -> Option<&ModelName> {
        self.aliases.get(requested)
    }

    /// Models that may serve in the place of `requested`, in order.
    #[must_use]
    pub fn fallbacks(&self, requested: &ModelName) -> &[ModelName] {
        self.fallbacks.get(requested).map_or(&[], Vec::as_slice)
    }

    /// All aliases with their models, for catalogues.
    pub fn aliases(&self) -> impl Iterator<Item = (&ModelName, &ModelName)> {
        self.aliases.iter()
    }
}
