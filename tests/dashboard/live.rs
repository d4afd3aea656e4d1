//! What a running fleet looks like, and what happens when it cannot be reached.

use crate::browser::Browser;
use crate::demo::{Demo, HOSTILE_TAG};
use crate::service::Service;
use crate::{TABS, open};
use herd_harness::Edge;
use serde_json::json;

#[test]
fn every_tab_shows_a_running_fleet() {
    let Some(browser) = Browser::start() else { return };
    let demo = Demo::start().with_traffic(&["chat-ui", HOSTILE_TAG]);
    open(&browser, &demo.base(), "");
    browser.until("document.querySelectorAll('.card.node').length === 3");
    browser.until("document.querySelectorAll('.request').length > 2");
    browser.until("document.querySelector('[data-node=rtx] .bar .part') !== null");
    // What a client calls itself is text.
    browser.until(&format!(
        "[...document.querySelectorAll('.request .tag')].some((tag) => tag.textContent === {HOSTILE_TAG:?})"
    ));
    browser.until("document.querySelector('nav .score') !== null");
    browser.until("document.querySelector('.ended li') !== null");
    // Requests end and others come without a reload.
    let first = browser.text("document.querySelector('.request').dataset.request");
    browser.until(&format!("!document.querySelector('[data-request={first:?}]')"));
    for (path, title) in TABS {
        browser.click(&format!("document.querySelector('nav a[href$={:?}]')", format!("/dashboard{path}")));
        browser.until(&format!("document.querySelector('main h1').textContent === {title:?}"));
        browser
            .until("!document.querySelector('main .skeleton') && document.querySelector('main').children.length > 1");
        assert!(browser.text("location.pathname").ends_with(path), "{path}");
        assert_eq!(browser.value("document.querySelectorAll('main .state.bad').length"), 0, "{path}");
    }
    browser.is_clean(&[]);
}

#[test]
fn the_page_outlives_its_herd_and_says_so() {
    let Some(browser) = Browser::start() else { return };
    let demo = Demo::start();
    let service = Service::start(demo.edge, []);
    open(&browser, &service.base(), "");
    browser.until("document.querySelectorAll('.card.node').length === 3");
    service.set_down(true);
    browser.until("document.querySelector('.banner.bad')?.textContent.includes('herd does not answer')");
    assert_eq!(browser.value("document.querySelectorAll('.card.node').length"), 3, "what was seen last stays");
    service.set_down(false);
    browser.until("!document.querySelector('.banner.bad')");
}

#[test]
fn events_are_shown_as_they_come() {
    let Some(browser) = Browser::start() else { return };
    let demo = Demo::start();
    let service = Service::start(demo.edge, []);
    let mut fleet = demo.status();
    let queue = json!({ "waiting": 3, "requests": [], "runners": [] });
    let request = json!({
        "request_id": "told", "surface": "ollama_chat", "model": "llama3.2:3b", "node_id": "rtx", "phase": "prefill",
        "class": "interactive", "stream": true, "prompt_tokens": 7, "tags": [], "age_ms": 5, "response_bytes": 0,
    });
    let nothing = json!({ "total": 0, "requests": [] });
    let snapshot = json!({ "status": fleet.clone(), "queue": queue, "requests": nothing });
    let mut node = fleet["nodes"][0].take();
    node["state"] = json!("degraded");
    node["why"] = json!({ "code": "silent", "message": "nothing heard for a while" });
    service.stream(vec![
        ("snapshot", snapshot),
        ("requests", json!({ "added": [request], "changed": [], "removed": [] })),
        ("nodes", json!({ "changed": [node], "removed": ["rtx"] })),
        ("health", json!({ "score": 77 })),
    ]);
    open(&browser, &service.base(), "");
    browser.until("document.querySelector('[data-request=told]')?.textContent.includes('prefill')");
    browser.until("document.querySelectorAll('.card.node').length === 2");
    browser.until("document.querySelector('.card.node .why')?.textContent === 'nothing heard for a while'");
    browser.until("document.querySelector('.summary').textContent.includes('3 waiting')");
    browser.until("document.querySelector('nav .score')?.textContent === '77'");
    browser.is_clean(&[]);
}

#[test]
fn a_herd_without_nodes_says_what_to_do() {
    let Some(browser) = Browser::start() else { return };
    let edge = Edge::start(&[]);
    for (path, words) in [
        ("", "herd-agent --router-url http://HOST:"),
        ("/trends", "No request in this stretch"),
        ("/models", "No model yet"),
        ("/apps", "\"metadata\": {\"tags\": [\"my-app\"]}"),
        ("/benchmarks", "Start the first"),
        ("/recommendations", "Nothing to change"),
        ("/settings?q=nobody", "No key fits"),
        ("/traces", "No request fits"),
        ("/explain", "Type a model"),
    ] {
        open(&browser, &format!("http://{}", edge.address), path);
        browser.until(&format!("document.querySelector('main').textContent.includes({words:?})"));
        assert_eq!(browser.value("document.querySelectorAll('main .state.bad').length"), 0, "{path}");
    }
    browser.is_clean(&[]);
}
