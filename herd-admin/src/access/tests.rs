use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use base64::Engine as _;
use herd_core::access::meter::KeyLimits;
use herd_core::access::{Denied, Need, Require, Scope, Scopes, Source};
use http::{HeaderMap, HeaderName, Request};
use tokio::sync::watch;

use super::*;
use crate::testing::{App, EDGE, from, heartbeat, post};
use crate::{AdminConfig, EDGE_SECRET_HEADER, SOURCE_HEADER};

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static MADE: AtomicUsize = AtomicUsize::new(0);
        let name = format!("herd-keys-{}-{}", std::process::id(), MADE.fetch_add(1, Relaxed));
        Self(std::env::temp_dir().join(name))
    }

    fn file(&self) -> KeyFile {
        KeyFile::in_folder(&self.0)
    }

    fn add(&self, name: &str, scopes: &str) -> String {
        let scopes = Scopes::parse(scopes.split(',')).unwrap();
        self.file().add(&NewKey { name: name.into(), scopes, limits: KeyLimits::default() }).unwrap().1
    }

    fn keys(&self, require: Require) -> Keys {
        Keys::open(&self.0, require).unwrap()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
    fields.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
}

#[test]
fn a_secret_is_shown_once_and_never_kept() {
    let folder = Folder::new();
    let (secret, other) = (folder.add("laptop", "infer,read"), folder.add("other", "admin"));
    assert!(secret.starts_with("herd_") && secret.len() == 69, "{secret}");
    assert_ne!(secret, other);
    let text = std::fs::read_to_string(folder.file().path()).unwrap();
    assert!(!text.contains(&secret[5..]) && text.contains("\"sha256:"), "{text}");
    assert!(!format!("{:?}", folder.keys(Require::Auto)).contains("sha256"));
}

#[cfg(unix)]
#[test]
fn the_file_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = Folder::new();
    folder.add("a", "infer");
    let path = folder.file().path().to_owned();
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&path), mode(&folder.0)), (0o600, 0o700));
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();
    assert!(Keys::open(&folder.0, Require::Auto).unwrap_err().to_string().contains("others may write it"));
}

#[test]
fn keys_are_added_listed_switched_and_removed_by_name_or_id() {
    let folder = Folder::new();
    let file = folder.file();
    assert_eq!(file.read().unwrap(), []);
    folder.add("a", "infer");
    folder.add("b", "node");
    let id = file.read().unwrap()[1].id.clone();
    assert!(file.set_disabled(&id, true).unwrap().disabled);
    assert!(!file.set_disabled("b", false).unwrap().disabled);
    assert_eq!(file.remove("a").unwrap().name, "a");
    assert_eq!(file.read().unwrap().len(), 1);
    let new = |name: &str, limits| {
        let scopes = Scopes::default().and(Scope::Infer);
        file.add(&NewKey { name: name.into(), scopes, limits }).unwrap_err().to_string()
    };
    assert!(new("b", KeyLimits::default()).contains("already"));
    assert!(new("<b>", KeyLimits::default()).contains("name"));
    assert!(new("", KeyLimits::default()).contains("name"));
    assert!(new("c", KeyLimits { in_flight: Some(0), ..KeyLimits::default() }).contains("greater than 0"));
    assert!(new("c", KeyLimits { requests_per_s: Some(f64::NAN), ..KeyLimits::default() }).contains("greater than 0"));
    assert!(file.remove("a").unwrap_err().to_string().contains("no key named a"));
}

#[test]
fn processes_that_change_keys_at_the_same_time_lose_nothing() {
    let folder = Folder::new();
    std::thread::scope(|scope| {
        let folder = &folder;
        (0..8).for_each(|i| drop(scope.spawn(move || folder.add(&format!("key-{i}"), "infer"))));
    });
    assert_eq!(folder.file().read().unwrap().len(), 8);
}

#[test]
fn a_damaged_file_opens_nothing() {
    let folder = Folder::new();
    folder.add("a", "infer");
    let path = folder.file().path().to_owned();
    let good = std::fs::read_to_string(&path).unwrap();
    let damages = [
        "",
        "{",
        "{\"version\":2,\"keys\":[]}",
        "{\"version\":1,\"keys\":[],\"expires\":1}",
        &good.replace("infer", "root"),
        &good.replace("sha256:", "md5:"),
        &good.replace("\"disabled\"", "\"expires\": 1, \"disabled\""),
    ];
    for damage in damages {
        std::fs::write(&path, damage).unwrap();
        assert!(Keys::open(&folder.0, Require::Auto).is_err(), "{damage}");
    }
}

#[test]
fn a_key_is_found_in_the_headers_that_clients_use_and_nowhere_else() {
    let folder = Folder::new();
    let (secret, other) = (folder.add("a", "infer,read"), folder.add("off", "infer"));
    folder.file().set_disabled("off", true).unwrap();
    let keys = folder.keys(Require::Auto);
    let check = |need, name: &'static str, value: &str| {
        let key = keys.check(need, Source::Network, &headers(&[(name, value)]));
        key.map(|key| key.map(|key| key.name.to_string()))
    };
    let ok = Ok(Some("a".to_owned()));
    let bearer = format!("Bearer {secret}");
    assert_eq!(check(Need::Infer, "authorization", &bearer), ok);
    assert_eq!(check(Need::Infer, "authorization", &format!("bearer  {secret}")), ok);
    assert_eq!(check(Need::Infer, "x-api-key", &secret), ok);
    assert_eq!(check(Need::Infer, "cookie", &secret), Err(Denied::Missing(Scope::Infer)));
    assert_eq!(check(Need::Infer, "authorization", &secret), Err(Denied::Missing(Scope::Infer)));
    for garbage in ["", "herd_", &secret[..68], &format!("{secret}0"), &secret.to_uppercase(), &"herd_x".repeat(100)] {
        assert_eq!(check(Need::Infer, "x-api-key", garbage), Err(Denied::Unknown), "{garbage}");
    }
    assert_eq!(check(Need::Infer, "x-api-key", &other), Err(Denied::Disabled));
    // A key beside what a client library insists on sending.
    let both = headers(&[("authorization", "Bearer unused"), ("x-api-key", &secret)]);
    assert!(keys.check(Need::Infer, Source::Network, &both).unwrap().is_some());
    // Browsers send passwords unasked: good for pages, which keep other sites out, not for inference.
    let basic = base64::engine::general_purpose::STANDARD.encode(format!("any:{secret}"));
    assert_eq!(check(Need::Read, "authorization", &format!("Basic {basic}")), ok);
    assert_eq!(check(Need::Infer, "authorization", &format!("Basic {basic}")), Err(Denied::Missing(Scope::Infer)));
    assert_eq!(check(Need::Read, "authorization", "Basic !"), Err(Denied::Missing(Scope::Read)));
}

#[test]
fn what_looks_like_a_key_of_ours_is_told_from_others() {
    assert!(Keys::any_in(&headers(&[("authorization", "Bearer herd_anything")])));
    assert!(Keys::any_in(&headers(&[("x-api-key", "herd_")])));
    assert!(!Keys::any_in(&headers(&[("authorization", "Bearer unused"), ("x-api-key", "sk-1")])));
}

#[test]
fn to_disable_the_last_key_opens_nothing() {
    let folder = Folder::new();
    folder.add("a", "infer");
    folder.file().set_disabled("a", true).unwrap();
    assert!(folder.keys(Require::Auto).check(Need::Infer, Source::Local, &HeaderMap::new()).is_err());
}

#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<String>>>);

impl AuditSink for Kept {
    fn record(&self, entry: AuditEntry) {
        let AuditEntry { actor, action, target, detail, .. } = entry;
        self.0.lock().unwrap().push(format!("{actor}: {action} {target} {detail}").trim_end().to_owned());
    }
}

impl Kept {
    fn of(audit: &Audit) -> Self {
        let kept = Self::default();
        assert!(audit.keep_in(kept.clone()) && !audit.keep_in(Self::default()));
        kept
    }

    fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

/// Waits for what a task on another thread will do.
async fn until(mut holds: impl FnMut() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), wait).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_running_edge_follows_the_file_and_keeps_its_keys_when_it_goes() {
    let folder = Folder::new();
    let (keys, audit) = (folder.keys(Require::Auto), Audit::default());
    let kept = Kept::of(&audit);
    let (stop, stopped) = watch::channel(false);
    let infer = |secret: &str| keys.check(Need::Infer, Source::Network, &headers(&[("x-api-key", secret)]));
    let follow = async {
        assert!(infer("").is_ok());
        let secret = folder.add("a", "infer");
        until(|| infer("").is_err()).await;
        let key = infer(&secret).unwrap().unwrap();
        let held = key.meter.admit(0).unwrap();
        folder.file().set_disabled("a", true).unwrap();
        until(|| infer(&secret).is_err()).await;
        folder.file().set_disabled("a", false).unwrap();
        until(|| infer(&secret).is_ok()).await;
        assert_eq!(infer(&secret).unwrap().unwrap().meter.usage().in_flight(), 1, "its use goes on");
        drop(held);
        std::fs::write(folder.file().path(), "{").unwrap();
        tokio::time::sleep(Duration::from_millis(900)).await;
        std::fs::remove_file(folder.file().path()).unwrap();
        tokio::time::sleep(Duration::from_millis(900)).await;
        assert!(infer("").is_err() && infer(&secret).is_ok());
        stop.send_replace(true);
    };
    tokio::join!(keys.watch(&audit, stopped), follow);
    let told = kept.all();
    assert_eq!(told.len(), 3, "{told:?}");
    assert!(told[0].starts_with("this machine: key_added a k-") && told[1].ends_with("disabled"), "{told:?}");
}

const LAN: &str = "192.168.1.7";

/// An app whose keys are those of `folder`.
fn app(folder: &Folder, require: Require) -> App {
    let app = App::with(AdminConfig { keys: folder.keys(require), ..AdminConfig::default() });
    app.join(heartbeat("a", &["tiny"]));
    app
}

async fn ask(app: &App, method: &str, path: &str, ip: &str, secret: &str) -> crate::testing::Answer {
    let request = Request::builder().method(method).uri(path).header("host", "127.0.0.1:11436");
    let request = request.header("content-type", "application/json").extension(from(ip));
    let request = if secret.is_empty() { request } else { request.header("authorization", format!("Bearer {secret}")) };
    app.send(request.body(Body::from("{}")).unwrap()).await
}

#[track_caller]
fn told(answer: &crate::testing::Answer, status: u16, code: &str) {
    assert_eq!(answer.status.as_u16(), status, "{}", answer.body);
    let error = &answer.json()["error"];
    if !code.is_empty() {
        assert_eq!(error["code"], code, "{}", answer.body);
    }
}

#[tokio::test]
async fn without_keys_the_lan_reads_and_this_machine_changes() {
    let app = app(&Folder::new(), Require::Auto);
    told(&ask(&app, "GET", "/fleet/status", LAN, "").await, 200, "");
    told(&ask(&app, "GET", "/api/tags", LAN, "").await, 200, "");
    told(&ask(&app, "POST", "/fleet/nodes/a/drain", LAN, "").await, 403, "not_local");
    told(&ask(&app, "POST", "/fleet/nodes/a/drain", LAN, "herd_guess").await, 403, "not_local");
    told(&ask(&app, "POST", "/fleet/nodes/a/drain", "127.0.0.1", "").await, 200, "");
}

#[tokio::test]
async fn with_keys_other_machines_do_what_theirs_are_for() {
    let folder = Folder::new();
    let (infer, read, admin) = (folder.add("i", "infer"), folder.add("r", "read"), folder.add("o", "admin"));
    let app = app(&folder, Require::Auto);
    let kept = Kept::of(app.state.audit_log());
    for path in ["/fleet/status", "/dashboard", "/metrics", "/fleet/pulls"] {
        let answer = ask(&app, "GET", path, LAN, "").await;
        told(&answer, 401, "key_required");
        let challenge =
            if path == "/dashboard" { "Basic realm=\"herd\", charset=\"UTF-8\"" } else { "Bearer realm=\"herd\"" };
        assert_eq!(answer.header("www-authenticate"), challenge);
        told(&ask(&app, "GET", path, LAN, &infer).await, 403, "key_scope");
        assert_eq!(ask(&app, "GET", path, LAN, &read).await.status, 200);
        assert_eq!(ask(&app, "GET", path, LAN, &admin).await.status, 200);
        assert_eq!(ask(&app, "GET", path, "127.0.0.1", "").await.status, 200);
    }
    let tags = ask(&app, "GET", "/api/tags", LAN, "").await;
    assert!(tags.status == 401 && tags.json()["error"].is_string(), "{}", tags.body);
    let models = ask(&app, "GET", "/v1/models", LAN, "herd_no").await;
    assert_eq!(models.json()["error"]["code"], "invalid_api_key");
    assert_eq!(ask(&app, "GET", "/v1/models", LAN, &infer).await.status, 200);
    for path in ["/", "/healthz", "/api/version", "/v1/messages"] {
        assert_ne!(ask(&app, "GET", path, LAN, "").await.status, 401, "{path}");
    }
    told(&ask(&app, "POST", "/fleet/nodes/a/drain", LAN, "").await, 401, "key_required");
    told(&ask(&app, "POST", "/fleet/nodes/a/drain", LAN, &read).await, 403, "key_scope");
    told(&ask(&app, "POST", "/fleet/nodes/a/drain", LAN, &admin).await, 200, "");
    told(&ask(&app, "POST", "/fleet/nodes/a/undrain", "127.0.0.1", "").await, 200, "");
    told(&ask(&app, "POST", "/fleet/nodes/nobody/drain", "127.0.0.1", "").await, 404, "unknown_node");
    let id = &folder.file().read().unwrap()[2].id;
    assert_eq!(kept.all(), [format!("o ({id}) from {LAN}: node_drain a"), "127.0.0.1: node_undrain a".to_owned()]);
}

#[tokio::test]
async fn always_means_this_machine_too_and_never_means_changes_alone() {
    let folder = Folder::new();
    let admin = folder.add("o", "admin");
    let strict = app(&folder, Require::Always);
    told(&ask(&strict, "GET", "/fleet/status", "127.0.0.1", "").await, 401, "key_required");
    told(&ask(&strict, "POST", "/fleet/nodes/a/drain", "127.0.0.1", "").await, 401, "key_required");
    told(&ask(&strict, "POST", "/fleet/nodes/a/drain", "127.0.0.1", &admin).await, 200, "");
    told(&ask(&strict, "GET", "/healthz", LAN, "").await, 200, "");
    let open = app(&folder, Require::Never);
    told(&ask(&open, "GET", "/fleet/status", LAN, "").await, 200, "");
    told(&ask(&open, "POST", "/fleet/nodes/a/drain", LAN, "").await, 401, "key_required");
    told(&ask(&open, "POST", "/fleet/nodes/a/drain", LAN, &admin).await, 200, "");
}

#[tokio::test]
async fn every_change_is_refused_to_strangers_and_foreign_pages() {
    let app = app(&Folder::new(), Require::Auto);
    let changes = [
        ("POST", "/fleet/nodes/a/drain"),
        ("POST", "/fleet/nodes/a/undrain"),
        ("DELETE", "/fleet/pulls/1"),
        ("POST", "/dashboard/api/settings"),
        ("DELETE", "/dashboard/api/requests/1"),
        ("POST", "/api/pull"),
    ];
    let attacks: [(&[(&str, &str)], u16); 8] = [
        (&[("content-type", "text/plain"), ("user-agent", "Mozilla/5.0")], 415),
        (&[("host", "evil.example:11435")], 403),
        (&[("host", "evil.example"), ("origin", "http://evil.example")], 403),
        (&[("origin", "http://evil.example")], 403),
        (&[("origin", "null")], 403),
        (&[("sec-fetch-site", "cross-site")], 403),
        (&[("x-forwarded-for", "127.0.0.1")], 403),
        (&[("x-herd-edge", "guess"), ("x-forwarded-for", "127.0.0.1")], 403),
    ];
    for (method, path) in changes {
        assert_eq!(ask(&app, method, path, LAN, "").await.status, 403, "{method} {path}");
        for (headers, status) in attacks {
            let mut request = post(path).method(method).body(Body::from("{}")).unwrap();
            for (name, value) in headers {
                request.headers_mut().insert(HeaderName::from_static(name), value.parse().unwrap());
            }
            assert_eq!(app.send(request).await.status, status, "{method} {path} {headers:?}");
        }
    }
    let state = app.get("/fleet/status").await.json();
    assert_eq!(state["nodes"][0]["status"], "online", "nothing happened");
}

#[tokio::test]
async fn a_stranger_behind_the_edge_is_one_whatever_it_claims() {
    let app = app(&Folder::new(), Require::Auto);
    let drain = |forwarded: &str, source: &str| {
        let request = post("/fleet/nodes/a/drain").header(EDGE_SECRET_HEADER, EDGE).header(SOURCE_HEADER, source);
        app.send(request.header("x-forwarded-for", forwarded).body(Body::empty()).unwrap())
    };
    assert_eq!(drain(LAN, "network").await.status, 403);
    assert_eq!(drain("127.0.0.1", "network").await.status, 403, "another user of this machine");
    assert_eq!(drain("127.0.0.1", "proxied").await.status, 403);
    assert_eq!(drain("127.0.0.1", "").await.status, 403);
    assert_eq!(drain("127.0.0.1", "local").await.status, 200);
}

#[tokio::test]
async fn nodes_join_with_their_keys() {
    let folder = Folder::new();
    let (node, infer) = (folder.add("n", "node"), folder.add("i", "infer"));
    let config = |join_token: Option<&str>| AdminConfig {
        keys: folder.keys(Require::Auto),
        join_token: join_token.map(Into::into),
        own_agent: Some("own".into()),
        ..AdminConfig::default()
    };
    let beat = serde_json::to_string(&heartbeat("a", &["tiny"])).unwrap();
    for join_token in [None, Some("token")] {
        let app = App::with(config(join_token));
        let send = |shown: &str| {
            let request = post("/heartbeat").header("authorization", format!("Bearer {shown}")).extension(from(LAN));
            app.send(request.body(Body::from(beat.clone())).unwrap())
        };
        assert_eq!(send(&node).await.status, 200);
        assert_eq!(send("own").await.status, 200);
        assert_eq!(send(&infer).await.status, 403);
        assert_eq!(send("guess").await.status, 401);
        assert_eq!(send("").await.status, 401);
        assert_eq!(send("token").await.status, if join_token.is_some() { 200 } else { 401 });
    }
}
