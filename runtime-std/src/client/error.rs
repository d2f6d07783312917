//! Errors of a fetch.

use std::{fmt, io, net::SocketAddr};

use rtftp_core::{
    WriteFailed,
    wire::{packet::ErrorCode, path::InvalidPath},
};

use super::{address::ResolveError, describe::describe_error};

/// The reason why a file could not be fetched.
#[derive(Debug)]
#[non_exhaustive]
pub enum FetchError {
    /// The name of the server cannot be resolved.
    Resolve(ResolveError),
    /// The path of the file does not fit into a request.
    InvalidPath(InvalidPath),
    /// No socket can be opened.
    Socket(io::Error),
    /// The server's port is closed, or there is no route to the server.
    Unreachable {
        /// The address for requests.
        server: SocketAddr,
        /// The error of the network.
        error: io::Error,
    },
    /// The server did not answer the request.
    NoAnswer {
        /// The address for requests.
        server: SocketAddr,
        /// The last unknown source that sent a datagram.
        unknown_source: Option<SocketAddr>,
        /// The last error of the network.
        error: Option<io::Error>,
    },
    /// The server closed its port during the transfer.
    PortClosed {
        /// The server's address for this transfer.
        server: SocketAddr,
        /// The number of bytes received.
        bytes: u64,
        /// The error of the network.
        error: io::Error,
    },
    /// The server stopped answering during the transfer.
    TimedOut {
        /// The server's address for this transfer.
        server: SocketAddr,
        /// The number of bytes received.
        bytes: u64,
        /// The last error of the network since the server's last packet.
        error: Option<io::Error>,
    },
    /// The server sent an ERROR.
    Refused {
        /// The server's address for this transfer.
        server: SocketAddr,
        /// The code.
        code: ErrorCode,
        /// The text, printable.
        text: String,
    },
    /// The server violated the protocol; the client sent it an ERROR.
    ProtocolViolation {
        /// The server's address for this transfer.
        server: SocketAddr,
        /// The number of bytes received.
        bytes: u64,
        /// The options of the OACK as text, if they are the violation.
        options: Option<String>,
    },
    /// The sink failed; the client sent the server an ERROR.
    Sink(WriteFailed),
    /// The caller stopped the transfer.
    Interrupted,
}

impl fmt::Display for FetchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Resolve(error) => error.fmt(f),
            Self::InvalidPath(error) => write!(f, "cannot request this file name: {error}"),
            Self::Socket(error) => write!(f, "cannot open a UDP socket: {error}"),
            Self::Unreachable { server, error } if error.kind() == io::ErrorKind::ConnectionRefused => {
                write!(f, "{server}: port closed ({error}): is the server running, and on this port?")
            }
            Self::Unreachable { server, error } => write!(f, "{server}: unreachable: {error}"),
            Self::NoAnswer { server, error: Some(error), .. } => write!(f, "{server}: no answer: {error}"),
            Self::NoAnswer { server, unknown_source: None, .. } => {
                write!(f, "{server}: no answer: check the address, and that firewalls pass UDP in both directions")
            }
            Self::NoAnswer { server, unknown_source: Some(source), .. } => {
                write!(f, "{server}: no answer, but one from {source}: if this is the same server, use that address")
            }
            Self::PortClosed { server, bytes, error } => {
                write!(f, "{server}: closed its port after {bytes} bytes ({error}): see the server's log")
            }
            Self::TimedOut { server, bytes, error: Some(error) } => {
                write!(f, "{server}: timed out after {bytes} bytes: {error}")
            }
            Self::TimedOut { server, bytes, error: None } => {
                write!(f, "{server}: timed out after {bytes} bytes: check the server's log and the network")
            }
            Self::Refused { server, code, text } => write!(f, "{server}: ERROR {}", describe_error(*code, text)),
            Self::ProtocolViolation { server, options: Some(options), .. } => {
                write!(f, "{server}: protocol violation: the OACK does not match the request ({options})")
            }
            Self::ProtocolViolation { server, bytes, options: None } => {
                write!(f, "{server}: protocol violation after {bytes} bytes: a block is larger than negotiated")
            }
            Self::Sink(failed) => write!(f, "cannot store the file: {failed}"),
            Self::Interrupted => f.write_str("interrupted"),
        }
    }
}

impl std::error::Error for FetchError {}
