//! Whatever is called whatever: it is text.

use serde_json::{Value, json};

use crate::browser::Browser;
use crate::demo::Demo;
use crate::samples::records;
use crate::service::{Service, refusal};
use crate::{TABS, open};

const EVIL: &str = "<img src=x onerror=alert(1)>\"'&<script>alert(2)</script>{{7*7}}${7*7}javascript:alert(3)";

/// Every text that is not of the form's own words becomes hostile.
fn poison(value: &mut Value) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                let structural = ["state", "severity", "kind", "method", "path", "day", "run_id", "next_cursor"];
                if !structural.contains(&name.as_str()) {
                    poison(member);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(poison),
        Value::String(text) => *text = format!("{text}{EVIL}"),
        _ => {}
    }
}

#[test]
fn hostile_names_stay_text_on_every_tab() {
    let Some(browser) = Browser::start() else { return };
    let demo = Demo::start();
    let mut answers = records();
    for (_, answer) in &mut answers {
        poison(answer);
    }
    let mut status = demo.status();
    let mut settings = herd_harness::get(demo.admin, "/dashboard/api/settings").json();
    for node in status["nodes"].as_array_mut().unwrap() {
        for name in ["node_id", "hardware", "condition", "agent_version", "models"] {
            poison(&mut node[name]);
        }
        node["why"] = json!({ "code": EVIL, "message": EVIL });
    }
    for setting in settings["settings"].as_array_mut().unwrap() {
        for name in ["help", "value"] {
            poison(&mut setting[name]);
        }
    }
    let request = json!({
        "request_id": EVIL, "surface": EVIL, "model": EVIL, "node_id": EVIL, "phase": "decode", "class": EVIL, "stream": true,
        "prompt_tokens": 1, "tags": [EVIL], "age_ms": 1, "response_bytes": 1,
    });
    let pull = json!({ "id": 1, "model": EVIL, "node_id": EVIL, "reason": EVIL, "by": EVIL, "phase": EVIL, "status": EVIL,
        "completed_bytes": 0, "total_bytes": null, "error": EVIL, "started_unix_ms": 1, "ended_unix_ms": null });
    answers.extend([
        ("/fleet/status", status),
        ("/dashboard/api/settings", settings),
        ("/dashboard/api/requests", json!({ "total": 1, "requests": [request] })),
        ("/fleet/pulls", json!({ "auto_pull": true, "running": [pull], "recent": [] })),
        ("/fleet/explain", refusal(400, "invalid_request", EVIL)),
    ]);
    let service = Service::start(demo.edge, answers);
    let opened = [
        "/traces/req-7",
        "/benchmarks?run=run-1&with=run-2",
        "/explain?model=x",
        "/apps?app=chat-ui",
        "/models?model=%3Cimg%3E",
    ];
    for path in TABS.iter().map(|(path, _)| *path).chain(opened) {
        open(&browser, &service.base(), path);
        browser.until("document.querySelector('.summary')");
        if !matches!(path, "/explain" | "/settings") {
            browser.until("document.querySelector('main').textContent.includes('onerror=alert(1)')");
        }
        let made =
            "document.querySelectorAll('img, script:not([src]), iframe, [onerror], a[href^=\"javascript\"]').length";
        assert_eq!(browser.value(made), 0, "{path}");
        assert!(!browser.text("document.body.textContent").contains("49javascript"), "{path}");
    }
    // An error of the service, in its own words.
    browser.is_clean(&["status of 400"]);
}
