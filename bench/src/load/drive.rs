//! Drives a load against one server and measures it: a warm-up, a window in which everything counts, an end.

mod connection;

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::{JoinSet, LocalSet};

use super::clock::now_ns;
use super::samples::Samples;
use super::schedule::Schedule;
use super::workload::Workload;
use connection::Connection;

/// Longest time that requests under way may take to end after the window.
const DRAIN: Duration = Duration::from_secs(3);
/// Requests of an open loop that may be late at one time; those beyond are errors.
const LATE_MAX: usize = 65_536;

/// When requests are sent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pace {
    /// Each connection sends its next request when it has the answer to the last.
    Closed,
    /// So many a second, whatever becomes of them; see [`Schedule`].
    Open(f64),
}

/// A load.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Load {
    /// What is asked.
    pub workload: Workload,
    /// Connections: as many requests at one time at most.
    pub connections: usize,
    /// When.
    pub pace: Pace,
    /// Connections begin spread over this time.
    pub ramp: Duration,
    /// What happens before this counts for nothing.
    pub warm: Duration,
    /// How long is measured.
    pub time: Duration,
}

/// What was measured in the window.
#[derive(Debug, Clone, Default)]
pub struct Measured {
    /// Length of the window, seconds.
    pub seconds: f64,
    /// Requests that have ended well.
    pub requests: u64,
    /// Requests that have not, and connections that failed.
    pub errors: u64,
    /// The first error, in words.
    pub first_error: Option<String>,
    /// Chunks that carried a time.
    pub chunks: u64,
    /// From when a request was due to the last byte of its answer.
    pub latency: Samples,
    /// From when it was due to the first byte of its answer's body.
    pub ttft: Samples,
    /// From when the backend made a chunk to when it was read.
    pub transit: Samples,
    /// Requests that were under way when the run was over and the time for their end as well.
    pub unfinished: u64,
}

/// What all connections of a run share.
struct Shared {
    server: SocketAddr,
    request: Vec<u8>,
    measuring: Cell<bool>,
    stop: Cell<bool>,
    under_way: Cell<u64>,
    measured: RefCell<Measured>,
}

impl Shared {
    fn failed(&self, why: &dyn std::fmt::Display) {
        if self.measuring.get() {
            let mut measured = self.measured.borrow_mut();
            measured.errors += 1;
            measured.first_error.get_or_insert_with(|| why.to_string());
        }
    }
}

/// Runs `load` against `server`; `at_edges` is called when the window opens and when it closes.
///
/// # Errors
/// When the system refuses what the generator needs.
pub fn drive(server: SocketAddr, load: &Load, mut at_edges: impl FnMut()) -> anyhow::Result<Measured> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let shared = Rc::new(Shared {
        server,
        request: load.workload.request(&server.to_string()),
        measuring: Cell::new(false),
        stop: Cell::new(false),
        under_way: Cell::new(0),
        measured: RefCell::default(),
    });
    let local = LocalSet::new();
    runtime.block_on(local.run_until(async {
        let mut connections = JoinSet::new();
        let clockwork = begin(load, &shared, &mut connections)?;
        tokio::time::sleep(load.ramp + load.warm).await;
        at_edges();
        let opened_ns = now_ns();
        shared.measuring.set(true);
        tokio::time::sleep(load.time).await;
        shared.measuring.set(false);
        shared.measured.borrow_mut().seconds = (now_ns() - opened_ns) as f64 / 1e9;
        at_edges();
        shared.stop.set(true);
        if let Some(clockwork) = clockwork {
            shared.measured.borrow_mut().errors += clockwork.lost.load(Relaxed);
        }
        let ended = async { while connections.join_next().await.is_some() {} };
        drop(tokio::time::timeout(DRAIN, ended).await);
        shared.measured.borrow_mut().unfinished = shared.under_way.get();
        anyhow::Ok(())
    }))?;
    drop(local);
    Ok(shared.measured.take())
}

/// Starts the connections, and for an open loop what tells them when to send.
fn begin(load: &Load, shared: &Rc<Shared>, connections: &mut JoinSet<()>) -> anyhow::Result<Option<Clockwork>> {
    let Pace::Open(per_s) = load.pace else {
        for index in 0..load.connections {
            #[expect(clippy::cast_possible_truncation, reason = "a number of connections")]
            let after = load.ramp * index as u32 / load.connections as u32;
            let shared = Rc::clone(shared);
            connections.spawn_local(async move {
                tokio::time::sleep(after).await;
                let mut connection = Connection::new(Rc::clone(&shared));
                while !shared.stop.get() {
                    connection.ask(now_ns()).await;
                }
            });
        }
        return Ok(None);
    };
    let (due, asked) = mpsc::channel(LATE_MAX);
    let asked = Rc::new(tokio::sync::Mutex::new(asked));
    for _ in 0..load.connections {
        let (shared, asked) = (Rc::clone(shared), Rc::clone(&asked));
        connections.spawn_local(async move {
            let mut connection = Connection::new(Rc::clone(&shared));
            loop {
                let due_ns = asked.lock().await.recv().await;
                let Some(due_ns) = due_ns.filter(|_| !shared.stop.get()) else { return };
                connection.ask(due_ns).await;
            }
        });
    }
    Clockwork::start(Schedule::new(now_ns(), per_s), due).map(Some)
}

/// A thread that says when requests are due. Timers of tokio are exact to a millisecond only.
struct Clockwork {
    stop: Arc<AtomicBool>,
    /// Requests for which there was no room.
    lost: Arc<AtomicU64>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Clockwork {
    fn start(schedule: Schedule, due: mpsc::Sender<u64>) -> anyhow::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let lost = Arc::new(AtomicU64::new(0));
        let (stopped, missed) = (Arc::clone(&stop), Arc::clone(&lost));
        let thread = std::thread::Builder::new().name("clockwork".into()).spawn(move || {
            let mut next = 0;
            while !stopped.load(Relaxed) {
                let now_ns = now_ns();
                let due_by = schedule.due_by(now_ns);
                for index in next..due_by {
                    // Full: the server is so far behind that the run shows nothing but that.
                    if due.try_send(schedule.due_ns(index)).is_err() {
                        missed.fetch_add(1, Relaxed);
                    }
                }
                next = due_by.max(next);
                let wait_ns = schedule.due_ns(next).saturating_sub(now_ns);
                std::thread::park_timeout(Duration::from_nanos(wait_ns));
            }
        })?;
        Ok(Self { stop, lost, thread: Some(thread) })
    }
}

impl Drop for Clockwork {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            drop(thread.join());
        }
    }
}
