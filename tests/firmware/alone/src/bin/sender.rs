//! Reads a request, agrees on options and sends a file.
#![no_std]
#![no_main]

use alone::unknown;
use cortex_m_rt::entry;
use rtftp_core::{
    Instant, Packet, Sender,
    wire::options::{Limits, negotiate},
};

#[entry]
fn main() -> ! {
    let mut packet = [0; 600];
    let Ok(Packet::ReadRequest(request)) = Packet::parse(unknown(&[0; 64])) else { loop {} };
    let size = unknown(Some(5000));
    let (settings, granted) = negotiate(request.options, &unknown(Limits::default()), size);
    let mut file = unknown(&[0; 64][..]);
    let mut sender = Sender::new(now(), settings, granted, size);
    loop {
        unknown(sender.poll(now(), &mut file, unknown(&mut packet)));
        sender.handle(now(), unknown(&packet));
    }
}

fn now() -> Instant {
    Instant::from_micros(unknown(0))
}
