//! `GET /dashboard/api/apps`, `/apps/daily` and `/usage`: who asked.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::response::Response;
use herd_store::{Asker, GroupBy, ModelShare, UsageRow};
use http::HeaderMap;
use serde::Serialize;

use super::ask::Ask;
use super::shapes::Totals;
use super::told;
use crate::refusal::Refusal;
use crate::state::AdminState;
use crate::time;

#[derive(Serialize)]
struct Askers {
    apps: Vec<AppRow>,
    tags: Vec<TagRow>,
    keys: Vec<KeyRow>,
}

#[derive(Serialize)]
struct AppRow {
    app: String,
    #[serde(flatten)]
    row: Row,
}

#[derive(Serialize)]
struct TagRow {
    tag: String,
    #[serde(flatten)]
    row: Row,
}

#[derive(Serialize)]
struct KeyRow {
    key_id: String,
    /// Its name for people; null = there is no such key any more.
    key_name: Option<String>,
    #[serde(flatten)]
    row: Row,
}

#[derive(Serialize)]
struct Row {
    #[serde(flatten)]
    totals: Totals,
    top_models: Vec<ModelShare>,
}

fn named_row(asker: Asker) -> (String, Row) {
    (asker.name, Row { totals: (&asker.summary).into(), top_models: asker.top_models })
}

/// The applications of a range, whose requests add up to all, and its tags and API keys, whose do not. `list=tags` and
/// `list=keys` = CSV of those.
pub(crate) async fn apps(State(state): State<AdminState>, ask: Ask, headers: HeaderMap) -> Result<Response, Refusal> {
    let told_by = state.store()?.apps(ask.range()?).await.map_err(|error| state.store_refusal(&error))?;
    let keys = told_by.keys.into_iter().map(named_row);
    let answer = Askers {
        apps: told_by.apps.into_iter().map(named_row).map(|(app, row)| AppRow { app, row }).collect(),
        tags: told_by.tags.into_iter().map(named_row).map(|(tag, row)| TagRow { tag, row }).collect(),
        keys: keys.map(|(key_id, row)| KeyRow { key_name: state.keys().name_of(&key_id), key_id, row }).collect(),
    };
    let rows = match ask.text("list").as_deref() {
        Some("tags") => "tags",
        Some("keys") => "keys",
        _ => "apps",
    };
    Ok(told(&ask, &headers, &answer, rows))
}

#[derive(Serialize)]
struct Days {
    days: Vec<AppDay>,
}

#[derive(Serialize)]
struct AppDay {
    day: String,
    app: String,
    requests: u64,
    tokens: u64,
    errors: u64,
}

/// The applications of a range by day, in UTC.
pub(crate) async fn daily(State(state): State<AdminState>, ask: Ask, headers: HeaderMap) -> Result<Response, Refusal> {
    let days = state.store()?.apps_daily(ask.range()?).await.map_err(|error| state.store_refusal(&error))?;
    let days = days.into_iter().map(|one| AppDay {
        day: time::day(one.day_bucket),
        app: one.app,
        requests: one.summary.requests,
        tokens: one.summary.total_tokens,
        errors: one.summary.errors,
    });
    Ok(told(&ask, &headers, &Days { days: days.collect() }, "days"))
}

#[derive(Serialize)]
struct Usage {
    group_by: GroupBy,
    from_unix_ms: u64,
    to_unix_ms: u64,
    /// Of that what has passed: what rates are made with.
    passed_ms: u64,
    rows: Vec<Group>,
    truncated: bool,
}

#[derive(Serialize)]
struct Group {
    /// What is common to the group: all of `names`.
    key: String,
    #[serde(flatten)]
    names: BTreeMap<&'static str, String>,
    #[serde(flatten)]
    totals: Totals,
}

impl From<UsageRow> for Group {
    fn from(row: UsageRow) -> Self {
        let day = row.day_bucket.map(time::day);
        let names = [
            ("day", day),
            ("node_id", row.node_id),
            ("model", row.model),
            ("app", row.app),
            ("surface", row.original_format),
        ];
        let names: Vec<_> = names.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
        let key = names.iter().map(|(_, value)| value.as_str()).collect::<Vec<_>>().join(" ");
        Self { key, names: names.into_iter().collect(), totals: (&row.summary).into() }
    }
}

/// The requests of a range in groups.
pub(crate) async fn usage(State(state): State<AdminState>, ask: Ask, headers: HeaderMap) -> Result<Response, Refusal> {
    let group_by = match ask.text("group_by").as_deref() {
        None | Some("model") => GroupBy::Model,
        Some("node") => GroupBy::Node,
        Some("app") => GroupBy::App,
        Some("day") => GroupBy::Day,
        Some("surface") => GroupBy::Surface,
        Some("node_model") => GroupBy::NodeModel,
        Some("node_model_day") => GroupBy::NodeModelDay,
        Some(_) => {
            let message = "group_by must be one of node, model, app, day, surface, node_model, node_model_day";
            return Err(Refusal::bad_request("group_by", message));
        }
    };
    let range = ask.range()?;
    let usage = state.store()?.usage(group_by, range).await.map_err(|error| state.store_refusal(&error))?;
    let (from_unix_ms, to_unix_ms) = (range.from_ms(), range.to_ms());
    let answer = Usage {
        group_by,
        from_unix_ms,
        to_unix_ms,
        passed_ms: ask.now_ms().clamp(from_unix_ms, to_unix_ms) - from_unix_ms,
        rows: usage.data.into_iter().map(Group::from).collect(),
        truncated: usage.truncated,
    };
    Ok(told(&ask, &headers, &answer, "rows"))
}
