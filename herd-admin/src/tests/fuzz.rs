//! Every route of the `OpenAPI` document, asked with mutated paths, queries and bodies.

use std::cell::Cell;

use axum::body::Body;
use http::Request;
use serde_json::Value;
use tokio::runtime::Builder;

use crate::testing::{App, PYTHON_HEARTBEAT, heartbeat, loaded};

/// Bodies of changes, with what is asked of paths and queries beside them.
const BODIES: &[&str] = &[
    r#"{"model":"tiny","node_id":"a","force":true,"stream":false}"#,
    r#"{"source":"tiny","destination":"copy"}"#,
    r#"{"model":"mine","from":"tiny","files":{"a":"sha256:00"},"parameters":{"num_ctx":1}}"#,
    r#"{"context":{"protection":"warn"},"auto_pull":false,"queue.max_waiting":7}"#,
    r#"{"finding":"x","until_unix_ms":1}"#,
    r#"{"model":"tiny","messages":[{"role":"user","content":"hi"}],"options":{"num_ctx":4096}}"#,
    "range=24h&limit=5&cursor=0000000000000000a&from_unix_ms=1&to_unix_ms=9&format=csv&group_by=day&model=tiny",
    PYTHON_HEARTBEAT,
];

#[test]
fn fuzz_no_request_to_the_admin_service_is_a_defect() {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let app = runtime.block_on(async {
        // Nobody listens there: what would go to a node fails at once.
        let node = loaded(heartbeat("a", &["tiny:latest", "other:latest"]), "tiny:latest", 4096);
        App::of([herd_core::wire::Heartbeat { ollama_host: "http://127.0.0.1:1".into(), ..node }])
    });
    let document = runtime.block_on(app.get("/dashboard/openapi.json")).json();
    let routes: Vec<(String, String)> = document["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, methods)| {
            methods.as_object().unwrap().keys().map(|method| (method.to_uppercase(), path.clone())).collect::<Vec<_>>()
        })
        // Their answers do not end.
        .filter(|(_, path)| !matches!(path.as_str(), "/dashboard/events" | "/api/pull"))
        .collect();
    let samples: Vec<&[u8]> = BODIES.iter().map(|body| body.as_bytes()).collect();
    let next = Cell::new(0_usize);
    herd_fuzz::run("admin API", &samples, |bytes| {
        let (method, path) = &routes[next.get() % routes.len()];
        next.set(next.get() + 1);
        let word: String =
            bytes.iter().map(|byte| char::from(*byte)).filter(char::is_ascii_alphanumeric).take(40).collect();
        let path = path.replace("{*", "{");
        let uri =
            path.split('/').map(|part| if part.starts_with('{') { word.as_str() } else { part }).collect::<Vec<_>>();
        let query: String =
            String::from_utf8_lossy(bytes).chars().filter(|c| c.is_ascii_graphic() && *c != '#').collect();
        let uri = format!("{}?{query}", uri.join("/"));
        let request = Request::builder().method(method.as_str()).uri(&uri).header("content-type", "application/json");
        let Ok(request) = request.header("host", "127.0.0.1:11436").body(Body::from(bytes.to_vec())) else { return };
        let answer = runtime.block_on(app.send(request));
        assert_ne!(answer.status, 500, "{method} {uri}: {}", answer.body);
        if method != "HEAD"
            && answer.status.is_client_error()
            && answer.header("content-type").starts_with("application/json")
        {
            let error: Value = answer.json();
            assert!(!error["error"].is_null() || error["nodes"].is_array(), "{method} {uri}: {error}");
        }
    });
}
