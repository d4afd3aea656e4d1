//! `GET /dashboard/api/health` and its history; `POST` to acknowledge, mute and unmute a finding.

use axum::extract::{Request, State};
use axum::response::Response;
use herd_core::health::{Finding, Key, Mute, Severity, Value};
use herd_store::{DAY_MS, HealthScore};
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};

use super::look;
use crate::answer::{JSON, json};
use crate::body;
use crate::guard::Operator;
use crate::history::{Ask, told};
use crate::refusal::Refusal;
use crate::state::AdminState;
use herd_store::unix_ms;

/// Largest body: a name and a time.
const BODY_BYTES: usize = 4 << 10;
/// Longest mute.
const MUTE_MAX_MS: u64 = 400 * DAY_MS;
/// And when nothing is said.
const MUTE_MS: u64 = DAY_MS;

#[derive(Serialize)]
struct Health {
    score: u8,
    status: herd_core::health::Overall,
    summary: String,
    critical: usize,
    warning: usize,
    info: usize,
    muted: usize,
    checks: usize,
    evaluations: u64,
    findings: Vec<Told>,
}

#[derive(Serialize)]
struct Told {
    id: String,
    check: String,
    title: String,
    severity: Severity,
    node_id: Option<String>,
    model: Option<String>,
    detail: String,
    evidence: Vec<Evidence>,
    fix: String,
    first_seen_unix_ms: u64,
    last_seen_unix_ms: u64,
    state: &'static str,
    acknowledged_unix_ms: Option<u64>,
    muted_until_unix_ms: Option<u64>,
}

#[derive(Serialize)]
struct Evidence {
    name: String,
    value: Value,
}

impl From<Finding> for Told {
    fn from(finding: Finding) -> Self {
        let state = match (finding.muted_until_ms, finding.acknowledged_at_ms) {
            (Some(_), _) => "muted",
            (None, Some(_)) => "acknowledged",
            (None, None) => "open",
        };
        Self {
            id: id_of(&finding.key),
            title: finding.title,
            severity: finding.severity,
            detail: finding.detail,
            evidence: finding.evidence.into_iter().map(|(name, value)| Evidence { name, value }).collect(),
            fix: finding.fix,
            first_seen_unix_ms: finding.first_seen_ms,
            last_seen_unix_ms: finding.last_seen_ms,
            state,
            acknowledged_unix_ms: finding.acknowledged_at_ms,
            muted_until_unix_ms: finding.muted_until_ms,
            check: finding.key.check,
            node_id: finding.key.node_id,
            model: finding.key.model,
        }
    }
}

/// `check|node|model`, shorter when it is about less.
fn id_of(key: &Key) -> String {
    let (node, model) = (key.node_id.as_deref().unwrap_or(""), key.model.as_deref().unwrap_or(""));
    format!("{}|{node}|{model}", key.check).trim_end_matches('|').to_owned()
}

/// What `id` is about.
fn key_of(id: &str) -> Key {
    let mut parts = id.splitn(3, '|');
    let mut part = || parts.next().filter(|part| !part.is_empty()).map(str::to_owned);
    Key { check: part().unwrap_or_default(), node_id: part(), model: part() }
}

/// What the checks find.
pub(crate) async fn health(State(state): State<AdminState>, ask: Ask, headers: HeaderMap) -> Response {
    let report = state.checks().report();
    let answer = Health {
        score: report.score,
        status: report.status,
        summary: report.summary,
        critical: report.critical,
        warning: report.warning,
        info: report.info,
        muted: report.muted,
        checks: report.checks,
        evaluations: report.evaluations,
        findings: report.findings.into_iter().map(Told::from).collect(),
    };
    told(&ask, &headers, &answer, "findings")
}

#[derive(Serialize)]
struct History {
    points: Vec<HealthScore>,
}

/// The score over time, of the last day when nothing is said; without a store, that of this process.
pub(crate) async fn history(
    State(state): State<AdminState>,
    ask: Ask,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let now_ms = unix_ms();
    let (from_ms, to_ms) = ask.span()?.unwrap_or((now_ms.saturating_sub(DAY_MS), now_ms.saturating_add(1)));
    let points = match &state.config().store {
        Some(store) => store.scores(from_ms, to_ms).await.map_err(|error| state.store_refusal(&error))?,
        None => state.checks().points(from_ms, to_ms),
    };
    Ok(told(&ask, &headers, &History { points }, "points"))
}

#[derive(Serialize)]
struct Looked {
    score: u8,
    evaluations: u64,
}

/// Looks at once, for who has just changed something. What a check wants to see several times it still does.
pub(crate) async fn check(State(state): State<AdminState>, _: Operator) -> Response {
    look(&state, true).await;
    let report = state.checks().report();
    json(StatusCode::OK, JSON, &Looked { score: report.score, evaluations: report.evaluations })
}

#[derive(Deserialize)]
struct About {
    finding: String,
    until_unix_ms: Option<u64>,
}

async fn about(state: &AdminState, request: Request) -> Result<About, Refusal> {
    let body = body::read(request.into_body(), BODY_BYTES, state.config().body_timeout).await?;
    // What was known before a restart must not take the place of what is said now.
    state.checks().restore(state.config().store.as_ref()).await;
    serde_json::from_slice(&body).map_err(|error| Refusal::bad_request("invalid_request", body::json_error(&error)))
}

#[derive(Serialize)]
struct Done {
    finding: String,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    muted_until_unix_ms: Option<u64>,
}

fn unknown() -> Refusal {
    Refusal::not_found("unknown_finding", "there is no open finding of that id")
}

/// Somebody knows of a finding. It counts as before.
pub(crate) async fn acknowledge(
    State(state): State<AdminState>,
    operator: Operator,
    request: Request,
) -> Result<Response, Refusal> {
    let About { finding, .. } = about(&state, request).await?;
    let key = key_of(&finding);
    state.checks().change(|findings| findings.acknowledge(&key, unix_ms())).ok_or_else(unknown)?;
    Ok(done(
        &state,
        &operator,
        "health_acknowledge",
        Done { finding, state: "acknowledged", muted_until_unix_ms: None },
    )
    .await)
}

/// Nobody wants to hear of a finding until `until_unix_ms`, a day from now when nothing is said.
pub(crate) async fn mute(
    State(state): State<AdminState>,
    operator: Operator,
    request: Request,
) -> Result<Response, Refusal> {
    let About { finding, until_unix_ms } = about(&state, request).await?;
    let now_ms = unix_ms();
    let until_ms = until_unix_ms.unwrap_or(now_ms.saturating_add(MUTE_MS)).min(now_ms.saturating_add(MUTE_MAX_MS));
    if until_ms <= now_ms {
        return Err(Refusal::bad_request("until_unix_ms", "until_unix_ms must be in the future"));
    }
    let mute = mute_of(&finding, until_ms);
    let failed = || Refusal::not_found("unknown_finding", "there is no such check, or too much is muted already");
    state.checks().change(|findings| findings.mute(mute)).ok_or_else(failed)?;
    Ok(done(&state, &operator, "health_mute", Done { finding, state: "muted", muted_until_unix_ms: Some(until_ms) })
        .await)
}

/// A finding is heard of again.
pub(crate) async fn unmute(
    State(state): State<AdminState>,
    operator: Operator,
    request: Request,
) -> Result<Response, Refusal> {
    let About { finding, .. } = about(&state, request).await?;
    let mute = mute_of(&finding, 0);
    state.checks().change(|findings| Some(findings.unmute(&mute)));
    Ok(done(&state, &operator, "health_unmute", Done { finding, state: "open", muted_until_unix_ms: None }).await)
}

fn mute_of(finding: &str, until_ms: u64) -> Mute {
    let key = key_of(finding);
    Mute { check: key.check, node_id: key.node_id, model: key.model, until_ms }
}

async fn done(state: &AdminState, operator: &Operator, action: &'static str, done: Done) -> Response {
    state.checks().save(state.config().store.as_ref()).await;
    state.audit(&operator.actor, action, &done.finding, "");
    json(StatusCode::OK, JSON, &done)
}
