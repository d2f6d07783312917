//! A block reader of one's own: a file in SPI flash, where bytes take a while to come and RAM is short.
//!
//! The reader keeps one piece of the file. What is not in it is "not loaded yet"; the state machine then says `NeedData`, and
//! the driver has the piece loaded, by DMA say, while it does other things. Run it with `cargo run --example flash`.

use rtftp_core::{
    BlockReader, Instant, Outcome, Output, Packet, ReadFailed, Sender,
    wire::options::{Limits, negotiate},
};

/// How much of the file is in RAM, in bytes: a block must fit in, or it is never loaded.
const PIECE: usize = 4096;

/// A file that lies in flash.
struct FlashFile<'a> {
    /// Stands for the chip; here it can be read at once.
    chip: &'a [u8],
    piece: [u8; PIECE],
    /// The bytes of the file that `piece` holds.
    start: usize,
    len: usize,
    /// What was asked for last and was not there.
    missing: usize,
}

impl BlockReader for FlashFile<'_> {
    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<Option<usize>, ReadFailed> {
        let offset = usize::try_from(offset).map_err(|_| ReadFailed("the file is not that long"))?;
        let wanted = buf.len().min(self.chip.len().saturating_sub(offset));
        let loaded = offset.checked_sub(self.start).and_then(|skip| self.piece[..self.len].get(skip..)?.get(..wanted));
        match loaded {
            Some(bytes) => buf[..wanted].copy_from_slice(bytes),
            None => self.missing = offset,
        }
        Ok(loaded.map(<[u8]>::len))
    }
}

impl<'a> FlashFile<'a> {
    /// Nothing is loaded at first.
    fn new(chip: &'a [u8]) -> Self {
        Self { chip, piece: [0; PIECE], start: 0, len: 0, missing: 0 }
    }

    /// Loads the piece that begins with what was missing. On a board: starts the transfer, and returns when it is done.
    fn load(&mut self) {
        self.start = self.missing;
        self.len = PIECE.min(self.chip.len().saturating_sub(self.start));
        self.piece[..self.len].copy_from_slice(&self.chip[self.start..self.start + self.len]);
    }
}

/// Serves one request to a client that acknowledges every packet. Returns the outcome, what the client has then, and how often
/// a piece was loaded.
fn serve(request: &[u8], chip: &[u8]) -> (Outcome, Vec<u8>, usize) {
    let Ok(Packet::ReadRequest(request)) = Packet::parse(request) else { panic!("not a read request") };
    let size = Some(chip.len() as u64);
    let (settings, granted) = negotiate(request.options, &Limits::default(), size);
    let mut now = Instant::from_micros(0);
    let mut sender = Sender::new(now, settings, granted, size);
    let mut file = FlashFile::new(chip);
    let (mut buf, mut received, mut loads) = ([0; 4096], Vec::new(), 0);
    loop {
        match sender.poll(now, &mut file, &mut buf) {
            Output::NeedData => {
                file.load();
                loads += 1;
            }
            Output::Transmit(transmit) => {
                for datagram in buf[..transmit.len].chunks(transmit.segment) {
                    let block = match Packet::parse(datagram) {
                        Ok(Packet::Data { block, payload }) => {
                            received.extend_from_slice(payload);
                            block
                        }
                        _ => 0,
                    };
                    let mut ack = [0; 4];
                    Packet::Ack { block }.write(&mut ack);
                    sender.handle(now, &ack);
                }
            }
            Output::Wait(until) => now = until,
            Output::Finished(outcome) => return (outcome, received, loads),
        }
    }
}

fn main() {
    let chip: Vec<u8> = (0..100_000u32).map(|at| at as u8).collect();
    let (outcome, received, loads) = serve(b"\0\x01firmware\0octet\0blksize\x001428\0windowsize\x004\0", &chip);
    println!("{outcome:?}: {} bytes, {loads} pieces of {PIECE} bytes loaded", received.len());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_file_comes_from_pieces() {
        let chip: Vec<u8> = (0..100_000u32).map(|at| (at % 251) as u8).collect();
        for request in [
            &b"\0\x01firmware\0octet\0"[..],
            b"\0\x01firmware\0octet\0blksize\x001428\0windowsize\x004\0",
            b"\0\x01firmware\0octet\0blksize\x004000\0windowsize\x0016\0",
        ] {
            let (outcome, received, loads) = serve(request, &chip);
            assert_eq!(outcome, Outcome::Complete);
            assert!(received == chip, "{} bytes came", received.len());
            assert!(loads >= chip.len() / PIECE, "{loads} loads");
        }
    }
}
