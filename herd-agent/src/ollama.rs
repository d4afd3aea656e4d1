//! Asks the local Ollama, at its own pace: what it cannot answer in time never delays a heartbeat.
//!
//! The cheap `/api/ps` is asked often, to notice loads, unloads and an Ollama that hangs; everything once per heartbeat
//! interval. When it does not answer, the last known lists stay, and the state says so. What older versions tell only in
//! `/api/show` is asked beside that, one model at a time.

mod api;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use herd_core::wire::OllamaState;
use reqwest::{Client, StatusCode, Url};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

#[cfg(test)]
pub(crate) use api::tests as samples;
pub(crate) use api::{Details, Loaded, Tag, Version};

/// Longest answer that is read; a node with a thousand models needs about 1 MiB.
const ANSWER_MAX_BYTES: usize = 8 << 20;
/// Failed calls in a row before a silent Ollama is called hung: one late answer of a busy machine is not a state.
const FAILURES_TO_HUNG: u32 = 2;
/// Most models in one heartbeat: an edge refuses longer lists whole.
const MODELS_MAX: usize = 512;
/// Times that a model is asked for its details in vain.
const SHOW_TRIES: u32 = 3;

/// What is known of Ollama.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct OllamaFacts {
    pub(crate) state: OllamaState,
    pub(crate) version: String,
    pub(crate) loaded: Vec<Loaded>,
    pub(crate) available: Vec<Tag>,
    /// It is a herd that answers: no node of any herd.
    pub(crate) is_herd: bool,
}

/// What an edge should hear at once: state, loaded models with their sizes, models on disk.
pub(crate) type Essence = (OllamaState, BTreeSet<(String, String, u64)>, BTreeSet<(String, String)>);

impl OllamaFacts {
    pub(crate) fn essence(&self) -> Essence {
        let loaded = self.loaded.iter().map(|m| (m.name.clone(), m.digest.clone(), m.context_length)).collect();
        let available = self.available.iter().map(|m| (m.name.clone(), m.digest.clone())).collect();
        (self.state, loaded, available)
    }
}

/// Asks until the receiver's side is gone; the first answer, or lack of one, comes after one timeout at the latest.
pub(crate) async fn watch_ollama(
    mut poller: Poller,
    interval: Duration,
    watch_interval: Duration,
    facts: watch::Sender<Option<Arc<OllamaFacts>>>,
) {
    let mut tick = tokio::time::interval(watch_interval);
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut refresh_at = Instant::now();
    // One question about one model, at most one per tick; a slow answer keeps nothing else waiting.
    let mut question = JoinSet::new();
    while !facts.is_closed() {
        tokio::select! {
            _ = tick.tick() => {}
            Some(answer) = question.join_next() => {
                if let Ok((key, shown)) = answer {
                    poller.learn(key, shown);
                }
                continue;
            }
        }
        let was = poller.answers;
        poller.watch().await;
        let back = was != OllamaState::Ok && poller.answers == OllamaState::Ok;
        let due = back || Instant::now() >= refresh_at;
        if poller.answers == OllamaState::Ok && due && poller.refresh().await {
            refresh_at = Instant::now() + interval;
        }
        poller.tell();
        if let Some(next) = poller.next_question().filter(|_| question.is_empty()) {
            question.spawn(next.ask());
        }
        facts.send_if_modified(|current| {
            let news = current.as_deref() != Some(&poller.facts);
            if news {
                *current = Some(Arc::new(poller.facts.clone()));
            }
            news
        });
    }
}

/// Asks one Ollama and remembers what it said.
pub(crate) struct Poller {
    client: Client,
    url: Url,
    timeout: Duration,
    facts: OllamaFacts,
    /// How it answers, whatever it tells.
    answers: OllamaState,
    /// What the log has told last: the state, and whether it is a herd.
    told: Option<(OllamaState, bool)>,
    answered_once: bool,
    listed_once: bool,
    failures: u32,
    /// Answers of `/api/show`. The digest names the content, so that they never go stale; there are at most as many as
    /// there are models.
    shown: HashMap<Key, Shown>,
}

/// Name and manifest digest of a model.
type Key = (String, String);

/// What `/api/show` said of a model.
#[derive(Default)]
struct Shown {
    details: Option<ShownDetails>,
    /// Times that it was asked.
    tries: u32,
}

struct ShownDetails {
    context_length: Option<u64>,
    embedding_length: Option<u64>,
    capabilities: Option<Vec<String>>,
    num_ctx: Option<u64>,
}

/// A model to be asked about.
struct Question {
    client: Client,
    url: Url,
    timeout: Duration,
    key: Key,
}

impl Question {
    /// Asks; a model that cannot be shown has no details.
    async fn ask(self) -> (Key, Option<ShownDetails>) {
        let request = self.client.post(self.url).json(&serde_json::json!({ "model": self.key.0 }));
        let show: Option<Value> = read_json(request.timeout(self.timeout), ANSWER_MAX_BYTES).await.ok();
        let details = show.map(api::Show::from).map(|show| ShownDetails {
            context_length: show.context_length,
            embedding_length: show.embedding_length,
            num_ctx: show.num_ctx,
            capabilities: show.capabilities,
        });
        (self.key, details)
    }
}

impl Poller {
    pub(crate) fn new(client: Client, url: Url, timeout: Duration) -> Self {
        let facts = OllamaFacts::default();
        Self {
            client,
            url,
            timeout,
            facts,
            answers: OllamaState::Ok,
            told: None,
            answered_once: false,
            listed_once: false,
            failures: 0,
            shown: HashMap::new(),
        }
    }

    /// Asks for the loaded models; this call decides whether it answers.
    async fn watch(&mut self) {
        let asked = self.ask("api/ps").await;
        self.answers = match &asked {
            // Whatever it says of its models, it is there. What a version cannot tell is not known.
            Ok(_) | Err(CallError::Garbled) => {
                self.answered_once = true;
                self.failures = 0;
                OllamaState::Ok
            }
            Err(CallError::Refused) => OllamaState::Down,
            Err(_) => {
                self.failures += 1;
                let certain = !self.answered_once || self.failures >= FAILURES_TO_HUNG;
                if certain { OllamaState::Hung } else { self.answers }
            }
        };
        if let Ok(answer) = asked {
            self.facts.loaded = api::models(&answer, Loaded::read);
        }
        self.settle();
    }

    /// What is told of the state: an Ollama that has not yet told its models is not ready, as an empty list would read as
    /// "no models", which nobody has said.
    fn settle(&mut self) {
        let unlisted = self.answers == OllamaState::Ok && !self.listed_once;
        self.facts.state = if unlisted { OllamaState::Hung } else { self.answers };
    }

    /// Logs what has changed since it was last told.
    fn tell(&mut self) {
        let now = (self.facts.state, self.facts.is_herd);
        if self.told == Some(now) {
            return;
        }
        let url = &self.url;
        match now {
            (_, true) => {} // Told by who would report it.
            (OllamaState::Ok, _) => {
                let (version, models) = (self.facts.version.as_str(), self.facts.available.len());
                tracing::info!(%url, version, models, "Ollama answers");
            }
            (OllamaState::Hung, _) if self.answers == OllamaState::Ok => {
                tracing::warn!(%url, "it answers and does not tell its models (GET /api/tags): is it an Ollama?");
            }
            (OllamaState::Hung, _) => tracing::warn!(%url, "Ollama takes connections and does not answer in time"),
            (OllamaState::Down, _) => tracing::warn!(
                %url,
                "nothing listens where Ollama should be: start it (ollama serve), or say where it is (--ollama-url, \
                 OLLAMA_HOST)"
            ),
        }
        self.told = Some(now);
    }

    /// Asks for version and models on disk. What fails stays as it was. True = the list is fresh.
    async fn refresh(&mut self) -> bool {
        let (version, tags) = tokio::join!(self.ask("api/version"), self.ask("api/tags"));
        if let Ok(answer) = version {
            let answer = Version::from(answer);
            (self.facts.version, self.facts.is_herd) = (answer.version, answer.is_herd);
        }
        self.listed_once |= tags.is_ok();
        self.settle();
        let Ok(tags) = tags else { return false };
        self.facts.available = newest(api::models(&tags, Tag::read));
        let present: HashSet<Key> = self.facts.available.iter().map(key).collect();
        self.shown.retain(|key, _| present.contains(key));
        self.fill_in();
        true
    }

    /// Adds what this version of Ollama tells only in `/api/show`.
    fn fill_in(&mut self) {
        for tag in &mut self.facts.available {
            let Some(details) = self.shown.get(&key(tag)).and_then(|shown| shown.details.as_ref()) else { continue };
            tag.details.context_length = tag.details.context_length.or(details.context_length);
            tag.details.embedding_length = tag.details.embedding_length.or(details.embedding_length);
            tag.capabilities = tag.capabilities.take().or_else(|| details.capabilities.clone());
            tag.num_ctx = details.num_ctx;
        }
    }

    /// The model to be asked about next: one whose list entry lacks what a recent Ollama tells there, those that were
    /// asked in vain last.
    fn next_question(&self) -> Option<Question> {
        let lacking = |tag: &&Tag| {
            let lacks = tag.capabilities.is_none() || tag.details.context_length.is_none();
            lacks && tag.remote_model.is_empty()
        };
        let open = |tag: &Tag| {
            let (key, shown) = (key(tag), self.shown.get(&key(tag)));
            match shown {
                None => Some((0, key)),
                Some(Shown { details: None, tries }) if *tries < SHOW_TRIES => Some((*tries, key)),
                Some(_) => None,
            }
        };
        let answers = self.facts.state == OllamaState::Ok;
        let (_, key) = self
            .facts
            .available
            .iter()
            .filter(|tag| answers && lacking(tag))
            .filter_map(open)
            .min_by_key(|(tries, _)| *tries)?;
        let url = self.url.join("api/show").ok()?;
        Some(Question { client: self.client.clone(), url, timeout: self.timeout, key })
    }

    /// Keeps an answer of `/api/show`.
    fn learn(&mut self, key: Key, details: Option<ShownDetails>) {
        let shown = self.shown.entry(key).or_default();
        shown.tries += 1;
        shown.details = details;
        self.fill_in();
    }

    async fn ask(&self, path: &str) -> Result<Value, CallError> {
        let url = self.url.join(path).map_err(|_| CallError::Garbled)?;
        get_json(&self.client, url, self.timeout, ANSWER_MAX_BYTES).await
    }
}

fn key(tag: &Tag) -> Key {
    (tag.name.clone(), tag.digest.clone())
}

/// At most [`MODELS_MAX`] models; where there are more, those that changed last.
fn newest(mut tags: Vec<Tag>) -> Vec<Tag> {
    if tags.len() > MODELS_MAX {
        tracing::warn!(models = tags.len(), reported = MODELS_MAX, "more models than an edge takes");
        tags.sort_by(|a, b| b.modified_at.cmp(&a.modified_at));
        tags.truncate(MODELS_MAX);
    }
    tags
}

/// Why a call brought nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CallError {
    /// Nobody listens there.
    #[error("no connection")]
    Refused,
    /// No whole answer in time.
    #[error("no answer in time")]
    Late,
    /// 503: it is there and cannot serve yet.
    #[error("not ready")]
    NotReady,
    /// Another status than 200, too long, or not the JSON that was asked for.
    #[error("an answer that makes no sense")]
    Garbled,
}

/// GETs JSON within `timeout`, of at most `max_bytes`.
pub(crate) async fn get_json<T: DeserializeOwned>(
    client: &Client,
    url: Url,
    timeout: Duration,
    max_bytes: usize,
) -> Result<T, CallError> {
    read_json(client.get(url).timeout(timeout), max_bytes).await
}

async fn read_json<T: DeserializeOwned>(request: reqwest::RequestBuilder, max_bytes: usize) -> Result<T, CallError> {
    let classify = |error: reqwest::Error| match () {
        () if error.is_timeout() => CallError::Late,
        () if error.is_connect() => CallError::Refused,
        () if error.status() == Some(StatusCode::SERVICE_UNAVAILABLE) => CallError::NotReady,
        () => CallError::Garbled,
    };
    let mut response = request.send().await.and_then(reqwest::Response::error_for_status).map_err(classify)?;
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(classify)? {
        if body.len() + chunk.len() > max_bytes {
            return Err(CallError::Garbled);
        }
        body.extend_from_slice(&chunk);
    }
    serde_json::from_slice(&body).map_err(|_| CallError::Garbled)
}

#[cfg(test)]
mod tests;
