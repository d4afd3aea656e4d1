//! `ollama rm|cp|create|push|stop|show|ps|list|run|pull` through the edge, as that program asks; and surfaces that only some
//! nodes, or none, have.

use std::io::Write as _;

use herd_harness::{Answer, Edge, Sim, connect, get, post_with, read_answer, send};

const DIGEST: &str = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

fn fleet() -> (Edge, Sim, Sim) {
    let edge = Edge::start(&[]);
    let (a, b) = (Sim::start(Some(&edge), "a", &[]), Sim::start(Some(&edge), "b", &[]));
    edge.wait_for(&["a", "b"]);
    (edge, a, b)
}

fn ask(edge: &Edge, method: &str, path: &str, body: &str) -> Answer {
    let length = body.len();
    let head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n");
    send(edge.address, [head.as_bytes(), body.as_bytes()].concat().as_slice())
}

fn names(answer: &Answer) -> Vec<String> {
    let json = answer.json();
    let models = json["models"].as_array().unwrap().iter();
    let mut names: Vec<_> = models.map(|model| model["name"].as_str().unwrap().to_owned()).collect();
    names.sort();
    names
}

#[test]
fn models_are_copied_run_listed_stopped_and_deleted_as_on_one_ollama() {
    let (edge, a, b) = fleet();
    // ollama cp, list, run: the copy is there in the next moment.
    assert_eq!(ask(&edge, "POST", "/api/copy", r#"{"source":"tiny","destination":"mine"}"#).status, 200);
    assert_eq!(names(&get(edge.address, "/api/tags")), ["mine:latest", "tiny:latest"]);
    assert_eq!(ask(&edge, "POST", "/api/show", r#"{"model":"mine"}"#).status, 200);
    let chat = r#"{"model":"mine","stream":false,"messages":[{"role":"user","content":"hi"}]}"#;
    let ran = ask(&edge, "POST", "/api/chat", chat);
    assert_eq!(ran.status, 200, "{ran:?}");
    // ollama ps: one entry, with a context, and not stopping.
    let ps = get(edge.address, "/api/ps").json();
    let loaded = ps["models"].as_array().unwrap();
    assert_eq!(loaded.len(), 1, "names of one blob are one model: {ps}");
    assert_eq!(loaded[0]["context_length"], 4096, "{ps}");
    assert!(loaded[0]["expires_at"].as_str().unwrap() > "2026-12", "{ps}");
    // ollama stop: on every node that has it loaded, and not to be seen in the next moment.
    for sim in [&a, &b] {
        sim.load("mine", 4096);
    }
    let stop = ask(&edge, "POST", "/api/generate", r#"{"model":"mine","prompt":"","keep_alive":0}"#);
    let told = stop.json();
    assert_eq!((stop.status, &told["done_reason"], &told["model"]), (200, &"unload".into(), &"mine".into()), "{told}");
    assert_eq!(names(&get(edge.address, "/api/ps")), [""; 0]);
    for sim in [&a, &b] {
        assert_eq!(names(&get(sim.address, "/api/ps")), [""; 0]);
    }
    // ollama rm, once and again.
    let deleted = ask(&edge, "DELETE", "/api/delete", r#"{"model":"mine"}"#);
    assert_eq!((deleted.status, deleted.json()["nodes"].as_array().unwrap().len()), (200, 2), "{deleted:?}");
    assert_eq!(names(&get(edge.address, "/api/tags")), ["tiny:latest"]);
    let again = ask(&edge, "DELETE", "/api/delete", r#"{"model":"mine"}"#);
    assert_eq!((again.status, again.text().as_str()), (404, r#"{"error":"model 'mine' not found"}"#));
    assert_eq!(ask(&edge, "POST", "/api/chat", &chat.replace("mine", "nope/x")).status, 404);
}

#[test]
fn what_stops_nothing_loads_nothing() {
    let (edge, a, b) = fleet();
    for body in [r#"{"model":"tiny","keep_alive":"0s"}"#, r#"{"model":"tiny","messages":[],"keep_alive":0.0}"#] {
        let path = if body.contains("messages") { "/api/chat" } else { "/api/generate" };
        let answer = ask(&edge, "POST", path, body);
        assert_eq!((answer.status, &answer.json()["done_reason"]), (200, &"unload".into()), "{answer:?}");
    }
    assert_eq!((&a.stats()["loads"], &b.stats()["loads"]), (&0.into(), &0.into()));
    let unknown = ask(&edge, "POST", "/api/generate", r#"{"model":"nope","keep_alive":0}"#);
    assert_eq!((unknown.status, unknown.text().as_str()), (404, r#"{"error":"model 'nope' not found"}"#));
    let whole = r#"{"model":"tiny","prompt":"hi","keep_alive":0,"stream":false}"#;
    assert_eq!(ask(&edge, "POST", "/api/generate", whole).json()["done_reason"], "stop", "a prompt is answered first");
}

#[test]
fn a_model_is_created_of_files_on_one_node() {
    let (edge, a, b) = fleet();
    let blob = format!("/api/blobs/{DIGEST}");
    assert_eq!(ask(&edge, "HEAD", &blob, "").status, 404);
    // A file comes in pieces, of a length that is not told, and as curl sends large ones.
    let mut stream = connect(edge.address);
    let head = format!(
        "POST {blob} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    let piece = vec![b'x'; 1 << 20];
    for _ in 0..8 {
        stream.write_all(format!("{:x}\r\n", piece.len()).as_bytes()).unwrap();
        stream.write_all(&piece).unwrap();
        stream.write_all(b"\r\n").unwrap();
    }
    stream.write_all(b"0\r\n\r\n").unwrap();
    let sent = read_answer(&mut stream);
    assert_eq!(sent.status, 201, "{sent:?}");
    assert_eq!(ask(&edge, "HEAD", &blob, "").status, 200);
    let create = format!(r#"{{"model":"made","files":{{"m.gguf":"{DIGEST}"}}}}"#);
    let created = ask(&edge, "POST", "/api/create", &create);
    assert!(created.status == 200 && created.text().ends_with("{\"status\":\"success\"}\n"), "{created:?}");
    assert_eq!(created.header("content-type"), Some("application/x-ndjson"));
    assert_eq!(names(&get(edge.address, "/api/tags")), ["made:latest", "tiny:latest"]);
    let lengths = |sim: &Sim| -> u64 { sim.stats()["by_path"][&blob].as_u64().unwrap_or(0) };
    assert!(lengths(&a) == 0 || lengths(&b) <= 1 || lengths(&a) <= 1, "the file went to one node");
    let ran = ask(&edge, "POST", "/api/generate", r#"{"model":"made","prompt":"hi","stream":false}"#);
    assert_eq!(ran.status, 200, "{ran:?}");
    assert_eq!(ran.header("X-Fleet-Node"), created.header("X-Fleet-Node"));
    let from = ask(&edge, "POST", "/api/create", r#"{"model":"wide","from":"tiny","parameters":{"num_ctx":8192}}"#);
    assert!(from.text().contains("success"), "{from:?}");
    assert!(ask(&edge, "POST", "/api/push", r#"{"model":"tiny"}"#).text().contains("no registry"));
}

#[test]
fn a_file_that_stops_coming_does_not_make_a_model() {
    let (edge, _a, _b) = fleet();
    let mut stream = connect(edge.address);
    let head = format!("POST /api/blobs/{DIGEST} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\nbegin");
    stream.write_all(head.as_bytes()).unwrap();
    drop(stream);
    assert_eq!(ask(&edge, "HEAD", &format!("/api/blobs/{DIGEST}"), "").status, 404);
    let far = post_with("/api/blobs/x", "Via: 1.1 nginx\r\n", b"x");
    assert_eq!(send(edge.address, &far).status, 403, "who is not of this machine needs a key before a byte is read");
}

#[test]
fn a_form_is_routed_by_the_model_in_it() {
    let edge = Edge::start_with("models:\n  aliases: { whisper: tiny }\n", &[]);
    let sim = Sim::start(Some(&edge), "a", &[]);
    edge.wait_for(&["a"]);
    let form = |model: &str, more: &str| {
        format!(
            "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\nContent-Type: audio/wav\r\n\r\n\
             RIFF\0\r\n\r\n--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\n{model}\r\n{more}--b--\r\n"
        )
    };
    let kind = "Content-Type: multipart/form-data; boundary=b\r\n";
    let send_form = |body: &str| send(edge.address, &post_with("/v1/audio/transcriptions", kind, body.as_bytes()));
    let plain = "--b\r\nContent-Disposition: form-data; name=\"response_format\"\r\n\r\ntext\r\n";
    for (body, content_type, text) in [
        (form("tiny", ""), "application/json", r#"{"text":"hello herd"}"#),
        (form("TINY:latest", plain), "text/plain; charset=utf-8", "hello herd"),
        (form("whisper", ""), "application/json", r#"{"text":"hello herd"}"#),
    ] {
        let answer = send_form(&body);
        assert_eq!(
            (answer.status, answer.header("content-type"), answer.text().as_str()),
            (200, Some(content_type), text)
        );
        assert_eq!((answer.header("X-Fleet-Node"), answer.header("X-Fleet-Model")), (Some("a"), Some("tiny:latest")));
    }
    assert_eq!(sim.stats()["by_model"]["tiny:latest"], 1, "the node is asked for the model that serves");
    let missing = send_form(&form("nope/x", ""));
    assert_eq!((missing.status, &missing.json()["error"]["type"]), (404, &"not_found_error".into()));
    let no_model = send_form(&form("tiny", "").replace("name=\"model\"", "name=\"language\""));
    assert_eq!((no_model.status, &no_model.json()["error"]["param"]), (400, &"model".into()));
}

#[test]
fn tokens_are_counted_by_an_estimate_that_says_so() {
    let edge = Edge::start(&[]);
    let text = "word ".repeat(400);
    let body = format!(r#"{{"model":"any-claude","system":"{text}","messages":[{{"role":"user","content":"hi"}}]}}"#);
    let answer = edge.post("/v1/messages/count_tokens", body.as_bytes());
    assert_eq!((answer.status, answer.header("X-Fleet-Estimated")), (200, Some("input_tokens")), "{answer:?}");
    let tokens = answer.json()["input_tokens"].as_u64().unwrap();
    assert!((400..=700).contains(&tokens), "{tokens}");
    let wrong = edge.post("/v1/messages/count_tokens", b"{}");
    assert_eq!((wrong.status, &wrong.json()["type"]), (400, &"error".into()));
    let _key = edge.add_key(&["app"]);
    let keyless = || edge.post("/v1/messages/count_tokens", body.as_bytes()).status == 401;
    herd_harness::eventually("keys are asked for", keyless);
}
