//! What an operator does, and that it holds.

use std::io::Write as _;

use herd_harness::{connect, eventually, get};

use crate::browser::Browser;
use crate::demo::{Ask, Demo};
use crate::open;

pub(crate) fn answer_dialog(browser: &Browser, words: &str) {
    browser.until("document.querySelector('dialog[open]')");
    browser.click_words("dialog", words);
}

fn node_action(browser: &Browser, node: &str, words: &str) {
    browser.click(&format!("document.querySelector('[data-node={node}] [aria-haspopup=menu]')"));
    browser.click_words(&format!("[data-node={node}] .menu"), words);
}

#[test]
fn nodes_and_requests_are_acted_on_after_a_question() {
    let Some(browser) = Browser::start() else { return };
    let demo = Demo::start();
    open(&browser, &demo.base(), "");
    browser.until("document.querySelectorAll('.card.node').length === 3");
    node_action(&browser, "laptop", "Drain…");
    // Escape means no.
    browser.until("document.querySelector('dialog[open]')");
    browser.press("\u{e00c}");
    browser.until("!document.querySelector('dialog[open]')");
    let cordoned = || demo.status()["nodes"].as_array().unwrap().iter().any(|node| node["cordoned"] == true);
    assert!(!cordoned());
    node_action(&browser, "laptop", "Drain…");
    answer_dialog(&browser, "Drain");
    browser.until("!document.querySelector('dialog[open]')");
    browser.until("document.querySelector('[data-node=laptop] .badge').textContent === 'draining'");
    browser.reload();
    browser.until("document.querySelector('[data-node=laptop] .badge')?.textContent === 'draining'");
    node_action(&browser, "laptop", "Undrain");
    answer_dialog(&browser, "Undrain");
    eventually("it is back", || !cordoned());

    // A model leaves memory, and a node the fleet, until its agent tells of it again.
    node_action(&browser, "rtx", "Unload qwen2.5-coder:14b…");
    answer_dialog(&browser, "Unload");
    browser.until("!document.querySelector('[data-node=rtx] .hot').textContent.includes('qwen2.5-coder:14b')");
    let known_for = || {
        demo.status()["nodes"].as_array().unwrap().iter().find(|node| node["node_id"] == "laptop")?["known_for_ms"]
            .as_u64()
    };
    let before = known_for().unwrap();
    node_action(&browser, "laptop", "Remove from the fleet…");
    answer_dialog(&browser, "Remove");
    eventually("it comes anew", || known_for().is_some_and(|ms| ms < before));
    browser.until("document.querySelectorAll('.card.node').length === 3");

    let mut client = connect(demo.edge);
    client.write_all(&Ask { tokens: 3_000, ..Ask::of("llama3.3:70b", &["long"]) }.request()).unwrap();
    browser.until("document.querySelector('.request')?.textContent.includes('llama3.3:70b')");
    browser.click_words(".request", "Cancel");
    answer_dialog(&browser, "Cancel the request");
    browser.until("document.querySelector('[data-panel=requests]').textContent.includes('No request is under way')");
    eventually("it ended", || get(demo.admin, "/dashboard/api/requests").json()["total"] == 0);

    // A pull goes on by itself, and what became of it is told.
    browser.click_words("main", "Pull…");
    browser.fill("document.querySelector('#field-model')", "nobody/has-this:1b");
    answer_dialog(&browser, "Pull");
    browser.until("!document.querySelector('dialog[open]')");
    browser.until("document.querySelector('.pulls')?.textContent.includes('nobody/has-this:1b')");
    browser.is_clean(&["api/pull"]);
}

#[test]
fn a_pull_is_watched_and_cancelled() {
    let Some(browser) = Browser::start() else { return };
    let demo = Demo::start();
    open(&browser, &demo.base(), "/models");
    browser.click_words("main", "Pull…");
    browser.fill("document.querySelector('#field-model')", "llama3.3:70b");
    browser.click("[...document.querySelectorAll('#field-node_id option')].find((one) => one.textContent === 'rtx')");
    answer_dialog(&browser, "Pull");
    browser.until("document.querySelector('[data-panel=pulls] li')?.textContent.includes('rtx')");
    browser.click_words("[data-panel=pulls]", "Cancel");
    answer_dialog(&browser, "Cancel the pull");
    browser.until("document.querySelector('[data-panel=pulls] li .badge')?.textContent === 'cancelled'");
    browser.reload();
    browser.until("document.querySelector('[data-panel=pulls] li .badge')?.textContent === 'cancelled'");
    browser.is_clean(&["api/pull"]);
}

#[test]
fn a_model_is_pulled_deleted_and_gone_after_a_reload() {
    let Some(browser) = Browser::start() else { return };
    let demo = Demo::start();
    open(&browser, &demo.base(), "/models?model=llama3.2%3A1b");
    browser.click_words("[data-panel=model]", "Pull…");
    browser
        .click("[...document.querySelectorAll('#field-node_id option')].find((one) => one.textContent === 'laptop')");
    answer_dialog(&browser, "Pull");
    browser.until("document.querySelector('[data-panel=pulls] li .badge')?.textContent === 'succeeded'");
    browser
        .until("document.querySelector('[aria-label=\"llama3.2:1b on nodes\"] tbody')?.textContent.includes('laptop')");
    browser.click_words("[data-panel=model]", "Delete…");
    answer_dialog(&browser, "Delete");
    let gone = "document.querySelector('[data-panel=model]')?.textContent.includes('On no node')";
    browser.until(gone);
    browser.reload();
    browser.until(gone);
    browser.is_clean(&[]);
}

#[test]
fn a_model_is_pinned_and_let_go() {
    let Some(browser) = Browser::start() else { return };
    let demo = Demo::start();
    open(&browser, &demo.base(), "/models?model=qwen2.5-coder%3A14b");
    let rtx =
        "[...document.querySelectorAll('[data-panel=model] tr')].find((row) => row.textContent.includes('Unload…'))";
    browser.click(&format!("[...{rtx}.querySelectorAll('button')].find((one) => one.textContent === 'Pin…')"));
    answer_dialog(&browser, "Pin");
    let place = "document.querySelector('[aria-label=\"qwen2.5-coder:14b on nodes\"] tbody')?.textContent";
    browser.until(&format!("{place}.includes('pinned')"));
    browser.reload();
    browser.until(&format!("{place}?.includes('pinned')"));
    browser.click_words("[data-panel=model]", "Unpin");
    answer_dialog(&browser, "Unpin");
    browser.until(&format!("!{place}.includes('pinned')"));
    browser.is_clean(&[]);
}

#[test]
fn a_setting_is_changed_and_stays_so() {
    let Some(browser) = Browser::start() else { return };
    let demo = Demo::start();
    open(&browser, &demo.base(), "/settings?q=queue.max_waiting");
    let setting = "document.querySelector('[data-key=\"queue.max_waiting\"]')";
    browser.click(&format!("{setting}.querySelector('.do button')"));
    browser.fill(&format!("{setting}.querySelector('input')"), "-3");
    browser.click_words("[data-key=\"queue.max_waiting\"]", "Save");
    browser.until(&format!("{setting}.querySelector('.state.bad')?.textContent.includes('queue.max_waiting')"));
    browser.fill(&format!("{setting}.querySelector('input')"), "123");
    browser.click_words("[data-key=\"queue.max_waiting\"]", "Save");
    browser.until(&format!("{setting}.querySelector('.value')?.textContent === '123'"));
    browser.reload();
    browser.until(&format!("{setting}?.querySelector('.value')?.textContent === '123'"));
    assert_eq!(browser.text(&format!("{setting}.querySelector('.from .badge').textContent")), "runtime");
    browser.click(&format!("{setting}.querySelector('.do button')"));
    browser.click_words("[data-key=\"queue.max_waiting\"]", "Default");
    browser.until(&format!("{setting}.querySelector('.value')?.textContent === '4096'"));
    browser.is_clean(&["status of 400", "status of 404"]);
}

#[test]
fn a_key_is_all_that_a_guarded_page_needs() {
    let Some(browser) = Browser::start() else { return };
    let (demo, key) = Demo::guarded();
    assert_eq!(get(demo.edge, "/dashboard").status, 401);
    browser.open(&format!("http://anybody:{key}@{}/dashboard/settings?q=queue.max_waiting", demo.edge));
    browser.until("document.querySelector('[data-key=\"queue.max_waiting\"]')");
    browser.click_words("nav", "Overview");
    browser.until("document.querySelectorAll('.card.node').length === 3");
    node_action(&browser, "laptop", "Drain…");
    answer_dialog(&browser, "Drain");
    browser.until("document.querySelector('[data-node=laptop] .badge').textContent === 'draining'");
}

#[test]
fn a_benchmark_is_started_watched_and_read() {
    let Some(browser) = Browser::start() else { return };
    let demo = Demo::start();
    open(&browser, &demo.base(), "/benchmarks");
    browser.click_words("main", "Start…");
    browser.click("[...document.querySelectorAll('#field-model option')].find((one) => one.value === 'llama3.2:3b')");
    browser.click("[...document.querySelectorAll('#field-node option')].find((one) => one.value === 'rtx')");
    for (field, number) in [("requests", "3"), ("concurrency", "1"), ("max_tokens", "16")] {
        browser.fill(&format!("document.querySelector('#field-{field}')"), number);
    }
    answer_dialog(&browser, "Start");
    browser.until("document.querySelector('tbody .badge')?.textContent === 'completed'");
    browser.click("document.querySelector('tbody tr')");
    browser.until("document.querySelector('[data-panel=result] tbody')?.textContent.includes('rtx')");
    assert_eq!(browser.value("document.querySelector('[data-panel=result] td.number').textContent.trim()"), "3");
    browser.is_clean(&[]);
}
