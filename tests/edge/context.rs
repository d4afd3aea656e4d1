//! What clients ask of the context reloads nothing that could serve them as it is.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use herd_harness::{Answer, Edge, Sim, eventually, get, post_with, send};

/// What requests ask for; none = they do not say.
const CONTEXTS: [Option<u32>; 10] =
    [None, Some(256), Some(512), Some(1000), Some(2048), Some(3000), Some(4096), Some(5000), Some(6000), Some(8192)];

const SURFACES: [&str; 5] = ["/api/chat", "/v1/chat/completions", "/api/generate", "/v1/messages", "/v1/completions"];

/// Large enough on disk that loading it once more is never predicted to be worth it.
const NODE: [&str; 6] = ["--model", "work=20", "--hot", "work", "--num-parallel", "2"];

fn body(path: &str, num_ctx: Option<u32>, stream: bool) -> String {
    let options = num_ctx.map_or_else(String::new, |tokens| format!(",\"num_ctx\":{tokens}"));
    let rest = match path {
        "/api/chat" => {
            format!(
                "\"messages\":[{{\"role\":\"user\",\"content\":\"hi\"}}],\"options\":{{\"num_predict\":2{options}}}"
            )
        }
        "/api/generate" => format!("\"prompt\":\"hi\",\"options\":{{\"num_predict\":2{options}}}"),
        "/v1/completions" => "\"prompt\":\"hi\",\"max_tokens\":2".to_owned(),
        _ => "\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}],\"max_tokens\":2".to_owned(),
    };
    format!("{{\"model\":\"work\",\"stream\":{stream},{rest}}}")
}

fn reloads(sims: &[&Sim]) -> u64 {
    sims.iter().map(|sim| sim.stats()["reloads"].as_u64().unwrap()).sum()
}

/// Two nodes that have the same model in memory, `a` at their default and `b` with twice of it.
fn two_windows(config: &str) -> (Edge, Sim, Sim) {
    let edge = Edge::start_with(config, &[]);
    let (a, b) = (Sim::start(Some(&edge), "a", &NODE), Sim::start(Some(&edge), "b", &NODE));
    b.load("work", 8192);
    edge.wait_for(&["a", "b"]);
    eventually("both windows are known", || {
        [edge.context("a", "work:latest"), edge.context("b", "work:latest")] == [Some(4096), Some(8192)]
    });
    (edge, a, b)
}

/// Sends 200 requests from eight clients at once, of all contexts and surfaces; returns the answers with their paths.
fn mixed(edge: &Edge) -> Vec<(&'static str, Answer)> {
    let next = AtomicUsize::new(0);
    let client = || {
        let mut answers = Vec::new();
        while let Some(index) = Some(next.fetch_add(1, Relaxed)).filter(|index| *index < 200) {
            let path = SURFACES[index % SURFACES.len()];
            let num_ctx = CONTEXTS[index / SURFACES.len() % CONTEXTS.len()];
            answers.push((path, edge.post(path, body(path, num_ctx, index % 3 == 0).as_bytes())));
        }
        answers
    };
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..8).map(|_| scope.spawn(client)).collect();
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    })
}

#[test]
fn ten_contexts_on_two_nodes_reload_nothing() {
    let (edge, a, b) = two_windows("");
    let answers = mixed(&edge);
    assert_eq!(answers.len(), 200);
    for (path, answer) in &answers {
        assert!(answer.status == 200 && answer.whole, "{path} {answer:?}");
        // What cannot say num_ctx would reload the node that is not at its default, but for an alias.
        let by_alias = answer.header("X-Fleet-Context") == Some("pinned");
        let at_home = answer.header("X-Fleet-Node") == Some("a");
        assert!(!path.starts_with("/v1/") || at_home || by_alias, "{path} {answer:?}");
    }
    assert_eq!(reloads(&[&a, &b]), 0);
    eventually("nothing is left", || edge.in_flight() == 0);
    let metrics = get(edge.admin, "/metrics").text();
    for action in ["kept", "raised", "pinned"] {
        assert!(
            metrics.contains(&format!("herd_context_actions_total{{action=\"{action}\",cause=\"\"}}")),
            "{metrics}"
        );
    }
    let reloads = metrics.lines().filter(|line| line.starts_with("herd_context_actions_total{action=\"reload\""));
    assert!(reloads.into_iter().all(|line| line.ends_with(" 0")), "{metrics}");
}

#[test]
fn passed_through_the_same_requests_reload_again_and_again() {
    let (edge, a, b) = two_windows("context: {protection: passthrough}");
    for (path, answer) in mixed(&edge) {
        assert_eq!(answer.status, 200, "{path} {answer:?}");
    }
    let reloads = reloads(&[&a, &b]);
    assert!(reloads >= 20, "{reloads}");
    assert!(get(edge.admin, "/metrics").text().contains("action=\"reload\",cause=\"context_differs\""));
}

fn chat(edge: &Edge, headers: &str, num_ctx: u32, rest: &str) -> Answer {
    let body = format!(
        r#"{{"model":"qwen:small","stream":false,"options":{{"num_predict":1,"num_ctx":{num_ctx}}},"messages":[{{"role":"user","content":"hi"}}]{rest}}}"#
    );
    send(edge.address, &post_with("/api/chat", headers, body.as_bytes()))
}

#[test]
fn a_larger_loaded_model_lends_its_context_unless_that_is_forbidden() {
    let edge = Edge::start(&[]);
    let small = Sim::start(Some(&edge), "a", &["--model", "qwen:small=2@32768", "--hot", "qwen:small"]);
    let large = Sim::start(Some(&edge), "b", &["--model", "qwen:large=8@32768", "--model", "big-embed=9@32768"]);
    large.load("qwen:large", 16_384);
    let embeds = br#"{"model":"big-embed","input":"hi","options":{"num_ctx":32768}}"#;
    assert_eq!(send(large.address, &post_with("/api/embed", "", embeds)).status, 200);
    edge.wait_for(&["a", "b"]);
    let known = || {
        edge.context("a", "qwen:small") == Some(4096)
            && edge.context("b", "qwen:large") == Some(16_384)
            && edge.context("b", "big-embed:latest") == Some(32_768)
    };
    eventually("the windows are known", known);

    let upgraded = chat(&edge, "", 16_384, "");
    let told = |name| upgraded.header(name).unwrap_or_default();
    assert_eq!(
        (upgraded.status, told("X-Fleet-Context"), told("X-Fleet-Node")),
        (200, "upgraded", "b"),
        "{upgraded:?}"
    );
    assert_eq!((told("X-Fleet-Model"), told("X-Fleet-Fallback")), ("qwen:large", "qwen:small"));
    assert_eq!(told("X-Fleet-Fallback-Reason"), "upgrade");
    assert_eq!((reloads(&[&small]), large.stats()["by_model"]["qwen:large"].as_u64()), (0, Some(1)));

    // Each asks for more than the one before has left loaded.
    for (num_ctx, headers, rest) in [
        (8192, "X-Fleet-No-Fallback: true\r\n", ""),
        (12_288, "", r#","fallback":false"#),
        // Only the embedding model has as much, and that does not chat.
        (20_480, "", ""),
    ] {
        let answer = chat(&edge, headers, num_ctx, rest);
        let told = |name| answer.header(name).unwrap_or_default();
        assert_eq!((answer.status, told("X-Fleet-Context"), told("X-Fleet-Model")), (200, "reload", "qwen:small"));
        assert_eq!(answer.header("X-Fleet-Fallback"), None, "{answer:?}");
    }
    assert_eq!(reloads(&[&small]), 3);
    assert_eq!(large.stats()["by_model"]["qwen:large"], 1);
}

#[test]
fn clients_with_other_launch_options_settle_on_a_node_each() {
    let edge = Edge::start(&[]);
    let (a, b) = (Sim::start(Some(&edge), "a", &NODE), Sim::start(Some(&edge), "b", &NODE));
    edge.wait_for(&["a", "b"]);
    let ask = |num_batch: u32| {
        let body = format!(
            r#"{{"model":"work","stream":false,"prompt":"x","options":{{"num_predict":1,"draft_num_predict":{num_batch}}}}}"#
        );
        let answer = edge.post("/api/generate", body.as_bytes());
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.header("X-Fleet-Node").unwrap().to_owned()
    };
    let client = |num_batch| (0..20).map(|_| ask(num_batch)).collect::<Vec<_>>();
    let nodes = std::thread::scope(|scope| {
        let clients = [64, 128].map(|num_batch| scope.spawn(move || client(num_batch)));
        clients.map(|client| client.join().unwrap())
    });
    let settled = nodes.map(|nodes| {
        assert!(nodes.iter().all(|node| *node == nodes[0]), "{nodes:?}");
        nodes[0].clone()
    });
    assert_ne!(settled[0], settled[1]);
    assert_eq!((reloads(&[&a]), reloads(&[&b])), (1, 1));
}

/// Bodies whose prompt is about twice as long as the window that will serve it.
fn too_long() -> [(&'static str, String); 5] {
    let text = "word ".repeat(7_000);
    [
        ("/api/chat", format!(r#""messages":[{{"role":"user","content":"{text}"}}]"#)),
        ("/api/generate", format!(r#""prompt":"{text}""#)),
        ("/v1/chat/completions", format!(r#""max_tokens":2,"messages":[{{"role":"user","content":"{text}"}}]"#)),
        ("/v1/responses", format!(r#""max_output_tokens":2,"input":"{text}""#)),
        ("/v1/messages", format!(r#""max_tokens":2,"messages":[{{"role":"user","content":"{text}"}}]"#)),
    ]
    .map(|(path, rest)| (path, format!(r#"{{"model":"work","stream":false,{rest}}}"#)))
}

#[test]
fn a_prompt_that_will_be_cut_is_told_in_a_header() {
    let edge = Edge::start(&[]);
    let _sim = Sim::start(Some(&edge), "a", &NODE);
    edge.wait_for(&["a"]);
    for (path, body) in too_long() {
        let answer = edge.post(path, body.as_bytes());
        let told = answer.header("X-Fleet-Context-Overflow").unwrap_or_else(|| panic!("{path} {answer:?}"));
        assert!(told.starts_with("estimated_tokens=") && told.ends_with("; context_length=4096"), "{path} {told}");
        assert_eq!(answer.status, 200, "{path}");
    }
    eventually("all are counted", || get(edge.admin, "/metrics").text().contains("herd_context_overflows_total 5"));
}

#[test]
fn a_prompt_that_would_be_cut_can_be_refused_in_every_dialect() {
    let edge = Edge::start_with("context: {overflow: refuse}", &[]);
    let sim = Sim::start(Some(&edge), "a", &NODE);
    edge.wait_for(&["a"]);
    for (path, body) in too_long() {
        let answer = edge.post(path, body.as_bytes());
        assert_eq!(answer.status, 413, "{path} {answer:?}");
        let error = answer.json();
        let message = match path {
            "/v1/messages" => {
                assert_eq!((&error["type"], &error["error"]["type"]), (&"error".into(), &"request_too_large".into()));
                &error["error"]["message"]
            }
            path if path.starts_with("/v1/") => &error["error"]["message"],
            _ => &error["error"],
        };
        assert!(message.as_str().is_some_and(|text| text.contains("context of 4096")), "{path} {error}");
    }
    let asked = sim.stats();
    assert!(SURFACES.iter().all(|path| asked["by_path"][*path].is_null()), "{asked}");
    eventually("nothing is left", || edge.in_flight() == 0);
}

#[test]
fn embeddings_on_both_surfaces_keep_one_runner() {
    let edge = Edge::start(&[]);
    let sim = Sim::start(Some(&edge), "a", &["--model", "vec-embed=0.1"]);
    edge.wait_for(&["a"]);
    let ask = |path: &str, options: &str| {
        let body = format!("{{\"model\":\"vec-embed\",\"input\":\"hi\"{options}}}");
        let answer = edge.post(path, body.as_bytes());
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.header("X-Fleet-Context").unwrap_or_default().to_owned()
    };
    assert_eq!(ask("/v1/embeddings", ""), "load");
    eventually("the runner is known", || edge.context("a", "vec-embed:latest").is_some());
    for _ in 0..3 {
        assert_eq!(ask("/api/embed", ""), "kept");
        assert_eq!(ask("/v1/embeddings", ""), "kept");
        assert_eq!(ask("/api/embed", ",\"options\":{\"num_ctx\":8192}"), "kept");
        assert_eq!(ask("/api/embed", ",\"options\":{\"num_ctx\":512}"), "raised");
    }
    let stats = sim.stats();
    assert_eq!((&stats["loads"], &stats["reloads"]), (&1.into(), &0.into()), "{stats}");
}

#[test]
fn options_of_speed_keep_the_runner_unless_told_otherwise() {
    for (mode, reloads) in [("keep", 0), ("honour", 3)] {
        let edge = Edge::start(&[("FLEET_CONTEXT_SPEED_OPTIONS", mode)]);
        let sim = Sim::start(Some(&edge), "a", &["--hot", "tiny"]);
        edge.wait_for(&["a"]);
        for options in ["\"num_thread\":4", "\"use_mmap\":false,\"num_batch\":64", "\"main_gpu\":1"] {
            let body = format!("{{\"model\":\"tiny\",\"prompt\":\"x\",\"stream\":false,\"options\":{{{options}}}}}");
            let answer = edge.post("/api/generate", body.as_bytes());
            assert_eq!(answer.status, 200, "{answer:?}");
            let told = answer.header("X-Fleet-Speed-Options").map(|told| told.starts_with("kept: "));
            assert_eq!(told, (mode == "keep").then_some(true), "{answer:?}");
        }
        assert_eq!(sim.stats()["reloads"], reloads, "{mode}");
        let layers = br#"{"model":"tiny","prompt":"x","stream":false,"options":{"num_gpu":0}}"#;
        assert_eq!(edge.post("/api/generate", layers).header("X-Fleet-Context"), Some("reload"), "it changes answers");
    }
}
