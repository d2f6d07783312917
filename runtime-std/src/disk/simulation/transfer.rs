//! Transfers of a file on a disk: over a network that loses, repeats and reorders datagrams, by the real sender and receiver, or
//! read by read.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    future::{Future, poll_fn},
    pin::pin,
    task::Poll,
    time::Duration,
};

use rtftp_core::{
    BlockReader, BlockSink, Instant, Outcome, Output, Packet, Receiver, ReceiverConfig, RequestPath, Sender,
    WriteFailed,
    wire::{
        options::{Limits, RequestedOptions, negotiate},
        packet::ErrorCode,
    },
};
use smol::future::or;

use super::{
    super::{BoardDisk, DiskError, Disks, RemoteFile},
    TIMEOUTS,
    network::{Link, Wire},
    power_cut::Random,
};
use crate::clock::{self, Timer};

/// The longest time for which a read may wait: a reply, and then a reconnect with all that it needs.
const READ_LIMIT: Duration = Duration::from_secs(300);
/// The longest time for which either end of a transfer waits for the other one, and a margin.
const PATIENCE: Duration = Duration::from_secs(120);

/// Why a file is not received.
#[derive(Debug)]
pub(super) enum Failure {
    NotFound,
    /// With what was reported.
    Unreadable(String),
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
    let (mut received, mut buf) = (Vec::new(), vec![0; 8192]);
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

/// One end of the network, with the datagrams for it by their time of arrival.
struct End {
    wire: Wire,
    arrivals: BinaryHeap<Reverse<(u64, u64, Vec<u8>)>>,
    count: u64,
}

impl End {
    fn new(random: &mut Random) -> Self {
        let percent = |random: &mut Random, max| random.below(max) as f64 / 100.0;
        let link = Link {
            delay: 100 + random.below(20_000) as u64,
            jitter: random.below(2_000) as u64,
            loss: percent(random, 8),
            duplicate: percent(random, 5),
            reorder: percent(random, 5),
            ..Link::default()
        };
        Self { wire: Wire::new(link, random.below(usize::MAX) as u64), arrivals: BinaryHeap::new(), count: 0 }
    }

    fn send(&mut self, datagrams: &[u8], segment: usize) {
        let now = clock::now().as_micros();
        for datagram in datagrams.chunks(segment) {
            for at in self.wire.carry(now) {
                self.count += 1;
                self.arrivals.push(Reverse((at, self.count, datagram.to_vec())));
            }
        }
    }

    /// Returns a datagram that has arrived.
    fn receive(&mut self) -> Option<Vec<u8>> {
        let has_arrived = self.next()? <= clock::now().as_micros();
        has_arrived.then(|| self.arrivals.pop().map(|Reverse((_, _, datagram))| datagram)).flatten()
    }

    fn next(&self) -> Option<u64> {
        self.arrivals.peek().map(|Reverse((at, ..))| *at)
    }
}

/// What the server does for the request.
enum Session {
    Waiting,
    /// With the request.
    Opening(Vec<u8>),
    Sending(Box<(RemoteFile, Sender)>),
    Ended,
}

/// Transfers a file to a board.
pub(super) async fn transfer(
    disks: &Disks,
    disk: &BoardDisk,
    path: &RequestPath,
    random: &mut Random,
) -> Result<Vec<u8>, Failure> {
    let (mut down, mut up) = (End::new(random), End::new(random));
    let options = RequestedOptions {
        blksize: [None, Some(1024), Some(1468), Some(8192)][random.below(4)],
        windowsize: [None, Some(4), Some(16)][random.below(3)],
        timeout: None,
        tsize: random.below(2) == 0,
    };
    let config = ReceiverConfig { options, ..ReceiverConfig::default() };
    let receiver = Receiver::new(clock::now(), path.as_bytes(), config);
    let mut receiver = receiver.map_err(|error| Failure::Violation(error.to_string()))?;
    let (mut received, mut buf) = (Received::default(), vec![0; 65536]);
    let mut open = pin!(disks.open(disk, path));
    let mut session = Session::Waiting;
    let mut failure = None;
    let mut last_progress = clock::instant();
    loop {
        let delivered = received.0.len();
        while let Some(datagram) = down.receive() {
            receiver.handle(clock::now(), &datagram, &mut received);
        }
        while let Some(datagram) = up.receive() {
            let is_request = matches!(Packet::parse(&datagram), Ok(Packet::ReadRequest(_)));
            match &mut session {
                Session::Waiting if is_request => session = Session::Opening(datagram),
                // A copy of the request goes to another port.
                Session::Sending(sending) if !is_request => sending.1.handle(clock::now(), &datagram),
                _ => {}
            }
        }
        let outcome = loop {
            match receiver.poll(clock::now(), &mut buf) {
                Output::Transmit(transmit) => up.send(&buf[..transmit.len], transmit.segment),
                Output::Wait(until) => break Err(until),
                Output::Finished(outcome) => break Ok(outcome),
                Output::NeedData => return Err(Failure::Violation("the receiver asks for data".into())),
            }
        };
        let mut needs_data = false;
        let mut sender_waits = None;
        if let Session::Sending(sending) = &mut session {
            let (file, sender) = &mut **sending;
            let ended = loop {
                match sender.poll(clock::now(), file, &mut buf) {
                    Output::Transmit(transmit) => down.send(&buf[..transmit.len], transmit.segment),
                    Output::Wait(until) => {
                        sender_waits = Some(until);
                        break false;
                    }
                    Output::NeedData => {
                        needs_data = true;
                        break false;
                    }
                    Output::Finished(outcome) => {
                        if let Outcome::ReadFailed(error) = outcome {
                            failure = Some(Failure::Unreadable(error.to_string()));
                        }
                        break true;
                    }
                }
            };
            if ended {
                session = Session::Ended;
            }
        }
        let is_over = matches!(session, Session::Ended | Session::Waiting);
        if let (Ok(outcome), true) = (outcome, is_over) {
            return match (outcome, failure) {
                (Outcome::Complete, _) => Ok(received.0),
                (_, Some(failure)) => Err(failure),
                (outcome, None) => Err(Failure::Unreadable(outcome.to_string())),
            };
        }
        if received.0.len() > delivered {
            last_progress = clock::instant();
        }
        let limit = READ_LIMIT + PATIENCE;
        if clock::elapsed(last_progress) > limit {
            return Err(Failure::Violation(format!("no progress for {:?}", clock::elapsed(last_progress))));
        }
        let times = [outcome.err(), sender_waits].map(|time| time.map(Instant::as_micros));
        let next = times.into_iter().chain([down.next(), up.next()]).flatten().min();
        let sleep = async {
            match next {
                Some(next) => drop(Timer::at(clock::to_std(Instant::from_micros(next))).await),
                None => std::future::pending().await,
            }
            None
        };
        let ready = poll_fn(|context| match &mut session {
            Session::Opening(_) => open.as_mut().poll(context).map(Some),
            Session::Sending(sending) if needs_data => sending.0.poll_ready(context).map(|()| None),
            _ => Poll::Pending,
        });
        match or(ready, sleep).await {
            Some(Ok(file)) => {
                let size = Some(file.size());
                if let Session::Opening(request) = &session
                    && let Ok(Packet::ReadRequest(request)) = Packet::parse(request)
                {
                    let (settings, granted) = negotiate(request.options, &Limits::default(), size);
                    session = Session::Sending(Box::new((file, Sender::new(clock::now(), settings, granted, size))));
                }
            }
            Some(Err(error)) => {
                let mut packet = [0; 64];
                let error_packet = Packet::Error { code: ErrorCode::NOT_DEFINED, message: b"not opened" };
                let len = error_packet.write(&mut packet).unwrap_or(0);
                down.send(&packet[..len], len.max(1));
                failure = Some(error.into());
                session = Session::Ended;
            }
            None => {}
        }
    }
}
