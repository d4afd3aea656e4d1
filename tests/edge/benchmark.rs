//! Benchmarks through the edge: they measure, and leave no trace in what the edge learns and counts.

use std::io::Write as _;
use std::process::{Command, Stdio};

use herd_harness::{Edge, Sim, bin, connect, eventually, get, post_with, read_answer, send};
use serde_json::Value;

const CHAT: &[u8] =
    br#"{"model":"tiny","stream":false,"options":{"num_predict":1},"messages":[{"role":"user","content":"hi"}]}"#;
const PATH: &str = "/dashboard/api/benchmarks";

fn start(edge: &Edge, body: &str) -> String {
    let begun = edge.admin("POST", &format!("{PATH}/start"), body);
    begun["run_id"].as_str().unwrap_or_else(|| panic!("{begun}")).to_owned()
}

fn over(edge: &Edge, run_id: &str) -> Value {
    let read = || edge.admin("GET", &format!("{PATH}/{run_id}"), "");
    eventually("the run ends", || read()["run"]["state"] != "running");
    read()
}

/// What the edge counts of requests, and what it has learned of the models' speeds.
fn learned(edge: &Edge) -> (Vec<String>, Vec<Value>) {
    let metrics = get(edge.admin, "/metrics").text();
    let of_requests = [
        "herd_requests_total",
        "herd_request_",
        "herd_context_actions_total",
        "herd_retries_total",
        "herd_choice_",
        "herd_tokens_total",
        "herd_model_requests_total",
    ];
    let counts = metrics.lines().filter(|line| of_requests.iter().any(|name| line.starts_with(name)));
    let explained = edge.admin("POST", "/fleet/explain", r#"{"model":"tiny"}"#);
    let status = edge.admin("GET", "/fleet/status", "");
    let p75 = status["nodes"].as_array().into_iter().flatten().map(|node| node["models"][0]["p75_ms"].clone());
    // Which of two equals comes first changes with every choice.
    let mut nodes = explained["nodes"].as_array().cloned().unwrap_or_default();
    nodes.sort_by_key(|node| node["node_id"].to_string());
    let predicted = nodes.iter().map(|node| node["predicted"].clone());
    (counts.map(str::to_owned).collect(), predicted.chain(p75).collect())
}

fn benchmark_requests(edge: &Edge) -> String {
    let metrics = get(edge.admin, "/metrics").text();
    let lines = metrics.lines().filter(|line| line.starts_with("herd_benchmark_requests_total"));
    lines.filter(|line| !line.ends_with(" 0")).collect()
}

#[test]
fn the_faster_node_shows_more_tokens_and_the_edge_learns_nothing() {
    let edge = Edge::start_logged("", &[]);
    let fast = Sim::start(Some(&edge), "fast", &["--hot", "tiny", "--decode-tps", "400"]);
    let slow = Sim::start(Some(&edge), "slow", &["--hot", "tiny", "--decode-tps", "40"]);
    edge.wait_for(&["fast", "slow"]);
    assert_eq!(edge.post("/api/chat", CHAT).status, 200);
    let is_counted = |line: &String| line.starts_with("herd_model_requests_total") && line.ends_with(" 1");
    eventually("it is counted, in what is counted last", || learned(&edge).0.iter().any(is_counted));
    let before = learned(&edge);
    let run_id = start(&edge, r#"{"models":["tiny"],"requests":4,"concurrency":2,"max_tokens":12,"prompt_tokens":40}"#);
    let record = over(&edge, &run_id);
    assert_eq!(record["run"]["state"], "completed", "{record}");
    let speed = |place: usize| record["results"][place]["tokens_per_s"]["p50"].as_f64().unwrap();
    assert_eq!((&record["results"][0]["node_id"], &record["results"][1]["node_id"]), (&"fast".into(), &"slow".into()));
    assert!(speed(0) > 2.0 * speed(1), "{record}");
    assert_eq!((&record["run"]["summary"]["requests"], &record["run"]["summary"]["errors"]), (&8.into(), &0.into()));
    // Both nodes have one slot, so that one of two requests at a time waits at the edge.
    assert!(record["results"][1]["queue_ms"]["p95"].as_f64().unwrap() > 50.0, "{record}");
    assert_eq!(learned(&edge), before);
    assert_eq!(benchmark_requests(&edge), r#"herd_benchmark_requests_total{status="completed"} 10"#);
    eventually("they are logged", || edge.log().matches("benchmark=true").count() == 10);
    assert_eq!(edge.log().matches("benchmark=false").count(), 1);
    for sim in [&fast, &slow] {
        let seen = sim.stats()["recent"].to_string();
        assert!(!seen.contains("x-fleet-only-node") && !seen.contains("x-fleet-benchmark"), "{seen}");
        assert!(!seen.contains("x-herd-edge") && seen.contains(&run_id), "{seen}");
    }
    assert_eq!(edge.in_flight(), 0);
}

#[test]
fn a_failing_node_is_measured_as_such_and_no_other_helps() {
    let edge = Edge::start(&[]);
    let bad = Sim::start(Some(&edge), "bad", &["--hot", "tiny"]);
    let good = Sim::start(Some(&edge), "good", &["--hot", "tiny"]);
    edge.wait_for(&["bad", "good"]);
    bad.fault_with(r#"{"fault":"error_500","paths":"inference"}"#);
    let before = (learned(&edge), good.stats()["by_path"]["/api/chat"].clone());
    let run_id = start(&edge, r#"{"models":["tiny"],"node_ids":["bad"],"requests":3}"#);
    let record = over(&edge, &run_id);
    assert_eq!((&record["run"]["state"], &record["results"][0]["errors"]), (&"failed".into(), &3.into()), "{record}");
    assert_eq!(record["results"][0]["errors_by_status"]["500"], 3, "{record}");
    assert_eq!((learned(&edge).0, good.stats()["by_path"]["/api/chat"].clone()), (before.0.0, before.1));
}

#[test]
fn a_cancelled_run_lets_its_nodes_go() {
    let edge = Edge::start(&[]);
    let sim = Sim::start(Some(&edge), "a", &["--hot", "tiny", "--decode-tps", "20"]);
    edge.wait_for(&["a"]);
    let run_id = start(&edge, r#"{"requests":50,"rate_per_s":50,"max_tokens":4000}"#);
    eventually("it runs", || edge.in_flight() == 1);
    let listed = edge.admin("GET", "/dashboard/api/requests", "");
    let request = &listed["requests"][0];
    assert_eq!((&request["class"], &request["tags"][0]), (&"batch".into(), &"benchmark".into()), "{listed}");
    let again = send(edge.admin, &post_with(&format!("{PATH}/start"), "Content-Type: application/json\r\n", b"{}"));
    assert!(again.status == 409 && again.text().contains(&run_id), "{again:?}");
    assert_eq!(edge.admin("POST", &format!("{PATH}/cancel"), "{}")["run_id"], run_id.as_str());
    eventually("the node is let go", || sim.stats()["in_flight"] == 0 && edge.in_flight() == 0);
    assert_eq!(over(&edge, &run_id)["run"]["state"], "cancelled");
}

#[test]
fn a_clients_own_marks_are_ignored_and_go_no_further() {
    let edge = Edge::start(&[]);
    let _far = Sim::start(Some(&edge), "a-cold", &[]);
    let sim = Sim::start(Some(&edge), "b-hot", &["--hot", "tiny"]);
    edge.wait_for(&["a-cold", "b-hot"]);
    for secret in ["", "X-Herd-Edge: \r\n", "X-Herd-Edge: 00000000000000000000000000000000\r\n"] {
        let marks = format!("X-Fleet-Only-Node: a-cold\r\nX-Fleet-Benchmark: b\r\nX-Fleet-Benchmark: c\r\n{secret}");
        let mut client = connect(edge.address);
        client.write_all(&post_with("/api/chat", &marks, CHAT)).unwrap();
        let answer = read_answer(&mut client);
        assert_eq!((answer.status, answer.header("X-Fleet-Node")), (200, Some("b-hot")));
    }
    let seen = sim.stats()["recent"].to_string();
    assert!(seen.contains("/api/chat"), "{seen}");
    for name in ["x-fleet-only-node", "x-fleet-benchmark", "x-herd-edge"] {
        assert!(!seen.contains(name), "{seen}");
    }
    assert_eq!(benchmark_requests(&edge), "");
    eventually("all are counted", || {
        learned(&edge).0.iter().any(|line| line.ends_with(" 3") && line.contains("status=\"completed\""))
    });
}

fn bench(edge: &Edge, args: &[&str]) -> std::process::Output {
    let mut command = Command::new(bin("herd"));
    command.arg("bench").arg("--edge").arg(format!("http://{}", edge.address)).args(args);
    command.stdin(Stdio::null()).output().unwrap()
}

#[test]
fn an_interrupted_command_cancels_its_run() {
    let edge = Edge::start(&[]);
    let sim = Sim::start(Some(&edge), "a", &["--hot", "tiny", "--decode-tps", "20"]);
    edge.wait_for(&["a"]);
    let mut command = Command::new(bin("herd"));
    command.args(["bench", "--max-tokens", "4000", "--edge"]).arg(format!("http://{}", edge.admin));
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    eventually("it runs", || edge.in_flight() == 1);
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.code() == Some(1) && text.contains(": cancelled; 20 requests each"), "{text}");
    eventually("the node is let go", || sim.stats()["in_flight"] == 0 && edge.in_flight() == 0);
}

#[test]
fn the_command_line_measures_and_prints() {
    let edge = Edge::start(&[]);
    let _sim = Sim::start(Some(&edge), "a", &["--hot", "tiny", "--decode-tps", "100"]);
    edge.wait_for(&["a"]);
    let few = ["--requests", "3", "--max-tokens", "5", "--prompt-tokens", "30"];
    let output = bench(&edge, &[&few[..], &["--json", "--model", "tiny", "--node", "a", "--rate", "20"]].concat());
    assert!(output.status.success(), "{output:?}");
    let record: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&record["run"]["state"], &record["results"][0]["requests"]), (&"completed".into(), &3.into()));
    assert_eq!((&record["run"]["config"]["rate_per_s"], &record["results"][0]["node_id"]), (&20.0.into(), &"a".into()));
    let progress = String::from_utf8(output.stderr).unwrap();
    let progress: Value = serde_json::from_str(progress.lines().next().unwrap()).unwrap();
    assert_eq!((&progress["run_id"], &progress["total"]), (&record["run"]["run_id"], &3.into()));
    let output = bench(&edge, &few);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("\n| a | tiny:latest | 3 | 0 | "), "{text}");
    assert_eq!(text.lines().filter(|line| line.starts_with('|')).count(), 3, "{text}");
    let output = bench(&edge, &["--model", "nope"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "herd: none of the chosen nodes has nope (HTTP 404)\n");
    assert_eq!(bench(&edge, &["--rate", "1", "--concurrency", "1"]).status.code(), Some(64));
}
