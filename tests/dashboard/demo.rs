//! A running `herd --demo`, with traffic.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Instant;

use herd_harness::{Answer, bin, eventually, get, post_with, send};
use serde_json::{Value, json};

/// What a hostile client may call itself.
pub(crate) const HOSTILE_TAG: &str = "<img src=x onerror=alert(1)>";

pub(crate) struct Demo {
    process: Child,
    pub(crate) edge: SocketAddr,
    pub(crate) admin: SocketAddr,
    data_dir: PathBuf,
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<()>>,
}

impl Demo {
    /// Starts it and waits for its nodes.
    pub(crate) fn start() -> Self {
        Self::launch(&folder(), &[]).joined()
    }

    /// The same, which takes no model from a registry by itself, and knows who shows this key, which it asks nobody for.
    pub(crate) fn with_key(name: &str) -> (Self, String) {
        let folder = folder();
        let key = add_key(&folder, name, "infer");
        // Its nodes are there before the first request, so that an unknown model need not wait for them.
        let env =
            [("FLEET_ACCESS_REQUIRE", "never"), ("FLEET_AUTO_PULL_ENABLED", "false"), ("FLEET_HOLD_START_MS", "0")];
        (Self::launch(&folder, &env).joined(), key)
    }

    fn joined(self) -> Self {
        eventually("the nodes join", || self.status()["fleet"]["nodes_ready"] == 3);
        self
    }

    /// The same, which asks everybody for a key; and one that may do everything.
    pub(crate) fn guarded() -> (Self, String) {
        let folder = folder();
        let key = add_key(&folder, "op", "admin");
        (Self::launch(&folder, &[("FLEET_ACCESS_REQUIRE", "always")]), key)
    }

    fn launch(data_dir: &Path, env: &[(&str, &str)]) -> Self {
        let mut command = Command::new(bin("herd"));
        command.args(["--demo", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--no-mdns"]);
        command.args(["--log-level", "error", "--data-dir"]).arg(data_dir);
        command.env("FLEET_AGENT_EMBEDDED", "off").env("FLEET_PROBE_TIMEOUT_MS", "10000").envs(env.iter().copied());
        let mut process = command.stdout(Stdio::piped()).stdin(Stdio::null()).spawn().unwrap();
        let mut output = BufReader::new(process.stdout.take().unwrap());
        let mut address = |name: &str| {
            let mut line = String::new();
            output.read_line(&mut line).unwrap();
            line.trim().strip_prefix(&format!("{name} http://")).and_then(|text| text.parse().ok()).unwrap()
        };
        let (edge, admin) = (address("edge"), address("admin"));
        std::thread::spawn(move || output.read_to_end(&mut Vec::new()));
        Self { process, edge, admin, data_dir: data_dir.to_owned(), stop: Arc::default(), clients: Vec::new() }
    }

    pub(crate) fn base(&self) -> String {
        format!("http://{}", self.edge)
    }

    pub(crate) fn status(&self) -> Value {
        get(self.admin, "/fleet/status").json()
    }

    /// Asks the fleet API.
    pub(crate) fn told(&self, path: &str) -> Value {
        get(self.admin, path).json()
    }

    /// Changes something.
    #[track_caller]
    pub(crate) fn change(&self, path: &str, body: &Value) -> Value {
        let answer = send(self.admin, &post_with(path, JSON, body.to_string().as_bytes()));
        assert_eq!(answer.status / 100, 2, "{path}: {}", answer.text());
        answer.json()
    }

    /// Asks a model.
    pub(crate) fn ask(&self, ask: &Ask<'_>) -> Answer {
        send(self.edge, &ask.request())
    }

    /// Clients that ask again and again until the end, each its own models, on the API of its kind, under these tags in
    /// turn.
    pub(crate) fn with_traffic(mut self, tags: &[&'static str]) -> Self {
        for (index, ((model, path), tag)) in CLIENTS.into_iter().zip(tags.iter().copied().cycle()).enumerate() {
            let (edge, stop) = (self.edge, Arc::clone(&self.stop));
            self.clients.push(std::thread::spawn(move || {
                let (mut turn, begun) = (index, Instant::now());
                while !stop.load(Relaxed) {
                    turn = (turn * 5 + 3) % 16;
                    // Some minutes are busier than others.
                    let second = usize::try_from(begun.elapsed().as_secs()).unwrap_or(0) + index * 20;
                    let wave = (second % 240).abs_diff(120);
                    let tokens = if path == "/api/embed" { 1_200 } else { 40 } + turn * wave / 2;
                    drop(send(edge, &Ask { path, tokens, ..Ask::of(model, &[tag]) }.request()));
                }
            }));
        }
        self
    }
}

/// What clients ask, and how.
const CLIENTS: [(&str, &str); 11] = [
    ("llama3.2:3b", "/api/chat"),
    ("qwen2.5-coder:14b", "/v1/chat/completions"),
    ("gpt-oss:20b", "/v1/messages"),
    ("nomic-embed-text", "/api/embed"),
    ("llama3.3:70b", "/api/chat"),
    ("llama3.2:3b", "/v1/chat/completions"),
    ("gpt-oss:20b", "/api/chat"),
    ("gemma3:4b", "/api/chat"),
    ("llama3.2:3b", "/v1/messages"),
    ("gemma3:4b", "/v1/messages"),
    ("llama3.2:3b", "/api/chat"),
];

const JSON: &str = "Content-Type: application/json\r\n";

/// A request of a client.
pub(crate) struct Ask<'a> {
    pub(crate) path: &'a str,
    pub(crate) model: &'a str,
    pub(crate) tags: &'a [&'a str],
    /// Of the prompt, about, and of the answer at the most.
    pub(crate) tokens: usize,
    /// Its API key; empty = none.
    pub(crate) key: &'a str,
}

impl<'a> Ask<'a> {
    /// A short chat.
    pub(crate) fn of(model: &'a str, tags: &'a [&'a str]) -> Self {
        Self { path: "/api/chat", model, tags, tokens: 12, key: "" }
    }

    pub(crate) fn request(&self) -> Vec<u8> {
        let Self { path, model, tags, tokens, key } = *self;
        let mut body = json!({ "model": model, "metadata": { "tags": tags } });
        let text = "word ".repeat(tokens);
        if path == "/api/embed" {
            body["input"] = text.into();
        } else {
            body["messages"] = json!([{ "role": "user", "content": text }]);
            body["stream"] = true.into();
            if path == "/v1/chat/completions" {
                body["stream_options"] = json!({ "include_usage": true });
            }
            if path == "/api/chat" {
                body["options"] = json!({ "num_predict": tokens });
            } else {
                body["max_tokens"] = tokens.into();
            }
        }
        let key = if key.is_empty() { String::new() } else { format!("Authorization: Bearer {key}\r\n") };
        post_with(path, &format!("{JSON}{key}"), body.to_string().as_bytes())
    }
}

/// Makes an API key in a folder; returns its secret.
fn add_key(folder: &Path, name: &str, scope: &str) -> String {
    let mut add = Command::new(bin("herd"));
    let made = add.args(["key", "add", name, "--scope", scope, "--data-dir"]).arg(folder).output().unwrap();
    String::from_utf8(made.stdout).unwrap().trim().to_owned()
}

/// A folder of its own for a herd.
fn folder() -> PathBuf {
    static FOLDERS: AtomicUsize = AtomicUsize::new(0);
    let name = format!("herd-demo-{}-{}", std::process::id(), FOLDERS.fetch_add(1, Relaxed));
    let folder = std::env::temp_dir().join(name);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

impl Drop for Demo {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        drop(self.process.kill());
        drop(self.process.wait());
        for client in self.clients.drain(..) {
            drop(client.join());
        }
        drop(std::fs::remove_dir_all(&self.data_dir));
    }
}
