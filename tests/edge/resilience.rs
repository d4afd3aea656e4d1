//! What a request survives: models that are not there, nodes that are away, silence of every kind.

use std::io::Write as _;
use std::time::{Duration, Instant};

use herd_harness::{Answer, Edge, Sim, connect, eventually, post, post_with, read_answer, send};

fn chat(model: &str, rest: &str) -> Vec<u8> {
    let start = format!(r#"{{"model":"{model}","stream":false,"messages":[{{"role":"user","content":"hi"}}]"#);
    format!("{start},\"options\":{{\"num_predict\":1}}{rest}}}").into_bytes()
}

fn told<'a>(answer: &'a Answer, name: &str) -> &'a str {
    answer.header(name).unwrap_or_default()
}

#[track_caller]
fn served_by(answer: &Answer, model: &str, fallback: &str, reason: &str) {
    assert_eq!(answer.status, 200, "{answer:?}");
    let names = ["X-Fleet-Model", "X-Fleet-Fallback", "X-Fleet-Fallback-Reason"].map(|name| told(answer, name));
    assert_eq!(names, [model, fallback, reason], "{answer:?}");
}

#[test]
fn a_clients_fallbacks_are_taken_in_its_order() {
    let edge = Edge::start(&[]);
    let _sim = Sim::start(Some(&edge), "a", &["--model", "first=0.1", "--model", "second=0.1", "--hot", "second"]);
    edge.wait_for(&["a"]);
    let ask = |model: &str, rest: &str| edge.post("/api/chat", &chat(model, rest));
    let listed = r#","fallback_models":["nowhere","first","second"]"#;
    served_by(&ask("absent", listed), "first:latest", "absent:latest", "fallback");
    // The requested model goes first although it must be loaded.
    served_by(&ask("tiny", r#","fallback_models":["second"]"#), "tiny:latest", "", "");
    // No node was ever asked for what it has not.
    assert_eq!(ask("absent", r#","fallback_models":["nowhere"]"#).status, 404);
}

#[test]
fn an_operators_aliases_and_fallbacks_are_followed() {
    let edge = Edge::start_with(
        "models:\n  aliases: {gpt-4o: first}\n  fallbacks: {big: [gone, second]}\nauto_pull: {enabled: false}\n",
        &[],
    );
    let _sim = Sim::start(Some(&edge), "a", &["--model", "first=0.1", "--model", "second=0.1"]);
    edge.wait_for(&["a"]);
    served_by(&edge.post("/api/chat", &chat("gpt-4o", "")), "first:latest", "gpt-4o:latest", "alias");
    served_by(&edge.post("/api/chat", &chat("big", "")), "second:latest", "big:latest", "fallback");
    let strict = post_with("/api/chat", "X-Fleet-No-Fallback: true\r\n", &chat("big", ""));
    assert_eq!(send(edge.address, &strict).status, 404);
}

/// Two nodes, each with a model of one family in memory; `a` is then killed.
fn half_gone(config: &str) -> (Edge, Sim, Sim) {
    let edge = Edge::start_with(config, &[]);
    let mut a = Sim::start(Some(&edge), "a", &["--model", "qwen:one=1", "--hot", "qwen:one"]);
    let b = Sim::start(Some(&edge), "b", &["--model", "qwen:two=1", "--hot", "qwen:two"]);
    edge.wait_for(&["a", "b"]);
    a.process.kill();
    (edge, a, b)
}

#[test]
fn a_model_of_its_kind_stands_in_after_its_node_was_waited_for() {
    let (edge, _a, _b) = half_gone("hold: {max_ms: 1500}");
    for _ in 0..2 {
        let began = Instant::now();
        let answer = edge.post("/api/chat", &chat("qwen:one", ""));
        served_by(&answer, "qwen:two", "qwen:one", "vram");
        let waited = began.elapsed();
        assert!(waited >= Duration::from_millis(1400), "{waited:?}");
        assert!(waited < Duration::from_secs(10), "{waited:?}");
    }
    let strict = post_with("/api/chat", "X-Fleet-No-Fallback: true\r\n", &chat("qwen:one", ""));
    let refused = send(edge.address, &strict);
    assert!(refused.status >= 502 && told(&refused, "X-Fleet-Node") != "b", "{refused:?}");
    eventually("nothing is left", || edge.in_flight() == 0 && edge.waiting().is_empty());
}

#[test]
fn a_node_that_returns_is_waited_for() {
    let (edge, mut a, _b) = half_gone("");
    let mut client = connect(edge.address);
    client.write_all(&post("/api/chat", &chat("qwen:one", ""))).unwrap();
    eventually("its node is missed", || edge.node("a")["probe_ok"] == false);
    a.restart(Some(&edge), "a", &["--model", "qwen:one=1"]);
    let answer = read_answer(&mut client);
    served_by(&answer, "qwen:one", "", "");
    assert_eq!(told(&answer, "X-Fleet-Node"), "a");
    eventually("nothing is left", || edge.in_flight() == 0 && edge.waiting().is_empty());
}

#[test]
fn the_only_node_that_dies_at_work_is_waited_for_too() {
    let edge = Edge::start(&[]);
    let mut sim = Sim::start(Some(&edge), "a", &["--hot", "tiny", "--decode-tps", "20"]);
    edge.wait_for(&["a"]);
    let mut client = connect(edge.address);
    let body = br#"{"model":"tiny","stream":false,"prompt":"x","options":{"num_predict":400}}"#;
    client.write_all(&post("/api/generate", body)).unwrap();
    eventually("it works", || sim.stats()["in_flight"] == 1);
    sim.process.kill();
    eventually("it is missed", || edge.node("a")["probe_ok"] == false);
    sim.restart(Some(&edge), "a", &["--hot", "tiny"]);
    let answer = read_answer(&mut client);
    assert_eq!((answer.status, told(&answer, "X-Fleet-Node")), (200, "a"), "{answer:?}");
    // One that breaks every connection is not asked for ever.
    sim.fault("reset");
    let answer = edge.post("/api/chat", &chat("tiny", ""));
    // A kept connection that had been closed does not count.
    let attempts: u32 = told(&answer, "X-Fleet-Attempts").parse().unwrap();
    assert!(answer.status == 502 && (3..=4).contains(&attempts), "{answer:?}");
    eventually("nothing is left", || edge.in_flight() == 0 && edge.waiting().is_empty());
}

#[test]
fn right_after_the_start_nobody_waits_for_nodes_that_were_never_known() {
    let edge = Edge::start(&[("FLEET_HOLD_START_MS", "600000")]);
    let answer = edge.post("/api/chat", &chat("tiny", ""));
    assert!(answer.status == 404 && answer.text().contains("no node has joined yet"), "{answer:?}");
}

/// Bounds so short that seconds show what takes minutes otherwise.
const QUICK: &str = "
fleet: {degraded_after_ms: 2500, stale_after_ms: 3000, offline_after_ms: 4000}
reaper: {first_byte_floor_ms: 3000, first_byte_ceiling_ms: 3000, no_progress_ms: 3000, dead_node_ms: 1500}
";

#[test]
fn an_ollama_whose_agent_froze_finishes_what_it_was_asked() {
    let edge = Edge::start_with(QUICK, &[]);
    let sim = Sim::start(Some(&edge), "a", &["--hot", "tiny", "--decode-tps", "20"]);
    edge.wait_for(&["a"]);
    let mut client = connect(edge.address);
    let body = br#"{"model":"tiny","options":{"num_predict":140},"messages":[{"role":"user","content":"hi"}]}"#;
    client.write_all(&post("/api/chat", body)).unwrap();
    eventually("it runs", || edge.in_flight() == 1);
    sim.pause_agent(true);
    eventually("the agent is missed for long", || edge.node("a")["state"] == "stale");
    let answer = read_answer(&mut client);
    assert!(answer.whole && answer.text().contains("\"done\":true"), "{answer:?}");
    assert_eq!(sim.stats()["cancelled"], 0);
    let answer = edge.post("/api/chat", &chat("tiny", ""));
    assert_eq!((answer.status, told(&answer, "X-Fleet-Node")), (200, "a"), "new ones go there as a last resort");
}

#[test]
fn an_ollama_that_froze_is_left_for_the_other_node() {
    let edge = Edge::start_with(QUICK, &[]);
    let frozen = Sim::start(Some(&edge), "a", &["--hot", "tiny"]);
    let _other = Sim::start(Some(&edge), "b", &[]);
    edge.wait_for(&["a", "b"]);
    frozen.fault("stall");
    let began = Instant::now();
    let answer = edge.post("/api/chat", &chat("tiny", ""));
    assert_eq!((answer.status, told(&answer, "X-Fleet-Node")), (200, "b"), "{answer:?}");
    assert!(began.elapsed() < Duration::from_secs(9), "{:?}", began.elapsed());
    eventually("nothing is left", || edge.in_flight() == 0);
}

#[test]
fn a_long_prompt_is_waited_for_while_it_is_read() {
    let edge = Edge::start_with(QUICK, &[]);
    let node = |id| Sim::start(Some(&edge), id, &["--hot", "tiny", "--prefill-tps", "350"]);
    let sims = [node("a"), node("b")];
    edge.wait_for(&["a", "b"]);
    let text = "word ".repeat(2_500);
    let ask = |stream: bool| {
        let began = Instant::now();
        let body = format!(
            r#"{{"model":"tiny","stream":{stream},"options":{{"num_predict":2}},"messages":[{{"role":"user","content":"{text}"}}]}}"#
        );
        let answer = edge.post("/api/chat", body.as_bytes());
        assert!(answer.status == 200 && answer.text().contains("\"done\":true"), "{answer:?}");
        assert!(began.elapsed() > Duration::from_secs(6), "twice the floor: {:?}", began.elapsed());
        assert_eq!(told(&answer, "X-Fleet-Attempts"), "1");
    };
    std::thread::scope(|scope| {
        [true, false].map(|stream| scope.spawn(move || ask(stream))).map(|asked| asked.join().unwrap())
    });
    for sim in &sims {
        assert_eq!((&sim.stats()["cancelled"], &sim.stats()["by_path"]["/api/chat"]), (&0.into(), &1.into()));
    }
}

#[test]
fn an_engine_that_hangs_is_given_up() {
    let edge = Edge::start_with(QUICK, &[]);
    let hung = Sim::start(Some(&edge), "a", &["--hot", "tiny"]);
    edge.wait_for(&["a"]);
    hung.fault("hang_before_first_byte");
    let began = Instant::now();
    let alone = edge.post("/api/chat", &chat("tiny", ""));
    assert_eq!(alone.status, 504, "{alone:?}");
    assert!(began.elapsed() > Duration::from_millis(2900), "{:?}", began.elapsed());
    eventually("the node is told", || hung.stats()["cancelled"] == 1 && hung.stats()["in_flight"] == 0);

    let _other = Sim::start(Some(&edge), "b", &[]);
    edge.wait_for(&["b"]);
    let answer = edge.post("/api/chat", &chat("tiny", ""));
    assert_eq!((answer.status, told(&answer, "X-Fleet-Node")), (200, "b"), "{answer:?}");
    eventually("nothing is left", || edge.in_flight() == 0);
}

/// Two nodes that take a while to load `cold`, of which one has begun to for the first of three requests.
fn loading() -> (Edge, [Sim; 2], Vec<std::net::TcpStream>) {
    let edge = Edge::start(&[]);
    let node = |id| Sim::start(Some(&edge), id, &["--model", "cold=2", "--load-ms", "2500"]);
    let sims = [node("a"), node("b")];
    edge.wait_for(&["a", "b"]);
    let mut clients = Vec::new();
    for waiting in 0..3 {
        let mut client = connect(edge.address);
        client.write_all(&post("/api/chat", &chat("cold", ""))).unwrap();
        eventually("it loads, and the others wait", || {
            (edge.in_flight(), edge.waiting().len()) == (1, waiting)
                && sims.iter().any(|sim| sim.stats()["in_flight"] == 1)
        });
        clients.push(client);
    }
    (edge, sims, clients)
}

#[test]
fn a_client_that_leaves_during_the_load_leaves_the_others_one_of_their_own() {
    let (edge, sims, mut clients) = loading();
    drop(clients.remove(0));
    for client in &mut clients {
        assert_eq!(read_answer(client).status, 200);
    }
    let count = |name: &str| sims.iter().map(|sim| sim.stats()[name].as_u64().unwrap()).sum::<u64>();
    // Ollama gives a load up with the client that caused it.
    assert_eq!((count("loads_cancelled"), count("loads")), (1, 1));
    eventually("nothing is left", || edge.in_flight() == 0 && edge.waiting().is_empty());
}

#[test]
fn a_node_that_dies_during_the_load_is_replaced() {
    let (edge, mut sims, mut clients) = loading();
    let (loads, other) = if edge.node("a")["in_flight"] == 1 { (0, "b") } else { (1, "a") };
    sims[loads].process.kill();
    for client in &mut clients {
        let answer = read_answer(client);
        assert_eq!((answer.status, told(&answer, "X-Fleet-Node")), (200, other), "{answer:?}");
    }
    assert_eq!(sims[1 - loads].stats()["loads"], 1);
    eventually("nothing is left", || edge.in_flight() == 0 && edge.waiting().is_empty());
}

#[test]
fn those_who_wait_for_a_node_that_dies_go_to_the_other() {
    let edge = Edge::start(&[]);
    let mut dying = Sim::start(Some(&edge), "a", &["--hot", "tiny", "--decode-tps", "20"]);
    let _other = Sim::start(Some(&edge), "b", &[]);
    edge.wait_for(&["a", "b"]);
    let mut clients: Vec<_> = ["400", "1", "1"]
        .map(|tokens| {
            let before = (edge.in_flight(), edge.waiting().len());
            let mut client = connect(edge.address);
            let body =
                format!(r#"{{"model":"tiny","stream":false,"prompt":"x","options":{{"num_predict":{tokens}}}}}"#);
            client.write_all(&post("/api/generate", body.as_bytes())).unwrap();
            eventually("it is taken in", || (edge.in_flight(), edge.waiting().len()) != before);
            client
        })
        .into();
    dying.process.kill();
    for client in &mut clients {
        let answer = read_answer(client);
        assert_eq!((answer.status, told(&answer, "X-Fleet-Node")), (200, "b"), "{answer:?}");
    }
    eventually("nothing is left", || edge.in_flight() == 0 && edge.waiting().is_empty());
}

#[test]
fn a_node_that_fails_after_a_pull_has_begun_the_answer_is_told_in_it() {
    let edge = Edge::start(&[]);
    let library = ["--library", "new=0.5", "--library", "newer=0.5", "--pull-gbps", "0.2"];
    let sim = Sim::start(Some(&edge), "a", &library);
    edge.wait_for(&["a"]);
    sim.fault("error_500");
    for (path, model, error) in [("/api/chat", "new", "{\"error\":"), ("/v1/messages", "newer", "event: error\ndata: ")]
    {
        let body = format!(
            r#"{{"model":"{model}","stream":true,"max_tokens":2,"messages":[{{"role":"user","content":"hi"}}]}}"#
        );
        let answer = edge.post(path, body.as_bytes());
        assert!(answer.status == 200 && answer.whole && answer.text().contains(error), "{answer:?}");
    }
    assert_eq!(sim.stats()["faults_injected"]["error_500"], 2, "each was asked once");
    eventually("nothing is left", || edge.in_flight() == 0);
}
