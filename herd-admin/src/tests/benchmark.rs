//! Benchmarks against an edge that answers as a test says.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use http::StatusCode;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::testing::{App, EDGE, from, heartbeat, loaded, post};
use crate::{AdminConfig, Benchmarks};

const START: &str = "/dashboard/api/benchmarks/start";
const ANSWER: &str = concat!(
    r#"{"model":"m","message":{"role":"assistant","content":"a"},"done":false}"#,
    "\n",
    r#"{"model":"m","message":{"role":"assistant","content":""},"done":true,"done_reason":"stop","#,
    r#""prompt_eval_count":20,"prompt_eval_duration":10000000,"eval_count":5,"eval_duration":50000000}"#,
    "\n"
);

/// An edge: `slow` is never answered, `broken` breaks off, `absent` is nowhere.
fn answer(request: &Request, body: &Value) -> (StatusCode, String) {
    let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    assert_eq!((header("x-herd-edge"), request.uri().path()), (EDGE, "/api/chat"));
    assert!(header("x-request-id").starts_with(header("x-fleet-benchmark")));
    assert_eq!((&body["stream"], &body["options"]["num_predict"]), (&true.into(), &7.into()));
    match body["model"].as_str().unwrap() {
        "absent:latest" => (StatusCode::NOT_FOUND, r#"{"error":"model 'absent' not found"}"#.into()),
        "broken:latest" => (StatusCode::OK, ANSWER.lines().next().unwrap().to_owned() + "\n"),
        _ => (StatusCode::OK, ANSWER.to_owned()),
    }
}

struct Bench {
    app: App,
    _tasks: JoinSet<()>,
    stop: watch::Sender<bool>,
}

async fn edge() -> (SocketAddr, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let handler = |request: Request| async move {
        let (parts, body) = request.into_parts();
        let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
        let body: Value = serde_json::from_slice(&body).unwrap();
        let request = Request::from_parts(parts, Body::empty());
        let (status, text) = answer(&request, &body);
        if body["model"] == "slow:latest" {
            std::future::pending::<()>().await;
        }
        let node = request.headers()["x-fleet-only-node"].clone();
        let response = Response::builder().status(status).header("x-fleet-node", node);
        response.header("x-fleet-queue-ms", "3").body(Body::from(text)).unwrap()
    };
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { axum::serve(listener, Router::new().fallback(handler)).await.unwrap() });
    (address, tasks)
}

impl Bench {
    /// Two nodes: `a` has all models and `tiny` in memory, `b` has `tiny` on disk.
    async fn new() -> Self {
        let (address, mut tasks) = edge().await;
        let app = App::with(AdminConfig { edge: Some(address), ..AdminConfig::default() });
        app.join(loaded(heartbeat("a", &["tiny", "slow", "broken", "absent"]), "tiny", 4096));
        app.join(heartbeat("b", &["tiny"]));
        let (stop, stopped) = watch::channel(false);
        let benchmarks = app.state.benchmarks().clone();
        tasks.spawn(async move { benchmarks.run(stopped).await });
        Self { app, _tasks: tasks, stop }
    }

    fn benchmarks(&self) -> &Benchmarks {
        self.app.state.benchmarks()
    }

    /// Starts a run of `fields` besides few tokens; returns its id.
    async fn start(&self, fields: &str) -> String {
        let answer = self.app.post(START, format!(r#"{{"max_tokens":7,"prompt_tokens":20,{fields}}}"#)).await;
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.body);
        answer.json()["run_id"].as_str().unwrap().to_owned()
    }

    /// The run of `fields` when it is over.
    async fn done(&self, fields: &str) -> Value {
        let run_id = self.start(fields).await;
        self.over(&run_id).await
    }

    async fn over(&self, run_id: &str) -> Value {
        while self.benchmarks().progress().is_some() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.app.get(&format!("/dashboard/api/benchmarks/{run_id}")).await.json()
    }

    async fn refused(&self, body: &str) -> (u16, String) {
        let answer = self.app.post(START, body.to_owned()).await;
        let error = answer.json()["error"].clone();
        (answer.status.as_u16(), format!("{}: {}", error["code"].as_str().unwrap(), error["message"].as_str().unwrap()))
    }
}

#[tokio::test]
async fn every_node_is_measured_by_what_its_answers_tell() {
    let bench = Bench::new().await;
    let record = bench.done(r#""models":["tiny"],"requests":9,"concurrency":3"#).await;
    let (run, results) = (&record["run"], record["results"].as_array().unwrap());
    assert_eq!((&run["state"], &run["nodes"]), (&"completed".into(), &serde_json::json!(["a", "b"])), "{record}");
    assert_eq!((&run["summary"]["requests"], &run["summary"]["errors"]), (&18.into(), &0.into()));
    for (result, node) in results.iter().zip(["a", "b"]) {
        assert_eq!((&result["node_id"], &result["requests"]), (&node.into(), &9.into()), "the first only warms up");
        assert_eq!(result["tokens_per_s"]["p50"], 100.0);
        assert_eq!((&result["prefill_tokens_per_s"], &result["queue_ms"]["p95"]), (&2000.0.into(), &3.0.into()));
        assert_eq!((&result["completion_tokens"], &result["errors"]), (&45.into(), &0.into()));
        assert!(result["ttft_ms"]["p99"].as_f64().unwrap() <= result["latency_ms"]["p99"].as_f64().unwrap());
        assert!(result["warm_up_ms"].is_f64());
    }
    let listed = bench.app.get("/dashboard/api/benchmarks").await.json();
    assert_eq!((listed["runs"].as_array().unwrap().len(), &listed["runs"][0]), (1, run));
}

#[tokio::test]
async fn failures_are_told_by_status_and_a_missing_model_fails_at_once() {
    let bench = Bench::new().await;
    let record = bench.done(r#""models":["absent","broken","tiny"],"node_ids":["a"],"requests":5"#).await;
    let results = record["results"].as_array().unwrap();
    let errors = |place: usize| results[place]["errors_by_status"].clone();
    assert_eq!((errors(0), errors(1)), (serde_json::json!({"404": 5}), serde_json::json!({"truncated": 5})));
    assert_eq!(results[0]["last_error"], "model 'absent' not found");
    assert!(results[0]["given_up"].as_str().unwrap().contains("404"));
    assert_eq!((&results[2]["errors"], &record["run"]["state"]), (&0.into(), &"completed".into()));
    let record = bench.done(r#""models":["absent"],"rate_per_s":100"#).await;
    assert_eq!(record["run"]["state"], "failed");
}

#[tokio::test]
async fn one_run_at_a_time_and_an_operator_ends_it() {
    let bench = Bench::new().await;
    let run_id = bench.start(r#""models":["slow"]"#).await;
    let (status, told) = bench.refused("{}").await;
    assert_eq!((status, told), (409, format!("benchmark_running: the benchmark {run_id} is under way")));
    let progress = bench.app.get("/dashboard/api/benchmarks/progress").await.json();
    assert_eq!((&progress["run_id"], &progress["total"]), (&run_id.as_str().into(), &20.into()));
    let cancel = "/dashboard/api/benchmarks/cancel";
    assert_eq!(bench.app.post(cancel, "{}").await.json()["run_id"], run_id.as_str());
    assert_eq!(bench.app.post(cancel, "{}").await.status, StatusCode::CONFLICT);
    assert_eq!(bench.app.get("/dashboard/api/benchmarks/progress").await.body, "null");
    let record = bench.over(&run_id).await;
    assert_eq!(
        (&record["run"]["state"], &record["run"]["error"]),
        (&"cancelled".into(), &"cancelled by 127.0.0.1".into())
    );
    let next = bench.done(r#""node_ids":["a"],"requests":2"#).await;
    assert_eq!((&next["run"]["state"], &next["run"]["models"][0]), (&"completed".into(), &"tiny:latest".into()));
}

#[tokio::test]
async fn a_stop_or_the_limit_of_time_ends_a_run_and_keeps_it() {
    let bench = Bench::new().await;
    let record = bench.done(r#""models":["slow"],"max_duration_s":1"#).await;
    assert_eq!(
        (&record["run"]["state"], &record["run"]["error"]),
        (&"failed".into(), &"the limit of 1 s was over first".into())
    );
    let run_id = bench.start(r#""models":["slow"]"#).await;
    bench.stop.send(true).unwrap();
    let record = bench.over(&run_id).await;
    assert_eq!((&record["run"]["state"], &record["run"]["error"]), (&"cancelled".into(), &"herd is stopping".into()));
    assert_eq!(bench.refused("{}").await.0, 503);
}

#[tokio::test]
async fn what_is_out_of_its_limits_is_refused() {
    let bench = Bench::new().await;
    for (body, expected) in [
        (r#"{"requests":0}"#, "requests must be 1 to 10000"),
        (r#"{"models":["tiny"],"requests":5001}"#, "requests must be at most 10000 over all nodes and models"),
        (r#"{"concurrency":65}"#, "concurrency must be 1 to 64"),
        (r#"{"rate_per_s":0}"#, "rate_per_s must be 0.01 to 1000"),
        (
            r#"{"rate_per_s":1,"concurrency":1}"#,
            "rate_per_s must be given without concurrency: one is an open loop, the other a closed one",
        ),
        (r#"{"max_duration_s":3601}"#, "max_duration_s must be 1 to 3600"),
        (r#"{"max_tokens":99999999}"#, "max_tokens must be 1 to 16384"),
    ] {
        assert_eq!(bench.refused(body).await, (400, format!("invalid_request: {expected}")), "{body}");
    }
    assert_eq!(
        bench.refused(r#"{"models":["nope"]}"#).await,
        (404, "unknown_model: none of the chosen nodes has nope".into())
    );
    assert_eq!(bench.refused(r#"{"models":["slow"],"node_ids":["b"]}"#).await.0, 404);
    assert_eq!(bench.refused(r#"{"node_ids":["c"]}"#).await, (404, "unknown_node: there is no node \"c\"".into()));
    assert_eq!(bench.refused(r#"{"node_ids":["b"]}"#).await.0, 409, "nothing is in memory there");
    for body in ["[]", "{", r#"{"request":1}"#, r#"{"requests":-1}"#] {
        assert_eq!(bench.refused(body).await.0, 400, "{body}");
    }
    let mut far = post(START).body(Body::from("{}")).unwrap();
    far.extensions_mut().insert(from("192.168.1.7"));
    assert_eq!(bench.app.send(far).await.status, StatusCode::FORBIDDEN);
    let page = http::Request::post(START).header("host", "127.0.0.1").header("content-type", "text/plain");
    assert_eq!(bench.app.send(page.body(Body::from("{}")).unwrap()).await.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    assert_eq!(bench.app.get("/dashboard/api/benchmarks/none").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn nodes_that_do_not_serve_are_left_out_by_name() {
    let bench = Bench::new().await;
    bench.app.post("/fleet/nodes/b/drain", "{}").await;
    let record = bench.done(r#""models":["tiny"],"node_ids":["a","b"],"requests":1"#).await;
    assert_eq!(record["run"]["left_out"][0]["reason"], "the node is draining");
    assert_eq!(record["results"].as_array().unwrap().len(), 1);
    let (status, told) = bench.refused(r#"{"models":["tiny"],"node_ids":["b"]}"#).await;
    assert!(status == 400 && told.contains("tiny:latest on b: the node is draining"), "{told}");
}
