//! An edge with two nodes, and what is asked after every failure.

use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use herd_harness::{Answer, Edge, Sim, connect, eventually, read_answer, send};
use std::io::{Read as _, Write as _};

use super::Row;
use super::way::Way;

/// On both nodes, `a` being asked first.
pub(super) const BOTH: &str = "tiny";
/// On `a` alone.
pub(super) const SOLO: &str = "solo";

/// Nodes are ranked by their size alone, so that what rows do to their history changes nothing.
const CALM: &str = "
routing: {weights: {thermal: 0, memory_fit: 0, queue_depth: 0, latency_history: 0, availability_trend: 0, context_fit: 0}}
fallback: {vram: false}
probe: {interval_ms: 600000}
";

const HEALTHZ: &[u8] = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// A request under way.
pub(super) struct Asked {
    pub(super) id: String,
    pub(super) stream: TcpStream,
}

/// The edge and its nodes.
pub(super) struct Scene {
    pub(super) edge: Edge,
    pub(super) a: Sim,
    pub(super) b: Sim,
}

impl Scene {
    /// An edge with `config` on top of a calm one, and nodes that write `decode_tps` tokens a second.
    pub(super) fn start(config: &str, decode_tps: &str) -> Self {
        Self::start_with(config, decode_tps, &[])
    }

    /// The same with more arguments for both nodes.
    pub(super) fn start_with(config: &str, decode_tps: &str, args: &[&str]) -> Self {
        let edge = Edge::start_logged(&format!("{CALM}{config}"), &[]);
        let shared = ["--model", "tiny-embed=0.1", "--hot", "tiny", "--hot", "tiny-embed", "--decode-tps", decode_tps];
        let solo = ["--model", "solo=0.1", "--model", "solo-embed=0.1", "--hot", "solo", "--hot", "solo-embed"];
        let node = |id: &str, memory_bytes: u64, more: &[&str]| {
            let machine = machine_file(id, memory_bytes);
            let from = ["--config", machine.to_str().unwrap()];
            let sim = Sim::start(Some(&edge), id, &[&from[..], &shared, args, more].concat());
            std::fs::remove_file(&machine).unwrap();
            sim
        };
        let (a, b) = (node("a", 16 << 30, &solo), node("b", 256 << 30, &[]));
        edge.wait_for(&["a", "b"]);
        Self { edge, a, b }
    }

    /// Whether `a` is asked next for what both have.
    fn prefers_a(&self) -> bool {
        let paths = [("/api/generate", "tiny"), ("/api/embed", "tiny-embed")];
        paths.iter().all(|(path, model)| {
            let body = format!("{{\"model\":\"{model}\",\"input\":\"x\",\"prompt\":\"x\"}}");
            let told = self.edge.admin("POST", &format!("/fleet/explain?path={path}"), &body);
            told["goes_to"] == "a"
        })
    }

    /// Heals `a` and waits until it is trusted again.
    pub(super) fn heal(&self) {
        self.a.fault("none");
        let body = br#"{"model":"solo","stream":false,"prompt":"x","options":{"num_predict":1}}"#;
        eventually("a serves", || self.edge.post("/api/generate", body).status == 200);
        eventually("a is asked first", || self.prefers_a());
        self.settled();
    }

    /// Begins a request.
    pub(super) fn begin(&self, way: &Way, model: &str) -> Asked {
        static NUMBERS: AtomicUsize = AtomicUsize::new(0);
        let id = format!("row-{}", NUMBERS.fetch_add(1, Relaxed));
        let mut stream = connect(self.edge.address);
        drop(stream.write_all(&way.request(&id, model)));
        Asked { id, stream }
    }

    /// Asks, and checks that the connection is then what its header says.
    pub(super) fn ask(&self, way: &Way, model: &str) -> (String, Answer) {
        let Asked { id, mut stream } = self.begin(way, model);
        let answer = read_answer(&mut stream);
        check_connection(&mut stream, &answer);
        (id, answer)
    }

    /// The same for an answer that breaks off: its header cannot have known that the connection will be closed, but
    /// nothing may come on it that is no answer.
    pub(super) fn ask_broken(&self, way: &Way, model: &str) -> (String, Answer) {
        let Asked { id, mut stream } = self.begin(way, model);
        let answer = read_answer(&mut stream);
        drop(stream.write_all(HEALTHZ));
        let next = read_answer(&mut stream);
        assert!(next.head.is_empty() || answer.whole && next.status == 200, "{answer:?} {next:?}");
        (id, answer)
    }

    /// Checks what every answer says of itself and what the log says of it, and that nothing is left behind.
    #[track_caller]
    pub(super) fn check(&self, row: &Row, id: &str, answer: &Answer, stories: &[&str]) -> String {
        assert!(row.status.contains(&answer.status), "{}: {answer:?}", row.name);
        assert_eq!(answer.header("X-Request-Id"), Some(id), "{answer:?}");
        let number = |name: &str| answer.header(name).and_then(|value| value.parse::<usize>().ok());
        assert!(number("X-Fleet-Queue-Ms").is_some(), "{answer:?}");
        let attempts = number("X-Fleet-Attempts").unwrap_or(usize::MAX);
        assert!(row.may_take(attempts), "{}: {attempts} attempts: {answer:?}", row.name);
        if answer.status == 503 {
            assert!(number("Retry-After").is_some_and(|seconds| seconds > 0), "{}: {answer:?}", row.name);
        }
        let line = self.logged(row, id, stories);
        assert!(line.contains(&format!(" http_status={} ", answer.status)), "{answer:?} {line}");
        line
    }

    /// Checks the one line that the log has for a request, and that nothing is left behind; returns the line.
    #[track_caller]
    pub(super) fn logged(&self, row: &Row, id: &str, stories: &[&str]) -> String {
        let line = self.line(id);
        assert_eq!(field(&line, "status"), row.trace, "{}: {line}", row.name);
        let told = |status: &u16| line.contains(&format!(" http_status={status} "));
        assert!(row.status.iter().any(told), "{}: {line}", row.name);
        let story = field(&line, "attempts");
        assert!(stories.is_empty() || stories.contains(&story), "{}: {story} is none of {stories:?}: {line}", row.name);
        let attempts = story.split(',').filter(|told| !told.is_empty()).count();
        assert!(row.may_take(attempts), "{}: {attempts} attempts in {line}", row.name);
        self.settled();
        line
    }

    /// The line of a request in the log: there is one, and one only.
    #[track_caller]
    pub(super) fn line(&self, id: &str) -> String {
        let mark = format!(" request_id={id} ");
        let lines = || -> Vec<String> {
            let log = self.edge.log();
            log.lines()
                .filter(|line| line.contains("request ended") && line.contains(&mark))
                .map(str::to_owned)
                .collect()
        };
        eventually("the end is logged", || !lines().is_empty());
        let [line] = lines().try_into().unwrap_or_else(|lines| panic!("more than one: {lines:?}"));
        line
    }

    /// Waits until nothing runs and nothing waits, at the edge and at the nodes.
    #[track_caller]
    pub(super) fn settled(&self) {
        eventually("the slots are back", || self.edge.in_flight() == 0);
        eventually("nothing waits", || self.edge.admin("GET", "/fleet/queue", "")["waiting"] == 0);
        eventually("the nodes are idle", || [&self.a, &self.b].iter().all(|sim| sim.stats()["in_flight"] == 0));
    }

    /// Waits until the node of `a` works on something.
    pub(super) fn until_a_works(&self) {
        eventually("a works", || self.a.stats()["in_flight"] == 1 && self.edge.in_flight() > 0);
    }

    /// Checks that every request that was ever begun has ended once; for the end of a test.
    pub(super) fn each_ended_once(&self) {
        let log = self.edge.log();
        let mut ids: Vec<&str> =
            log.lines().filter(|line| line.contains("request ended")).map(|line| field(line, "request_id")).collect();
        let all = ids.len();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), all, "some have ended twice");
    }
}

/// A machine of this size, on which everything stays loaded: small models are for the smaller one.
fn machine_file(id: &str, memory_bytes: u64) -> PathBuf {
    let path = std::env::temp_dir().join(format!("herd-machine-{}-{id}.json", std::process::id()));
    let hardware = format!("{{\"kind\":\"mac_studio\",\"memory_total_bytes\":{memory_bytes}}}");
    let machine =
        format!("{{\"max_loaded_models\":16,\"keep_alive_ms\":-1,\"load_overhead_ms\":0,\"hardware\":{hardware}}}");
    std::fs::write(&path, machine).unwrap();
    path
}

/// A field of a line of the log.
pub(super) fn field<'a>(line: &'a str, name: &str) -> &'a str {
    let after = line.split_once(&format!(" {name}=")).map_or("", |(_, after)| after);
    match after.strip_prefix('"') {
        Some(quoted) => quoted.split('"').next().unwrap_or_default(),
        None => after.split(' ').next().unwrap_or_default(),
    }
}

/// What `Connection` says must hold: another request is answered, or the end comes.
#[track_caller]
pub(super) fn check_connection(stream: &mut TcpStream, answer: &Answer) {
    let closes = answer.header("Connection") == Some("close");
    if answer.whole && !closes {
        stream.write_all(HEALTHZ).unwrap();
        assert_eq!(read_answer(stream).status, 200, "kept alive, as was said: {answer:?}");
    } else {
        assert!(matches!(stream.read(&mut [0; 16]), Ok(0) | Err(_)), "closed, as was said: {answer:?}");
    }
}

/// Asks a node itself.
pub(super) fn direct(sim: &Sim, way: &Way, model: &str) -> Answer {
    send(sim.address, &way.request("direct", model))
}
