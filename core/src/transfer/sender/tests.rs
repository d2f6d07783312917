use std::{format, vec, vec::Vec};

use super::*;
use crate::wire::{
    options::{Limits, negotiate},
    packet::Options,
};

/// A sender in virtual time, and the file it sends.
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

    /// Returns all datagrams that leave before the sender waits or ends.
    fn datagrams(&mut self) -> Vec<Vec<u8>> {
        let mut all = vec![];
        while let Output::Transmit(Transmit { len, segment }) = self.poll() {
            all.extend(self.buf[..len].chunks(segment).map(<[u8]>::to_vec));
        }
        all
    }

    /// Asserts the numbers of the DATA blocks that leave now.
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

    /// Returns how long the sender waits now.
    fn wait(&mut self) -> Duration {
        let Output::Wait(until) = self.poll() else { panic!("expected a wait") };
        assert!(until > self.now, "a wait lies in the future");
        until.since(self.now)
    }

    /// Passes the time of the current wait and returns it.
    fn expire(&mut self) -> Duration {
        let waited = self.wait();
        self.now = self.now.after(waited);
        waited
    }

    #[track_caller]
    fn ends(&mut self, outcome: Outcome) {
        assert_eq!(self.poll(), Output::Finished(outcome));
        assert_eq!(self.poll(), Output::Finished(outcome), "every later poll returns the same");
    }
}

#[test]
fn sends_a_file_in_lockstep() {
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
fn is_idle_when_everything_is_acknowledged() {
    let mut transfer = Transfer::new(2000, b"");
    transfer.sends(&[1]);
    transfer.ack(0);
    assert!(!transfer.sender.is_idle(), "ACK 0 acknowledges nothing");
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
    assert!(!transfer.sender.is_idle(), "blocks 2 to 4 are in flight");
    transfer.ack(4);
    assert!(transfer.sender.is_idle());
}

#[test]
fn ends_with_an_empty_block_after_a_multiple_of_the_block_size() {
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
fn repeats_the_oack_until_it_is_acknowledged_and_never_after() {
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
fn window_is_equal_segments_with_a_shorter_last() {
    let mut transfer = Transfer::new(25, b"blksize\x008\0windowsize\x004\0");
    transfer.datagrams();
    transfer.ack(0);
    transfer.buf.truncate(516);
    assert_eq!(transfer.poll(), Output::Transmit(Transmit { len: 12 + 12 + 12 + 5, segment: 12 }));
    assert_eq!(transfer.buf[36..41], [0, 3, 0, 4, transfer.file[24]]);
}

#[test]
fn sends_a_window_larger_than_the_buffer_in_parts() {
    let mut transfer = Transfer::new(100_000, b"blksize\x00512\0windowsize\x008\0");
    assert_eq!(transfer.sender.window_len(), 8 * 516);
    transfer.datagrams();
    transfer.ack(0);
    transfer.buf.truncate(3 * 516 + 100);
    assert_eq!(transfer.poll(), Output::Transmit(Transmit { len: 3 * 516, segment: 516 }));
    transfer.sends(&[4, 5, 6, 7, 8]);
}

#[test]
fn ack_inside_the_window_causes_one_retransmission() {
    let mut transfer = Transfer::new(100_000, b"windowsize\x004\0");
    transfer.datagrams();
    transfer.ack(0);
    transfer.sends(&[1, 2, 3, 4]);
    transfer.ack(2);
    transfer.sends(&[3, 4, 5, 6]);
    // EDK2 answers every datagram behind a gap with another ACK of the last good block.
    for _ in 0..3 {
        transfer.ack(2);
        transfer.sends(&[]);
    }
    transfer.ack(6);
    transfer.sends(&[7, 8, 9, 10]);
    assert_eq!(transfer.sender.retransmitted(), 2);
}

#[test]
fn accepts_a_late_ack_of_blocks_sent_before_a_retransmission() {
    let mut transfer = Transfer::new(100_000, b"windowsize\x004\0");
    transfer.datagrams();
    transfer.ack(0);
    transfer.sends(&[1, 2, 3, 4]);
    transfer.ack(1);
    transfer.ack(4);
    transfer.sends(&[5, 6, 7, 8]);
}

#[test]
fn ignores_acks_of_blocks_not_in_flight() {
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
fn partial_ack_of_the_last_window_does_not_end_the_transfer() {
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
fn retransmits_with_doubling_timeouts_and_then_gives_up() {
    let mut transfer = Transfer::new(100_000, b"");
    transfer.sends(&[1]);
    transfer.ack(1);
    transfer.sends(&[2]);
    let mut waits = vec![];
    let error = loop {
        waits.push(transfer.expire());
        let sent = transfer.datagrams();
        assert_eq!(sent.len(), 1);
        if !matches!(Packet::parse(&sent[0]), Ok(Packet::Data { block: 2, .. })) {
            break sent[0].clone();
        }
    };
    assert_eq!(error, b"\x00\x05\x00\x00timed out\0");
    assert!(waits.is_sorted(), "{waits:?}");
    assert!(waits.iter().sum::<Duration>() >= PATIENCE);
    assert!(waits.len() < 25, "{waits:?}");
    transfer.ends(Outcome::TimedOut);
}

/// With `utimeout` 10000, one forged request made the server send 5,848 packets; with `timeout` 1 it was 61, without options 15.
#[test]
fn unverified_client_receives_six_packets_whatever_it_asks_for() {
    let all = b"blksize\x0065464\0windowsize\x0064\0timeout\x00255\0utimeout\x0010000\0tsize\x000\0rollover\x001\0";
    let requests: [&[u8]; 10] = [
        b"",
        b"tsize\x000\0",
        b"blksize\x008\0",
        b"blksize\x0065464\0",
        b"windowsize\x0064\0",
        b"timeout\x001\0",
        b"timeout\x00255\0",
        b"utimeout\x0010000\0",
        b"rollover\x001\0",
        all,
    ];
    for options in requests {
        for known_port in [false, true] {
            let mut transfer = Transfer::new(100_000, options);
            if known_port {
                transfer.sender = transfer.sender.on_known_port(1);
            }
            let (mut sent, mut bytes) = (vec![], 0);
            let outcome = loop {
                match transfer.poll() {
                    Output::Transmit(Transmit { len, segment }) => {
                        assert_eq!(len, segment, "one packet");
                        sent.push(transfer.now.as_micros() / 1_000_000);
                        bytes += len;
                    }
                    Output::Wait(until) => transfer.now = until,
                    Output::Finished(outcome) => break outcome,
                    Output::NeedData => panic!("the file is in memory"),
                }
            };
            std::println!("{}: {} packets, {bytes} bytes", options.escape_ascii(), sent.len());
            assert_eq!((outcome, &sent[..]), (Outcome::TimedOut, &[0, 1, 3, 7, 15, 31][..]));
            assert_eq!(transfer.now, Instant::from_micros(63_000_000), "the last interval is waited for");
            assert!(bytes <= 6 * 516);
        }
    }
}

#[test]
fn error_counts_as_a_packet_to_an_unverified_client() {
    for (sendings, errors) in [(5, 1), (6, 0)] {
        let mut transfer = Transfer::new(2000, b"");
        transfer.sends(&[1]);
        for _ in 1..sendings {
            transfer.expire();
            transfer.sends(&[1]);
        }
        transfer.sender.abort("shutting down");
        assert_eq!(transfer.datagrams().len(), errors);
        transfer.ends(Outcome::Aborted);
    }
}

/// One forged ACK made the server repeat a window for a minute.
#[test]
fn ack_of_the_oack_proves_nothing_on_a_known_port() {
    for (known_port, verified) in [(false, true), (true, false)] {
        let mut transfer = Transfer::new(100_000, b"windowsize\x004\0");
        if known_port {
            transfer.sender = transfer.sender.on_known_port(1);
        }
        assert_eq!(transfer.datagrams().len(), 1);
        transfer.ack(0);
        assert_eq!(transfer.sender.is_verified(), verified);
        let mut packets = 0;
        let outcome = loop {
            packets += transfer.datagrams().len();
            match transfer.poll() {
                Output::Wait(until) => transfer.now = until,
                Output::Finished(outcome) => break outcome,
                other => panic!("{other:?}"),
            }
        };
        std::println!("known port: {known_port}, {packets} packets in {} s", transfer.now.as_micros() / 1_000_000);
        assert_eq!(outcome, Outcome::TimedOut);
        assert_eq!(packets == 5 * 4, known_port, "five windows and no ERROR");
    }
}

#[test]
fn agreed_timeout_is_kept_and_lengthens_the_patience() {
    for (option, interval, tries) in [(&b"timeout\x0060\0"[..], 60_000, 4), (b"timeout\x00255\0", 255_000, 4)] {
        let mut transfer = Transfer::new(100_000, option);
        transfer.datagrams();
        transfer.ack(0);
        transfer.sends(&[1]);
        transfer.pass(1);
        transfer.ack(1);
        for _ in 0..tries {
            transfer.sends(&[2]);
            assert_eq!(transfer.expire(), Duration::from_millis(interval));
        }
        assert_eq!(transfer.datagrams(), [b"\x00\x05\x00\x00timed out\0".to_vec()]);
    }
}

/// While `utimeout` was the upper bound, a silent client received 100 packets a second.
#[test]
fn short_agreed_timeout_still_backs_off() {
    let mut transfer = Transfer::new(100_000, b"utimeout\x0010000\0");
    transfer.datagrams();
    transfer.ack(0);
    transfer.sends(&[1]);
    let mut waits = vec![transfer.expire()];
    while transfer.datagrams()[0][1] == 3 {
        waits.push(transfer.expire());
    }
    assert!(waits.is_sorted() && waits.len() < 25, "{waits:?}");
}

#[test]
fn client_that_never_got_block_1_is_no_probe() {
    for (repetitions, outcome) in
        [(0, Outcome::Probed), (4, Outcome::Probed), (10, Outcome::FirstBlockLost { repetitions: 10 })]
    {
        let mut transfer = Transfer::new(100_000, b"tsize\x000\0");
        transfer.datagrams();
        transfer.ack(0);
        transfer.sends(&[1]);
        for _ in 0..repetitions {
            transfer.expire();
            transfer.sends(&[1]);
        }
        transfer.receives(Packet::Error { code: ErrorCode::NOT_DEFINED, message: b"" });
        transfer.ends(outcome);
    }
}

#[test]
fn closed_port_ends_the_transfer_without_an_error() {
    let mut transfer = Transfer::new(2000, b"");
    transfer.sends(&[1]);
    transfer.sender.port_closed();
    transfer.ends(Outcome::PortClosed);
    transfer.ack(1);
    transfer.sender.abort("shutting down");
    transfer.ends(Outcome::PortClosed);
}

#[test]
fn ambiguous_ack_extends_the_timeout_of_the_next_block() {
    let mut transfer = Transfer::new(100_000, b"");
    transfer.sends(&[1]);
    transfer.pass(10);
    transfer.ack(1);
    transfer.sends(&[2]);
    let usual = transfer.expire();
    assert_eq!(usual, Duration::from_millis(50), "10 ms measured: the lower bound applies");
    transfer.sends(&[2]);
    assert_eq!(transfer.expire(), Duration::from_millis(60), "30 ms doubled");
    transfer.sends(&[2]);
    transfer.ack(2);
    transfer.sends(&[3]);
    assert_eq!(transfer.wait(), Duration::from_millis(50 + 60 + 10), "the ACK may answer the first sending");
    transfer.pass(10);
    transfer.ack(3);
    transfer.sends(&[4]);
    assert_eq!(transfer.wait(), usual);
}

/// A window slower than the timeout was sent twice, so it was not measured, so the next one was sent twice too.
#[test]
fn slow_link_does_not_get_every_window_twice() {
    // The size of a window, how long it takes in milliseconds, and how often the first is sent until that is measured.
    for (windowsize, takes, sendings) in [(1, 60, 2), (1, 120, 3), (1, 3000, 9), (4, 120, 2), (4, 3000, 6)] {
        let asked = format!("windowsize\0{windowsize}\0");
        let mut transfer = Transfer::new(100_000, asked.as_bytes());
        transfer.datagrams();
        // Only the small OACK is measured.
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

/// With a loss in every window no ACK named its last block, so the timeout stayed at its initial second.
#[test]
fn ack_inside_the_window_measures_the_round_trip() {
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
fn client_error_ends_the_transfer_without_an_answer() {
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
fn ignores_malformed_and_unexpected_datagrams() {
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

/// A reader with only the first `loaded` bytes loaded.
struct PartlyLoaded<'a> {
    file: &'a [u8],
    loaded: usize,
}

impl BlockReader for PartlyLoaded<'_> {
    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<Option<usize>, ReadFailed> {
        if offset + buf.len() as u64 > self.loaded as u64 { Ok(None) } else { self.file.read_at(offset, buf) }
    }
}

#[test]
fn sends_the_oack_only_when_the_file_can_be_read() {
    let mut transfer = Transfer::new(2000, b"tsize\x000\0windowsize\x004\0");
    let mut file = PartlyLoaded { file: &transfer.file, loaded: 0 };
    let mut buf = [0; 4096];
    assert_eq!(transfer.sender.poll(transfer.now, &mut file, &mut buf), Output::NeedData);
    // The patience starts with the OACK, so loading may take longer.
    let now = transfer.now.after(2 * PATIENCE);
    file.loaded = 1200;
    assert!(matches!(transfer.sender.poll(now, &mut file, &mut buf), Output::Transmit(_)), "the OACK");
    assert_eq!(transfer.sender.poll(now, &mut file, &mut buf), Output::Wait(now.after(Duration::from_secs(1))));
    transfer.sender.handle(now, b"\x00\x04\x00\x00");
    let two = Output::Transmit(Transmit { len: 2 * 516, segment: 516 });
    assert_eq!(transfer.sender.poll(now, &mut file, &mut buf), two, "loaded blocks leave");
    assert_eq!(transfer.sender.poll(now, &mut file, &mut buf), Output::NeedData);
    file.loaded = 2000;
    let rest = Output::Transmit(Transmit { len: 516 + 468, segment: 516 });
    assert_eq!(transfer.sender.poll(now, &mut file, &mut buf), rest);
}

#[test]
fn shorter_file_ends_the_transfer_with_an_error() {
    let mut transfer = Transfer::new(2000, b"");
    transfer.sends(&[1]);
    transfer.file.truncate(700);
    transfer.ack(1);
    let error = b"\x00\x05\x00\x00the file changed during the transfer\0".to_vec();
    assert_eq!(transfer.datagrams(), [error]);
    transfer.ends(Outcome::ReadFailed(ReadFailed("the file changed during the transfer")));
}

#[test]
fn file_of_unknown_size_ends_with_a_short_read() {
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
fn paces_windows_after_losses() {
    let mut transfer = Transfer::new(1_000_000, b"windowsize\x008\0");
    transfer.datagrams();
    transfer.ack(0);
    for lost in [4, 7] {
        assert_eq!(transfer.datagrams().len(), 8);
        transfer.pass(8);
        transfer.ack(lost - 1);
    }
    // The next one is spread over a round trip.
    transfer.sends(&[7]);
    assert_eq!(transfer.expire(), Duration::from_millis(1));
    transfer.sends(&[8]);
    transfer.pass(3);
    transfer.sends(&[9, 10, 11]);
    transfer.ack(8);
    transfer.sends(&[9]);
}

#[test]
fn abort_sends_an_error() {
    let mut transfer = Transfer::new(2000, b"");
    transfer.sends(&[1]);
    transfer.sender.abort("shutting down");
    assert_eq!(transfer.datagrams(), [b"\x00\x05\x00\x00shutting down\0".to_vec()]);
    transfer.ends(Outcome::Aborted);
}

#[test]
fn buffer_too_small_for_a_packet_ends_the_transfer() {
    let mut transfer = Transfer::new(2000, b"blksize\x001468\0");
    transfer.buf.truncate(1471);
    assert!(matches!(transfer.poll(), Output::Transmit(_)), "the ERROR");
    transfer.ends(Outcome::ReadFailed(ReadFailed("the send buffer is too small")));
}

#[test]
fn first_window_without_an_answer_may_exceed_the_mtu() {
    for (options, from) in [
        (&b"blksize\x001468\0windowsize\x004\0"[..], Some(2)),
        (b"blksize\x001468\0", Some(2)),
        (b"blksize\x001468\0timeout\x0060\0", Some(1)),
        (b"tsize\x000\0windowsize\x004\0", None),
    ] {
        let mut transfer = Transfer::new(100_000, options);
        let _ = transfer.poll();
        assert!(!transfer.sender.may_exceed_mtu(transfer.now), "the OACK is small");
        transfer.ack(0);
        for repetitions in 0..3 {
            transfer.datagrams();
            let expected = from.is_some_and(|from| repetitions >= from);
            assert_eq!(transfer.sender.may_exceed_mtu(transfer.now), expected, "{repetitions} repetitions");
            transfer.expire();
        }
        let _ = transfer.poll();
        transfer.ack(1);
        for _ in 0..2 {
            transfer.datagrams();
            transfer.expire();
            assert!(!transfer.sender.may_exceed_mtu(transfer.now), "a block has arrived");
        }
    }
}
