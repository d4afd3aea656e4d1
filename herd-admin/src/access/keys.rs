//! The keys as they are now: read by every request, replaced as a whole when the file changes.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use herd_core::access::meter::{Meter, Usage};
use herd_core::access::{Denied, Need, Posture, Require, Scopes, Shown, Source};
use herd_core::join::JoinSecret;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use super::audit::{Actor, Audit};
use super::file::{KeyFile, KeyFileError, KeyRecord, Stamp};
use super::secret::{Fingerprint, looks_like_one};
use crate::stop::stopped;

/// How often the file is looked at.
const LOOK: Duration = Duration::from_millis(400);
/// Longest text that is looked at as a key.
const SHOWN_BYTES: usize = 256;
/// Most texts of one request that are looked at: each is compared with every key.
const SECRETS_MAX: usize = 8;

const API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// A key that may be shown.
#[derive(Debug)]
pub struct Key {
    /// Its name in logs.
    pub id: Arc<str>,
    /// Its name for people.
    pub name: Arc<str>,
    /// What it is good for.
    pub scopes: Scopes,
    /// What it uses.
    pub meter: Meter,
    disabled: bool,
    fingerprint: Fingerprint,
    record: KeyRecord,
}

impl Key {
    fn of(record: KeyRecord, usage: Arc<Usage>) -> Option<Self> {
        Some(Self {
            id: record.id.as_str().into(),
            name: record.name.as_str().into(),
            scopes: Scopes::parse(record.scopes.iter().map(String::as_str))?,
            meter: Meter::new(record.limits.limits(), usage),
            disabled: record.disabled,
            fingerprint: Fingerprint::parse(&record.hash)?,
            record,
        })
    }
}

#[derive(Debug, Default)]
struct Table {
    keys: Vec<Arc<Key>>,
    posture: Posture,
}

impl Table {
    /// The keys of `records`, each going on from what it has used in `before`.
    fn next(records: Vec<KeyRecord>, before: &Self) -> Self {
        let usage = |id: &str| before.key(id).map(|key| Arc::clone(key.meter.usage())).unwrap_or_default();
        let keys: Vec<_> = records
            .into_iter()
            .filter_map(|record| {
                let usage = usage(&record.id);
                Key::of(record, usage).map(Arc::new)
            })
            .collect();
        let names = keys.iter().flat_map(|key| key.scopes.names());
        let posture = Posture { require: before.posture.require, scopes: Scopes::parse(names).unwrap_or_default() };
        Self { keys, posture }
    }

    fn key(&self, id: &str) -> Option<&Arc<Key>> {
        self.keys.iter().find(|key| &*key.id == id)
    }

    /// The key whose secret this is. All are compared, each in constant time.
    fn find(&self, secret: &[u8]) -> Option<&Arc<Key>> {
        if !looks_like_one(secret) || secret.len() > SHOWN_BYTES {
            return None;
        }
        let shown = Fingerprint::of(secret);
        self.keys.iter().fold(None, |found, key| if key.fingerprint.is(&shown) { Some(key) } else { found })
    }

    /// What a request shows: the first key of ours, if any of it is one.
    fn presented(&self, headers: &HeaderMap, basic: bool) -> (Shown, Option<&Arc<Key>>) {
        let mut shown = Shown::Nothing;
        for secret in secrets(headers, basic) {
            match self.find(&secret) {
                Some(key) if key.disabled => shown = Shown::Disabled,
                Some(key) => return (Shown::Key(key.scopes), Some(key)),
                None if shown == Shown::Nothing => shown = Shown::Unknown,
                None => {}
            }
        }
        (shown, None)
    }
}

/// Everything in `headers` that may be a key's secret.
fn secrets(headers: &HeaderMap, basic: bool) -> Vec<Vec<u8>> {
    let authorization = || headers.get_all(AUTHORIZATION).iter().map(http::HeaderValue::as_bytes);
    let bearer = authorization().filter_map(|value| scheme(value, b"Bearer ")).map(<[u8]>::to_vec);
    let password = authorization().filter(|_| basic).filter_map(|value| scheme(value, b"Basic ")).filter_map(password);
    let api_key = headers.get_all(API_KEY).iter().map(|value| value.as_bytes().trim_ascii().to_vec());
    bearer.chain(password).chain(api_key).take(SECRETS_MAX).collect()
}

pub(crate) fn scheme<'a>(value: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (scheme, rest) = value.split_at_checked(name.len())?;
    scheme.eq_ignore_ascii_case(name).then(|| rest.trim_ascii())
}

fn password(credentials: &[u8]) -> Option<Vec<u8>> {
    let decoded = STANDARD.decode(credentials).ok()?;
    let colon = decoded.iter().position(|byte| *byte == b':')?;
    Some(decoded[colon + 1..].to_vec())
}

/// The keys as they are now. All clones are one.
#[derive(Clone, Default)]
pub struct Keys(Arc<Shared>);

#[derive(Default)]
struct Shared {
    table: ArcSwap<Table>,
    file: Option<KeyFile>,
}

impl Keys {
    /// None, and none will come.
    #[must_use]
    pub fn none(require: Require) -> Self {
        let table = Table { posture: Posture { require, ..Posture::default() }, ..Table::default() };
        Self(Arc::new(Shared { table: ArcSwap::from_pointee(table), file: None }))
    }

    /// Those in the file of `data_dir`, which [`Keys::watch`] follows.
    ///
    /// # Errors
    /// When there is a file that cannot be read: to go on without its keys would open what they guard.
    pub fn open(data_dir: &Path, require: Require) -> Result<Self, KeyFileError> {
        let file = KeyFile::in_folder(data_dir);
        let before = Table { posture: Posture { require, ..Posture::default() }, ..Table::default() };
        let table = Table::next(file.read()?, &before);
        Ok(Self(Arc::new(Shared { table: ArcSwap::from_pointee(table), file: Some(file) })))
    }

    /// How guarded the edge is.
    #[must_use]
    pub fn posture(&self) -> Posture {
        self.0.table.load().posture
    }

    /// The name for people of the key `id`; none = there is no such key.
    pub(crate) fn name_of(&self, id: &str) -> Option<String> {
        self.0.table.load().key(id).map(|key| key.name.to_string())
    }

    /// Whether a request with `headers` may do what it needs, and the key that is good for that, needed or not.
    ///
    /// # Errors
    /// With what it lacks.
    pub fn check(&self, need: Need, source: Source, headers: &HeaderMap) -> Result<Option<Arc<Key>>, Denied> {
        // A browser shows a password that it once was given to any page, so it counts where pages are kept out only.
        let basic = matches!(need, Need::Read | Need::Change);
        let table = self.0.table.load();
        let (shown, key) = table.presented(headers, basic);
        table.posture.check(need, source, shown)?;
        Ok(key.filter(|key| need.met_by(key.scopes)).cloned())
    }

    /// All keys by which nodes may join, for proofs that one is known.
    pub(crate) fn for_joining(&self) -> Vec<JoinSecret> {
        let table = self.0.table.load();
        let good = table.keys.iter().filter(|key| !key.disabled && Need::Node.met_by(key.scopes));
        good.map(|key| key.fingerprint.for_joining()).collect()
    }

    /// Whether `headers` hold what looks like a key of ours, so that nobody else may see them.
    #[must_use]
    pub fn any_in(headers: &HeaderMap) -> bool {
        secrets(headers, true).iter().any(|secret| looks_like_one(secret))
    }

    /// Follows the file until `shutdown` becomes true or its sender is gone. A file that cannot be read, or is gone,
    /// leaves the keys as they were.
    pub async fn watch(&self, audit: &Audit, mut shutdown: watch::Receiver<bool>) {
        let Some(file) = &self.0.file else { return };
        let mut tick = tokio::time::interval(LOOK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Not that of the first reading, which the file may have left behind by now.
        let mut seen = None;
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                () = stopped(&mut shutdown) => return,
            }
            let file = file.clone();
            let look = tokio::task::spawn_blocking(move || look(&file, seen));
            match look.await {
                Ok(Look::Same) => {}
                Ok(Look::Gone) => {
                    if seen.take().is_some() {
                        tracing::error!("keys.json is gone; its keys go on until herd is started again");
                    }
                }
                Ok(Look::Changed(stamp, records)) => {
                    seen = Some(stamp);
                    match records {
                        Ok(records) => self.replace(records, audit),
                        Err(error) => tracing::error!(%error, "keys cannot be read; those from before go on"),
                    }
                }
                Err(error) => tracing::error!(%error, "keys.json cannot be looked at"),
            }
        }
    }

    /// Puts the keys of `records` in the place of all before, and tells what changed.
    pub(super) fn replace(&self, records: Vec<KeyRecord>, audit: &Audit) {
        let before = self.0.table.load_full();
        let after = Arc::new(Table::next(records, &before));
        self.0.table.store(Arc::clone(&after));
        let told = |action, key: &Key| audit.audit(&Actor::HERE, action, &key.name, &detail(key));
        for key in &after.keys {
            match before.key(&key.id) {
                None => told("key_added", key),
                Some(was) if was.record != key.record => told("key_changed", key),
                Some(_) => {}
            }
        }
        before.keys.iter().filter(|key| after.key(&key.id).is_none()).for_each(|key| told("key_removed", key));
    }
}

enum Look {
    Same,
    Gone,
    Changed(Stamp, Result<Vec<KeyRecord>, KeyFileError>),
}

fn look(file: &KeyFile, seen: Option<Stamp>) -> Look {
    // Before it is read: what changes in between is seen the next time.
    match file.stamp() {
        None => Look::Gone,
        Some(stamp) if Some(stamp) == seen => Look::Same,
        Some(stamp) => Look::Changed(stamp, file.read()),
    }
}

fn detail(key: &Key) -> String {
    format!("{} ({}){}", key.id, key.scopes, if key.disabled { ", disabled" } else { "" })
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys({})", self.0.table.load().keys.len())
    }
}
