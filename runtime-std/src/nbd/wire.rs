//! What goes over the wire once an export is open. The names are those of the [protocol's text], without `NBD_`.
//!
//! [protocol's text]: https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md

use std::io;

use smol::io::{AsyncRead, AsyncReadExt};

const REQUEST_MAGIC: u32 = 0x2560_9513;
const SIMPLE_REPLY_MAGIC: u32 = 0x6744_6698;
const STRUCTURED_REPLY_MAGIC: u32 = 0x668e_33ef;

pub(super) const CMD_READ: u16 = 0;
pub(super) const CMD_DISC: u16 = 2;

pub(super) const REPLY_FLAG_DONE: u16 = 1;
pub(super) const REPLY_TYPE_NONE: u16 = 0;
pub(super) const REPLY_TYPE_OFFSET_DATA: u16 = 1;
pub(super) const REPLY_TYPE_OFFSET_HOLE: u16 = 2;
/// The first of the types for errors, which all begin alike.
pub(super) const REPLY_TYPE_ERROR: u16 = 1 << 15;

/// The longest error chunk: two numbers, a text of 4,096 bytes as all texts may have, and an offset.
const MAX_ERROR: u32 = 4 + 2 + 4096 + 8;

/// Writes a request.
pub(super) fn request(command: u16, cookie: u64, offset: u64, len: u32) -> [u8; 28] {
    let mut message = [0; 28];
    let fields = [
        &REQUEST_MAGIC.to_be_bytes()[..],
        // No flags.
        &0u16.to_be_bytes(),
        &command.to_be_bytes(),
        &cookie.to_be_bytes(),
        &offset.to_be_bytes(),
        &len.to_be_bytes(),
    ];
    message.iter_mut().zip(fields.into_iter().flatten()).for_each(|(to, from)| *to = *from);
    message
}

/// The head of a reply.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// All of the answer; what was asked for follows if there is no error.
    Simple { error: u32, cookie: u64 },
    /// A piece of the answer; `len` bytes follow.
    Chunk { done: bool, kind: u16, cookie: u64, len: u32 },
}

impl Reply {
    /// Reads the head of the next reply.
    pub(super) async fn read(server: &mut (impl AsyncRead + Unpin)) -> io::Result<Self> {
        match read_u32(server).await? {
            SIMPLE_REPLY_MAGIC => {
                let error = read_u32(server).await?;
                Ok(Self::Simple { error, cookie: read_u64(server).await? })
            }
            STRUCTURED_REPLY_MAGIC => {
                let done = read_u16(server).await? & REPLY_FLAG_DONE != 0;
                let kind = read_u16(server).await?;
                let cookie = read_u64(server).await?;
                Ok(Self::Chunk { done, kind, cookie, len: read_u32(server).await? })
            }
            _ => Err(not_nbd()),
        }
    }
}

/// Reads the `len` bytes of an error chunk: the error and what the server says of it.
pub(super) async fn read_error(server: &mut (impl AsyncRead + Unpin), len: u32) -> io::Result<(u32, String)> {
    if len > MAX_ERROR {
        return Err(not_nbd());
    }
    let mut payload = vec![0; len as usize];
    read(server, &mut payload).await?;
    let (error, rest) = payload.split_first_chunk().ok_or_else(not_nbd)?;
    let (text_len, rest) = rest.split_first_chunk().ok_or_else(not_nbd)?;
    let text = rest.get(..u16::from_be_bytes(*text_len).into()).ok_or_else(not_nbd)?;
    Ok((u32::from_be_bytes(*error), String::from_utf8_lossy(text).escape_debug().to_string()))
}

pub(super) async fn read_u16(server: &mut (impl AsyncRead + Unpin)) -> io::Result<u16> {
    read_array(server).await.map(u16::from_be_bytes)
}

pub(super) async fn read_u32(server: &mut (impl AsyncRead + Unpin)) -> io::Result<u32> {
    read_array(server).await.map(u32::from_be_bytes)
}

pub(super) async fn read_u64(server: &mut (impl AsyncRead + Unpin)) -> io::Result<u64> {
    read_array(server).await.map(u64::from_be_bytes)
}

pub(super) async fn read_array<const N: usize>(server: &mut (impl AsyncRead + Unpin)) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    read(server, &mut bytes).await?;
    Ok(bytes)
}

/// Fills the whole buffer.
///
/// # Errors
///
/// [`io::ErrorKind::UnexpectedEof`] if the server hangs up before.
pub(super) async fn read(server: &mut (impl AsyncRead + Unpin), buffer: &mut [u8]) -> io::Result<()> {
    server.read_exact(buffer).await.map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => io::Error::new(error.kind(), "the server hung up"),
        _ => error,
    })
}

/// What a reply is that this protocol does not have.
pub(super) fn not_nbd() -> io::Error {
    io::Error::other("the server's reply is not NBD")
}

#[cfg(test)]
mod tests {
    use smol::block_on;

    use super::*;

    #[test]
    fn a_request_is_28_bytes() {
        let expected = b"\x25\x60\x95\x13\0\0\0\x02\x01\x02\x03\x04\x05\x06\x07\x08\0\0\0\0\0\x09\0\0\0\0\x0a\0";
        assert_eq!(request(CMD_DISC, 0x0102_0304_0506_0708, 0x09_0000, 0x0a00), *expected);
    }

    #[test]
    fn heads_of_replies_are_read() {
        let simple = b"\x67\x44\x66\x98\0\0\0\x05\0\0\0\0\0\0\0\x07";
        assert_eq!(block_on(Reply::read(&mut &simple[..])).expect("a reply"), Reply::Simple { error: 5, cookie: 7 });
        let chunk = b"\x66\x8e\x33\xef\xff\xfe\x80\x01\0\0\0\0\0\0\0\x07\0\0\x01\0";
        let read = block_on(Reply::read(&mut &chunk[..])).expect("a reply");
        assert_eq!(read, Reply::Chunk { done: false, kind: 0x8001, cookie: 7, len: 256 }, "other flags are ignored");
        for len in 0..simple.len() {
            let error = block_on(Reply::read(&mut &simple[..len])).expect_err("cut off");
            assert_eq!(error.to_string(), "the server hung up");
        }
    }
}
