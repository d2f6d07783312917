//! What people are told: every packet if they want it, or how far it is; and a summary.

use std::{
    io::{IsTerminal, Write, stderr},
    time::{Duration, Instant},
};

use rtftp_core::Receiver;
use rtftp_runtime::{
    client::{Event, Fetched, describe, describe_packet},
    text::printable,
};

use crate::{args::Job, bar::megabytes, progress::Progress};

/// Tells what happens while it happens.
#[derive(Debug)]
pub(crate) struct Report {
    started: Instant,
    trace: bool,
    progress: Option<Progress>,
}

impl Report {
    /// Starts the clock. Progress is for people, who sit at terminals, and would be torn apart by a trace.
    pub(crate) fn new(job: &Job) -> Self {
        let shown = !job.quiet && !job.trace && stderr().is_terminal();
        Self { started: Instant::now(), trace: job.trace, progress: shown.then(Progress::new) }
    }

    /// Takes in what happened.
    pub(crate) fn event(&mut self, receiver: &Receiver, event: Event<'_>) {
        if self.trace {
            say(&format!("{:10.6} {}", self.started.elapsed().as_secs_f64(), line(event)));
        }
        if let Some(progress) = &mut self.progress {
            progress.show(receiver.delivered(), receiver.size());
        }
    }
}

/// Prints a line on standard error. That nobody is there to read it is no reason to stop.
pub(crate) fn say(line: &str) {
    let _ = writeln!(stderr(), "{line}");
}

/// An event in words: where it goes or comes from, and what it is.
fn line(event: Event<'_>) -> String {
    match event {
        Event::Sent(to, datagram) => format!("-> {to} {}", describe(datagram)),
        Event::Received(from, len, packet) => format!("<- {from} {}", describe_packet(len, packet)),
        Event::Stranger(from, datagram) => format!("<- {from} (not the server) {}", describe(datagram)),
        Event::Unreachable(server, error) => format!("!! {server} {error}"),
    }
}

/// One line about a file that was fetched.
pub(crate) fn summary(job: &Job, fetched: &Fetched, elapsed: Duration) -> String {
    let seconds = elapsed.as_secs_f64();
    let rate = megabytes(fetched.bytes as f64 / seconds.max(1e-6));
    let settings = fetched.settings;
    let mut line = format!(
        "{}: {} bytes in {seconds:.3} s, {rate:.1} MB/s, {} retransmissions, blksize {}, windowsize {}",
        printable(&job.file),
        fetched.bytes,
        fetched.retransmitted,
        settings.blksize,
        settings.windowsize,
    );
    if let Some(timeout) = settings.timeout {
        line += &format!(", timeout {} s", timeout.as_secs());
    }
    line
}

#[cfg(test)]
mod tests {
    use rtftp_core::Packet;

    use super::*;

    #[test]
    fn events_are_one_line_each() {
        let server = "[::1]:6969".parse().expect("an address");
        let refused = std::io::Error::other("Connection refused");
        let data = Packet::Data { block: 1, payload: b"abc" };
        for (event, expected) in [
            (Event::Sent(server, b"\0\x04\0\x10"), "-> [::1]:6969 ACK 16"),
            (Event::Received(server, 7, Some(data)), "<- [::1]:6969 DATA 1, 3 bytes"),
            (Event::Stranger(server, b"\n"), "<- [::1]:6969 (not the server) no TFTP packet, 1 bytes"),
            (Event::Unreachable(server, &refused), "!! [::1]:6969 Connection refused"),
        ] {
            assert_eq!(line(event), expected);
        }
    }
}
