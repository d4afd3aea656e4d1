//! Where values come from: defaults < file < what was set at run time < environment < flags.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_yaml::{Mapping, Value};

use super::check::home;
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
            .map_err(|error| type_error(error.path().to_string(), &error.inner().to_string()))?;
        file.check()
    }

    /// Where state is kept, whatever else is wrong with the configuration.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        let told = self.merged().ok().and_then(|root| Some(get(&root, "data_dir")?.as_str()?.to_owned()));
        let told = told.unwrap_or_else(|| ConfigFile::default().data_dir);
        home(&told).unwrap_or_else(|_| PathBuf::from(told))
    }

    /// Whether anything says what `key` is.
    #[must_use]
    pub fn says(&self, key: &str) -> bool {
        self.parsed_file().is_ok_and(|file| self.source(&file, key) != Source::Default)
    }

    /// `error` with where the value stands that is in its way; `path` is the file that was read.
    #[must_use]
    pub fn located(&self, error: &ConfigError, path: Option<&Path>) -> String {
        let file = path.map_or_else(|| "the configuration".to_owned(), |path| path.display().to_string());
        let key = match error {
            ConfigError::Yaml(_) => return format!("{file}: {error}"),
            ConfigError::Type { key, .. } => key.as_str(),
            ConfigError::Value { key, .. } => key,
        };
        let place = match self.parsed_file().map(|parsed| self.source(&parsed, key)) {
            Ok(Source::Flag) => "flag".to_owned(),
            Ok(Source::Env) => variable(key),
            Ok(Source::Runtime) => "settings.json".to_owned(),
            _ => line_of(&self.file, key).map_or_else(|| file.clone(), |line| format!("{file}:{line}")),
        };
        format!("{place}: {error}")
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

/// What is wrong with the type of `key`; where a duration was given a unit, with what it is in milliseconds.
fn type_error(key: String, message: &str) -> ConfigError {
    let hint = if key.ends_with("_ms") {
        let example = message.split('"').nth(1).and_then(in_millis).unwrap_or(300_000);
        format!("; durations are whole milliseconds without a unit, like {example}")
    } else {
        String::new()
    };
    ConfigError::Type { key, message: format!("{message}{hint}") }
}

/// `5m` and the like in milliseconds; `None` = it is not one.
fn in_millis(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "ms" => 1,
        "s" => 1_000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    digits.trim().parse::<u64>().ok()?.checked_mul(unit)
}

/// The line of `text` on which the last part of the dotted `key` stands that is there; `None` = none is.
fn line_of(text: &str, key: &str) -> Option<usize> {
    let mut from = 0;
    let mut found = None;
    for part in key.split(['.', '[']) {
        let is_key = |line: &str| line.trim_start().trim_start_matches(['{', ' ']).starts_with(&format!("{part}:"));
        let Some(place) = text.lines().skip(from).position(is_key) else { break };
        from += place;
        found = Some(from + 1);
    }
    found
}

fn get<'a>(root: &'a Value, key: &str) -> Option<&'a Value> {
    key.split('.').try_fold(root, |place, part| place.get(part))
}
