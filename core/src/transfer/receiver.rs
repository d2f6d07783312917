//! The client's side of a read request: asks for a file and receives it, block by block, window by window.

use core::time::Duration;

use heapless::Vec;

use crate::{
    time::Instant,
    transfer::{
        io::BlockSink,
        output::{Outcome, Output, Transmit},
        rto::Rto,
        sender::PATIENCE,
        termination::Ending,
    },
    wire::{
        block::Rollover,
        options::{RequestedOptions, Settings},
        packet::{ErrorCode, Mode, Options, Packet, Request},
        path::InvalidPath,
    },
};

/// The longest request, in bytes (RFC 2347); a send buffer of this size suffices.
pub const MAX_REQUEST: usize = 512;

/// How long to stay after the last block, in retransmission times: a server that doubles its own sends the block after one,
/// three and seven of them.
const DALLY: u32 = 8;

/// Receives one file from one server.
///
/// It is plain data: no socket, no clock, no buffer. Hand every datagram of the server to [`handle`](Self::handle); after that,
/// and whenever the instant of an [`Output::Wait`] has come, call [`poll`](Self::poll) and do what it says until it says `Wait`
/// or `Finished`.
///
/// The server answers from a port of its own choice, its TID (RFC 1350 section 4). Until [`has_peer`](Self::has_peer),
/// send to the port for requests and hand in what comes from any port of the server's address. The port whose datagram changed
/// that is the server's from then on, for sending too: a datagram from another one is not handed in but answered with ERROR 5.
#[derive(Debug, Clone)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Receiver {
    /// The read request, as it is sent.
    request: Vec<u8, MAX_REQUEST>,
    wanted: RequestedOptions,
    settings: Settings,
    /// The size of the file as the server tells it, in bytes.
    size: Option<u64>,
    phase: Phase,
    /// The first block that has not come.
    next: u64,
    /// The last block that was acknowledged: the window begins after it.
    acknowledged: u64,
    /// How many bytes the sink has taken.
    delivered: u64,
    /// A block is missing and the server has been told: what is still in flight behind it is of no use.
    gap: bool,
    /// Whether the request, or the ACK of the last block that came in order, is to leave now.
    due: bool,
    /// When it last left, and whether the block that answers it will tell the round trip.
    left: Instant,
    timed: bool,
    rto: Rto,
    /// When what is awaited counts as lost.
    deadline: Instant,
    /// Since when the server owes an answer: its last new block, or the start.
    waiting: Instant,
    retransmitted: u64,
    ending: Ending,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
enum Phase {
    /// The server has not answered.
    Asking,
    Receiving,
    /// Everything has come. The ACK of the last block may get lost, so the server may still ask for it (RFC 1350 section 6).
    Dallying,
}

impl Receiver {
    /// Asks for `file` in octet mode.
    ///
    /// # Errors
    ///
    /// [`InvalidPath`] when the name is empty, has a NUL in it, or is too long for a request with the options that are wanted.
    pub fn new(now: Instant, file: &[u8], wanted: RequestedOptions) -> Result<Self, InvalidPath> {
        if file.is_empty() {
            return Err(InvalidPath::Empty);
        }
        if file.contains(&0) {
            return Err(InvalidPath::Nul);
        }
        let options = wanted.options();
        let packet = Packet::ReadRequest(Request { file, mode: Mode::Octet, options: Options::new(&options) });
        let mut request = Vec::from_array([0; MAX_REQUEST]);
        let len = packet.write(&mut request).ok_or(InvalidPath::TooLong)?;
        request.truncate(len);
        Ok(Self {
            request,
            wanted,
            settings: Settings::default(),
            size: None,
            phase: Phase::Asking,
            next: 1,
            acknowledged: 0,
            delivered: 0,
            gap: false,
            due: true,
            left: now,
            timed: false,
            rto: Rto::new(None),
            deadline: now,
            waiting: now,
            retransmitted: 0,
            ending: Ending::default(),
        })
    }

    /// Whether the server has answered: its port is known.
    pub fn has_peer(&self) -> bool {
        self.phase != Phase::Asking
    }

    /// Whether the sink has the whole file.
    ///
    /// That is so before [`Output::Finished`]: the receiver stays for a moment, because the server may not know yet. A driver
    /// that has better to do may leave then, at the price of a server that waits in vain.
    pub fn is_delivered(&self) -> bool {
        self.phase == Phase::Dallying
    }

    /// The size of the file in bytes, if it was asked for and the server has told it. What comes is not measured against it.
    pub fn size(&self) -> Option<u64> {
        self.size
    }

    /// How many bytes of the file the sink has taken.
    pub fn delivered(&self) -> u64 {
        self.delivered
    }

    /// How many packets were sent a second time.
    pub fn retransmitted(&self) -> u64 {
        self.retransmitted
    }

    /// Takes in a datagram of the server; the bytes of the file go into `sink`. Cannot fail: noise changes nothing.
    pub fn handle(&mut self, now: Instant, datagram: &[u8], sink: &mut impl BlockSink) {
        if self.ending.has_come() {
            return;
        }
        match Packet::parse(datagram) {
            Ok(Packet::OptionAck(granted)) => self.options(now, granted),
            Ok(Packet::Data { block, payload }) => {
                self.data(now, Rollover::ToZero.block_of(self.next, block), payload, sink);
            }
            Ok(Packet::Error { code, .. }) => {
                self.ending.end(if self.is_delivered() { Outcome::Complete } else { Outcome::PeerError(code) });
            }
            _ => {}
        }
    }

    /// Says what to do next. `buf` takes the datagram to send; it needs [`MAX_REQUEST`] bytes, or the transfer ends.
    pub fn poll(&mut self, now: Instant, buf: &mut [u8]) -> Output {
        if let Some(output) = self.ending.poll(buf) {
            return output;
        }
        if !self.due {
            let end = self.waiting.after(PATIENCE);
            let until = self.deadline.min(end);
            if now < until {
                return Output::Wait(until);
            }
            if self.is_delivered() {
                self.ending.end(Outcome::Complete);
                return self.poll(now, buf);
            }
            if now >= end {
                self.fail(Outcome::TimedOut, ErrorCode::NOT_DEFINED, "timed out");
                return self.poll(now, buf);
            }
            self.rto.expired();
            self.repeat();
        }
        let Some(len) = self.write(buf) else {
            self.fail(Outcome::Aborted, ErrorCode::NOT_DEFINED, "the send buffer is too small");
            return self.poll(now, buf);
        };
        self.due = false;
        self.left = now;
        self.deadline = now.after(self.patience());
        Output::Transmit(Transmit { len, segment: len })
    }

    /// Ends the transfer from this side: the next poll tells the server why, the one after that says `Finished`.
    pub fn abort(&mut self, reason: &'static str) {
        if !self.ending.has_come() {
            self.fail(Outcome::Aborted, ErrorCode::NOT_DEFINED, reason);
        }
    }

    /// Takes in an OACK: what it says counts once, a copy means that ACK 0 got lost unless DATA has come.
    fn options(&mut self, now: Instant, granted: Options<'_>) {
        if self.phase != Phase::Asking {
            if self.next == 1 && !self.gap {
                self.repeated(now);
            }
            return;
        }
        self.answered(now);
        match self.wanted.accept_oack(granted) {
            Some((settings, size)) => {
                (self.settings, self.size) = (settings, size);
                self.rto = Rto::new(settings.timeout);
                self.acknowledge(true);
            }
            None => self.refuse(ErrorCode::OPTIONS_REFUSED, "these options were not asked for"),
        }
    }

    /// Takes in a block, whose number is `next` or later.
    fn data(&mut self, now: Instant, block: u64, payload: &[u8], sink: &mut impl BlockSink) {
        let ahead = block.saturating_sub(self.next);
        match self.phase {
            // A server that knows no options answers with the first block (RFC 2347).
            Phase::Asking if ahead == 0 => self.answered(now),
            Phase::Asking => return,
            Phase::Receiving => {}
            Phase::Dallying if ahead == LATEST => return self.repeated(now),
            Phase::Dallying => return,
        }
        let window_end = self.acknowledged.saturating_add(u64::from(self.settings.windowsize));
        if payload.len() > usize::from(self.settings.blksize) {
            self.refuse(ErrorCode::ILLEGAL_OPERATION, "the block is longer than agreed");
        } else if ahead == 0 {
            self.deliver(now, payload, window_end, sink);
        } else if block <= window_end {
            self.missing(now);
        } else if ahead == LATEST {
            self.repeated(now);
        }
    }

    /// Takes the block that was awaited. The last of a window is acknowledged (RFC 7440 section 4), and the last of the file.
    fn deliver(&mut self, now: Instant, payload: &[u8], window_end: u64, sink: &mut impl BlockSink) {
        if let Err(failed) = sink.write(self.delivered, payload) {
            return self.fail(Outcome::WriteFailed(failed), ErrorCode::DISK_FULL, failed.0);
        }
        self.delivered = self.delivered.saturating_add(u64::try_from(payload.len()).unwrap_or(u64::MAX));
        if self.timed {
            self.rto.measured(now.since(self.left));
        }
        self.rto.progressed();
        self.timed = false;
        self.gap = false;
        self.waiting = now;
        self.deadline = now.after(self.patience());
        let block = self.next;
        self.next = block.saturating_add(1);
        if payload.len() < usize::from(self.settings.blksize) {
            self.phase = Phase::Dallying;
            self.acknowledge(false);
        } else if block >= window_end {
            self.acknowledge(true);
        }
    }

    /// Notes that a block came before the one that is awaited. The server is told once, by an ACK of what came in order, and
    /// starts a window there (RFC 7440 section 4); one ACK for each block behind the gap would only be a storm.
    fn missing(&mut self, now: Instant) {
        self.deadline = now.after(self.patience());
        if !self.gap {
            // Without anything new since, it is a copy of the last ACK.
            self.acknowledge(self.acknowledged.saturating_add(1) < self.next);
            self.gap = true;
        }
    }

    /// Notes that the last block that came in order has come again, or the OACK has.
    ///
    /// That is how a lost ACK shows, but only if the answer to the ACK could be here by now. Before that it is a copy made by
    /// the network or by a server in a hurry, and a client that answers each of them makes two of everything, for ever, with a
    /// server that answers each ACK (RFC 1123 section 4.2.3.1).
    fn repeated(&mut self, now: Instant) {
        self.timed = false;
        let quiet = now.since(self.left.max(self.waiting));
        if quiet.saturating_mul(2) >= self.rto.base() {
            if self.is_delivered() {
                // The server's next repetition takes twice as long to come.
                self.rto.expired();
            }
            self.repeat();
        }
    }

    /// Sends the request or the last ACK once more, which then says nothing about the round trip (Karn's rule).
    fn repeat(&mut self) {
        if self.acknowledged.saturating_add(1) == self.next {
            self.retransmitted = self.retransmitted.saturating_add(1);
        }
        self.acknowledge(false);
    }

    /// Acknowledges all that came in order: the window starts anew behind it.
    fn acknowledge(&mut self, timed: bool) {
        self.acknowledged = self.next.saturating_sub(1);
        self.gap = false;
        self.timed = timed;
        self.due = true;
    }

    /// Notes the first answer. It does not tell the round trip: the server may have had to open a disk.
    fn answered(&mut self, now: Instant) {
        self.phase = Phase::Receiving;
        self.waiting = now;
        self.rto = Rto::new(None);
    }

    /// How long to wait for an answer to what is sent now.
    fn patience(&self) -> Duration {
        self.rto.current().saturating_mul(if self.is_delivered() { DALLY } else { 1 })
    }

    fn refuse(&mut self, code: ErrorCode, message: &'static str) {
        self.fail(Outcome::Refused(code), code, message);
    }

    fn fail(&mut self, outcome: Outcome, code: ErrorCode, message: &'static str) {
        if self.has_peer() {
            self.ending.fail(outcome, code, message);
        } else {
            // There is nobody to tell.
            self.ending.end(outcome);
        }
    }

    /// Writes the request or the ACK.
    fn write(&self, buf: &mut [u8]) -> Option<usize> {
        if self.has_peer() {
            return Packet::Ack { block: Rollover::ToZero.number_of(self.acknowledged) }.write(buf);
        }
        buf.get_mut(..self.request.len())?.copy_from_slice(&self.request);
        Some(self.request.len())
    }
}

/// How far ahead of the awaited block its predecessor seems to be, as numbers on the wire only go up.
const LATEST: u64 = 0xffff;

#[cfg(test)]
mod tests {
    use std::vec;

    use super::*;
    use crate::transfer::io::WriteFailed;

    /// A transfer at a moment of virtual time, and what has come of the file.
    struct Transfer {
        receiver: Receiver,
        disk: Disk,
        now: Instant,
        buf: [u8; MAX_REQUEST],
    }

    struct Disk {
        bytes: std::vec::Vec<u8>,
        room: usize,
    }

    impl BlockSink for Disk {
        fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), WriteFailed> {
            assert_eq!(offset, self.bytes.len() as u64, "in order, and once");
            if self.bytes.len() + bytes.len() > self.room {
                return Err(WriteFailed("no space left"));
            }
            self.bytes.extend_from_slice(bytes);
            Ok(())
        }
    }

    const WINDOW: RequestedOptions =
        RequestedOptions { blksize: Some(8), windowsize: Some(4), timeout: None, tsize: true };

    impl Transfer {
        fn new(wanted: RequestedOptions) -> Self {
            let now = Instant::from_micros(0);
            let receiver = Receiver::new(now, b"kernel", wanted).expect("a valid request");
            let mut transfer =
                Self { receiver, disk: Disk { bytes: vec![], room: usize::MAX }, now, buf: [0; MAX_REQUEST] };
            assert_eq!(transfer.sent().map(|datagram| datagram[..2].to_vec()), Some(vec![0, 1]), "the request");
            transfer
        }

        /// A transfer in windows of four blocks of 8 bytes, with ACK 0 sent and a round trip of 10 ms measured by block 1.
        fn windowed() -> Self {
            let mut transfer = Self::new(WINDOW);
            transfer.receives(b"\x00\x06blksize\x008\0windowsize\x004\0tsize\x001000\0");
            transfer.acks(0);
            transfer.pass(10);
            transfer.block(1);
            transfer
        }

        fn sent(&mut self) -> Option<std::vec::Vec<u8>> {
            match self.receiver.poll(self.now, &mut self.buf) {
                Output::Transmit(Transmit { len, segment }) => {
                    assert_eq!(len, segment, "one datagram");
                    Some(self.buf[..len].to_vec())
                }
                _ => None,
            }
        }

        #[track_caller]
        fn acks(&mut self, block: u16) {
            let [high, low] = block.to_be_bytes();
            assert_eq!(self.sent(), Some(vec![0, 4, high, low]));
            self.is_silent();
        }

        #[track_caller]
        fn is_silent(&mut self) {
            assert_eq!(self.sent(), None);
        }

        fn receives(&mut self, datagram: &[u8]) {
            self.receiver.handle(self.now, datagram, &mut self.disk);
        }

        fn data(&mut self, block: u16, payload: &[u8]) {
            self.receives(&[&[0, 3], &block.to_be_bytes(), payload].concat());
        }

        /// A whole block of 8 bytes.
        fn block(&mut self, block: u16) {
            self.data(block, &[block as u8; 8]);
        }

        fn pass(&mut self, millis: u64) {
            self.now = self.now.after(Duration::from_millis(millis));
        }

        /// Lets the time of the current wait pass.
        #[track_caller]
        fn expire(&mut self) -> Duration {
            let output = self.receiver.poll(self.now, &mut self.buf);
            let Output::Wait(until) = output else { panic!("expected a wait, found {output:?}") };
            assert!(until > self.now, "a wait lies in the future");
            let waited = until.since(self.now);
            self.now = until;
            waited
        }

        #[track_caller]
        fn ends(&mut self, outcome: Outcome) {
            for _ in 0..2 {
                assert_eq!(self.receiver.poll(self.now, &mut self.buf), Output::Finished(outcome), "the answer stays");
            }
        }
    }

    #[test]
    fn the_request_names_the_file_and_what_is_wanted() {
        let wanted = RequestedOptions { blksize: Some(1468), windowsize: Some(64), timeout: Some(2), tsize: true };
        let now = Instant::from_micros(0);
        let mut receiver = Receiver::new(now, b"boot/vmlinuz", wanted).expect("a valid request");
        let mut buf = [0; MAX_REQUEST];
        let request = b"\x00\x01boot/vmlinuz\0octet\0tsize\x000\0blksize\x001468\0windowsize\x0064\0timeout\x002\0";
        let len = request.len();
        assert_eq!(receiver.poll(now, &mut buf), Output::Transmit(Transmit { len, segment: len }));
        assert_eq!(buf[..len].escape_ascii().to_string(), request.escape_ascii().to_string());
    }

    use std::string::ToString;

    #[test]
    fn a_request_has_a_greatest_length() {
        let new = |file: &[u8], wanted| Receiver::new(Instant::from_micros(0), file, wanted).err();
        assert_eq!(new(&[b'a'; MAX_REQUEST - 9], RequestedOptions::default()), None);
        assert_eq!(new(&[b'a'; MAX_REQUEST - 8], RequestedOptions::default()), Some(InvalidPath::TooLong));
        assert_eq!(new(&[b'a'; MAX_REQUEST - 9], WINDOW), Some(InvalidPath::TooLong));
        assert_eq!(new(b"", WINDOW), Some(InvalidPath::Empty));
        assert_eq!(new(b"a\0octet", WINDOW), Some(InvalidPath::Nul));
    }

    #[test]
    fn a_server_without_options_is_followed_in_lockstep() {
        let mut transfer = Transfer::new(WINDOW);
        assert!(!transfer.receiver.has_peer());
        transfer.data(1, &[1; 512]);
        assert!(transfer.receiver.has_peer());
        assert_eq!(transfer.receiver.size(), None);
        transfer.acks(1);
        transfer.data(2, &[2; 511]);
        assert!(transfer.receiver.is_delivered());
        transfer.acks(2);
        assert_eq!(transfer.disk.bytes, [&[1; 512][..], &[2; 511]].concat());
        assert_eq!((transfer.receiver.delivered(), transfer.receiver.retransmitted()), (1023, 0));
    }

    #[test]
    fn each_window_is_acknowledged_once() {
        let mut transfer = Transfer::windowed();
        assert_eq!(transfer.receiver.size(), Some(1000));
        for block in 2..=9 {
            transfer.is_silent();
            transfer.block(block);
            if block % 4 == 0 {
                transfer.acks(block);
            }
        }
        transfer.data(10, b"");
        transfer.acks(10);
        assert_eq!(transfer.disk.bytes.len(), 72);
    }

    #[test]
    fn the_request_is_repeated_until_patience_ends() {
        let mut transfer = Transfer::new(WINDOW);
        let mut waits = vec![];
        loop {
            waits.push(transfer.expire());
            match transfer.sent() {
                Some(datagram) => assert_eq!(datagram[..2], [0, 1], "nobody is there to be told anything else"),
                None => break,
            }
        }
        assert_eq!(waits.iter().sum::<Duration>(), PATIENCE);
        assert_eq!(waits[..3], [1, 2, 4].map(Duration::from_secs));
        transfer.ends(Outcome::TimedOut);
        assert_eq!(transfer.receiver.retransmitted(), waits.len() as u64 - 1);
    }

    #[test]
    fn a_server_that_falls_silent_is_told() {
        let mut transfer = Transfer::windowed();
        let farewell = loop {
            transfer.expire();
            let datagram = transfer.sent().expect("an ACK or the ERROR");
            if datagram[1] != 4 {
                break datagram;
            }
            assert_eq!(datagram, [0, 4, 0, 1]);
        };
        assert_eq!(farewell, b"\x00\x05\x00\x00timed out\0");
        transfer.ends(Outcome::TimedOut);
    }

    #[test]
    fn an_oack_that_was_not_asked_for_is_refused() {
        for oack in [&b"\x00\x06blksize\x009\0"[..], b"\x00\x06timeout\x001\0", b"\x00\x06windowsize\x000\0"] {
            let mut transfer = Transfer::new(WINDOW);
            transfer.receives(oack);
            let error = transfer.sent().expect("the ERROR");
            assert_eq!(error, b"\x00\x05\x00\x08these options were not asked for\0");
            transfer.ends(Outcome::Refused(ErrorCode::OPTIONS_REFUSED));
        }
    }

    #[test]
    fn a_repeated_oack_has_peer_until_data_comes() {
        let mut transfer = Transfer::new(WINDOW);
        let oack = b"\x00\x06blksize\x008\0";
        transfer.receives(oack);
        transfer.acks(0);
        transfer.receives(oack);
        transfer.is_silent();
        transfer.pass(600);
        transfer.receives(oack);
        transfer.acks(0);
        transfer.block(1);
        transfer.acks(1);
        transfer.pass(30);
        transfer.receives(oack);
        transfer.is_silent();
    }

    #[test]
    fn a_gap_has_peer_once() {
        let mut transfer = Transfer::windowed();
        transfer.block(2);
        transfer.block(4);
        transfer.acks(2);
        for block in [5, 4, 6] {
            transfer.block(block);
            transfer.is_silent();
        }
        // The server goes back, and the window begins after what was acknowledged.
        for block in [3, 4, 5] {
            transfer.block(block);
            transfer.is_silent();
        }
        transfer.block(6);
        transfer.acks(6);
        assert_eq!(transfer.disk.bytes.len(), 48);
    }

    #[test]
    fn a_lost_end_of_a_window_has_peer_by_the_timer() {
        let mut transfer = Transfer::windowed();
        transfer.block(2);
        assert_eq!(transfer.expire(), Duration::from_millis(50));
        transfer.acks(2);
        assert_eq!(transfer.expire(), Duration::from_millis(100));
        transfer.acks(2);
        transfer.block(3);
        assert_eq!(transfer.expire(), Duration::from_millis(50), "progress ends the slowness");
    }

    #[test]
    fn a_lost_ack_is_sent_again_for_the_block_it_was_about() {
        let mut transfer = Transfer::windowed();
        (2..=4).for_each(|block| transfer.block(block));
        transfer.acks(4);
        transfer.pass(40);
        for block in 1..=3 {
            transfer.block(block);
            transfer.is_silent();
        }
        transfer.block(4);
        transfer.acks(4);
        assert_eq!(transfer.receiver.retransmitted(), 1);
    }

    #[test]
    fn a_server_that_goes_back_is_told_where_to_go_on() {
        let mut transfer = Transfer::windowed();
        transfer.block(2);
        transfer.pass(40);
        transfer.block(1);
        transfer.is_silent();
        transfer.block(2);
        transfer.acks(2);
    }

    /// The "Sorcerer's Apprentice": with a server that answers each ACK, two ACKs make two of everything that follows.
    #[test]
    fn a_copy_made_by_the_network_is_not_answered() {
        let mut transfer = Transfer::windowed();
        (2..=4).for_each(|block| transfer.block(block));
        transfer.acks(4);
        transfer.pass(1);
        (1..=4).for_each(|block| transfer.block(block));
        transfer.is_silent();
    }

    #[test]
    fn block_numbers_roll_over_in_every_window_position() {
        for windowsize in [1, 2, 3, 5, 16] {
            let mut transfer = Transfer::new(RequestedOptions { windowsize: Some(16), ..WINDOW });
            transfer.receives(std::format!("\x00\x06blksize\x008\0windowsize\0{windowsize}\0").as_bytes());
            transfer.acks(0);
            let last = 70_000u64;
            for block in 1..=last {
                if block % 1000 == 0 {
                    // A copy of the block before.
                    transfer.block((block - 1) as u16);
                }
                transfer.data(block as u16, if block == last { b"" } else { &[0; 8] });
                if block % windowsize == 0 || block == last {
                    transfer.acks(block as u16);
                }
            }
            assert!(transfer.receiver.is_delivered());
            assert_eq!(transfer.receiver.delivered(), 8 * (last - 1));
        }
    }

    #[test]
    fn it_stays_for_a_server_that_missed_the_last_ack() {
        let mut transfer = Transfer::windowed();
        transfer.data(2, b"end");
        transfer.acks(2);
        transfer.pass(390);
        transfer.data(2, b"end");
        transfer.acks(2);
        assert!(transfer.receiver.is_delivered());
        assert_eq!(transfer.expire(), Duration::from_millis(800), "the next may come twice as late");
        transfer.ends(Outcome::Complete);
        assert_eq!(transfer.disk.bytes, b"\x01\x01\x01\x01\x01\x01\x01\x01end");
    }

    #[test]
    fn a_server_that_never_stops_is_left() {
        let mut transfer = Transfer::windowed();
        transfer.data(2, b"end");
        transfer.acks(2);
        let start = transfer.now;
        while transfer.now.since(start) < PATIENCE {
            transfer.pass(100);
            transfer.data(2, b"end");
            while transfer.sent().is_some() {}
        }
        transfer.ends(Outcome::Complete);
    }

    #[test]
    fn an_error_of_the_server_ends_it() {
        let error = b"\x00\x05\x00\x01file not found\0";
        let mut transfer = Transfer::new(WINDOW);
        transfer.receives(error);
        transfer.ends(Outcome::PeerError(ErrorCode::FILE_NOT_FOUND));
        let mut transfer = Transfer::windowed();
        transfer.receives(error);
        transfer.ends(Outcome::PeerError(ErrorCode::FILE_NOT_FOUND));
        let mut transfer = Transfer::windowed();
        transfer.data(2, b"end");
        transfer.receives(error);
        transfer.ends(Outcome::Complete);
    }

    #[test]
    fn a_full_disk_ends_it() {
        let mut transfer = Transfer::windowed();
        transfer.disk.room = 20;
        transfer.block(2);
        transfer.block(3);
        assert_eq!(transfer.sent(), Some(b"\x00\x05\x00\x03no space left\0".to_vec()));
        transfer.ends(Outcome::WriteFailed(WriteFailed("no space left")));
        assert_eq!(transfer.receiver.delivered(), 16);
    }

    #[test]
    fn a_block_longer_than_agreed_is_refused() {
        let mut transfer = Transfer::windowed();
        transfer.data(2, &[0; 9]);
        assert_eq!(transfer.sent().expect("the ERROR")[..4], [0, 5, 0, 4]);
        transfer.ends(Outcome::Refused(ErrorCode::ILLEGAL_OPERATION));
    }

    #[test]
    fn the_driver_can_end_it() {
        let mut transfer = Transfer::windowed();
        transfer.receiver.abort("too large");
        assert_eq!(transfer.sent(), Some(b"\x00\x05\x00\x00too large\0".to_vec()));
        transfer.ends(Outcome::Aborted);
        let mut transfer = Transfer::new(WINDOW);
        transfer.receiver.abort("too large");
        transfer.ends(Outcome::Aborted);
    }

    #[test]
    fn noise_changes_nothing() {
        let noise = [&b""[..], b"\0", b"\x00\x03", b"\x00\x04\x00\x01", b"\x00\x01f\0octet\0", &[0xff; 600]];
        let mut transfer = Transfer::new(WINDOW);
        for datagram in noise.into_iter().chain([&b"\x00\x03\x00\x02block 2"[..], b"\x00\x03\x00\x00"]) {
            transfer.receives(datagram);
            transfer.is_silent();
            assert!(!transfer.receiver.has_peer());
        }
        let mut transfer = Transfer::windowed();
        for datagram in noise.into_iter().chain([&b"\x00\x03\x00\x06 block 6"[..], b"\x00\x03\x80\x00"]) {
            transfer.receives(datagram);
            transfer.is_silent();
        }
        (2..=4).for_each(|block| transfer.block(block));
        transfer.acks(4);
    }
}
