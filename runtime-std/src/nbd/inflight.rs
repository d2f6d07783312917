//! The requests that a server has been sent and has not answered to the end.

use std::{collections::BTreeMap, io, mem, ops::Range, time::Instant};

use smol::channel::Sender;

use crate::fs::Error;

/// How many requests are under way at most, and for how many bytes.
const MOST: (usize, usize) = (64, 8 << 20);
/// In how many places an answer may have gaps at a time; servers send it in order, or nearly so.
const MOST_GAPS: usize = 256;

/// What a server is asked for.
#[derive(Debug)]
pub(super) struct Request {
    /// Memory for the answer, with anything or nothing in it.
    pub(super) spare: Vec<u8>,
    /// Where the bytes are on the disk.
    pub(super) offset: u64,
    /// How many there are.
    pub(super) len: u32,
    /// Gets them, or the server's refusal; nothing if the connection is lost.
    pub(super) answer: Sender<Result<Vec<u8>, Error>>,
}

/// The requests under way, by their cookies: the first was sent first.
#[derive(Debug, Default)]
pub(super) struct InFlight {
    sent: BTreeMap<u64, Sent>,
    bytes: usize,
    last_cookie: u64,
}

#[derive(Debug)]
struct Sent {
    request: Request,
    deadline: Instant,
    buffer: Vec<u8>,
    /// The parts of the disk that have not come yet.
    missing: Vec<Range<u64>>,
    /// The first error that the server told.
    failed: Option<Error>,
}

impl InFlight {
    /// Whether a request for so many bytes may be sent.
    pub(super) fn has_room(&self, len: u32) -> bool {
        self.sent.is_empty() || self.sent.len() < MOST.0 && self.bytes + len as usize <= MOST.1
    }

    /// Notes a request that is about to be sent, and gives it a cookie.
    pub(super) fn add(&mut self, mut request: Request, deadline: Instant) -> u64 {
        self.last_cookie += 1;
        self.bytes += request.len as usize;
        let mut buffer = mem::take(&mut request.spare);
        buffer.resize(request.len as usize, 0);
        let all = request.offset..request.offset.saturating_add(request.len.into());
        let sent = Sent { request, deadline, buffer, missing: vec![all], failed: None };
        self.sent.insert(self.last_cookie, sent);
        self.last_cookie
    }

    /// When the oldest request must have been answered.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.sent.first_key_value().map(|(_, sent)| sent.deadline)
    }

    /// The place and the length that a request is for.
    pub(super) fn asked(&mut self, cookie: u64) -> io::Result<(u64, u32)> {
        self.find(cookie).map(|sent| (sent.request.offset, sent.request.len))
    }

    /// Notes that these bytes of the disk have come, or are zeros; where they belong in the answer.
    ///
    /// # Errors
    ///
    /// They were not asked for, or have come before.
    pub(super) fn fill(&mut self, cookie: u64, offset: u64, len: u32) -> io::Result<Range<usize>> {
        let sent = self.find(cookie)?;
        let end = offset.saturating_add(len.into());
        let gap = sent.missing.iter().position(|gap| gap.start <= offset && offset < end && end <= gap.end);
        let gap = sent.missing.swap_remove(gap.ok_or_else(not_asked)?);
        sent.missing.extend([gap.start..offset, end..gap.end].into_iter().filter(|gap| !gap.is_empty()));
        if sent.missing.len() > MOST_GAPS {
            return Err(io::Error::other("the server answers in too many pieces"));
        }
        let start = (offset - sent.request.offset) as usize;
        Ok(start..start + len as usize)
    }

    /// Lends the buffer of an answer, to read a piece into it.
    pub(super) fn take_buffer(&mut self, cookie: u64) -> io::Result<Vec<u8>> {
        self.find(cookie).map(|sent| mem::take(&mut sent.buffer))
    }

    /// Takes the buffer back.
    pub(super) fn put_buffer(&mut self, cookie: u64, buffer: Vec<u8>) -> io::Result<()> {
        self.find(cookie)?.buffer = buffer;
        Ok(())
    }

    /// Notes an error that the server told with a text, which may be empty.
    pub(super) fn fail(&mut self, cookie: u64, error: u32, text: &str) -> io::Result<()> {
        let sent = self.find(cookie)?;
        // The protocol's numbers are those of Linux.
        let error = io::Error::from_raw_os_error(i32::try_from(error).unwrap_or(i32::MAX));
        let Request { offset, len, .. } = sent.request;
        let text = if text.is_empty() { String::new() } else { format!(": {text}") };
        let reason = format!("the NBD server cannot read {len} bytes at {offset}: {error}{text}");
        sent.failed.get_or_insert(Error::Io(reason));
        Ok(())
    }

    /// Hands out the answer to a request.
    ///
    /// # Errors
    ///
    /// It has gaps, and the server told no error.
    pub(super) fn finish(&mut self, cookie: u64) -> io::Result<()> {
        let sent = self.sent.remove(&cookie).ok_or_else(not_asked)?;
        self.bytes -= sent.request.len as usize;
        let answer = match sent.failed {
            Some(error) => Err(error),
            None if sent.missing.is_empty() => Ok(sent.buffer),
            None => return Err(io::Error::other("the server left out a part of what it was asked for")),
        };
        // Fails when nobody waits for it any more, which is no matter.
        let _ = sent.request.answer.try_send(answer);
        Ok(())
    }

    fn find(&mut self, cookie: u64) -> io::Result<&mut Sent> {
        self.sent.get_mut(&cookie).ok_or_else(not_asked)
    }
}

fn not_asked() -> io::Error {
    io::Error::other("the server sent what it was not asked for")
}
