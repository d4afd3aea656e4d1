//! The way of a request through Pingora's phases. Each phase is thin: what it decides is decided elsewhere.

mod admit;
pub mod body;
pub mod ctx;
mod error;
mod guard;
pub mod reply;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use herd_admin::FleetSource as _;
use herd_core::protect::{ContextAction, Protection};
use http::header;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorSource, ErrorType, Result};
use pingora_proxy::{FailToProxy, ProxyHttp, Session};

use crate::active::Active;
use crate::config::Config;
use crate::connection::Connection;
use crate::fleet::Fleet;
use crate::route::dialect;
use crate::selector::{Choice, Selector};
use crate::trace::Status;
use body::Budget;
use ctx::{Inference, RequestCtx};

/// A node that failed counts as this slow, so that fast failures do not look like speed.
const FAILURE_PENALTY_MS: f64 = 60_000.0;

/// How long a connection to the admin service is kept idle.
const ADMIN_IDLE: Duration = Duration::from_secs(10);

/// The edge.
pub struct Edge {
    /// The configuration.
    pub config: Arc<Config>,
    /// The nodes.
    pub fleet: Arc<Fleet>,
    /// Chooses among them.
    pub selector: Selector,
    /// Requests under way.
    pub active: Active,
    /// Bodies held.
    pub budget: Budget,
    /// Where the admin service listens.
    pub admin: SocketAddr,
    /// What tells the admin service that a request comes through the edge.
    pub edge_secret: String,
}

#[async_trait]
impl ProxyHttp for Edge {
    type CTX = RequestCtx;

    fn new_ctx(&self) -> RequestCtx {
        RequestCtx::new(Connection::current())
    }

    async fn early_request_filter(&self, session: &mut Session, ctx: &mut RequestCtx) -> Result<()> {
        ctx.connection.request_began();
        ctx.active = Some(self.active.begin());
        session.set_write_timeout(Some(self.config.limits.write_time));
        if let Some(id) = guard::request_id(session.req_header()) {
            ctx.request_id = id;
        }
        ctx.dialect = dialect(session.req_header().uri.path());
        Ok(())
    }

    async fn request_filter(&self, session: &mut Session, ctx: &mut RequestCtx) -> Result<bool> {
        let outcome = match guard::check(session, &self.config.limits) {
            Ok(()) => self.admit(session, ctx).await,
            Err(reply) => Err(reply),
        };
        let Err(reply) = outcome else { return Ok(false) };
        if let Some(inference) = &mut ctx.inference {
            inference.trace.http_status = reply.status;
        }
        reply.send(session, ctx.dialect, &ctx.request_id, &ctx.fleet_headers()).await?;
        Ok(true)
    }

    async fn upstream_peer(&self, _session: &mut Session, ctx: &mut RequestCtx) -> Result<Box<HttpPeer>> {
        let Some(inference) = &mut ctx.inference else {
            let mut peer = self.peer(self.admin, 0);
            // Well below the time after which the admin service closes an idle connection: a mutation must not meet
            // that moment.
            peer.options.idle_timeout = Some(ADMIN_IDLE);
            return Ok(Box::new(peer));
        };
        let choice = match inference.next.take() {
            Some(choice) => choice,
            None => match self.selector.choose(&inference.profile, &inference.tried) {
                Ok(choice) => choice,
                Err(nobody) => {
                    ctx.reply = Some(error::nobody(inference, &nobody.0, &nobody.1));
                    return Error::e_explain(ErrorType::InternalError, "no node can serve the request");
                }
            },
        };
        let address = choice.node().address;
        self.warn_of_reload(&ctx.request_id, &choice);
        inference.begin_attempt(choice);
        let body_bytes = inference.attempt.as_ref().map_or(0, |attempt| attempt.body_bytes);
        Ok(Box::new(self.peer(address, body_bytes)))
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        ctx: &mut RequestCtx,
    ) -> Result<()> {
        let Some(attempt) = ctx.inference.as_ref().and_then(|inference| inference.attempt.as_ref()) else {
            return self.forward_to_admin(session, request, ctx);
        };
        for name in [header::TRANSFER_ENCODING, header::EXPECT, header::CONTENT_ENCODING, header::ORIGIN] {
            request.remove_header(&name);
        }
        // Ollama refuses host names that are not its own.
        request.insert_header(header::HOST, attempt.choice.node().address.to_string())?;
        request.insert_header(header::CONTENT_LENGTH, attempt.body_bytes)?;
        request.insert_header(header::ACCEPT_ENCODING, "identity")?;
        request.insert_header("X-Request-Id", &ctx.request_id)?;
        Ok(())
    }

    async fn request_body_filter(
        &self,
        _session: &mut Session,
        body: &mut Option<Bytes>,
        _end_of_stream: bool,
        ctx: &mut RequestCtx,
    ) -> Result<()> {
        // What Pingora has is the tail of the client's body, or a stand-in for it; what goes out is ours.
        if let Some(attempt) = ctx.inference.as_mut().and_then(|inference| inference.attempt.as_mut()) {
            *body = attempt.body.take();
        }
        Ok(())
    }

    async fn upstream_response_filter(
        &self,
        _session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut RequestCtx,
    ) -> Result<()> {
        let status = response.status.as_u16();
        let Some(inference) = &mut ctx.inference else { return Ok(()) };
        self.judge(inference, status);
        // A node may have lost the model that it reported; others are asked before the client is told.
        if matches!(status, 404 | 500 | 502 | 503 | 504) && self.plan_retry(inference) {
            let error = Error::explain(ErrorType::HTTPStatus(status), "the node answered with an error");
            let mut error = error.into_up();
            error.set_retry(true);
            return Err(error);
        }
        inference.held = None;
        inference.trace.http_status = status;
        Ok(())
    }

    async fn response_filter(
        &self,
        _session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut RequestCtx,
    ) -> Result<()> {
        for (name, value) in ctx.fleet_headers() {
            response.insert_header(name, value)?;
        }
        Ok(())
    }

    fn response_body_filter(
        &self,
        _session: &mut Session,
        body: &mut Option<Bytes>,
        _end_of_stream: bool,
        ctx: &mut RequestCtx,
    ) -> Result<Option<Duration>> {
        if let (Some(inference), Some(chunk)) = (&mut ctx.inference, body)
            && !chunk.is_empty()
        {
            let age_ms = inference.trace.age_ms();
            inference.trace.ttft_ms.get_or_insert(age_ms);
            inference.trace.response_bytes += chunk.len();
        }
        Ok(None)
    }

    fn fail_to_connect(
        &self,
        _session: &mut Session,
        _peer: &HttpPeer,
        ctx: &mut RequestCtx,
        mut error: Box<Error>,
    ) -> Box<Error> {
        let retry = ctx.inference.as_mut().is_some_and(|inference| {
            self.failed(inference);
            self.plan_retry(inference)
        });
        error.set_retry(retry);
        error
    }

    fn error_while_proxy(
        &self,
        peer: &HttpPeer,
        session: &mut Session,
        error: Box<Error>,
        ctx: &mut RequestCtx,
        _client_reused: bool,
    ) -> Box<Error> {
        let mut error = error.more_context(format!("peer {peer}"));
        // An answer that made us retry has been judged and the next peer chosen; `retry()` must not be asked here, as
        // it panics while undecided.
        let decided = matches!(error.etype, ErrorType::HTTPStatus(_));
        let unanswered = *error.esource() == ErrorSource::Upstream && session.response_written().is_none();
        let retry = unanswered
            && ctx.inference.as_mut().is_some_and(|inference| {
                if decided {
                    return inference.next.is_some();
                }
                self.failed(inference);
                self.plan_retry(inference)
            });
        error.set_retry(retry);
        error
    }

    async fn fail_to_proxy(&self, session: &mut Session, error: &Error, ctx: &mut RequestCtx) -> FailToProxy {
        let answered = session.response_written().is_some();
        let reply = ctx.reply.take().unwrap_or_else(|| error::reply(error));
        if let Some(inference) = &mut ctx.inference {
            let status = match error.esource() {
                ErrorSource::Downstream => Status::ClientDisconnected,
                _ if answered => Status::Incomplete,
                _ => Status::Failed,
            };
            inference.end(status, &reply.message);
            if !answered {
                inference.trace.http_status = reply.status;
            }
        }
        if !answered && *error.esource() != ErrorSource::Downstream {
            let sent = reply.send(session, ctx.dialect, &ctx.request_id, &ctx.fleet_headers()).await;
            if let Err(error) = sent {
                tracing::debug!(%error, "the client left before its error");
            }
        }
        // The client's body has been read whole, but after an error nothing else is sure of the connection.
        FailToProxy { error_code: reply.status, can_reuse_downstream: false }
    }

    async fn logging(&self, _session: &mut Session, error: Option<&Error>, ctx: &mut RequestCtx) {
        let Some(inference) = &mut ctx.inference else { return };
        let status = match error {
            Some(error) if *error.esource() == ErrorSource::Downstream => Status::ClientDisconnected,
            Some(_) => Status::Failed,
            None if inference.trace.http_status >= 400 => Status::Failed,
            None => Status::Completed,
        };
        inference.end(status, &error.map(ToString::to_string).unwrap_or_default());
        if inference.trace.status == Some(Status::Completed)
            && let Some(attempt) = &inference.attempt
            && let Some(model) = attempt.choice.model()
        {
            let service_ms = attempt.began.elapsed().as_secs_f64() * 1e3;
            model.load.observe(service_ms, self.fleet.now_ms());
        }
    }

    fn suppress_error_log(&self, _session: &Session, _ctx: &RequestCtx, _error: &Error) -> bool {
        // Every request has its own line at its end.
        true
    }
}

impl Edge {
    fn peer(&self, address: SocketAddr, body_bytes: usize) -> HttpPeer {
        let mut peer = HttpPeer::new(address, false, String::new());
        let upstream = &self.config.upstream;
        peer.options.connection_timeout = Some(upstream.connect_timeout);
        peer.options.total_connection_timeout = Some(upstream.connect_timeout);
        peer.options.read_timeout = Some(upstream.read_timeout);
        // One body is one write, so its time follows its size: 1 MiB/s at the least.
        peer.options.write_timeout = Some(Duration::from_secs(10 + (body_bytes >> 20) as u64));
        peer.options.idle_timeout = Some(upstream.keepalive_idle);
        peer.options.http_upstream_request_policy.h1_upgrade = pingora::upstreams::peer::H1UpgradePolicy::Deny;
        peer
    }

    /// In the mode `warn` a client's `num_ctx` is forwarded, and the operator is told what it does.
    fn warn_of_reload(&self, request_id: &str, choice: &Choice) {
        let plan = &choice.candidate.plan;
        if self.config.policy.protection == Protection::Warn && plan.action == ContextAction::Reload {
            let (node_id, model) = (choice.node().id.as_str(), choice.model.as_str());
            tracing::warn!(request_id, node_id, model, num_ctx = plan.window, "num_ctx makes the model reload");
        }
    }

    fn forward_to_admin(&self, session: &Session, request: &mut RequestHeader, ctx: &RequestCtx) -> Result<()> {
        let client = client_ip(session).map(|ip| ip.to_string()).unwrap_or_default();
        request.insert_header("X-Forwarded-For", client)?;
        request.insert_header(herd_admin::EDGE_SECRET_HEADER, &self.edge_secret)?;
        request.insert_header("X-Request-Id", &ctx.request_id)?;
        Ok(())
    }

    /// Claims another node for the next attempt, if there may be one and there is one.
    fn plan_retry(&self, inference: &mut Inference) -> bool {
        if inference.trace.attempts < self.config.max_attempts {
            inference.next = self.selector.choose(&inference.profile, &inference.tried).ok();
        }
        inference.next.is_some()
    }

    /// Takes the node's answer as a sign of its health.
    fn judge(&self, inference: &mut Inference, status: u16) {
        match status {
            500 | 502 | 504 => self.failed(inference),
            // Busy is not broken, and what the client did wrong is not the node's fault.
            503 => {}
            _ => {
                if let Some(attempt) = &inference.attempt {
                    attempt.choice.node().load.succeeded();
                }
            }
        }
    }

    fn failed(&self, inference: &mut Inference) {
        let Some(attempt) = &inference.attempt else { return };
        let now_ms = self.fleet.now_ms();
        attempt.choice.node().load.failed(now_ms);
        if let Some(model) = attempt.choice.model() {
            model.load.observe(FAILURE_PENALTY_MS, now_ms);
        }
    }
}

fn client_ip(session: &Session) -> Option<IpAddr> {
    session.client_addr().and_then(|address| address.as_inet()).map(|address| address.ip().to_canonical())
}
