//! `POST /fleet/explain`: what the edge would do with a request, and why, without doing it.

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, Request, State};
use axum::response::Response;
use herd_core::explain::{Explanation, explain as explain_profile};
use herd_core::inspect::inspect;
use herd_core::request::Surface;
use http::StatusCode;
use serde::Deserialize;

use crate::answer::{JSON, json};
use crate::body;
use crate::refusal::Refusal;
use crate::state::AdminState;

/// Which API the body was written for. It is not guessed from the body, as bodies of several APIs look alike:
/// `?path=/v1/chat/completions` or `?surface=openai_chat`; without either it is `/api/chat`.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Question {
    path: Option<String>,
    surface: Option<String>,
}

/// Explains the decision about the request in the body.
pub(crate) async fn explain(
    State(state): State<AdminState>,
    question: Result<Query<Question>, QueryRejection>,
    request: Request,
) -> Result<Response, Refusal> {
    let Query(question) = question.map_err(|error| Refusal::bad_request("query", error.body_text()))?;
    let surface = surface(&question)?;
    let busy = |_| Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "busy", "too many explanations at a time");
    let _permit = state.explanations().try_acquire().map_err(busy)?;
    let config = state.config();
    let body = body::read(request.into_body(), config.explain_body_bytes, config.body_timeout).await?;
    let worker = state.clone();
    // Scanning tens of megabytes would keep this thread from everybody else's answers.
    let explained = tokio::task::spawn_blocking(move || explained(&worker, surface, &body)).await;
    let failed = |_| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the explanation failed");
    Ok(json(StatusCode::OK, JSON, &explained.map_err(failed)??))
}

fn surface(question: &Question) -> Result<Surface, Refusal> {
    let surface = match (&question.path, &question.surface) {
        (Some(_), Some(_)) => None,
        (Some(path), None) => Surface::at(path),
        (None, Some(name)) => Surface::ALL.into_iter().find(|one| one.name() == name),
        (None, None) => Some(Surface::OllamaChat),
    };
    surface.ok_or_else(|| {
        let names: Vec<_> =
            Surface::ALL.iter().map(|surface| format!("{}={}", surface.name(), surface.path())).collect();
        let message = format!("give one of ?surface= or ?path= with one of: {}", names.join(", "));
        Refusal::bad_request("unknown_surface", message)
    })
}

fn explained(state: &AdminState, surface: Surface, body: &[u8]) -> Result<Explanation, Refusal> {
    let profile = inspect(surface, body, &state.config().inspect)
        .map_err(|error| Refusal::bad_request("invalid_request", error.to_string()))?;
    let view = state.view();
    Ok(explain_profile(&view.snapshot, &profile, &view.policy, view.now_ms))
}
