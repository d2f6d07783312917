//! Errors of a fetch over HTTP.

use std::{fmt, io, net::SocketAddr};

use rtftp_core::WriteFailed;

use crate::{client::address::ResolveError, text::printable};

/// The reason why a file could not be fetched over HTTP.
#[derive(Debug)]
#[non_exhaustive]
pub enum HttpError {
    /// The name of the server cannot be resolved.
    Resolve(ResolveError),
    /// The server's port is closed, or there is no route to the server.
    Unreachable {
        /// The address of the server.
        server: SocketAddr,
        /// The error of the network.
        error: io::Error,
    },
    /// The connection cannot be encrypted.
    Tls {
        /// The address of the server.
        server: SocketAddr,
        /// The error of TLS.
        error: io::Error,
        /// What to do.
        remedy: &'static str,
    },
    /// The client trusts no certificate.
    NoTrust,
    /// The server did not answer in time.
    NoAnswer {
        /// The address of the server.
        server: SocketAddr,
    },
    /// The server stopped sending.
    TimedOut {
        /// The address of the server.
        server: SocketAddr,
        /// The number of bytes received.
        bytes: u64,
    },
    /// The connection was closed before the end of the file, or before its start.
    Disconnected {
        /// The address of the server.
        server: SocketAddr,
        /// The number of bytes received; `None` if the server sent no answer.
        bytes: Option<u64>,
        /// The size that the server announced.
        size: Option<u64>,
        /// The error of the network; `None` if the server closed the connection.
        error: Option<io::Error>,
    },
    /// The server answered with another status than 200.
    Refused {
        /// The address of the server.
        server: SocketAddr,
        /// The code of the status.
        status: u16,
        /// The reason phrase, printable.
        reason: String,
        /// The URL to which a redirect leads, printable.
        location: Option<String>,
        /// The time after which the client may try again, printable.
        retry_after: Option<String>,
    },
    /// The server violated the protocol.
    ProtocolViolation {
        /// The address of the server.
        server: SocketAddr,
        /// The violation.
        problem: &'static str,
    },
    /// The sink failed.
    Sink(WriteFailed),
    /// The caller stopped the transfer.
    Interrupted,
}

impl fmt::Display for HttpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Resolve(error) => error.fmt(f),
            Self::Unreachable { server, error } if error.kind() == io::ErrorKind::ConnectionRefused => {
                write!(f, "{server}: port closed ({error}): is the server running with HTTP, and on this port?")
            }
            Self::Unreachable { server, error } => write!(f, "{server}: unreachable: {error}"),
            Self::Tls { server, error, remedy } => write!(f, "{server}: no connection with TLS: {error}: {remedy}"),
            Self::NoTrust => f.write_str("no certificate is trusted: https:// needs one of an authority"),
            Self::NoAnswer { server } => {
                write!(f, "{server}: no answer: check the address, the server's log, and that firewalls pass TCP")
            }
            Self::TimedOut { server, bytes } => {
                write!(f, "{server}: timed out after {bytes} bytes: check the server's log and the network")
            }
            Self::Disconnected { server, bytes, size, error } => {
                let because = error.as_ref().map(|error| format!(" ({error})")).unwrap_or_default();
                let of_size = size.map(|size| format!(" of {size}")).unwrap_or_default();
                match bytes {
                    Some(bytes) => write!(
                        f,
                        "{server}: connection closed after {bytes}{of_size} bytes{because}, before the end of the file: see \
                         the server's log"
                    ),
                    None => write!(
                        f,
                        "{server}: connection closed without an answer{because}: is this an HTTP server? see its log"
                    ),
                }
            }
            Self::Refused { server, status, reason, location, retry_after } => {
                write!(f, "{server}: {status} {reason}: ")?;
                match (status, location, retry_after) {
                    (300..400, Some(location), _) => {
                        write!(f, "redirected to {location}: fetch that URL; UEFI and GRUB do not follow redirects")
                    }
                    (404, ..) => {
                        f.write_str("check the path, and that the server has this file for this machine's address")
                    }
                    (400, ..) => f.write_str("does the server expect https:// in the URL? see its log"),
                    (403, ..) => f.write_str("the server may not serve this path: see its log"),
                    (503, _, Some(time)) => {
                        write!(
                            f,
                            "the file is not available now: try again after {time} (Retry-After), see the server's log"
                        )
                    }
                    (503, ..) => f.write_str("the file is not available now: try again, see the server's log"),
                    _ => f.write_str("see the server's log"),
                }
            }
            Self::ProtocolViolation { server, problem } => write!(f, "{server}: protocol violation: {problem}"),
            Self::Sink(failed) => write!(f, "cannot store the file: {failed}"),
            Self::Interrupted => f.write_str("interrupted"),
        }
    }
}

impl std::error::Error for HttpError {}

/// Returns the value of a header as one line of text.
pub(super) fn text(value: &[u8]) -> String {
    printable(value.trim_ascii())
}
