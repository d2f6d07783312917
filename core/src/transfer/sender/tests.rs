mod reading;
mod timeouts;
mod unverified;

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
