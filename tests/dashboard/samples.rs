//! Records as the API gives them.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

const STEP_MS: u64 = 60_000;
const POINTS: u64 = 60;

pub(crate) fn now() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

/// Everything that the dashboard reads of records.
pub(crate) fn records() -> Vec<(&'static str, Value)> {
    vec![
        ("/dashboard/api/overview", overview()),
        ("/dashboard/api/usage", usage()),
        ("/dashboard/api/trends", trends()),
        ("/dashboard/api/models", models()),
        ("/dashboard/api/model-management", json!({ "models": [], "pulls": [] })),
        ("/dashboard/api/apps", apps()),
        ("/dashboard/api/traces", traces()),
        ("/dashboard/api/traces/req-7", trace()),
        ("/dashboard/api/health", health()),
        ("/dashboard/api/health/history", history()),
        ("/dashboard/api/recommendations", recommendations()),
        ("/dashboard/api/benchmarks", benchmarks()),
        ("/dashboard/api/benchmarks/progress", json!({ "run_id": "run-3", "done": 13, "total": 40, "errors": 0 })),
        ("/dashboard/api/benchmarks/run-1", run("run-1", 1.0)),
        ("/dashboard/api/benchmarks/run-2", run("run-2", 1.12)),
    ]
}

fn quantiles(middle: f64) -> Value {
    json!({ "p50": middle, "p95": middle * 2.4, "p99": middle * 3.9 })
}

fn wave(index: u64, period: f64) -> f64 {
    (index as f64 / period).sin() + 0.35 * (index as f64 / 2.3 + period).sin() + 0.2 * (index as f64 * 1.7).cos()
}

fn overview() -> Value {
    let totals = |scale: f64| {
        json!({
            "requests": 4_211.0 * scale, "completed": 4_170.0 * scale, "failed": 17.0 * scale, "rejected": 9.0 * scale,
            "incomplete": 6.0, "reaped": 0, "cancelled": 4, "client_disconnected": 5, "prompt_tokens": 2_812_300,
            "completion_tokens": 1_120_400, "retries": 31, "fallbacks": 12, "reloads": 3, "cold_loads": 14,
            "ttft_ms": quantiles(182.0 / scale), "latency_ms": quantiles(2_840.0), "queue_ms": quantiles(12.0),
            "tokens_per_s": 311.2 * scale,
        })
    };
    json!({ "range_ms": 3_600_000, "totals": totals(1.0), "previous": totals(0.88), "now": {} })
}

fn usage() -> Value {
    let row = |key: &str, tokens: u64| json!({ "key": key, "requests": 90, "errors": 0, "completion_tokens": tokens });
    json!({ "passed_ms": 300_000, "rows": [row("mac-studio", 121_300), row("rtx", 143_800), row("laptop", 31_200)] })
}

fn trends() -> Value {
    let first = now() / STEP_MS * STEP_MS - POINTS * STEP_MS;
    let point = |index: u64, back: u64| {
        let busy = 62.0 + 24.0 * wave(index + back, 9.0);
        let slow = 1.0 + 0.3 * wave(index + back, 5.0).abs();
        json!({
            "at_unix_ms": first + index * STEP_MS - back * STEP_MS, "requests": busy.round(), "completed": busy.round(),
            "errors": if (index + back) % 17 == 3 { 4 } else { 0 }, "ttft_ms": quantiles(170.0 * slow),
            "latency_ms": quantiles(2_600.0 * slow), "queue_ms": quantiles(11.0 * slow), "tokens_per_s": busy * 4.4,
            "prompt_tokens": 41_000, "completion_tokens": (busy * 270.0).round(), "cold_loads": index % 11 / 10,
            "reloads": index % 29 / 28, "retries": index % 7 / 5,
        })
    };
    let points: Vec<_> = (0..POINTS).map(|index| point(index, 0)).collect();
    let previous: Vec<_> = (0..POINTS).map(|index| point(index, POINTS)).collect();
    json!({ "step_ms": STEP_MS, "from_unix_ms": first, "to_unix_ms": first + POINTS * STEP_MS, "points": points, "previous": previous })
}

fn models() -> Value {
    let node = |id: &str, speed: f64| {
        json!({ "node_id": id, "requests": 420, "errors": 1, "ttft_ms": quantiles(9_000.0 / speed),
            "latency_ms": quantiles(190_000.0 / speed), "tokens_per_s": speed, "hot": true, "hot_share": 0.8 })
    };
    let model = |name: &str, requests: u64, nodes: Vec<Value>| {
        json!({
            "model": name, "requests": requests, "errors": requests / 300, "prompt_tokens": requests * 690,
            "completion_tokens": requests * 260, "ttft_ms": quantiles(164.0), "latency_ms": quantiles(2_400.0),
            "tokens_per_s": 71.4, "cold_loads": 3, "reloads": requests / 1_000, "context_used_p95": 3_100,
            "context_used_max": 7_900, "context_allocated": 8_192, "nodes": nodes,
        })
    };
    json!({ "models": [
        model("llama3.2:3b", 2_104, vec![node("rtx", 108.0), node("laptop", 41.0)]),
        model("gpt-oss:20b", 911, vec![node("mac-studio", 59.0)]),
        model("qwen2.5-coder:14b", 640, vec![node("rtx", 64.0)]),
        model("llama3.3:70b", 212, vec![node("mac-studio", 18.0)]),
    ] })
}

fn apps() -> Value {
    let app = |name: &str, requests: u64| {
        json!({ "app": name, "tag": name, "key_id": name, "key_name": name, "requests": requests, "errors": requests / 200, "prompt_tokens": requests * 640,
            "completion_tokens": requests * 250, "ttft_ms": quantiles(171.0), "latency_ms": quantiles(2_500.0),
            "top_models": [{ "model": "llama3.2:3b", "requests": requests / 2 }, { "model": "gpt-oss:20b", "requests": requests / 4 }] })
    };
    json!({ "apps": [app("chat-ui", 2_910), app("ci-bot", 866), app("notebook", 355)], "tags": [app("nightly", 301)], "keys": [app("laptop", 12)] })
}

pub(crate) fn trace_row(index: u64) -> Value {
    let models = ["llama3.2:3b", "gpt-oss:20b", "qwen2.5-coder:14b", "llama3.3:70b"];
    let nodes = ["rtx", "mac-studio", "rtx", "mac-studio"];
    let kind = usize::try_from(index % 4).unwrap();
    let app = ["chat-ui", "ci-bot", "notebook"][usize::try_from(index % 3).unwrap()];
    let status = if index % 13 == 5 { "failed" } else { "completed" };
    json!({
        "request_id": format!("req-{index}"), "at_unix_ms": now() - index * 7_300, "surface": "ollama_chat",
        "original_model": models[kind], "model": models[kind], "node_id": nodes[kind], "status": status,
        "http_status": if status == "failed" { 502 } else { 200 }, "latency_ms": 1_900 + 170 * (index % 9),
        "queue_ms": 40 * (index % 5), "ttft_ms": 190 + 44 * (index % 5), "load_ms": 0, "predicted_ms": 2_100,
        "prompt_tokens": 600 + index, "completion_tokens": 220, "score": 104.2, "retry_count": u64::from(index % 13 == 5),
        "stand_in": null, "context_action": "kept", "reload_cause": null, "num_ctx": null, "context_length": 8_192,
        "app": app, "tags": [], "client_ip": "192.168.1.20",
        "error_message": null, "stream": true,
    })
}

fn traces() -> Value {
    json!({ "traces": (1..40).map(trace_row).collect::<Vec<_>>(), "next_cursor": "40" })
}

fn candidate(id: &str, points: [f64; 7], predicted: [f64; 4], readiness: &str, action: &str) -> Value {
    let names = [
        "thermal",
        "memory_fit",
        "queue_depth",
        "latency_history",
        "role_affinity",
        "availability_trend",
        "context_fit",
    ];
    let signals: serde_json::Map<_, _> =
        names.iter().zip(points).map(|(name, points)| ((*name).to_owned(), json!(points))).collect();
    json!({
        "node_id": id, "total": points.iter().sum::<f64>(), "signals": signals, "readiness": readiness, "context_action": action,
        "predicted": { "wait_ms": predicted[0], "load_ms": predicted[1], "prefill_ms": predicted[2], "decode_ms": predicted[3] },
        "last_resort": false,
    })
}

fn trace() -> Value {
    let mut row = trace_row(7);
    let more = json!({
        "request_bytes": 3_120, "response_bytes": 18_400, "user_agent": "ollama-python/0.6.0", "key_id": null, "priority": "interactive",
        "node_id": "rtx", "model": "llama3.2:3b", "original_model": "llama3.2:3b", "queue_ms": 84, "load_ms": 0, "ttft_ms": 402,
        "latency_ms": 2_870, "predicted_ms": 2_492, "retry_count": 1,
    });
    row.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({
        "trace": row,
        "attempts": [
            { "node_id": "laptop", "outcome": "connect_failed", "score": 61.0, "started_ms": 6, "duration_ms": 31 },
            { "node_id": "rtx", "outcome": "completed", "score": 104.0, "started_ms": 84, "duration_ms": 2_786 },
        ],
        "candidates": [
            candidate("rtx", [50.0, 20.0, -4.0, -0.8, 10.8, 10.0, 15.0], [80.0, 0.0, 212.0, 2_200.0], "free", "kept"),
            candidate("laptop", [50.0, 14.0, -15.0, -8.3, 12.2, 4.0, 15.0], [310.0, 0.0, 1_400.0, 5_700.0], "busy", "kept"),
            candidate("mac-studio", [10.0, 20.0, -2.0, -1.0, 3.3, 10.0, 15.0], [0.0, 1_833.0, 710.0, 3_700.0], "load_does_not_pay", "load"),
        ],
    })
}

fn health() -> Value {
    let seen = json!({ "first_seen_unix_ms": now() - 5_400_000, "last_seen_unix_ms": now() - 4_000, "state": "open" });
    let finding = |more: Value| {
        let mut finding = seen.clone();
        finding.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        finding
    };
    json!({ "score": 82.0, "summary": "1 warning, 1 hint", "findings": [
        finding(json!({ "id": "context-waste", "title": "Context is allocated that nobody uses", "severity": "info", "model": "gpt-oss:20b",
            "evidence": [{ "name": "context_used_p95", "value": 3_100 }, { "name": "context_allocated", "value": 32_768 }, { "name": "freed_gib", "value": 2.4 }],
            "fix": "OLLAMA_CONTEXT_LENGTH=8192" })),
        finding(json!({ "id": "thrash", "title": "Models push each other out of memory", "severity": "warning", "node_id": "laptop",
            "evidence": [{ "name": "reloads_per_hour", "value": 14 }, { "name": "models", "value": "gemma3:4b, llama3.2:3b" }],
            "fix": "curl -X POST http://localhost:11435/fleet/pin -H 'Content-Type: application/json' -d '{\"model\":\"gemma3:4b\",\"node_id\":\"mac-studio\"}'" })),
    ] })
}

fn history() -> Value {
    let point = |back: u64| json!({ "at_unix_ms": now() - back * STEP_MS, "score": 82.0 + 6.0 * wave(back, 12.0), "critical": 0, "warning": 1, "info": 1 + back % 2 });
    json!({ "points": (0..POINTS).rev().map(point).collect::<Vec<_>>() })
}

fn recommendations() -> Value {
    json!({ "recommendations": [
        { "id": "r1", "kind": "pull", "model": "llama3.2:3b", "node_id": "mac-studio", "size_bytes": 2_000_000_000_u64,
            "reason": "Requests for it waited 41 times in the last hour while mac-studio had free slots.",
            "expected_gain": "about 300 ms less until the first token for one request in ten",
            "action": { "method": "POST", "path": "/dashboard/api/pull", "body": { "model": "llama3.2:3b", "node_id": "mac-studio" } } },
        { "id": "r2", "kind": "unload", "model": "gemma3:4b", "node_id": "laptop", "size_bytes": 3_500_000_000_u64,
            "reason": "Nobody asked for it in two days.", "expected_gain": "3.3 GiB free on laptop", "action": null },
    ] })
}

fn benchmarks() -> Value {
    let run = |id: &str, back: u64, state: &str| {
        json!({ "run_id": id, "state": state, "started_unix_ms": now() - back, "ended_unix_ms": if state == "running" { json!(null) } else { json!(now() - back + 41_000) },
            "models": ["llama3.2:3b"], "nodes": ["rtx", "laptop"], "summary": { "tokens_per_s": 83.1, "ttft_ms": quantiles(166.0) } })
    };
    json!({ "runs": [run("run-3", 12_000, "running"), run("run-2", 7_200_000, "completed"), run("run-1", 93_600_000, "completed")] })
}

fn run(id: &str, speed: f64) -> Value {
    let result = |node: &str, rate: f64| {
        json!({ "node_id": node, "model": "llama3.2:3b", "requests": 20, "errors": 0, "ttft_ms": quantiles(160.0 / speed),
            "latency_ms": quantiles(1_900.0 / speed), "tokens_per_s": { "p50": rate * speed, "p95": rate * speed * 1.1 }, "prefill_tokens_per_s": rate * 30.0 })
    };
    json!({ "run": { "run_id": id, "state": "completed" }, "results": [result("rtx", 108.0), result("laptop", 41.0)] })
}
