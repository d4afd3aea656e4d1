//! `settings.json` in the data directory: what was set at run time, by dotted key.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use crate::config::{ConfigError, Layers};

type Saved = BTreeMap<String, serde_yaml::Value>;

/// Where it is.
#[must_use]
pub fn settings_file(data_dir: &Path) -> PathBuf {
    data_dir.join("settings.json")
}

/// Adds to `layers` what was set at run time, as far as it still holds: a key that has gone or a value that is no longer
/// allowed must not keep an edge from starting. Returns what was passed over, for the log.
#[must_use]
pub fn load(layers: &mut Layers, data_dir: &Path) -> Vec<String> {
    let mut passed_over = Vec::new();
    let file = settings_file(data_dir);
    let Ok(text) = fs::read_to_string(&file) else { return passed_over };
    match serde_json::from_str::<Saved>(&text) {
        Ok(saved) => layers.saved = saved,
        Err(error) => passed_over.push(format!("{}: {error}", file.display())),
    }
    while let Err(error) = layers.build() {
        let key = match &error {
            ConfigError::Type { key, .. } => key.clone(),
            ConfigError::Value { key, .. } => (*key).to_owned(),
            ConfigError::Yaml(_) => String::new(),
        };
        passed_over.push(format!("{}: {error}", file.display()));
        // An error that names no saved key is of another layer, or of a list within one.
        let named = layers.saved.keys().find(|saved| is_within(&key, saved) || is_within(saved, &key)).cloned();
        match named {
            Some(saved) => drop(layers.saved.remove(&saved)),
            None if layers.saved.is_empty() => break,
            None => layers.saved.clear(),
        }
    }
    passed_over
}

/// Whether the dotted `key` is `section` or stands in it.
fn is_within(key: &str, section: &str) -> bool {
    let rest = key.strip_prefix(section).filter(|_| !section.is_empty());
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// Whether the file may be believed: whoever can write it decides who needs a key.
///
/// # Errors
/// When others than its owner may write it.
pub fn check_owner(data_dir: &Path) -> Result<(), String> {
    let file = settings_file(data_dir);
    let Ok(metadata) = fs::metadata(&file) else { return Ok(()) };
    if metadata.permissions().mode() & 0o022 == 0 {
        return Ok(());
    }
    Err(format!("{}: others may write it; chmod 600 it after looking at what it holds", file.display()))
}

/// Replaces the file as a whole.
pub(super) fn write(file: &Path, saved: &Saved) -> Result<(), String> {
    let text = serde_json::to_string_pretty(saved).map_err(|error| error.to_string())?;
    let beside = file.with_extension("json.new");
    let put = || {
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder)?;
        }
        let mut options = fs::OpenOptions::new();
        let mut new = options.write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        new.write_all(text.as_bytes())?;
        new.sync_all()?;
        fs::rename(&beside, file)
    };
    put().map_err(|error: std::io::Error| {
        tracing::warn!(file = %file.display(), %error, "settings are in force but not kept");
        error.to_string()
    })
}
