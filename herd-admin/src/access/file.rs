//! `keys.json`: what is kept of each key. Never a secret.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use herd_core::access::Scopes;
use herd_core::access::meter::KeyLimits;
use serde::{Deserialize, Serialize};

use super::secret::{Fingerprint, new_secret, random_hex};
use crate::time::now_rfc3339;

/// Most keys: each costs every lookup a comparison.
pub const KEYS_MAX: usize = 1_000;
/// Largest file: that many keys with room to spare.
const FILE_BYTES: u64 = 1 << 20;
/// Longest name.
const NAME_BYTES: usize = 64;

/// Why keys cannot be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The file cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is not what was written.
    #[error("{}: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A name is not one.
    #[error("a key's name has 1 to 64 of the characters A-Z a-z 0-9 . _ - @: {0:?}")]
    Name(String),
    /// A limit is not one.
    #[error("a limit must be greater than 0")]
    Limit,
    /// There is such a key.
    #[error("there is a key named {0} already")]
    Taken(String),
    /// There is no such key.
    #[error("there is no key named {0}")]
    Unknown(String),
    /// There are too many.
    #[error("there are {KEYS_MAX} keys already")]
    Full,
}

/// A key as it stands in the file. Unknown fields are errors: an older herd must not pass over a newer one's limits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyRecord {
    /// Its name in logs; never changes.
    pub id: String,
    /// Its name for people.
    pub name: String,
    /// What it is good for.
    pub scopes: Vec<String>,
    /// `sha256:` and the digest of the secret in hex.
    pub hash: String,
    /// When it was made, RFC 3339.
    pub created: String,
    /// What it may use.
    #[serde(default)]
    pub limits: LimitsRecord,
    /// It is switched off.
    #[serde(default)]
    pub disabled: bool,
}

/// The limits of a key; absent = none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsRecord {
    /// Requests per second.
    pub requests_per_s: Option<f64>,
    /// Requests under way.
    pub in_flight: Option<u32>,
    /// Tokens per minute.
    pub tokens_per_min: Option<u64>,
}

impl LimitsRecord {
    pub(super) fn limits(self) -> KeyLimits {
        let Self { requests_per_s, in_flight, tokens_per_min } = self;
        KeyLimits { requests_per_s, in_flight, tokens_per_min }
    }

    fn sane(self) -> bool {
        self.requests_per_s.is_none_or(|rate| rate.is_finite() && rate >= 1e-6)
            && self.in_flight != Some(0)
            && self.tokens_per_min != Some(0)
    }
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Whole {
    version: u32,
    keys: Vec<KeyRecord>,
}

/// A key to be made.
#[derive(Debug, Clone)]
pub struct NewKey {
    /// Its name.
    pub name: String,
    /// What it is good for.
    pub scopes: Scopes,
    /// What it may use.
    pub limits: KeyLimits,
}

/// What tells one version of the file from the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    modified: Option<SystemTime>,
    bytes: u64,
    number: u64,
}

/// The file of keys in a data folder.
#[derive(Debug, Clone)]
pub struct KeyFile {
    path: PathBuf,
}

impl KeyFile {
    /// That of `data_dir`.
    #[must_use]
    pub fn in_folder(data_dir: &Path) -> Self {
        Self { path: data_dir.join("keys.json") }
    }

    /// Its place.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All keys; none where there is no file.
    ///
    /// # Errors
    /// When it cannot be read, is damaged, or others may write it.
    pub fn read(&self) -> Result<Vec<KeyRecord>, KeyFileError> {
        let mut file = match File::open(&self.path) {
            Ok(file) => file,
            // Where the folder is no folder, there are no keys in it either.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                return Ok(Vec::new());
            }
            Err(error) => return Err(self.io(error)),
        };
        let metadata = file.metadata().map_err(|error| self.io(error))?;
        if writable_by_others(&metadata) {
            return Err(self.damaged("others may write it; chmod 600 it after looking at what it holds"));
        }
        if metadata.len() > FILE_BYTES {
            return Err(self.damaged("it is too large"));
        }
        let mut text = String::new();
        file.read_to_string(&mut text).map_err(|error| self.io(error))?;
        let whole: Whole = serde_json::from_str(&text).map_err(|error| self.damaged(error.to_string()))?;
        if whole.version != 1 {
            return Err(self.damaged(format!("version {} is not known here", whole.version)));
        }
        self.checked(whole.keys)
    }

    fn checked(&self, keys: Vec<KeyRecord>) -> Result<Vec<KeyRecord>, KeyFileError> {
        if keys.len() > KEYS_MAX {
            return Err(self.damaged("it has too many keys"));
        }
        for (i, key) in keys.iter().enumerate() {
            let known = Scopes::parse(key.scopes.iter().map(String::as_str)).is_some();
            let fingerprint = Fingerprint::parse(&key.hash).is_some();
            if !known || !fingerprint || !key.limits.sane() || !is_name(&key.name) || !is_name(&key.id) {
                return Err(self.damaged(format!("the key at place {i} has a field that is none")));
            }
            if keys[..i].iter().any(|other| other.id == key.id || other.name == key.name) {
                return Err(self.damaged(format!("two keys are {}", key.name)));
            }
        }
        Ok(keys)
    }

    /// What its present version is told by; `None` = there is no file.
    pub(super) fn stamp(&self) -> Option<Stamp> {
        let metadata = std::fs::metadata(&self.path).ok()?;
        #[cfg(unix)]
        let number = std::os::unix::fs::MetadataExt::ino(&metadata);
        #[cfg(not(unix))]
        let number = 0;
        Some(Stamp { modified: metadata.modified().ok(), bytes: metadata.len(), number })
    }

    /// Makes a key; its secret is returned here and never again.
    ///
    /// # Errors
    /// When the name is taken or none, or the file cannot be changed.
    pub fn add(&self, key: &NewKey) -> Result<(KeyRecord, String), KeyFileError> {
        if !is_name(&key.name) {
            return Err(KeyFileError::Name(key.name.clone()));
        }
        let KeyLimits { requests_per_s, in_flight, tokens_per_min } = key.limits;
        let limits = LimitsRecord { requests_per_s, in_flight, tokens_per_min };
        if !limits.sane() {
            return Err(KeyFileError::Limit);
        }
        let secret = new_secret().map_err(|error| self.io(error))?;
        let record = KeyRecord {
            id: format!("k-{}", random_hex::<6>().map_err(|error| self.io(error))?),
            name: key.name.clone(),
            scopes: key.scopes.names().map(str::to_owned).collect(),
            hash: Fingerprint::of(secret.as_bytes()).to_text(),
            created: now_rfc3339(),
            limits,
            disabled: false,
        };
        self.change(|keys| {
            if keys.iter().any(|other| other.name == record.name || other.id == record.name) {
                return Err(KeyFileError::Taken(record.name.clone()));
            }
            if keys.len() >= KEYS_MAX {
                return Err(KeyFileError::Full);
            }
            keys.push(record.clone());
            Ok(())
        })?;
        Ok((record, secret))
    }

    /// Takes the key of that name or id away.
    ///
    /// # Errors
    /// When there is none, or the file cannot be changed.
    pub fn remove(&self, name: &str) -> Result<KeyRecord, KeyFileError> {
        self.change(|keys| Ok(keys.remove(place(keys, name)?)))
    }

    /// Switches the key of that name or id off, or on again.
    ///
    /// # Errors
    /// When there is none, or the file cannot be changed.
    pub fn set_disabled(&self, name: &str, disabled: bool) -> Result<KeyRecord, KeyFileError> {
        self.change(|keys| {
            let place = place(keys, name)?;
            keys[place].disabled = disabled;
            Ok(keys[place].clone())
        })
    }

    /// Changes the keys, one process at a time, and replaces the file at once or not at all.
    fn change<T>(
        &self,
        change: impl FnOnce(&mut Vec<KeyRecord>) -> Result<T, KeyFileError>,
    ) -> Result<T, KeyFileError> {
        let folder = self.path.parent().unwrap_or(Path::new("."));
        let mut made = std::fs::DirBuilder::new();
        made.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut made, 0o700);
        made.create(folder).map_err(|error| self.io(error))?;
        // Of its own, as the file itself is replaced. The lock ends with this handle, whatever happens.
        let lock = private().create(true).truncate(false).open(folder.join("keys.lock"));
        let lock = lock.map_err(|error| self.io(error))?;
        lock.lock().map_err(|error| self.io(error))?;
        let mut keys = self.read()?;
        let outcome = change(&mut keys)?;
        self.replace(folder, keys).map_err(|error| self.io(error))?;
        Ok(outcome)
    }

    fn replace(&self, folder: &Path, keys: Vec<KeyRecord>) -> std::io::Result<()> {
        let next = folder.join("keys.json.next");
        // Left over from a process that was cut off; the lock says that it is nobody's now.
        match std::fs::remove_file(&next) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = private().create_new(true).open(&next)?;
        let mut text = serde_json::to_vec_pretty(&Whole { version: 1, keys })?;
        text.push(b'\n');
        file.write_all(&text)?;
        file.sync_all()?;
        std::fs::rename(&next, &self.path)?;
        #[cfg(unix)]
        File::open(folder)?.sync_all()?;
        Ok(())
    }

    fn io(&self, source: std::io::Error) -> KeyFileError {
        KeyFileError::Io { path: self.path.clone(), source }
    }

    fn damaged(&self, reason: impl Into<String>) -> KeyFileError {
        KeyFileError::Damaged { path: self.path.clone(), reason: reason.into() }
    }
}

fn place(keys: &[KeyRecord], name: &str) -> Result<usize, KeyFileError> {
    let found = keys.iter().position(|key| key.name == name || key.id == name);
    found.ok_or_else(|| KeyFileError::Unknown(name.to_owned()))
}

/// Names stand in logs, headers and tables.
fn is_name(name: &str) -> bool {
    (1..=NAME_BYTES).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-@".contains(&byte))
}

/// Files that only their owner may read.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

fn writable_by_others(metadata: &std::fs::Metadata) -> bool {
    #[cfg(unix)]
    return std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o022 != 0;
    #[cfg(not(unix))]
    return false;
}
