//! What clients did is told on each tab, with the counts that they themselves have.

use herd_harness::eventually;

use crate::browser::Browser;
use crate::demo::{Ask, Demo};
use crate::open;

const CHATS: usize = 6;
const BUILDS: usize = 4;
const PAGES: usize = 3;
const SEARCHES: usize = 2;
const WITH_KEY: usize = 2;
const REFUSED: usize = 1;
const ALL: usize = CHATS + BUILDS + PAGES + SEARCHES + WITH_KEY + REFUSED;

/// Each client sends its requests one after the other, all at the same time.
fn asked_by_clients() -> Demo {
    let (demo, key) = Demo::with_key("laptop");
    let times = |count: usize, ask: &Ask<'_>| {
        for _ in 0..count {
            assert_eq!(demo.ask(ask).status, 200, "{}", ask.model);
        }
    };
    std::thread::scope(|scope| {
        let small = "llama3.2:3b";
        scope.spawn(|| {
            times(CHATS - 2, &Ask::of(small, &["chat-ui"]));
            times(2, &Ask::of(small, &["chat-ui", "nightly"]));
        });
        scope.spawn(|| times(BUILDS, &Ask { path: "/v1/chat/completions", ..Ask::of("qwen2.5-coder:14b", &["ci"]) }));
        scope.spawn(|| times(PAGES, &Ask { path: "/v1/messages", ..Ask::of("gpt-oss:20b", &["notebook"]) }));
        scope.spawn(|| times(SEARCHES, &Ask { path: "/api/embed", ..Ask::of("nomic-embed-text", &["search"]) }));
        scope.spawn(|| times(WITH_KEY, &Ask { key: &key, ..Ask::of("gpt-oss:20b", &[]) }));
    });
    assert_eq!(demo.ask(&Ask::of("mistral:7b", &["ci"])).status, 404);
    let stored = || demo.told("/dashboard/api/overview?range=1h")["totals"]["requests"] == ALL;
    eventually("all are stored", stored);
    demo
}

/// The row of a table with this name in it.
fn row(table: &str, name: &str) -> String {
    format!(
        "[...document.querySelectorAll('[aria-label={table:?}] tbody tr')].find((row) => [...row.querySelectorAll('.name, b')].some((one) => one.textContent === {name:?}))"
    )
}

#[track_caller]
fn cell(browser: &Browser, row: &str, column: &str) -> String {
    browser.until(row);
    browser.text(&format!("{row}.querySelector('td[data-title={column:?}]').textContent.trim()"))
}

/// The number in a tile, once it is this.
#[track_caller]
fn tile(browser: &Browser, label: &str, value: &str) {
    browser.until(&format!(
        "[...document.querySelectorAll('.stat')].some((one) => one.querySelector('.label').textContent === {label:?} && one.querySelector('.value').textContent.trim() === {value:?})"
    ));
}

/// Waits until a chart has points: its lines and bars have colours, its grid and words have none.
#[track_caller]
fn drawn(browser: &Browser, title: &str) {
    browser.until(&format!(
        "(() => {{ const canvas = [...document.querySelectorAll('[data-chart]')].find((one) => one.dataset.chart === {title:?})?.querySelector('canvas');
            if (!canvas) return false;
            const pixels = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
            let coloured = 0;
            for (let at = 0; at < pixels.length; at += 4)
                if (pixels[at + 3] > 40 && Math.max(pixels[at], pixels[at + 1], pixels[at + 2]) - Math.min(pixels[at], pixels[at + 1], pixels[at + 2]) > 40) coloured += 1;
            return coloured > 8; }})()"
    ));
}

#[test]
fn applications_tags_and_keys_have_the_counts_of_their_clients() {
    let Some(browser) = Browser::start() else { return };
    let demo = asked_by_clients();
    open(&browser, &demo.base(), "/apps");
    for (app, requests, errors) in
        [("chat-ui", CHATS, 0), ("ci", BUILDS + REFUSED, 0), ("notebook", PAGES, 0), ("search", SEARCHES, 0)]
    {
        let row = row("apps", app);
        assert_eq!(cell(&browser, &row, "Requests"), requests.to_string(), "{app}");
        assert_eq!(cell(&browser, &row, "Errors"), errors.to_string(), "{app}");
    }
    assert!(cell(&browser, &row("apps", "chat-ui"), "Top models").contains("llama3.2:3b"));
    for (tag, requests) in [("chat-ui", CHATS), ("nightly", 2), ("notebook", PAGES)] {
        assert_eq!(cell(&browser, &row("tags", tag), "Requests"), requests.to_string(), "{tag}");
    }
    assert_eq!(cell(&browser, &row("keys", "laptop"), "Requests"), WITH_KEY.to_string());
    assert!(cell(&browser, &row("keys", "laptop"), "Top models").contains("gpt-oss:20b"));
    drawn(&browser, "Requests");
    browser.click_words("main .segments", "Tokens");
    browser.until("location.search.includes('by=tokens')");
    drawn(&browser, "Tokens");
    // One of them, with its models, and the requests behind those.
    browser.click(&format!("{}.querySelector('.name')", row("apps", "ci")));
    browser.until("document.querySelector('[data-panel=app]')");
    assert_eq!(cell(&browser, &row("app-models", "qwen2.5-coder:14b"), "Requests"), BUILDS.to_string());
    tile(&browser, "Requests", &(BUILDS + REFUSED).to_string());
    drawn(&browser, "Requests");
    browser.click(&format!("{}.querySelector('.tools a')", row("app-models", "qwen2.5-coder:14b")));
    browser.until("location.pathname.endsWith('/traces') && location.search.includes('app=ci')");
    browser.until(&format!("document.querySelectorAll('tbody tr').length === {BUILDS}"));
    browser.is_clean(&[]);
}

#[test]
fn trends_have_points_and_are_filtered() {
    let Some(browser) = Browser::start() else { return };
    let demo = asked_by_clients();
    open(&browser, &demo.base(), "/trends");
    tile(&browser, "Requests", &ALL.to_string());
    // What was refused before a node was asked is no error.
    tile(&browser, "Errors", "0");
    for title in ["Requests", "Time to first token", "Latency", "Queue time", "Tokens per second", "Loads and retries"]
    {
        drawn(&browser, title);
    }
    let choose = |label: &str, value: &str| {
        browser.click(&format!("[...document.querySelectorAll('select[aria-label={label:?}] option')].find((one) => one.value === {value:?})"));
    };
    choose("Model", "llama3.2:3b");
    tile(&browser, "Requests", &CHATS.to_string());
    choose("App", "chat-ui");
    browser.until("location.search.includes('app=chat-ui') && location.search.includes('model=llama3.2')");
    tile(&browser, "Requests", &CHATS.to_string());
    drawn(&browser, "Requests");
    choose("App", "notebook");
    browser.until("document.querySelector('main .state')?.textContent.includes('No request in this stretch')");
    // A link to that view is that view; the previous period is laid over it.
    open(&browser, &demo.base(), "/trends?range=6h&app=notebook&compare=1");
    tile(&browser, "Requests", &PAGES.to_string());
    browser.until("[...document.querySelectorAll('.u-legend')].some((one) => one.textContent.includes('before'))");
    drawn(&browser, "Requests");
    let node = demo.told("/dashboard/api/usage?group_by=node&range=6h")["rows"][0].take();
    open(&browser, &demo.base(), &format!("/trends?range=6h&node={}", node["key"].as_str().unwrap()));
    tile(&browser, "Requests", &node["requests"].to_string());
    browser.is_clean(&[]);
}

#[test]
fn models_have_their_nodes_and_requests_their_traces() {
    let Some(browser) = Browser::start() else { return };
    let demo = asked_by_clients();
    let looked = || demo.told("/dashboard/api/models?range=1h")["models"][0]["nodes"][0]["hot_share"].is_number();
    eventually("somebody has looked what is in memory", looked);
    open(&browser, &demo.base(), "/models");
    for (model, requests) in [("llama3.2:3b", CHATS), ("qwen2.5-coder:14b", BUILDS), ("gpt-oss:20b", PAGES + WITH_KEY)]
    {
        assert_eq!(cell(&browser, &row("models", model), "Requests"), requests.to_string(), "{model}");
    }
    browser.click(&format!("{}.querySelector('.name')", row("models", "gpt-oss:20b")));
    browser.until("document.querySelector('[data-panel=model]')");
    // It was in memory there from the first heartbeat on.
    let there = row("model-nodes", "mac-studio");
    browser.until(&format!("{there}?.querySelector('td[data-title=\"Hot time\"]').textContent.includes('100 %')"));
    assert_eq!(cell(&browser, &there, "Requests"), (PAGES + WITH_KEY).to_string());
    assert!(
        cell(&browser, &there, "Context used p95").ends_with("of 32k"),
        "{}",
        cell(&browser, &there, "Context used p95")
    );

    open(&browser, &demo.base(), "/traces?status=rejected");
    browser.until("document.querySelectorAll('tbody tr').length === 1");
    open(&browser, &demo.base(), "/traces?model=llama3.2:3b");
    browser.until(&format!("document.querySelectorAll('tbody tr').length === {CHATS}"));
    let id = browser.text("document.querySelector('tbody tr a.mono').textContent");
    browser.click("document.querySelector('tbody tr')");
    browser.until(&format!("location.pathname.endsWith('/traces/{id}')"));
    let trace = demo.told(&format!("/dashboard/api/traces/{id}"));
    // Where its time went, predicted and real, attempt by attempt.
    browser
        .until("document.querySelectorAll('.lane').length === 3 && document.querySelector('.lane .track i.prefill')");
    assert!(browser.text("document.querySelector('.waterfall').textContent").contains("predicted"));
    assert!(browser.text("document.querySelector('main').textContent").contains("times as long"));
    // The seven signals of all who could have had it.
    let candidates = trace["candidates"].as_array().unwrap().len();
    assert_eq!(candidates, 3, "{trace}");
    let signals = "document.querySelectorAll('table.signals thead th').length - 1";
    assert_eq!(browser.value(signals), candidates);
    let rows = "[...document.querySelectorAll('table.signals tbody th')].slice(0, 7).map((one) => one.textContent)";
    assert_eq!(browser.value(rows).as_array().unwrap().len(), 7);
    let winner = browser.text("document.querySelector('table.signals .winner').textContent");
    assert!(winner.starts_with(trace["trace"]["node_id"].as_str().unwrap()), "{winner}");
    // From the overview, too.
    open(&browser, &demo.base(), "");
    browser.click(&format!("[...document.querySelectorAll('.ended a.id')].find((one) => one.textContent === {id:?})"));
    browser.until(&format!("location.pathname.endsWith('/traces/{id}') && document.querySelector('.waterfall')"));
    browser.is_clean(&[]);
}
