//! Settings that change while the edge runs.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use herd_harness::{Edge, Sim, Start, bin, eventually, post_with, send};

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

/// The lines of the audit log.
fn audit(edge: &Edge) -> String {
    std::fs::read_to_string(edge.data_dir().join("logs/audit.jsonl")).unwrap_or_default()
}

#[test]
fn the_audit_log_tells_what_a_setting_was_and_is_and_who_made_a_key() {
    let edge = Edge::launch(&Start { log: "info", ..Start::default() });
    drop(edge.admin("POST", "/dashboard/api/settings", r#"{"queue.max_wait_ms":12345}"#));
    eventually("the change is told with both values", || {
        audit(&edge).lines().any(|line| {
            line.contains("settings_change") && line.contains("queue.max_wait_ms: ") && line.contains(" -> 12345")
        })
    });
    drop(edge.add_key(&["someone"]));
    let line = audit(&edge).lines().find(|line| line.contains("\"key_add\"")).map(str::to_owned);
    let line = line.expect("herd key writes its own line, at once");
    assert!(line.contains("someone") && line.contains("herd key, user "), "{line}");
}

#[test]
fn settings_that_others_can_write_are_refused() {
    let edge = Edge::start(&[]);
    drop(edge.admin("POST", "/dashboard/api/settings", r#"{"queue.max_wait_ms":12345}"#));
    let file = edge.data_dir().join("settings.json");
    let starts = |mode: u32| {
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
        let mut command = Command::new(bin("herd"));
        command.args(["key", "list", "--data-dir"]).arg(edge.data_dir());
        let output = command.output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (started, told) = starts(0o666);
    assert!(!started && told.contains("settings.json: others may write it"), "{told}");
    let (started, told) = starts(0o600);
    assert!(started, "{told}");
}

#[test]
fn a_script_of_ollama_herd_switches_what_it_knows() {
    let edge = Edge::start(&[]);
    let change = edge.admin("POST", "/dashboard/api/settings", r#"{"auto_pull": false, "telemetry": false}"#);
    assert_eq!((&change["status"], &change["unknown"][0]), (&"updated".into(), &"telemetry".into()), "{change}");
    assert_eq!(
        (&change["changed"][0], &change["restart_required"]),
        (&"auto_pull.enabled".into(), &serde_json::json!([]))
    );
}

#[test]
fn the_variables_of_ollama_herd_are_read_from_its_file() {
    let folder = std::env::temp_dir().join(format!("herd-env-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("env");
    std::fs::write(
        &file,
        "# ollama-herd\nexport FLEET_AUTO_PULL='false'\nFLEET_MAX_RETRIES=4\nFLEET_IMAGE_GENERATION=true\n",
    )
    .unwrap();
    let edge = Edge::start_logged("", &[("FLEET_ENV_FILE", file.to_str().unwrap())]);
    let listed = edge.admin("GET", "/dashboard/api/settings", "");
    let setting = |key: &str| {
        let settings = listed["settings"].as_array().unwrap().iter();
        let one = settings.into_iter().find(|setting| setting["key"] == key).unwrap();
        (one["value"].clone(), one["source"].clone())
    };
    assert_eq!(setting("auto_pull.enabled"), (false.into(), "env".into()));
    assert_eq!(setting("retry.max_attempts"), (5.into(), "env".into()));
    herd_harness::eventually("what has no effect is named", || {
        edge.log().lines().any(|line| line.contains("FLEET_IMAGE_GENERATION") && line.contains("no effect"))
    });
    drop(std::fs::remove_dir_all(folder));
}

#[test]
fn a_trace_in_the_list_has_what_the_product_documents() {
    let edge = Edge::start(&[]);
    let _sim = Sim::start(Some(&edge), "a", &["--hot", "tiny"]);
    edge.wait_for(&["a"]);
    assert_eq!(edge.post("/api/generate", SMALLER).status, 200);
    let mut trace = serde_json::Value::Null;
    herd_harness::eventually("the request is kept", || {
        trace = edge.admin("GET", "/dashboard/api/traces?limit=20", "")["traces"][0].clone();
        !trace.is_null()
    });
    for (field, value) in
        [("original_model", "tiny:latest"), ("model", "tiny:latest"), ("node_id", "a"), ("status", "completed")]
    {
        assert_eq!(trace[field], value, "{trace}");
    }
    let score = trace["scores_breakdown"]["total"].as_f64().unwrap();
    assert!((score - trace["score"].as_f64().unwrap()).abs() < 0.01, "{trace}");
    assert!(trace["scores_breakdown"]["thermal"].is_number() && trace["latency_ms"].is_number(), "{trace}");
    assert!(trace["prompt_tokens"].is_number() && trace["completion_tokens"].is_number(), "{trace}");
    assert_eq!((&trace["retry_count"], &trace["fallback_used"]), (&0.into(), &false.into()));
    let managed = edge.admin("GET", "/dashboard/api/model-management", "");
    let node = &managed["nodes"][0];
    assert_eq!((&node["node_id"], &node["models"][0]["name"]), (&"a".into(), &"tiny:latest".into()), "{managed}");
    assert_eq!(node["models"][0]["loaded_in_vram"], true);
}
