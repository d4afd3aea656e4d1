//! Starts the real binaries of herd and speaks raw HTTP/1.1 to them, so that tests see what a client sees.
//!
//! Blocking and single-threaded on purpose: a test is a list of what happens, in order.

use std::io::{BufRead as _, BufReader, Read as _, Seek as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Longest that anything may take; a loaded machine is slow, a broken edge never answers.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The path of a binary of this workspace, built once, with the profile of the test that asks: a test that was built
/// with another one would find what some earlier build has left there.
///
/// # Panics
/// When it cannot be built.
#[must_use]
pub fn bin(name: &str) -> PathBuf {
    static BUILT: OnceLock<()> = OnceLock::new();
    let mut folder = std::env::current_exe().expect("a process has an executable");
    folder.pop();
    // Tests are in a folder of their own beside the binaries.
    if folder.ends_with("deps") {
        folder.pop();
    }
    BUILT.get_or_init(|| build_once(&folder));
    folder.join(name)
}

/// Builds the binaries in `folder`, once for a run of cargo-nextest, which starts a process for each test.
fn build_once(folder: &Path) {
    let run = std::env::var("NEXTEST_RUN_ID").unwrap_or_default();
    let mut options = std::fs::OpenOptions::new();
    let mark = options.read(true).write(true).create(true).truncate(false).open(folder.join("herd-harness.built"));
    let mut mark = mark.expect("a file can be made beside the binaries");
    // Whoever comes second waits here, and then finds that all is done.
    mark.lock().expect("a file can be locked");
    let mut by = String::new();
    drop(mark.read_to_string(&mut by));
    if !run.is_empty() && by == run {
        return;
    }
    // The folder of the profile `dev` has another name.
    let profile = folder.file_name().and_then(|name| name.to_str()).expect("a profile has a name");
    let profile = if profile == "debug" { "dev" } else { profile };
    let build = ["build", "--workspace", "--bins", "--quiet", "--locked", "--profile", profile];
    let status = Command::new(env!("CARGO")).args(build).status().expect("cargo runs");
    assert!(status.success(), "building the binaries failed");
    mark.set_len(0).and_then(|()| mark.rewind()).and_then(|()| mark.write_all(run.as_bytes())).expect("it is noted");
}

/// Waits until `holds` says so.
///
/// # Panics
/// When it does not within [`PATIENCE`].
#[track_caller]
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

/// A process that is killed when dropped.
#[derive(Debug)]
pub struct Process(Child);

impl Process {
    fn start(mut command: Command) -> (Self, BufReader<std::process::ChildStdout>) {
        let mut child = command.stdout(Stdio::piped()).stdin(Stdio::null()).spawn().expect("a binary starts");
        let output = BufReader::new(child.stdout.take().expect("its output is piped"));
        (Self(child), output)
    }

    /// The most memory that it had at one time, in bytes, its start included; `None` = this system does not tell.
    #[must_use]
    pub fn peak_memory_bytes(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(kilobytes << 10)
    }

    /// Ends it at once.
    pub fn kill(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }

    /// Asks it to stop.
    ///
    /// # Panics
    /// When there is no `kill` program.
    pub fn terminate(&self) {
        self.signal("TERM");
    }

    /// Sends it a signal, such as `STOP`.
    ///
    /// # Panics
    /// When there is no `kill` program, or it does not know the signal.
    pub fn signal(&self, name: &str) {
        let id = self.0.id().to_string();
        let status = Command::new("kill").args(["-s", name, &id]).status().expect("kill runs");
        assert!(status.success());
    }

    /// Waits for its end and returns its exit code.
    ///
    /// # Panics
    /// When it does not end.
    pub fn wait(&mut self) -> Option<i32> {
        let mut code = None;
        eventually("the process ends", || match self.0.try_wait() {
            Ok(Some(status)) => {
                code = status.code();
                true
            }
            _ => false,
        });
        code
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// How to start an edge.
#[derive(Debug, Clone, Copy, Default)]
pub struct Start<'a> {
    /// Its configuration file, YAML; empty = none. The environment goes over it, and the harness sets
    /// `FLEET_AGENT_EMBEDDED` and `FLEET_PROBE_TIMEOUT_MS` there: give those in `env` if they matter.
    pub config: &'a str,
    /// Environment on top of a quiet configuration.
    pub env: &'a [(&'a str, &'a str)],
    /// Level at which its log is kept for [`Edge::log`], such as `info`; empty = warnings go to the test's own output.
    pub log: &'a str,
    /// `config` says where its data folder is, which is a new one else.
    pub own_data_dir: bool,
}

/// A running edge.
#[derive(Debug)]
pub struct Edge {
    /// Where clients connect.
    pub address: SocketAddr,
    /// Where its admin service listens.
    pub admin: SocketAddr,
    /// It.
    pub process: Process,
    data_dir: PathBuf,
    log: Arc<Mutex<String>>,
}

impl Edge {
    /// Starts one on free ports, with `env` on top of a quiet configuration.
    ///
    /// # Panics
    /// When it does not say its addresses.
    #[must_use]
    pub fn start(env: &[(&str, &str)]) -> Self {
        Self::launch(&Start { env, ..Start::default() })
    }

    /// The same with a configuration file, over which `env` goes.
    ///
    /// # Panics
    /// When it does not say its addresses.
    #[must_use]
    pub fn start_with(config_yaml: &str, env: &[(&str, &str)]) -> Self {
        Self::launch(&Start { config: config_yaml, env, ..Start::default() })
    }

    /// The same with its log kept, from `info` on.
    ///
    /// # Panics
    /// When it does not say its addresses.
    #[must_use]
    pub fn start_logged(config_yaml: &str, env: &[(&str, &str)]) -> Self {
        Self::launch(&Start { config: config_yaml, env, log: "info", ..Start::default() })
    }

    /// Starts one on free ports.
    ///
    /// # Panics
    /// When it does not say its addresses.
    #[must_use]
    pub fn launch(start: &Start<'_>) -> Self {
        let data_dir = new_folder();
        let (mut process, mut output) = Process::start(edge_command(start, &data_dir));
        let log = Arc::new(Mutex::new(String::new()));
        if let Some(stderr) = process.0.stderr.take() {
            keep(stderr, Arc::clone(&log));
        }
        let mut address = |name: &str| {
            let mut line = String::new();
            output.read_line(&mut line).expect("the edge prints its addresses");
            let text = line.trim().strip_prefix(&format!("{name} http://"));
            text.and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("no address in {line:?}"))
        };
        Self { address: address("edge"), admin: address("admin"), process, data_dir, log }
    }

    /// What it has logged so far, if it was started to keep that; whole lines.
    #[must_use]
    pub fn log(&self) -> String {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Where it keeps its state, if its configuration does not say otherwise.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// Makes an API key with `args` of `herd key add`, which the edge notices by itself; returns its secret.
    ///
    /// # Panics
    /// When none is made.
    #[must_use]
    pub fn add_key(&self, args: &[&str]) -> String {
        self.key(&[&["add"], args].concat())
    }

    /// Runs `herd key` on this edge's keys; returns what it prints.
    ///
    /// # Panics
    /// When it fails.
    #[must_use]
    pub fn key(&self, args: &[&str]) -> String {
        let mut command = Command::new(bin("herd"));
        let output = command.arg("key").args(args).arg("--data-dir").arg(&self.data_dir).output().expect("herd runs");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }

    /// Asks the admin service.
    ///
    /// # Panics
    /// When it does not answer with JSON.
    #[must_use]
    pub fn admin(&self, method: &str, path: &str, body: &str) -> Value {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            self.admin,
            body.len()
        );
        send(self.admin, request.as_bytes()).json()
    }

    /// One node as `/fleet/status` shows it.
    #[must_use]
    pub fn node(&self, id: &str) -> Value {
        let status = self.admin("GET", "/fleet/status", "");
        let nodes = status["nodes"].as_array().cloned().unwrap_or_default();
        nodes.into_iter().find(|node| node["node_id"] == id).unwrap_or_default()
    }

    /// Waits until these nodes are known and the balancer probes them.
    pub fn wait_for(&self, ids: &[&str]) {
        eventually("the nodes join", || ids.iter().all(|id| self.node(id)["status"] == "online"));
    }

    /// Requests that all nodes together have in flight.
    #[must_use]
    pub fn in_flight(&self) -> u64 {
        let status = self.admin("GET", "/fleet/status", "");
        status["nodes"].as_array().into_iter().flatten().filter_map(|node| node["in_flight"].as_u64()).sum()
    }

    /// Requests that wait at the edge, as `/fleet/queue` shows them.
    #[must_use]
    pub fn waiting(&self) -> Vec<Value> {
        self.admin("GET", "/fleet/queue", "")["requests"].as_array().cloned().unwrap_or_default()
    }

    /// The context with which `node` holds `model` in memory, as far as the edge knows.
    #[must_use]
    pub fn context(&self, node: &str, model: &str) -> Option<u64> {
        let node = self.node(node);
        let models = node["models"].as_array()?;
        models.iter().find(|one| one["name"] == model)?["resident"]["context_length"].as_u64()
    }

    /// Posts `body` to `path`.
    #[must_use]
    pub fn post(&self, path: &str, body: &[u8]) -> Answer {
        send(self.address, &post(path, body))
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.data_dir));
    }
}

/// A folder of its own for an edge.
fn new_folder() -> PathBuf {
    static FOLDERS: AtomicUsize = AtomicUsize::new(0);
    let name = format!("herd-test-{}-{}", std::process::id(), FOLDERS.fetch_add(1, Relaxed));
    let folder = std::env::temp_dir().join(name);
    std::fs::create_dir_all(&folder).expect("a folder can be made");
    folder
}

fn edge_command(start: &Start<'_>, data_dir: &Path) -> Command {
    let mut command = Command::new(bin("herd"));
    let level = if start.log.is_empty() { "warn" } else { start.log };
    command.args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--no-mdns", "--log-level", level]);
    // On a loaded machine a healthy node may take long to answer a probe; a dead one still refuses at once.
    // Tests join their nodes before they ask for models.
    let quiet = [
        ("FLEET_AGENT_EMBEDDED", "off"),
        ("FLEET_PROBE_TIMEOUT_MS", "10000"),
        ("FLEET_HOLD_START_MS", "0"),
        ("FLEET_LOG_STDERR", "all"),
    ];
    if !start.own_data_dir {
        command.arg("--data-dir").arg(data_dir);
    }
    command.envs(quiet).envs(start.env.iter().copied());
    if !start.config.is_empty() {
        let file = data_dir.join("herd.yaml");
        std::fs::write(&file, start.config).expect("a file can be written");
        command.arg("--config").arg(file);
    }
    if !start.log.is_empty() {
        command.env("NO_COLOR", "1").stderr(Stdio::piped());
    }
    command
}

/// Reads lines into `log` until their writer is gone.
fn keep(from: impl std::io::Read + Send + 'static, log: Arc<Mutex<String>>) {
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
            log.push_str(&line);
            log.push('\n');
        }
    });
}

/// A running simulated node.
#[derive(Debug)]
pub struct Sim {
    /// Its Ollama.
    pub address: SocketAddr,
    /// Its control listener, which no fault touches.
    pub control: SocketAddr,
    /// It.
    pub process: Process,
}

impl Sim {
    /// Starts one that reports to `edge` as `id`. It has the model `tiny` and answers at once unless told otherwise.
    ///
    /// # Panics
    /// When it does not say its addresses.
    #[must_use]
    pub fn start(edge: Option<&Edge>, id: &str, args: &[&str]) -> Self {
        Self::launch(edge, id, "127.0.0.1:0", args).expect("the node prints its addresses")
    }

    /// Starts one like [`Self::start`] in the place of this one, which is killed: at its address, if nobody has taken
    /// that meanwhile.
    ///
    /// # Panics
    /// When it does not say its addresses.
    pub fn restart(&mut self, edge: Option<&Edge>, id: &str, args: &[&str]) {
        self.process.kill();
        let again = Self::launch(edge, id, &self.address.to_string(), args);
        *self = again.unwrap_or_else(|| Self::start(edge, id, args));
    }

    fn launch(edge: Option<&Edge>, id: &str, listen: &str, args: &[&str]) -> Option<Self> {
        let mut command = Command::new(bin("herd-sim"));
        command.args(["--listen", listen, "--control-listen", "127.0.0.1:0", "--node-id", id, "--model", "tiny=0.1"]);
        command.args(args);
        for (flag, value) in [("--context-length", "4096"), ("--prefill-tps", "0"), ("--decode-tps", "0")] {
            if !args.contains(&flag) {
                command.args([flag, value]);
            }
        }
        if let Some(edge) = edge {
            command.arg("--router-url").arg(format!("http://{}", edge.admin));
        }
        let (process, mut output) = Process::start(command);
        let mut line = String::new();
        output.read_line(&mut line).ok()?;
        let started: Value = serde_json::from_str(&line).ok()?;
        let address = |name: &str| started[name].as_str().and_then(|text| text.parse().ok());
        Some(Self { address: address("listening")?, control: address("control")?, process })
    }

    /// Has `model` loaded with a context of `num_ctx` tokens, as by another client, and forgets having been asked.
    ///
    /// # Panics
    /// When that fails.
    pub fn load(&self, model: &str, num_ctx: u32) {
        let body = format!("{{\"model\":\"{model}\",\"options\":{{\"num_ctx\":{num_ctx}}}}}");
        let answer = send(self.address, &post("/api/generate", body.as_bytes()));
        assert_eq!(answer.status, 200, "{answer:?}");
        self.control("/_sim/reset", "");
    }

    /// What it has seen.
    #[must_use]
    pub fn stats(&self) -> Value {
        get(self.control, "/_sim/stats").json()
    }

    /// Switches a fault on; `none` switches it off.
    ///
    /// # Panics
    /// When the node does not know it.
    pub fn fault(&self, fault: &str) {
        self.fault_with(&format!("{{\"fault\":\"{fault}\"}}"));
    }

    /// The same with its other fields: `{"fault":"cut_mid_stream","after_chunks":3,"count":1,"paths":"inference"}`.
    ///
    /// # Panics
    /// When the node does not know it.
    pub fn fault_with(&self, json: &str) {
        self.control("/_sim/fault", json);
    }

    /// Stops its agent's heartbeats, or lets them come again; its Ollama goes on.
    ///
    /// # Panics
    /// When it does not answer.
    pub fn pause_agent(&self, paused: bool) {
        self.control("/_sim/agent", &format!("{{\"paused\":{paused}}}"));
    }

    #[track_caller]
    fn control(&self, path: &str, json: &str) {
        let answer = send(self.control, &post(path, json.as_bytes()));
        assert_eq!(answer.status, 200, "{answer:?}");
    }
}

/// An answer as it came.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    /// Its status; 0 = the connection ended without one.
    pub status: u16,
    /// Its header, as text.
    pub head: String,
    /// Its body, chunks joined.
    pub body: Vec<u8>,
    /// Whether the body ended as its framing says.
    pub whole: bool,
}

impl Answer {
    /// A header's value.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut fields = self.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        fields.find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// When it is not.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// A connection with a patient timeout.
///
/// # Panics
/// When nobody listens.
#[must_use]
pub fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("somebody listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
    stream
}

/// A connection from another loopback address, which is a client of its own.
///
/// # Panics
/// When nobody listens.
#[must_use]
pub fn connect_from(source: &str, address: SocketAddr) -> TcpStream {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
    let stream = runtime.block_on(async {
        let socket = tokio::net::TcpSocket::new_v4()?;
        socket.bind(SocketAddr::new(source.parse().expect("an address"), 0))?;
        socket.connect(address).await?.into_std()
    });
    let stream = stream.expect("somebody listens");
    stream.set_nonblocking(false).expect("it can block");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
    stream
}

/// [`send`] on such a connection.
#[must_use]
pub fn send_from(source: &str, address: SocketAddr, request: &[u8]) -> Answer {
    let mut stream = connect_from(source, address);
    drop(stream.write_all(request));
    read_answer(&mut stream)
}

/// Sends raw bytes on a connection of their own and reads one answer.
#[must_use]
pub fn send(address: SocketAddr, request: &[u8]) -> Answer {
    let mut stream = connect(address);
    // The peer may answer and close before it has read everything.
    drop(stream.write_all(request));
    if request.starts_with(b"HEAD ") { read_headers(&mut stream) } else { read_answer(&mut stream) }
}

/// Reads an answer that has no body, whatever its header says of one.
fn read_headers(stream: &mut TcpStream) -> Answer {
    let head = read_head(&mut BufReader::new(stream));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    Answer { status, head, body: Vec::new(), whole: true }
}

/// Reads one answer; interim answers are passed over.
#[must_use]
pub fn read_answer(stream: &mut TcpStream) -> Answer {
    let mut reader = BufReader::new(stream);
    let mut answer = Answer::default();
    loop {
        answer.head = read_head(&mut reader);
        let status = answer.head.split(' ').nth(1).and_then(|status| status.parse().ok());
        answer.status = status.unwrap_or(0);
        if answer.status != 100 {
            break;
        }
    }
    let length = answer.header("Content-Length").and_then(|length| length.parse::<usize>().ok());
    if let Some(length) = length {
        answer.body = vec![0; length];
        answer.whole = reader.read_exact(&mut answer.body).is_ok();
    } else if answer.header("Transfer-Encoding").is_some() {
        answer.whole = read_chunks(&mut reader, &mut answer.body).is_some();
    }
    answer
}

fn read_head(reader: &mut BufReader<&mut TcpStream>) -> String {
    let mut head = String::new();
    while reader.read_line(&mut head).is_ok_and(|read| read > 0) && !head.ends_with("\r\n\r\n") {}
    head
}

fn read_chunks(reader: &mut BufReader<&mut TcpStream>, body: &mut Vec<u8>) -> Option<()> {
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
        let size = usize::from_str_radix(line.trim(), 16).ok()?;
        let mut chunk = vec![0; size + 2];
        reader.read_exact(&mut chunk).ok()?;
        if size == 0 {
            return Some(());
        }
        body.extend_from_slice(&chunk[..size]);
    }
}

/// Asks for `path` on a connection of its own.
///
/// # Panics
/// When nobody listens.
#[must_use]
pub fn get(address: SocketAddr, path: &str) -> Answer {
    send(address, format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes())
}

/// A `POST` with a `Content-Length`.
#[must_use]
pub fn post(path: &str, body: &[u8]) -> Vec<u8> {
    post_with(path, "", body)
}

/// The same with further header lines, each ended by CRLF.
#[must_use]
pub fn post_with(path: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n{headers}\r\n");
    [head.as_bytes(), body].concat()
}

/// A chunked `POST`.
#[must_use]
pub fn post_chunked(path: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n");
    let mut request = head.into_bytes();
    for chunk in body.chunks(50_000) {
        request.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        request.extend_from_slice(chunk);
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"0\r\n\r\n");
    request
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHAT: &[u8] = br#"{"model":"tiny","stream":false,"messages":[{"role":"user","content":"hi"}]}"#;

    #[test]
    fn an_edge_takes_a_file_and_its_log_is_kept() {
        let edge = Edge::start_logged("retry:\n  max_attempts: 1\n", &[]);
        let sim = Sim::start(Some(&edge), "a", &["--hot", "tiny"]);
        edge.wait_for(&["a"]);
        sim.fault_with(r#"{"fault":"error_400","count":1}"#);
        assert_eq!([edge.post("/api/chat", CHAT).status, edge.post("/api/chat", CHAT).status], [400, 200]);
        assert_eq!(get(edge.address, "/healthz").status, 200);
        let ended = || edge.log().lines().filter(|line| line.contains("request ended")).count();
        eventually("both are logged", || ended() == 2);
        assert!(!edge.log().contains('\u{1b}'), "without colours");
    }

    #[test]
    fn a_paused_agent_is_silent_while_its_ollama_answers() {
        let edge = Edge::start_with("fleet:\n  degraded_after_ms: 2500\n", &[]);
        let sim = Sim::start(Some(&edge), "a", &["--hot", "tiny"]);
        edge.wait_for(&["a"]);
        sim.pause_agent(true);
        eventually("the edge misses it", || edge.node("a")["status"] == "degraded");
        assert_eq!(get(sim.address, "/api/version").status, 200);
        sim.pause_agent(false);
        edge.wait_for(&["a"]);
    }
}
