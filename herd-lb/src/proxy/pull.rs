//! A request for a model that no node has: it is pulled to the node where it fits best, while the client waits.
//!
//! A client that streams is kept alive with status lines in its own protocol once the pull has taken a moment; that
//! commits the status, so that whatever comes then is told in the body. Others are told to come back.

use std::time::Duration;

use bytes::Bytes;
use herd_admin::{FailureKind, PullAsk, PullHandle, PullPhase, PullReason, PullState};
use herd_core::answer::{Progress, comment, status_line};
use herd_core::exchange::Event;
use herd_core::fleet::FleetSnapshot;
use herd_core::name::ModelName;
use herd_core::pull::PullRefusal;
use http::header::{CONTENT_TYPE, TRANSFER_ENCODING};
use pingora::Error;
use pingora::http::ResponseHeader;
use pingora_proxy::Session;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};

use super::adapter::client_leaves;
use super::ctx::{Inference, RequestCtx};
use super::reply::Reply;
use super::response_headers::{kind, mark_as_data};
use super::{Edge, error};
use crate::trace::Status;

/// How long a client waits without a sign: a pull that fails at once still gets its own status.
const GRACE: Duration = Duration::from_secs(2);
/// Time between two signs of life.
const SIGN_OF_LIFE: Duration = Duration::from_secs(1);
/// How long a pulled model may take to be reported by its node.
const REPORTED_WITHIN: Duration = Duration::from_secs(15);
/// How often the fleet is looked at meanwhile.
const LOOK: Duration = Duration::from_millis(100);

/// Why a model was not pulled.
pub(super) enum Unpulled {
    /// The client left.
    Left(Box<Error>),
    /// It cannot be had, at least not now; how the request ends by it, and what the client is told.
    Failed(Status, Reply),
}

impl Edge {
    /// Pulls the model that the request asks for. `Ok` = a node has it now.
    pub(super) async fn pull_missing(&self, session: &mut Session, ctx: &mut RequestCtx) -> Result<(), Unpulled> {
        let request_id = ctx.request_id.clone();
        let Some(inference) = &mut ctx.inference else { return Ok(()) };
        if let Some(why) = self.fleet.why_empty() {
            return Err(Unpulled::Failed(
                Status::Rejected,
                error::not_found(inference, &self.fleet.snapshot(), Some(&why)),
            ));
        }
        let model = inference.profile.model.clone();
        let ask = PullAsk::new(&model, PullReason::Auto { request_id }).spelled(&inference.model_as_requested);
        let mut handle =
            self.pulls.start(ask).map_err(|refusal| refused(inference, &self.fleet.snapshot(), &refusal))?;
        self.telemetry.auto_pull();
        let state = tokio::select! {
            biased;
            state = timeout(GRACE, handle.finished()) => state.ok(),
            left = client_leaves(session) => return Err(Unpulled::Left(left)),
        };
        let state = match state {
            Some(state) => state,
            None if inference.profile.stream => self.keep_alive(session, ctx, &mut handle).await?,
            None => return Err(come_back(&model, &handle)),
        };
        let Some(inference) = &mut ctx.inference else { return Ok(()) };
        match state.phase {
            PullPhase::Succeeded => self.until_reported(session, &model).await,
            phase => Err(failed(inference, &self.fleet.snapshot(), &phase)),
        }
    }

    /// Sends signs of life until the pull is over.
    async fn keep_alive(
        &self,
        session: &mut Session,
        ctx: &mut RequestCtx,
        handle: &mut PullHandle,
    ) -> Result<PullState, Unpulled> {
        self.commit(session, ctx, handle).await.map_err(|error| Unpulled::Left(error.into_down()))?;
        let mut signs = interval_at(Instant::now(), SIGN_OF_LIFE);
        signs.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let deadline = tokio::time::sleep(self.config.now().pull_wait);
        tokio::pin!(deadline);
        loop {
            tokio::select! {
                biased;
                state = handle.finished() => return Ok(state),
                left = client_leaves(session) => return Err(Unpulled::Left(left)),
                () = &mut deadline => return Err(come_back(&handle.model.clone(), handle)),
                _ = signs.tick() => {
                    let sign = sign_of_life(ctx.inference.as_deref(), &handle.progress.borrow());
                    let sent = session.write_response_body(sign, false).await;
                    sent.map_err(|error| Unpulled::Left(error.into_down()))?;
                }
            }
        }
    }

    /// Sends the head of a streamed answer, before it is known which.
    async fn commit(&self, session: &mut Session, ctx: &mut RequestCtx, handle: &PullHandle) -> pingora::Result<()> {
        let fleet = ctx.fleet_headers();
        let Some(inference) = &mut ctx.inference else { return Ok(()) };
        let kind = kind(inference.profile.surface, true, None);
        let mut header = ResponseHeader::build(200, Some(8))?;
        header.insert_header(CONTENT_TYPE, kind)?;
        mark_as_data(&mut header)?;
        if session.req_header().version >= http::Version::HTTP_11 {
            header.insert_header(TRANSFER_ENCODING, "chunked")?;
        }
        header.insert_header("X-Fleet-Pull", handle.node_id.as_str())?;
        for (name, value) in fleet {
            header.insert_header(name, value)?;
        }
        session.write_response_header(Box::new(header), false).await?;
        drop(self.step(inference, Event::HeadSent));
        Ok(())
    }

    /// Waits until a node reports the model that was pulled to it.
    async fn until_reported(&self, session: &mut Session, model: &ModelName) -> Result<(), Unpulled> {
        let reported = async {
            while !self.is_known(model) {
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::select! {
            biased;
            outcome = timeout(REPORTED_WITHIN, reported) => outcome.map_err(|_| {
                let reply = Reply::new(503, format!("{model} has been pulled but its node does not report it yet"));
                Unpulled::Failed(Status::Failed, reply.retry_after(5))
            }),
            left = client_leaves(session) => Err(Unpulled::Left(left)),
        }
    }

    /// Whether any node has the model, one that is away included.
    pub(super) fn is_known(&self, model: &ModelName) -> bool {
        self.fleet.snapshot().nodes.iter().any(|node| node.model(model).is_some())
    }
}

fn sign_of_life(inference: Option<&Inference>, state: &PullState) -> Option<Bytes> {
    let inference = inference?;
    let surface = inference.profile.surface;
    let created_at = herd_admin::now_rfc3339();
    let status = format!("pulling {}: {}", inference.model_as_requested, told(state));
    let progress = Progress { model: &inference.model_as_requested, created_at: &created_at, status: &status };
    status_line(surface, &progress).map(Bytes::from).or_else(|| comment(surface).map(Bytes::from_static))
}

/// How far a pull is, for people.
fn told(state: &PullState) -> String {
    match state.total_bytes.filter(|total| *total > 0) {
        Some(total) => {
            let percent = state.completed_bytes.min(total) as f64 / total as f64 * 100.0;
            format!("{percent:.0} % of {:.1} GB", total as f64 / 1e9)
        }
        None => state.phase.name().to_owned(),
    }
}

fn come_back(model: &ModelName, handle: &PullHandle) -> Unpulled {
    let far = told(&handle.progress.borrow());
    let message = format!("{model} is being pulled to {} ({far}); try again", handle.node_id);
    Unpulled::Failed(Status::Rejected, Reply::new(503, message).retry_after(15))
}

/// Why no pull is begun: what cannot be had is not found, what is busy may be had later.
fn refused(inference: &Inference, snapshot: &FleetSnapshot, refusal: &PullRefusal) -> Unpulled {
    let reply = match refusal {
        PullRefusal::Disabled | PullRefusal::NoNode => error::not_found(inference, snapshot, None),
        PullRefusal::BackingOff { retry_after_ms, .. } => {
            error::not_found(inference, snapshot, Some(&refusal.to_string())).retry_after_ms(*retry_after_ms as f64)
        }
        PullRefusal::DayIsFull { .. } => Reply::new(503, refusal.to_string()).retry_after(600),
        PullRefusal::Busy | PullRefusal::TooMany { .. } => Reply::new(503, refusal.to_string()).retry_after(30),
        _ => error::not_found(inference, snapshot, Some(&refusal.to_string())),
    };
    Unpulled::Failed(Status::Rejected, reply)
}

fn failed(inference: &Inference, snapshot: &FleetSnapshot, phase: &PullPhase) -> Unpulled {
    let why = phase.error().unwrap_or("the pull was cancelled").to_owned();
    let unknown = matches!(phase, PullPhase::Failed(failure) if failure.kind == FailureKind::UnknownModel);
    let reply = match phase {
        _ if unknown => error::not_found(inference, snapshot, Some(&why)),
        PullPhase::Failed(failure) if failure.kind == FailureKind::TooLarge => {
            error::not_found(inference, snapshot, Some(&why))
        }
        _ => Reply::new(503, format!("{} could not be pulled: {why}", inference.model_as_requested)).retry_after(30),
    };
    // A name that no registry knows is the client's mistake, not the fleet's.
    Unpulled::Failed(if unknown { Status::Rejected } else { Status::Failed }, reply)
}
