//! The client's end of a transfer: the core's receiver, driven by a socket, a sink and the clock.

mod address;
mod failure;
mod port;
mod words;

use std::{io, net::SocketAddr, pin::pin, time::Duration};

use rtftp_core::{
    BlockSink, Outcome, Output, Packet, Receiver,
    transfer::receiver::MAX_REQUEST,
    wire::options::{RequestedOptions, Settings},
};
use smol::{Timer, future::or};

pub use self::{address::resolve, failure::FetchError, words::describe};
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
    /// The options to ask for.
    pub wanted: RequestedOptions,
    /// How long the server may be silent. More than the receiver's own patience, a minute, is of no effect.
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
    /// A datagram of the server came and was taken in.
    Received(SocketAddr, &'a [u8]),
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
    let mut receiver = Receiver::new(clock::now(), request.file, request.wanted).map_err(FetchError::Name)?;
    let mut port = Port::open(request.server).map_err(FetchError::Socket)?;
    let mut said = Said::default();
    let mut heard = clock::now();
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
            Output::Finished(outcome) => return said.end(outcome, &receiver, &port),
            Output::Wait(_) if receiver.is_delivered() => return Ok(said.fetched(&receiver)),
            Output::Wait(until) => until.min(heard.after(request.patience)),
            // Not said by a receiver, which reads no file.
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
                    if !port.is_server(batch.from) {
                        said.stranger = Some(batch.from);
                        port.refuse(batch.from, datagram);
                        watch(&receiver, Event::Stranger(batch.from, datagram));
                        continue;
                    }
                    heard = clock::now();
                    said.note(&request.wanted, datagram);
                    receiver.handle(heard, datagram, sink);
                    if receiver.has_peer() {
                        port.settle(batch.from);
                    }
                    watch(&receiver, Event::Received(batch.from, datagram));
                }
            }
            Wake::Heard(Err(error)) => unreachable(&mut port, &receiver, error, &mut watch)?,
            Wake::Expired if clock::now() >= heard.after(request.patience) => {
                said.silence = true;
                receiver.abort("timed out");
            }
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

/// What was said that a report needs and the receiver does not keep.
#[derive(Debug, Default)]
struct Said {
    settings: Settings,
    /// The options of an OACK that was not acceptable, in words.
    wrong_options: Option<String>,
    /// The text of the server's ERROR, printable.
    error: String,
    /// Who answered in the server's stead.
    stranger: Option<SocketAddr>,
    /// Nothing, for longer than the caller has patience.
    silence: bool,
}

impl Said {
    fn note(&mut self, wanted: &RequestedOptions, datagram: &[u8]) {
        match Packet::parse(datagram) {
            Ok(Packet::OptionAck(options)) => match wanted.accept_oack(options) {
                Some((settings, _)) => self.settings = settings,
                None => self.wrong_options = Some(pairs(options)),
            },
            Ok(Packet::Error { message, .. }) => self.error = printable(message),
            _ => {}
        }
    }

    fn fetched(&self, receiver: &Receiver) -> Fetched {
        Fetched {
            bytes: receiver.delivered(),
            size: receiver.size(),
            settings: self.settings,
            retransmitted: receiver.retransmitted(),
        }
    }

    fn end(self, outcome: Outcome, receiver: &Receiver, port: &Port) -> Result<Fetched, FetchError> {
        let (server, bytes) = (port.server(), receiver.delivered());
        Err(match if self.silence { Outcome::TimedOut } else { outcome } {
            Outcome::Complete => return Ok(self.fetched(receiver)),
            Outcome::PeerError(code) => FetchError::Refused { server, code, text: self.error },
            Outcome::Refused(_) => FetchError::Broken { server, bytes, options: self.wrong_options },
            Outcome::WriteFailed(failed) => FetchError::Sink(failed),
            Outcome::TimedOut if receiver.has_peer() => FetchError::Silent { server, bytes },
            Outcome::TimedOut => FetchError::NoAnswer { server, stranger: self.stranger },
            // The last two are those of a sender.
            Outcome::Aborted | Outcome::Probed | Outcome::ReadFailed(_) => FetchError::Interrupted,
        })
    }
}
