//! A service before a running herd that answers some paths by itself: what this herd has no records for, and what no
//! herd would say.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use herd_harness::{Answer, connect, read_answer};
use serde_json::{Value, json};

/// Events of the stream: their names and data.
type Events = Vec<(&'static str, Value)>;

#[derive(Default)]
struct Script {
    /// Answers by path, without its query.
    answers: BTreeMap<String, Value>,
    events: Events,
    streams: bool,
    /// What was asked: method, path with query, and body.
    asked: Vec<(String, String, String)>,
}

pub(crate) struct Service {
    address: SocketAddr,
    script: Arc<Mutex<Script>>,
    down: Arc<AtomicBool>,
}

impl Service {
    /// Starts one before the herd at `herd`.
    pub(crate) fn start(herd: SocketAddr, answers: impl IntoIterator<Item = (&'static str, Value)>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let answers = answers.into_iter().map(|(path, value)| (path.to_owned(), value)).collect();
        let script = Arc::new(Mutex::new(Script { answers, ..Script::default() }));
        let down = Arc::new(AtomicBool::new(false));
        let (shared, is_down) = (Arc::clone(&script), Arc::clone(&down));
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if is_down.load(Relaxed) {
                    continue;
                }
                let (script, is_down) = (Arc::clone(&shared), Arc::clone(&is_down));
                std::thread::spawn(move || serve(client, herd, &script, &is_down));
            }
        });
        Self { address, script, down }
    }

    pub(crate) fn base(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn answer(&self, path: &str, value: Value) {
        self.script.lock().unwrap().answers.insert(path.to_owned(), value);
    }

    /// Streams these events to whoever asks, and keeps the stream open.
    pub(crate) fn stream(&self, events: Events) {
        let mut script = self.script.lock().unwrap();
        script.streams = true;
        script.events = events;
    }

    /// Ends every stream and answers nobody, or does so again.
    pub(crate) fn set_down(&self, down: bool) {
        self.down.store(down, Relaxed);
    }

    /// The bodies of what was asked so.
    pub(crate) fn asked(&self, method: &str, path: &str) -> Vec<String> {
        let script = self.script.lock().unwrap();
        let fits = |one: &&(String, String, String)| one.0 == method && one.1.starts_with(path);
        script.asked.iter().filter(fits).map(|(_, _, body)| body.clone()).collect()
    }

    /// Paths with their queries that were asked.
    pub(crate) fn paths(&self, path: &str) -> Vec<String> {
        let script = self.script.lock().unwrap();
        script.asked.iter().map(|one| &one.1).filter(|asked| asked.starts_with(path)).cloned().collect()
    }
}

fn serve(mut client: TcpStream, herd: SocketAddr, script: &Mutex<Script>, down: &AtomicBool) {
    let Some(Asked { method, path, accept, body }) = read(&client) else { return };
    let place = path.split('?').next().unwrap_or_default().to_owned();
    let known = {
        let mut script = script.lock().unwrap();
        script.asked.push((method.clone(), path.clone(), body.clone()));
        if place == "/dashboard/events" && script.streams {
            Known::Stream(script.events.clone())
        } else {
            script.answers.get(&place).cloned().map_or(Known::No, Known::Answer)
        }
    };
    match known {
        Known::Stream(events) => stream(&mut client, &events, down),
        Known::Answer(value) => {
            let status = value["status_code"].as_u64().unwrap_or(200);
            drop(client.write_all(answer(status, "application/json", "", value.to_string().as_bytes()).as_slice()));
        }
        Known::No => {
            let Answer { status, head, body, .. } = pass(herd, &method, &path, (&accept, &body));
            let kept = ["content-type", "content-security-policy", "cache-control", "etag", "location"];
            let of = |line: &&str| kept.contains(&line.split(':').next().unwrap_or_default().to_lowercase().as_str());
            let headers: String = head.lines().filter(of).flat_map(|line| [line, "\r\n"]).collect();
            drop(client.write_all(&answer(u64::from(status), "", &headers, &body)));
        }
    }
}

enum Known {
    Stream(Events),
    Answer(Value),
    No,
}

struct Asked {
    method: String,
    path: String,
    accept: String,
    body: String,
}

fn read(client: &TcpStream) -> Option<Asked> {
    let mut reader = BufReader::new(client);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split(' ').map(str::to_owned);
    let (method, path) = (words.next()?, words.next()?);
    let (mut length, mut accept) = (0, String::new());
    loop {
        let mut header = String::new();
        if reader.read_line(&mut header).ok()? <= 2 {
            break;
        }
        match header.to_lowercase().split_once(':') {
            Some(("content-length", value)) => length = value.trim().parse().unwrap_or(0),
            Some(("accept", value)) => value.trim().clone_into(&mut accept),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Asked { method, path, accept, body: String::from_utf8(body).ok()? })
}

fn pass(herd: SocketAddr, method: &str, path: &str, (accept, body): (&str, &str)) -> Answer {
    let mut stream = connect(herd);
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nAccept: {accept}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    drop(stream.write_all(request.as_bytes()));
    read_answer(&mut stream)
}

fn answer(status: u64, content_type: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let content_type =
        if content_type.is_empty() { String::new() } else { format!("Content-Type: {content_type}\r\n") };
    let head = format!(
        "HTTP/1.1 {status} It\r\nContent-Length: {}\r\nConnection: close\r\n{content_type}{headers}\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

fn stream(client: &mut TcpStream, events: &Events, down: &AtomicBool) {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\n\r\n";
    let mut alive = client.write_all(head.as_bytes()).is_ok();
    for (name, data) in events {
        alive = alive && client.write_all(format!("event: {name}\ndata: {data}\n\n").as_bytes()).is_ok();
    }
    while alive && !down.load(Relaxed) {
        std::thread::park_timeout(std::time::Duration::from_millis(50));
        alive = client.write_all(b": keep-alive\n\n").is_ok();
    }
}

/// An error as herd tells it.
pub(crate) fn refusal(status: u16, code: &str, message: &str) -> Value {
    json!({ "status_code": status, "error": { "code": code, "message": message } })
}
