//! The output for the user: the trace of packets, the progress line and the summary.

use std::{
    io::{IsTerminal, Write, stderr},
    time::{Duration, Instant},
};

use rtftp_core::Receiver;
use rtftp_runtime::{
    client::{Event, Fetched, describe, describe_packet},
    text::printable,
};

use crate::{cli::Job, progress::Progress, progress_bar::megabytes};

/// Reports the events of a transfer.
#[derive(Debug)]
pub(crate) struct Report {
    started: Instant,
    trace: bool,
    progress: Option<Progress>,
}

impl Report {
    /// Starts the clock. The progress line needs a terminal and excludes a trace.
    pub(crate) fn new(job: &Job) -> Self {
        let has_progress = !job.quiet && !job.trace && stderr().is_terminal();
        Self { started: Instant::now(), trace: job.trace, progress: has_progress.then(Progress::new) }
    }

    /// Reports an event.
    pub(crate) fn event(&mut self, receiver: &Receiver, event: Event<'_>) {
        if self.trace {
            print_line(&format!("{:10.6} {}", self.started.elapsed().as_secs_f64(), trace_line(event)));
        }
        if let Some(progress) = &mut self.progress {
            progress.show(receiver.delivered(), receiver.size());
        }
    }
}

/// Prints a line on standard error. A closed standard error does not end the transfer.
pub(crate) fn print_line(line: &str) {
    let _ = writeln!(stderr(), "{line}");
}

/// Describes an event: direction, address and packet.
fn trace_line(event: Event<'_>) -> String {
    match event {
        Event::Sent(to, datagram) => format!("-> {to} {}", describe(datagram)),
        Event::Received(from, len, packet) => format!("<- {from} {}", describe_packet(len, packet)),
        Event::UnknownSource(from, datagram) => format!("<- {from} (not the server) {}", describe(datagram)),
        Event::Unreachable(server, error) => format!("!! {server} {error}"),
    }
}

/// Returns a line about a fetched file.
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
    fn traces_each_event_in_one_line() {
        let server = "[::1]:6969".parse().expect("an address");
        let refused = std::io::Error::other("Connection refused");
        let data = Packet::Data { block: 1, payload: b"abc" };
        for (event, expected) in [
            (Event::Sent(server, b"\0\x04\0\x10"), "-> [::1]:6969 ACK 16"),
            (Event::Received(server, 7, Some(data)), "<- [::1]:6969 DATA 1, 3 bytes"),
            (Event::UnknownSource(server, b"\n"), "<- [::1]:6969 (not the server) not a TFTP packet, 1 bytes"),
            (Event::Unreachable(server, &refused), "!! [::1]:6969 Connection refused"),
        ] {
            assert_eq!(trace_line(event), expected);
        }
    }
}
