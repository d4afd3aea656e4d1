//! One request from its head to its answer.

use std::{io, sync::Arc};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;

use super::{
    body::{self, Body},
    connection::Connection,
    control, embed,
    fault::{Fault, FaultKind},
    generate, guard, listing, manage,
    node::Node,
    plan::{self, Plan},
    request::Ask,
    route::{self, Endpoint, Route},
    stats::SeenRequest,
    surface::{ApiError, Surface},
    wire,
};

/// Most bytes of a request's body.
const BODY_LIMIT: usize = 1 << 30;

/// What a request carries with it while it is answered.
#[derive(Debug)]
pub(crate) struct Exchange {
    pub(crate) node: Arc<Node>,
    pub(crate) connection: Arc<Connection>,
    /// The fault that struck it.
    pub(crate) fault: Option<Fault>,
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

    /// What a fault does before the request is looked at.
    async fn strike_early(&self) -> Result<(), Failure> {
        let Some(fault) = &self.fault else { return Ok(()) };
        match fault.fault {
            FaultKind::HangBeforeFirstByte => {
                self.node.faults.changed().await;
                Ok(())
            }
            FaultKind::Error500 => {
                Err(ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "simulated failure of the node").into())
            }
            FaultKind::Busy503 => Err(ApiError::busy().into()),
            FaultKind::Reset if fault.after_chunks.is_none() => Err(Failure::Cut(self.cut(fault.fault).await)),
            _ => Ok(()),
        }
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
    let route = route::find(&head.method, head.uri.path());
    let inference = matches!(route, Route::To(endpoint, _) if endpoint.is_inference());
    let fault = node.faults.strike(inference);
    if let Some(fault) = &fault {
        node.recorder.struck(fault.fault);
    }
    let exchange = Exchange { node, connection, fault };
    let mut seen = SeenRequest::of_head(&head);
    if exchange.fault.as_ref().is_some_and(|fault| fault.fault == FaultKind::Stall) {
        // A frozen process reads nothing either.
        exchange.node.recorder.saw(seen.clone());
        exchange.node.faults.changed().await;
    }
    if let Some(refusal) = guard::check(&head, exchange.connection.is_loopback()) {
        exchange.node.recorder.saw(seen);
        return Ok(refusal);
    }
    let bytes = Limited::new(incoming, BODY_LIMIT).collect().await.map_err(io::Error::other)?.to_bytes();
    seen.set_body(&bytes);
    let answer = answer(exchange, seen, route, bytes).await;
    // Only a client that leaves drops the future before this line.
    if answer.is_err() || head.method == Method::HEAD {
        flight.complete();
    }
    let mut response = answer?.map(|body| body::tracked(body, flight));
    guard::allow_origin(&head.headers, &mut response);
    Ok(response)
}

async fn answer(exchange: Exchange, seen: SeenRequest, route: Route<'_>, body: Bytes) -> io::Result<Response<Body>> {
    let Route::To(endpoint, rest) = route else {
        return Ok(astray(&exchange, seen, route));
    };
    let result = dispatch(exchange, seen, endpoint, rest, &body).await;
    match result {
        Ok(response) => Ok(response),
        Err(Failure::Api(error)) => Ok(error.respond(endpoint.surface().dialect())),
        Err(Failure::Cut(error)) => Err(error),
    }
}

/// The answer to a path or method that is not there.
fn astray(exchange: &Exchange, seen: SeenRequest, route: Route<'_>) -> Response<Body> {
    let get = matches!(seen.method.as_str(), "GET" | "HEAD");
    exchange.node.recorder.saw(seen);
    match route {
        Route::WrongMethod(allowed) => {
            let mut response = body::plain(StatusCode::METHOD_NOT_ALLOWED, "405 method not allowed");
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allowed));
            response
        }
        Route::Redirect(path) => {
            let status = if get { StatusCode::MOVED_PERMANENTLY } else { StatusCode::TEMPORARY_REDIRECT };
            let text = if get { format!("<a href=\"{path}\">Moved Permanently</a>.\n\n") } else { String::new() };
            let html = [(header::CONTENT_TYPE, "text/html; charset=utf-8")];
            let mut response = body::respond(status, &html, body::sized(text.into()));
            response.headers_mut().insert(header::LOCATION, wire::header_value(path));
            response
        }
        _ => body::plain(StatusCode::NOT_FOUND, "404 page not found"),
    }
}

async fn dispatch(
    exchange: Exchange,
    mut seen: SeenRequest,
    endpoint: Endpoint,
    rest: &str,
    body: &[u8],
) -> Result<Response<Body>, Failure> {
    let node = Arc::clone(&exchange.node);
    if let Endpoint::Generate(surface) | Endpoint::Embed(surface) = endpoint {
        let ask = Ask::parse(body, surface);
        if let Ok(ask) = &ask {
            ask.model().clone_into(&mut seen.model);
            (seen.num_ctx, seen.stream) = (ask.num_ctx(), ask.stream);
        }
        node.recorder.saw(seen);
        return infer(exchange, ask, surface, endpoint).await;
    }
    let manage = manage::ManageAsk::parse(body);
    if let Ok(ask) = &manage {
        ask.model().clone_into(&mut seen.model);
    }
    node.recorder.saw(seen);
    exchange.strike_early().await?;
    let response = match endpoint {
        Endpoint::Root => plain_text("Ollama is running"),
        Endpoint::Version => listing::version(&node),
        Endpoint::Status => listing::status(),
        Endpoint::Tags => listing::tags(&node),
        Endpoint::Ps => listing::ps(&node),
        Endpoint::Show => listing::show(&node, &manage?)?,
        Endpoint::V1Models => listing::v1_models(&node),
        Endpoint::V1Model => listing::v1_model(&node, rest)?,
        Endpoint::Copy => manage::copy(&node, &manage?)?,
        Endpoint::Delete => manage::delete(&node, &manage?)?,
        Endpoint::Create => manage::create(&node, &manage?)?,
        Endpoint::Pull => return manage::pull(exchange, manage?).await,
        Endpoint::Push => manage::push(&manage?),
        Endpoint::Blob => manage::blob(rest),
        Endpoint::Generate(_) | Endpoint::Embed(_) => return Err(ApiError::bad_request("not here").into()),
    };
    Ok(response)
}

fn plain_text(text: &'static str) -> Response<Body> {
    let headers = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
    body::respond(StatusCode::OK, &headers, body::sized(Bytes::from_static(text.as_bytes())))
}

async fn infer(
    exchange: Exchange,
    ask: Result<Ask, ApiError>,
    surface: Surface,
    endpoint: Endpoint,
) -> Result<Response<Body>, Failure> {
    exchange.strike_early().await?;
    let ask = ask?;
    let node = Arc::clone(&exchange.node);
    if exchange.fault.as_ref().is_some_and(|fault| fault.fault == FaultKind::NotFound) {
        return Err(ApiError::no_model(ask.model()).into());
    }
    if surface == Surface::V1Chat && ask.messages.as_ref().is_none_or(Vec::is_empty) {
        return Err(ApiError::unreadable("[] is too short - 'messages'").into());
    }
    let model = plan::find_model(&node.catalog(), &ask, surface)?;
    if matches!(endpoint, Endpoint::Embed(_)) {
        return embed::run(exchange, &ask, surface, model).await;
    }
    let plan = Plan::new(&ask, surface, model, &node.config)?;
    if plan.only_loads() {
        let response = manage::load_only(&exchange, plan).await?;
        return Ok(response);
    }
    generate::run(exchange, plan).await
}
