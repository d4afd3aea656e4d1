//! The way of a request through Pingora's phases. Each phase is thin: what it decides is decided elsewhere.

mod access;
mod adapter;
pub mod admin;
mod admit;
mod answer;
mod attempt;
pub mod body;
pub mod cors;
mod count;
pub mod ctx;
mod end;
mod error;
mod guard;
mod identify;
pub mod life;
mod marks;
mod pull;
pub mod reply;
mod response_headers;
mod source;
mod unload;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use herd_admin::access::Keys;
use herd_admin::{Hosts, NodeCalls, Pulls};
use herd_core::access::Source;
use http::header;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType, Result};
use pingora_proxy::{FailToProxy, ProxyHttp, Session};

use crate::active::Active;
use crate::aliases::AliasKeeper;
use crate::budget::Budget;
use crate::config::LiveConfig;
use crate::connection::Connection;
use crate::fleet::Fleet;
use crate::live::Live;
use crate::record::Recorder;
use crate::route::dialect;
use crate::telemetry::Telemetry;
use admin::{AdminPlaces, ForAdmin};
use ctx::RequestCtx;
use life::Driver;
use marks::Marks;

/// How long a connection to the admin service is kept idle.
const ADMIN_IDLE: Duration = Duration::from_secs(10);
/// Longest silence of the admin service, which waits for nodes itself. Answers of nodes are watched by the edge.
const ADMIN_SILENCE: Duration = Duration::from_mins(10);

/// The edge. Cloning it shares all that it has.
#[derive(Clone)]
pub struct Edge {
    /// The configuration in force.
    pub config: LiveConfig,
    /// The nodes.
    pub fleet: Arc<Fleet>,
    /// Requests under way.
    pub active: Active,
    /// The same, one by one.
    pub live: Live,
    /// Bodies held.
    pub budget: Budget,
    /// Places at the admin service.
    pub admin_places: AdminPlaces,
    /// What the exchanges of requests are driven with.
    pub driver: Arc<Driver>,
    /// Pulls of models.
    pub pulls: Pulls,
    /// API keys.
    pub keys: Keys,
    /// Names and addresses that are ours.
    pub hosts: Hosts,
    /// Aliases of models on nodes.
    pub aliases: AliasKeeper,
    /// What nodes are asked besides.
    pub node_calls: NodeCalls,
    /// What is counted.
    pub telemetry: Arc<Telemetry>,
    /// Where traces go.
    pub recorder: Arc<Recorder>,
    /// Where those of benchmarks go, with counters that nobody reads.
    pub benchmarks: Arc<Recorder>,
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
        session.set_write_timeout(Some(self.config.now().limits.write_time));
        session.set_ignore_info_resp(true);
        guard::tidy(session.req_header_mut());
        if let Some(id) = guard::request_id(session.req_header()) {
            let given = self.live.name(&id, ctx::new_id);
            given.as_str().clone_into(&mut ctx.request_id);
            ctx.given_id = Some(given);
        }
        ctx.marks = Marks::take(session.req_header_mut(), &self.edge_secret);
        ctx.dialect = dialect(session.req_header().uri.path());
        Ok(())
    }

    async fn request_filter(&self, session: &mut Session, ctx: &mut RequestCtx) -> Result<bool> {
        let outcome = match guard::check(session, &self.config.now().limits) {
            Ok(()) => self.admit(session, ctx).await,
            Err(reply) => Err(reply),
        };
        let Err(reply) = outcome else { return Ok(false) };
        reply.send(session, ctx.dialect, &ctx.request_id, &ctx.fleet_headers()).await?;
        Ok(true)
    }

    async fn upstream_peer(&self, session: &mut Session, ctx: &mut RequestCtx) -> Result<Box<HttpPeer>> {
        if ctx.inference.is_none() {
            let mut peer = self.peer(self.admin, 0);
            peer.options.read_timeout = Some(ADMIN_SILENCE);
            if ctx.for_admin.as_ref().is_some_and(ForAdmin::streams) {
                // Its client is watched on one side, and the node on the other.
                peer.options.read_timeout = None;
                peer.options.write_timeout = Some(ADMIN_SILENCE);
            }
            // Well below the time after which the admin service closes an idle connection: a mutation must not meet
            // that moment.
            peer.options.idle_timeout = Some(ADMIN_IDLE);
            return Ok(Box::new(peer));
        }
        self.begin_attempt(session, ctx).await
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        ctx: &mut RequestCtx,
    ) -> Result<()> {
        let Some(outgoing) = ctx.inference.as_ref().and_then(|inference| inference.outgoing.as_ref()) else {
            return self.forward_to_admin(session, request, ctx);
        };
        for name in [header::TRANSFER_ENCODING, header::EXPECT, header::CONTENT_ENCODING, header::ORIGIN] {
            request.remove_header(&name);
        }
        // What a request says to herd alone.
        for name in ["X-Herd-Tags", "X-Fleet-Priority", "X-Fleet-No-Fallback"] {
            request.remove_header(name);
        }
        access::take_credentials_out(request, self.config.now().upstream.forward_authorization);
        // Ollama refuses host names that are not its own.
        request.insert_header(header::HOST, outgoing.address.to_string())?;
        request.insert_header(header::CONTENT_LENGTH, outgoing.length)?;
        request.insert_header(header::ACCEPT_ENCODING, "identity")?;
        request.insert_header("X-Request-Id", &ctx.request_id)?;
        request.append_header(header::VIA, herd_admin::via::MARK.as_str())?;
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
        if let Some(outgoing) = ctx.inference.as_mut().and_then(|inference| inference.outgoing.as_mut()) {
            *body = outgoing.bytes.take();
        } else if let Some(for_admin) = &mut ctx.for_admin {
            for_admin.send_body(body);
        }
        Ok(())
    }

    async fn upstream_response_filter(
        &self,
        _session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut RequestCtx,
    ) -> Result<()> {
        let Some(inference) = &mut ctx.inference else { return Ok(()) };
        if response.status.is_informational() {
            // It says nothing of the answer, and is not passed on.
            return Ok(());
        }
        response_headers::restrict(response, inference.profile.surface, inference.profile.stream)?;
        self.accept_or_retry(ctx, response)
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut RequestCtx,
    ) -> Result<()> {
        if session.req_header().version < http::Version::HTTP_11 {
            // Such a client does not know chunks; the end of the connection ends its answer.
            response.remove_header(&header::TRANSFER_ENCODING);
        }
        for (name, value) in ctx.fleet_headers() {
            response.insert_header(name, value)?;
        }
        Ok(())
    }

    fn response_body_filter(
        &self,
        _session: &mut Session,
        body: &mut Option<Bytes>,
        end_of_stream: bool,
        ctx: &mut RequestCtx,
    ) -> Result<Option<Duration>> {
        self.pass_answer(ctx, body, end_of_stream)?;
        Ok(None)
    }

    fn fail_to_connect(
        &self,
        _session: &mut Session,
        _peer: &HttpPeer,
        ctx: &mut RequestCtx,
        mut error: Box<Error>,
    ) -> Box<Error> {
        let retry = self.retry_after_connect(ctx, &error);
        error.set_retry(retry);
        error
    }

    fn error_while_proxy(
        &self,
        peer: &HttpPeer,
        _session: &mut Session,
        error: Box<Error>,
        ctx: &mut RequestCtx,
        client_reused: bool,
    ) -> Box<Error> {
        let mut error = error.more_context(format!("peer {peer}"));
        let retry = self.retry_after_error(ctx, &error, client_reused);
        error.set_retry(retry);
        error
    }

    async fn fail_to_proxy(&self, session: &mut Session, error: &Error, ctx: &mut RequestCtx) -> FailToProxy {
        let error_code = self.tell_failure(session, error, ctx).await;
        // The client's body has been read whole, but after an error nothing else is sure of the connection.
        FailToProxy { error_code, can_reuse_downstream: false }
    }

    async fn logging(&self, _session: &mut Session, error: Option<&Error>, ctx: &mut RequestCtx) {
        if let Some(inference) = &mut ctx.inference {
            self.note_end(inference, error);
        }
    }

    fn suppress_error_log(&self, _session: &Session, _ctx: &RequestCtx, _error: &Error) -> bool {
        // Every request has its own line at its end.
        true
    }
}

impl Edge {
    fn recorder_of(&self, marks: &Marks) -> &Arc<Recorder> {
        if marks.benchmark { &self.benchmarks } else { &self.recorder }
    }

    /// What counts a request of `marks`.
    fn telemetry_of(&self, marks: &Marks) -> &Telemetry {
        if marks.benchmark { &self.benchmarks.telemetry } else { &self.telemetry }
    }

    fn peer(&self, address: SocketAddr, body_bytes: usize) -> HttpPeer {
        let mut peer = HttpPeer::new(address, false, String::new());
        let upstream = &self.config.now().upstream;
        peer.options.connection_timeout = Some(upstream.connect_timeout);
        peer.options.total_connection_timeout = Some(upstream.connect_timeout);
        // One body is one write, so its time follows its size: 1 MiB/s at the least.
        peer.options.write_timeout = Some(Duration::from_secs(10 + (body_bytes >> 20) as u64));
        peer.options.idle_timeout = Some(upstream.keepalive_idle);
        peer.options.http_upstream_request_policy.h1_upgrade = pingora::upstreams::peer::H1UpgradePolicy::Deny;
        peer
    }

    fn forward_to_admin(&self, session: &Session, request: &mut RequestHeader, ctx: &mut RequestCtx) -> Result<()> {
        if let Some(for_admin) = &mut ctx.for_admin {
            for_admin.prepare(request)?;
        }
        let client = client_ip(session).map(|ip| ip.to_string()).unwrap_or_default();
        request.insert_header("X-Forwarded-For", client)?;
        request.insert_header(herd_admin::EDGE_SECRET_HEADER, &self.edge_secret)?;
        let source = ctx.for_admin.as_ref().map_or(Source::Proxied, ForAdmin::source);
        request.insert_header(herd_admin::SOURCE_HEADER, herd_admin::source_name(source))?;
        request.insert_header("X-Request-Id", &ctx.request_id)?;
        Ok(())
    }
}

fn client_address(session: &Session) -> Option<SocketAddr> {
    session.client_addr().and_then(|address| address.as_inet()).copied()
}

fn client_ip(session: &Session) -> Option<IpAddr> {
    client_address(session).map(|address| address.ip().to_canonical())
}

/// An error of ours that ends the request; `ctx.reply` says what the client is told.
#[expect(clippy::unnecessary_box_returns, reason = "Pingora's errors are boxed")]
fn refused(why: &'static str) -> Box<Error> {
    Error::explain(ErrorType::InternalError, why)
}
