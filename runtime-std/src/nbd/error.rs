//! Errors of the NBD client.

use std::{error, fmt, io, sync::Arc, time::Duration};

use super::TlsError;
use crate::fs;

/// The reason why an NBD server, an export or a part of it cannot be read.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum NbdError {
    /// Connecting, sending or receiving failed.
    Io(Arc<io::Error>),
    /// The server did not reply in time.
    Timeout(Duration),
    /// The server accepted the connection and did not send its greeting in time.
    NoGreeting(Duration),
    /// The server accepted the connection and closed it before its greeting.
    ClosedBeforeGreeting,
    /// The server closed the connection.
    Closed,
    /// The peer did not send the greeting of an NBD server.
    NotNbd,
    /// The server only supports the oldstyle handshake.
    OldstyleHandshake,
    /// The server does not support the fixed newstyle handshake.
    NoFixedNewstyle,
    /// The server requires TLS, and the URI does not ask for it.
    TlsRequired,
    /// The connection cannot be encrypted, or a side rejects the other one.
    Tls(Arc<TlsError>),
    /// The server has no export of this name.
    UnknownExport(String),
    /// The server refused to open an export.
    ExportRefused {
        /// The name of the export.
        export: String,
        /// The type of the error reply (`NBD_REP_ERR_*`).
        code: u32,
        /// The server's explanation as one short line; may be empty.
        text: String,
    },
    /// The server closed the connection in reply to `NBD_OPT_EXPORT_NAME`, which has no error reply.
    ExportClosed(String),
    /// The server did not send the size of an export.
    MissingSize(String),
    /// The size of an export is zero or above `i64::MAX` bytes.
    InvalidSize {
        /// The name of the export.
        export: String,
        /// The size in bytes.
        size: u64,
    },
    /// The block sizes of an export cannot be used.
    InvalidBlockSize {
        /// The minimum block size in bytes.
        min: u32,
        /// The preferred block size in bytes.
        preferred: u32,
        /// The maximum payload in bytes.
        max: u32,
    },
    /// The server sent a message that is invalid, or invalid at this point.
    InvalidReply,
    /// The server sent a structured reply, which was not negotiated.
    UnexpectedStructuredReply,
    /// The server sent data that was not requested, or sent it twice.
    UnrequestedData,
    /// The server ended a reply before it was complete.
    IncompleteReply,
    /// The chunks of a structured reply are too many, or leave too many gaps.
    TooManyChunks,
    /// The server replied to a read request with an error.
    Read {
        /// The offset of the read in bytes.
        offset: u64,
        /// The length of the read in bytes.
        len: u32,
        /// The error number, one of Linux.
        errno: u32,
        /// The server's explanation as one short line; may be empty.
        text: String,
    },
    /// A read exceeds the end of the export.
    OutOfRange,
    /// The connection was lost, for the reason that follows.
    ConnectionLost(Arc<Self>),
    /// The client is shutting down.
    ShuttingDown,
}

impl From<io::Error> for NbdError {
    fn from(error: io::Error) -> Self {
        match error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>()) {
            Some(error) => TlsError::from(error).into(),
            None => Self::Io(error.into()),
        }
    }
}

impl From<TlsError> for NbdError {
    fn from(error: TlsError) -> Self {
        Self::Tls(error.into())
    }
}

impl From<NbdError> for fs::Error {
    fn from(error: NbdError) -> Self {
        Self::Io(error.to_string())
    }
}

impl error::Error for NbdError {}

impl fmt::Display for NbdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::Timeout(limit) => write!(f, "no reply within {} s", limit.as_secs_f64()),
            Self::NoGreeting(limit) => write!(
                f,
                "no greeting within {} s: the server hangs, or it serves one connection at a time, and another client has it \
                 (qemu-nbd: --shared=0)",
                limit.as_secs_f64()
            ),
            Self::ClosedBeforeGreeting => f.write_str(
                "the server closed the connection before its greeting: it does not allow this client, or it serves one connection \
                 at a time, and another client has it (qemu-nbd: --shared=0)",
            ),
            Self::Closed => f.write_str("the server closed the connection"),
            Self::NotNbd => f.write_str("not an NBD server"),
            Self::OldstyleHandshake => {
                f.write_str("the server uses the oldstyle NBD handshake, which is not supported")
            }
            Self::NoFixedNewstyle => f.write_str("the server does not support the fixed newstyle NBD handshake"),
            Self::TlsRequired => {
                f.write_str("the server requires TLS: use nbds:// instead of nbd://, or nbds+unix:// instead of nbd+unix://")
            }
            Self::Tls(error) => error.fmt(f),
            Self::UnknownExport(export) => write!(f, "the server has no export {export:?}"),
            Self::ExportRefused { export, code, text } => {
                write!(f, "the server refused the export {export:?} (error {code:#x}){}", Suffix(text))
            }
            Self::ExportClosed(export) => {
                write!(f, "the server closed the connection when asked for the export {export:?}")
            }
            Self::MissingSize(export) => write!(f, "the server did not send the size of the export {export:?}"),
            Self::InvalidSize { export, size: 0 } => write!(f, "the export {export:?} is empty"),
            Self::InvalidSize { export, size } => {
                write!(f, "the export {export:?} has an invalid size of {size} bytes")
            }
            Self::InvalidBlockSize { min, preferred, max } => write!(
                f,
                "the server has invalid block sizes: minimum {min}, preferred {preferred}, maximum {max} bytes"
            ),
            Self::InvalidReply => f.write_str("the server sent an invalid NBD reply"),
            Self::UnexpectedStructuredReply => {
                f.write_str("the server sent a structured reply, which was not negotiated")
            }
            Self::UnrequestedData => f.write_str("the server sent data that was not requested"),
            Self::IncompleteReply => f.write_str("the server sent an incomplete reply"),
            Self::TooManyChunks => f.write_str("the server sent a reply in too many chunks"),
            Self::Read { offset, len, errno, text } => {
                // The protocol's error numbers are those of Linux.
                let error = io::Error::from_raw_os_error(i32::try_from(*errno).unwrap_or(i32::MAX));
                write!(f, "the NBD server cannot read {len} bytes at offset {offset}: {error}{}", Suffix(text))
            }
            Self::OutOfRange => f.write_str("read beyond the end of the disk"),
            Self::ConnectionLost(reason) => write!(f, "lost the connection to the NBD server: {reason}"),
            Self::ShuttingDown => f.write_str("rtftp is shutting down"),
        }
    }
}

/// The server's explanation, after a colon; nothing if it is empty.
struct Suffix<'a>(&'a str);

impl fmt::Display for Suffix<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, ": {}", self.0) }
    }
}
