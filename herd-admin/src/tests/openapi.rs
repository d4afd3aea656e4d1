//! The `OpenAPI` document against the router.

use std::collections::BTreeSet;

use axum::body::Body;
use http::Request;
use serde_json::Value;

use crate::testing::App;

/// Methods and paths of the document.
fn documented(document: &Value) -> BTreeSet<(String, String)> {
    let paths = document["paths"].as_object().unwrap();
    paths
        .iter()
        .flat_map(|(path, methods)| methods.as_object().unwrap().keys().map(move |m| (m.clone(), path.clone())))
        .collect()
}

/// Methods and paths of the router, as its source has them, but for the pages and files that browsers show.
fn routed() -> BTreeSet<(String, String)> {
    let source = include_str!("../lib.rs");
    let routes = source.split(".route(\"").skip(1).flat_map(|rest| {
        let (path, rest) = rest.split_once('"').unwrap();
        let handlers = rest.split("\n        .").next().unwrap();
        let handlers = if handlers.contains("dashboard::") { "" } else { handlers };
        let methods = ["get", "post", "delete", "put", "patch", "head"];
        let has = move |method: &&str| [" ", "."].iter().any(|before| handlers.contains(&format!("{before}{method}(")));
        let path = path.replace("{*", "{");
        methods.into_iter().filter(has).map(move |method| (method.to_owned(), path.clone())).collect::<Vec<_>>()
    });
    routes.collect()
}

#[tokio::test]
async fn every_route_is_documented_and_the_reverse() {
    let app = App::new();
    let document = app.get("/dashboard/openapi.json").await.json();
    assert_eq!(document["openapi"], "3.1.0");
    let (documented, routed) = (documented(&document), routed());
    assert!(routed.len() > 40, "{routed:?}");
    assert_eq!(documented.difference(&routed).collect::<Vec<_>>(), Vec::<&(String, String)>::new(), "documented only");
    assert_eq!(routed.difference(&documented).collect::<Vec<_>>(), Vec::<&(String, String)>::new(), "routed only");
    for (method, path) in &documented {
        let uri = path.replace(['{', '}'], "");
        let request = Request::builder().method(method.to_uppercase().as_str()).uri(&uri);
        let response = app.open(request.body(Body::empty()).unwrap()).await;
        assert_ne!(response.status(), 405, "{method} {path}");
    }
}

#[tokio::test]
async fn operations_have_what_programs_need() {
    let document = App::new().get("/dashboard/openapi.json").await.json();
    let operations: Vec<_> =
        document["paths"].as_object().unwrap().values().flat_map(|one| one.as_object().unwrap().values()).collect();
    let ids: BTreeSet<_> = operations.iter().map(|one| one["operationId"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), operations.len());
    assert_eq!(document["paths"]["/fleet/nodes/{id}/drain"]["post"]["x-herd-scope"], "admin");
    assert_eq!(document["paths"]["/fleet/status"]["get"]["x-herd-scope"], "read");
    let traces = &document["paths"]["/dashboard/api/traces"]["get"];
    let names: Vec<_> =
        traces["parameters"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert!(["from_unix_ms", "limit", "cursor"].iter().all(|name| names.contains(name)), "{names:?}");
}
