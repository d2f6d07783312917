//! TFTP packets: parsed from a datagram, written into a buffer (RFC 1350 section 5, RFC 2347).

#[cfg(test)]
mod tests;

use core::fmt;

use nom::{
    IResult, Parser,
    combinator::rest,
    error::{Error, ErrorKind},
    number::complete::be_u16,
};

/// A packet. Names, texts and blocks are borrowed from the datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Packet<'a> {
    /// RRQ, opcode 1: requests a file.
    ReadRequest(Request<'a>),
    /// WRQ, opcode 2: offers a file to store.
    WriteRequest(Request<'a>),
    /// DATA, opcode 3.
    Data {
        /// The number of the block on the wire, which rolls over.
        block: u16,
        /// The bytes of the block; fewer than the block size end the file.
        payload: &'a [u8],
    },
    /// ACK, opcode 4.
    Ack {
        /// The number of the last block that arrived in order; 0 acknowledges an OACK.
        block: u16,
    },
    /// ERROR, opcode 5: ends the transfer and gets no answer.
    Error {
        /// The kind of error.
        code: ErrorCode,
        /// A text for people.
        message: &'a [u8],
    },
    /// OACK, opcode 6: the options that the server accepts (RFC 2347).
    OptionAck(Options<'a>),
}

/// The contents of an RRQ or a WRQ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Request<'a> {
    /// The name of the file, unchanged.
    pub file: &'a [u8],
    /// The mode of the transfer.
    pub mode: Mode,
    /// The requested options.
    pub options: Options<'a>,
}

/// The mode of a request. Its name on the wire may be in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Mode {
    /// The bytes as they are.
    Octet,
    /// Text with line ends of CR LF.
    Netascii,
    /// Any other mode, such as `mail`.
    Other,
}

impl Mode {
    /// Returns the name on the wire.
    const fn name(self) -> &'static [u8] {
        match self {
            Self::Octet => b"octet",
            Self::Netascii => b"netascii",
            Self::Other => b"mail",
        }
    }
}

/// The options of a request or an OACK: pairs of NUL-terminated texts, parsed during the iteration.
///
/// The iteration ends with the last whole pair, or before an empty name (some firmware pads its requests with NUL).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Options<'a>(&'a [u8]);

impl<'a> Options<'a> {
    /// Wraps pairs of NUL-terminated texts from the wire.
    #[must_use]
    pub const fn new(wire: &'a [u8]) -> Self {
        Self(wire)
    }

    /// Returns the options that have not been iterated over, as on the wire.
    #[must_use]
    pub const fn as_bytes(self) -> &'a [u8] {
        self.0
    }
}

impl<'a> Iterator for Options<'a> {
    /// The name and the value, both unchanged.
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (rest, (name, value)) = (text, text).parse(self.0).ok()?;
        self.0 = rest;
        if name.is_empty() { None } else { Some((name, value)) }
    }
}

/// The code of an ERROR packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct ErrorCode(pub u16);

impl ErrorCode {
    /// Not defined: see the message.
    pub const NOT_DEFINED: Self = Self(0);
    /// The file does not exist.
    pub const FILE_NOT_FOUND: Self = Self(1);
    /// The client may not read the file.
    pub const ACCESS_VIOLATION: Self = Self(2);
    /// The disk is full, or the client's quota is used up.
    pub const DISK_FULL: Self = Self(3);
    /// The packet is not allowed in this state.
    pub const ILLEGAL_OPERATION: Self = Self(4);
    /// The packet came from a port that does not belong to the transfer.
    pub const UNKNOWN_TRANSFER_ID: Self = Self(5);
    /// The options are refused (RFC 2347).
    pub const OPTIONS_REFUSED: Self = Self(8);

    /// Returns the meaning of the code in a few words.
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        match self.0 {
            0 => "see the text",
            1 => "file not found",
            2 => "access violation",
            3 => "disk full",
            4 => "illegal operation",
            5 => "unknown transfer ID",
            6 => "file already exists",
            7 => "no such user",
            8 => "options refused",
            _ => "unknown code",
        }
    }
}

impl fmt::Display for ErrorCode {
    /// Writes the number and its meaning: `1 (file not found)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.0, self.meaning())
    }
}

/// The error for a datagram that is not a TFTP packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Malformed;

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the datagram is not a TFTP packet")
    }
}

impl core::error::Error for Malformed {}

/// The length of the header of a DATA packet, in bytes.
pub const DATA_HEADER: usize = 4;

/// Returns the header of a DATA packet.
#[must_use]
pub const fn data_header(block: u16) -> [u8; DATA_HEADER] {
    let [high, low] = block.to_be_bytes();
    [0, 3, high, low]
}

impl Packet<'_> {
    /// The answer to a datagram that does not belong to the transfer (RFC 1350 section 4).
    pub const UNKNOWN_TRANSFER_ID: Self =
        Self::Error { code: ErrorCode::UNKNOWN_TRANSFER_ID, message: b"Unknown transfer ID" };
}

impl<'a> Packet<'a> {
    /// Parses a datagram.
    ///
    /// # Errors
    ///
    /// [`Malformed`] if the datagram is too short, its opcode is unknown, or a text of a request lacks its NUL. The text of an
    /// ERROR may lack it, because some peers forget it.
    pub fn parse(datagram: &'a [u8]) -> Result<Self, Malformed> {
        let (body, opcode) = number(datagram).map_err(|_| Malformed)?;
        match opcode {
            1 => request(body).map(|(_, request)| Self::ReadRequest(request)),
            2 => request(body).map(|(_, request)| Self::WriteRequest(request)),
            3 => (number, rest).parse(body).map(|(_, (block, payload))| Self::Data { block, payload }),
            4 => number(body).map(|(_, block)| Self::Ack { block }),
            5 => (number, last_text)
                .parse(body)
                .map(|(_, (code, message))| Self::Error { code: ErrorCode(code), message }),
            6 => Ok(Self::OptionAck(Options(body))),
            _ => return Err(Malformed),
        }
        .map_err(|_| Malformed)
    }

    /// Writes the packet into `buf`. Returns its length in bytes, or `None` if `buf` is too short.
    #[must_use]
    pub fn write(&self, buf: &mut [u8]) -> Option<usize> {
        let mut out = Writer { buf, len: 0 };
        match *self {
            Self::ReadRequest(request) => out.request(1, request)?,
            Self::WriteRequest(request) => out.request(2, request)?,
            Self::Data { block, payload } => out.put(&data_header(block))?.put(payload)?,
            Self::Ack { block } => out.number(4)?.number(block)?,
            Self::Error { code, message } => out.number(5)?.number(code.0)?.text(message)?,
            Self::OptionAck(options) => out.number(6)?.put(options.0)?,
        };
        Some(out.len)
    }
}

/// Parses an opcode, a block number or an error code.
fn number(input: &[u8]) -> IResult<&[u8], u16> {
    be_u16(input)
}

/// Parses a text and the NUL at its end. With nom's own parsers the compiler could not prove that every index is in bounds.
fn text(input: &[u8]) -> IResult<&[u8], &[u8]> {
    let mut parts = input.splitn(2, |&byte| byte == 0);
    match (parts.next(), parts.next()) {
        (Some(text), Some(rest)) => Ok((rest, text)),
        _ => Err(nom::Err::Error(Error::new(input, ErrorKind::Char))),
    }
}

/// Parses a text that ends with a NUL or with the datagram.
fn last_text(input: &[u8]) -> IResult<&[u8], &[u8]> {
    Ok((&[], input.split(|&byte| byte == 0).next().unwrap_or_default()))
}

fn request(input: &[u8]) -> IResult<&[u8], Request<'_>> {
    (text, text, rest)
        .map(|(file, mode, options): (_, &[u8], _)| {
            let is = |known: Mode| mode.eq_ignore_ascii_case(known.name());
            let mode = [Mode::Octet, Mode::Netascii].into_iter().find(|&known| is(known)).unwrap_or(Mode::Other);
            Request { file, mode, options: Options(options) }
        })
        .parse(input)
}

/// Fills a buffer from its start.
struct Writer<'b> {
    buf: &'b mut [u8],
    len: usize,
}

impl Writer<'_> {
    fn put(&mut self, bytes: &[u8]) -> Option<&mut Self> {
        let end = self.len.checked_add(bytes.len())?;
        self.buf.get_mut(self.len..end)?.copy_from_slice(bytes);
        self.len = end;
        Some(self)
    }

    fn number(&mut self, number: u16) -> Option<&mut Self> {
        self.put(&number.to_be_bytes())
    }

    fn text(&mut self, text: &[u8]) -> Option<&mut Self> {
        self.put(text)?.put(b"\0")
    }

    fn request(&mut self, opcode: u16, request: Request<'_>) -> Option<&mut Self> {
        self.number(opcode)?.text(request.file)?.text(request.mode.name())?.put(request.options.0)
    }
}
