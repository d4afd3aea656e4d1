//! Requests that change what is on disk or in memory without running anything.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::stream;
use http::{Response, StatusCode, header};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{
    body::{self, Body},
    catalog::{Stored, shown_name},
    config::{SimModel, time_for},
    exchange::{Exchange, Failure},
    generate,
    node::Node,
    plan::Plan,
    scheduler::{KeepAlive, Want},
    surface::{ApiError, NativeError},
    text::hex_digest,
    wire,
};

/// Body of a request about models.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ManageAsk {
    model: Option<String>,
    name: Option<String>,
    from: Option<String>,
    files: Option<Map<String, Value>>,
    parameters: Option<Map<String, Value>>,
    source: Option<String>,
    destination: Option<String>,
    stream: Option<bool>,
}

impl ManageAsk {
    /// Reads `body`; an empty one is refused only by those who need it.
    pub(crate) fn parse(body: &[u8]) -> Result<Self, ApiError> {
        if body.is_empty() {
            return Err(ApiError::unreadable("missing request body"));
        }
        serde_json::from_slice(body).map_err(|error| {
            let text = if error.is_eof() { "unexpected EOF".to_owned() } else { error.to_string() };
            ApiError::unreadable(text)
        })
    }

    /// The model as the client spelled it.
    pub(crate) fn model(&self) -> &str {
        self.model.as_deref().filter(|model| !model.is_empty()).or(self.name.as_deref()).unwrap_or_default()
    }

    fn streams(&self) -> bool {
        self.stream.unwrap_or(true)
    }
}

#[derive(Serialize)]
struct Status<'a> {
    status: &'a str,
}

#[derive(Serialize)]
struct Progress<'a> {
    status: &'a str,
    digest: &'a str,
    total: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    completed: Option<u64>,
}

fn status(text: &str) -> Bytes {
    wire::ndjson(&Status { status: text })
}

/// A native request without a prompt: loads the model, or unloads it when `keep_alive` is zero.
pub(crate) async fn load_only(exchange: &Exchange, plan: Plan) -> Result<Response<Body>, Failure> {
    let unload = plan.want.keep_alive == Some(KeepAlive::For(Duration::ZERO));
    if unload {
        exchange.node.engine.unload(&plan.want.model);
    } else {
        let want = Want { slot: false, ..plan.want.clone() };
        drop(generate::acquire(exchange, want).await?);
    }
    let text = wire::empty_answer(&plan, exchange.node.clock, if unload { "unload" } else { "load" });
    let headers = [(header::CONTENT_TYPE, body::JSON_UTF8)];
    Ok(body::respond(StatusCode::OK, &headers, body::sized(text.into())))
}

/// `/api/copy`
pub(crate) fn copy(node: &Node, ask: &ManageAsk) -> Result<Response<Body>, ApiError> {
    let source = ask.source.as_deref().unwrap_or_default();
    let missing = || ApiError::new(StatusCode::NOT_FOUND, format!("model \"{source}\" not found"));
    let mut catalog = node.catalog_mut();
    let stored = catalog.find(source).ok_or_else(missing)?;
    let name = ask.destination.clone().unwrap_or_default();
    // A copy is the same manifest under another name: same digest, same weights.
    let digest = Some(stored.digest.clone());
    let copy = SimModel { name, digest, from: Some(stored.shown.clone()), ..stored.model.clone() };
    catalog.add(copy, node.clock.wall_now()).ok_or_else(|| ApiError::bad_request("destination is invalid"))?;
    Ok(body::empty(StatusCode::OK))
}

/// `/api/delete`
pub(crate) fn delete(node: &Node, ask: &ManageAsk) -> Result<Response<Body>, ApiError> {
    let name = ask.model();
    if node.catalog_mut().remove(name) { Ok(body::empty(StatusCode::OK)) } else { Err(ApiError::no_model(name)) }
}

/// `/api/create`, as far as making an alias goes, or a model of files that were sent before.
pub(crate) fn create(node: &Node, ask: &ManageAsk) -> Result<Response<Body>, ApiError> {
    if let Some(files) = ask.files.as_ref().filter(|files| !files.is_empty()) {
        return of_files(node, ask, files);
    }
    let from = ask.from.as_deref().filter(|from| !from.is_empty());
    let from = from.ok_or_else(|| ApiError::bad_request("neither 'from' or 'files' was specified"))?;
    let mut catalog = node.catalog_mut();
    let Some(base) = catalog.find(from) else {
        return Ok(failed(ask, "pull model manifest: file does not exist"));
    };
    let num_ctx = ask.parameters.as_ref().and_then(|parameters| parameters.get("num_ctx")).and_then(Value::as_u64);
    let num_ctx = num_ctx.and_then(|num_ctx| u32::try_from(num_ctx).ok()).or(base.model.num_ctx);
    let name = ask.model().to_owned();
    let alias = SimModel { name, num_ctx, digest: None, from: Some(base.shown.clone()), ..base.model.clone() };
    catalog.add(alias, node.clock.wall_now()).ok_or_else(|| ApiError::bad_request("invalid model name"))?;
    let layer = |digest: &str| status(&format!("using existing layer sha256:{digest}"));
    let mut lines = vec![layer(&base.blob), layer(&hex_digest("template")), layer(&hex_digest("parameters"))];
    lines.extend([status("writing manifest"), status("success")]);
    Ok(finished(ask, lines))
}

fn of_files(node: &Node, ask: &ManageAsk, files: &Map<String, Value>) -> Result<Response<Body>, ApiError> {
    let digests = files.values().filter_map(Value::as_str);
    if let Some(missing) = digests.into_iter().find(|digest| !node.blobs().contains(*digest)) {
        return Err(ApiError::bad_request(format!("blob {missing:?} does not exist")));
    }
    let model = SimModel { name: ask.model().to_owned(), ..SimModel::default() };
    let added = node.catalog_mut().add(model, node.clock.wall_now());
    added.ok_or_else(|| ApiError::bad_request("invalid model name"))?;
    Ok(finished(ask, vec![status("parsing GGUF"), status("writing manifest"), status("success")]))
}

/// The answer of something that was over at once.
fn finished(ask: &ManageAsk, lines: Vec<Bytes>) -> Response<Body> {
    if ask.streams() {
        let headers = [(header::CONTENT_TYPE, body::NDJSON)];
        return body::respond(StatusCode::OK, &headers, body::streamed(stream::iter(lines.into_iter().map(Ok))));
    }
    let text = super::json::to_vec(&Status { status: "success" });
    body::respond(StatusCode::OK, &[(header::CONTENT_TYPE, body::JSON)], body::sized(text.into()))
}

/// The answer of something that failed after the first status line.
fn failed(ask: &ManageAsk, error: &str) -> Response<Body> {
    let line = wire::ndjson(&NativeError { error });
    if ask.streams() {
        return finished(ask, vec![status("pulling manifest"), line]);
    }
    let text = line.slice(..line.len() - 1);
    let headers = [(header::CONTENT_TYPE, body::JSON)];
    body::respond(StatusCode::INTERNAL_SERVER_ERROR, &headers, body::sized(text))
}

/// `/api/push`: there is no registry.
pub(crate) fn push(ask: &ManageAsk) -> Response<Body> {
    failed(ask, "push: the simulated node has no registry")
}

/// `/api/blobs/{digest}`: takes every blob unseen and keeps its digest.
pub(crate) fn blob(node: &Node, method: &str, digest: &str) -> Response<Body> {
    if method == "POST" {
        let new = node.blobs().insert(digest.to_owned());
        return body::empty(if new { StatusCode::CREATED } else { StatusCode::OK });
    }
    body::empty(if node.blobs().contains(digest) { StatusCode::OK } else { StatusCode::NOT_FOUND })
}

/// Time between two lines of progress.
const PROGRESS_EVERY: Duration = Duration::from_millis(20);
/// Most lines of progress; a slower pull says less often.
const PROGRESS_LINES: u32 = 60;

/// `/api/pull`: takes its time, and leaves nothing if the client goes.
pub(crate) async fn pull(exchange: Exchange, ask: ManageAsk) -> Result<Response<Body>, Failure> {
    let node = Arc::clone(&exchange.node);
    let Some(model) = pullable(&node, ask.model()) else {
        return Ok(failed(&ask, "pull model manifest: file does not exist"));
    };
    if node.catalog().disk_bytes().saturating_add(model.model.size_bytes) > node.config.disk_bytes {
        return Ok(failed(&ask, "write /var/lib/ollama/models/blobs: no space left on device"));
    }
    let pulling = Pulling::new(node, &model);
    if ask.streams() {
        let headers = [(header::CONTENT_TYPE, body::NDJSON)];
        return Ok(body::respond(StatusCode::OK, &headers, pulling.into_body()));
    }
    pulling.run().await;
    Ok(finished(&ask, Vec::new()))
}

/// The model that a pull of `name` would bring.
fn pullable(node: &Node, name: &str) -> Option<Arc<Stored>> {
    let here = node.catalog().find(name);
    let wanted = herd_core::name::ModelName::new(name).ok()?;
    let is_it = |model: &&SimModel| herd_core::name::ModelName::new(&model.name).is_ok_and(|name| name == wanted);
    let from_library = || {
        let model = node.config.library.iter().find(is_it)?.clone();
        Some(Arc::new(Stored::new(
            wanted.clone(),
            SimModel { name: shown_name(&model.name), ..model },
            None,
            Duration::ZERO,
        )))
    };
    here.or_else(from_library)
}

/// A pull in progress: lines and when they are due, then the model.
struct Pulling {
    node: Arc<Node>,
    model: SimModel,
    lines: VecDeque<(Duration, Bytes)>,
    done: bool,
}

impl Pulling {
    fn new(node: Arc<Node>, stored: &Stored) -> Self {
        let total = stored.model.size_bytes;
        let here = node.catalog().find(&stored.shown).is_some();
        let time = if here { Duration::ZERO } else { time_for(total as f64, node.config.pull_bytes_per_s) };
        let started = node.clock.now();
        let digest = format!("sha256:{}", stored.blob);
        let text = format!("pulling {}", stored.blob.get(..12).unwrap_or_default());
        let progress = |completed| wire::ndjson(&Progress { status: &text, digest: &digest, total, completed });
        let steps =
            u32::try_from(time.as_millis() / PROGRESS_EVERY.as_millis()).unwrap_or(u32::MAX).clamp(1, PROGRESS_LINES);
        let mut lines = VecDeque::from([(started, status("pulling manifest")), (started, progress(None))]);
        for step in 1..=steps {
            let completed = total / u64::from(steps) * u64::from(step);
            let completed = if step == steps { total } else { completed };
            lines.push_back((started + time * step / steps, progress(Some(completed))));
        }
        for text in ["verifying sha256 digest", "writing manifest", "success"] {
            lines.push_back((started + time, status(text)));
        }
        Self { node, model: stored.model.clone(), lines, done: here }
    }

    async fn next(&mut self) -> Option<Bytes> {
        let (due, line) = self.lines.pop_front()?;
        let clock = self.node.clock;
        clock.wait_until(due).await;
        if self.lines.is_empty() && !self.done {
            // Before the last line, so that whoever reads it finds the model.
            self.done = true;
            self.node.catalog_mut().add(self.model.clone(), clock.wall_now());
        }
        Some(line)
    }

    async fn run(mut self) {
        while self.next().await.is_some() {}
    }

    fn into_body(self) -> Body {
        body::streamed(stream::unfold(self, |mut pulling| async move {
            let line = pulling.next().await?;
            Some((Ok(line), pulling))
        }))
    }
}
