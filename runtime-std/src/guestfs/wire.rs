//! What the daemon and its helper say to each other over the helper's stdin and stdout.
//!
//! A frame is one byte that tells the message, four bytes with the length of what follows, and that; numbers are big-endian.
//! The helper speaks first, with [`Reply::Hello`]; from then on every [`Request`] gets one reply, but for [`Request::Start`],
//! which is told about its [`Reply::Reached`] steps before its answer.

use std::{ffi::OsStr, fmt, os::unix::ffi::OsStrExt, path::PathBuf};

use crate::fs::FileType;

/// The protocol that this build speaks; it changes with every change of a message.
pub const VERSION: u32 = 2;

/// The greatest number of bytes of a file in one [`Reply::Data`]. libguestfs refuses 4 MiB; above 1 MiB nothing is gained.
pub const MAX_READ: u32 = 1 << 20;

/// The greatest length of a frame without its header; whoever announces more is not one of ours.
pub const MAX_BODY: u32 = MAX_READ;

/// What the daemon asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Open and mount the disk. The first request, and made once.
    Start {
        /// Emulate the processor, do not use KVM.
        emulate: bool,
        /// An empty directory for temporary files, the helper's own; it is deleted at the helper's end.
        folder: PathBuf,
        /// The text of the `.nbd` file.
        description: Vec<u8>,
    },
    /// Open a file, by its path below `tftp_root`.
    Open {
        /// The path, its names joined by `/`.
        path: Vec<u8>,
    },
    /// Read a piece of an open file.
    Read {
        /// The file.
        id: u32,
        /// Where the piece begins.
        offset: u64,
        /// How long it is, up to [`MAX_READ`].
        len: u32,
    },
    /// Forget an open file.
    Close {
        /// The file.
        id: u32,
    },
    /// Tell what is in a directory.
    List {
        /// Its path below `tftp_root`, without links, its names joined by `/`; empty for `tftp_root` itself.
        path: Vec<u8>,
    },
}

/// Something in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectoryEntry {
    /// Its name.
    pub name: Vec<u8>,
    /// What it is.
    pub kind: FileType,
    /// How long a regular file is, in bytes.
    pub size: u64,
}

/// What the helper answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// Said once, before anything is asked.
    Hello {
        /// The protocol that the helper speaks.
        version: u32,
    },
    /// A step of the start is done.
    Reached(Step),
    /// The disk is mounted.
    Ready,
    /// A file is open.
    Opened {
        /// What it is called from now on.
        id: u32,
        /// Its length in bytes.
        size: u64,
    },
    /// A piece of a file; shorter than asked for means that the file ends there.
    Data(Vec<u8>),
    /// A file is forgotten.
    Closed,
    /// What is in a directory. Not more than [`Reply::has_room_for`] says.
    Listed(Vec<DirectoryEntry>),
    /// There is no such file.
    NotFound,
    /// The file is not for clients.
    Forbidden(String),
    /// This request failed; the next one may not.
    Failed(String),
    /// The disk is lost, or never was there; the helper ends.
    Lost(String),
}

/// How far a start is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// The NBD server has answered.
    Connected,
    /// The appliance runs.
    Launched,
}

/// A message that is not one of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a message of this protocol")
    }
}

impl std::error::Error for Malformed {}

/// The length of a frame's header.
pub const HEADER: usize = 5;

/// Reads a frame's header: the kind of the message, and the length of the body to read and hand to `decode`.
///
/// # Errors
///
/// [`Malformed`] if the body is longer than [`MAX_BODY`].
pub fn header([kind, len @ ..]: [u8; HEADER]) -> Result<(u8, usize), Malformed> {
    let len = u32::from_be_bytes(len);
    if len > MAX_BODY { Err(Malformed) } else { Ok((kind, len as usize)) }
}

impl Request {
    /// Makes the frame.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Start { emulate, folder, description } => {
                let folder = folder.as_os_str().as_bytes();
                // A path of Linux has at most 4096 bytes.
                frame(b'S', &[&[u8::from(*emulate)], &(folder.len() as u32).to_be_bytes(), folder, description])
            }
            Self::Open { path } => frame(b'O', &[path]),
            Self::Read { id, offset, len } => {
                frame(b'R', &[&id.to_be_bytes(), &offset.to_be_bytes(), &len.to_be_bytes()])
            }
            Self::Close { id } => frame(b'C', &[&id.to_be_bytes()]),
            Self::List { path } => frame(b'L', &[path]),
        }
    }

    /// Reads a message from what followed its [`header`].
    ///
    /// # Errors
    ///
    /// [`Malformed`] if it is none.
    pub fn decode(kind: u8, body: Vec<u8>) -> Result<Self, Malformed> {
        let mut fields = Fields(&body);
        let request = match kind {
            b'S' => {
                let [emulate] = fields.take()?;
                let len = fields.u32()? as usize;
                let (folder, description) = fields.0.split_at_checked(len).ok_or(Malformed)?;
                let folder = PathBuf::from(OsStr::from_bytes(folder));
                return Ok(Self::Start { emulate: emulate != 0, folder, description: description.to_vec() });
            }
            b'O' => return Ok(Self::Open { path: body }),
            b'L' => return Ok(Self::List { path: body }),
            b'R' => Self::Read { id: fields.u32()?, offset: fields.u64()?, len: fields.u32()? },
            b'C' => Self::Close { id: fields.u32()? },
            _ => return Err(Malformed),
        };
        fields.end(request)
    }
}

impl DirectoryEntry {
    /// One byte that tells the kind, eight with the size, two with the length of the name, and that.
    fn encode(&self) -> Vec<u8> {
        let kind = match self.kind {
            FileType::File => b'f',
            FileType::Directory => b'd',
            FileType::Link => b'l',
            FileType::Other => b'o',
        };
        // A name has at most 255 bytes in Linux.
        let len = (self.name.len() as u16).to_be_bytes();
        [&[kind], &self.size.to_be_bytes()[..], &len, &self.name].concat()
    }

    fn decode(fields: &mut Fields<'_>) -> Result<Self, Malformed> {
        let kind = match fields.take()? {
            [b'f'] => FileType::File,
            [b'd'] => FileType::Directory,
            [b'l'] => FileType::Link,
            [b'o'] => FileType::Other,
            _ => return Err(Malformed),
        };
        let size = fields.u64()?;
        let len = fields.take().map(u16::from_be_bytes)?;
        let (name, rest) = fields.0.split_at_checked(len.into()).ok_or(Malformed)?;
        fields.0 = rest;
        Ok(Self { name: name.to_vec(), kind, size })
    }
}

impl Reply {
    /// Whether a [`Reply::Listed`] of these fits into a frame.
    pub fn has_room_for(list: &[DirectoryEntry]) -> bool {
        list.iter().map(|listed| listed.name.len() + 11).sum::<usize>() <= MAX_BODY as usize
    }

    /// Makes the frame.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Hello { version } => frame(b'H', &[MAGIC, &version.to_be_bytes()]),
            Self::Reached(Step::Connected) => frame(b'1', &[]),
            Self::Reached(Step::Launched) => frame(b'2', &[]),
            Self::Ready => frame(b'3', &[]),
            Self::Opened { id, size } => frame(b'O', &[&id.to_be_bytes(), &size.to_be_bytes()]),
            Self::Data(data) => frame(b'D', &[data]),
            Self::Closed => frame(b'C', &[]),
            Self::Listed(list) => frame(b'T', &[&list.iter().flat_map(DirectoryEntry::encode).collect::<Vec<_>>()]),
            Self::NotFound => frame(b'N', &[]),
            Self::Forbidden(reason) => frame(b'F', &[reason.as_bytes()]),
            Self::Failed(reason) => frame(b'E', &[reason.as_bytes()]),
            Self::Lost(reason) => frame(b'L', &[reason.as_bytes()]),
        }
    }

    /// Reads a message from what followed its [`header`].
    ///
    /// # Errors
    ///
    /// [`Malformed`] if it is none.
    pub fn decode(kind: u8, body: Vec<u8>) -> Result<Self, Malformed> {
        let mut fields = Fields(&body);
        let reply = match kind {
            b'H' => {
                fields.0 = fields.0.strip_prefix(MAGIC).ok_or(Malformed)?;
                // What a later version adds after its number is none of our business.
                return Ok(Self::Hello { version: fields.u32()? });
            }
            b'D' => return Ok(Self::Data(body)),
            b'1' => Self::Reached(Step::Connected),
            b'2' => Self::Reached(Step::Launched),
            b'3' => Self::Ready,
            b'O' => Self::Opened { id: fields.u32()?, size: fields.u64()? },
            b'C' => Self::Closed,
            b'T' => {
                let mut list = Vec::new();
                while !fields.0.is_empty() {
                    list.push(DirectoryEntry::decode(&mut fields)?);
                }
                Self::Listed(list)
            }
            b'N' => Self::NotFound,
            b'F' => Self::Forbidden(fields.text()),
            b'E' => Self::Failed(fields.text()),
            b'L' => Self::Lost(fields.text()),
            _ => return Err(Malformed),
        };
        fields.end(reply)
    }
}

/// What a helper's first message begins with.
const MAGIC: &[u8] = b"rtftp-guestfs";

/// Puts a header in front of `parts`. What is longer than a frame can be is cut: only a text can be.
fn frame(kind: u8, parts: &[&[u8]]) -> Vec<u8> {
    let mut body = parts.concat();
    body.truncate(MAX_BODY as usize);
    let mut frame = Vec::with_capacity(HEADER + body.len());
    frame.push(kind);
    // No frame is longer than `MAX_BODY`, a u32.
    frame.extend_from_slice(&(body.len() as u32).to_be_bytes());
    frame.append(&mut body);
    frame
}

/// The part of a message that is still to be read.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (field, rest) = self.0.split_first_chunk().ok_or(Malformed)?;
        self.0 = rest;
        Ok(*field)
    }

    fn u32(&mut self) -> Result<u32, Malformed> {
        self.take().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Result<u64, Malformed> {
        self.take().map(u64::from_be_bytes)
    }

    fn text(&mut self) -> String {
        String::from_utf8_lossy(std::mem::take(&mut self.0)).into_owned()
    }

    /// Gives the message if nothing is left over.
    fn end<T>(self, message: T) -> Result<T, Malformed> {
        if self.0.is_empty() { Ok(message) } else { Err(Malformed) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requests() -> [Request; 6] {
        [
            Request::Start { emulate: true, folder: "/t".into(), description: b"{}".to_vec() },
            Request::Start { emulate: false, folder: "".into(), description: vec![] },
            Request::Open { path: b"boot/\xff".to_vec() },
            Request::Read { id: 1, offset: 2, len: 3 },
            Request::Close { id: 4 },
            Request::List { path: b"boot".to_vec() },
        ]
    }

    fn replies() -> [Reply; 13] {
        [
            Reply::Hello { version: VERSION },
            Reply::Reached(Step::Connected),
            Reply::Reached(Step::Launched),
            Reply::Ready,
            Reply::Opened { id: 1, size: 1 << 40 },
            Reply::Data(b"\0\xff".to_vec()),
            Reply::Closed,
            Reply::Listed(vec![]),
            Reply::Listed(listed()),
            Reply::NotFound,
            Reply::Forbidden("a".into()),
            Reply::Failed("ä".into()),
            Reply::Lost(String::new()),
        ]
    }

    fn listed() -> Vec<DirectoryEntry> {
        let listed = |name: &[u8], kind, size| DirectoryEntry { name: name.into(), kind, size };
        vec![
            listed(b"vmlinuz", FileType::File, 1 << 40),
            listed(b"\xff", FileType::Directory, 0),
            listed(b"", FileType::Link, 0),
            listed(&[b'x'; 255], FileType::Other, 0),
        ]
    }

    #[test]
    fn a_list_has_to_fit() {
        let name = vec![b'x'; 245];
        let mut list = vec![DirectoryEntry { name, kind: FileType::File, size: 1 }; 4096];
        assert!(Reply::has_room_for(&list));
        assert_eq!(split(&Reply::Listed(list.clone()).encode()).1.len(), MAX_BODY as usize);
        list.push(list[0].clone());
        assert!(!Reply::has_room_for(&list));
        let cut = split(&Reply::Listed(list).encode());
        assert_eq!(cut.1.len(), MAX_BODY as usize);
        assert_eq!(Reply::decode(b'T', cut.1[..300].to_vec()), Err(Malformed));
        assert_eq!(Reply::decode(b'T', b"x\0\0\0\0\0\0\0\0\0\0".to_vec()), Err(Malformed));
    }

    fn split(frame: &[u8]) -> (u8, Vec<u8>) {
        let (start, body) = frame.split_first_chunk().expect("a header");
        let (kind, len) = header(*start).expect("a good header");
        assert_eq!(len, body.len());
        (kind, body.to_vec())
    }

    #[test]
    fn a_message_arrives_as_it_was_sent() {
        for request in requests() {
            let (kind, body) = split(&request.encode());
            assert_eq!(Request::decode(kind, body), Ok(request));
        }
        for reply in replies() {
            let (kind, body) = split(&reply.encode());
            assert_eq!(Reply::decode(kind, body), Ok(reply));
        }
    }

    #[test]
    fn frames_have_these_bytes() {
        let read = Request::Read { id: 1, offset: 0x0203, len: 4 };
        assert_eq!(read.encode(), b"R\0\0\0\x10\0\0\0\x01\0\0\0\0\0\0\x02\x03\0\0\0\x04");
        let start = Request::Start { emulate: true, folder: "/t".into(), description: b"{}".to_vec() };
        assert_eq!(start.encode(), b"S\0\0\0\x09\x01\0\0\0\x02/t{}");
        assert_eq!(Reply::Hello { version: 1 }.encode(), b"H\0\0\0\x11rtftp-guestfs\0\0\0\x01");
        assert_eq!(Reply::Data(b"ab".to_vec()).encode(), b"D\0\0\0\x02ab");
    }

    #[test]
    fn a_body_has_a_greatest_length() {
        assert_eq!(header(*b"D\0\x10\0\0"), Ok((b'D', MAX_BODY as usize)));
        assert_eq!(header(*b"D\0\x10\0\x01"), Err(Malformed));
        assert_eq!(header(*b"HTTP/"), Err(Malformed));
        let (_, body) = split(&Reply::Lost("x".repeat(MAX_BODY as usize + 1)).encode());
        assert_eq!(body.len(), MAX_BODY as usize);
    }

    #[test]
    fn a_short_or_long_message_is_refused() {
        for request in requests() {
            let (kind, mut body) = split(&request.encode());
            if matches!(request, Request::Read { .. } | Request::Close { .. }) {
                body.push(0);
                assert_eq!(Request::decode(kind, body.clone()), Err(Malformed));
                body.truncate(body.len() - 2);
                assert_eq!(Request::decode(kind, body), Err(Malformed));
            }
        }
        assert_eq!(Request::decode(b'S', vec![]), Err(Malformed));
        assert_eq!(Request::decode(b'S', b"\0\0\0\0\x03/t".to_vec()), Err(Malformed));
        assert_eq!(Request::decode(b'?', vec![]), Err(Malformed));
        assert_eq!(Reply::decode(b'O', vec![0; 11]), Err(Malformed));
        assert_eq!(Reply::decode(b'3', vec![0]), Err(Malformed));
        assert_eq!(Reply::decode(b'?', vec![]), Err(Malformed));
    }

    #[test]
    fn another_version_is_told_by_its_number() {
        assert_eq!(Reply::decode(b'H', b"rtftp-guestfs\0\0\0\x09more".to_vec()), Ok(Reply::Hello { version: 9 }));
        assert_eq!(Reply::decode(b'H', b"rtftp-guest".to_vec()), Err(Malformed));
        assert_eq!(Reply::decode(b'H', b"rtftp-guestfs\0\0".to_vec()), Err(Malformed));
    }
}
