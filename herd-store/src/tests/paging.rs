//! Pages of requests.

use herd_core::record::RequestRecord;

use super::{LIMIT, NOON_MS, TestDir, any_requests, fill, open, record, written};
use crate::{StoreError, StoreHandle, StoreSettings, TraceFilter};

type Passes = fn(&RequestRecord) -> bool;

async fn all(store: &StoreHandle, filter: &TraceFilter, limit: u32) -> Vec<String> {
    let (mut ids, mut cursor) = (Vec::new(), None::<String>);
    loop {
        let page = store.traces(filter.clone(), cursor.as_deref(), limit).await.unwrap();
        assert!(page.traces.len() <= limit as usize);
        ids.extend(page.traces.into_iter().map(|trace| trace.request_id));
        cursor = page.next_cursor;
        if cursor.is_none() {
            return ids;
        }
    }
}

#[tokio::test]
async fn every_filter_finds_what_it_says_in_order() {
    let dir = TestDir::new();
    let (store, thread) = open(&dir).await;
    let records = any_requests(3_000, 2);
    fill(&store, &records).await;
    let is = |value: &str| Some(value.to_owned());
    let none = TraceFilter::default();
    let filters: Vec<(TraceFilter, Passes)> = vec![
        (none.clone(), |_| true),
        (TraceFilter { model: is("qwen3:8b"), ..none.clone() }, |one| one.model == "qwen3:8b"),
        (TraceFilter { node_id: is("node-b"), ..none.clone() }, |one| one.node_id == "node-b"),
        (TraceFilter { node_id: is("node-b"), model: is("qwen3:8b"), ..none.clone() }, |one| {
            one.node_id == "node-b" && one.model == "qwen3:8b"
        }),
        (TraceFilter { status: is("completed"), ..none.clone() }, |one| one.status_name() == "completed"),
        (TraceFilter { status: is("failed"), app: is("aider"), ..none.clone() }, |one| {
            one.status_name() == "failed" && one.app == "aider"
        }),
        (TraceFilter { tag: is("nightly"), ..none.clone() }, |one| one.tags.iter().any(|tag| tag == "nightly")),
        (TraceFilter { tag: is("nightly"), status: is("reaped"), ..none.clone() }, |one| {
            one.status_name() == "reaped" && one.tags.iter().any(|tag| tag == "nightly")
        }),
        (TraceFilter { client_ip: is("10.0.0.2"), format: is("openai_chat"), ..none.clone() }, |one| {
            one.client_ip == "10.0.0.2" && one.surface_name() == "openai_chat"
        }),
        (TraceFilter { benchmark: Some(true), ..none.clone() }, |one| one.benchmark),
        (TraceFilter { model: is("none"), status: is("no such"), ..none.clone() }, |_| false),
        (TraceFilter { from_ms: Some(NOON_MS - 50_000_000), to_ms: Some(NOON_MS - 10_000_000), ..none }, |one| {
            (NOON_MS - 50_000_000..NOON_MS - 10_000_000).contains(&one.timestamp_ms)
        }),
    ];
    for (filter, passes) in filters {
        let mut expected: Vec<_> = (0..).zip(&records).filter(|(_, one)| passes(one)).collect();
        expected.sort_by_key(|(at, one)| std::cmp::Reverse((one.timestamp_ms, *at)));
        let expected: Vec<_> = expected.into_iter().map(|(_, one): (u64, _)| one.request_id.clone()).collect();
        assert_eq!(all(&store, &filter, 97).await, expected, "{filter:?}");
    }
    assert!(thread.close(LIMIT));
}

#[tokio::test]
async fn pages_stay_the_same_while_requests_are_written() {
    let dir = TestDir::new();
    let (store, thread) = open(&dir).await;
    // Many are over in the same millisecond.
    let before: Vec<_> = (0..500).map(|id| record(id, NOON_MS + id / 50)).collect();
    fill(&store, &before).await;
    let (mut seen, mut cursor, mut more) = (Vec::new(), None::<String>, 500);
    loop {
        let page = store.traces(TraceFilter::default(), cursor.as_deref(), 33).await.unwrap();
        seen.extend(page.traces.into_iter().map(|trace| trace.request_id));
        let Some(next) = page.next_cursor else { break };
        cursor = Some(next);
        (more..more + 20).for_each(|id| drop(store.record(record(id, NOON_MS + id))));
        more += 20;
        written(&store, more).await;
    }
    let expected: Vec<_> = (0..500).rev().map(|id| format!("request-{id}")).collect();
    assert_eq!(seen, expected);
    assert!(thread.close(LIMIT));
}

#[tokio::test]
async fn limits_are_clamped_and_odd_cursors_refused() {
    let dir = TestDir::new();
    let (store, thread) = open(&dir).await;
    let records: Vec<_> = (0..1_200).map(|id| record(id, NOON_MS)).collect();
    fill(&store, &records).await;
    for (limit, expected) in [(0, 1), (u32::MAX, 1_000)] {
        let page = store.traces(TraceFilter::default(), None, limit).await.unwrap();
        assert_eq!(page.traces.len(), expected);
    }
    for odd in [
        "",
        "x",
        "7ff00000000000001",
        "00000000000000000000000000000000000000000",
        "\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}1",
    ] {
        let page = store.traces(TraceFilter::default(), Some(odd), 5).await;
        assert!(matches!(page, Err(StoreError::Cursor) | Ok(_)), "{odd}: {page:?}");
    }
    assert_eq!(store.traces(TraceFilter::default(), Some("x"), 5).await, Err(StoreError::Cursor));
    assert!(thread.close(LIMIT));
}

#[tokio::test]
async fn a_slow_query_ends_at_its_deadline_and_the_next_one_runs() {
    let dir = TestDir::new();
    let settings = StoreSettings { query_deadline: std::time::Duration::from_millis(50), ..super::keeping() };
    let (store, thread) = super::open_with(&dir, settings).await;
    let endless = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n";
    let slow = store.read(move |connection| Ok(connection.query_row(endless, [], |row| row.get::<_, i64>(0))?)).await;
    assert_eq!(slow, Err(StoreError::Deadline));
    assert_eq!(store.health().deadlines, 1);
    assert!(store.traces(TraceFilter::default(), None, 5).await.is_ok());
    assert!(thread.close(LIMIT));
}
