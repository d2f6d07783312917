//! Sends a file from SPI flash: a block reader that loads its bytes on demand, with little RAM.
//!
//! The reader keeps one chunk of the file. For any other bytes it returns "not loaded", so the sender asks for
//! [`Output::NeedData`]; the driver then loads the chunk (by DMA, for example) while it does other work.
//!
//! ```text
//! cargo run -p rtftp-core --example flash
//! ```

use rtftp_core::{
    BlockReader, Instant, Outcome, Output, Packet, ReadFailed, Sender,
    wire::options::{Limits, negotiate},
};

/// The part of the file in RAM, in bytes. A block larger than this could never be loaded.
const CHUNK: usize = 4096;

/// A file in flash.
struct FlashFile<'a> {
    /// The contents of the chip, which can be read at once here.
    chip: &'a [u8],
    chunk: [u8; CHUNK],
    /// The offset of the chunk in the file.
    start: usize,
    len: usize,
    /// The offset of the last read that was not loaded.
    missing: usize,
}

impl BlockReader for FlashFile<'_> {
    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<Option<usize>, ReadFailed> {
        let offset = usize::try_from(offset).map_err(|_| ReadFailed("the offset is too large"))?;
        let len = buf.len().min(self.chip.len().saturating_sub(offset));
        let loaded = offset.checked_sub(self.start).and_then(|skip| self.chunk[..self.len].get(skip..)?.get(..len));
        match loaded {
            Some(bytes) => buf[..len].copy_from_slice(bytes),
            None => self.missing = offset,
        }
        Ok(loaded.map(<[u8]>::len))
    }
}

impl<'a> FlashFile<'a> {
    /// Creates a reader with nothing loaded.
    fn new(chip: &'a [u8]) -> Self {
        Self { chip, chunk: [0; CHUNK], start: 0, len: 0, missing: 0 }
    }

    /// Loads the chunk at the missing offset. On a board this starts a DMA transfer and returns when it is done.
    fn load(&mut self) {
        self.start = self.missing;
        self.len = CHUNK.min(self.chip.len().saturating_sub(self.start));
        self.chunk[..self.len].copy_from_slice(&self.chip[self.start..self.start + self.len]);
    }
}

/// Serves one request to a client that acknowledges every packet. Returns the outcome, the bytes that the client received, and
/// the number of chunks that were loaded.
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
                    Packet::Ack { block }.write(&mut ack).expect("an ACK has 4 bytes");
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
    println!("{outcome}: {} bytes, loaded {loads} chunks of {CHUNK} bytes", received.len());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sends_the_whole_file_in_chunks() {
        let chip: Vec<u8> = (0..100_000u32).map(|at| (at % 251) as u8).collect();
        for request in [
            &b"\0\x01firmware\0octet\0"[..],
            b"\0\x01firmware\0octet\0blksize\x001428\0windowsize\x004\0",
            b"\0\x01firmware\0octet\0blksize\x004000\0windowsize\x0016\0",
        ] {
            let (outcome, received, loads) = serve(request, &chip);
            assert_eq!(outcome, Outcome::Complete);
            assert!(received == chip, "{} bytes", received.len());
            assert!(loads >= chip.len() / CHUNK, "{loads} loads");
        }
    }
}
