//! Single requests: pages of them, and one with its attempts.

use std::time::{Duration, Instant};

use herd_core::record::RequestRecord;
use herd_core::vocabulary::Status;
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, params_from_iter};
use serde::{Deserialize, Serialize};

use crate::recent::attempts;
use crate::{StoreError, StoreHandle, columns};

/// Most requests of a page.
const PAGE: u32 = 1_000;
/// A page of at most so many has the scores of the candidates too.
const SCORED_PAGE: u32 = 100;
/// Requests that are looked at in one go for those that a filter lets pass, when no index knows all of it.
const FIRST_WINDOW: i64 = 1_000;
/// And in each further go.
const WINDOW: i64 = 2_000;
/// After this a page ends, however few were found: its cursor says where to go on.
const PAGE_TIME: Duration = Duration::from_millis(20);

/// Which requests; what is not said lets all pass.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TraceFilter {
    /// Of this model.
    pub model: Option<String>,
    /// Last asked this node.
    pub node_id: Option<String>,
    /// Ended like this.
    pub status: Option<String>,
    /// With this tag.
    pub tag: Option<String>,
    /// Of this application.
    pub app: Option<String>,
    /// On this surface.
    pub format: Option<String>,
    /// From this address.
    pub client_ip: Option<String>,
    /// With this API key.
    pub key_id: Option<String>,
    /// Only those of benchmarks, or only the others.
    pub benchmark: Option<bool>,
    /// Over at or after this, Unix milliseconds.
    pub from_ms: Option<u64>,
    /// Over before this, Unix milliseconds.
    pub to_ms: Option<u64>,
}

/// A page of requests, the newest first.
#[derive(Debug, Clone, PartialEq)]
pub struct TracePage {
    /// The requests. A page can hold fewer than asked for, or none, and yet not be the last.
    pub traces: Vec<RequestRecord>,
    /// What to ask the next page with; null = this is the last.
    pub next_cursor: Option<String>,
}

impl StoreHandle {
    /// At most `limit` requests that `filter` lets pass, the newest first, from after `cursor` (`None` = the newest).
    /// Each that was there when the first page was read is on exactly one page, whatever is written meanwhile.
    ///
    /// # Errors
    /// When `cursor` is none that a page gave, or the database does not answer in time.
    pub async fn traces(&self, filter: TraceFilter, cursor: Option<&str>, limit: u32) -> Result<TracePage, StoreError> {
        let after = cursor.map(|cursor| Place::read(cursor).ok_or(StoreError::Cursor)).transpose()?;
        self.read(move |connection| page(connection, &filter, after, limit.clamp(1, PAGE))).await
    }

    /// The request with that id, with its attempts and the signals of its candidates; `None` = there is none. Of
    /// several that their clients gave the same id, the newest.
    ///
    /// # Errors
    /// When the database does not answer in time.
    pub async fn trace(&self, request_id: &str) -> Result<Option<RequestRecord>, StoreError> {
        let request_id = request_id.to_owned();
        self.read(move |connection| Ok(one(connection, &request_id)?)).await
    }
}

/// How far ahead of the clock requests may have ended to be among the newest: the clock may have been corrected since.
const SOON_MS: u64 = crate::HOUR_MS;

/// Where in the order of requests.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Place {
    seconds: f64,
    id: i64,
}

impl Place {
    fn write(self) -> String {
        format!("{:016x}{:x}", self.seconds.to_bits(), self.id)
    }

    fn read(text: &str) -> Option<Self> {
        let (seconds, id) = text.split_at_checked(16)?;
        let seconds = f64::from_bits(u64::from_str_radix(seconds, 16).ok()?);
        let id = i64::from_str_radix(id, 16).ok()?;
        (seconds.is_finite() && id >= 0).then_some(Self { seconds, id })
    }
}

/// A condition with one parameter, and its value.
type Condition = (&'static str, Value);

/// How requests are found: along a stretch of one index, with what that does not know looked up in each.
struct Search {
    /// The table with its index, and its column with the request's id.
    source: (&'static str, &'static str),
    /// What the index knows.
    along: Vec<Condition>,
    /// All that must be so.
    all: Vec<Condition>,
    /// The index knows all of it.
    exact: bool,
    from: f64,
    /// The scores of candidates are read too, which are larger than all the rest.
    with_scores: bool,
}

impl Search {
    fn of(filter: &TraceFilter, limit: u32) -> Self {
        let (source, along) = along(filter);
        let text = |value: &Option<String>| value.clone().map(Value::from);
        let all = [
            ("t.client_ip = ?", text(&filter.client_ip)),
            ("t.status = ?", text(&filter.status)),
            ("t.app = ?", text(&filter.app)),
            ("t.node_id = ?", text(&filter.node_id)),
            ("t.model = ?", text(&filter.model)),
            ("t.original_format = ?", text(&filter.format)),
            ("t.key_id = ?", text(&filter.key_id)),
            ("t.benchmark = ?", filter.benchmark.map(Value::from)),
        ];
        let all: Vec<_> = all.into_iter().filter_map(|(condition, value)| Some((condition, value?))).collect();
        let known = if filter.tag.is_some() { 0 } else { along.len() };
        let exact = all.len() == known;
        let from = filter.from_ms.unwrap_or(0) as f64 / 1_000.0;
        Self { source, along, all, exact, from, with_scores: limit <= SCORED_PAGE }
    }

    /// Up to `limit` of the next `window` requests after `after`, each with its place.
    fn look(
        &self,
        connection: &Connection,
        after: Place,
        (window, limit): (i64, usize),
    ) -> rusqlite::Result<Vec<(RequestRecord, Place)>> {
        let (inner, mut values) = self.stretch(after, "LIMIT ?");
        let all = each(&self.all);
        let whole = self.with_scores;
        let sql = format!(
            "SELECT {}, w.at, w.id FROM ({inner}) w CROSS JOIN request_traces t ON t.id = w.id \
             WHERE {all}t.superseded = 0 ORDER BY w.at DESC, w.id DESC LIMIT ?",
            if whole { columns::whole_row("t") } else { columns::listed("t") }
        );
        values.push(window.into());
        values.extend(self.all.iter().map(|(_, value)| value.clone()));
        values.push(i64::try_from(limit).unwrap_or(i64::MAX).into());
        let mut statement = connection.prepare_cached(&sql)?;
        let rows = statement.query_map(params_from_iter(values), |row| {
            let record = if whole { columns::read_whole(row) } else { columns::read(row) };
            Ok((record, Place { seconds: row.get("at")?, id: row.get("id")? }))
        })?;
        rows.collect()
    }

    /// The last of the next `window` requests after `after`; `None` = there are fewer.
    fn end(&self, connection: &Connection, after: Place, window: i64) -> rusqlite::Result<Option<Place>> {
        let (sql, mut values) = self.stretch(after, "LIMIT 1 OFFSET ?");
        values.push((window - 1).into());
        let place = |row: &rusqlite::Row<'_>| Ok(Place { seconds: row.get("at")?, id: row.get("id")? });
        connection.prepare_cached(&sql)?.query_row(params_from_iter(values), place).optional()
    }

    /// The stretch of the index after `after`, the newest first.
    fn stretch(&self, after: Place, limit: &str) -> (String, Vec<Value>) {
        let (source, id) = self.source;
        let along = each(&self.along);
        let sql = format!(
            "SELECT {id} AS id, timestamp AS at FROM {source} WHERE {along}timestamp >= ? AND timestamp <= ? \
             AND (timestamp < ? OR {id} < ?) ORDER BY timestamp DESC, {id} DESC {limit}"
        );
        let mut values: Vec<_> = self.along.iter().map(|(_, value)| value.clone()).collect();
        values.extend([self.from.into(), after.seconds.into(), after.seconds.into(), after.id.into()]);
        (sql, values)
    }
}

/// The conditions, with more to follow.
fn each(conditions: &[Condition]) -> String {
    conditions.iter().flat_map(|(condition, _)| [condition, " AND "]).collect()
}

/// The narrowest index for `filter`, and what it knows.
fn along(filter: &TraceFilter) -> ((&'static str, &'static str), Vec<Condition>) {
    let text = |value: &String| Value::from(value.clone());
    if let Some(tag) = &filter.tag {
        return (("request_tags", "trace_id"), vec![("tag = ?", text(tag))]);
    }
    let uncompleted = filter.status.as_ref().filter(|status| *status != Status::Completed.name());
    let (index, along) = if let Some(status) = uncompleted {
        // What the index is limited to has to be said for it to be used.
        let known = "status <> 'completed' AND status = ?";
        ("request_traces INDEXED BY idx_traces_uncompleted", vec![(known, text(status))])
    } else if let Some(app) = &filter.app {
        ("request_traces INDEXED BY idx_traces_app_timestamp", vec![("app = ?", text(app))])
    } else if let Some(model) = &filter.model {
        ("request_traces INDEXED BY idx_traces_model_timestamp", vec![("model = ?", text(model))])
    } else {
        ("request_traces INDEXED BY idx_traces_timestamp", Vec::new())
    };
    ((index, "id"), along)
}

fn page(
    connection: &Connection,
    filter: &TraceFilter,
    after: Option<Place>,
    limit: u32,
) -> Result<TracePage, StoreError> {
    let search = Search::of(filter, limit);
    // Requests that ended under a clock that was ahead are not the newest: they are shown once their time has come.
    let end = filter.to_ms.unwrap_or_else(|| crate::unix_ms().saturating_add(SOON_MS)) as f64 / 1_000.0;
    let mut place = after.filter(|after| after.seconds < end).unwrap_or(Place { seconds: end, id: 0 });
    let limit = limit as usize;
    let mut window = if search.exact { i64::try_from(limit).unwrap_or(i64::MAX) } else { FIRST_WINDOW };
    let (begun, mut traces) = (Instant::now(), Vec::new());
    let next = loop {
        let found = search.look(connection, place, (window, limit - traces.len()))?;
        let last = found.last().map(|(_, place)| *place);
        traces.extend(found.into_iter().map(|(trace, _)| trace));
        if traces.len() >= limit {
            break last;
        }
        let Some(end) = search.end(connection, place, window)? else { break None };
        place = end;
        if begun.elapsed() >= PAGE_TIME {
            break Some(place);
        }
        window = WINDOW;
    };
    Ok(TracePage { traces, next_cursor: next.map(Place::write) })
}

fn one(connection: &Connection, request_id: &str) -> rusqlite::Result<Option<RequestRecord>> {
    let sql = format!(
        "SELECT {}, t.id FROM request_traces t WHERE t.request_id = ?1 AND t.superseded = 0 ORDER BY t.id DESC LIMIT 1",
        columns::whole_row("t")
    );
    let found = connection
        .prepare_cached(&sql)?
        .query_row([request_id], |row| Ok((columns::read_whole(row), row.get::<_, i64>("id")?)));
    let Some((mut record, id)) = found.optional()? else { return Ok(None) };
    record.attempts = attempts(connection, id)?;
    Ok(Some(record))
}
