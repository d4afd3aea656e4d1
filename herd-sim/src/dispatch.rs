//! From a request that has been read to whoever answers it.

use std::{io, sync::Arc};

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};

use super::{
    body::{self, Body},
    embed,
    exchange::{Exchange, Failure},
    fault::FaultKind,
    generate, listing, manage,
    plan::{self, Plan},
    request::Ask,
    route::{Endpoint, Route},
    stats::SeenRequest,
    surface::{ApiError, Surface},
    transcribe, wire,
};

/// Answers a request that has been read; an error ends the connection.
pub(crate) async fn answer(
    exchange: Exchange,
    seen: SeenRequest,
    route: Route<'_>,
    body: Bytes,
) -> io::Result<Response<Body>> {
    let Route::To(endpoint, rest) = route else {
        return Ok(astray(&exchange, seen, route));
    };
    match dispatch(exchange, seen, endpoint, rest, &body).await {
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
    mut exchange: Exchange,
    mut seen: SeenRequest,
    endpoint: Endpoint,
    rest: &str,
    body: &[u8],
) -> Result<Response<Body>, Failure> {
    let node = Arc::clone(&exchange.node);
    if let Endpoint::Generate(surface) | Endpoint::Embed(surface) = endpoint {
        return infer(exchange, seen, surface, endpoint, body).await;
    }
    if endpoint == Endpoint::Transcribe {
        seen.model = transcribe::field(body, "model").unwrap_or_default();
        node.recorder.saw(seen);
        return transcribe::run(exchange, body).await;
    }
    let manage = manage::ManageAsk::parse(body);
    if let Ok(ask) = &manage {
        ask.model().clone_into(&mut seen.model);
    }
    let method = seen.method.clone();
    node.recorder.saw(seen);
    exchange.strike_early().await?;
    exchange.hang(None).await;
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
        Endpoint::Blob => manage::blob(&node, &method, rest),
        Endpoint::Generate(_) | Endpoint::Embed(_) | Endpoint::Transcribe => {
            return Err(ApiError::bad_request("not here").into());
        }
    };
    Ok(response)
}

fn plain_text(text: &'static str) -> Response<Body> {
    let headers = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
    body::respond(StatusCode::OK, &headers, body::sized(Bytes::from_static(text.as_bytes())))
}

/// Runs a model.
async fn infer(
    mut exchange: Exchange,
    mut seen: SeenRequest,
    surface: Surface,
    endpoint: Endpoint,
    body: &[u8],
) -> Result<Response<Body>, Failure> {
    let node = Arc::clone(&exchange.node);
    let ask = Ask::parse(body, surface);
    if let Ok(ask) = &ask {
        ask.model().clone_into(&mut seen.model);
        (seen.num_ctx, seen.stream) = (ask.num_ctx(), ask.stream);
    }
    node.recorder.saw(seen);
    exchange.strike_early().await?;
    let ask = ask?;
    if exchange.fault() == FaultKind::NotFound {
        return Err(plan::missing(ask.model(), surface).into());
    }
    ask.check(surface)?;
    let model = plan::find_model(&node.catalog(), &ask, surface)?;
    if matches!(endpoint, Endpoint::Embed(_)) {
        return embed::run(exchange, &ask, surface, model).await;
    }
    let plan = Plan::new(&ask, surface, model, &node.config)?;
    if plan.only_loads() {
        exchange.hang(None).await;
        return manage::load_only(&exchange, plan).await;
    }
    generate::run(exchange, plan).await
}
