//! A running `herd --demo`, with traffic.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread::JoinHandle;

use herd_harness::{bin, eventually, get, post, send};
use serde_json::Value;

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
        let demo = Self::launch(&folder(), &[]);
        eventually("the nodes join", || demo.status()["fleet"]["nodes_ready"] == 3);
        demo
    }

    /// The same, which asks everybody for a key; and one that may do everything.
    pub(crate) fn guarded() -> (Self, String) {
        let folder = folder();
        let mut add = Command::new(bin("herd"));
        let made = add.args(["key", "add", "op", "--scope", "admin", "--data-dir"]).arg(&folder).output().unwrap();
        let key = String::from_utf8(made.stdout).unwrap().trim().to_owned();
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

    /// Clients that ask again and again until the end, under these tags in turn.
    pub(crate) fn with_traffic(mut self, tags: &[&'static str]) -> Self {
        let models = ["llama3.2:3b", "gpt-oss:20b", "qwen2.5-coder:14b", "llama3.3:70b", "gemma3:4b", "llama3.2:3b"];
        for (index, (model, tag)) in models.into_iter().cycle().zip(tags.iter().copied().cycle()).take(9).enumerate() {
            let (edge, stop) = (self.edge, Arc::clone(&self.stop));
            let tokens = 120 + 40 * index;
            self.clients.push(std::thread::spawn(move || {
                while !stop.load(Relaxed) {
                    drop(send(edge, &chat(model, tag, tokens)));
                }
            }));
        }
        self
    }
}

/// A folder of its own for a herd.
fn folder() -> PathBuf {
    static FOLDERS: AtomicUsize = AtomicUsize::new(0);
    let name = format!("herd-demo-{}-{}", std::process::id(), FOLDERS.fetch_add(1, Relaxed));
    let folder = std::env::temp_dir().join(name);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// A request for a chat of `tokens` tokens.
pub(crate) fn chat(model: &str, tag: &str, tokens: usize) -> Vec<u8> {
    let prompt = "word ".repeat(tokens);
    let body = serde_json::json!({
        "model": model, "messages": [{ "role": "user", "content": prompt }], "options": { "num_predict": tokens },
        "metadata": { "tags": [tag] },
    });
    post("/api/chat", body.to_string().as_bytes())
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
