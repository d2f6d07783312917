use std::vec::Vec;

use super::*;

/// Asserts that the bytes parse as the packet and that the packet is written as the bytes.
#[track_caller]
fn round_trip(bytes: &[u8], packet: Packet<'_>) {
    assert_eq!(Packet::parse(bytes), Ok(packet));
    let mut buf = [0xaa; 600];
    let len = packet.write(&mut buf).expect("room");
    assert_eq!(&buf[..len], bytes);
    assert_eq!(packet.write(&mut buf[..bytes.len() - 1]), None, "one byte too few");
}

#[test]
fn every_packet_round_trips() {
    let request = Request { file: b"f", mode: Mode::Octet, options: Options::new(b"tsize\x000\0") };
    round_trip(b"\x00\x01f\0octet\0tsize\x000\0", Packet::ReadRequest(request));
    round_trip(b"\x00\x02f\0octet\0tsize\x000\0", Packet::WriteRequest(request));
    round_trip(b"\x00\x03\x01\x02abc", Packet::Data { block: 0x0102, payload: b"abc" });
    round_trip(b"\x00\x03\xff\xff", Packet::Data { block: 0xffff, payload: b"" });
    round_trip(b"\x00\x04\xff\xfe", Packet::Ack { block: 0xfffe });
    round_trip(b"\x00\x05\x00\x01gone\0", Packet::Error { code: ErrorCode::FILE_NOT_FOUND, message: b"gone" });
    round_trip(b"\x00\x06blksize\x00512\0", Packet::OptionAck(Options::new(b"blksize\x00512\0")));
}

#[test]
fn modes_match_in_any_case() {
    for (spelled, mode) in [
        (&b"octet"[..], Mode::Octet),
        (b"OCTET", Mode::Octet),
        (b"NetASCII", Mode::Netascii),
        (b"mail", Mode::Other),
        (b"", Mode::Other),
    ] {
        let datagram = [b"\x00\x01f\0", spelled, b"\0"].concat();
        let Ok(Packet::ReadRequest(request)) = Packet::parse(&datagram) else { panic!("no request: {datagram:?}") };
        assert_eq!(request.mode, mode, "{}", spelled.escape_ascii());
    }
}

#[test]
fn options_end_after_the_last_whole_pair() {
    let pairs = |wire| Options::new(wire).collect::<Vec<_>>();
    assert_eq!(pairs(b""), []);
    assert_eq!(pairs(b"a\x001\0b\0\0"), [(&b"a"[..], &b"1"[..]), (b"b", b"")]);
    assert_eq!(pairs(b"a\x001\0b\x002"), [(&b"a"[..], &b"1"[..])], "the last value lacks its NUL");
    assert_eq!(pairs(b"a\x001\0\0\0\0\0\0"), [(&b"a"[..], &b"1"[..])], "padding");
    assert_eq!(pairs(b"\0\0a\x001\0"), [], "padding hides what follows it");
}

#[test]
fn parses_a_request_padded_to_516_bytes() {
    let mut datagram = b"\x00\x01hp.img\0octet\0".to_vec();
    datagram.resize(516, 0);
    let Ok(Packet::ReadRequest(request)) = Packet::parse(&datagram) else { panic!("no request") };
    assert_eq!((request.file, request.options.count()), (&b"hp.img"[..], 0));
}

#[test]
fn parses_an_error_without_its_nul() {
    let error = Packet::Error { code: ErrorCode(8), message: b"User aborted" };
    assert_eq!(Packet::parse(b"\x00\x05\x00\x08User aborted"), Ok(error));
}

#[test]
fn rejects_malformed_datagrams() {
    for datagram in [
        &b""[..],
        b"\x00",
        b"\x00\x00",
        b"\x00\x07",
        b"\x01\x01f\0octet\0",
        b"\x00\x01",
        b"\x00\x01f",
        b"\x00\x01f\0octet",
        b"\x00\x03\x00",
        b"\x00\x04\x00",
        b"\x00\x05\x00",
    ] {
        assert_eq!(Packet::parse(datagram), Err(Malformed), "{}", datagram.escape_ascii());
    }
}
