//! A packet that is read can be written, and is read again as the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rtftp_core::Packet;

fuzz_target!(|datagram: &[u8]| {
    let Ok(packet) = Packet::parse(datagram) else { return };
    if let Packet::ReadRequest(request) | Packet::WriteRequest(request) = packet {
        assert!(request.options.count() <= datagram.len() / 2);
    }
    // A mode that is not known is written as `mail`, and an ERROR gets the NUL it may lack: a few bytes more than were read.
    let mut buf = vec![0; datagram.len() + 8];
    let len = packet.write(&mut buf).expect("room enough");
    assert_eq!(Packet::parse(&buf[..len]), Ok(packet));
});
