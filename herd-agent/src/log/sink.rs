//! A bounded buffer of lines and the thread that empties it: whoever logs never waits for what is written to.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::LOST;

/// Most that waits to be written: some ten thousand lines.
const BUFFER_BYTES: usize = 4 << 20;
/// What the thread keeps of its buffer after a burst.
const SPARE_BYTES: usize = 256 << 10;
/// How long lines come together before they are written. Woken for every line, the thread would take a core from
/// whoever logs, and write as often.
const TOGETHER: Duration = Duration::from_millis(50);
/// Longest that the end of the process waits for what is left to be written.
const END: Duration = Duration::from_secs(2);

/// Where lines end up.
pub(super) trait Target: Send + 'static {
    /// Writes whole `lines`, and that `lost` were lost before now; returns how many of all these are still untold or
    /// lost now.
    fn write(&mut self, lines: &[u8], lost: u64) -> u64;
}

/// Where lines are put. Cloning is cheap.
#[derive(Debug, Clone)]
pub(super) struct Sink(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    buffer: Mutex<Buffer>,
    filled: Condvar,
}

#[derive(Debug, Default)]
struct Buffer {
    bytes: Vec<u8>,
    /// Lines that found no room, not yet told.
    lost: u64,
    closed: bool,
}

/// The thread. Dropping it has it write what is left, and end.
#[derive(Debug)]
pub(super) struct Worker {
    sink: Sink,
    ended: Receiver<()>,
}

impl Sink {
    /// Starts a thread that writes to `target`. Where the system has none to give, lines are lost and counted.
    pub(super) fn start(name: &str, target: impl Target) -> (Self, Worker) {
        let sink = Self(Arc::default());
        let (end, ended) = channel();
        let shared = Arc::clone(&sink.0);
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            work(&shared, target);
            // Nobody may be waiting for it any more.
            end.send(()).ok();
        });
        drop(thread);
        (sink.clone(), Worker { sink, ended })
    }

    /// Adds a line, its end included; drops it when there is no room.
    pub(super) fn push(&self, line: &[u8]) {
        let mut buffer = self.0.lock();
        if buffer.bytes.len() + line.len() > BUFFER_BYTES {
            buffer.lost += 1;
            LOST.fetch_add(1, Relaxed);
            return;
        }
        let asleep = buffer.bytes.is_empty();
        buffer.bytes.extend_from_slice(line);
        drop(buffer);
        if asleep {
            self.0.filled.notify_one();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Buffer> {
        // Held for a copy of bytes and nothing else.
        self.buffer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes what comes until the sink is closed. The lock is held for a swap, never while something is written.
fn work(shared: &Shared, mut target: impl Target) {
    let (mut batch, mut untold) = (Vec::new(), 0);
    loop {
        let mut buffer = shared.lock();
        while buffer.bytes.is_empty() && !buffer.closed {
            buffer = shared.filled.wait(buffer).unwrap_or_else(PoisonError::into_inner);
        }
        let open = |buffer: &mut Buffer| !buffer.closed;
        let together = shared.filled.wait_timeout_while(buffer, TOGETHER, open);
        let (mut buffer, _) = together.unwrap_or_else(PoisonError::into_inner);
        std::mem::swap(&mut batch, &mut buffer.bytes);
        untold += std::mem::take(&mut buffer.lost);
        let closed = buffer.closed;
        drop(buffer);
        if !batch.is_empty() || untold > 0 {
            untold = target.write(&batch, untold);
        }
        if closed {
            return;
        }
        batch.clear();
        batch.shrink_to(SPARE_BYTES);
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.sink.0.lock().closed = true;
        self.sink.0.filled.notify_one();
        // A disk that hangs must not keep the process.
        self.ended.recv_timeout(END).ok();
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::mpsc::Sender;

    use super::*;

    /// Passes on whatever it is given.
    struct Keep(Sender<Vec<u8>>);

    impl Target for Keep {
        fn write(&mut self, lines: &[u8], _: u64) -> u64 {
            drop(self.0.send(lines.to_vec()));
            0
        }
    }

    /// What `log` puts into a sink.
    pub(in crate::log) fn kept(log: impl FnOnce(Sink)) -> Vec<u8> {
        let (sender, lines) = channel();
        let (sink, worker) = Sink::start("test", Keep(sender));
        log(sink);
        drop(worker);
        lines.into_iter().flatten().collect()
    }

    /// Passes on what it is given, once it may.
    struct Gate {
        open: Receiver<()>,
        written: Sender<(Vec<u8>, u64)>,
    }

    impl Target for Gate {
        fn write(&mut self, lines: &[u8], lost: u64) -> u64 {
            self.open.recv().ok();
            drop(self.written.send((lines.to_vec(), lost)));
            0
        }
    }

    #[test]
    fn whoever_logs_never_waits_and_what_is_lost_is_told() {
        let (open, gate) = channel();
        let (written, lines) = channel();
        let (sink, worker) = Sink::start("test", Gate { open: gate, written });
        sink.push(b"first\n");
        // The thread takes the first and is held up; then the buffer fills.
        while !sink.0.lock().bytes.is_empty() {
            std::thread::yield_now();
        }
        let before = super::super::lost_lines();
        let line = vec![b'x'; 1 << 20];
        (0..6).for_each(|_| sink.push(&line));
        assert_eq!(sink.0.lock().lost, 2);
        assert!(super::super::lost_lines() >= before + 2);
        (0..2).for_each(|_| open.send(()).unwrap());
        assert_eq!(lines.recv().unwrap(), (b"first\n".to_vec(), 0));
        let (batch, lost) = lines.recv().unwrap();
        assert_eq!((batch.len(), lost), (4 << 20, 2));
        sink.push(b"last\n");
        open.send(()).unwrap();
        drop(worker);
        assert_eq!(lines.recv().unwrap(), (b"last\n".to_vec(), 0), "the end writes what is left");
    }
}
