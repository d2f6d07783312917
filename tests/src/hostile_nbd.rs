//! NBD servers that break the protocol, or keep it in a way that costs the client as much as possible.

#[expect(dead_code, reason = "the tests of the NBD client need all messages")]
#[path = "../../runtime-std/src/nbd/script/messages.rs"]
pub(crate) mod messages;

use std::{
    io::{self, Read, Write},
    net::TcpStream,
    sync::Arc,
    thread,
    time::Duration,
};

use self::messages::{chunk, data, error, greeting, info_block_size, info_export, option_reply};
use crate::{nbd::listener, noise};

/// What a server does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behaviour {
    /// Follows the protocol.
    Correct,
    /// Accepts the connection and sends nothing.
    Silent,
    /// Sends random bytes.
    Garbage,
    /// Sends one byte per second.
    SlowGreeting,
    /// Never ends the handshake.
    EndlessOptions,
    /// Announces 4 GiB in reply to an option.
    LongOptionReply,
    /// Announces a maximum block size of one byte.
    TinyBlocks,
    /// Announces an export of no bytes.
    EmptyExport,
    /// Announces an export of 2^64 - 1 bytes.
    HugeExport,
    /// Exports half as many bytes to each further connection.
    ShrinkingExport,
    /// Replies to each read after 8 seconds.
    LateReplies,
    /// Does not reply to reads.
    NoReplies,
    /// Closes the connection in the middle of a reply.
    CutReplies,
    /// Replies with one byte per chunk.
    TinyChunks,
    /// Replies to requests that were not made.
    WrongCookies,
    /// Replies to each request twice.
    DoubleReplies,
    /// Replies with an error and a long text with control characters.
    LongErrors,
}

/// All behaviours but the correct one.
pub const HOSTILE: [Behaviour; 16] = [
    Behaviour::Silent,
    Behaviour::Garbage,
    Behaviour::SlowGreeting,
    Behaviour::EndlessOptions,
    Behaviour::LongOptionReply,
    Behaviour::TinyBlocks,
    Behaviour::EmptyExport,
    Behaviour::HugeExport,
    Behaviour::ShrinkingExport,
    Behaviour::LateReplies,
    Behaviour::NoReplies,
    Behaviour::CutReplies,
    Behaviour::TinyChunks,
    Behaviour::WrongCookies,
    Behaviour::DoubleReplies,
    Behaviour::LongErrors,
];

/// The option of the handshake that ends it (`NBD_OPT_GO`), and the one for structured replies.
pub(crate) const OPT_GO: u32 = 7;
const OPT_STRUCTURED_REPLY: u32 = 8;
/// Replies to an option: acknowledged, information, unsupported.
pub(crate) const REP_ACK: u32 = 1;
pub(crate) const REP_INFO: u32 = 3;
pub(crate) const REP_ERR_UNSUP: u32 = 0x8000_0001;
/// The flags of the export: it has flags, is read-only, and several connections see the same data.
const FLAGS: u16 = 0b1_0000_0011;
const EIO: u32 = 5;

impl Behaviour {
    /// Exports a disk as long as the test runs. Returns the URI.
    pub fn export(self, disk: Vec<u8>) -> String {
        let (listener, address) = listener();
        let disk: Arc<[u8]> = disk.into();
        thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                let disk = disk.clone();
                // An error means that the client has closed the connection.
                thread::spawn(move || stream.and_then(|stream| self.serve(stream, &disk, number)));
            }
        });
        format!("nbd://{address}/disk")
    }

    fn serve(self, mut stream: TcpStream, disk: &[u8], number: usize) -> io::Result<()> {
        match self {
            Self::Silent => return io::copy(&mut stream, &mut io::sink()).map(drop),
            Self::Garbage => return stream.write_all(&noise(1 << 20, 7)),
            Self::SlowGreeting => loop {
                for byte in greeting(3) {
                    stream.write_all(&[byte])?;
                    thread::sleep(Duration::from_secs(1));
                }
            },
            _ => {}
        }
        stream.write_all(&greeting(3))?;
        receive::<4>(&mut stream)?;
        let size = if self == Self::ShrinkingExport { disk.len() >> number.min(20) } else { disk.len() };
        while self.reply_to_option(&mut stream, size as u64)? != OPT_GO {}
        while let Some((cookie, offset, len)) = receive_request(&mut stream)? {
            let bytes = disk.get(offset as usize..).and_then(|rest| rest.get(..len)).unwrap_or_default();
            self.reply_to_read(&mut stream, cookie, offset, bytes)?;
        }
        Ok(())
    }

    /// Replies to the next option of the handshake for an export of `size` bytes, and returns the option.
    fn reply_to_option(self, stream: &mut TcpStream, size: u64) -> io::Result<u32> {
        receive::<8>(stream)?;
        let option = u32::from_be_bytes(receive(stream)?);
        let len = u32::from_be_bytes(receive(stream)?);
        io::copy(&mut stream.take(len.into()), &mut io::sink())?;
        let reply = |kind, data: &[u8]| option_reply(option, kind, data);
        let export = |size: u64| [reply(REP_INFO, &info_export(size, FLAGS)), reply(REP_ACK, &[])].concat();
        let message = match (self, option) {
            (Self::EndlessOptions, _) => loop {
                stream.write_all(&reply(REP_INFO, &[0, 1, b'a']))?;
            },
            (Self::LongOptionReply, _) => {
                let mut start = reply(REP_INFO, &[]);
                start[16..].fill(0xff);
                stream.write_all(&start)?;
                io::copy(&mut io::repeat(b'a'), stream)?;
                return Ok(option);
            }
            (_, OPT_STRUCTURED_REPLY) => reply(REP_ACK, &[]),
            (Self::EmptyExport, OPT_GO) => export(0),
            (Self::HugeExport, OPT_GO) => export(u64::MAX),
            (Self::TinyBlocks, OPT_GO) => [reply(REP_INFO, &info_block_size(1, 1)), export(size)].concat(),
            (_, OPT_GO) => export(size),
            _ => reply(REP_ERR_UNSUP, b"unsupported"),
        };
        stream.write_all(&message)?;
        Ok(option)
    }

    fn reply_to_read(self, stream: &mut TcpStream, cookie: u64, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let reply = data(true, cookie, offset, bytes);
        match self {
            _ if bytes.is_empty() => stream.write_all(&error(true, cookie, EIO, b"beyond the end")),
            Self::NoReplies => Ok(()),
            Self::LateReplies => {
                thread::sleep(Duration::from_secs(8));
                stream.write_all(&reply)
            }
            Self::CutReplies => {
                stream.write_all(&reply[..reply.len() / 2])?;
                Err(io::ErrorKind::ConnectionAborted.into())
            }
            Self::TinyChunks => {
                let chunks = (offset..).zip(bytes).flat_map(|(at, byte)| data(false, cookie, at, &[*byte]));
                stream.write_all(&chunks.chain(chunk(true, 0, cookie, &[])).collect::<Vec<_>>())
            }
            Self::WrongCookies => stream.write_all(&data(true, !cookie, offset, bytes)),
            Self::DoubleReplies => stream.write_all(&[reply.clone(), reply].concat()),
            Self::LongErrors => stream.write_all(&error(true, cookie, EIO, &b"\x1b[2J\nforged line ".repeat(4000))),
            _ => stream.write_all(&reply),
        }
    }
}

/// Receives the next request to read: its cookie, offset and length. Returns `None` if the client disconnects.
fn receive_request(stream: &mut TcpStream) -> io::Result<Option<(u64, u64, usize)>> {
    let [_, _, _, _, _, _, _, command] = receive(stream)?;
    let cookie = u64::from_be_bytes(receive(stream)?);
    let offset = u64::from_be_bytes(receive(stream)?);
    let len = u32::from_be_bytes(receive(stream)?);
    Ok((command == 0).then_some((cookie, offset, len as usize)))
}

fn receive<const N: usize>(stream: &mut TcpStream) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).map(|()| bytes)
}
