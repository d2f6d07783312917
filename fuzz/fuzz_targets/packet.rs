//! A parsed packet can be written, and parses to the same packet again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rtftp_core::Packet;

fuzz_target!(|datagram: &[u8]| {
    let Ok(packet) = Packet::parse(datagram) else { return };
    if let Packet::ReadRequest(request) | Packet::WriteRequest(request) = packet {
        assert!(request.options.count() <= datagram.len() / 2);
    }
    // An unknown mode is written as `mail`, and an ERROR with its NUL, so the packet may grow by a few bytes.
    let mut buf = vec![0; datagram.len() + 8];
    let len = packet.write(&mut buf).expect("enough room");
    assert_eq!(Packet::parse(&buf[..len]), Ok(packet));
});
