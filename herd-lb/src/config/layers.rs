//! Where values come from: defaults < file < what was set at run time < environment < flags.

use std::collections::BTreeMap;

use serde_yaml::{Mapping, Value};

use super::{Config, ConfigError, ConfigFile, scalar, set, variable};

/// The layers of a configuration, of which the later win.
#[derive(Debug, Clone, Default)]
pub struct Layers {
    /// Text of the file; empty = none.
    pub file: String,
    /// What was set at run time, by dotted key.
    pub saved: BTreeMap<String, Value>,
    /// Variables that begin with `FLEET_`.
    pub env: BTreeMap<String, String>,
    /// Dotted keys from the command line, with values as they would stand in the file.
    pub flags: Vec<(&'static str, String)>,
}

/// Where a key has its value from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Nobody has set it.
    Default,
    /// The file.
    File,
    /// Set at run time, and kept.
    Runtime,
    /// Its environment variable.
    Env,
    /// A flag.
    Flag,
}

impl Source {
    /// Its name in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::File => "file",
            Self::Runtime => "runtime",
            Self::Env => "env",
            Self::Flag => "flag",
        }
    }
}

impl Layers {
    /// The configuration that the layers make.
    ///
    /// # Errors
    /// With the key, its value and what is allowed.
    pub fn build(&self) -> Result<Config, ConfigError> {
        let file: ConfigFile = serde_path_to_error::deserialize(self.merged()?)
            .map_err(|error| ConfigError::Type { key: error.path().to_string(), message: error.inner().to_string() })?;
        file.check()
    }

    /// Every key with its value and where that comes from.
    ///
    /// # Errors
    /// When the file is not YAML.
    pub fn values(&self) -> Result<Vec<(String, Value, Source)>, ConfigError> {
        let (file, merged) = (self.parsed_file()?, self.merged()?);
        let keys = ConfigFile::keys().into_iter();
        let told = |(key, default): (String, Value)| {
            let value = get(&merged, &key).cloned().unwrap_or(default);
            let source = self.source(&file, &key);
            (key, value, source)
        };
        Ok(keys.map(told).collect())
    }

    fn source(&self, file: &Value, key: &str) -> Source {
        if self.flags.iter().any(|(flag, _)| *flag == key) {
            Source::Flag
        } else if self.env.contains_key(&variable(key)) {
            Source::Env
        } else if self.saved.contains_key(key) {
            Source::Runtime
        } else if get(file, key).is_some() {
            Source::File
        } else {
            Source::Default
        }
    }

    fn parsed_file(&self) -> Result<Value, ConfigError> {
        let root: Value = serde_yaml::from_str(&self.file).map_err(|error| ConfigError::Yaml(error.to_string()))?;
        Ok(if root.is_null() { Value::Mapping(Mapping::new()) } else { root })
    }

    fn merged(&self) -> Result<Value, ConfigError> {
        let mut root = self.parsed_file()?;
        for (key, value) in &self.saved {
            set(&mut root, key, value.clone());
        }
        for (key, default) in ConfigFile::keys() {
            let flag = self.flags.iter().rev().find(|(flag, _)| *flag == key).map(|(_, value)| value);
            if let Some(text) = flag.or_else(|| self.env.get(&variable(&key))) {
                set(&mut root, &key, scalar(text, &default));
            }
        }
        Ok(root)
    }
}

fn get<'a>(root: &'a Value, key: &str) -> Option<&'a Value> {
    key.split('.').try_fold(root, |place, part| place.get(part))
}
