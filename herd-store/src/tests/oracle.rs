//! Every answer tells the same requests, and these are the ones that were recorded.

use herd_core::record::RequestRecord;
use herd_core::vocabulary::{ContextAction, Status};

use std::collections::BTreeMap;

use super::{LIMIT, NOON_MS, TestDir, any_requests, fill, open};
use crate::unix_ms;
use crate::{
    DAY_MS, GroupBy, HOUR_MS, HealthScore, Range, Residency, Spread, StoreHandle, Summary, TraceFilter, TrendFilter,
};

/// What `records` add up to, counted one by one.
#[derive(Debug, Default)]
struct Counted<'a>(Vec<&'a RequestRecord>);

impl<'a> Counted<'a> {
    fn of(records: &'a [RequestRecord], range: Range) -> Self {
        let within = range.from_ms()..range.to_ms();
        Self(records.iter().filter(|one| !one.benchmark && within.contains(&one.timestamp_ms)).collect())
    }

    fn only(&self, passes: impl Fn(&RequestRecord) -> bool) -> Self {
        Self(self.0.iter().copied().filter(|one| passes(one)).collect())
    }

    fn by<K: Ord>(&self, key: impl Fn(&RequestRecord) -> K) -> BTreeMap<K, Self> {
        let mut groups = BTreeMap::<K, Self>::new();
        self.0.iter().for_each(|one| groups.entry(key(one)).or_default().0.push(one));
        groups
    }

    fn sum(&self, of: impl Fn(&RequestRecord) -> u64) -> u64 {
        self.0.iter().map(|one| of(one)).sum()
    }

    fn ended(&self, status: &str) -> u64 {
        self.sum(|one| u64::from(one.status_name() == status))
    }

    #[track_caller]
    fn check(&self, told: &Summary) {
        let cold = |one: &RequestRecord| {
            one.reload_cause.is_some()
                || matches!(one.context_action, Some(ContextAction::Load | ContextAction::Reload))
                || one.counts.load_ms.is_some_and(|ms| ms >= 1_000.0)
        };
        let counted = [
            (told.requests, self.0.len() as u64),
            (told.completed, self.ended("completed")),
            (told.failed, self.ended("failed")),
            (told.rejected, self.ended("rejected")),
            (told.incomplete, self.ended("incomplete")),
            (told.reaped, self.ended("reaped")),
            (told.client_disconnected, self.ended("client_disconnected")),
            (told.cancelled, self.ended("cancelled")),
            (told.other, self.ended("no_output")),
            (told.errors, self.sum(|one| u64::from(one.known_status().is_some_and(Status::is_error)))),
            (told.prompt_tokens, self.sum(|one| one.counts.prompt_tokens.unwrap_or(0))),
            (told.completion_tokens, self.sum(|one| one.counts.completion_tokens.unwrap_or(0))),
            (told.total_tokens, told.prompt_tokens + told.completion_tokens),
            (told.request_bytes, self.sum(|one| one.request_bytes)),
            (told.response_bytes, self.sum(|one| one.response_bytes)),
            (told.retries, self.sum(|one| u64::from(one.retry_count))),
            (told.fallbacks, self.sum(|one| u64::from(one.fallback_used))),
            (told.reloads, self.sum(|one| u64::from(one.reload_cause.is_some()))),
            (told.cold_loads, self.sum(|one| u64::from(cold(one)))),
            (told.overflows, self.sum(|one| u64::from(one.overflow))),
            (told.unknown_models, self.sum(|one| u64::from(one.http_status == 404))),
            (told.first_ms, self.0.iter().map(|one| one.timestamp_ms).min().unwrap_or(0)),
            (told.last_ms, self.0.iter().map(|one| one.timestamp_ms).max().unwrap_or(0)),
        ];
        for (at, (told, counted)) in counted.into_iter().enumerate() {
            assert_eq!(told, counted, "number {at}");
        }
        self.spread(told.latency_ms, |one| (one.status_name() == "completed").then_some(one.latency_ms));
        self.spread(told.time_to_first_token_ms, |one| {
            let first = one.time_to_first_token_ms.filter(|_| one.stream != Some(false))?;
            Some(first + one.queue_ms.unwrap_or(0.0))
        });
        self.spread(told.load_ms, |one| one.counts.load_ms.filter(|_| cold(one) && one.reload_cause.is_none()));
        self.spread(told.queue_ms, |one| one.queue_ms);
        self.spread(told.tokens_per_s, |one| {
            let (tokens, ms) = (one.counts.completion_tokens?.checked_sub(1)?, one.decode_ms?);
            (tokens > 0 && ms > 0.0 && one.stream != Some(false)).then(|| tokens as f64 * 1_000.0 / ms)
        });
    }

    #[track_caller]
    fn spread(&self, told: Option<Spread>, of: impl Fn(&RequestRecord) -> Option<f64>) {
        let mut values: Vec<_> = self.0.iter().filter_map(|one| of(one)).collect();
        values.sort_by(f64::total_cmp);
        let Some(told) = told else { return assert!(values.is_empty()) };
        let near = |told: f64, exact: f64| assert!((told - exact).abs() <= exact * 1e-5 + 0.01, "{told} {exact}");
        assert_eq!(told.count, values.len() as u64);
        near(told.avg, values.iter().sum::<f64>() / values.len() as f64);
        near(told.min, values[0]);
        near(told.max, values[values.len() - 1]);
        for (told, percent) in [(told.p50, 50), (told.p75, 75), (told.p95, 95), (told.p99, 99)] {
            let exact = values[(values.len() * percent).div_ceil(100).max(1) - 1];
            assert!((told - exact).abs() <= exact / 25.0 + 0.01, "p{percent}: {told} is not near {exact}");
        }
    }
}

#[tokio::test]
async fn every_answer_counts_the_same_requests() {
    let dir = TestDir::new();
    let (store, thread) = open(&dir).await;
    let records = any_requests(4_000, 9);
    fill(&store, &records).await;
    for range in [
        Range::new(NOON_MS - 9 * DAY_MS, NOON_MS + 1),
        Range::new(NOON_MS - 7 * DAY_MS + 5 * HOUR_MS, NOON_MS - 30 * HOUR_MS),
        Range::new(NOON_MS - 3 * HOUR_MS, NOON_MS + 1),
        Range::new(NOON_MS - 400 * DAY_MS, NOON_MS - 300 * DAY_MS),
    ] {
        let counted = Counted::of(&records, range);
        check_totals(&store, &counted, range).await;
        check_groups(&store, &counted, range).await;
        check_trends(&store, &records, range, [3_600, 21_600, 86_400]).await;
        check_context(&store, &counted, range).await;
        check_list(&store, &counted, range).await;
    }
    assert!(thread.close(LIMIT));
}

#[tokio::test]
async fn the_last_hours_are_told_by_the_minute() {
    let dir = TestDir::new();
    let (store, thread) = open(&dir).await;
    let now_ms = unix_ms();
    let ago = |one: &RequestRecord| (NOON_MS - one.timestamp_ms) / 2;
    let records: Vec<_> = any_requests(2_000, 1)
        .into_iter()
        .map(|one| RequestRecord { timestamp_ms: now_ms - ago(&one), ..one })
        .collect();
    fill(&store, &records).await;
    let minute = 60_000;
    for minutes in [15, 60, 90, 360] {
        let range = Range::fine(now_ms - minutes * minute, now_ms + 1, now_ms);
        assert!(range.from_ms().is_multiple_of(minute) && range.to_ms() - range.from_ms() <= (minutes + 2) * minute);
        for range in [range, range.before(now_ms)] {
            let counted = Counted::of(&records, range);
            check_totals(&store, &counted, range).await;
            check_groups(&store, &counted, range).await;
            check_trends(&store, &records, range, [60, 301, 3_600]).await;
            check_context(&store, &counted, range).await;
        }
        assert_eq!(range.before(now_ms).to_ms(), range.from_ms());
    }
    // What begins earlier than minutes are kept is told by the hour.
    let day = Range::fine(now_ms - DAY_MS, now_ms + 1, now_ms);
    assert_eq!(day, Range::new(now_ms - DAY_MS, now_ms + 1));
    assert_eq!(day.before(now_ms).to_ms(), day.from_ms());
    assert!(thread.close(LIMIT));
}

#[tokio::test]
async fn how_long_models_were_in_memory_adds_up_by_the_hour() {
    let dir = TestDir::new();
    let (store, thread) = open(&dir).await;
    let row = |node: &str, model: &str, ms| Residency { node_id: node.into(), model: model.into(), ms };
    for (at_ms, ms) in [(NOON_MS - HOUR_MS - 1, 7_000), (NOON_MS - HOUR_MS, 5_000), (NOON_MS - 1, 5_000)] {
        store.post_residency(at_ms, vec![row("a", "", ms), row("a", "qwen3:8b", ms), row("b", "", ms)]).unwrap();
    }
    store.write(|_| Ok(())).await.unwrap();
    let told = store.residency(Range::new(NOON_MS - HOUR_MS, NOON_MS)).await.unwrap();
    assert_eq!(told, [row("a", "", 10_000), row("a", "qwen3:8b", 10_000), row("b", "", 10_000)]);
    assert!(thread.close(LIMIT));
}

async fn check_totals(store: &StoreHandle, counted: &Counted<'_>, range: Range) {
    let overview = store.overview(range).await.unwrap();
    counted.check(&overview.summary);
    assert_eq!(overview.models_count, counted.by(|one| one.model.clone()).len());
    let named = |names: Vec<String>| names.iter().filter(|name| !name.is_empty()).count();
    assert_eq!(overview.nodes_count, named(counted.by(|one| one.node_id.clone()).into_keys().collect()));
    assert_eq!(overview.apps_count, named(counted.by(|one| one.app.clone()).into_keys().collect()));

    let models = store.models(range).await.unwrap();
    let by_model = counted.by(|one| one.model.clone());
    assert_eq!(models.models.len(), by_model.len());
    models.models.iter().for_each(|one| by_model[&one.model].check(&one.summary));
    let by_day = counted.by(|one| (day(one), one.model.clone()));
    assert_eq!(models.daily.len(), by_day.len());
    models.daily.iter().for_each(|one| by_day[&(one.day_bucket, one.model.clone())].check(&one.summary));

    let apps = store.apps(range).await.unwrap();
    let by_app = counted.by(|one| one.app.clone());
    assert_eq!(apps.apps.len(), by_app.len());
    apps.apps.iter().for_each(|one| by_app[&one.name].check(&one.summary));
    for one in &apps.apps {
        let by_model = by_app[&one.name].by(|record| record.model.clone());
        assert_eq!(one.top_models.len(), by_model.len());
        for top in &one.top_models {
            let own = &by_model[&top.model];
            assert_eq!(top.requests, own.0.len() as u64);
            assert_eq!(top.completion_tokens, own.sum(|record| record.counts.completion_tokens.unwrap_or(0)));
        }
        assert!(one.top_models.is_sorted_by(|a, b| a.requests >= b.requests));
    }
    let by_key = counted.only(|one| !one.key_id.is_empty());
    let by_key = by_key.by(|one| one.key_id.clone());
    assert_eq!(apps.keys.len(), by_key.len());
    apps.keys.iter().for_each(|one| by_key[&one.name].check(&one.summary));
    assert_eq!(apps.apps.iter().map(|one| one.summary.requests).sum::<u64>(), overview.summary.requests);
    for one in &apps.tags {
        counted.only(|record| record.tags.contains(&one.name)).check(&one.summary);
    }
    let daily = store.apps_daily(range).await.unwrap();
    let by_day = counted.by(|one| (day(one), one.app.clone()));
    assert_eq!(daily.len(), by_day.len());
    for one in &daily {
        by_day[&(one.day_bucket, one.app.clone())].check(&one.summary);
    }
}

async fn check_groups(store: &StoreHandle, counted: &Counted<'_>, range: Range) {
    use GroupBy::{App, Day, Model, Node, NodeModel, NodeModelDay, Surface};
    for group_by in [Node, Model, App, Surface, Day, NodeModel, NodeModelDay] {
        let of = |one: &RequestRecord| {
            let is = |among: &[GroupBy]| among.contains(&group_by);
            (
                is(&[Day, NodeModelDay]).then(|| day(one)),
                is(&[Node, NodeModel, NodeModelDay]).then(|| one.node_id.clone()),
                is(&[Model, NodeModel, NodeModelDay]).then(|| one.model.clone()),
                is(&[App]).then(|| one.app.clone()),
                is(&[Surface]).then(|| one.surface_name().to_owned()),
            )
        };
        let groups = counted.by(of);
        let usage = store.usage(group_by, range).await.unwrap();
        assert_eq!((usage.data.len(), usage.truncated), (groups.len(), false), "{group_by:?}");
        for row in usage.data {
            groups[&(row.day_bucket, row.node_id, row.model, row.app, row.original_format)].check(&row.summary);
        }
    }
}

async fn check_trends(store: &StoreHandle, records: &[RequestRecord], range: Range, steps: [u64; 3]) {
    let model = Some("qwen3:8b".to_owned());
    let filters = [
        TrendFilter::default(),
        TrendFilter { model: model.clone(), ..TrendFilter::default() },
        TrendFilter { app: Some("aider".into()), ..TrendFilter::default() },
        TrendFilter { model, app: Some("aider".into()), ..TrendFilter::default() },
        TrendFilter { node_id: Some("node-b".into()), app: Some("aider".into()), ..TrendFilter::default() },
    ];
    for (filter, step_s) in filters.into_iter().flat_map(|filter| steps.map(|s| (filter.clone(), s))) {
        let trends = store.trends(range, step_s, filter.clone()).await.unwrap();
        // What no table has together is told by the hour.
        assert!(trends.range == range || filter.node_id.is_some());
        let counted = Counted::of(records, trends.range).only(|one| {
            filter.model.as_ref().is_none_or(|model| *model == one.model)
                && filter.app.as_ref().is_none_or(|app| *app == one.app)
                && filter.node_id.as_ref().is_none_or(|node| *node == one.node_id)
        });
        let groups = counted.by(|one| one.timestamp_ms / 1_000 / trends.step_s * trends.step_s);
        let none = Counted::default();
        trends.data.iter().for_each(|point| groups.get(&point.bucket).unwrap_or(&none).check(&point.summary));
        let told: u64 = trends.data.iter().map(|point| point.summary.requests).sum();
        assert_eq!(told, counted.0.len() as u64, "step {}", trends.step_s);
        assert!(trends.data.len() <= 1_001);
    }
}

async fn check_context(store: &StoreHandle, counted: &Counted<'_>, range: Range) {
    let mut groups = counted.by(|one| (None, one.model.clone()));
    groups.extend(counted.by(|one| (Some(one.node_id.clone()), one.model.clone())));
    let mut usage = store.context_usage(range).await.unwrap();
    usage.extend(store.context_usage_on_nodes(range).await.unwrap());
    assert_eq!(usage.len(), groups.len());
    for one in usage {
        let group = &groups[&(one.node_id, one.model)];
        assert_eq!(one.request_count, group.0.len() as u64);
        let total =
            |one: &RequestRecord| Some((one.counts.prompt_tokens? + one.counts.completion_tokens.unwrap_or(0)) as f64);
        group.spread(one.prompt_tokens, |one| one.counts.prompt_tokens.map(|tokens| tokens as f64));
        group.spread(one.total_tokens, total);
        assert_eq!(one.overflows, group.sum(|one| u64::from(one.overflow)));
        assert_eq!(one.reloads, group.sum(|one| u64::from(one.reload_cause.is_some())));
        let lately = group.only(|one| one.timestamp_ms >= range.to_ms() - DAY_MS);
        let greatest = lately.0.iter().filter_map(|one| total(one)).max_by(f64::total_cmp);
        assert_eq!(one.max_24h, greatest);
        assert_eq!(one.num_ctx_max, group.0.iter().filter_map(|one| one.num_ctx).max());
        assert_eq!(one.context_length_max, group.0.iter().filter_map(|one| one.context_length).max());
    }
}

async fn check_list(store: &StoreHandle, counted: &Counted<'_>, range: Range) {
    let filter = TraceFilter {
        from_ms: Some(range.from_ms()),
        to_ms: Some(range.to_ms()),
        benchmark: Some(false),
        ..TraceFilter::default()
    };
    let (mut listed, mut cursor) = (0, None::<String>);
    loop {
        let page = store.traces(filter.clone(), cursor.as_deref(), 1_000).await.unwrap();
        listed += page.traces.len();
        cursor = page.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(listed, counted.0.len());
}

fn day(one: &RequestRecord) -> u64 {
    (one.timestamp_ms - one.timestamp_ms % DAY_MS) / 1_000
}

#[tokio::test]
async fn the_scorer_gets_what_requests_took_lately() {
    let dir = TestDir::new();
    let (store, thread) = open(&dir).await;
    let records = any_requests(4_000, 3);
    fill(&store, &records).await;
    let told = store.latency_p75(NOON_MS).await.unwrap();
    assert_eq!(told.len(), 9);
    for one in told {
        let mut expected: Vec<_> = records
            .iter()
            .filter(|record| record.node_id == one.node_id && record.model == one.model)
            .filter(|record| record.status_name() == "completed" && !record.benchmark)
            .filter(|record| record.timestamp_ms >= NOON_MS - DAY_MS)
            .map(|record| (record.timestamp_ms, (record.latency_ms - record.queue_ms.unwrap_or(0.0)).max(0.0)))
            .collect();
        expected.sort_by_key(|(at, _)| *at);
        expected.drain(..expected.len().saturating_sub(200));
        assert_eq!(one.requests, expected);
        let mut sorted: Vec<_> = expected.iter().map(|(_, ms)| *ms).collect();
        sorted.sort_by(f64::total_cmp);
        assert_eq!(sorted[(sorted.len() * 3).div_ceil(4) - 1].to_bits(), one.p75_ms.to_bits());
    }
    assert!(thread.close(LIMIT));
}

#[test]
fn ranges_are_whole_hours_and_never_empty() {
    let check = |from, to, expected| {
        let range = Range::new(from, to);
        assert_eq!((range.from_ms(), range.to_ms()), expected);
    };
    check(0, 1, (0, HOUR_MS));
    check(HOUR_MS, HOUR_MS, (HOUR_MS, 2 * HOUR_MS));
    check(HOUR_MS + 1, 2 * HOUR_MS, (HOUR_MS, 2 * HOUR_MS));
    check(5 * HOUR_MS, 2 * HOUR_MS, (5 * HOUR_MS, 6 * HOUR_MS));
    check(0, 500 * DAY_MS, (100 * DAY_MS, 500 * DAY_MS));
    let odd = Range::new(u64::MAX, u64::MAX);
    assert!(odd.from_ms() < odd.to_ms());
    let last = Range::last(DAY_MS, NOON_MS);
    assert!(last.from_ms() <= NOON_MS - DAY_MS && last.to_ms() > NOON_MS);
}

#[tokio::test]
async fn health_scores_are_kept_and_told_at_their_worst() {
    let dir = TestDir::new();
    let (store, thread) = open(&dir).await;
    let look = |at_unix_ms, score, warning| HealthScore { at_unix_ms, score, critical: 0, warning, info: 1 };
    let looks = [look(NOON_MS - 60_000, 90, 1), look(NOON_MS - 40_000, 100, 0), look(NOON_MS - 20_000, 80, 2)];
    for look in looks {
        store.post_score(look).unwrap();
    }
    store.write(|_| Ok(())).await.unwrap();
    assert_eq!(store.scores(NOON_MS - 60_000, NOON_MS).await.unwrap(), looks);
    assert_eq!(store.scores(NOON_MS - 40_000, NOON_MS - 20_000).await.unwrap(), looks[1..2]);
    let month = async || store.scores(NOON_MS - 30 * DAY_MS, NOON_MS).await.unwrap();
    assert_eq!(month().await, looks);
    for second in 0..1_000 {
        store.post_score(look(NOON_MS - 20 * DAY_MS + second * 1_000, 100, 0)).unwrap();
        if second % 16 == 0 {
            store.write(|_| Ok(())).await.unwrap();
        }
    }
    store.write(|_| Ok(())).await.unwrap();
    let many = month().await;
    assert_eq!((many.len() < 10, many.last()), (true, Some(&look(NOON_MS - 60_000, 80, 2))));
    assert!(thread.close(LIMIT));
}
