//! The journal: finished requests as lines of JSON in a directory, so that the history survives a restart.
//!
//! A thread of its own reads the journal at the start and then writes to it. A request is handed to it without waiting: if the disk is
//! full, hangs or is too slow, requests are not recorded, and nothing else happens.

mod files;
mod line;
mod past;
#[cfg(test)]
mod tests;

use std::{
    fs::File,
    io,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread,
    time::Duration,
};

use parking_lot::Mutex;
use rtftp_core::Instant;
use rustix::fs::{FlockOperation, flock};
use smol::channel::{self, bounded};

pub use self::past::{PastBoot, boots_since};
use self::{
    files::Journals,
    line::{Line, MountLine},
};
use super::{request::Record, snapshot::Mount, store::Store, wall_clock::WallClock};
use crate::{
    clock::{self, within},
    rate_limit::RateLimit,
};

/// The number of requests that wait for being written.
const MAX_QUEUED: usize = 16_384;
/// The number of requests of unverified clients that are recorded at once, and each second after that.
const UNVERIFIED_BURST: u32 = 1000;
const UNVERIFIED_PER_SECOND: u32 = 10;
/// The time for writing the last requests at the end.
const FLUSH_LIMIT: Duration = Duration::from_millis(300);

/// The handle of the thread that writes the journal.
#[derive(Debug)]
pub(super) struct Journal {
    queue: SyncSender<Message>,
    unverified: Mutex<RateLimit>,
    losses: Arc<Losses>,
}

#[derive(Debug)]
enum Message {
    /// A finished request.
    Finished(IpAddr, Arc<Record>),
    /// What a disk has shown after the boot of a client that began then.
    Mount(IpAddr, Instant, Mount),
    /// Everything before is to be written. The channel is closed after that.
    Flush(channel::Sender<()>),
}

impl Journal {
    /// Starts the thread, which adds the boots in the journal to `store` and then writes to the journal.
    ///
    /// # Errors
    ///
    /// The system allows no further thread.
    pub(super) fn start(directory: &Path, store: Arc<Mutex<Store>>) -> io::Result<Self> {
        let (queue, messages) = sync_channel(MAX_QUEUED);
        let losses = Arc::new(Losses { directory: directory.to_owned(), count: AtomicU64::new(0) });
        let unverified = Mutex::new(RateLimit::new(UNVERIFIED_BURST, UNVERIFIED_PER_SECOND));
        let journal = Self { queue, unverified, losses: losses.clone() };
        // Nothing depends on this thread: if it fails, the daemon continues.
        thread::Builder::new().name("history".into()).spawn(move || run(&store, &messages, &losses))?;
        Ok(journal)
    }

    /// Records a finished request. Never waits.
    pub(super) fn record(&self, client: IpAddr, record: &Arc<Record>) {
        if !(record.is_verified() || self.unverified.lock().allows(clock::now())) {
            return;
        }
        self.send(Message::Finished(client, record.clone()));
    }

    /// Records what the disk of a client has shown after the boot that began then. Never waits.
    pub(super) fn record_mount(&self, client: IpAddr, began: Instant, mount: Mount) {
        self.send(Message::Mount(client, began, mount));
    }

    fn send(&self, message: Message) {
        match self.queue.try_send(message) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => self.losses.add("the disk is too slow or hangs"),
            Err(TrySendError::Disconnected(_)) => self.losses.add("its thread has ended"),
        }
    }

    /// Waits until the requests recorded so far are written. Returns `false` if that takes too long.
    pub(super) async fn flush(&self) -> bool {
        let (done, flushed) = bounded::<()>(1);
        // The channel is closed without a value.
        self.queue.try_send(Message::Flush(done)).is_ok() && within(FLUSH_LIMIT, flushed.recv()).await.is_some()
    }
}

/// The requests that could not be recorded.
#[derive(Debug)]
struct Losses {
    directory: PathBuf,
    /// The number since the last success.
    count: AtomicU64,
}

impl Losses {
    /// Counts a request, and logs the first one.
    fn add(&self, reason: impl std::fmt::Display) {
        if self.count.fetch_add(1, Relaxed) == 0 {
            log::warn!("history {}: boots are not recorded: {reason}", self.directory.display());
        }
    }

    /// Reports that requests are recorded again, if they were not.
    fn end(&self) {
        let count = self.count.swap(0, Relaxed);
        if count > 0 {
            log::info!("history {}: boots are recorded again, {count} requests were lost", self.directory.display());
        }
    }
}

/// Reads the journal, and then writes until the handle is dropped.
fn run(store: &Mutex<Store>, messages: &Receiver<Message>, losses: &Losses) {
    let directory = &losses.directory;
    // Held until the end.
    let _lock = lock(directory).inspect_err(|error| log::debug!("history {}: {error}", directory.display()));
    restore(directory, store);
    let mut journals = Journals::new(directory);
    if let Err(error) = journals.open() {
        losses.add(format_args!("{error}: is the directory there, and may rtftp write to it?"));
    }
    for message in messages {
        match message {
            Message::Flush(done) => drop(done),
            Message::Finished(client, record) => {
                let line = Line::new(client, &record, WallClock::now());
                let written = journals.append(record.is_verified(), &line);
                written.map_or_else(|error| losses.add(error), |()| losses.end());
            }
            Message::Mount(client, began, mount) => {
                // A board that has received a file has answered.
                let written = journals.append(true, &MountLine::new(client, began, mount, WallClock::now()));
                written.map_or_else(|error| losses.add(error), |()| losses.end());
            }
        }
    }
}

/// Locks the directory, so that only one process writes there. During an upgrade the old one may still run.
fn lock(directory: &Path) -> io::Result<File> {
    let lock = File::open(directory)?;
    if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
        log::warn!("history {}: in use by another rtftp: waiting until that ends", directory.display());
        flock(&lock, FlockOperation::LockExclusive)?;
    }
    Ok(lock)
}

/// Adds the boots in the journal to the store, which is locked only at the end.
fn restore(directory: &Path, store: &Mutex<Store>) {
    let (mut earlier, now) = (store.lock().emptied(), WallClock::now());
    let (mut count, mut ignored) = (0, 0);
    let read =
        files::read(directory, |line| match line.map(|line| (line.is_request(), line.restore(&mut earlier, now))) {
            Some((is_request, Some(()))) => count += u64::from(is_request),
            _ => ignored += 1,
        });
    store.lock().add_restored(earlier, now.instant());
    let ignored = if ignored == 0 { String::new() } else { format!(", {ignored} lines ignored") };
    match read {
        Ok(()) => log::info!("history {}: {count} requests read{ignored}", directory.display()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => log::warn!("history {}: earlier boots cannot be read: {error}", directory.display()),
    }
}
