//! The whole agent over real sockets: a scripted Ollama on one side, scripted edges on the other.

use std::net::SocketAddr;
use std::sync::Mutex;

use axum::Router as Routes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post};
use herd_core::wire::Heartbeat;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::*;
use crate::collect::{CpuFacts, MachineFacts};
use crate::config::JoinToken;
use crate::ollama::Loaded;
use crate::ollama::samples::{PS, TAGS};

const EMPTY: &str = r#"{"models":[]}"#;
const FOREVER: Duration = Duration::from_mins(1);

/// An Ollama whose answers are data. While `hangs` is true it accepts and says nothing.
struct FakeOllama {
    ps: Mutex<&'static str>,
    hangs: watch::Sender<bool>,
    asked: watch::Sender<u32>,
}

impl FakeOllama {
    async fn start(tasks: &mut JoinSet<()>) -> (Arc<Self>, SocketAddr) {
        let fake =
            Arc::new(Self { ps: Mutex::new(EMPTY), hangs: watch::Sender::new(false), asked: watch::Sender::new(0) });
        let ps = |State(fake): State<Arc<Self>>| async move { fake.answer().await };
        let routes = Routes::new()
            .route("/api/ps", get(ps))
            .route("/api/tags", get(|| async { TAGS }))
            .route("/api/version", get(|| async { r#"{"version":"0.33.0"}"# }))
            .with_state(Arc::clone(&fake));
        (fake, serve(tasks, TcpListener::bind("127.0.0.1:0").await.unwrap(), routes))
    }

    async fn answer(&self) -> &'static str {
        self.asked.send_modify(|count| *count += 1);
        self.hangs.subscribe().wait_for(|hangs| !hangs).await.unwrap();
        *self.ps.lock().unwrap()
    }
}

/// An edge that keeps what it gets. It answers the nth heartbeat with the nth of `answers`, then with 200; while
/// `holds` is true it takes heartbeats and does not answer.
struct FakeEdge {
    got: mpsc::Sender<(HeaderMap, String)>,
    answers: Mutex<Vec<StatusCode>>,
    holds: watch::Sender<bool>,
}

impl FakeEdge {
    async fn start(tasks: &mut JoinSet<()>) -> (Arc<Self>, Inbox, SocketAddr) {
        let (fake, inbox) = Self::new();
        let address = serve(tasks, TcpListener::bind("127.0.0.1:0").await.unwrap(), fake.routes());
        (fake, inbox, address)
    }

    fn new() -> (Arc<Self>, Inbox) {
        let (got, inbox) = mpsc::channel(1024);
        let fake = Self { got, answers: Mutex::new(Vec::new()), holds: watch::Sender::new(false) };
        (Arc::new(fake), Inbox(inbox))
    }

    fn routes(self: &Arc<Self>) -> Routes {
        let take = |State(fake): State<Arc<Self>>, headers: HeaderMap, body: String| async move {
            fake.got.send((headers, body)).await.unwrap();
            fake.holds.subscribe().wait_for(|holds| !holds).await.unwrap();
            fake.answers.lock().unwrap().pop().unwrap_or(StatusCode::OK)
        };
        Routes::new().route("/heartbeat", post(take)).with_state(Arc::clone(self))
    }
}

struct Inbox(mpsc::Receiver<(HeaderMap, String)>);

impl Inbox {
    async fn next(&mut self) -> (HeaderMap, String) {
        timeout(Duration::from_secs(10), self.0.recv()).await.expect("a heartbeat within 10 s").unwrap()
    }

    /// The first heartbeat that is as `wanted`; others before it are passed over.
    async fn until(&mut self, wanted: impl Fn(&Heartbeat) -> bool) -> Heartbeat {
        loop {
            let heartbeat = serde_json::from_str(&self.next().await.1).unwrap();
            if wanted(&heartbeat) {
                return heartbeat;
            }
        }
    }
}

fn serve(tasks: &mut JoinSet<()>, listener: TcpListener, routes: Routes) -> SocketAddr {
    let address = listener.local_addr().unwrap();
    tasks.spawn(async move { axum::serve(listener, routes).await.unwrap() });
    address
}

fn config(ollama: SocketAddr, edges: &[SocketAddr]) -> Config {
    let mut config = Config {
        node_id: Some(NodeId::new("test").unwrap()),
        router_urls: edges.iter().map(|edge| format!("http://{edge}/").parse().unwrap()).collect(),
        ..Config::default()
    };
    config.ollama.url = format!("http://{ollama}/").parse().unwrap();
    config.ollama.watch_interval = Duration::from_millis(10);
    config.heartbeat.interval = Duration::from_millis(20);
    config
}

/// Starts an agent on made-up hardware.
fn start(tasks: &mut JoinSet<()>, config: Config) -> watch::Sender<bool> {
    start_pausable(tasks, config, watch::channel(false).1)
}

fn start_pausable(tasks: &mut JoinSet<()>, config: Config, paused: watch::Receiver<bool>) -> watch::Sender<bool> {
    let (stop, shutdown) = watch::channel(false);
    let facts = MachineFacts { cpu: Some(CpuFacts::default()), ..MachineFacts::default() };
    let source = HostSource::Fixed(Arc::new(move || facts.clone()));
    tasks.spawn(async move { run_pausable(config, source, shutdown, paused).await.unwrap() });
    stop
}

fn seq(heartbeat: &Heartbeat) -> u64 {
    heartbeat.herd.as_ref().unwrap().seq
}

fn state(heartbeat: &Heartbeat) -> OllamaState {
    heartbeat.herd.as_ref().unwrap().ollama.state
}

#[tokio::test]
async fn the_first_heartbeat_has_everything() {
    let mut tasks = JoinSet::new();
    let (_ollama, ollama_at) = FakeOllama::start(&mut tasks).await;
    let (_edge, mut inbox, edge_at) = FakeEdge::start(&mut tasks).await;
    let token = JoinToken::new("s3cret").unwrap();
    let _stop = start(&mut tasks, Config { join_token: token, ..config(ollama_at, &[edge_at]) });
    let (headers, body) = inbox.next().await;
    assert_eq!(headers["authorization"], "Bearer s3cret");
    assert_eq!(headers["content-type"], "application/json");
    let heartbeat: Heartbeat = serde_json::from_str(&body).unwrap();
    assert_eq!((heartbeat.node_id.as_str(), seq(&heartbeat)), ("test", 1));
    assert_eq!(heartbeat.lan_ip, "127.0.0.1");
    let report = heartbeat.herd.unwrap().ollama;
    assert_eq!((report.state, report.version.as_str()), (OllamaState::Ok, "0.33.0"));
    assert_eq!(report.available.len(), 2);
}

#[tokio::test]
async fn an_ollama_whose_host_has_no_address_is_down_and_nowhere() {
    let mut tasks = JoinSet::new();
    let (_edge, mut inbox, edge_at) = FakeEdge::start(&mut tasks).await;
    let mut config = config(edge_at, &[edge_at]);
    config.ollama.url = "http://no-such-host.invalid:11434/".parse().unwrap();
    let _stop = start(&mut tasks, config);
    let report = inbox.until(|_| true).await.herd.unwrap().ollama;
    assert_eq!((report.state, report.address.as_str()), (OllamaState::Down, ""));
}

#[tokio::test]
async fn a_loaded_model_is_told_at_once() {
    let mut tasks = JoinSet::new();
    let (ollama, ollama_at) = FakeOllama::start(&mut tasks).await;
    let (_edge, mut inbox, edge_at) = FakeEdge::start(&mut tasks).await;
    let mut config = config(ollama_at, &[edge_at]);
    config.heartbeat.interval = FOREVER;
    let _stop = start(&mut tasks, config);
    assert_eq!(seq(&inbox.until(|_| true).await), 1);
    *ollama.ps.lock().unwrap() = PS;
    let second = inbox.until(|_| true).await;
    assert_eq!(second.herd.unwrap().ollama.loaded[0].name, "tiny:latest");
}

#[tokio::test]
async fn work_of_others_is_told_at_once() {
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

    let mut tasks = JoinSet::new();
    let (_ollama, ollama_at) = FakeOllama::start(&mut tasks).await;
    let (_edge, mut inbox, edge_at) = FakeEdge::start(&mut tasks).await;
    let mut config = config(ollama_at, &[edge_at]);
    config.heartbeat.interval = FOREVER;
    let busy = Arc::new(AtomicU32::new(0));
    let runs = Arc::clone(&busy);
    let source = HostSource::Fixed(Arc::new(move || {
        let runner = herd_core::wire::Runner { slots: 2, slots_busy: runs.load(Relaxed), ..Default::default() };
        MachineFacts { runners: Some(vec![runner]), ..MachineFacts::default() }
    }));
    let (_stop, shutdown) = watch::channel(false);
    tasks.spawn(async move { run(config, source, shutdown).await.unwrap() });
    let slots_busy = |heartbeat: Heartbeat| heartbeat.herd.unwrap().ollama.runners.unwrap()[0].slots_busy;
    assert_eq!(slots_busy(inbox.until(|_| true).await), 0);
    for now in [2, 1, 0] {
        busy.store(now, Relaxed);
        assert_eq!(slots_busy(inbox.until(|_| true).await), now);
    }
    assert!(OCCUPANCY_LOOK + OUT_OF_TURN < Duration::from_millis(450), "the way to the edge takes some time too");
}

/// Facts with `names` in memory.
fn facts(state: OllamaState, names: &[&str], context_length: u64) -> Arc<OllamaFacts> {
    let loaded = |name: &&str| Loaded { name: (*name).to_owned(), context_length, ..Loaded::default() };
    let loaded = names.iter().map(loaded).collect();
    Arc::new(OllamaFacts { state, loaded, ..OllamaFacts::default() })
}

#[tokio::test(start_paused = true)]
async fn what_an_edge_must_hear_at_once_is_told_once_per_burst() {
    let (facts_in, mut seen) = watch::channel(Some(facts(OllamaState::Ok, &["a"], 4096)));
    for next in [
        facts(OllamaState::Ok, &["a", "b"], 4096),
        facts(OllamaState::Ok, &["a", "b"], 8192),
        facts(OllamaState::Hung, &["a", "b"], 8192),
        facts(OllamaState::Ok, &[], 0),
    ] {
        let (told, started) = (seen.borrow_and_update().clone().unwrap().essence(), Instant::now());
        let not_before = started + OUT_OF_TURN;
        facts_in.send_replace(Some(next));
        assert!(important_change(&mut seen, &told, not_before).await);
        assert_eq!(started.elapsed(), OUT_OF_TURN, "soon after a heartbeat it waits for more");
        let told = seen.borrow().clone().unwrap().essence();
        facts_in.send_modify(|facts| Arc::make_mut(facts.as_mut().unwrap()).version.push('1'));
        let unchanged = timeout(FOREVER, important_change(&mut seen, &told, not_before)).await;
        assert!(unchanged.is_err(), "the rest is told in turn");
    }
    let (told, started) = (seen.borrow().clone().unwrap().essence(), Instant::now());
    facts_in.send_replace(Some(facts(OllamaState::Down, &[], 0)));
    assert!(important_change(&mut seen, &told, started).await);
    assert_eq!(started.elapsed(), Duration::ZERO, "long after a heartbeat it is told at once");
}

#[tokio::test]
async fn a_hung_ollama_never_silences_the_heartbeat() {
    let mut tasks = JoinSet::new();
    let (ollama, ollama_at) = FakeOllama::start(&mut tasks).await;
    *ollama.ps.lock().unwrap() = PS;
    let (_edge, mut inbox, edge_at) = FakeEdge::start(&mut tasks).await;
    let mut config = config(ollama_at, &[edge_at]);
    config.ollama.timeout = Duration::from_millis(50);
    let _stop = start(&mut tasks, config);
    inbox.until(|heartbeat| state(heartbeat) == OllamaState::Ok).await;
    ollama.hangs.send_replace(true);
    let hung = inbox.until(|heartbeat| state(heartbeat) == OllamaState::Hung).await;
    assert_eq!(hung.herd.unwrap().ollama.loaded.len(), 1, "the last known list stays");
    inbox.until(|_| true).await;
    inbox.until(|_| true).await;
    ollama.hangs.send_replace(false);
    inbox.until(|heartbeat| state(heartbeat) == OllamaState::Ok).await;
}

#[tokio::test]
async fn an_ollama_that_hangs_from_the_start_is_reported_as_hung() {
    let mut tasks = JoinSet::new();
    let (ollama, ollama_at) = FakeOllama::start(&mut tasks).await;
    ollama.hangs.send_replace(true);
    let (_edge, mut inbox, edge_at) = FakeEdge::start(&mut tasks).await;
    let mut config = config(ollama_at, &[edge_at]);
    config.ollama.timeout = Duration::from_millis(50);
    let _stop = start(&mut tasks, config);
    assert_eq!(state(&inbox.until(|_| true).await), OllamaState::Hung);
}

#[tokio::test]
async fn an_absent_ollama_is_down() {
    let mut tasks = JoinSet::new();
    // Bound and not listening: connections are refused, and nobody else can get the port.
    let nobody = TcpSocket::new_v4().unwrap();
    nobody.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let (_edge, mut inbox, edge_at) = FakeEdge::start(&mut tasks).await;
    let _stop = start(&mut tasks, config(nobody.local_addr().unwrap(), &[edge_at]));
    assert_eq!(state(&inbox.until(|_| true).await), OllamaState::Down);
}

#[tokio::test]
async fn a_clean_stop_tells_every_edge() {
    let mut tasks = JoinSet::new();
    let (_ollama, ollama_at) = FakeOllama::start(&mut tasks).await;
    let (_one, mut first, first_at) = FakeEdge::start(&mut tasks).await;
    let (_two, mut second, second_at) = FakeEdge::start(&mut tasks).await;
    let stop = start(&mut tasks, config(ollama_at, &[first_at, second_at]));
    for inbox in [&mut first, &mut second] {
        inbox.until(|_| true).await;
    }
    stop.send_replace(true);
    for inbox in [&mut first, &mut second] {
        let goodbye = inbox.until(|heartbeat| heartbeat.draining).await;
        let run = goodbye.herd.as_ref().map(|report| report.boot.as_str()).unwrap_or_default();
        assert!(!run.is_empty(), "only the run that an edge knows may take its node out");
        let leaving = Heartbeat { node_id: "test".to_owned(), draining: true, ..Heartbeat::default() };
        assert_eq!(Heartbeat { herd: None, ..goodbye }, leaving);
    }
    tasks.join_next().await.unwrap().unwrap();
}

#[tokio::test]
async fn a_paused_agent_is_silent_and_then_tells_the_newest() {
    let mut tasks = JoinSet::new();
    let (ollama, ollama_at) = FakeOllama::start(&mut tasks).await;
    let (edge, mut inbox, edge_at) = FakeEdge::start(&mut tasks).await;
    let (pause, paused) = watch::channel(false);
    let stop = start_pausable(&mut tasks, config(ollama_at, &[edge_at]), paused);
    // The edge holds a heartbeat, so that the pause begins between two of them.
    edge.holds.send_replace(true);
    let last = seq(&inbox.until(|_| true).await);
    pause.send_replace(true);
    edge.holds.send_replace(false);
    let asked = *ollama.asked.borrow();
    ollama.asked.subscribe().wait_for(|now| *now > asked + 20).await.unwrap();
    assert!(inbox.0.try_recv().is_err(), "nothing came");
    pause.send_replace(false);
    assert!(seq(&inbox.until(|_| true).await) > last + 1, "those in between are not told");
    pause.send_replace(true);
    stop.send_replace(true);
    tasks.join_next().await.unwrap().unwrap();
    while let Ok((_, body)) = inbox.0.try_recv() {
        assert!(!serde_json::from_str::<Heartbeat>(&body).unwrap().draining, "nor is a stop");
    }
}

#[tokio::test]
async fn an_edge_that_comes_late_or_fails_gets_the_next_heartbeat() {
    let mut tasks = JoinSet::new();
    let (ollama, ollama_at) = FakeOllama::start(&mut tasks).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let _stop = start(&mut tasks, config(ollama_at, &[socket.local_addr().unwrap()]));
    ollama.asked.subscribe().wait_for(|asked| *asked > 5).await.unwrap();
    let (edge, mut inbox) = FakeEdge::new();
    edge.answers.lock().unwrap().extend([StatusCode::SERVICE_UNAVAILABLE, StatusCode::UNAUTHORIZED]);
    serve(&mut tasks, socket.listen(64).unwrap(), edge.routes());
    let mut last = 0;
    for _ in 0..4 {
        let heartbeat = inbox.until(|_| true).await;
        assert!(seq(&heartbeat) >= last, "what is repeated is never older than what was sent");
        last = seq(&heartbeat);
    }
}

#[tokio::test]
async fn a_slow_edge_delays_nobody_and_then_gets_the_newest() {
    let mut tasks = JoinSet::new();
    let (_ollama, ollama_at) = FakeOllama::start(&mut tasks).await;
    let (slow, mut slow_inbox, slow_at) = FakeEdge::start(&mut tasks).await;
    let (_fast, mut fast_inbox, fast_at) = FakeEdge::start(&mut tasks).await;
    slow.holds.send_replace(true);
    let _stop = start(&mut tasks, config(ollama_at, &[slow_at, fast_at]));
    let held = slow_inbox.until(|_| true).await;
    let newest = fast_inbox.until(|heartbeat| seq(heartbeat) > seq(&held) + 3).await;
    slow.holds.send_replace(false);
    let next = slow_inbox.until(|_| true).await;
    assert!(seq(&next) >= seq(&newest), "{} is older than {}", seq(&next), seq(&newest));
}

/// An Ollama, a herd, or another program that takes no heartbeats.
async fn stranger(tasks: &mut JoinSet<()>, version: &'static str) -> SocketAddr {
    let routes = Routes::new().route("/api/version", get(move || async move { version }));
    serve(tasks, TcpListener::bind("127.0.0.1:0").await.unwrap(), routes)
}

#[tokio::test]
async fn a_herd_in_ollamas_place_is_not_reported() {
    let mut tasks = JoinSet::new();
    let empty = || async { EMPTY };
    let version = || async { r#"{"version":"0.33.0","herd_version":"0.1.0"}"# };
    let (asked_in, mut asked) = mpsc::channel(64);
    let tags = move || async move {
        asked_in.send(()).await.ok();
        EMPTY
    };
    let herd =
        Routes::new().route("/api/ps", get(empty)).route("/api/tags", get(tags)).route("/api/version", get(version));
    let herd_at = serve(&mut tasks, TcpListener::bind("127.0.0.1:0").await.unwrap(), herd);
    let (_edge, mut inbox, edge_at) = FakeEdge::start(&mut tasks).await;
    let _stop = start(&mut tasks, config(herd_at, &[edge_at]));
    for _ in 0..5 {
        timeout(FOREVER, asked.recv()).await.unwrap().unwrap();
    }
    assert!(inbox.0.try_recv().is_err(), "no heartbeat");
}

#[tokio::test]
async fn what_answers_in_an_edges_place_is_told_by_its_version() {
    let mut tasks = JoinSet::new();
    let told = async |tasks: &mut JoinSet<()>, version: &'static str, path: &str| {
        let at = stranger(tasks, version).await;
        let router =
            Router { name: "r".into(), urls: vec![format!("http://{at}{path}").parse().unwrap()], discovered: false };
        crate::send::refusal(post_with(None), router).await
    };
    let ollama = told(&mut tasks, r#"{"version":"0.33.0"}"#, "/").await;
    assert!(ollama.contains("is an Ollama (0.33.0), not an edge") && ollama.contains("11435"), "{ollama}");
    let path = told(&mut tasks, r#"{"version":"0.33.0","herd_version":"0.1.0"}"#, "/v1/").await;
    assert!(path.contains("drop /v1/ from the URL"), "{path}");
    let other = told(&mut tasks, "hello", "/").await;
    assert!(other.contains("404"), "{other}");
}

/// What stands where an edge is looked for: it answers a challenge with `proof`, and keeps what it is shown.
async fn impostor(
    tasks: &mut JoinSet<()>,
    status: u16,
    answer: &'static str,
) -> (SocketAddr, mpsc::Receiver<HeaderMap>) {
    let (shown_in, shown) = mpsc::channel(64);
    let keep = move |headers: HeaderMap| {
        let shown_in = shown_in.clone();
        async move {
            shown_in.send(headers).await.ok();
            (StatusCode::from_u16(status).unwrap(), answer)
        }
    };
    let routes = Routes::new().route("/heartbeat", post(keep.clone())).route("/heartbeat/challenge", post(keep));
    (serve(tasks, TcpListener::bind("127.0.0.1:0").await.unwrap(), routes), shown)
}

#[tokio::test]
async fn the_join_token_goes_to_no_edge_that_only_announced_itself() {
    let mut tasks = JoinSet::new();
    let zeros = r#"{"nonce":"0000000000000000000000000000000000000000000000000000000000000000","proof":"0000000000000000000000000000000000000000000000000000000000000000","valid_ms":60000}"#;
    for (status, answer, told) in [
        (404, "not found", "does not show that it knows the join token"),
        (405, "", "does not show that it knows the join token"),
        (200, zeros, "does not know the join token"),
        (200, "{}", "does not know the join token"),
        (200, r#"{"status":"ok"}"#, "does not know the join token"),
        (401, r#"{"error":{"message":"a join token is required"}}"#, "a join token is required"),
    ] {
        let (at, mut shown) = impostor(&mut tasks, status, answer).await;
        let url = format!("http://{at}/").parse().unwrap();
        let router = Router { name: "r".into(), urls: vec![url], discovered: true };
        let why = crate::send::refusal(post_with(Some("the-secret-token")), router).await;
        assert!(why.contains(told), "{status} {answer}: {why}");
        while let Ok(headers) = shown.try_recv() {
            assert!(headers.get("authorization").is_none(), "{headers:?}");
        }
    }
}

#[tokio::test]
async fn an_edge_that_takes_every_agent_is_shown_nothing() {
    let mut tasks = JoinSet::new();
    for discovered in [true, false] {
        let (at, mut shown) = impostor(&mut tasks, 200, r#"{"open":true}"#).await;
        let url = format!("http://{at}/").parse().unwrap();
        let router = Router { name: "r".into(), urls: vec![url], discovered };
        assert_eq!(crate::send::refusal(post_with(Some("the-secret-token")), router).await, "");
        let all: Vec<_> = std::iter::from_fn(|| shown.try_recv().ok()).collect();
        assert_eq!(all.len(), 2, "the question, and the heartbeat");
        assert!(all.iter().all(|headers| !headers.contains_key("authorization")), "{all:?}");
    }
}

#[tokio::test]
async fn an_edge_that_was_named_and_knows_no_proofs_is_shown_the_token() {
    let mut tasks = JoinSet::new();
    let (at, mut shown) = impostor(&mut tasks, 404, "").await;
    let url = format!("http://{at}/").parse().unwrap();
    let router = Router { name: "r".into(), urls: vec![url], discovered: false };
    crate::send::refusal(post_with(Some("the-secret-token")), router).await;
    let all: Vec<_> = std::iter::from_fn(|| shown.try_recv().ok()).collect();
    assert_eq!(all[0].get("authorization"), None, "it is asked first");
    assert_eq!(all[1]["authorization"], "Bearer the-secret-token");
}

fn post_with(token: Option<&str>) -> Post {
    Post {
        client: Client::new(),
        node_id: NodeId::new("n").unwrap(),
        boot: "b".into(),
        token: token.and_then(|token| JoinToken::new(token).unwrap()),
        timeout: Duration::from_secs(5),
        interval: Duration::from_secs(5),
        paused: watch::channel(false).1,
    }
}
