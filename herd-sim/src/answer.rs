//! One request from its head to its answer.

use std::{io, sync::Arc};

use http::{Method, Request, Response};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;

use super::{
    body::{self, Body},
    control, dispatch,
    exchange::Exchange,
    fault::FaultKind,
    guard,
    node::Node,
    route::{self, Route},
    socket::Connection,
    stats::SeenRequest,
};

/// Most bytes of a request's body.
const BODY_LIMIT: usize = 1 << 30;

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
