//! Settings that change while the edge runs.

use herd_harness::{Edge, Sim, post_with, send};

const JSON: &str = "Content-Type: application/json\r\n";
const SMALLER: &[u8] = br#"{"model":"tiny","stream":false,"prompt":"x","options":{"num_predict":1,"num_ctx":512}}"#;

#[test]
fn a_setting_is_in_force_for_the_next_request() {
    let edge = Edge::start(&[]);
    let _sim = Sim::start(Some(&edge), "a", &["--hot", "tiny"]);
    edge.wait_for(&["a"]);
    let context = || edge.post("/api/generate", SMALLER).header("X-Fleet-Context").map(str::to_owned);
    assert_eq!(context().as_deref(), Some("raised"));
    let change = edge.admin("POST", "/dashboard/api/settings", r#"{"context":{"protection":"passthrough"}}"#);
    assert_eq!((&change["changed"][0], &change["persisted"]), (&"context.protection".into(), &true.into()), "{change}");
    assert_eq!(context().as_deref(), Some("reload"));
    let listed = edge.admin("GET", "/dashboard/api/settings", "");
    let settings = listed["settings"].as_array().unwrap();
    let setting = settings.iter().find(|setting| setting["key"] == "context.protection").unwrap();
    assert_eq!((&setting["source"], &setting["default"]), (&"runtime".into(), &"strip".into()));
    assert!(setting["help"].as_str().unwrap().contains("num_ctx"));
}

#[test]
fn a_wrong_setting_changes_nothing_and_is_named() {
    let edge = Edge::start(&[]);
    let answer = send(
        edge.admin,
        &post_with("/dashboard/api/settings", JSON, br#"{"auto_pull": false, "queue.max_waiting": -1}"#),
    );
    assert_eq!(answer.status, 400, "{answer:?}");
    assert!(answer.text().contains("queue.max_waiting"), "{answer:?}");
    let listed = edge.admin("GET", "/dashboard/api/settings", "").to_string();
    assert!(!listed.contains("\"source\":\"runtime\""));
}
