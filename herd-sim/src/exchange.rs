//! One request from its head to its answer.

use std::{io, sync::Arc};

use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;

use super::{
    body::{self, Body},
    connection::Connection,
    control, dispatch,
    engine::Lease,
    fault::{FaultKind, Struck},
    generate, guard,
    node::Node,
    route::{self, Route},
    slots::Pace,
    stats::SeenRequest,
    surface::ApiError,
};

/// Most bytes of a request's body.
const BODY_LIMIT: usize = 1 << 30;

/// What a request carries with it while it is answered.
#[derive(Debug)]
pub(crate) struct Exchange {
    pub(crate) node: Arc<Node>,
    pub(crate) connection: Arc<Connection>,
    /// The fault that struck it.
    pub(crate) struck: Option<Struck>,
}

/// Why there is no ordinary answer.
#[derive(Debug)]
pub(crate) enum Failure {
    /// An error in the surface's form.
    Api(ApiError),
    /// The connection ends.
    Cut(io::Error),
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        Self::Api(error)
    }
}

impl Exchange {
    /// Prepares the cut of the connection, with everything written so far on its way.
    pub(crate) async fn cut(&self, kind: FaultKind) -> io::Error {
        // Handing control back once lets hyper flush what it holds.
        tokio::task::yield_now().await;
        if kind == FaultKind::Reset {
            self.connection.reset_on_close();
        }
        generate::cut_error()
    }

    /// The fault that struck it.
    pub(crate) fn fault(&self) -> FaultKind {
        self.struck.as_ref().map_or(FaultKind::None, |struck| struck.fault.fault)
    }

    /// How much slower it is than usual.
    pub(crate) fn slowness(&self) -> f64 {
        self.struck.as_ref().map_or(1.0, |struck| struck.fault.slowness())
    }

    /// Waits while the engine hangs, with the request in its slot if it has one.
    pub(crate) async fn hang(&mut self, slot: Option<(&Lease, Pace)>) {
        let hung = |struck: &&mut Struck| struck.fault.fault == FaultKind::HangBeforeFirstByte;
        let Some(struck) = self.struck.as_mut().filter(hung) else { return };
        if let Some((lease, pace)) = slot {
            lease.set_pace(pace.frozen_after(0));
        }
        struck.lifted().await;
    }

    /// What a fault does before the request is looked at.
    pub(crate) async fn strike_early(&self) -> Result<(), Failure> {
        let Some(struck) = &self.struck else { return Ok(()) };
        match struck.fault.fault {
            FaultKind::Error400 => return Err(ApiError::bad_request("simulated refusal of the request").into()),
            FaultKind::Error500 => {
                return Err(ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "simulated failure of the node").into());
            }
            FaultKind::Busy503 => return Err(ApiError::busy().into()),
            FaultKind::Reset if struck.fault.after_chunks.is_none() => {
                return Err(Failure::Cut(self.cut(FaultKind::Reset).await));
            }
            _ => {}
        }
        Ok(())
    }
}

/// Answers one request; an error ends the connection without an answer.
pub(crate) async fn serve(
    node: Arc<Node>,
    connection: Arc<Connection>,
    request: Request<Incoming>,
) -> io::Result<Response<Body>> {
    let (head, incoming) = request.into_parts();
    if control::is_path(head.uri.path()) {
        return Ok(control::serve(&node, &head, incoming).await);
    }
    let mut flight = node.recorder.begin();
    let result = respond(node, connection, &head, incoming).await;
    // Only a client that leaves drops the future before this line.
    if result.is_err() || head.method == Method::HEAD {
        flight.complete();
    }
    Ok(result?.map(|body| body::tracked(body, flight)))
}

async fn respond(
    node: Arc<Node>,
    connection: Arc<Connection>,
    head: &http::request::Parts,
    incoming: Incoming,
) -> io::Result<Response<Body>> {
    let route = route::find(&head.method, head.uri.path());
    let inference = matches!(route, Route::To(endpoint, _) if endpoint.is_inference());
    let struck = node.faults.strike(inference);
    let mut exchange = Exchange { node, connection, struck };
    let mut seen = SeenRequest::of_head(head);
    if let Some(struck) = &mut exchange.struck {
        exchange.node.recorder.struck(struck.fault.fault);
        if struck.fault.fault == FaultKind::Stall {
            // A frozen process reads nothing either.
            exchange.node.recorder.saw(seen.clone());
            struck.lifted().await;
        }
    }
    if let Some(refusal) = guard::check(head, exchange.node.config.listen.ip().is_loopback()) {
        exchange.node.recorder.saw(seen);
        return Ok(refusal);
    }
    let bytes = Limited::new(incoming, BODY_LIMIT).collect().await.map_err(io::Error::other)?.to_bytes();
    seen.set_body(&bytes);
    let mut response = dispatch::answer(exchange, seen, route, bytes).await?;
    guard::allow_origin(&head.headers, &mut response);
    Ok(response)
}
