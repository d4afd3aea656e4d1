//! What only an answer that is made for it shows: refusals, many pages, an hour of events; and how fast and how lean the
//! page is.

use serde_json::json;

use crate::browser::Browser;
use crate::demo::Demo;
use crate::open;
use crate::samples::{records, trace_row};
use crate::service::{Service, refusal};

#[test]
fn a_refusal_is_told_in_place_and_older_requests_come_page_by_page() {
    let Some(browser) = Browser::start() else { return };
    let demo = Demo::start();
    let service = Service::start(demo.edge, records());
    let far = refusal(403, "not_local", "the fleet can be changed from this machine only");
    service.answer("/dashboard/api/health/acknowledge", far);
    open(&browser, &service.base(), "/health");
    browser.click_words("[data-finding=thrash]", "Acknowledge");
    browser.until("document.querySelector('dialog[open]')");
    browser.click_words("dialog", "Acknowledge");
    browser.until("document.querySelector('dialog .state.bad')?.textContent.includes('--scope admin')");
    service.answer("/dashboard/api/health/acknowledge", json!({}));
    browser.click_words("dialog", "Acknowledge");
    browser.until("!document.querySelector('dialog[open]')");
    assert_eq!(service.asked("POST", "/dashboard/api/health/acknowledge").last().unwrap(), r#"{"finding":"thrash"}"#);
    // Older ones, a page at a time.
    open(&browser, &service.base(), "/traces?model=llama3.2%3A3b");
    browser.until("document.querySelectorAll('tbody tr').length === 39");
    let next: Vec<_> = (40..60).map(trace_row).collect();
    service.answer("/dashboard/api/traces", json!({ "traces": next, "next_cursor": null }));
    browser.click_words("main", "Older ones");
    browser.until("document.querySelectorAll('tbody tr').length >= 20 && !document.querySelector('.more')");
    let asked = service.paths("/dashboard/api/traces?");
    assert!(asked.iter().any(|path| path.contains("model=llama3.2%3A3b") && path.contains("cursor=40")), "{asked:?}");
    // A row leads to its request, the way back to the same filter.
    service.answer("/dashboard/api/traces/req-41", json!({ "trace": trace_row(41), "attempts": [], "candidates": [] }));
    browser.click("[...document.querySelectorAll('tbody tr')].find((row) => row.textContent.includes('req-41'))");
    browser.until("location.pathname.endsWith('/traces/req-41') && document.querySelector('.waterfall')");
    browser.click_words("main", "← All traces");
    browser.until("location.search.includes('model=llama3.2')");
    browser.is_clean(&["/dashboard/events", "status of 403"]);
}

/// Bytes of the page's heap and its elements, after what is not used is given back.
fn size(browser: &Browser) -> (f64, f64) {
    browser.chromium("HeapProfiler.collectGarbage", &json!({}));
    let metrics = browser.chromium("Performance.getMetrics", &json!({}));
    let of = |name: &str| {
        let metric = metrics["metrics"].as_array().unwrap().iter().find(|metric| metric["name"] == name);
        metric.and_then(|metric| metric["value"].as_f64()).unwrap()
    };
    (of("JSHeapUsedSize"), of("Nodes"))
}

#[test]
fn the_page_is_there_at_once_and_does_not_grow() {
    let Some(browser) = Browser::start() else { return };
    let demo = Demo::start();
    let service = Service::start(demo.edge, records());
    open(&browser, &demo.base(), "");
    browser.until("document.querySelectorAll('.card.node').length === 3");
    let paint = browser.value("performance.getEntriesByName('first-contentful-paint')[0].startTime").as_f64().unwrap();
    eprintln!("first contentful paint: {paint:.0} ms");
    assert!(paint < 2_000.0, "{paint} ms, on a machine that does much else");

    // An hour's changes, told at once.
    let request = |id: u64| {
        json!({ "request_id": format!("r{id}"), "surface": "ollama_chat", "model": format!("m{}", id % 40), "node_id": "rtx", "phase": "decode",
            "class": "interactive", "stream": true, "prompt_tokens": id, "tags": ["a"], "age_ms": 1, "response_bytes": 100 })
    };
    let told = |from: u64, to: u64| {
        let none = json!({ "total": 0, "requests": [] });
        let snapshot = json!({ "status": demo.status(), "queue": { "waiting": 0, "requests": [], "runners": [] }, "requests": none });
        let mut events = vec![("snapshot", snapshot)];
        for id in from..to {
            let removed: Vec<_> = id.checked_sub(8).map(|id| format!("r{id}")).into_iter().collect();
            events.push(("requests", json!({ "added": [request(id)], "changed": [], "removed": removed })));
            events.push(("trace", trace_row(id)));
        }
        events
    };
    browser.chromium("Performance.enable", &json!({}));
    let mut sizes = Vec::new();
    for round in 0..2 {
        service.stream(told(round * 400, round * 400 + if round == 0 { 400 } else { 3_600 }));
        if round == 0 {
            open(&browser, &service.base(), "");
        } else {
            // The stream breaks and comes anew, with nine times as much to tell.
            service.set_down(true);
            browser.until("document.querySelector('.banner.bad')");
            service.set_down(false);
            browser.value("dispatchEvent(new Event('online'))");
        }
        let last = if round == 0 { "req-399" } else { "req-3999" };
        browser.until(&format!("document.querySelector('.ended .id')?.textContent === {last:?}"));
        sizes.push(size(&browser));
    }
    let [(heap, nodes), (heap_after, nodes_after)] = sizes[..] else { unreachable!() };
    eprintln!("heap {:.1} MB, then {:.1} MB; elements {nodes}, then {nodes_after}", heap / 1e6, heap_after / 1e6);
    assert!(heap_after < heap + 3e6 && nodes_after < nodes * 1.5 + 500.0);
}
