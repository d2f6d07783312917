//! Sending the contents of a file.
//!
//! A client that has received the last byte must have received one version of the file. So the last piece is read into memory, the
//! file is compared with the opened version, and only then the piece is sent. Most of a local file goes from the page cache to the
//! socket (`sendfile`), which sends what the page contains when the packet leaves, not when it was queued. So the end of the file,
//! more than the socket can queue, is copied. TLS encrypts copies only.

use std::{borrow::Cow, fs::File, io, mem, net::IpAddr, ops::Range, os::unix::fs::FileExt, sync::Arc, time::Duration};

use rtftp_core::ReadFailed;
use rustix::{
    fs::sendfile,
    io::{ReadWriteFlags, preadv2},
    net::SendFlags,
};
use smol::future::yield_now;

use super::transport::{Transport, send_plain};
use crate::{
    clock::{self, within},
    connections::Place,
    event_loop::Stream,
    files::OpenFile,
    history::RequestRecord,
    local_fs::ServedFile,
};

/// The send buffer of a connection in bytes. The kernel uses twice as much.
pub(super) const SEND_BUFFER: usize = 128 << 10;
/// The bytes at the end of a response that are copied: all that the kernel may have queued, and the last piece.
const COPIED: u64 = 2 * SEND_BUFFER as u64 + PIECE as u64;
/// The size of a piece that is copied, in bytes.
const PIECE: usize = 64 << 10;
/// The size of a piece that is sent from the page cache, in bytes.
const FILE_PIECE: u64 = 1 << 20;
/// The distance of the bytes that show whether the page cache has a piece; the kernel reads as much ahead by default.
const SAMPLE_DISTANCE: usize = 128 << 10;
/// The time limit for sending a piece. GRUB opens a second file and reads it after the first one.
const SEND_TIMEOUT: Duration = Duration::from_secs(300);

/// The reason why a response was not sent to its end.
#[derive(Debug)]
pub(super) enum SendError {
    /// The client has closed the connection, or does not read.
    Client,
    /// The file cannot be read, or has changed.
    File(ReadFailed),
}

/// Sends the head of a response and this part of a file; counts the bytes of the file in `record`.
pub(super) async fn send(
    stream: &mut Transport,
    head: &str,
    file: &mut OpenFile,
    part: Range<u64>,
    place: &Place<IpAddr>,
    record: &RequestRecord,
) -> Result<(), SendError> {
    let (mut head, mut at, size) = (head.as_bytes(), part.start, file.size());
    let note_progress = |at: u64| {
        place.note_progress();
        record.note_activity(clock::now(), at - part.start, 0);
    };
    let copied_from = part.end.saturating_sub(COPIED);
    if let (Transport::Plain(stream), Some(local)) = (&*stream, file.local_file())
        && at < copied_from
    {
        // It shares a packet with the bytes that follow.
        in_time(send_plain(stream, [mem::take(&mut head), &[]], SendFlags::MORE)).await?;
        let mut cached_until = at;
        while at < copied_from {
            if at >= cached_until {
                cached_until = copied_from.min(at + FILE_PIECE);
                load(local, at..cached_until).await.map_err(|_| SendError::File(ReadFailed::UNREADABLE))?;
            }
            match in_time(send_cached(stream, local.file(), at, cached_until)).await? {
                0 => return Err(SendError::File(ReadFailed::CHANGED)),
                sent => at += sent,
            }
            note_progress(at);
            yield_now().await;
        }
    }
    if part.is_empty() {
        return in_time(stream.send([head, &[]])).await;
    }
    let mut buf = vec![];
    while at < part.end {
        let piece = file.bytes_at(at, PIECE, &mut buf).await.map_err(SendError::File)?;
        let len = piece.len().min(usize::try_from(part.end - at).unwrap_or(usize::MAX));
        let mut piece = Cow::from(&piece[..len]);
        if len == 0 {
            return Err(SendError::File(ReadFailed::CHANGED));
        }
        at += len as u64;
        // Reads at the end of the file verify it themselves.
        if at == part.end && part.end < size {
            piece = Cow::from(piece.into_owned());
            file.verify().await.map_err(SendError::File)?;
        }
        in_time(stream.send([mem::take(&mut head), &piece])).await?;
        note_progress(at);
        if at < part.end {
            // Other connections are served meanwhile, however fast this client reads.
            yield_now().await;
        }
    }
    Ok(())
}

/// Waits until something is sent, for a limited time.
async fn in_time<T>(sending: impl Future<Output = io::Result<T>>) -> Result<T, SendError> {
    within(SEND_TIMEOUT, sending).await.and_then(Result::ok).ok_or(SendError::Client)
}

/// Sends bytes from `at` on, up to `end`, from the page cache. Returns their number; 0 at the end of the file.
async fn send_cached(stream: &Stream, file: &File, at: u64, end: u64) -> io::Result<u64> {
    let len = usize::try_from(end - at).unwrap_or(usize::MAX);
    let sent = stream
        .write_with(|socket| {
            let mut offset = at;
            sendfile(socket, file, Some(&mut offset), len)
        })
        .await?;
    Ok(sent as u64)
}

/// Makes the page cache have these bytes of a file, unless a sample of them shows that it does.
async fn load(file: &Arc<ServedFile>, range: Range<u64>) -> io::Result<()> {
    let mut samples = range.clone().step_by(SAMPLE_DISTANCE);
    let is_cached = |at| preadv2(file.file(), &mut [io::IoSliceMut::new(&mut [0])], at, ReadWriteFlags::NOWAIT).is_ok();
    if samples.all(is_cached) {
        return Ok(());
    }
    // On a thread that may block: the disk must not delay other connections.
    let file = file.clone();
    smol::unblock(move || {
        let mut buf = vec![0; SAMPLE_DISTANCE];
        for at in range.step_by(SAMPLE_DISTANCE) {
            if file.file().read_at(&mut buf, at)? == 0 {
                break;
            }
        }
        Ok(())
    })
    .await
}
