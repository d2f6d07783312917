//! ERROR packets in reply to requests, and the mapping of file errors to TFTP error codes.

use std::io::ErrorKind;

use log::Level;
use rtftp_core::{
    Packet,
    wire::{packet::ErrorCode, path::InvalidPath},
};

use super::context::ServerContext;
use crate::{
    disk::DiskError,
    files::{OpenError, Origin},
    history::snapshot::State,
    net::{Route, send_reply},
};

/// An ERROR packet. Its text starts with that of RFC 1350 if the code has one: scripts look for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ErrorReply {
    code: ErrorCode,
    pub(super) message: &'static str,
}

impl ErrorReply {
    pub(super) fn new(code: ErrorCode, message: &'static str) -> Self {
        Self { code, message }
    }

    /// Sends the packet once, from the listening port: an ERROR is neither acknowledged nor retransmitted (RFC 1350 section 7), so it
    /// needs no port of its own.
    pub(super) fn send_to(self, context: &ServerContext, route: Route) {
        let mut buf = [0; 128];
        let error = Packet::Error { code: self.code, message: self.message.as_bytes() };
        let sent = error.write(&mut buf).map_or(Ok(()), |len| send_reply(&context.replies, route, &buf[..len]));
        if let Err(error) = sent {
            log::debug!("{}: ERROR not sent: {error}", route.client);
        }
    }
}

/// The rejection of a request: the ERROR reply, and the texts for the log and the history.
#[derive(Debug)]
pub(super) struct Rejection {
    pub(super) reply: ErrorReply,
    /// The root that the file was looked for in last, if that is known.
    pub(super) origin: Option<Origin>,
    pub(super) level: Level,
    /// The text of the log line.
    pub(super) log_text: String,
    pub(super) state: State,
    /// The reason in the history.
    pub(super) reason: Option<String>,
}

impl Rejection {
    fn refused(reply: ErrorReply, reason: String) -> Self {
        let (level, log_text) = (Level::Info, reason.clone());
        Self { reply, origin: None, level, log_text, state: State::Refused, reason: Some(reason) }
    }

    /// Rejects a transfer mode other than octet and netascii.
    pub(super) fn unsupported_mode() -> Self {
        let reply = ErrorReply::new(ErrorCode::NOT_DEFINED, "only octet and netascii mode are served");
        Self::refused(reply, "the mode is neither octet nor netascii".into())
    }

    /// Rejects a file name that is not a path below a root.
    pub(super) fn invalid_path(error: InvalidPath) -> Self {
        Self::refused(ACCESS_VIOLATION, error.to_string())
    }

    /// Maps an error of the file store. The client receives a short text without paths and addresses of the server.
    pub(super) fn from_open_error(error: &OpenError) -> Self {
        let refused = |reply| Self::refused(reply, error.to_string());
        let failed = |message| Self {
            state: State::Failed,
            level: Level::Error,
            ..refused(ErrorReply::new(ErrorCode::NOT_DEFINED, message))
        };
        let rejection = match error {
            OpenError::NotFound { .. } => {
                let reply = ErrorReply::new(ErrorCode::FILE_NOT_FOUND, "File not found");
                Self { state: State::Missing, ..refused(reply) }
            }
            OpenError::Forbidden { .. } => refused(ACCESS_VIOLATION),
            // Logged once for all files of the directory.
            OpenError::RootDirectory { error, .. } | OpenError::Local { error, .. }
                if error.kind() == ErrorKind::TimedOut =>
            {
                Self { level: Level::Info, ..failed("the server's file system does not answer") }
            }
            OpenError::RootDirectory { .. } => failed("the server cannot read its directory"),
            OpenError::LinkAddress(_) => failed("the server cannot tell who you are"),
            OpenError::Local { .. } => failed("the file cannot be read"),
            OpenError::Disk { error: error @ DiskError::NoValue(_), .. } => {
                Self { level: Level::Warn, ..failed(error.to_client()) }
            }
            OpenError::Disk { error, .. } => {
                // The disk has logged the error with its reason.
                let message = error.to_client();
                Self { level: Level::Info, log_text: message.into(), ..failed(message) }
            }
        };
        Self { origin: error.origin(), ..rejection }
    }
}

const ACCESS_VIOLATION: ErrorReply = ErrorReply { code: ErrorCode::ACCESS_VIOLATION, message: "Access violation" };

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::{client_name::ClientName, disk::NbdFile};

    fn reply(error: &OpenError) -> (u16, &'static str) {
        let ErrorReply { code, message } = Rejection::from_open_error(error).reply;
        (code.0, message)
    }

    #[test]
    fn maps_file_errors_to_tftp_codes() {
        let origin = Origin::Disk(NbdFile::Client(ClientName::Ip([10, 0, 0, 5].into())));
        let io_error = || io::Error::from(io::ErrorKind::PermissionDenied);
        let disk_error = || DiskError::InvalidDescription("line 2: expected a string".into());
        for (error, expected, level, state) in [
            (OpenError::NotFound { searched: vec![] }, (1, "File not found"), Level::Info, State::Missing),
            (
                OpenError::Forbidden { origin, reason: "a FIFO".into() },
                (2, "Access violation"),
                Level::Info,
                State::Refused,
            ),
            (
                OpenError::RootDirectory { path: "/srv".into(), error: io_error() },
                (0, "the server cannot read its directory"),
                Level::Error,
                State::Failed,
            ),
            (
                OpenError::LinkAddress(io_error()),
                (0, "the server cannot tell who you are"),
                Level::Error,
                State::Failed,
            ),
            (
                OpenError::Local { origin, error: io_error() },
                (0, "the file cannot be read"),
                Level::Error,
                State::Failed,
            ),
            (
                OpenError::Disk { origin, error: disk_error() },
                (0, "the description of this client's disk is not valid"),
                Level::Info,
                State::Failed,
            ),
        ] {
            assert_eq!(reply(&error), expected);
            let rejection = Rejection::from_open_error(&error);
            assert_eq!((rejection.level, rejection.state, rejection.origin), (level, state, error.origin()));
        }
        let rejection = Rejection::from_open_error(&OpenError::Disk { origin, error: disk_error() });
        assert_eq!(rejection.reason.as_deref(), Some("line 2: expected a string"));
    }
}
