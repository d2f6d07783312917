//! Those who have no part in a transfer.

use std::{
    net::{SocketAddr, UdpSocket},
    time::Duration,
};

use rtftp_core::{Instant, Packet, wire::packet::ErrorCode};

use crate::clock;

/// How often strangers are answered, at most.
const STRANGER_PAUSE: Duration = Duration::from_millis(100);

/// Tells those who have no part in a transfer that they have none (RFC 1350 section 4), with a pause in between.
#[derive(Debug, Default)]
pub(crate) struct UnknownTidReplies {
    /// When the last one was told.
    told: Option<Instant>,
}

impl UnknownTidReplies {
    /// Answers a stranger's datagram, if the socket has room for that at once.
    pub(crate) fn refuse(&mut self, socket: &UdpSocket, stranger: SocketAddr, datagram: &[u8]) {
        let now = clock::now();
        // An ERROR, whole or not, is never answered with another one, or two programs could go on for ever.
        if datagram.starts_with(&[0, 5]) || self.told.is_some_and(|told| now.since(told) < STRANGER_PAUSE) {
            return;
        }
        self.told = Some(now);
        let mut buf = [0; 64];
        let error = Packet::Error { code: ErrorCode::UNKNOWN_TRANSFER_ID, message: b"unknown transfer ID" };
        if let Some(len) = error.write(&mut buf) {
            let _ = socket.send_to(&buf[..len], stranger);
        }
    }
}
