//! The lines that wait for the writer. Adding a line never waits: if there is no space, the line is dropped and counted.

use std::{
    io::Write,
    mem,
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};

/// The memory that an empty queue keeps.
const KEPT_CAPACITY: usize = 16 << 10;

/// A bounded queue of lines, in order.
#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<State>,
    max_bytes: usize,
    /// Wakes the writer.
    filled: Condvar,
    /// Wakes threads in [`Queue::flush`].
    written: Condvar,
}

#[derive(Debug)]
struct State {
    lines: Vec<u8>,
    /// The number of lines dropped and not yet reported. While there are any, all lines are dropped, so that the report is in its
    /// place.
    dropped: u64,
    /// Whether the writer has taken lines that are not written yet.
    is_writing: bool,
}

impl State {
    fn is_done(&self) -> bool {
        self.lines.is_empty() && self.dropped == 0 && !self.is_writing
    }
}

impl Queue {
    /// Creates a queue of at most `max_bytes`, without those that are being written.
    pub(super) const fn new(max_bytes: usize) -> Self {
        let state = State { lines: Vec::new(), dropped: 0, is_writing: false };
        Self { state: Mutex::new(state), max_bytes, filled: Condvar::new(), written: Condvar::new() }
    }

    /// Adds a line, or drops it.
    pub(super) fn add(&self, line: &[u8]) {
        let mut state = self.state.lock();
        if state.dropped > 0 || state.lines.len() + line.len() > self.max_bytes {
            state.dropped += 1;
        } else {
            state.lines.extend_from_slice(line);
        }
        self.filled.notify_one();
    }

    /// Writes all lines to `out`, forever. Calls `report` with the number of lines dropped before the next one; it may add a line.
    pub(super) fn write_to(&self, mut out: impl Write, report: impl Fn(u64)) {
        let mut lines = Vec::new();
        loop {
            let mut state = self.state.lock();
            state.is_writing = false;
            while state.is_done() {
                self.written.notify_all();
                self.filled.wait(&mut state);
            }
            state.is_writing = true;
            if state.lines.is_empty() {
                let dropped = mem::take(&mut state.dropped);
                drop(state);
                report(dropped);
            } else {
                mem::swap(&mut state.lines, &mut lines);
                drop(state);
                // Fails if the reader is gone; then nobody can be told.
                let _ = out.write_all(&lines).and_then(|()| out.flush());
                lines.clear();
                lines.shrink_to(KEPT_CAPACITY);
            }
        }
    }

    /// Waits until all lines are written, at most `limit`.
    pub(super) fn flush(&self, limit: Duration) {
        let deadline = Instant::now() + limit;
        let mut state = self.state.lock();
        while !state.is_done() && !self.written.wait_until(&mut state, deadline).timed_out() {}
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Arc, mpsc},
        thread,
    };

    use super::*;

    /// Takes lines from a channel, one for each write, and waits for a permission before each.
    struct SlowReader {
        permissions: mpsc::Receiver<()>,
        written: mpsc::Sender<Vec<u8>>,
    }

    impl Write for SlowReader {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // The test has ended if these fail.
            let _ = self.permissions.recv();
            let _ = self.written.send(bytes.to_vec());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn drops_lines_of_a_full_queue_and_reports_them_in_order() {
        let queue = Arc::new(Queue::new(20));
        let (permit, permissions) = mpsc::channel();
        let (written, writes) = mpsc::channel();
        queue.add(b"line 1\n");
        queue.add(b"line 2\n");
        queue.add(b"line 3\n");
        queue.add(b"4\n");
        let writer = queue.clone();
        thread::spawn(move || {
            let report = |lines| writer.add(format!("{lines} dropped\n").as_bytes());
            writer.write_to(SlowReader { permissions, written }, report);
        });
        for expected in ["line 1\nline 2\n", "2 dropped\n"] {
            permit.send(()).expect("a writer");
            assert_eq!(writes.recv().expect("lines"), expected.as_bytes());
        }
        queue.flush(Duration::from_secs(10));
        queue.add(b"line 5\n");
        permit.send(()).expect("a writer");
        assert_eq!(writes.recv().expect("lines"), b"line 5\n");
    }

    #[test]
    fn adding_and_flushing_never_wait_for_the_reader() {
        let queue = Arc::new(Queue::new(64 << 10));
        // The first write never ends.
        let (_permit, permissions) = mpsc::channel();
        let (written, _writes) = mpsc::channel();
        let writer = queue.clone();
        thread::spawn(move || writer.write_to(SlowReader { permissions, written }, |_| ()));
        let since = Instant::now();
        for _ in 0..100_000 {
            queue.add(&[b'x'; 100]);
        }
        println!("100,000 lines of 100 bytes without a reader: {:?}", since.elapsed());
        assert!(since.elapsed() < Duration::from_secs(5));
        // At most what the queue and the writer hold was not dropped.
        assert!(queue.state.lock().dropped > 0, "no line was dropped");
        queue.flush(Duration::from_millis(100));
        assert!(since.elapsed() < Duration::from_secs(10));
    }
}
