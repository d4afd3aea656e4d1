//! What ails a running fleet, what would do it good, and what becomes of that.

use herd_harness::eventually;
use serde_json::{Value, json};

use crate::browser::Browser;
use crate::demo::{Ask, Demo};
use crate::open;
use crate::operate::answer_dialog;

/// Looks until the check has found it on that node or model.
fn found(demo: &Demo, id: &str) {
    eventually(id, || {
        demo.change("/dashboard/api/health/check", &json!({}));
        let health = demo.told("/dashboard/api/health");
        health["findings"].as_array().unwrap().iter().any(|finding| finding["id"] == id)
    });
}

/// A node that says that it is there, and whose Ollama nobody reaches.
fn join_out_of_reach(demo: &Demo, id: &str) {
    let mut heartbeat: Value =
        serde_json::from_str(include_str!("../golden/heartbeat-ollama-herd-0.11.4.json")).unwrap();
    heartbeat["node_id"] = id.into();
    // Nobody listens to the port that the system reserves.
    heartbeat["ollama_host"] = "http://127.0.0.1:1".into();
    demo.change("/heartbeat", &heartbeat);
}

fn score(browser: &Browser) -> u64 {
    browser.text("document.querySelector('.ring text').textContent").parse().unwrap()
}

#[test]
fn findings_are_real_and_what_is_said_of_them_is_kept() {
    let Some(browser) = Browser::start() else { return };
    let demo = Demo::start();
    join_out_of_reach(&demo, "attic");
    demo.change("/fleet/nodes/laptop/drain", &json!({}));
    found(&demo, "ollama_local_only|attic");
    found(&demo, "node_cordoned|laptop");
    open(&browser, &demo.base(), "/health");
    let finding = |id: &str| format!("document.querySelector('[data-finding=\"{id}\"]')");
    let (attic, laptop) = (finding("ollama_local_only|attic"), finding("node_cordoned|laptop"));
    browser.until(&format!("{attic}?.classList.contains('critical') && {attic}.querySelector('pre').textContent"));
    browser.until(&format!("{laptop}?.textContent.includes('taken out by an operator')"));
    let ill = score(&browser);
    assert!(ill < 100);
    browser.until(&format!("document.querySelector('nav .score').textContent === '{ill}'"));
    // Only the worst.
    browser.click(
        "[...document.querySelectorAll('.health-head button')].find((one) => one.textContent.includes('critical'))",
    );
    browser.until(&format!("location.search.includes('severity=critical') && {attic} && !{laptop}"));
    open(&browser, &demo.base(), "/health");
    browser.until(&laptop);

    browser.click_words("[data-finding=\"node_cordoned|laptop\"]", "Acknowledge");
    answer_dialog(&browser, "Acknowledge");
    browser.until(&format!("!document.querySelector('dialog[open]') && {attic} && !{laptop}"));
    browser.click_words("[data-finding=\"ollama_local_only|attic\"]", "Mute…");
    answer_dialog(&browser, "Mute");
    browser.until(&format!("!document.querySelector('dialog[open]') && !{attic}"));
    browser.until(&format!("Number(document.querySelector('.ring text').textContent) > {ill}"));
    browser.reload();
    browser.until("document.querySelector('.health-head')?.textContent.includes('acknowledged and muted (2)')");
    browser.click("document.querySelector('.health-head input[type=checkbox]')");
    browser.until(&format!("{laptop}?.textContent.includes('acknowledged')"));
    browser.until(&format!("{attic}?.textContent.includes('muted until')"));
    // It is heard of again, and the look that finds it gone takes it away.
    browser.click_words("[data-finding=\"ollama_local_only|attic\"]", "Show again");
    answer_dialog(&browser, "Show");
    browser.until(&format!("document.querySelector('.ring text').textContent === '{ill}'"));
    demo.change("/fleet/nodes/laptop/undrain", &json!({}));
    for _ in 0..3 {
        browser.click_words(".health-head", "Look again");
        browser.until("!document.querySelector('.health-head button:disabled')");
    }
    browser.until(&format!("!{laptop} && {attic}"));
    browser.until("document.querySelector('[data-chart=Score] canvas')");
    browser.is_clean(&[]);
}

#[test]
fn a_recommendation_is_carried_out_with_one_click() {
    let Some(browser) = Browser::start() else { return };
    let (demo, _) = Demo::with_key("anybody");
    for _ in 0..5 {
        assert_eq!(demo.ask(&Ask::of("mistral:7b", &["ci"])).status, 404);
    }
    open(&browser, &demo.base(), "/recommendations");
    browser.until("document.querySelector('main .state')?.textContent.includes('Nothing to change')");
    let stored = || demo.told("/dashboard/api/overview?range=1h")["totals"]["rejected"] == 5;
    eventually("all are stored", stored);
    browser.click_words("main", "Look again");
    let card =
        "[...document.querySelectorAll('[data-recommendation]')].find((one) => one.textContent.includes('mistral:7b'))";
    browser.until(&format!("{card}?.textContent.includes('5 requests a day ask for it, and no node has it.')"));
    let node = browser.text(&format!("{card}.querySelector('.chip').textContent"));
    browser.click(&format!("{card}.querySelector('button.primary')"));
    answer_dialog(&browser, "Do it");
    browser.until(&format!("!document.querySelector('dialog[open]') && !{card}"));
    // What it started is seen, and is there after a reload.
    browser.click_words("nav", "Models");
    browser.until(&format!("document.querySelector('[data-panel=pulls] li')?.textContent.includes('to {node}')"));
    browser.reload();
    browser.until("document.querySelector('[data-panel=pulls] li')?.textContent.includes('mistral:7b')");
    browser.is_clean(&[]);
}

/// The page's next recommendations wait for `window.release()`, and `window.looks` counts the looks that it asked for.
const HOLD_RECOMMENDATIONS: &str = "(() => {
    const plain = window.fetch;
    const gate = new Promise((resolve) => (window.release = resolve));
    window.held = false;
    window.looks = 0;
    window.fetch = async (...asked) => {
        const answer = await plain(...asked);
        if (asked[0].endsWith('/health/check')) window.looks += 1;
        if (asked[0].endsWith('/recommendations') && !window.held) {
            window.held = true;
            await gate;
        }
        return answer;
    };
})()";

#[test]
fn what_changed_while_an_answer_was_on_its_way_is_asked_for_again() {
    let Some(browser) = Browser::start() else { return };
    let (demo, _) = Demo::with_key("anybody");
    open(&browser, &demo.base(), "/recommendations");
    browser.until("document.querySelector('main .state')?.textContent.includes('Nothing to change')");
    browser.value(HOLD_RECOMMENDATIONS);
    browser.click_words("main", "Look again");
    browser.until("window.held");
    for _ in 0..5 {
        assert_eq!(demo.ask(&Ask::of("mistral:7b", &["ci"])).status, 404);
    }
    let stored = || demo.told("/dashboard/api/overview?range=1h")["totals"]["rejected"] == 5;
    eventually("all are stored", stored);
    browser.click_words("main", "Look again");
    browser.until("window.looks === 2 && !document.querySelector('main button:disabled')");
    browser.value("window.release()");
    browser.until("document.querySelector('[data-recommendation]')?.textContent.includes('mistral:7b')");
}
