mod timeouts;

use std::vec;

use super::*;
use crate::transfer::io::WriteFailed;

/// A receiver in virtual time, and the bytes it has delivered.
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
        assert_eq!(offset, self.bytes.len() as u64, "in order and once");
        if self.bytes.len() + bytes.len() > self.room {
            return Err(WriteFailed("no space left"));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }
}

const WINDOW: RequestedOptions = RequestedOptions { blksize: Some(8), windowsize: Some(4), timeout: None, tsize: true };

impl Transfer {
    fn new(options: RequestedOptions) -> Self {
        Self::with_config(ReceiverConfig { options, ..ReceiverConfig::default() })
    }

    fn with_config(config: ReceiverConfig) -> Self {
        let now = Instant::from_micros(0);
        let receiver = Receiver::new(now, b"kernel", config).expect("a valid request");
        let mut transfer =
            Self { receiver, disk: Disk { bytes: vec![], room: usize::MAX }, now, buf: [0; MAX_REQUEST] };
        assert_eq!(transfer.sent().map(|datagram| datagram[..2].to_vec()), Some(vec![0, 1]), "the request");
        transfer
    }

    /// Starts a transfer in windows of four blocks of 8 bytes. ACK 0 is sent and block 1 has measured a round trip of 10 ms.
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

    /// Receives a whole block of 8 bytes.
    fn block(&mut self, block: u16) {
        self.data(block, &[block as u8; 8]);
    }

    fn pass(&mut self, millis: u64) {
        self.now = self.now.after(Duration::from_millis(millis));
    }

    /// Passes the time of the current wait and returns it.
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
            assert_eq!(
                self.receiver.poll(self.now, &mut self.buf),
                Output::Finished(outcome),
                "every later poll returns the same"
            );
        }
    }
}

#[test]
fn request_names_the_file_and_the_options() {
    let options = RequestedOptions { blksize: Some(1468), windowsize: Some(64), timeout: Some(2), tsize: true };
    let now = Instant::from_micros(0);
    let mut receiver = Receiver::new(now, b"boot/vmlinuz", ReceiverConfig { options, ..ReceiverConfig::default() })
        .expect("a valid request");
    let mut buf = [0; MAX_REQUEST];
    let request = b"\x00\x01boot/vmlinuz\0octet\0tsize\x000\0blksize\x001468\0windowsize\x0064\0timeout\x002\0";
    let len = request.len();
    assert_eq!(receiver.poll(now, &mut buf), Output::Transmit(Transmit { len, segment: len }));
    assert_eq!(buf[..len].escape_ascii().to_string(), request.escape_ascii().to_string());
}

use std::string::ToString;

#[test]
fn rejects_invalid_and_too_long_names() {
    let new = |file: &[u8], options| {
        let config = ReceiverConfig { options, ..ReceiverConfig::default() };
        Receiver::new(Instant::from_micros(0), file, config).err()
    };
    assert_eq!(new(&[b'a'; MAX_REQUEST - 9], RequestedOptions::default()), None);
    assert_eq!(new(&[b'a'; MAX_REQUEST - 8], RequestedOptions::default()), Some(InvalidPath::TooLong));
    assert_eq!(new(&[b'a'; MAX_REQUEST - 9], WINDOW), Some(InvalidPath::TooLong));
    assert_eq!(new(b"", WINDOW), Some(InvalidPath::Empty));
    assert_eq!(new(b"a\0octet", WINDOW), Some(InvalidPath::Nul));
}

#[test]
fn receives_in_lockstep_from_a_server_without_options() {
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
fn acknowledges_each_window_once() {
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
fn settings_are_those_of_the_oack() {
    assert_eq!(Transfer::new(WINDOW).receiver.settings(), Settings::default());
    let settings = Settings { blksize: 8, windowsize: 4, ..Settings::default() };
    assert_eq!(Transfer::windowed().receiver.settings(), settings);
}

#[test]
fn refuses_an_oack_with_other_options() {
    for oack in [&b"\x00\x06blksize\x009\0"[..], b"\x00\x06timeout\x001\0", b"\x00\x06windowsize\x000\0"] {
        let mut transfer = Transfer::new(WINDOW);
        transfer.receives(oack);
        let error = transfer.sent().expect("the ERROR");
        assert_eq!(error, b"\x00\x05\x00\x08these options were not requested\0");
        transfer.ends(Outcome::Refused(ErrorCode::OPTIONS_REFUSED));
    }
}

#[test]
fn answers_a_repeated_oack_until_data_arrives() {
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
fn reports_a_gap_once() {
    let mut transfer = Transfer::windowed();
    transfer.block(2);
    transfer.block(4);
    transfer.acks(2);
    for block in [5, 4, 6] {
        transfer.block(block);
        transfer.is_silent();
    }
    // The server goes back, and the window starts behind the acknowledged blocks.
    for block in [3, 4, 5] {
        transfer.block(block);
        transfer.is_silent();
    }
    transfer.block(6);
    transfer.acks(6);
    assert_eq!(transfer.disk.bytes.len(), 48);
}

#[test]
fn repeats_a_lost_ack_when_its_block_comes_again() {
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
fn acknowledges_a_repeated_last_block_inside_a_window() {
    let mut transfer = Transfer::windowed();
    transfer.block(2);
    transfer.pass(40);
    transfer.block(1);
    transfer.is_silent();
    transfer.block(2);
    transfer.acks(2);
}

/// The "Sorcerer's Apprentice" bug: with a server that answers each ACK, two ACKs double everything that follows.
#[test]
fn ignores_copies_made_by_the_network() {
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
fn server_error_ends_the_transfer() {
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
fn failing_sink_ends_the_transfer() {
    let mut transfer = Transfer::windowed();
    transfer.disk.room = 20;
    transfer.block(2);
    transfer.block(3);
    assert_eq!(transfer.sent(), Some(b"\x00\x05\x00\x03no space left\0".to_vec()));
    transfer.ends(Outcome::WriteFailed(WriteFailed("no space left")));
    assert_eq!(transfer.receiver.delivered(), 16);
}

#[test]
fn refuses_a_block_longer_than_negotiated() {
    let mut transfer = Transfer::windowed();
    transfer.data(2, &[0; 9]);
    assert_eq!(transfer.sent().expect("the ERROR")[..4], [0, 5, 0, 4]);
    transfer.ends(Outcome::Refused(ErrorCode::ILLEGAL_OPERATION));
}

#[test]
fn abort_sends_an_error_to_a_known_peer() {
    let mut transfer = Transfer::windowed();
    transfer.receiver.abort("too large");
    assert_eq!(transfer.sent(), Some(b"\x00\x05\x00\x00too large\0".to_vec()));
    transfer.ends(Outcome::Aborted);
    let mut transfer = Transfer::new(WINDOW);
    transfer.receiver.abort("too large");
    transfer.ends(Outcome::Aborted);
}

#[test]
fn ignores_malformed_and_unexpected_datagrams() {
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
