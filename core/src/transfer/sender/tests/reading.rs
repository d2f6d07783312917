//! Files that are not in memory, or do not have their size.

use super::*;

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
    transfer.ends(Outcome::ReadFailed(ReadFailed::CHANGED));
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
