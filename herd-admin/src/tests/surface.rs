//! Who answers, and in which form.

use axum::body::Body;
use herd_core::wire::OllamaReport;
use http::Request;

use crate::testing::{App, heartbeat, report};

fn version(id: &str, version: &str) -> herd_core::wire::Heartbeat {
    report(id, OllamaReport { version: version.into(), ..OllamaReport::default() })
}

#[tokio::test]
async fn the_root_greets_programs_and_sends_browsers_to_the_dashboard() {
    let app = App::new();
    let program = app.get("/").await;
    assert_eq!(program.told(), (200, "Ollama is running"));
    assert_eq!(program.header("content-type"), "text/plain; charset=utf-8");
    let ask = |request: http::request::Builder| request.uri("/").header("accept", "text/html,*/*").body(Body::empty());
    let browser = app.send(ask(Request::get("/")).unwrap()).await;
    assert_eq!((browser.status.as_u16(), browser.header("location")), (307, "/dashboard"));
    let head = app.send(ask(Request::head("/")).unwrap()).await;
    assert_eq!(head.told(), (200, ""));
}

#[tokio::test]
async fn the_version_is_the_lowest_of_the_online_nodes() {
    let app = App::new();
    assert_eq!(app.get("/api/version").await.body, r#"{"version":"0.0.0","herd_version":"1.2.3"}"#);
    app.join(version("old", "0.9.9"));
    app.after_ms(60_000);
    assert_eq!(app.get("/api/version").await.json()["version"], "0.9.9", "an offline node is better than none");
    app.join(version("a", "0.33.0"));
    app.join(version("b", "0.12.0"));
    let answer = app.get("/api/version").await;
    assert_eq!(answer.json()["version"], "0.12.0");
    assert_eq!(answer.header("content-type"), "application/json; charset=utf-8");
}

#[tokio::test]
async fn anthropic_clients_find_the_endpoint() {
    let answer = App::new().get("/v1/messages").await.json();
    assert_eq!((&answer["ok"], &answer["endpoint"]), (&true.into(), &"/v1/messages".into()));
    assert!(answer["ts"].as_u64().unwrap() > 1_700_000_000);
}

#[tokio::test]
async fn refusals_have_the_form_of_their_surface() {
    let app = App::new();
    let rows = [
        ("GET", "/api/nope", 404, "", r#"{"error":"404 page not found"}"#),
        (
            "GET",
            "/v1/nope",
            404,
            "",
            r#"{"error":{"code":null,"message":"404 page not found","param":null,"type":"not_found_error"}}"#,
        ),
        ("GET", "/nope", 404, "", r#"{"error":{"code":"not_found","message":"404 page not found"}}"#),
        ("GET", "/v1/models/", 404, "", ""),
        ("POST", "/api/tags", 405, "GET,HEAD", r#"{"error":"405 method not allowed"}"#),
        ("GET", "/api/show", 405, "POST", r#"{"error":"405 method not allowed"}"#),
        ("DELETE", "/v1/models", 405, "GET,HEAD", ""),
        (
            "GET",
            "/heartbeat",
            405,
            "POST",
            r#"{"error":{"code":"method_not_allowed","message":"405 method not allowed"}}"#,
        ),
    ];
    for (method, path, status, allow, body) in rows {
        let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
        let answer = app.send(request).await;
        assert_eq!((answer.status.as_u16(), answer.header("allow")), (status, allow), "{method} {path}");
        assert!(body.is_empty() || answer.body == body, "{method} {path}: {}", answer.body);
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        let json = if path.starts_with("/api/") { "application/json; charset=utf-8" } else { "application/json" };
        assert_eq!(answer.header("content-type"), json, "{method} {path}");
    }
}

#[tokio::test]
async fn an_unchanged_catalogue_is_not_sent_twice() {
    let app = App::of([heartbeat("n", &["tiny:latest"])]);
    for path in ["/api/tags", "/api/ps", "/v1/models"] {
        let tag = app.get(path).await.header("etag").to_owned();
        let again = || Request::get(path).header("if-none-match", format!("\"x\", W/{tag}")).body(Body::empty());
        assert_eq!(app.send(again().unwrap()).await.told(), (304, ""), "{path}");
    }
    let tag = app.get("/api/tags").await.header("etag").to_owned();
    app.join(heartbeat("m", &["big:latest"]));
    let again = Request::get("/api/tags").header("if-none-match", tag).body(Body::empty()).unwrap();
    assert_eq!(app.send(again).await.status, 200);
}

#[tokio::test]
async fn the_page_allows_nothing_but_its_own_files() {
    let app = App::of([heartbeat("n", &["<img/src=x/onerror=alert(1)>:latest"])]);
    let page = app.get("/dashboard").await;
    assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
    let policy = page.header("content-security-policy");
    assert!(policy.starts_with("default-src 'none'; script-src 'self'; style-src 'self';"), "{policy}");
    assert!(!policy.contains("unsafe"));
    for inline in ["<style", " style=", " onclick=", "<img", "http://", "https://", "{assets}"] {
        assert!(!page.body.contains(inline), "{inline} in {}", page.body);
    }
    assert_eq!(page.body.matches("<script").count(), page.body.matches("<script src=").count() + 1, "and one module");
    for tab in ["/dashboard/", "/dashboard/trends", "/dashboard/traces/some-id"] {
        assert_eq!(app.get(tab).await.body, page.body, "{tab}");
    }
}

#[tokio::test]
async fn unknown_tabs_send_people_to_the_first_and_tell_programs() {
    let app = App::new();
    let ask = Request::get("/dashboard/nope").header("accept", "text/html,*/*").body(Body::empty()).unwrap();
    let person = app.send(ask).await;
    assert_eq!((person.status.as_u16(), person.header("location")), (307, "/dashboard"));
    for path in
        ["/dashboard/nope", "/dashboard/assets/x/nope.js", "/dashboard/assets/x/../index.html", "/dashboard/api/nope"]
    {
        assert_eq!(app.get(path).await.status, 404, "{path}");
    }
}

#[tokio::test]
async fn files_of_the_dashboard_are_kept_by_browsers_and_go_out_compressed() {
    let app = App::new();
    let page = app.get("/dashboard").await.body;
    let main = page.split('"').find(|part| part.ends_with("/main.js")).unwrap().to_owned();
    let plain = app.get(&main).await;
    assert_eq!(plain.header("content-type"), "text/javascript; charset=utf-8");
    assert_eq!(plain.header("x-content-type-options"), "nosniff");
    assert!(plain.header("cache-control").contains("immutable"));
    let again = Request::get(&main).header("if-none-match", plain.header("etag")).body(Body::empty()).unwrap();
    assert_eq!(app.send(again).await.status, 304);
    let zipped = Request::head(&main).header("accept-encoding", "gzip, br").body(Body::empty()).unwrap();
    let zipped = app.send(zipped).await;
    assert_eq!((zipped.header("content-encoding"), zipped.header("vary")), ("gzip", "accept-encoding"));
    let other = app.get("/dashboard/assets/0000000000000000/main.js").await;
    assert_eq!((&other.body, other.header("cache-control")), (&plain.body, "no-cache"));
}
