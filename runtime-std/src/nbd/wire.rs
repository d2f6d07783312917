//! Messages of the transmission phase. Names are those of the [NBD protocol], without the prefix `NBD_`.
//!
//! [NBD protocol]: https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md

use super::NbdError;
use crate::text::printable;

const REQUEST_MAGIC: u32 = 0x2560_9513;
const SIMPLE_REPLY_MAGIC: u32 = 0x6744_6698;
const STRUCTURED_REPLY_MAGIC: u32 = 0x668e_33ef;

pub(super) const CMD_READ: u16 = 0;
pub(super) const CMD_DISC: u16 = 2;

const REPLY_FLAG_DONE: u16 = 1;
pub(super) const REPLY_TYPE_NONE: u16 = 0;
pub(super) const REPLY_TYPE_OFFSET_DATA: u16 = 1;
pub(super) const REPLY_TYPE_OFFSET_HOLE: u16 = 2;
/// The first of the error types, whose payloads begin alike.
pub(super) const REPLY_TYPE_ERROR: u16 = 1 << 15;

/// The length of the magic number that begins a reply, in bytes.
pub(super) const MAGIC_LEN: usize = 4;
/// The length of the header of a simple reply, in bytes.
pub(super) const SIMPLE_HEADER_LEN: usize = 16;
/// The length of the longest reply header, in bytes.
pub(super) const MAX_HEADER_LEN: usize = 20;
/// The length of the header of a chunk with data, and of the offset before the data, in bytes.
pub(super) const DATA_HEADER_LEN: usize = MAX_HEADER_LEN + 8;
/// The maximum payload of an error chunk in bytes: error and text length, a text of 4,096 bytes, and an offset.
pub(super) const MAX_ERROR_LEN: u32 = 4 + 2 + 4096 + 8;

/// Encodes a request.
pub(super) fn request(command: u16, cookie: u64, offset: u64, len: u32) -> [u8; 28] {
    let mut message = [0; 28];
    let fields = [
        &REQUEST_MAGIC.to_be_bytes()[..],
        // Command flags.
        &0u16.to_be_bytes(),
        &command.to_be_bytes(),
        &cookie.to_be_bytes(),
        &offset.to_be_bytes(),
        &len.to_be_bytes(),
    ];
    message.iter_mut().zip(fields.into_iter().flatten()).for_each(|(to, from)| *to = *from);
    message
}

/// The header of a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Header {
    /// A simple reply. The requested data follows if `error` is 0.
    Simple { error: u32, cookie: u64 },
    /// A chunk of a structured reply, followed by `len` bytes of payload.
    Chunk(Chunk),
}

/// The header of a chunk of a structured reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Chunk {
    /// Whether it is the last chunk of the reply.
    pub(super) is_last: bool,
    pub(super) reply_type: u16,
    pub(super) cookie: u64,
    pub(super) len: u32,
}

impl Header {
    /// Returns the length in bytes of the header that begins with `magic`.
    pub(super) fn len(magic: [u8; MAGIC_LEN]) -> Result<usize, NbdError> {
        match u32::from_be_bytes(magic) {
            SIMPLE_REPLY_MAGIC => Ok(SIMPLE_HEADER_LEN),
            STRUCTURED_REPLY_MAGIC => Ok(MAX_HEADER_LEN),
            _ => Err(NbdError::InvalidReply),
        }
    }

    /// Parses a header of the length that [`len`](Self::len) returns.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, NbdError> {
        let mut fields = Fields(bytes);
        match fields.u32()? {
            SIMPLE_REPLY_MAGIC => Ok(Self::Simple { error: fields.u32()?, cookie: fields.u64()? }),
            STRUCTURED_REPLY_MAGIC => Ok(Self::Chunk(Chunk {
                is_last: fields.u16()? & REPLY_FLAG_DONE != 0,
                reply_type: fields.u16()?,
                cookie: fields.u64()?,
                len: fields.u32()?,
            })),
            _ => Err(NbdError::InvalidReply),
        }
    }
}

/// Parses the payload of an error chunk: the error number and the server's explanation as one short line.
pub(super) fn parse_error(payload: &[u8]) -> Result<(u32, String), NbdError> {
    let mut fields = Fields(payload);
    let error = fields.u32()?;
    let text_len = fields.u16()?;
    let text = fields.0.get(..text_len.into()).ok_or(NbdError::InvalidReply)?;
    Ok((error, printable(text)))
}

/// The part of a message that is not parsed yet. Numbers are big-endian.
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl Fields<'_> {
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], NbdError> {
        let (field, rest) = self.0.split_first_chunk().ok_or(NbdError::InvalidReply)?;
        self.0 = rest;
        Ok(*field)
    }

    pub(super) fn u16(&mut self) -> Result<u16, NbdError> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, NbdError> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, NbdError> {
        self.array().map(u64::from_be_bytes)
    }

    /// Returns an error if anything is left.
    pub(super) fn end(self) -> Result<(), NbdError> {
        if self.0.is_empty() { Ok(()) } else { Err(NbdError::InvalidReply) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodes_a_request_in_28_bytes() {
        let expected = b"\x25\x60\x95\x13\0\0\0\x02\x01\x02\x03\x04\x05\x06\x07\x08\0\0\0\0\0\x09\0\0\0\0\x0a\0";
        assert_eq!(request(CMD_DISC, 0x0102_0304_0506_0708, 0x09_0000, 0x0a00), *expected);
    }

    fn parse(bytes: &[u8]) -> Option<Header> {
        let len = Header::len(*bytes.first_chunk()?).ok()?;
        Header::parse(bytes.get(..len)?).ok()
    }

    #[test]
    fn explanations_become_one_short_line() {
        let text = b"lost\n2026-01-01 ERROR forged \x1b[31m".repeat(1000);
        let payload = [&5u32.to_be_bytes(), &(text.len() as u16).to_be_bytes()[..], &text].concat();
        let (errno, text) = parse_error(&payload).expect("an error");
        assert!(text.starts_with(r"lost\n2026-01-01 ERROR forged \u{1b}[31mlost"), "{text}");
        assert!((errno, text.len() <= 512) == (5, true), "{} bytes", text.len());
    }

    #[test]
    fn parses_reply_headers() {
        let simple = b"\x67\x44\x66\x98\0\0\0\x05\0\0\0\0\0\0\0\x07";
        assert_eq!(parse(simple), Some(Header::Simple { error: 5, cookie: 7 }));
        let chunk = b"\x66\x8e\x33\xef\xff\xfe\x80\x01\0\0\0\0\0\0\0\x07\0\0\x01\0";
        let expected = Chunk { is_last: false, reply_type: 0x8001, cookie: 7, len: 256 };
        assert_eq!(parse(chunk), Some(Header::Chunk(expected)), "other flags are ignored");
        assert_eq!(parse(b"HTTP/1.1 400 Bad Request"), None);
        for len in 0..simple.len() {
            assert!(Header::parse(&simple[..len]).is_err(), "{len} bytes");
        }
    }
}
