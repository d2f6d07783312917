//! The client's end of a transfer: the core's receiver, driven by a socket, a sink and the clock.

mod address;
mod failure;
mod port;
mod words;

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
    address::resolve,
    failure::FetchError,
    words::{describe, describe_packet},
};
use self::{port::Port, words::pairs};
use crate::{clock, text::printable};

/// Room for the largest datagram, and for as many smaller ones as the kernel hands over at once.
const RECEIVE_BUFFER: usize = 65_536;

/// What is wanted, and from whom.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Where requests go; the server answers from a port of its own choice, its TID.
    pub server: SocketAddr,
    /// The name of the file, as the server calls it.
    pub file: &'a [u8],
    /// The options to request.
    pub options: RequestedOptions,
    /// The time without a new block after which the client gives up.
    pub patience: Duration,
}

/// A file that was fetched.
#[derive(Debug, Clone, Copy)]
pub struct Fetched {
    /// How long it is.
    pub bytes: u64,
    /// How long it is by the server's own account, if the server gave one.
    pub size: Option<u64>,
    /// What client and server agreed on.
    pub settings: Settings,
    /// How many packets of the client were sent a second time.
    pub retransmitted: u64,
}

/// Something that happened on the network, for those who watch.
#[derive(Debug, Clone, Copy)]
pub enum Event<'a> {
    /// A datagram left for the server.
    Sent(SocketAddr, &'a [u8]),
    /// A datagram of this length came from the server: a packet, or `None` if it is not one.
    Received(SocketAddr, usize, Option<Packet<'a>>),
    /// A datagram came from somebody who has no part in the transfer.
    Stranger(SocketAddr, &'a [u8]),
    /// The network, or this machine, says that the server cannot be reached.
    Unreachable(SocketAddr, &'a io::Error),
}

/// What the transfer waited for.
enum Wake {
    /// Datagrams, or why there will be none.
    Heard(io::Result<port::Received>),
    /// The end of a wait.
    Expired,
    /// The word to stop.
    Stop,
}

/// Fetches a file into `sink`. When `stop` comes first, the server is told that the transfer is over.
///
/// `watch` is called for every event, with the receiver as it is after it.
///
/// When this returns the file is whole and the last ACK has left. Should that ACK get lost, the server repeats the last block
/// in vain: people wait for this end of the transfer, and RFC 1350 section 6 allows it to leave.
///
/// # Errors
///
/// [`FetchError`], whose `Display` is for people; what the sink has then is a part of the file at most.
pub async fn fetch(
    request: &Request<'_>,
    sink: &mut impl BlockSink,
    stop: impl Future<Output = ()>,
    mut watch: impl FnMut(&Receiver, Event<'_>),
) -> Result<Fetched, FetchError> {
    let config =
        ReceiverConfig { options: request.options, patience: request.patience, dally: 0, ..ReceiverConfig::default() };
    let mut receiver = Receiver::new(clock::now(), request.file, config).map_err(FetchError::Name)?;
    let mut port = Port::open(request.server).map_err(FetchError::Socket)?;
    let mut details = Details::default();
    let mut stop = pin!(stop);
    let mut packet = [0; MAX_REQUEST];
    let mut received = vec![0; RECEIVE_BUFFER];
    loop {
        let until = match receiver.poll(clock::now(), &mut packet) {
            Output::Transmit(transmit) => {
                let datagram = &packet[..transmit.len];
                let sent = port.send(datagram).await;
                watch(&receiver, Event::Sent(port.server(), datagram));
                if let Err(error) = sent {
                    unreachable(&mut port, &receiver, error, &mut watch)?;
                }
                continue;
            }
            Output::Finished(outcome) => return details.end(outcome, &receiver, &port),
            Output::Wait(until) => until,
            // Only a sender needs data.
            Output::NeedData => clock::now(),
        };
        let datagrams = async { Wake::Heard(port.recv(&mut received).await) };
        let stopped = async {
            stop.as_mut().await;
            Wake::Stop
        };
        let expired = async {
            Timer::at(clock::to_std(until)).await;
            Wake::Expired
        };
        match or(or(datagrams, stopped), expired).await {
            Wake::Heard(Ok(batch)) => {
                for datagram in received[..batch.len].chunks(batch.segment) {
                    if !port.accepts(batch.from) {
                        details.stranger = Some(batch.from);
                        port.refuse(batch.from, datagram);
                        watch(&receiver, Event::Stranger(batch.from, datagram));
                        continue;
                    }
                    let packet = Packet::parse(datagram).ok();
                    if let Some(packet) = packet {
                        details.note(&receiver, packet);
                        port.handle(&mut receiver, batch.from, packet, sink);
                    }
                    watch(&receiver, Event::Received(batch.from, datagram.len(), packet));
                }
            }
            Wake::Heard(Err(error)) => unreachable(&mut port, &receiver, error, &mut watch)?,
            Wake::Expired => {}
            Wake::Stop => receiver.abort("interrupted"),
        }
    }
}

/// Notes what the kernel says of the server. The second word in a row, with the server silent in between, is believed: one may
/// come from a server that is just being started.
fn unreachable(
    port: &mut Port,
    receiver: &Receiver,
    error: io::Error,
    watch: &mut impl FnMut(&Receiver, Event<'_>),
) -> Result<(), FetchError> {
    if !port.concerns_server() {
        return Ok(());
    }
    watch(receiver, Event::Unreachable(port.server(), &error));
    if port.unreachable() < 2 {
        return Ok(());
    }
    let server = port.server();
    Err(if receiver.has_peer() {
        FetchError::Gone { server, bytes: receiver.delivered(), error }
    } else {
        FetchError::Unreachable { server, error }
    })
}

/// Details for the report that the receiver does not keep.
#[derive(Debug, Default)]
struct Details {
    /// The options of the OACK in words.
    oack: Option<String>,
    /// The text of the server's ERROR, printable.
    error: String,
    /// The last unknown source that sent a datagram.
    stranger: Option<SocketAddr>,
}

impl Details {
    /// Keeps the details of a packet that the receiver has not handled yet.
    fn note(&mut self, receiver: &Receiver, packet: Packet<'_>) {
        match packet {
            Packet::OptionAck(options) if !receiver.has_peer() => self.oack = Some(pairs(options)),
            Packet::Error { message, .. } => self.error = printable(message),
            _ => {}
        }
    }

    fn end(self, outcome: Outcome, receiver: &Receiver, port: &Port) -> Result<Fetched, FetchError> {
        let (server, bytes) = (port.server(), receiver.delivered());
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
            Outcome::Refused(ErrorCode::OPTIONS_REFUSED) => FetchError::Broken { server, bytes, options: self.oack },
            Outcome::Refused(_) => FetchError::Broken { server, bytes, options: None },
            Outcome::WriteFailed(failed) => FetchError::Sink(failed),
            Outcome::TimedOut if receiver.has_peer() => FetchError::Silent { server, bytes },
            Outcome::TimedOut => FetchError::NoAnswer { server, stranger: self.stranger },
            // The last two are those of a sender.
            Outcome::Aborted | Outcome::Probed | Outcome::ReadFailed(_) => FetchError::Interrupted,
        })
    }
}
