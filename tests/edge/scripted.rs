//! A machine that listens where an Ollama would, and answers as a test says.

use herd_harness::{Edge, eventually, post_with, send};
use serde_json::Value;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// It; its threads end with the test's process.
pub(crate) struct Scripted {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Scripted {
    /// Starts one that says its version as an Ollama does. `answer` makes the bytes of every other answer, from the head
    /// of a request.
    pub(crate) fn start(answer: impl Fn(&str) -> String + Send + Sync + 'static) -> Self {
        Self::listening(true, answer)
    }

    /// Starts one of which `answer` makes every answer.
    pub(crate) fn something_else(answer: impl Fn(&str) -> String + Send + Sync + 'static) -> Self {
        Self::listening(false, answer)
    }

    fn listening(is_ollama: bool, answer: impl Fn(&str) -> String + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let heads = Arc::new(Mutex::new(Vec::new()));
        let (kept, answer) = (Arc::clone(&heads), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (kept, answer) = (Arc::clone(&kept), Arc::clone(&answer));
                std::thread::spawn(move || serve(stream, &kept, is_ollama, &*answer));
            }
        });
        Self { address, heads }
    }

    /// An Ollama that can do nothing but say its version and answer chats.
    pub(crate) fn ollama() -> Self {
        let body = r#"{"version":"0.33.0","model":"tiny","message":{"role":"assistant","content":"hi"},"done":true}"#;
        Self::start(move |_| answer("200 OK", "Content-Type: application/json\r\n", body))
    }

    /// The heads of requests so far, probes aside; they are forgotten.
    pub(crate) fn take_heads(&self) -> Vec<String> {
        let heads = std::mem::take(&mut *self.heads.lock().unwrap());
        heads.into_iter().filter(|head| !head.starts_with("GET /api/version ")).collect()
    }

    /// Has it join `edge` as `id`, with the model `llama3.2:3b` in memory.
    pub(crate) fn join(&self, edge: &Edge, id: &str) {
        let heartbeat = recorded(id, &format!("http://{}", self.address)).to_string();
        let json = "Content-Type: application/json\r\n";
        let answer = send(edge.address, &post_with("/heartbeat", json, heartbeat.as_bytes()));
        assert_eq!(answer.status, 200, "{answer:?}");
        eventually("the edge has seen its Ollama", || edge.node(id)["status"] == "online");
    }
}

/// What an Ollama says of its version.
fn answer_to_probe(head: &str) -> Option<String> {
    let json = "Content-Type: application/json\r\n";
    head.starts_with("GET /api/version ").then(|| answer("200 OK", json, r#"{"version":"0.33.0"}"#))
}

fn serve(mut stream: TcpStream, kept: &Mutex<Vec<String>>, is_ollama: bool, answer: &dyn Fn(&str) -> String) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    loop {
        let (mut head, mut length) = (String::new(), 0);
        while !head.ends_with("\r\n\r\n") {
            if !reader.read_line(&mut head).is_ok_and(|read| read > 0) {
                return;
            }
            let field = head.lines().last().unwrap_or_default().to_ascii_lowercase();
            if let Some(value) = field.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
        }
        if reader.read_exact(&mut vec![0; length]).is_err() {
            return;
        }
        let answer = match answer_to_probe(&head) {
            Some(answer) if is_ollama => answer,
            _ => answer(&head),
        };
        kept.lock().unwrap().push(head);
        drop(stream.write_all(answer.as_bytes()));
    }
}

/// The bytes of an answer with these header lines, each ended by CRLF.
pub(crate) fn answer(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len())
}

/// A heartbeat as an agent of the Python project sends it, of the node `id` with its Ollama at `host`.
pub(crate) fn recorded(id: &str, host: &str) -> Value {
    let mut heartbeat: Value =
        serde_json::from_str(include_str!("../golden/heartbeat-ollama-herd-0.11.4.json")).unwrap();
    heartbeat["node_id"] = id.into();
    heartbeat["ollama_host"] = host.into();
    heartbeat
}
