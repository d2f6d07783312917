//! Parses a request, negotiates its options and sends a file.
#![no_std]
#![no_main]

use cortex_m_rt::entry;
use footprint::opaque;
use rtftp_core::{
    Instant, Packet, Sender,
    wire::options::{Limits, negotiate},
};

#[entry]
fn main() -> ! {
    let mut packet = [0; 600];
    let Ok(Packet::ReadRequest(request)) = Packet::parse(opaque(&[0; 64])) else { loop {} };
    let size = opaque(Some(5000));
    let (settings, granted) = negotiate(request.options, &opaque(Limits::default()), size);
    let mut file = opaque(&[0; 64][..]);
    let mut sender = Sender::new(now(), settings, granted, size);
    loop {
        let _ = opaque(sender.poll(now(), &mut file, opaque(&mut packet)));
        sender.handle(now(), opaque(&packet));
    }
}

fn now() -> Instant {
    Instant::from_micros(opaque(0))
}
