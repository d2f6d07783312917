//! Boards that receive files over TFTP or HTTP, with the quirks of their boot programs.

use std::{future::poll_fn, net::SocketAddr, sync::Arc, time::Duration};

use rtftp_core::{
    BlockReader, BlockSink, Outcome, Output, Packet, Peer, Receiver, ReceiverConfig, RequestPath, WriteFailed,
    wire::{options::RequestedOptions, packet::ErrorCode},
};
use smol::future::zip;

use super::{
    super::{BoardDisk, DiskError, Disks},
    SERVER_IP, TIMEOUTS,
    datagrams::{Network, Socket, TFTP_PORT},
    power_cut::Random,
};
use crate::clock::{self, Timer};

/// The longest time for which a read may wait: for a reply, then twice for a snapshot and the lookup of the file there, from a server
/// that takes almost the time limit for each reply.
const READ_LIMIT: Duration = Duration::from_secs(600);
/// The times without a new block after which boards give up, in seconds: U-Boot with lwIP, busybox, iPXE, EDK2, GRUB, rtftp-get. The
/// first three only without losses, since few of their packets may get lost.
const PATIENCE: [u64; 6] = [6, 10, 16, 24, 32, 60];
/// The times until a board repeats its request at first, in milliseconds: PXELINUX, iPXE, GRUB, U-Boot.
const REPEATS: [u64; 4] = [110, 250, 400, 1000];
const BOARD_IP: [u8; 4] = [10, 0, 0, 5];

/// Why a file is not received.
#[derive(Debug)]
pub(super) enum Failure {
    NotFound,
    /// With what was reported.
    Unreadable(String),
    /// The board has lost patience.
    TimedOut,
    /// What must not happen.
    Violation(String),
}

impl From<DiskError> for Failure {
    fn from(error: DiskError) -> Self {
        match error {
            DiskError::NotFound => Self::NotFound,
            error => Self::Unreadable(error.to_string()),
        }
    }
}

/// Reads a file to its end, as over HTTP.
pub(super) async fn read(disks: &Disks, disk: &BoardDisk, path: &RequestPath) -> Result<Vec<u8>, Failure> {
    let started = clock::instant();
    let opened = disks.open(disk, path).await;
    if clock::elapsed(started) > TIMEOUTS.open {
        return Err(Failure::Violation(format!("opened after {:?}", clock::elapsed(started))));
    }
    let mut file = opened?;
    let (mut received, mut buf) = (Vec::with_capacity(file.size() as usize), vec![0; 8192]);
    loop {
        let waiting = clock::instant();
        let len = loop {
            match file.read_at(received.len() as u64, &mut buf) {
                Ok(Some(len)) => break len,
                Ok(None) => poll_fn(|context| file.poll_ready(context)).await,
                Err(error) => return Err(Failure::Unreadable(error.to_string())),
            }
        };
        if clock::elapsed(waiting) > READ_LIMIT {
            return Err(Failure::Violation(format!("a read took {:?}", clock::elapsed(waiting))));
        }
        received.extend_from_slice(&buf[..len]);
        if len == 0 {
            return Ok(received);
        }
    }
}

/// A file that was received.
#[derive(Default)]
struct Received(Vec<u8>);

impl BlockSink for Received {
    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), WriteFailed> {
        if offset != self.0.len() as u64 {
            return Err(WriteFailed("not the next bytes of the file"));
        }
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}

/// How far a board follows a transfer.
#[derive(Debug, Clone, Copy)]
enum Until {
    End,
    /// It ends the transfer with an ERROR after the first reply.
    FirstReply,
    /// It is reset when it has this many bytes.
    Reset(usize),
}

/// A board's request for a file.
struct BoardRequest<'a> {
    path: &'a RequestPath,
    config: ReceiverConfig,
}

impl BoardRequest<'_> {
    /// Requests the file, and receives it until then.
    async fn send(&self, socket: &Socket, until: Until) -> Result<Vec<u8>, Failure> {
        let receiver = Receiver::new(clock::now(), self.path.as_bytes(), self.config);
        let mut receiver = receiver.map_err(|error| Failure::Violation(error.to_string()))?;
        let server = |port| SocketAddr::from((SERVER_IP, port));
        let (mut received, mut buf, mut peer) = (Received::default(), vec![0; 600], Peer::new((), TFTP_PORT));
        let mut last_progress = clock::instant();
        loop {
            let wait = loop {
                match receiver.poll(clock::now(), &mut buf) {
                    Output::Transmit(transmit) => {
                        socket.send(server(peer.port()), &buf[..transmit.len], transmit.segment);
                    }
                    Output::Wait(until) => break until,
                    Output::Finished(Outcome::Complete | Outcome::Aborted) => return Ok(received.0),
                    Output::Finished(Outcome::PeerError(ErrorCode::FILE_NOT_FOUND)) => return Err(Failure::NotFound),
                    Output::Finished(Outcome::TimedOut) => return Err(Failure::TimedOut),
                    Output::Finished(outcome) => return Err(Failure::Unreadable(outcome.to_string())),
                    Output::NeedData => return Err(Failure::Violation("the receiver asks for data".into())),
                }
            };
            let limit = self.config.patience + self.config.max_timeout;
            if !receiver.is_delivered() && clock::elapsed(last_progress) > limit {
                return Err(Failure::Violation(format!("no progress for {:?}", clock::elapsed(last_progress))));
            }
            let Some((from, datagram)) = socket.receive(Some(wait)).await else { continue };
            let Ok(packet) = Packet::parse(&datagram) else { continue };
            let (before, is_error) = ((received.0.len(), receiver.has_peer()), matches!(packet, Packet::Error { .. }));
            let source = ((), from.port());
            if peer.handle(&mut receiver, clock::now(), source, packet, &mut received).is_err() && !is_error {
                let len = Packet::UNKNOWN_TRANSFER_ID.write(&mut buf).expect("it fits");
                socket.send(from, &buf[..len], len);
            }
            // The board waits anew after the first reply, which may be an OACK.
            if (received.0.len(), receiver.has_peer()) != before {
                last_progress = clock::instant();
            }
            match until {
                Until::FirstReply if receiver.has_peer() => receiver.abort("User aborted the transfer"),
                Until::Reset(len) if received.0.len() >= len => return Ok(received.0),
                _ => {}
            }
        }
    }
}

/// Transfers a file to a board.
pub(super) async fn transfer(
    network: &Arc<Network>,
    path: &RequestPath,
    random: &mut Random,
) -> Result<Vec<u8>, Failure> {
    let options = RequestedOptions {
        blksize: [None, Some(1024), Some(1468), Some(8192)][random.below(4)],
        windowsize: [None, Some(4), Some(16)][random.below(3)],
        timeout: None,
        tsize: random.below(2) == 0,
    };
    let patience = if network.is_lossy { PATIENCE[5] } else { PATIENCE[random.below(PATIENCE.len())] };
    let config = ReceiverConfig {
        options,
        patience: Duration::from_secs(patience),
        initial_timeout: Duration::from_millis(REPEATS[random.below(REPEATS.len())]),
        ..ReceiverConfig::default()
    };
    let request = BoardRequest { path, config };
    let probe_options = RequestedOptions { tsize: true, ..options };
    let probe = BoardRequest { path, config: ReceiverConfig { options: probe_options, ..config } };
    let socket = network.bind(BOARD_IP, None);
    match random.below(10) {
        // EDK2 asks for the size first, and ends that with an ERROR. The request comes from the same port, where a copy of the first
        // reply would be taken for another one.
        0 if !network.is_lossy => drop(probe.send(&socket, Until::FirstReply).await?),
        // PXELINUX and the Raspberry Pi do so from another port.
        0 | 1 => drop(probe.send(&network.bind(BOARD_IP, None), Until::FirstReply).await?),
        // The Raspberry Pi 3 requests a file from several ports.
        2 => {
            let other = network.bind(BOARD_IP, None);
            let later = async {
                Timer::after(Duration::from_millis(5 + random.below(5) as u64)).await;
                request.send(&other, Until::FirstReply).await
            };
            return zip(request.send(&socket, Until::End), later).await.0;
        }
        // A board that is reset requests the file again, from the same port. A window would bring it block 1 of the first transfer.
        3 if options.windowsize.is_none() => {
            request.send(&socket, Until::Reset(10_000 + random.below(20_000))).await?;
            Timer::after(Duration::from_millis(100 + random.below(3_000) as u64)).await;
        }
        _ => {}
    }
    request.send(&socket, Until::End).await
}
