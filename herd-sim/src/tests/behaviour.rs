//! Loads, slots, clients that leave, models that come and go: over sockets.

use herd_core::name::fnv1a;
use tokio::{net::TcpStream, task::JoinSet, time::Instant};

use super::*;
use crate::{Preload, SimNode, SimStats};
use herd_agent::{HostSource, MachineFacts};

fn generate(num_ctx: Option<u32>) -> Value {
    json!({"model": "tiny", "prompt": "hi", "stream": false, "options": {"num_ctx": num_ctx}})
}

async fn begin(node: &SimNode, body: &Value) -> TcpStream {
    client::send(node.addr(), "POST", "/api/chat", &[], body.to_string().as_bytes()).await
}

#[tokio::test]
async fn another_context_reloads_the_runner() {
    let node = start(config()).await;
    let check = async |num_ctx: Option<u32>, context: u64, reloads: u64| {
        post(&node, "/api/generate", &generate(num_ctx)).await;
        assert_eq!(loaded(&node).await, [("tiny:latest".to_owned(), context)]);
        assert_eq!(node.stats().scheduler.reloads, reloads, "num_ctx {num_ctx:?}");
    };
    check(None, 4096, 0).await;
    check(Some(4096), 4096, 0).await;
    check(Some(2048), 2048, 1).await;
    check(Some(16_384), 8192, 2).await;
    check(Some(8192), 8192, 2).await;
    check(None, 4096, 3).await;
}

#[tokio::test]
async fn v1_has_no_options_and_an_alias_is_the_way_round() {
    let node = start(config()).await;
    post(&node, "/api/generate", &generate(Some(8192))).await;
    let alias = json!({"model": "tiny-ctx8192", "from": "tiny", "parameters": {"num_ctx": 8192}, "stream": false});
    assert_eq!(post(&node, "/api/create", &alias).await.json(), json!({"status": "success"}));
    let reply = post(&node, "/v1/chat/completions", &chat("tiny-ctx8192")).await.json();
    assert_eq!(reply["model"], "tiny-ctx8192");
    assert_eq!((node.stats().scheduler.reloads, loaded(&node).await), (0, vec![("tiny:latest".to_owned(), 8192)]));
    let plain = with(chat("tiny"), "options", json!({"num_ctx": 8192}));
    post(&node, "/v1/chat/completions", &plain).await;
    assert_eq!((node.stats().scheduler.reloads, loaded(&node).await), (1, vec![("tiny:latest".to_owned(), 4096)]));
}

#[tokio::test]
async fn nothing_comes_while_a_model_loads_and_it_is_not_listed() {
    let node = start(SimConfig { load_bytes_per_s: 1.0, ..config() }).await;
    let waiting = begin(&node, &chat("tiny")).await;
    eventually("it arrived", || node.stats().in_flight == 1).await;
    assert_eq!(loaded(&node).await, []);
    assert_eq!(get(&node, "/api/tags").await.status, 200);
    assert!(client::is_silent(&waiting), "not even headers");
}

fn machine(node: &SimNode) -> MachineFacts {
    let HostSource::Fixed(facts) = node.host_source() else { panic!("the node's machine is data") };
    facts()
}

#[tokio::test]
async fn the_agent_tells_of_a_load_and_then_of_the_runner() {
    let node = start(SimConfig { load_bytes_per_s: 2e10, decode_tokens_per_s: 0.1, ..config() }).await;
    assert_eq!(machine(&node).loading, Vec::<String>::new());
    let _client = begin(&node, &chat("tiny")).await;
    eventually("it loads", || machine(&node).loading == ["tiny:latest"]).await;
    assert_eq!(machine(&node).runners, Some(Vec::new()));
    eventually("it runs", || machine(&node).loading.is_empty()).await;
    let runner = || machine(&node).runners.and_then(|mut runners| runners.pop()).unwrap_or_default();
    eventually("it has read the prompt", || runner().tokens_done == 1).await;
    assert_eq!((runner().slots, runner().slots_busy, runner().prefill_tokens_left), (1, 1, 0));
}

#[tokio::test]
async fn progress_shows_during_a_long_prefill_and_during_an_answer() {
    let rates = SimConfig { prefill_tokens_per_s: 5000.0, decode_tokens_per_s: 200.0, ..config() };
    let node = start(SimConfig { answer_tokens: 100_000, ..rates }).await;
    let _client =
        begin(&node, &with(chat("tiny"), "messages", json!([{"role": "user", "content": "hi ".repeat(2000)}]))).await;
    let runner = || machine(&node).runners.and_then(|mut runners| runners.pop()).unwrap_or_default();
    eventually("it reads", || runner().tokens_done > 0 && runner().prefill_tokens_left > 0).await;
    eventually("it writes", || runner().prefill_tokens_left == 0).await;
    let before = runner().tokens_done;
    eventually("it gets on", || runner().tokens_done > before).await;
}

#[tokio::test]
async fn the_load_is_in_load_duration_the_first_time_only() {
    // A gigabyte in a twentieth of a second.
    let node = start(SimConfig { load_bytes_per_s: 2e10, ..config() }).await;
    let load_nanos = async || post(&node, "/api/generate", &generate(None)).await.json()["load_duration"].as_u64();
    assert!(load_nanos().await >= Some(50_000_000));
    assert!(load_nanos().await.is_some_and(|nanos| (1_000_000..50_000_000).contains(&nanos)));
}

#[tokio::test]
async fn a_client_that_leaves_frees_its_slot_for_the_next() {
    let node = start(SimConfig { decode_tokens_per_s: 20.0, answer_tokens: 100_000, ..config() }).await;
    let mut first = begin(&node, &chat("tiny")).await;
    client::read_until(&mut first, "\"done\":false").await;
    let second = begin(&node, &chat("tiny")).await;
    eventually("the second waits", || node.slots().first().is_some_and(|runner| runner.waiting == 1)).await;
    let view = node.slots().remove(0);
    assert_eq!((view.slots_busy, view.slots_total, view.n_ctx), (1, 1, 4096));
    assert!(view.tokens_left > 1000 && view.slots[0].is_processing && view.slots[0].n_prompt_tokens == 1);
    assert_eq!(get(&node, "/_sim/slots").await.json()[0]["waiting"], 1);
    drop(first);
    let mut second = second;
    client::read_until(&mut second, "\"done\":false").await;
    let stats = node.stats();
    assert_eq!((stats.cancelled, stats.in_flight, stats.in_flight_max), (1, 1, 2));
    drop(second);
    eventually("all slots are free", || node.slots()[0].slots_busy == 0 && node.stats().in_flight == 0).await;
    assert_eq!(node.stats().cancelled, 2);
}

#[tokio::test]
async fn a_client_that_leaves_takes_its_load_with_it() {
    let node = start(SimConfig { load_bytes_per_s: 1.0, ..config() }).await;
    let whole = begin(&node, &with(chat("tiny"), "stream", json!(false))).await;
    eventually("it arrived", || node.stats().in_flight == 1).await;
    drop(whole);
    eventually("the load is given up", || node.stats().scheduler.loads_cancelled == 1).await;
    assert_eq!(loaded(&node).await, []);
}

#[tokio::test]
async fn a_full_queue_is_a_503_on_every_surface() {
    let node = start(SimConfig { max_queue: 0, load_bytes_per_s: 1.0, ..config() }).await;
    let blocking = begin(&node, &chat("tiny")).await;
    eventually("it loads", || node.stats().in_flight == 1).await;
    let head = begin(&node, &chat("loop")).await;
    eventually("it is the head", || node.stats().in_flight == 2).await;
    let text = "server busy, please try again.  maximum pending requests exceeded";
    let native = post(&node, "/api/chat", &chat("think")).await;
    assert_eq!((native.status, native.json()), (503, json!({ "error": text })));
    let openai = post(&node, "/v1/chat/completions", &chat("think")).await;
    assert_eq!((openai.status, &openai.json()["error"]["type"]), (503, &json!("api_error")));
    let anthropic = post(&node, "/v1/messages", &with(chat("think"), "max_tokens", json!(9))).await;
    assert_eq!((anthropic.status, &anthropic.json()["error"]["type"]), (503, &json!("overloaded_error")));
    let embed = post(&node, "/api/embed", &json!({"model": "embed", "input": "x"})).await;
    assert_eq!(embed.status, 503);
    assert_eq!(node.stats().scheduler.rejected_busy, 4);
    drop((blocking, head));
}

#[tokio::test]
async fn a_model_larger_than_memory_is_a_500() {
    let node = start(SimConfig { memory_bytes: 1 << 29, ..config() }).await;
    let reply = post(&node, "/api/chat", &chat("tiny")).await;
    let text = "model requires more system memory (0.9 GiB) than is available (0.5 GiB)";
    assert_eq!((reply.status, reply.json()), (500, json!({ "error": text })));
}

#[tokio::test]
async fn keep_alive_unloads_keeps_and_expires() {
    let node = start(SimConfig { keep_alive_ms: 300_000, ..config() }).await;
    let expiry = async || get(&node, "/api/ps").await.json()["models"][0]["expires_at"].as_str().map(str::to_owned);
    let load = post(&node, "/api/generate", &json!({"model": "tiny", "keep_alive": -1})).await.json();
    assert_eq!((&load["done_reason"], &load["response"]), (&json!("load"), &json!("")));
    assert!(expiry().await.is_some_and(|at| at.as_str() > "2300"), "about 292 years from now");
    let unload = post(&node, "/api/chat", &json!({"model": "tiny", "keep_alive": 0})).await.json();
    assert_eq!(unload["done_reason"], "unload");
    assert_eq!(loaded(&node).await, []);
    let short = with(chat("tiny"), "keep_alive", json!("30ms"));
    post(&node, "/api/chat", &short).await;
    eventually("it has expired", || node.stats().running.is_empty()).await;
}

#[tokio::test]
async fn models_are_hot_at_the_start_when_so_configured() {
    let preload = vec![Preload { model: "TINY".to_owned(), num_ctx: Some(2048) }];
    let node = start(SimConfig { preload, load_bytes_per_s: 1.0, ..config() }).await;
    assert_eq!(loaded(&node).await, [("tiny:latest".to_owned(), 2048)]);
    assert_eq!(post(&node, "/api/generate", &generate(Some(2048))).await.status, 200);
    assert_eq!(node.stats().scheduler.loads, 0);
}

#[tokio::test]
async fn the_same_request_gets_the_same_words_and_another_seed_others() {
    let node = start(config()).await;
    let say = async |seed: u32| {
        let ask = with(generate(None), "options", json!({ "seed": seed }));
        post(&node, "/api/generate", &ask).await.json()["response"].clone()
    };
    assert_eq!(say(1).await, say(1).await);
    assert_ne!(say(1).await, say(2).await);
    let embed =
        async |text: &str| post(&node, "/v1/embeddings", &json!({"model": "embed", "input": text})).await.text();
    assert_eq!(embed("a").await, embed("a").await);
    assert_ne!(embed("a").await, embed("b").await);
}

#[tokio::test]
async fn limits_cut_an_answer_or_stretch_it() {
    let natural = start(SimConfig { fill_to_limit: false, ..config() }).await;
    let filling = start(config()).await;
    let tokens = async |node: &SimNode, limit: u32| {
        let ask = with(generate(None), "options", json!({ "num_predict": limit }));
        let reply = post(node, "/api/generate", &ask).await.json();
        (reply["eval_count"].as_u64(), reply["done_reason"].as_str().map(str::to_owned))
    };
    let expected = |count, reason: &str| (Some(count), Some(reason.to_owned()));
    assert_eq!(tokens(&filling, 50).await, expected(50, "length"));
    assert_eq!(tokens(&filling, 1_000_000).await, expected(40_960, "length"));
    assert_eq!(tokens(&natural, 50).await, expected(11, "stop"));
    assert_eq!(tokens(&natural, 5).await, expected(5, "length"));
    let reply = post(&filling, "/v1/messages", &with(chat("tiny"), "max_tokens", json!(4096))).await.json();
    assert_eq!((&reply["usage"]["output_tokens"], &reply["stop_reason"]), (&json!(11), &json!("end_turn")));
}

#[tokio::test]
async fn a_pull_takes_its_time_and_brings_the_model() {
    let library = vec![SimModel { size_bytes: 2_000_000_000, ..SimModel::named("new:7b") }];
    let node = start(SimConfig { library, pull_bytes_per_s: 2e10, ..config() }).await;
    let room = || machine(&node).disk.map_or(0, |disk| disk.available_bytes);
    let (started, before) = (Instant::now(), room());
    let lines = post(&node, "/api/pull", &json!({"model": "new:7b"})).await.lines();
    assert!(started.elapsed() >= Duration::from_millis(100));
    assert_eq!(before - room(), 2_000_000_000, "the agent sees the room that it takes");
    assert_eq!(
        (&lines[0], lines.last()),
        (&json!({"status": "pulling manifest"}), Some(&json!({"status": "success"})))
    );
    let progress: Vec<_> = lines.iter().filter_map(|line| line["completed"].as_u64()).collect();
    assert!(progress.len() == 5 && progress.is_sorted() && progress.last() == Some(&2_000_000_000));
    assert_eq!(post(&node, "/api/chat", &chat("new:7b")).await.status, 200);
    let missing = post(&node, "/api/pull", &json!({"model": "nowhere"})).await;
    assert_eq!(missing.lines().last(), Some(&json!({"error": "pull model manifest: file does not exist"})));
}

#[tokio::test]
async fn a_pull_that_is_left_brings_nothing() {
    let library = vec![SimModel::named("new")];
    let node = start(SimConfig { library, pull_bytes_per_s: 1.0, ..config() }).await;
    let mut pull = client::send(node.addr(), "POST", "/api/pull", &[], br#"{"model":"new"}"#).await;
    client::read_until(&mut pull, "pulling manifest").await;
    drop(pull);
    eventually("its client is missed", || node.stats().in_flight == 0).await;
    assert_eq!(post(&node, "/api/chat", &chat("new")).await.status, 404);
    let full = start(SimConfig { library: vec![SimModel::named("new")], disk_bytes: 1, ..config() }).await;
    let reply = post(&full, "/api/pull", &json!({"model": "new", "stream": false})).await;
    assert_eq!(reply.status, 500);
}

#[tokio::test]
async fn copies_and_deletes_change_the_list() {
    let node = start(SimConfig { models: vec![SimModel::named("tiny")], ..config() }).await;
    let names = async || {
        let list = get(&node, "/v1/models").await.json();
        list["data"].as_array().map(|models| models.iter().map(|model| model["id"].clone()).collect::<Vec<_>>())
    };
    post(&node, "/api/copy", &json!({"source": "tiny", "destination": "me/copy"})).await;
    assert_eq!(names().await, Some(vec![json!("me/copy:latest"), json!("tiny:latest")]));
    assert_eq!(client::request(node.addr(), "DELETE", "/api/delete", br#"{"model":"tiny"}"#).await.status, 200);
    assert_eq!(names().await, Some(vec![json!("me/copy:latest")]));
}

#[tokio::test]
async fn stats_remember_what_was_sent() {
    let node = start(config()).await;
    let body = with(chat("Tiny"), "options", json!({"num_ctx": 2048})).to_string();
    client::request_with(node.addr(), "POST", "/api/chat", &["X-Trace: 7", "Authorization: Bearer x"], body.as_bytes())
        .await;
    let stats = node.stats();
    let seen = stats.recent.first().expect("one request");
    assert_eq!((seen.method.as_str(), seen.path.as_str(), seen.model.as_str()), ("POST", "/api/chat", "Tiny"));
    assert_eq!((seen.num_ctx, seen.stream, seen.body_bytes), (Some(2048), None, body.len()));
    assert_eq!(seen.body_fnv64, format!("{:016x}", fnv1a(body.as_bytes())));
    assert_eq!(seen.headers.get("x-trace").map(String::as_str), Some("7"));
    assert_eq!((stats.by_model.get("Tiny"), stats.by_path.get("/api/chat")), (Some(&1), Some(&1)));
    let over_http: SimStats = serde_json::from_slice(&get(&node, "/_sim/stats").await.body()).expect("stats");
    assert_eq!(over_http.recent, stats.recent);
    assert_eq!(post(&node, "/_sim/reset", &json!({})).await.status, 200);
    assert_eq!((node.stats().requests, node.stats().scheduler.loads), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_is_served_by_one_load() {
    let node = start(SimConfig { num_parallel: 4, load_overhead_ms: 5, ..config() }).await;
    let addr = node.addr();
    let mut crowd = JoinSet::new();
    for n in 0..200 {
        let body = with(chat("tiny"), "stream", json!(n % 2 == 0)).to_string();
        crowd.spawn(async move { client::request(addr, "POST", "/api/chat", body.as_bytes()).await });
    }
    let replies = crowd.join_all().await;
    assert!(replies.iter().all(|reply| reply.status == 200 && reply.text().contains("\"done\":true")));
    let stats = node.stats();
    assert_eq!((stats.scheduler.loads, stats.requests, stats.cancelled), (1, 200, 0));
    assert_eq!(stats.in_flight, 0);
}

#[tokio::test]
async fn a_node_that_is_dropped_or_shut_down_is_gone() {
    let dropped = start(config()).await;
    let addr = dropped.addr();
    drop(dropped);
    for _ in 0..5000 {
        if TcpStream::connect(addr).await.is_err() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    TcpStream::connect(addr).await.expect_err("nobody listens");
    let node = start(SimConfig { decode_tokens_per_s: 20.0, ..config() }).await;
    let mut running = begin(&node, &chat("tiny")).await;
    client::read_until(&mut running, "\"done\":false").await;
    let addr = node.addr();
    node.shutdown().await;
    TcpStream::connect(addr).await.expect_err("nobody listens");
}

#[tokio::test]
async fn a_wrong_configuration_does_not_start() {
    let error = SimNode::start(SimConfig { num_parallel: 0, ..config() }).await.expect_err("is refused");
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
}
