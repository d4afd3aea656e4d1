//! Whether a request comes in at all, and what is read of it before a node is chosen.

use std::sync::Arc;

use herd_core::inspect::{InspectError, inspect, inspect_form};
use herd_core::path::{self, Reading};
use herd_core::request::{RequestProfile, Surface};
use http::Method;
use http::header::CONTENT_TYPE;
use pingora::http::RequestHeader;
use pingora_proxy::Session;

use super::access::KeyUse;
use super::body::{Held, hold};
use super::ctx::{Admitted, RequestCtx, requested_name};
use super::identify::{identify, note_caller};
use super::reply::Reply;
use super::{Edge, error};
use crate::budget::Budget;
use crate::config::Limits;
use crate::route::{Refusal, Route, route};
use crate::trace::{Status, Trace};

/// Inspecting a larger body than this leaves the worker thread to other requests.
const BLOCKING_INSPECT_BYTES: usize = 1 << 20;

/// Sends a client whose path is not clean to the path that is, as Ollama does. What has a body is to be sent again as
/// it was, not turned into a `GET`.
fn elsewhere(request: &RequestHeader) -> Result<(), Reply> {
    let (method, path) = (&request.method, request.uri.path());
    if method == Method::OPTIONS && path == "*" {
        return Err(Reply::empty(200));
    }
    let Reading::Moved(to) = path::read(method.as_str(), path) else { return Ok(()) };
    let status = if matches!(*method, Method::GET | Method::HEAD) { 301 } else { 307 };
    let query = request.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    Err(Reply::empty(status).header("Location", format!("{to}{query}")).closing())
}

/// What a header says of a form.
struct Form {
    content_type: String,
    query: Option<String>,
}

impl Form {
    fn of(request: &RequestHeader) -> Self {
        let content_type = request.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        Self { content_type: content_type.to_owned(), query: request.uri.query().map(str::to_owned) }
    }
}

impl Edge {
    /// Reads what is needed of a request; the reply is what it gets instead of being proxied.
    pub(super) async fn admit(&self, session: &mut Session, ctx: &mut RequestCtx) -> Result<(), Reply> {
        self.admit_host(session)?;
        self.admit_page(session, ctx)?;
        elsewhere(session.req_header())?;
        let origin = self.origin(session, ctx).await;
        let request = session.req_header();
        match route(&request.method, request.uri.path(), origin, self.config.now().admin_expose) {
            Route::Inference(surface) => self.admit_inference(session, ctx, surface).await,
            Route::CountTokens => Err(self.count_tokens(session).await),
            Route::Admin => self.admit_admin(session, ctx, origin).await,
            Route::Refused(Refusal::MethodNotAllowed) => {
                Err(Reply::new(405, "method not allowed").header("Allow", "POST").closing())
            }
            Route::Refused(Refusal::Forbidden) => {
                let from = origin.client.map(|ip| ip.to_string()).unwrap_or_default();
                let message =
                    format!("not allowed from {from}: see admin.expose, and fleet.networks for what is the LAN");
                Err(Reply::new(403, message).closing())
            }
            Route::Refused(Refusal::NotFound) => Err(Reply::new(404, "not found on this port").closing()),
        }
    }

    async fn admit_inference(
        &self,
        session: &mut Session,
        ctx: &mut RequestCtx,
        surface: Surface,
    ) -> Result<(), Reply> {
        let marks = std::mem::take(&mut ctx.marks);
        let mut trace = Trace::begin(ctx.request_id.clone(), surface, Arc::clone(self.recorder_of(&marks)));
        trace.benchmark = marks.benchmark;
        note_caller(session, &mut trace);
        if !marks.benchmark {
            self.driver.retries.earn();
        }
        let outcome = match self.enter(session, &marks, &mut trace) {
            Ok(key) => self.read(session, surface, key).await,
            Err(reply) => Err((Status::Rejected, reply)),
        };
        match outcome {
            Ok((profile, held, _key)) if profile.unloads => {
                let name = requested_name(&profile, &held);
                trace.wants(profile.model.as_str());
                Err(self.unload(&profile, &name, &mut trace).await)
            }
            Ok((profile, held, key)) => {
                for name in std::iter::once(&profile.model).chain(&profile.fallback_models) {
                    self.fleet.offer_remote(name);
                }
                let excluded = marks.others(&self.fleet.snapshot());
                let mut admitted = Admitted::new(profile, held, marks, key, trace);
                identify(session, &mut admitted);
                let class = admitted.class.name();
                let mut inference = admitted.begin(excluded, self.fleet.now_ms());
                let request_id = ctx.request_id.as_str().into();
                inference.live = Some(self.live.begin(request_id, class, &inference.life, &ctx.connection));
                ctx.connection.awaited().begin(self.driver.looker(inference.life.clone()));
                ctx.inference = Some(Box::new(inference));
                Ok(())
            }
            Err((status, reply)) => {
                trace.end(status, &reply.message);
                // Who has left is not told anything.
                trace.http_status = if status == Status::ClientDisconnected { 0 } else { reply.status };
                Err(reply)
            }
        }
    }

    /// Reads the body of a request within `limits` and `budget`; a refusal is counted.
    pub(super) async fn hold_body(
        &self,
        session: &mut Session,
        limits: &Limits,
        budget: &Budget,
    ) -> Result<Held, (Status, Reply)> {
        hold(session, limits, budget).await.map_err(|error| {
            if let Some(limit) = error.limit() {
                self.telemetry.body_refused(limit);
            }
            error::body(&error)
        })
    }

    pub(super) async fn read(
        &self,
        session: &mut Session,
        surface: Surface,
        key: Option<KeyUse>,
    ) -> Result<(RequestProfile, Held, Option<KeyUse>), (Status, Reply)> {
        if self.fleet.draining() {
            return Err((Status::Rejected, error::stopping()));
        }
        let held = self.hold_body(session, &self.config.now().limits, &self.budget).await?;
        let limits = self.config.now().inspect;
        let form = surface.takes_form().then(|| Form::of(session.req_header()));
        let look = move |bytes: &[u8]| match &form {
            Some(form) => inspect_form(surface, &form.content_type, form.query.as_deref(), bytes),
            None => inspect(surface, bytes, &limits),
        };
        let inspected = if held.bytes.len() < BLOCKING_INSPECT_BYTES {
            look(&held.bytes)
        } else {
            let bytes = held.bytes.clone();
            let task = tokio::task::spawn_blocking(move || look(&bytes));
            task.await.map_err(|_| (Status::Failed, Reply::new(500, "inspection was cut off")))?
        };
        let profile = inspected.map_err(|error| {
            let (status, message) = match (&error, &held.unknown_encoding) {
                (InspectError::Json(_), Some(encoding)) => {
                    (415, format!("content-encoding {encoding:?} is not supported"))
                }
                _ => error.told_on(surface),
            };
            (Status::Rejected, Reply::new(status, message).param(error.param()))
        })?;
        if let Some(key) = &key {
            key.take_prompt(&profile, self.fleet.now_ms()).map_err(|reply| (Status::Rejected, reply))?;
        }
        Ok((profile, held, key))
    }
}
