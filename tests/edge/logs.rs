//! What the edge writes about what it does: for people, for programs, and nothing of what is asked or answered.

use std::path::{Path, PathBuf};

use herd_harness::{Edge, Sim, Start, eventually, post_with, send};
use serde_json::Value;

/// Stands in every prompt and nowhere else.
const MARKER: &str = "xyzzy-plugh-7391";

fn file(edge: &Edge) -> PathBuf {
    edge.data_dir().join("logs/herd.jsonl")
}

fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    // The last line may be on its way.
    let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    whole.map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

fn ended(path: &Path) -> Vec<Value> {
    lines(path).into_iter().filter(|line| line["msg"] == "request ended").collect()
}

/// A body with the marker wherever a client may put words of its own.
fn bodies() -> Vec<(&'static str, String)> {
    let message = format!(r#"{{"role":"user","content":"tell me of {MARKER}"}}"#);
    vec![
        ("/api/chat", format!(r#"{{"model":"tiny","messages":[{message}]}}"#)),
        (
            "/api/chat",
            format!(
                r#"{{"model":"tiny","stream":false,"messages":[{message}],"tools":[{{"type":"function","function":{{"name":"{MARKER}"}}}}]}}"#
            ),
        ),
        ("/api/generate", format!(r#"{{"model":"tiny","prompt":"{MARKER}","system":"{MARKER}","suffix":"{MARKER}"}}"#)),
        ("/api/embed", format!(r#"{{"model":"tiny","input":["{MARKER}"]}}"#)),
        ("/api/embeddings", format!(r#"{{"model":"tiny","prompt":"{MARKER}"}}"#)),
        ("/v1/chat/completions", format!(r#"{{"model":"tiny","stream":true,"messages":[{message}]}}"#)),
        ("/v1/completions", format!(r#"{{"model":"tiny","prompt":"{MARKER}"}}"#)),
        ("/v1/embeddings", format!(r#"{{"model":"tiny","input":"{MARKER}"}}"#)),
        ("/v1/responses", format!(r#"{{"model":"tiny","input":"{MARKER}","instructions":"{MARKER}"}}"#)),
        ("/v1/messages", format!(r#"{{"model":"tiny","max_tokens":8,"system":"{MARKER}","messages":[{message}]}}"#)),
        // What is wrong is told, but not in the client's words.
        ("/api/chat", format!(r#"{{"model":"tiny","messages":[{message}"#)),
        ("/api/chat", format!(r#"{{"model":"tiny","messages":"{MARKER}","options":"{MARKER}"}}"#)),
        ("/api/chat", format!(r#"{{"model":"tiny","options":{{"num_ctx":"{MARKER}"}},"messages":[{message}]}}"#)),
        ("/api/chat", format!(r#"{{"model":["{MARKER}"],"messages":[{message}]}}"#)),
        ("/v1/messages", format!("{MARKER} is no JSON")),
        ("/api/chat", format!(r#"{{"model":"absent","messages":[{message}]}}"#)),
    ]
}

#[test]
fn prompts_and_answers_are_in_no_log_at_any_level() {
    let config = "auto_pull: {enabled: false}\nqueue: {max_wait_ms: 2000}\n";
    let edge = Edge::launch(&Start { config, log: "trace", ..Start::default() });
    let sim = Sim::start(Some(&edge), "a", &["--hot", "tiny"]);
    edge.wait_for(&["a"]);
    let bodies = bodies();
    for (path, body) in &bodies {
        drop(send(edge.address, &post_with(path, "Content-Type: application/json\r\n", body.as_bytes())));
    }
    for fault in ["error_500", "cut_mid_stream", "error_400"] {
        sim.fault_with(&format!(r#"{{"fault":"{fault}","count":1}}"#));
        drop(edge.post(bodies[0].0, bodies[0].1.as_bytes()));
    }
    drop(edge.admin("POST", "/fleet/explain", &bodies[0].1));
    let path = file(&edge);
    eventually("all have ended", || ended(&path).len() == bodies.len() + 3);
    eventually("people are told too", || edge.log().matches("request ended").count() == bodies.len() + 3);
    let written = std::fs::read_to_string(&path).unwrap();
    for (name, text) in [("the file", written), ("standard error", edge.log())] {
        assert!(text.contains("request ended"), "{name}: {text}");
        let found = text.lines().find(|line| line.contains(MARKER));
        assert_eq!(found, None, "{name}");
    }
}

#[test]
fn each_request_is_one_line_with_its_fields() {
    let edge = Edge::launch(&Start { log: "info", ..Start::default() });
    let _sim = Sim::start(Some(&edge), "a", &["--hot", "tiny"]);
    edge.wait_for(&["a"]);
    let body = br#"{"model":"tiny","messages":[{"role":"user","content":"hi"}]}"#;
    assert_eq!(send(edge.address, &post_with("/api/chat", "X-Request-Id: mine-1\r\n", body)).status, 200);
    let path = file(&edge);
    eventually("it is written", || !ended(&path).is_empty());
    let line = &ended(&path)[0];
    for (key, value) in [
        ("level", "info"),
        ("target", "herd::request"),
        ("request_id", "mine-1"),
        ("node_id", "a"),
        ("model", "tiny:latest"),
        ("surface", "ollama_chat"),
        ("status", "completed"),
        ("attempts", "a:completed"),
    ] {
        assert_eq!(line[key], value, "{key} in {line}");
    }
    let ts = line["ts"].as_str().unwrap();
    assert!(ts.len() == "2026-11-24T10:11:12.345Z".len() && ts.ends_with('Z'), "{ts}");
    assert!(line["latency_ms"].is_u64() && line["completion_tokens"].is_u64() && line.get("error").is_none(), "{line}");
    assert!(lines(&path).iter().any(|line| line["msg"] == "node joined" && line["node_id"] == "a"));
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
    }
}

#[test]
fn colours_are_for_terminals_alone() {
    let edge = Edge::launch(&Start { log: "info", env: &[("NO_COLOR", "")], ..Start::default() });
    let _sim = Sim::start(Some(&edge), "a", &[]);
    edge.wait_for(&["a"]);
    eventually("it is told", || edge.log().contains("node joined"));
    assert!(!edge.log().contains('\u{1b}'), "{}", edge.log());
}

#[test]
fn the_last_lines_are_written_when_the_edge_stops() {
    let mut edge = Edge::launch(&Start { log: "info", ..Start::default() });
    let _sim = Sim::start(Some(&edge), "a", &[]);
    // Then it listens to signals, too.
    edge.wait_for(&["a"]);
    edge.process.terminate();
    assert_eq!(edge.process.wait(), Some(0));
    let told = lines(&file(&edge));
    assert!(told.iter().any(|line| line["msg"] == "all requests have finished"), "{told:?}");
}

#[test]
fn files_are_rotated_by_size_and_can_be_switched_off() {
    let env = [("FLEET_LOG_MAX_BYTES", "65536"), ("FLEET_LOG_KEEP_FILES", "1")];
    let edge = Edge::launch(&Start { log: "info", env: &env, ..Start::default() });
    let logs = edge.data_dir().join("logs");
    // The folder is made with the first line that is written.
    let files = || std::fs::read_dir(&logs).into_iter().flatten().map(|entry| entry.unwrap().file_name());
    eventually("one is rotated, and an older one removed", || {
        (0..50).for_each(|_| drop(edge.post("/api/chat", b"{")));
        files().any(|name| name.to_str().is_some_and(|name| name.ends_with(".2.jsonl")))
    });
    eventually("no more are kept", || files().count() == 2);
    let size = std::fs::metadata(file(&edge)).unwrap().len();
    assert!(size <= 65_536, "{size}");
    let quiet = Edge::launch(&Start { log: "info", env: &[("FLEET_LOG_FILE", "false")], ..Start::default() });
    assert_eq!(quiet.post("/api/chat", b"{").status, 400);
    eventually("people are told", || quiet.log().contains("request ended"));
    assert!(!quiet.data_dir().join("logs").exists());
}

#[test]
fn a_standard_error_that_is_no_terminal_has_warnings_alone() {
    let edge = Edge::launch(&Start { log: "info", env: &[("FLEET_LOG_STDERR", "auto")], ..Start::default() });
    assert_eq!(edge.post("/api/chat", b"{").status, 400);
    let path = file(&edge);
    eventually("the file has the request", || !ended(&path).is_empty());
    assert!(edge.log().lines().all(|line| line.contains(" WARN ") || line.contains("ERROR")), "{}", edge.log());
}

#[test]
fn a_folder_that_cannot_be_written_costs_lines_and_not_the_edge() {
    let edge = Edge::launch(&Start {
        config: "data_dir: /dev/null/herd\n",
        log: "info",
        own_data_dir: true,
        ..Start::default()
    });
    for _ in 0..20 {
        assert_eq!(edge.post("/api/chat", b"{").status, 400);
    }
    eventually("people are told", || edge.log().contains("cannot write /dev/null/herd/logs/herd.jsonl"));
    let warnings = edge.log().lines().filter(|line| line.contains("log lines are lost")).count();
    assert_eq!(warnings, 1, "once");
    let lost = || {
        let text = herd_harness::get(edge.admin, "/metrics").text();
        let line = text.lines().find(|line| line.starts_with("herd_log_drops_total ")).map(str::to_owned);
        line.and_then(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).unwrap_or(0)
    };
    eventually("they are counted", || lost() >= 20);
}

#[test]
fn changes_are_in_files_of_their_own_at_any_level() {
    let edge = Edge::launch(&Start { log: "error", ..Start::default() });
    let _sim = Sim::start(Some(&edge), "a", &["--hot", "tiny"]);
    edge.wait_for(&["a"]);
    let said = edge.admin("POST", "/fleet/nodes/a/drain", "{}");
    let audit = edge.data_dir().join("logs/audit.jsonl");
    eventually("the change is written", || lines(&audit).iter().any(|line| line["on"] == "a"));
    assert!(lines(&audit).iter().all(|line| line["target"] == "herd::audit"), "{said}");
    assert_eq!(lines(&file(&edge)), Vec::<Value>::new(), "its level leaves out all else");
}
