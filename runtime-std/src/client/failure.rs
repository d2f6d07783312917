//! Why a file could not be fetched, in words for the one who wants it.

use std::{fmt, io, net::SocketAddr};

use rtftp_core::{
    WriteFailed,
    wire::{packet::ErrorCode, path::InvalidPath},
};

use super::words;

/// Why a file could not be fetched.
#[derive(Debug)]
pub enum FetchError {
    /// The server's name leads to no address.
    Host {
        /// The name as it was given.
        host: String,
        /// What the resolver says.
        error: io::Error,
    },
    /// The file's name does not fit into a request.
    Name(InvalidPath),
    /// This machine gives no socket.
    Socket(io::Error),
    /// Nobody listens there, or no way leads there.
    Unreachable {
        /// Where the request was sent.
        server: SocketAddr,
        /// What the network says.
        error: io::Error,
    },
    /// Nothing came back.
    NoAnswer {
        /// Where the request was sent.
        server: SocketAddr,
        /// Who answered from another address.
        stranger: Option<SocketAddr>,
    },
    /// The server stopped listening in the middle of the transfer.
    Gone {
        /// The server's port for this transfer.
        server: SocketAddr,
        /// How much of the file came before.
        bytes: u64,
        /// What the network says.
        error: io::Error,
    },
    /// The server stopped answering in the middle of the transfer.
    Silent {
        /// The server's port for this transfer.
        server: SocketAddr,
        /// How much of the file came before.
        bytes: u64,
    },
    /// The server sent an ERROR.
    Refused {
        /// Where it was asked.
        server: SocketAddr,
        /// The code.
        code: ErrorCode,
        /// The text, printable.
        text: String,
    },
    /// The server did what it may not do, and was told so.
    Broken {
        /// The server's port for this transfer.
        server: SocketAddr,
        /// How much of the file came before.
        bytes: u64,
        /// The options of its OACK in words, if they are what is wrong.
        options: Option<String>,
    },
    /// The sink did not take the file, and the server was told so.
    Sink(WriteFailed),
    /// The word to stop came first.
    Interrupted,
}

impl fmt::Display for FetchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host { host, error } => write!(f, "no address of the server `{}`: {error}", host.escape_debug()),
            Self::Name(invalid) => write!(f, "the name of the file cannot be asked for: {invalid}"),
            Self::Socket(error) => write!(f, "no UDP socket: {error}"),
            Self::Unreachable { server, error } if error.kind() == io::ErrorKind::ConnectionRefused => {
                write!(f, "nobody listens on {server} ({error}): is the server running, and on this port?")
            }
            Self::Unreachable { server, error } => write!(f, "{server} cannot be reached: {error}"),
            Self::NoAnswer { server, stranger: None } => {
                write!(
                    f,
                    "no answer from {server}: is the address right, and does a firewall let UDP through both ways?"
                )
            }
            Self::NoAnswer { server, stranger: Some(stranger) } => write!(
                f,
                "no answer from {server}, but one from {stranger}: if that is the same machine, ask it at that address"
            ),
            Self::Gone { server, bytes, error } => {
                write!(f, "{server} went away after {bytes} bytes ({error}): see the server's log")
            }
            Self::Silent { server, bytes } => {
                write!(f, "{server} fell silent after {bytes} bytes: see the server's log and the network between")
            }
            Self::Refused { server, code, text } => {
                write!(f, "{server} refuses: ERROR {}", words::error(*code, text))
            }
            Self::Broken { server, options: Some(options), .. } => {
                write!(f, "{server} broke the rules: it answered with options that were not asked for so ({options})")
            }
            Self::Broken { server, bytes, options: None } => {
                write!(f, "{server} broke the rules after {bytes} bytes: it sent a longer block than agreed on")
            }
            Self::Sink(failed) => write!(f, "the file cannot be stored: {failed}"),
            Self::Interrupted => f.write_str("interrupted"),
        }
    }
}

impl std::error::Error for FetchError {}
