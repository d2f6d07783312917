//! The stderr of a helper: the messages of libguestfs and the console of its appliance.

use std::{
    collections::VecDeque,
    io,
    process::ChildStderr,
    sync::Arc,
    time::{Duration, Instant},
};

use async_io::{Async, Timer};
use parking_lot::Mutex;
use smol::{Task, io::AsyncReadExt};

use crate::text::printable;

/// The number of lines kept.
const MAX_LINES: usize = 20;
/// The maximum length of a line in bytes. The rest is discarded.
const MAX_LINE_LEN: usize = 500;

/// Starts a task that reads stderr to its end, and returns it with the log that it writes. Lines are also logged as those of the
/// disk `disk`, at level debug.
pub(super) fn read(stderr: ChildStderr, disk: &str) -> io::Result<(Task<()>, Arc<Log>)> {
    let mut stderr = Async::new(stderr)?;
    let log = Arc::new(Log::default());
    let (lines, disk) = (log.clone(), disk.to_owned());
    let task = smol::spawn(async move {
        let mut line = Vec::new();
        let mut buffer = [0; 4096];
        while let Ok(len @ 1..) = stderr.read(&mut buffer).await {
            for part in buffer[..len].split_inclusive(|&byte| byte == b'\n') {
                line.extend_from_slice(&part[..part.len().min(MAX_LINE_LEN.saturating_sub(line.len()))]);
                if part.ends_with(b"\n") {
                    lines.add(&line, &disk);
                    line.clear();
                } else {
                    lines.note_activity();
                }
            }
        }
        lines.add(&line, &disk);
    });
    Ok((task, log))
}

/// The last lines of a helper's stderr.
#[derive(Debug, Default)]
pub(super) struct Log(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    lines: VecDeque<String>,
    /// The time of the last output of the appliance's kernel, or of the start of KVM for it.
    last_activity: Option<Instant>,
    /// Whether the appliance's kernel has written anything.
    is_booted: bool,
}

impl Log {
    fn add(&self, line: &[u8], disk: &str) {
        let line = printable(line.trim_ascii_end());
        if line.is_empty() {
            return;
        }
        log::debug!("{disk}: {line}");
        let mut state = self.0.lock();
        // libguestfs prints qemu's command line, one option a line. Before that it may be building the appliance, which takes
        // long. The firmware's output does not count: it appears even if the kernel never starts.
        state.is_booted |= line.contains("Linux version");
        if state.is_booted || line.contains("accel=kvm") {
            state.last_activity = Some(Instant::now());
        }
        if state.lines.len() == MAX_LINES {
            state.lines.pop_front();
        }
        state.lines.push_back(line);
    }

    fn note_activity(&self) {
        let mut state = self.0.lock();
        if state.is_booted {
            state.last_activity = Some(Instant::now());
        }
    }

    /// Waits until an appliance was started under KVM and its kernel has then written nothing for `limit`.
    pub(super) async fn silence(&self, limit: Duration) {
        let last_activity = || self.0.lock().last_activity;
        loop {
            let before = last_activity();
            Timer::at(before.unwrap_or_else(Instant::now) + limit).await;
            if before.is_some() && last_activity() == before {
                return;
            }
        }
    }

    /// Returns the last line that names a cause: one of the helper, of qemu (without the name of its temporary file), or of the
    /// appliance's kernel.
    pub(super) fn last_cause(&self) -> Option<String> {
        let names_cause = |line: &&String| {
            let is_helper = line.contains("rtftp-guestfs: ");
            let is_qemu = line.starts_with("qemu-") && line.contains(": ") && !line.contains(": warning: ");
            is_helper || is_qemu || line.contains("I/O error")
        };
        let state = self.0.lock();
        let line = state.lines.iter().rev().find(names_cause)?;
        Some(line.split_once(".qcow2: ").map_or(line.as_str(), |(_, cause)| cause).to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cause(lines: &[&str]) -> Option<String> {
        let log = Log::default();
        lines.iter().for_each(|line| log.add(line.as_bytes(), "disk"));
        log.last_cause()
    }

    #[test]
    fn finds_the_last_line_that_names_a_cause() {
        let qemu = "qemu-img: /tmp/x/overlay1.qcow2: Failed to connect: Connection refused";
        let expected = Some("Failed to connect: Connection refused".into());
        assert_eq!(cause(&["rtftp-guestfs: earlier", qemu, "libguestfs: closing"]), expected);
        assert_eq!(cause(&["qemu-img: warning: nothing", "guestfsd: I/O error, dev sda"]).as_deref(), {
            Some("guestfsd: I/O error, dev sda")
        });
        assert_eq!(cause(&["qemu-img: warning: nothing", "\x1b[0m"]), None);
    }

    #[test]
    fn keeps_the_last_lines() {
        let mut lines = vec!["rtftp-guestfs: first"];
        lines.extend(["other"; MAX_LINES - 1]);
        assert_eq!(cause(&lines).as_deref(), Some("rtftp-guestfs: first"));
        lines.push("other");
        assert_eq!(cause(&lines), None);
    }
}
