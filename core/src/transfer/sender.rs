//! The server's side of a read request: sends a file, block by block, window by window.

use core::time::Duration;

use crate::{
    time::Instant,
    transfer::{
        io::{BlockReader, ReadFailed},
        output::{Outcome, Output, Transmit},
        pacing::Pace,
        rto::Rto,
        termination::Ending,
    },
    wire::{
        options::{Granted, Settings},
        packet::{DATA_HEADER, ErrorCode, Packet, data_header},
    },
};

/// A peer that has acknowledged nothing new for this long is given up. GRUB leaves one transfer alone while it reads another
/// to its end, so this is a matter of a minute, not of a number of retries.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The smallest send buffer that every packet of a transfer without options fits into, in bytes.
const MIN_BUFFER: usize = 516;

/// Sends one file to one client.
///
/// It is plain data: no socket, no clock, no buffer. Hand every datagram of the client to [`handle`](Self::handle); after that,
/// and whenever the instant of an [`Output::Wait`] has come, call [`poll`](Self::poll) and do what it says until it says `Wait`
/// or `Finished`.
///
/// The OACK, where there is one, counts as block 0: acknowledged by ACK 0, sent again until that comes, and never after
/// (RFC 2347; GRUB starts over on a second one).
#[derive(Debug, Clone)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Sender {
    settings: Settings,
    granted: Granted,
    /// The size of the file, in bytes, once it is known.
    size: Option<u64>,
    /// The first block that is not acknowledged.
    base: u64,
    /// The block to send next; from `base` to the end of the window.
    next: u64,
    /// One past the highest block ever sent.
    frontier: u64,
    rto: Rto,
    /// When the packets in flight count as lost.
    deadline: Instant,
    /// Since when the client owes an answer: its last progress, or when something new last left.
    waiting: Instant,
    /// When the blocks in flight began to leave, and the first of them.
    flight: Option<(Instant, u64)>,
    /// Whether the timer began the flight: an answer may then as well be to the one before (Karn's rule).
    expired: bool,
    /// One past the last block that the timer sent again, during the flight after it.
    echo: u64,
    pace: Pace,
    retransmitted: u64,
    ending: Ending,
}

impl Sender {
    /// Starts a transfer of a file of `size` bytes with what [`negotiate`](crate::wire::options::negotiate) came to. Without a size
    /// the file ends where a read of it gives less than was asked.
    pub fn new(now: Instant, settings: Settings, granted: Granted, size: Option<u64>) -> Self {
        let first = if granted.is_empty() { 1 } else { 0 };
        Self {
            rto: if settings.windowsize > 1 { Rto::new(settings.timeout) } else { Rto::lockstep(settings.timeout) },
            settings,
            granted,
            size,
            base: first,
            next: first,
            frontier: first,
            deadline: now,
            waiting: now,
            flight: None,
            expired: false,
            echo: 0,
            pace: Pace::default(),
            retransmitted: 0,
            ending: Ending::default(),
        }
    }

    /// How many bytes of the file the client has acknowledged.
    pub fn acknowledged(&self) -> u64 {
        let before = self.offset(self.base);
        self.size.map_or(before, |size| before.min(size))
    }

    /// How many packets were sent a second time.
    pub fn retransmitted(&self) -> u64 {
        self.retransmitted
    }

    /// Whether everything that was sent is acknowledged: then nothing else that has come by now can change anything, but for an ERROR.
    /// Who takes datagrams from a socket can leave the rest there, and so needs no call to see that it is empty.
    pub fn is_idle(&self) -> bool {
        self.ending.has_come() || self.base >= self.frontier
    }

    /// How many bytes a buffer needs to take every packet of a whole window at once. A smaller one does, from one packet on.
    pub fn window_len(&self) -> usize {
        self.segment().saturating_mul(usize::from(self.settings.windowsize)).max(MIN_BUFFER)
    }

    /// Takes in a datagram that came from the client's address and port. Cannot fail: noise changes nothing.
    pub fn handle(&mut self, now: Instant, datagram: &[u8]) {
        if self.ending.has_come() {
            return;
        }
        match Packet::parse(datagram) {
            Ok(Packet::Ack { block }) => self.acknowledge(now, self.settings.rollover.block_of(self.base, block)),
            Ok(Packet::Error { code, .. }) => self.ending.end(self.peer_error(code)),
            _ => {}
        }
    }

    /// Says what to do next. `buf` takes the datagrams to send: the larger, the more of a window goes out at once.
    ///
    /// A `buf` that is too small for a single packet of the transfer (the block size and 4 bytes, at least 516) ends it.
    pub fn poll(&mut self, now: Instant, file: &mut impl BlockReader, buf: &mut [u8]) -> Output {
        if let Some(output) = self.ending.poll(buf) {
            return output;
        }
        if self.next >= self.window_end() {
            if now < self.deadline {
                return Output::Wait(self.deadline);
            }
            if now.since(self.waiting) >= PATIENCE {
                self.ending.fail(Outcome::TimedOut, ErrorCode::NOT_DEFINED, "timed out");
                return self.poll(now, file, buf);
            }
            self.rewind();
        }
        let (began, first) = self.flight.unwrap_or((now, self.next));
        let end = self.window_end().min(first.saturating_add(self.pace.allowed(now, began)));
        if self.next >= end {
            return Output::Wait(self.pace.next(began, self.next.saturating_sub(first)));
        }
        match self.fill(file, buf, end) {
            Ok(Some(transmit)) => {
                self.flight = Some((began, first));
                self.sent(now);
                Output::Transmit(transmit)
            }
            Ok(None) => {
                // What is loaded late leaves late.
                self.flight = None;
                Output::NeedData
            }
            Err(failed) => {
                self.ending.fail(Outcome::ReadFailed(failed), ErrorCode::NOT_DEFINED, failed.0);
                self.poll(now, file, buf)
            }
        }
    }

    /// Ends the transfer from this side: the next poll tells the client why, the one after that says `Finished`.
    pub fn abort(&mut self, reason: &'static str) {
        if !self.ending.has_come() {
            self.ending.fail(Outcome::Aborted, ErrorCode::NOT_DEFINED, reason);
        }
    }

    /// Takes in the acknowledgement of all blocks up to `block`, which is `base` or later.
    ///
    /// Inside what was sent, it moves the window to just after it, also back from what was sent beyond (RFC 7440 section 4).
    /// A second copy of the same ACK now means a block not sent yet, and like every such number it changes nothing: DATA is
    /// never sent again for a duplicate ACK (RFC 1123 section 4.2.3.1).
    fn acknowledge(&mut self, now: Instant, block: u64) {
        if block >= self.frontier {
            return;
        }
        if let Some((began, first)) = self.flight.take() {
            if self.expired {
                self.rto.answered_within(now.since(self.waiting));
            } else {
                self.rto.measured(now.since(began));
            }
            if block.saturating_add(1) >= self.next {
                self.pace.clean();
            } else {
                let arrived = block.saturating_add(1).saturating_sub(self.base);
                // Without the time it was spread over, or that would grow with every loss.
                let left = self.pace.next(began, self.next.saturating_sub(first).saturating_sub(1));
                self.pace.lost(arrived, self.settings.windowsize, now.since(left), self.rto.round_trip());
            }
        }
        let sent_again = if self.expired { self.next } else { 0 };
        self.expired = false;
        self.waiting = now;
        self.base = block.saturating_add(1);
        // EDK2 answers old blocks too: its second ACK of what the timer sent again names the very end of that, and is no loss.
        self.next = if self.base == self.echo { self.next.max(self.base) } else { self.base };
        self.echo = sent_again;
        if self.last_block().is_some_and(|last| block >= last) {
            self.ending.end(Outcome::Complete);
        }
    }

    /// An ERROR of the client ends the transfer at once (RFC 1350 section 7). Before it has acknowledged a block of the file,
    /// codes 0 and 8 are how firmware says that it has learnt the size.
    fn peer_error(&self, code: ErrorCode) -> Outcome {
        if self.base <= 1 && matches!(code, ErrorCode::NOT_DEFINED | ErrorCode::OPTIONS_REFUSED) {
            Outcome::Probed
        } else {
            Outcome::PeerError(code)
        }
    }

    /// Goes back to the first block that is not acknowledged.
    fn rewind(&mut self) {
        self.next = self.base;
        self.flight = None;
        if self.base > 0 {
            self.pace.silent(self.settings.windowsize, self.rto.round_trip());
        }
        self.expired = true;
        self.rto.expired();
    }

    /// The last block: shorter than the others, empty if the file is a multiple of the block size (RFC 1350 section 6).
    fn last_block(&self) -> Option<u64> {
        Some(self.size?.checked_div(u64::from(self.settings.blksize))?.saturating_add(1))
    }

    /// One past the last block of the window; the OACK is a window of its own.
    fn window_end(&self) -> u64 {
        if self.base == 0 {
            return 1;
        }
        let end = self.base.saturating_add(u64::from(self.settings.windowsize));
        self.last_block().map_or(end, |last| end.min(last.saturating_add(1)))
    }

    /// The length of every DATA packet but the last, in bytes.
    fn segment(&self) -> usize {
        usize::from(self.settings.blksize).saturating_add(DATA_HEADER)
    }

    /// Where a block begins in the file, in bytes.
    fn offset(&self, block: u64) -> u64 {
        block.saturating_sub(1).saturating_mul(u64::from(self.settings.blksize))
    }

    /// Writes the OACK, or as many blocks before `end` as fit and are loaded; `None` when not even the first is loaded.
    fn fill(&mut self, file: &mut impl BlockReader, buf: &mut [u8], end: u64) -> Result<Option<Transmit>, ReadFailed> {
        let segment = self.segment();
        if buf.len() < segment.max(MIN_BUFFER) {
            return Err(TOO_SMALL);
        }
        if self.next == 0 {
            // The answer commits the server: it leaves only when the file can really be read.
            if self.read(file, 1, 1, buf)?.is_none() {
                return Ok(None);
            }
            let len = Packet::OptionAck(self.granted.options()).write(buf).ok_or(TOO_SMALL)?;
            self.count(1);
            return Ok(Some(Transmit { len, segment: len }));
        }
        let room = buf.len().checked_div(segment).unwrap_or(0);
        let mut blocks = usize::try_from(end.saturating_sub(self.next)).unwrap_or(room).min(room);
        let read = loop {
            match self.read(file, self.next, blocks, buf)? {
                Some(read) => break read,
                None if blocks <= 1 => return Ok(None),
                None => blocks >>= 1,
            }
        };
        let whole = read.checked_div(usize::from(self.settings.blksize)).unwrap_or(0);
        if whole < blocks && self.size.is_none() {
            self.size = Some(self.offset(self.next).saturating_add(u64::try_from(read).unwrap_or(0)));
        }
        // The block that ends the file is shorter than the others, if need be empty.
        let filled = whole.saturating_add(1).min(blocks);
        for (block, packet) in (self.next..).zip(buf.chunks_mut(segment)).take(filled) {
            *packet.first_chunk_mut().ok_or(TOO_SMALL)? = data_header(self.settings.rollover.number_of(block));
        }
        self.count(filled);
        let len = read.saturating_add(headers(filled));
        Ok(Some(Transmit { len, segment: segment.min(len) }))
    }

    /// Reads so many blocks at once, each to behind the room for its header, and returns how many bytes these are, or `None` when they
    /// are not loaded.
    fn read(
        &self,
        file: &mut impl BlockReader,
        first: u64,
        blocks: usize,
        buf: &mut [u8],
    ) -> Result<Option<usize>, ReadFailed> {
        let offset = self.offset(first);
        let block = usize::from(self.settings.blksize);
        let wanted = blocks.saturating_mul(block);
        let left = self.size.map_or(u64::MAX, |size| size.saturating_sub(offset));
        let expected = usize::try_from(left).unwrap_or(wanted).min(wanted);
        let packets = buf.get_mut(..headers(blocks).saturating_add(expected)).ok_or(TOO_SMALL)?;
        match file.read_blocks(offset, block, packets)? {
            // Fewer bytes than the client was promised must not look like the file's end.
            Some(got) if got < expected && self.size.is_some() => {
                Err(ReadFailed("the file changed during the transfer"))
            }
            ready => Ok(ready),
        }
    }

    /// Notes that so many packets from `next` on are in the buffer.
    fn count(&mut self, packets: usize) {
        let packets = u64::try_from(packets).unwrap_or(0);
        let again = self.frontier.saturating_sub(self.next).min(packets);
        self.retransmitted = self.retransmitted.saturating_add(again);
        self.next = self.next.saturating_add(packets);
    }

    /// Notes that what is in the buffer leaves now.
    fn sent(&mut self, now: Instant) {
        if self.next > self.frontier {
            self.frontier = self.next;
            self.waiting = now;
        }
        self.deadline = now.after(self.rto.current());
    }
}

const TOO_SMALL: ReadFailed = ReadFailed("the send buffer is too small");

/// How many bytes the headers of so many DATA packets take.
fn headers(packets: usize) -> usize {
    packets.saturating_mul(DATA_HEADER)
}

#[cfg(test)]
mod tests {
    use std::{format, vec, vec::Vec};

    use super::*;
    use crate::wire::{
        options::{Limits, negotiate},
        packet::Options,
    };

    /// A transfer at a moment of virtual time, and the file it sends.
    struct Transfer {
        sender: Sender,
        file: Vec<u8>,
        now: Instant,
        buf: Vec<u8>,
    }

    impl Transfer {
        fn new(size: usize, options: &[u8]) -> Self {
            let now = Instant::from_micros(0);
            let (settings, granted) = negotiate(Options::new(options), &Limits::default(), Some(size as u64));
            let file = (0..size).map(|at| (at / 7) as u8).collect();
            Self { sender: Sender::new(now, settings, granted, Some(size as u64)), file, now, buf: vec![0; 70_000] }
        }

        fn poll(&mut self) -> Output {
            self.sender.poll(self.now, &mut &self.file[..], &mut self.buf)
        }

        /// All the datagrams that leave before the sender waits or ends.
        fn datagrams(&mut self) -> Vec<Vec<u8>> {
            let mut all = vec![];
            while let Output::Transmit(Transmit { len, segment }) = self.poll() {
                all.extend(self.buf[..len].chunks(segment).map(<[u8]>::to_vec));
            }
            all
        }

        /// The numbers of the DATA blocks that leave now.
        #[track_caller]
        fn sends(&mut self, blocks: &[u16]) {
            let sent: Vec<u16> = self
                .datagrams()
                .iter()
                .map(|datagram| match Packet::parse(datagram) {
                    Ok(Packet::Data { block, .. }) => block,
                    other => panic!("expected DATA, found {other:?}"),
                })
                .collect();
            assert_eq!(sent, blocks);
        }

        fn receives(&mut self, packet: Packet<'_>) {
            let mut datagram = [0; 100];
            let len = packet.write(&mut datagram).expect("room");
            self.sender.handle(self.now, &datagram[..len]);
        }

        fn ack(&mut self, block: u16) {
            self.receives(Packet::Ack { block });
        }

        fn pass(&mut self, millis: u64) {
            self.now = self.now.after(Duration::from_millis(millis));
        }

        /// How long it waits now.
        fn wait(&mut self) -> Duration {
            let Output::Wait(until) = self.poll() else { panic!("expected a wait") };
            assert!(until > self.now, "a wait lies in the future");
            until.since(self.now)
        }

        /// Lets the time of the current wait pass.
        fn expire(&mut self) -> Duration {
            let waited = self.wait();
            self.now = self.now.after(waited);
            waited
        }

        #[track_caller]
        fn ends(&mut self, outcome: Outcome) {
            assert_eq!(self.poll(), Output::Finished(outcome));
            assert_eq!(self.poll(), Output::Finished(outcome), "the answer stays");
        }
    }

    #[test]
    fn a_file_is_sent_in_lockstep() {
        let mut transfer = Transfer::new(1000, b"");
        let first = transfer.datagrams();
        assert_eq!(first.len(), 1);
        assert_eq!(first[0], [&[0, 3, 0, 1], &transfer.file[..512]].concat());
        transfer.ack(1);
        let second = transfer.datagrams();
        assert_eq!(second, [[&[0, 3, 0, 2], &transfer.file[512..]].concat()]);
        assert_eq!(transfer.sender.acknowledged(), 512);
        transfer.ack(2);
        transfer.ends(Outcome::Complete);
        assert_eq!((transfer.sender.acknowledged(), transfer.sender.retransmitted()), (1000, 0));
    }

    #[test]
    fn what_is_acknowledged_is_idle_once() {
        let mut transfer = Transfer::new(2000, b"");
        transfer.sends(&[1]);
        transfer.ack(0);
        assert!(!transfer.sender.is_idle(), "that was no answer");
        transfer.ack(1);
        assert!(transfer.sender.is_idle());
        transfer.sends(&[2]);
        assert!(!transfer.sender.is_idle());
        transfer.receives(Packet::Error { code: ErrorCode::NOT_DEFINED, message: b"" });
        assert!(transfer.sender.is_idle());
        let mut transfer = Transfer::new(5000, b"windowsize\x004\0");
        assert_eq!(transfer.datagrams().len(), 1);
        transfer.ack(0);
        transfer.sends(&[1, 2, 3, 4]);
        transfer.ack(1);
        assert!(!transfer.sender.is_idle(), "the next one may say more");
        transfer.ack(4);
        assert!(transfer.sender.is_idle());
    }

    #[test]
    fn a_multiple_of_the_block_size_ends_with_an_empty_block() {
        for (size, blocks) in [(0, 1), (511, 1), (512, 2), (513, 2), (1024, 3)] {
            let mut transfer = Transfer::new(size, b"");
            for block in 1..=blocks {
                transfer.sends(&[block]);
                transfer.ack(block);
            }
            transfer.ends(Outcome::Complete);
        }
    }

    #[test]
    fn an_oack_is_sent_until_it_is_acknowledged_and_never_after() {
        let mut transfer = Transfer::new(100, b"tsize\x000\0");
        let oack = b"\x00\x06tsize\x00100\0".to_vec();
        assert_eq!(transfer.datagrams(), std::slice::from_ref(&oack));
        assert_eq!(transfer.expire(), Duration::from_secs(1));
        assert_eq!(transfer.datagrams(), [oack]);
        transfer.ack(0);
        transfer.sends(&[1]);
        transfer.ack(0);
        transfer.sends(&[]);
        transfer.expire();
        transfer.sends(&[1]);
        transfer.ack(1);
        transfer.ends(Outcome::Complete);
    }

    #[test]
    fn a_window_leaves_as_equal_segments_with_a_shorter_last() {
        let mut transfer = Transfer::new(25, b"blksize\x008\0windowsize\x004\0");
        transfer.datagrams();
        transfer.ack(0);
        transfer.buf.truncate(516);
        assert_eq!(transfer.poll(), Output::Transmit(Transmit { len: 12 + 12 + 12 + 5, segment: 12 }));
        assert_eq!(transfer.buf[36..41], [0, 3, 0, 4, transfer.file[24]]);
    }

    #[test]
    fn a_window_larger_than_the_buffer_leaves_in_parts() {
        let mut transfer = Transfer::new(100_000, b"blksize\x00512\0windowsize\x008\0");
        assert_eq!(transfer.sender.window_len(), 8 * 516);
        transfer.datagrams();
        transfer.ack(0);
        transfer.buf.truncate(3 * 516 + 100);
        assert_eq!(transfer.poll(), Output::Transmit(Transmit { len: 3 * 516, segment: 516 }));
        transfer.sends(&[4, 5, 6, 7, 8]);
    }

    #[test]
    fn an_ack_inside_the_window_goes_back_once() {
        let mut transfer = Transfer::new(100_000, b"windowsize\x004\0");
        transfer.datagrams();
        transfer.ack(0);
        transfer.sends(&[1, 2, 3, 4]);
        transfer.ack(2);
        transfer.sends(&[3, 4, 5, 6]);
        // EDK2 answers every datagram behind the gap with one more ACK of the last good block.
        for _ in 0..3 {
            transfer.ack(2);
            transfer.sends(&[]);
        }
        transfer.ack(6);
        transfer.sends(&[7, 8, 9, 10]);
        assert_eq!(transfer.sender.retransmitted(), 2);
    }

    #[test]
    fn a_late_ack_of_what_was_sent_before_going_back_counts() {
        let mut transfer = Transfer::new(100_000, b"windowsize\x004\0");
        transfer.datagrams();
        transfer.ack(0);
        transfer.sends(&[1, 2, 3, 4]);
        transfer.ack(1);
        transfer.ack(4);
        transfer.sends(&[5, 6, 7, 8]);
    }

    #[test]
    fn acks_of_the_past_and_the_future_change_nothing() {
        let mut transfer = Transfer::new(100_000, b"");
        transfer.sends(&[1]);
        transfer.ack(1);
        transfer.sends(&[2]);
        for block in [0, 1, 3, 4, 65_535, 32_770] {
            transfer.ack(block);
            transfer.sends(&[]);
        }
        transfer.ack(2);
        transfer.sends(&[3]);
    }

    #[test]
    fn block_numbers_roll_over_in_every_window_position() {
        for windowsize in [1u64, 2, 3, 5, 16] {
            let options = std::format!("blksize\x008\0windowsize\0{windowsize}\0");
            let mut transfer = Transfer::new(8 * 70_000, options.as_bytes());
            let mut received = Vec::<u8>::new();
            transfer.datagrams();
            transfer.ack(0);
            loop {
                let window = transfer.datagrams();
                let Some(last) = window.last() else { break };
                transfer.receives(Packet::Ack { block: u16::from_be_bytes([last[2], last[3]]) });
                received.extend(window.iter().flat_map(|datagram| &datagram[4..]));
            }
            transfer.ends(Outcome::Complete);
            assert!(received == transfer.file, "window {windowsize}");
        }
    }

    #[test]
    fn a_partial_ack_of_the_last_window_does_not_end_the_transfer() {
        let mut transfer = Transfer::new(4 * 512 - 1, b"windowsize\x008\0");
        transfer.datagrams();
        transfer.ack(0);
        transfer.sends(&[1, 2, 3, 4]);
        transfer.ack(3);
        transfer.sends(&[4]);
        transfer.ack(4);
        transfer.ends(Outcome::Complete);
    }

    #[test]
    fn what_is_not_acknowledged_is_sent_again_ever_more_slowly_and_then_given_up() {
        let mut transfer = Transfer::new(100_000, b"");
        transfer.sends(&[1]);
        let mut waits = vec![];
        let farewell = loop {
            waits.push(transfer.expire());
            let sent = transfer.datagrams();
            assert_eq!(sent.len(), 1);
            if !matches!(Packet::parse(&sent[0]), Ok(Packet::Data { block: 1, .. })) {
                break sent[0].clone();
            }
        };
        assert_eq!(farewell, b"\x00\x05\x00\x00timed out\0");
        assert!(waits.is_sorted(), "{waits:?}");
        assert!(waits.iter().sum::<Duration>() >= PATIENCE);
        assert!(waits.len() < 25, "{waits:?}");
        transfer.ends(Outcome::TimedOut);
    }

    /// The doubling went on up to the client's 255 s, far beyond our patience: after some losses one more was the end.
    #[test]
    fn a_client_that_names_a_long_timeout_is_tried_again_and_again() {
        let mut transfer = Transfer::new(100_000, b"timeout\x00255\0");
        transfer.datagrams();
        assert_eq!([(); 3].map(|()| (transfer.expire(), transfer.datagrams().len()).0.as_secs()), [1, 2, 4]);
        transfer.ack(0);
        for block in 1..20 {
            transfer.sends(&[block]);
            transfer.expire();
            transfer.sends(&[block]);
            transfer.ack(block);
        }
        transfer.sends(&[20]);
        let (mut waited, mut tries) = (transfer.expire(), 1);
        while waited < PATIENCE {
            transfer.sends(&[20]);
            waited += transfer.expire();
            tries += 1;
        }
        assert_eq!(transfer.datagrams(), [b"\x00\x05\x00\x00timed out\0".to_vec()]);
        assert!(tries >= 12, "{tries}");
    }

    #[test]
    fn after_an_answer_to_a_repetition_the_next_block_gets_as_long() {
        let mut transfer = Transfer::new(100_000, b"");
        transfer.sends(&[1]);
        transfer.pass(10);
        transfer.ack(1);
        transfer.sends(&[2]);
        let usual = transfer.expire();
        assert_eq!(usual, Duration::from_millis(50), "10 ms measured: the floor holds");
        transfer.sends(&[2]);
        assert_eq!(transfer.expire(), Duration::from_millis(60), "30 ms doubled");
        transfer.sends(&[2]);
        transfer.ack(2);
        transfer.sends(&[3]);
        assert_eq!(transfer.wait(), Duration::from_millis(50 + 60 + 10), "the answer may be to the first one");
        transfer.pass(10);
        transfer.ack(3);
        transfer.sends(&[4]);
        assert_eq!(transfer.wait(), usual);
    }

    /// A window that was slower than the usual time was sent twice, hence not measured, hence the next one sent twice as well.
    #[test]
    fn a_slow_link_is_not_sent_every_window_twice() {
        // What a window takes, in milliseconds, and how often the first is sent until that is known.
        for (windowsize, takes, sendings) in [(1, 60, 2), (1, 120, 3), (1, 3000, 9), (4, 120, 2), (4, 3000, 6)] {
            let asked = format!("windowsize\0{windowsize}\0");
            let mut transfer = Transfer::new(100_000, asked.as_bytes());
            transfer.datagrams();
            // The time known is that of the small OACK.
            transfer.pass(1);
            transfer.ack(0);
            for window in 1..=10 {
                let acked = transfer.now.after(Duration::from_millis(takes));
                transfer.datagrams();
                while transfer.now.after(transfer.wait()) < acked {
                    transfer.expire();
                    transfer.datagrams();
                }
                transfer.now = acked;
                transfer.ack(windowsize * window);
            }
            let again = transfer.sender.retransmitted() / u64::from(windowsize);
            assert_eq!(again + 1, sendings, "windows of {windowsize} that take {takes} ms");
        }
    }

    /// With a loss in every window no ACK was ever of its end, so the time stayed at the second it begins with.
    #[test]
    fn an_ack_inside_the_window_tells_the_round_trip() {
        let mut transfer = Transfer::new(100_000, b"windowsize\x004\0");
        transfer.datagrams();
        transfer.expire();
        transfer.datagrams();
        transfer.ack(0);
        transfer.sends(&[1, 2, 3, 4]);
        transfer.pass(10);
        transfer.ack(2);
        transfer.sends(&[3, 4, 5, 6]);
        assert_eq!(transfer.wait(), Duration::from_millis(50));
    }

    #[test]
    fn an_error_of_the_client_ends_the_transfer_unanswered() {
        for (acked, code, outcome) in [
            (false, 0, Outcome::Probed),
            (false, 8, Outcome::Probed),
            (false, 3, Outcome::PeerError(ErrorCode::DISK_FULL)),
            (true, 0, Outcome::PeerError(ErrorCode::NOT_DEFINED)),
        ] {
            let mut transfer = Transfer::new(100_000, b"tsize\x000\0");
            transfer.datagrams();
            if acked {
                transfer.ack(0);
                transfer.sends(&[1]);
                transfer.ack(1);
            }
            transfer.receives(Packet::Error { code: ErrorCode(code), message: b"" });
            transfer.ends(outcome);
        }
    }

    #[test]
    fn noise_changes_nothing() {
        let mut transfer = Transfer::new(100_000, b"");
        transfer.sends(&[1]);
        for datagram in
            [&b""[..], b"\0", b"\x00\x04", b"\x00\x03\x00\x01abc", b"\x00\x06", b"\x00\x01f\0octet\0", &[0xff; 600]]
        {
            transfer.sender.handle(transfer.now, datagram);
            transfer.sends(&[]);
        }
        transfer.ack(1);
        transfer.sends(&[2]);
    }

    /// Reads what it has been given so far.
    struct Loading<'a> {
        file: &'a [u8],
        loaded: usize,
    }

    impl BlockReader for Loading<'_> {
        fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<Option<usize>, ReadFailed> {
            if offset + buf.len() as u64 > self.loaded as u64 { Ok(None) } else { self.file.read_at(offset, buf) }
        }
    }

    #[test]
    fn nothing_is_promised_before_the_file_can_be_read() {
        let mut transfer = Transfer::new(2000, b"tsize\x000\0windowsize\x004\0");
        let mut file = Loading { file: &transfer.file, loaded: 0 };
        let mut buf = [0; 4096];
        assert_eq!(transfer.sender.poll(transfer.now, &mut file, &mut buf), Output::NeedData);
        // Loading may take as long as it likes: the client's patience is its own affair, ours starts with the answer.
        let now = transfer.now.after(2 * PATIENCE);
        file.loaded = 1200;
        assert!(matches!(transfer.sender.poll(now, &mut file, &mut buf), Output::Transmit(_)), "the OACK");
        assert_eq!(transfer.sender.poll(now, &mut file, &mut buf), Output::Wait(now.after(Duration::from_secs(1))));
        transfer.sender.handle(now, b"\x00\x04\x00\x00");
        let two = Output::Transmit(Transmit { len: 2 * 516, segment: 516 });
        assert_eq!(transfer.sender.poll(now, &mut file, &mut buf), two, "what is loaded leaves");
        assert_eq!(transfer.sender.poll(now, &mut file, &mut buf), Output::NeedData);
        file.loaded = 2000;
        let rest = Output::Transmit(Transmit { len: 516 + 468, segment: 516 });
        assert_eq!(transfer.sender.poll(now, &mut file, &mut buf), rest);
    }

    #[test]
    fn a_file_that_got_shorter_is_never_completed() {
        let mut transfer = Transfer::new(2000, b"");
        transfer.sends(&[1]);
        transfer.file.truncate(700);
        transfer.ack(1);
        let error = b"\x00\x05\x00\x00the file changed during the transfer\0".to_vec();
        assert_eq!(transfer.datagrams(), [error]);
        transfer.ends(Outcome::ReadFailed(ReadFailed("the file changed during the transfer")));
    }

    #[test]
    fn a_file_of_unknown_size_ends_where_reading_ends() {
        for (size, blocks) in [(0, 1), (511, 1), (512, 2), (1300, 3)] {
            let mut transfer = Transfer::new(size, b"");
            transfer.sender = Sender::new(transfer.now, Settings::default(), Granted::default(), None);
            for block in 1..=blocks {
                transfer.sends(&[block]);
                transfer.expire();
                transfer.sends(&[block]);
                transfer.ack(block);
            }
            transfer.ends(Outcome::Complete);
            assert_eq!(transfer.sender.acknowledged(), size as u64);
        }
    }

    #[test]
    fn windows_that_keep_losing_are_spread_over_time() {
        let mut transfer = Transfer::new(1_000_000, b"windowsize\x008\0");
        transfer.datagrams();
        transfer.ack(0);
        for lost in [4, 7] {
            assert_eq!(transfer.datagrams().len(), 8);
            transfer.pass(8);
            transfer.ack(lost - 1);
        }
        // The next one takes the time of an answer.
        transfer.sends(&[7]);
        assert_eq!(transfer.expire(), Duration::from_millis(1));
        transfer.sends(&[8]);
        transfer.pass(3);
        transfer.sends(&[9, 10, 11]);
        transfer.ack(8);
        transfer.sends(&[9]);
    }

    #[test]
    fn the_driver_can_end_it() {
        let mut transfer = Transfer::new(2000, b"");
        transfer.sends(&[1]);
        transfer.sender.abort("shutting down");
        assert_eq!(transfer.datagrams(), [b"\x00\x05\x00\x00shutting down\0".to_vec()]);
        transfer.ends(Outcome::Aborted);
    }

    #[test]
    fn a_buffer_too_small_for_a_packet_ends_the_transfer() {
        let mut transfer = Transfer::new(2000, b"blksize\x001468\0");
        transfer.buf.truncate(1471);
        assert!(matches!(transfer.poll(), Output::Transmit(_)), "the ERROR");
        transfer.ends(Outcome::ReadFailed(ReadFailed("the send buffer is too small")));
    }
}
