//! The client: fetches a file with the receiver of `rtftp-core`, a socket and a clock; and over HTTP, in [`http`].

mod address;
mod describe;
mod error;
pub mod http;
mod socket;
mod url;

use std::{io, net::SocketAddr, pin::pin, time::Duration};

use rtftp_core::{
    BlockSink, Outcome, Output, Packet, Receiver, ReceiverConfig,
    transfer::receiver::MAX_REQUEST,
    wire::{
        options::{RequestedOptions, Settings},
        packet::ErrorCode,
    },
};
use smol::{Timer, future::or};

pub use self::{
    address::{ResolveError, TFTP_PORT, resolve},
    describe::{describe, describe_packet},
    error::FetchError,
    url::{InvalidUrl, Url},
};
use self::{
    describe::describe_options,
    socket::{Received, TransferSocket},
};
use crate::{clock, text::printable};

/// The size of the receive buffer: the largest datagram, or several smaller ones that the kernel returns together.
const RECEIVE_BUFFER: usize = 65_536;

/// The number of consecutive errors of the network after which the server counts as unreachable. A single one may come from a
/// server that is being started.
const MAX_UNREACHABLE: u32 = 2;

/// The file to fetch, and how.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The address for requests; the server answers from a port of its choice, its TID.
    pub server: SocketAddr,
    /// The path of the file on the server.
    pub file: &'a [u8],
    /// The options to request.
    pub options: RequestedOptions,
    /// The time without a new block after which the client gives up.
    pub patience: Duration,
}

/// A fetched file.
#[derive(Debug, Clone, Copy)]
pub struct Fetched {
    /// The size in bytes.
    pub bytes: u64,
    /// The size that the server announced.
    pub size: Option<u64>,
    /// The negotiated settings.
    pub settings: Settings,
    /// The number of packets that the client has retransmitted.
    pub retransmitted: u64,
}

/// An event on the network.
#[derive(Debug, Clone, Copy)]
pub enum Event<'a> {
    /// A datagram was sent to the server.
    Sent(SocketAddr, &'a [u8]),
    /// A datagram of this length came from the server: a packet, or `None` if it is not one.
    Received(SocketAddr, usize, Option<Packet<'a>>),
    /// A datagram came from an unknown source.
    UnknownSource(SocketAddr, &'a [u8]),
    /// The kernel reports that the server is unreachable.
    Unreachable(SocketAddr, &'a io::Error),
}

/// The end of a wait.
enum Wake {
    Datagrams(io::Result<Received>),
    Timeout,
    Stop,
}

/// Fetches a file into `sink`. If `stop` completes first, the transfer is aborted with an ERROR to the server.
///
/// `watch` is called after each event, with the current state of the receiver.
///
/// Returns when the file is complete and the last ACK is sent. If that ACK is lost, the server repeats the last block without an
/// answer: RFC 1350 section 6 permits this, and the user need not wait.
///
/// # Errors
///
/// Returns [`FetchError`]; the sink then contains at most a part of the file.
pub async fn fetch(
    request: &Request<'_>,
    sink: &mut impl BlockSink,
    stop: impl Future<Output = ()>,
    mut watch: impl FnMut(&Receiver, Event<'_>),
) -> Result<Fetched, FetchError> {
    let config =
        ReceiverConfig { options: request.options, patience: request.patience, dally: 0, ..ReceiverConfig::default() };
    let mut receiver = Receiver::new(clock::now(), request.file, config).map_err(FetchError::InvalidPath)?;
    let mut socket = TransferSocket::open(request.server).map_err(FetchError::Socket)?;
    let mut details = Details::default();
    let mut stop = pin!(stop);
    let mut packet = [0; MAX_REQUEST];
    let mut received = vec![0; RECEIVE_BUFFER];
    loop {
        let deadline = match receiver.poll(clock::now(), &mut packet) {
            Output::Transmit(transmit) => {
                let datagram = &packet[..transmit.len];
                let sent = socket.send(datagram).await;
                watch(&receiver, Event::Sent(socket.server(), datagram));
                if let Err(error) = sent {
                    handle_error(&mut socket, &receiver, error, &mut details, &mut watch)?;
                }
                continue;
            }
            Output::Finished(outcome) => return details.result(outcome, &receiver, &socket),
            Output::Wait(until) => until,
            // Only a sender needs data.
            Output::NeedData => clock::now(),
        };
        let datagrams = async { Wake::Datagrams(socket.receive(&mut received).await) };
        let stopped = async {
            stop.as_mut().await;
            Wake::Stop
        };
        let timeout = async {
            Timer::at(clock::to_std(deadline)).await;
            Wake::Timeout
        };
        match or(or(datagrams, stopped), timeout).await {
            Wake::Datagrams(Ok(batch)) => {
                for datagram in received[..batch.len].chunks(batch.segment) {
                    if !socket.accepts(batch.source) {
                        details.unknown_source = Some(batch.source);
                        socket.reject(batch.source, datagram);
                        watch(&receiver, Event::UnknownSource(batch.source, datagram));
                        continue;
                    }
                    let packet = Packet::parse(datagram).ok();
                    if let Some(packet) = packet {
                        details.note(&receiver, packet);
                        socket.handle(&mut receiver, batch.source, packet, sink);
                    }
                    watch(&receiver, Event::Received(batch.source, datagram.len(), packet));
                }
            }
            Wake::Datagrams(Err(error)) => handle_error(&mut socket, &receiver, error, &mut details, &mut watch)?,
            Wake::Timeout => {}
            Wake::Stop => receiver.abort("interrupted"),
        }
    }
}

/// Handles an error of the socket. Fails after [`MAX_UNREACHABLE`] consecutive errors that concern the server, unless the network
/// may only be interrupted.
fn handle_error(
    socket: &mut TransferSocket,
    receiver: &Receiver,
    error: io::Error,
    details: &mut Details,
    watch: &mut impl FnMut(&Receiver, Event<'_>),
) -> Result<(), FetchError> {
    if !socket.error_concerns_server() {
        return Ok(());
    }
    watch(receiver, Event::Unreachable(socket.server(), &error));
    if may_be_interruption(&error, socket.has_sent(), receiver.has_peer()) {
        details.interruption = Some(error);
        return Ok(());
    }
    if socket.count_unreachable() < MAX_UNREACHABLE {
        return Ok(());
    }
    let server = socket.server();
    Err(if receiver.has_peer() {
        FetchError::PortClosed { server, bytes: receiver.delivered(), error }
    } else {
        FetchError::Unreachable { server, error }
    })
}

/// Returns whether an error may be a short interruption of a network that has worked: a link that is down, a route that is missing.
/// A host that never answered is not on the network at all.
fn may_be_interruption(error: &io::Error, has_sent: bool, has_peer: bool) -> bool {
    match error.kind() {
        io::ErrorKind::NetworkUnreachable | io::ErrorKind::NetworkDown => has_sent,
        io::ErrorKind::HostUnreachable => has_peer,
        _ => false,
    }
}

/// Details for error messages that the receiver does not keep.
#[derive(Debug, Default)]
struct Details {
    /// The options of the OACK as text.
    oack: Option<String>,
    /// The text of the server's ERROR, printable.
    error: String,
    /// The last unknown source that sent a datagram.
    unknown_source: Option<SocketAddr>,
    /// The error of the network since the server's last packet.
    interruption: Option<io::Error>,
}

impl Details {
    /// Keeps the details of a packet that the receiver has not handled yet.
    fn note(&mut self, receiver: &Receiver, packet: Packet<'_>) {
        self.interruption = None;
        match packet {
            Packet::OptionAck(options) if !receiver.has_peer() => self.oack = Some(describe_options(options)),
            Packet::Error { message, .. } => self.error = printable(message),
            _ => {}
        }
    }

    /// Converts the outcome of a transfer.
    fn result(self, outcome: Outcome, receiver: &Receiver, socket: &TransferSocket) -> Result<Fetched, FetchError> {
        let (server, bytes) = (socket.server(), receiver.delivered());
        Err(match outcome {
            Outcome::Complete => {
                return Ok(Fetched {
                    bytes,
                    size: receiver.size(),
                    settings: receiver.settings(),
                    retransmitted: receiver.retransmitted(),
                });
            }
            Outcome::PeerError(code) => FetchError::Refused { server, code, text: self.error },
            Outcome::Refused(ErrorCode::OPTIONS_REFUSED) => {
                FetchError::ProtocolViolation { server, bytes, options: self.oack }
            }
            Outcome::Refused(_) => FetchError::ProtocolViolation { server, bytes, options: None },
            Outcome::WriteFailed(failed) => FetchError::Sink(failed),
            Outcome::TimedOut if receiver.has_peer() => {
                FetchError::TimedOut { server, bytes, error: self.interruption }
            }
            Outcome::TimedOut => {
                FetchError::NoAnswer { server, unknown_source: self.unknown_source, error: self.interruption }
            }
            // `Probed` and `ReadFailed` are outcomes of a sender.
            Outcome::Aborted
            | Outcome::Probed
            | Outcome::ReadFailed(_)
            | Outcome::FirstBlockLost { .. }
            | Outcome::PortClosed => FetchError::Interrupted,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_network_that_has_worked_can_be_interrupted() {
        use io::ErrorKind::{ConnectionRefused, HostUnreachable, NetworkDown, NetworkUnreachable};
        for (kind, has_sent, has_peer, expected) in [
            (NetworkUnreachable, false, false, false),
            (NetworkUnreachable, true, false, true),
            (NetworkDown, true, true, true),
            (HostUnreachable, true, false, false),
            (HostUnreachable, true, true, true),
            (ConnectionRefused, true, true, false),
        ] {
            assert_eq!(may_be_interruption(&kind.into(), has_sent, has_peer), expected, "{kind:?}");
        }
    }
}
