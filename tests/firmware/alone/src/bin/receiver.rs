//! Asks for a file and receives it.
#![no_std]
#![no_main]

use alone::unknown;
use cortex_m_rt::entry;
use rtftp_core::{BlockSink, Instant, Receiver, WriteFailed, wire::options::RequestedOptions};

struct Sink;

impl BlockSink for Sink {
    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), WriteFailed> {
        #[cfg(feature = "panic-sneaks-in")]
        unknown(bytes[offset as usize]);
        unknown((offset, bytes));
        unknown(Ok(()))
    }
}

#[entry]
fn main() -> ! {
    let mut packet = [0; 600];
    let wanted = RequestedOptions { blksize: Some(1428), windowsize: Some(4), timeout: None, tsize: true };
    let Ok(mut receiver) = Receiver::new(now(), unknown(b"file"), unknown(wanted)) else { loop {} };
    loop {
        unknown(receiver.poll(now(), unknown(&mut packet)));
        receiver.handle(now(), unknown(&packet), &mut Sink);
    }
}

fn now() -> Instant {
    Instant::from_micros(unknown(0))
}
