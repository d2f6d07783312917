//! Describes packets as text that is safe to print on a terminal.

use rtftp_core::{
    Packet,
    wire::packet::{ErrorCode, Mode, Options, Request},
};

use crate::text::printable;

/// Describes a datagram in one line of printable text: type, fields and length of the packet.
pub fn describe(datagram: &[u8]) -> String {
    describe_packet(datagram.len(), Packet::parse(datagram).ok())
}

/// Describes a datagram of `len` bytes that is this packet, or `None` if it is not one. See [`describe`].
pub fn describe_packet(len: usize, packet: Option<Packet<'_>>) -> String {
    match packet {
        Some(Packet::ReadRequest(request)) => format!("RRQ {}, {len} bytes", describe_request(request)),
        Some(Packet::WriteRequest(request)) => format!("WRQ {}, {len} bytes", describe_request(request)),
        Some(Packet::Data { block, payload }) => format!("DATA {block}, {} bytes", payload.len()),
        Some(Packet::Ack { block }) => format!("ACK {block}"),
        Some(Packet::Error { code, message }) => format!("ERROR {}", describe_error(code, &printable(message))),
        Some(Packet::OptionAck(options)) => format!("OACK {}, {len} bytes", describe_options(options)),
        None => format!("not a TFTP packet, {len} bytes"),
    }
}

/// Describes options as `name=value`, separated by spaces.
pub(super) fn describe_options(options: Options<'_>) -> String {
    let words = options.map(|(name, value)| format!("{}={}", printable(name), printable(value)));
    words.collect::<Vec<_>>().join(" ")
}

/// Describes an ERROR: its code, the meaning of the code, and its text unless that says the same.
pub(super) fn describe_error(code: ErrorCode, text: &str) -> String {
    let meaning = code.meaning();
    let detail = match text.split_at_checked(meaning.len()) {
        Some((start, rest)) if start.eq_ignore_ascii_case(meaning) => rest.trim_start_matches(['.', ':', ' ']),
        _ => text,
    };
    if detail.is_empty() { code.to_string() } else { format!("{code}: {detail}") }
}

fn describe_request(request: Request<'_>) -> String {
    let mode = match request.mode {
        Mode::Octet => "octet",
        Mode::Netascii => "netascii",
        Mode::Other => "other mode",
    };
    let words = [printable(request.file), mode.to_owned(), describe_options(request.options)];
    words.iter().filter(|word| !word.is_empty()).cloned().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn describes_packets() {
        for (datagram, description) in [
            (
                &b"\0\x01boot/vmlinuz\0octet\0tsize\x000\0blksize\x001428\0"[..],
                "RRQ boot/vmlinuz octet tsize=0 blksize=1428, 42 bytes",
            ),
            (b"\0\x01f\0netascii\0", "RRQ f netascii, 13 bytes"),
            (b"\0\x02f\0octet\0", "WRQ f octet, 10 bytes"),
            (b"\0\x03\x01\x00abc", "DATA 256, 3 bytes"),
            (b"\0\x04\xff\xff", "ACK 65535"),
            (b"\0\x05\0\x01no such file\0", "ERROR 1 (file not found): no such file"),
            (b"\0\x05\0\x01File not found\0", "ERROR 1 (file not found)"),
            (b"\0\x05\0\x02Access violation: a link\0", "ERROR 2 (access violation): a link"),
            (b"\0\x05\0\x63what", "ERROR 99 (unknown code): what"),
            (b"\0\x06blksize\x001428\0tsize\x009\0", "OACK blksize=1428 tsize=9, 23 bytes"),
            (b"\0\x09", "not a TFTP packet, 2 bytes"),
            (b"", "not a TFTP packet, 0 bytes"),
        ] {
            assert_eq!(describe(datagram), description);
        }
    }

    #[test]
    fn escapes_control_sequences() {
        assert_eq!(describe(b"\0\x05\0\0\x1b]0;title\x07\0"), r"ERROR 0 (see the text): \u{1b}]0;title\u{7}");
    }
}
