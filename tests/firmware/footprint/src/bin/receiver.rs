//! Requests a file and receives it.
#![no_std]
#![no_main]

use cortex_m_rt::entry;
use footprint::opaque;
use rtftp_core::{BlockSink, Instant, Receiver, ReceiverConfig, WriteFailed, wire::options::RequestedOptions};

struct Sink;

impl BlockSink for Sink {
    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), WriteFailed> {
        #[cfg(feature = "add-panic")]
        opaque(bytes[offset as usize]);
        opaque((offset, bytes));
        opaque(Ok(()))
    }
}

#[entry]
fn main() -> ! {
    let mut packet = [0; 600];
    let options = RequestedOptions { blksize: Some(1428), windowsize: Some(4), timeout: None, tsize: true };
    let config = ReceiverConfig { options, ..ReceiverConfig::DEFAULT };
    let Ok(mut receiver) = Receiver::new(now(), opaque(b"file"), opaque(config)) else { loop {} };
    loop {
        let _ = opaque(receiver.poll(now(), opaque(&mut packet)));
        receiver.handle(now(), opaque(&packet), &mut Sink);
    }
}

fn now() -> Instant {
    Instant::from_micros(opaque(0))
}
