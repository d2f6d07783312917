//! The output for the user: the trace of packets, the progress line and the summary.

use std::{
    io::{IsTerminal, Write, stderr},
    net::SocketAddr,
    time::{Duration, Instant},
};

use rtftp_core::Receiver;
use rtftp_runtime::{
    client::{Event, describe, describe_packet, http::HttpEvent},
    text::printable,
};

use crate::{cli::Job, progress::Progress, progress_bar::megabytes};

/// Reports the events of a transfer.
#[derive(Debug)]
pub(crate) struct Report {
    started: Instant,
    trace: bool,
    progress: Option<Progress>,
    /// The number of bytes that were received over HTTP.
    http_bytes: u64,
}

impl Report {
    /// Starts the clock. The progress line needs a terminal and excludes a trace.
    pub(crate) fn new(job: &Job) -> Self {
        let has_progress = !job.quiet && !job.trace && stderr().is_terminal();
        Self { started: Instant::now(), trace: job.trace, progress: has_progress.then(Progress::new), http_bytes: 0 }
    }

    /// Returns the time since the start.
    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Reports an event of TFTP.
    pub(crate) fn event(&mut self, receiver: &Receiver, event: Event<'_>) {
        if self.trace {
            self.print_traced(&trace_line(event));
        }
        if let Some(progress) = &mut self.progress {
            progress.show(receiver.delivered(), receiver.size());
        }
    }

    /// Reports an event of HTTP.
    pub(crate) fn http_event(&mut self, event: HttpEvent<'_>) {
        if self.trace {
            http_trace_lines(event, self.http_bytes).iter().for_each(|line| self.print_traced(line));
        }
        if let HttpEvent::Progress { bytes, size, .. } = event {
            self.http_bytes = bytes;
            if let Some(progress) = &mut self.progress {
                progress.show(bytes, size);
            }
        }
    }

    fn print_traced(&self, line: &str) {
        print_line(&format!("{:10.6} {line}", self.started.elapsed().as_secs_f64()));
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

/// Describes an event over HTTP: direction, address, and each line of a head.
fn http_trace_lines(event: HttpEvent<'_>, progress: u64) -> Vec<String> {
    let lines = |direction: &str, server: SocketAddr, head: &[u8]| {
        let lines = head.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii_end).filter(|line| !line.is_empty());
        lines.map(|line| format!("{direction} {server} {}", printable(line))).collect()
    };
    match event {
        HttpEvent::Connected(server) => vec![format!("-> {server} connected")],
        HttpEvent::Encrypted(server, version) => vec![format!("-> {server} encrypted with TLS {version}")],
        HttpEvent::Reused(server) => vec![format!("-> {server} connection used again")],
        HttpEvent::Sent(server, head) => lines("->", server, head),
        HttpEvent::Received(server, head) => lines("<-", server, head),
        HttpEvent::Progress { server, bytes, .. } if progress == 0 => {
            vec![format!("<- {server} body begins, {bytes} bytes")]
        }
        HttpEvent::Progress { .. } => vec![],
        HttpEvent::Complete(server, bytes) => vec![format!("<- {server} body ends, {bytes} bytes in all")],
    }
}

/// A fetched file.
#[derive(Debug)]
pub(crate) struct Summary {
    /// Its name, printable.
    pub(crate) file: String,
    /// Its size.
    pub(crate) bytes: u64,
    /// How it was transferred.
    pub(crate) details: String,
    pub(crate) warnings: Vec<String>,
}

impl Summary {
    /// Returns a line about the file.
    pub(crate) fn line(&self, elapsed: Duration) -> String {
        let Self { file, bytes, details, .. } = self;
        let seconds = elapsed.as_secs_f64();
        let rate = megabytes(*bytes as f64 / seconds.max(1e-6));
        format!("{file}: {bytes} bytes in {seconds:.3} s, {rate:.1} MB/s, {details}")
    }
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

    #[test]
    fn traces_each_line_of_a_head() {
        let server = "[::1]:80".parse().expect("an address");
        let head = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nServer: \x1b[2J\r\n\r\n";
        let lines = ["HTTP/1.1 200 OK", "Content-Length: 5", r"Server: \u{1b}[2J"];
        assert_eq!(
            http_trace_lines(HttpEvent::Received(server, head), 0),
            lines.map(|line| format!("<- [::1]:80 {line}"))
        );
        let progress = HttpEvent::Progress { server, bytes: 3, size: None };
        assert_eq!(http_trace_lines(progress, 0), ["<- [::1]:80 body begins, 3 bytes"]);
        assert_eq!(http_trace_lines(progress, 1), [""; 0]);
    }
}
