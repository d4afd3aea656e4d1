//! `GET /dashboard/openapi.json`: every route but the dashboard's pages, for programs. A test holds it to the router.

use axum::extract::State;
use axum::response::Response;
use herd_core::access::{Need, need_of};
use herd_core::vocabulary::{Status, Surface};
use http::HeaderMap;
use serde_json::{Map, Value, json};

use crate::answer::{JSON, json_if_changed};
use crate::state::AdminState;

/// One method of one path.
#[derive(Clone, Copy)]
struct Route {
    method: &'static str,
    path: &'static str,
    summary: &'static str,
    /// What its query may have; `range` stands for that and its like.
    query: &'static [&'static str],
    /// Fields of its body; with `!` = required.
    body: &'static [&'static str],
    /// What its body is.
    takes: &'static str,
    /// What it answers with; empty = nothing but its status.
    answer: &'static str,
}

const JSON_TYPE: &str = "application/json";

const fn get(path: &'static str, summary: &'static str, query: &'static [&'static str]) -> Route {
    Route { method: "get", path, summary, query, body: &[], takes: JSON_TYPE, answer: JSON_TYPE }
}

const fn post(path: &'static str, summary: &'static str, body: &'static [&'static str]) -> Route {
    Route { method: "post", path, summary, query: &[], body, takes: JSON_TYPE, answer: JSON_TYPE }
}

const fn delete(path: &'static str, summary: &'static str) -> Route {
    Route { method: "delete", path, summary, query: &[], body: &[], takes: JSON_TYPE, answer: JSON_TYPE }
}

const fn head(path: &'static str, summary: &'static str) -> Route {
    Route { method: "head", path, summary, query: &[], body: &[], takes: JSON_TYPE, answer: "" }
}

const fn with_body(route: Route, body: &'static [&'static str]) -> Route {
    Route { body, ..route }
}

const fn sent_as(route: Route, takes: &'static str) -> Route {
    Route { takes, answer: "", ..route }
}

const fn told_as(route: Route, answer: &'static str) -> Route {
    Route { answer, ..route }
}

#[rustfmt::skip]
const ROUTES: &[Route] = &[
    told_as(get("/", "Greets programs; sends browsers to the dashboard", &[]), "text/plain"),
    get("/dashboard/openapi.json", "This document", &[]),
    told_as(get("/dashboard/events", "A snapshot of the fleet and then what changes, as server-sent events", &[]), "text/event-stream"),
    get("/dashboard/api/overview", "All requests of a range, of the range before it, and the fleet now. ttft_ms: from the request read to the first byte of streamed answers, waiting for a slot included; answers in one piece have none", &["range"]),
    get("/dashboard/api/trends", "Requests over time, in steps of minutes, hours or days", &["range", "step_ms", "model", "node", "app", "surface", "compare", "format"]),
    get("/dashboard/api/models", "Requests, contexts and time in memory by model and node", &["range", "format"]),
    get("/dashboard/api/context-usage", "How much of their context the requests of each model use, and on each node", &["range", "format"]),
    get("/dashboard/api/apps", "Requests by application, tag and API key, with their models", &["range", "list", "format"]),
    get("/dashboard/api/tags", "The same as /dashboard/api/apps", &["range", "list", "format"]),
    get("/dashboard/api/apps/daily", "Requests by application and day", &["range", "format"]),
    get("/dashboard/api/usage", "Requests in groups", &["range", "group_by", "format"]),
    get("/dashboard/api/traces", "Single requests, the newest first", &["range", "model", "node", "status", "tag", "app", "surface", "client", "key", "benchmark", "limit", "cursor", "format"]),
    get("/dashboard/api/traces/{request_id}", "One request with its attempts and candidates", &[]),
    get("/dashboard/api/requests", "Requests under way", &["limit", "format"]),
    delete("/dashboard/api/requests/{request_id}", "Ends a request"),
    get("/dashboard/api/settings", "Every key of the configuration", &["format"]),
    post("/dashboard/api/settings", "Changes some of them, all or none", &[]),
    get("/dashboard/api/health", "What the checks find", &["format"]),
    get("/dashboard/api/health/history", "The score over time", &["range", "format"]),
    post("/dashboard/api/health/check", "Looks at the fleet now, not only every 20 s", &[]),
    post("/dashboard/api/health/acknowledge", "Somebody knows of a finding", &["finding!"]),
    post("/dashboard/api/health/mute", "Nobody wants to hear of a finding for a time", &["finding!", "until_unix_ms"]),
    post("/dashboard/api/health/unmute", "A finding is heard of again", &["finding!"]),
    get("/dashboard/api/audit", "Who changed what, the newest first", &["limit", "cursor", "format"]),
    get("/dashboard/api/recommendations", "What to pull, keep, move and unload", &["format"]),
    get("/dashboard/api/model-management", "Every model, and where it is", &["format"]),
    get("/dashboard/api/pinned-models", "Models that stay in memory", &["format"]),
    post("/dashboard/api/pull", "Starts a pull that goes on by itself", &["model!", "node_id"]),
    post("/dashboard/api/delete", "Deletes a model from a node's disk", &["model!", "node_id!", "force"]),
    get("/dashboard/api/benchmarks", "The last benchmarks", &["limit", "format"]),
    get("/dashboard/api/benchmarks/{run_id}", "One benchmark with what was measured", &[]),
    get("/dashboard/api/benchmarks/progress", "The benchmark under way", &[]),
    post("/dashboard/api/benchmarks/start", "Starts a benchmark", &[]),
    post("/dashboard/api/benchmarks/cancel", "Stops the benchmark under way", &[]),
    get("/fleet/status", "The whole truth about the fleet", &[]),
    get("/fleet/queue", "What waits at the edge", &["format"]),
    get("/fleet/limits", "Every bound, and how much of it is used", &["format"]),
    post("/fleet/explain", "How a request would be routed now", &[]),
    get("/fleet/pulls", "Pulls under way and over", &["format"]),
    delete("/fleet/pulls/{id}", "Stops a pull"),
    post("/fleet/pin", "Keeps a model in a node's memory", &["model!", "node_id", "force"]),
    Route { query: &["node_id"], ..delete("/fleet/pin/{model}", "The model may be unloaded again") },
    post("/fleet/nodes/{id}/drain", "No new requests for a node", &[]),
    post("/fleet/nodes/{id}/undrain", "The node takes requests again", &[]),
    post("/fleet/nodes/{id}/unload", "Takes a model out of a node's memory", &["model!", "force"]),
    delete("/fleet/nodes/{id}", "Forgets a node until its next heartbeat"),
    post("/heartbeat", "An agent reports its node", &[]),
    post("/heartbeat/challenge", "Shows an agent that the edge knows its join token", &[]),
    told_as(get("/healthz", "Whether herd lives", &[]), "text/plain"),
    told_as(get("/readyz", "Whether herd can serve", &[]), "text/plain"),
    told_as(get("/metrics", "Metrics for Prometheus", &[]), "text/plain"),
    get("/api/version", "The lowest version of the nodes' Ollama", &[]),
    get("/api/tags", "Models on the disks of the fleet, as Ollama tells", &[]),
    get("/api/ps", "Models in memory, as Ollama tells", &[]),
    post("/api/show", "A model's card, as Ollama tells", &["model!"]),
    get("/api/status", "Whether Ollama's cloud is on, as the first node says that answers", &[]),
    told_as(post("/api/pull", "Pulls a model, as Ollama does", &["model!", "node_id", "insecure", "stream"]), "application/x-ndjson"),
    told_as(post("/api/push", "Pushes a model to a registry from a node that has it, as Ollama does", &["model!", "node_id", "insecure", "stream"]), "application/x-ndjson"),
    told_as(post("/api/create", "Creates a model on one node, as Ollama does", &["model!", "from", "node_id", "stream"]), "application/x-ndjson"),
    post("/api/copy", "Gives a model another name, on every node that has it", &["source!", "destination!", "node_id"]),
    with_body(delete("/api/delete", "Deletes a model from the disk of every node that has it"), &["model!", "node_id"]),
    head("/api/blobs/{digest}", "Whether a node has a file of a model that is to be created"),
    sent_as(post("/api/blobs/{digest}", "Sends a file of a model that is to be created to a node", &[]), "application/octet-stream"),
    get("/v1/models", "Models, as OpenAI tells", &[]),
    get("/v1/models/{id}", "One model, as OpenAI tells", &[]),
    get("/v1/messages", "Tells clients of Anthropic's API that it is here", &[]),
];

/// The document.
pub(crate) async fn document(State(state): State<AdminState>, headers: HeaderMap) -> Response {
    json_if_changed(&headers, JSON, &openapi(&state.config().version))
}

fn openapi(version: &str) -> Value {
    let mut paths = Map::new();
    for route in ROUTES {
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        path[route.method] = operation(route);
    }
    let error = json!({
        "type": "object",
        "required": ["error"],
        "properties": { "error": {
            "type": "object",
            "required": ["code", "message"],
            "properties": { "code": { "type": "string" }, "message": { "type": "string" } },
        } },
    });
    json!({
        "openapi": "3.1.0",
        "info": { "title": "herd", "version": version, "description": "The fleet API and the dashboard's API of herd. \
            Inference itself is as Ollama, OpenAI and Anthropic have it." },
        "paths": paths,
        "components": {
            "schemas": { "Error": error },
            "securitySchemes": { "key": { "type": "http", "scheme": "bearer" } },
        },
    })
}

fn operation(route: &Route) -> Value {
    let mut parameters: Vec<Value> = path_parameters(route.path).map(|name| parameter(name, "path")).collect();
    for name in route.query {
        let names: &[&str] = if *name == "range" { &["range", "from_unix_ms", "to_unix_ms"] } else { &[name] };
        parameters.extend(names.iter().map(|name| parameter(name, "query")));
    }
    let need = need_of(&route.method.to_ascii_uppercase(), route.path);
    let mut operation = json!({
        "summary": route.summary,
        "operationId": operation_id(route),
        "tags": [route.path.split('/').nth(1).filter(|part| !part.is_empty()).unwrap_or("root")],
        "parameters": parameters,
        "responses": {
            "default": {
                "description": "Why not",
                "content": { "application/json": { "schema": { "$ref": "#/components/schemas/Error" } } },
            },
        },
        "x-herd-scope": need.scope().map(herd_core::access::Scope::name),
    });
    let status = if route.path == "/dashboard/api/pull" { "202" } else { "200" };
    let form = if route.answer.is_empty() {
        json!({})
    } else if route.query.contains(&"format") {
        json!({ route.answer: {}, "text/csv": {} })
    } else {
        json!({ route.answer: {} })
    };
    operation["responses"][status] = json!({ "description": route.summary, "content": form });
    if need != Need::Nothing {
        operation["security"] = json!([{}, { "key": [] }]);
    }
    if route.method == "post" || !route.body.is_empty() {
        let schema = if route.takes == JSON_TYPE { body(route.body) } else { json!({}) };
        operation["requestBody"] = json!({ "content": { route.takes: { "schema": schema } } });
    }
    operation
}

fn path_parameters(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
}

fn operation_id(route: &Route) -> String {
    let words = route.path.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    std::iter::once(route.method).chain(words).collect::<Vec<_>>().join("_")
}

fn parameter(name: &str, place: &str) -> Value {
    let schema = match name {
        "range" => json!({ "enum": ["15m", "1h", "6h", "24h", "7d", "30d", "90d", "365d"], "default": "1h" }),
        "format" => json!({ "enum": ["json", "csv"] }),
        // Rows of another program may have words of their own.
        "status" => json!({ "type": "string", "examples": Status::ALL.map(Status::name) }),
        "surface" => json!({ "type": "string", "examples": Surface::ALL.map(Surface::name) }),
        "group_by" => json!({ "enum": ["model", "node", "app", "day", "surface", "node_model", "node_model_day"] }),
        "limit" => json!({ "type": "integer", "minimum": 1, "maximum": 1000 }),
        "from_unix_ms" | "to_unix_ms" | "step_ms" => json!({ "type": "integer", "minimum": 0 }),
        "compare" | "benchmark" => json!({ "enum": ["0", "1"] }),
        _ => json!({ "type": "string" }),
    };
    json!({ "name": name, "in": place, "required": place == "path", "schema": schema })
}

fn body(fields: &[&str]) -> Value {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for field in fields {
        let name = field.trim_end_matches('!');
        let schema = match name {
            "force" | "stream" | "insecure" => json!({ "type": "boolean" }),
            "until_unix_ms" => json!({ "type": "integer" }),
            _ => json!({ "type": "string" }),
        };
        properties.insert(name.to_owned(), schema);
        if name.len() < field.len() {
            required.push(name);
        }
    }
    json!({ "type": "object", "properties": properties, "required": required })
}
