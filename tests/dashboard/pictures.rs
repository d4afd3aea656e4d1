//! Every tab as it is drawn from a running fleet, in both themes and on a phone; the pictures of the README are these.
//!
//! `HERD_PICTURES_AFTER_S=900` lets clients ask for so long before, so that charts have something to show.

use std::time::{Duration, Instant};

use herd_harness::eventually;
use serde_json::json;

use crate::browser::Browser;
use crate::demo::{Ask, Demo};
use crate::open;

const TAGS: [&str; 11] = [
    "chat-ui", "ci-bot", "notebook", "search", "reports", "ci-bot", "notebook", "chat-ui", "notebook", "chat-ui",
    "agent",
];

/// Pages, what says that they are whole, and their names as files. `RUNS` and `TRACE` stand for what only a running
/// fleet knows.
const PAGES: [(&str, &str, &str); 13] = [
    (
        "",
        "document.querySelectorAll('.request').length > 3 && document.querySelectorAll('.stat').length === 9",
        "overview",
    ),
    ("/trends?range=15m", "document.querySelectorAll('herd-chart canvas').length === 6", "trends"),
    ("/models?range=15m", "document.querySelectorAll('[aria-label=models] tbody tr').length > 4", "models"),
    (
        "/models?range=15m&model=llama3.2%3A3b",
        "document.querySelectorAll('[data-panel=model] table').length === 2",
        "model",
    ),
    ("/apps?range=15m", "document.querySelectorAll('herd-chart canvas').length === 1", "apps"),
    (
        "/apps?range=15m&app=notebook",
        "document.querySelector('[data-panel=app] table') && document.querySelector('canvas')",
        "app",
    ),
    ("/benchmarksRUNS", "document.querySelector('[data-panel=result] .change')", "benchmarks"),
    ("/health", "document.querySelector('.finding') && document.querySelector('canvas')", "health"),
    ("/recommendations", "document.querySelector('[data-recommendation]')", "recommendations"),
    ("/settings", "document.querySelectorAll('.setting').length > 50", "settings"),
    ("/traces", "document.querySelectorAll('tbody tr').length > 20", "traces"),
    (
        "/traces/TRACE",
        "document.querySelectorAll('.lane').length >= 3 && document.querySelector('.signals .winner')",
        "trace",
    ),
    ("/explain?model=llama3.2%3A3b&num_ctx=8192&tokens=500", "document.querySelector('.verdict')", "explain"),
];

#[test]
fn every_tab_is_drawn_from_a_running_fleet_in_both_themes_and_on_a_phone() {
    let Some(browser) = Browser::start() else { return };
    let demo = Demo::with_key("anybody").0;
    for _ in 0..6 {
        assert_eq!(demo.ask(&Ask::of("mistral:7b", &["ci-bot"])).status, 404);
    }
    let runs = benchmarked(&demo);
    let demo = demo.with_traffic(&TAGS);
    warmed_up(&demo);
    let trace = telling(&demo);
    for (size, theme, suffix) in
        [((1_440, 1_000), "light", "light"), ((1_440, 1_000), "dark", "dark"), ((390, 844), "light", "phone")]
    {
        browser.size(size.0, size.1);
        browser.prefer(theme);
        for (path, whole, name) in PAGES {
            let path = path.replace("RUNS", &runs).replace("TRACE", &trace);
            open(&browser, &demo.base(), &path);
            browser.until(whole);
            assert_eq!(browser.value("document.querySelectorAll('main .state.bad').length"), 0, "{path}");
            browser.screenshot(&format!("{name}-{suffix}"));
            let wider = browser.value("document.documentElement.scrollWidth - document.documentElement.clientWidth");
            assert_eq!(wider, 0, "{path} is wider than a screen of {}", size.0);
        }
    }
    browser.is_clean(&[]);
}

/// Two runs of a small benchmark, as the page asks for them to be compared.
fn benchmarked(demo: &Demo) -> String {
    let ask = json!({ "models": ["llama3.2:3b"], "node_ids": ["rtx", "laptop"], "requests": 2, "concurrency": 1,
        "prompt_tokens": 64, "max_tokens": 8 });
    let ids = [(); 2].map(|()| {
        let id = demo.change("/dashboard/api/benchmarks/start", &ask)["run_id"].as_str().unwrap().to_owned();
        let run = || demo.told(&format!("/dashboard/api/benchmarks/{id}"));
        eventually("the run is over", || run()["run"]["state"] == "completed");
        id
    });
    format!("?run={}&with={}", ids[1], ids[0])
}

/// Waits until there is enough of all to be seen.
fn warmed_up(demo: &Demo) {
    let longer: u64 = std::env::var("HERD_PICTURES_AFTER_S").ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    let until = Instant::now() + Duration::from_secs(longer);
    while Instant::now() < until {
        std::thread::park_timeout(until.saturating_duration_since(Instant::now()));
    }
    eventually("clients are answered, and health has something to say", || {
        demo.change("/dashboard/api/health/check", &json!({}));
        let models = demo.told("/dashboard/api/models?range=15m");
        models["models"].as_array().unwrap().len() > 5
            && demo.told("/dashboard/api/health")["findings"].as_array().is_some_and(|list| !list.is_empty())
            && demo.told("/dashboard/api/traces?limit=50")["traces"].as_array().unwrap().len() > 20
    });
}

/// A request that waited, and of which all nodes were candidates.
fn telling(demo: &Demo) -> String {
    let traces = demo.told("/dashboard/api/traces?model=llama3.2:3b&status=completed&limit=100");
    let traces = traces["traces"].as_array().unwrap();
    let ids = traces.iter().filter_map(|trace| trace["request_id"].as_str());
    let candidates =
        |id: &str| demo.told(&format!("/dashboard/api/traces/{id}"))["candidates"].as_array().map_or(0, Vec::len);
    let waited = |id: &str| traces.iter().any(|one| one["request_id"] == id && one["queue_ms"].as_f64() > Some(50.0));
    let mut three = ids.filter(|id| candidates(id) == 3).collect::<Vec<_>>();
    three.sort_by_key(|id| !waited(id));
    three.first().copied().unwrap_or_else(|| traces[0]["request_id"].as_str().unwrap()).to_owned()
}
