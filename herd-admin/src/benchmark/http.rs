//! `/dashboard/api/benchmarks` and what is under it.

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use http::{HeaderMap, StatusCode};
use serde::Serialize;
use serde_json::{Map, Value};

use super::ask::{BenchmarkAsk, BenchmarkRefusal};
use super::record::BenchmarkRun;
use crate::answer::{JSON, json};
use crate::body;
use crate::guard::Operator;
use crate::history::{Ask, told};
use crate::refusal::Refusal;
use crate::state::AdminState;

/// Largest body of a start.
const BODY_MAX_BYTES: usize = 64 << 10;
/// Most runs in one answer.
const RUNS_MAX: usize = 1_000;
/// And when nothing is said.
const RUNS: usize = 50;

#[derive(Serialize)]
struct Runs {
    runs: Vec<BenchmarkRun>,
}

/// `GET /dashboard/api/benchmarks`: the runs, the latest first, the one under way included. `limit` is clamped.
pub(crate) async fn list(State(state): State<AdminState>, ask: Ask, headers: HeaderMap) -> Result<Response, Refusal> {
    let most = ask.number("limit", 1, RUNS_MAX as u64)?.map_or(RUNS, |most| usize::try_from(most).unwrap_or(RUNS_MAX));
    let benchmarks = state.benchmarks().clone();
    let runs = tokio::task::spawn_blocking(move || benchmarks.list(most)).await.map_err(|_| cut())?;
    Ok(told(&ask, &headers, &Runs { runs }, "runs"))
}

/// `GET /dashboard/api/benchmarks/{run_id}`: one run with what was measured so far.
pub(crate) async fn show(
    State(state): State<AdminState>,
    run_id: Result<Path<String>, PathRejection>,
) -> Result<Response, Refusal> {
    let unknown = || Refusal::not_found("unknown_run", "there is no benchmark of that id");
    let Path(run_id) = run_id.map_err(|_| unknown())?;
    let benchmarks = state.benchmarks().clone();
    let record = tokio::task::spawn_blocking(move || benchmarks.find(&run_id)).await.map_err(|_| cut())?;
    Ok(json(StatusCode::OK, JSON, &record.ok_or_else(unknown)?))
}

/// `GET /dashboard/api/benchmarks/progress`: of the run under way; `null` = there is none.
pub(crate) async fn progress(State(state): State<AdminState>) -> Response {
    json(StatusCode::OK, JSON, &state.benchmarks().progress())
}

#[derive(Serialize)]
struct Begun {
    run_id: String,
}

/// `POST /dashboard/api/benchmarks/start`: begins a run.
pub(crate) async fn start(
    State(state): State<AdminState>,
    operator: Operator,
    request: Request,
) -> Result<Response, Refusal> {
    let body = body::read(request.into_body(), BODY_MAX_BYTES, state.config().body_timeout).await?;
    // An array would do for the fields in their order.
    let fields: Result<Map<String, Value>, _> = serde_json::from_slice(&body);
    let ask = fields.and_then(|fields| serde_json::from_value(Value::Object(fields)));
    let ask: BenchmarkAsk = ask.map_err(|error| Refusal::bad_request("invalid_request", body::json_error(&error)))?;
    let run_id = state.benchmarks().start(&ask, &state.view()).map_err(|refusal| refused(&refusal))?;
    state.audit(&operator.actor, "benchmark_start", &run_id, "");
    Ok(json(StatusCode::ACCEPTED, JSON, &Begun { run_id }))
}

fn refused(refusal: &BenchmarkRefusal) -> Refusal {
    let (status, code) = match refusal {
        BenchmarkRefusal::Invalid { .. } => (StatusCode::BAD_REQUEST, "invalid_request"),
        BenchmarkRefusal::UnknownNode(_) => (StatusCode::NOT_FOUND, "unknown_node"),
        BenchmarkRefusal::UnknownModel(_) => (StatusCode::NOT_FOUND, "unknown_model"),
        BenchmarkRefusal::Nothing => (StatusCode::CONFLICT, "nothing_to_measure"),
        BenchmarkRefusal::Busy { .. } => (StatusCode::CONFLICT, "benchmark_running"),
        BenchmarkRefusal::Stopping => (StatusCode::SERVICE_UNAVAILABLE, "stopping"),
    };
    Refusal::new(status, code, refusal.to_string())
}

#[derive(Serialize)]
struct Cancelled {
    run_id: String,
    cancelled: bool,
}

/// `POST /dashboard/api/benchmarks/cancel`: ends the run under way; what it has measured is kept.
pub(crate) async fn cancel(State(state): State<AdminState>, operator: Operator) -> Result<Response, Refusal> {
    let (benchmarks, reason) = (state.benchmarks().clone(), format!("cancelled by {}", operator.caller.ip));
    let cancelled = tokio::task::spawn_blocking(move || benchmarks.cancel(&reason)).await.map_err(|_| cut())?;
    let Some(run_id) = cancelled else {
        return Err(Refusal::new(StatusCode::CONFLICT, "no_benchmark", "no benchmark is under way"));
    };
    state.audit(&operator.actor, "benchmark_cancel", &run_id, "");
    Ok(json(StatusCode::OK, JSON, &Cancelled { run_id, cancelled: true }))
}

fn cut() -> Refusal {
    Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the answer was cut off")
}
