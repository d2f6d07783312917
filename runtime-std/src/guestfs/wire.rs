//! The protocol between the daemon and its helper, over the helper's stdin and stdout.
//!
//! The helper begins with a greeting, which contains the version of the protocol. Then it sends one [`Reply`] to each [`Request`];
//! [`Request::Start`] is answered by one [`Reply::Reached`] for each step before the final reply. Each message is a frame: its
//! length as a big-endian `u32`, then its [postcard] encoding.
//!
//! [postcard]: https://postcard.jamesmunns.com/wire-format

use std::{
    ffi::OsString,
    io::{self, Read},
};

use serde::{Deserialize, Deserializer, Serialize, de::DeserializeOwned};

use crate::{fs::FileType, text::printable};

/// The version of the protocol. It changes with every change of a message.
pub const VERSION: u32 = 3;

/// The maximum number of bytes of a file in a [`Reply::Data`]. libguestfs rejects 4 MiB; more than 1 MiB is not faster.
pub const MAX_READ: u32 = 1 << 20;

/// The maximum length of an encoded message in bytes: one with [`MAX_READ`] bytes of data.
const MAX_MESSAGE_LEN: usize = MAX_READ as usize + 16;

/// A request of the daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Opens and mounts the disk. The first request, sent once.
    Start {
        /// Whether to emulate the processor instead of using KVM.
        emulate: bool,
        /// An empty directory for temporary files of the helper. Deleted when the helper ends.
        directory: OsString,
        /// The contents of the `.nbd` file.
        #[serde(with = "serde_bytes")]
        description: Vec<u8>,
    },
    /// Opens a file.
    Open {
        /// The path below `tftp_root`.
        #[serde(with = "serde_bytes")]
        path: Vec<u8>,
    },
    /// Reads a part of an open file.
    Read {
        /// The identifier of the file.
        id: u32,
        /// The offset in bytes.
        offset: u64,
        /// The length in bytes, at most [`MAX_READ`].
        len: u32,
    },
    /// Closes a file.
    Close {
        /// The identifier of the file.
        id: u32,
    },
    /// Lists a directory.
    List {
        /// The path below `tftp_root`, links resolved; empty for `tftp_root` itself.
        #[serde(with = "serde_bytes")]
        path: Vec<u8>,
    },
}

/// A reply of the helper.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// A step of the start succeeded.
    Reached(Step),
    /// The disk is mounted.
    Ready,
    /// A file is open.
    Opened {
        /// The identifier of the file.
        id: u32,
        /// The size in bytes.
        size: u64,
    },
    /// A part of a file. Shorter than requested only at the end of the file.
    Data(#[serde(with = "serde_bytes")] Vec<u8>),
    /// A file is closed.
    Closed,
    /// The entries of a directory.
    Listed(Vec<DirectoryEntry>),
    /// The file does not exist.
    NotFound,
    /// The path exists, but is not a regular file.
    Forbidden(#[serde(deserialize_with = "printable_text")] String),
    /// The request failed; others may succeed.
    Failed(#[serde(deserialize_with = "printable_text")] String),
    /// The disk cannot be read, or not any more. The helper ends.
    Lost(#[serde(deserialize_with = "printable_text")] String),
}

/// Deserialises a text as one short line: libguestfs quotes names and labels of the disk, whose owner may be an attacker.
fn printable_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    String::deserialize(deserializer).map(|text| printable(text.as_bytes()))
}

/// An entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectoryEntry {
    /// The name.
    #[serde(with = "serde_bytes")]
    pub name: Vec<u8>,
    /// The type.
    pub file_type: FileType,
    /// The size of a regular file in bytes.
    pub size: u64,
}

/// A step of the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    /// The NBD server accepted the connection.
    Connected,
    /// The appliance is running.
    Launched,
}

/// The length of a greeting in bytes.
pub const GREETING_LEN: usize = GREETING.len() + 4;

/// The beginning of the greeting, the same in all versions of the protocol.
const GREETING: &[u8] = b"H\0\0\0\x11rtftp-guestfs";

/// Encodes the greeting of a helper with this version of the protocol.
pub fn greeting(version: u32) -> Vec<u8> {
    [GREETING, &version.to_be_bytes()].concat()
}

/// Parses a greeting and returns the version of the protocol.
///
/// # Errors
///
/// `InvalidData` if it is not the greeting of a helper.
pub fn parse_greeting(greeting: &[u8; GREETING_LEN]) -> io::Result<u32> {
    let version = greeting.strip_prefix(GREETING).and_then(|version| version.try_into().ok());
    version.map(u32::from_be_bytes).ok_or_else(invalid)
}

/// Encodes a message as a frame.
///
/// # Errors
///
/// `InvalidData` if it is too long for a frame.
pub fn encode(message: &impl Serialize) -> io::Result<Vec<u8>> {
    const LEN: usize = size_of::<u32>();
    let mut frame = postcard::to_extend(message, vec![0; LEN]).map_err(|_| invalid())?;
    let len = frame.len() - LEN;
    if len > MAX_MESSAGE_LEN {
        return Err(invalid());
    }
    frame[..LEN].copy_from_slice(&(len as u32).to_be_bytes());
    Ok(frame)
}

/// Parses the length that begins a frame. Returns the number of bytes that follow.
///
/// # Errors
///
/// `InvalidData` if the frame is longer than any message.
pub fn message_len(prefix: [u8; 4]) -> io::Result<usize> {
    let len = u32::from_be_bytes(prefix) as usize;
    if len > MAX_MESSAGE_LEN { Err(invalid()) } else { Ok(len) }
}

/// Decodes the message in a frame, without the length.
///
/// # Errors
///
/// `InvalidData` if it is not exactly one message.
pub fn decode<M: DeserializeOwned>(message: &[u8]) -> io::Result<M> {
    match postcard::take_from_bytes(message) {
        Ok((message, [])) => Ok(message),
        _ => Err(invalid()),
    }
}

/// Reads a message; blocks.
///
/// # Errors
///
/// The errors of `reader`; `InvalidData` if it does not contain a message.
pub fn read<M: DeserializeOwned>(mut reader: impl Read) -> io::Result<M> {
    let mut prefix = [0; 4];
    reader.read_exact(&mut prefix)?;
    let mut message = vec![0; message_len(prefix)?];
    reader.read_exact(&mut message)?;
    decode(&message)
}

fn invalid() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "not a message of the helper protocol")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requests() -> [Request; 6] {
        [
            Request::Start { emulate: true, directory: "/t".into(), description: b"{}".to_vec() },
            Request::Start { emulate: false, directory: "".into(), description: vec![] },
            Request::Open { path: b"boot/\xff".to_vec() },
            Request::Read { id: 1, offset: 2, len: 3 },
            Request::Close { id: 4 },
            Request::List { path: b"boot".to_vec() },
        ]
    }

    fn replies() -> [Reply; 12] {
        [
            Reply::Reached(Step::Connected),
            Reply::Reached(Step::Launched),
            Reply::Ready,
            Reply::Opened { id: 1, size: 1 << 40 },
            Reply::Data(b"\0\xff".to_vec()),
            Reply::Closed,
            Reply::Listed(vec![]),
            Reply::Listed(entries()),
            Reply::NotFound,
            Reply::Forbidden("a".into()),
            Reply::Failed("ä".into()),
            Reply::Lost(String::new()),
        ]
    }

    fn entries() -> Vec<DirectoryEntry> {
        let entry = |name: &[u8], file_type, size| DirectoryEntry { name: name.into(), file_type, size };
        vec![
            entry(b"vmlinuz", FileType::File, 1 << 40),
            entry(b"\xff", FileType::Directory, 0),
            entry(b"", FileType::Link, 0),
            entry(&[b'x'; 255], FileType::Other, 0),
        ]
    }

    fn is_invalid<T>(result: io::Result<T>) -> bool {
        result.is_err_and(|error| error.kind() == io::ErrorKind::InvalidData)
    }

    #[test]
    fn messages_survive_encoding_and_decoding() {
        for request in requests() {
            let frame = encode(&request).expect("a frame");
            assert_eq!(read::<Request>(&frame[..]).expect("a request"), request);
        }
        for reply in replies() {
            let frame = encode(&reply).expect("a frame");
            assert_eq!(read::<Reply>(&frame[..]).expect("a reply"), reply);
        }
    }

    #[test]
    fn texts_become_one_short_line() {
        let text = "label \u{1b}[2J\nERROR forged\r\n".repeat(30_000);
        for reply in [Reply::Forbidden(text.clone()), Reply::Failed(text.clone()), Reply::Lost(text.clone())] {
            let frame = encode(&reply).expect("a frame");
            let (Reply::Forbidden(decoded) | Reply::Failed(decoded) | Reply::Lost(decoded)) =
                read::<Reply>(&frame[..]).expect("a reply")
            else {
                panic!("another reply");
            };
            println!("{} bytes of text become {}", text.len(), decoded.len());
            assert!(decoded.starts_with(r"label \u{1b}[2J\nERROR forged\r\nlabel"), "{decoded}");
            assert!(decoded.len() <= 512 && !decoded.contains(char::is_control), "{decoded}");
        }
    }

    #[test]
    fn frames_have_these_bytes() {
        let read = Request::Read { id: 1, offset: 0x80, len: 4 };
        assert_eq!(encode(&read).expect("a frame"), b"\0\0\0\x05\x02\x01\x80\x01\x04");
        assert_eq!(encode(&Reply::Data(b"ab".to_vec())).expect("a frame"), b"\0\0\0\x04\x03\x02ab");
    }

    #[test]
    fn rejects_messages_above_the_maximum_length() {
        let data = Reply::Data(vec![0; MAX_READ as usize]);
        let frame = encode(&data).expect("the largest read fits");
        assert_eq!(read::<Reply>(&frame[..]).expect("a reply"), data);
        assert!(is_invalid(encode(&Reply::Lost("x".repeat(MAX_MESSAGE_LEN)))));
        assert!(is_invalid(encode(&Reply::Listed(vec![entries()[3].clone(); 5000]))));
        assert!(is_invalid(message_len(*b"HTTP")));
        assert_eq!(message_len([0, 0x10, 0, 0x10]).expect("a length"), MAX_MESSAGE_LEN);
        assert!(is_invalid(message_len([0, 0x10, 0, 0x11])));
    }

    #[test]
    fn rejects_truncated_and_trailing_bytes() {
        for request in requests() {
            let mut message = encode(&request).expect("a frame").split_off(4);
            message.push(0);
            assert!(is_invalid(decode::<Request>(&message)), "{request:?} and a byte");
            message.truncate(message.len() - 2);
            assert!(is_invalid(decode::<Request>(&message)), "{request:?} without its last byte");
        }
        assert!(is_invalid(decode::<Request>(b"\x05")), "an unknown request");
        assert!(is_invalid(decode::<Reply>(b"\x0a")), "an unknown reply");
        assert!(is_invalid(decode::<Reply>(b"\x05\xff\xff\xff\xff\x0f")), "a list that claims 4 G entries");
    }

    #[test]
    fn greetings_of_all_versions_are_parsed() {
        assert_eq!(parse_greeting(b"H\0\0\0\x11rtftp-guestfs\0\0\0\x02").expect("version 2"), 2);
        let greeting = greeting(VERSION);
        assert_eq!(parse_greeting(greeting[..].try_into().expect("its length")).expect("this version"), VERSION);
        assert!(is_invalid(parse_greeting(b"HTTP/1.1 200 OK\r\nDate:")));
    }
}
