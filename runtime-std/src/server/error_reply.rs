//! ERROR packets in reply to requests, and the mapping of file errors to TFTP error codes.

use log::Level;
use rtftp_core::{
    Packet,
    wire::{packet::ErrorCode, path::InvalidPath},
};

use super::context::ServerContext;
use crate::{
    error::OpenError,
    files::store::Origin,
    history::snapshot::State,
    net::{Route, TransferSocket},
};

/// An ERROR packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ErrorReply {
    code: ErrorCode,
    pub(super) message: &'static str,
}

impl ErrorReply {
    pub(super) fn new(code: ErrorCode, message: &'static str) -> Self {
        Self { code, message }
    }

    /// Sends the packet once: an ERROR is neither acknowledged nor retransmitted (RFC 1350 section 7).
    pub(super) fn send(self, socket: &mut TransferSocket) {
        let mut buf = [0; 128];
        let error = Packet::Error { code: self.code, message: self.message.as_bytes() };
        if let Some(len) = error.write(&mut buf) {
            socket.send(&buf[..len], len);
        }
    }

    /// Sends the packet to a client without a session.
    pub(super) fn send_to(self, context: &ServerContext, route: Route) {
        match TransferSocket::open(&context.ports, route) {
            Ok(mut socket) => self.send(&mut socket),
            Err(error) => context.unverified_log.log(Level::Error, format_args!("{}: {error}", route.client)),
        }
    }
}

/// A request that is answered with an ERROR, and what the log and the history say about it.
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

    /// Maps an error of the file store.
    pub(super) fn from_open_error(error: OpenError, origin: Option<Origin>) -> Self {
        let rejection = match error {
            OpenError::NotFound => {
                let reply = ErrorReply::new(ErrorCode::FILE_NOT_FOUND, "file not found");
                Self { state: State::Missing, reason: None, ..Self::refused(reply, error.to_string()) }
            }
            OpenError::Forbidden(_) => Self::refused(ACCESS_VIOLATION, error.to_string()),
            OpenError::Unavailable(unavailable) => {
                let reply = ErrorReply::new(ErrorCode::NOT_DEFINED, unavailable.to_client);
                // The disk has logged its error already, with the reason.
                let is_logged = matches!(origin, Some(Origin::Disk(_)));
                let log_text = if is_logged { unavailable.to_client.into() } else { unavailable.reason.clone() };
                let level = if is_logged { Level::Info } else { Level::Error };
                Self { level, log_text, state: State::Failed, ..Self::refused(reply, unavailable.reason) }
            }
        };
        Self { origin, ..rejection }
    }
}

const ACCESS_VIOLATION: ErrorReply = ErrorReply { code: ErrorCode::ACCESS_VIOLATION, message: "access violation" };

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{client_name::ClientName, error::Unavailable};

    #[test]
    fn maps_file_errors_to_tftp_codes() {
        let disk = Some(Origin::Disk(ClientName::Ip([10, 0, 0, 5].into())));
        let unavailable = || Unavailable { to_client: "disk down", reason: "10.0.0.5: refused".into() };
        for (error, origin, reply, level, state) in [
            (OpenError::NotFound, None, (1, "file not found"), Level::Info, State::Missing),
            (OpenError::Forbidden("a FIFO".into()), None, (2, "access violation"), Level::Info, State::Refused),
            (unavailable().into(), disk, (0, "disk down"), Level::Info, State::Failed),
            (unavailable().into(), None, (0, "disk down"), Level::Error, State::Failed),
        ] {
            let rejection = Rejection::from_open_error(error, origin);
            let ErrorReply { code, message } = rejection.reply;
            assert_eq!((code.0, message), reply);
            assert_eq!((rejection.level, rejection.state, rejection.origin), (level, state, origin));
        }
        let rejection = Rejection::from_open_error(unavailable().into(), disk);
        assert_eq!((&*rejection.log_text, rejection.reason.as_deref()), ("disk down", Some("10.0.0.5: refused")));
    }
}
