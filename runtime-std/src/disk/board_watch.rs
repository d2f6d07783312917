//! Looks at a disk after its board has received files from it, to see whether the board has come up: its kernel mounts the disk.
//!
//! The looks use the connection that is open anyway, and are fewer with time. Nothing is claimed that two looks do not show: disks that
//! several boards may use, and connections that may return old data, show nothing.

#[cfg(test)]
mod tests;

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_channel::{
    mpsc::{UnboundedReceiver, UnboundedSender, unbounded},
    oneshot,
};
use parking_lot::Mutex;
use smol::{Executor, Task, future::or};

use super::actor::{Connection, Message};
use crate::{
    clock::{self, Timer, within},
    fs::{Change, DiskChange, DiskMarks, Error},
    history::{
        RequestRecord,
        snapshot::{Mount, MountState},
    },
};

/// The time from the last file to the first look, and the shortest time between two looks.
const MIN_INTERVAL: Duration = Duration::from_secs(4);
/// The time from the last file to the last look.
const MAX_TIME: Duration = Duration::from_secs(120);
/// The time limit for the look with which the others are compared. No kernel starts and mounts a disk as fast.
const FIRST_LOOK_LIMIT: Duration = Duration::from_secs(1);

/// Sees whether the board of a disk comes up.
#[derive(Debug, Default)]
pub(super) struct BoardWatch(Mutex<Option<(UnboundedSender<Received>, Task<()>)>>);

/// A file of the disk that the board has received.
#[derive(Debug)]
struct Received {
    record: Arc<RequestRecord>,
    at: Instant,
}

impl BoardWatch {
    /// Notes a file that the board has received. The disk's actor gets `messages`.
    pub(super) fn file_received(
        &self,
        record: Arc<RequestRecord>,
        messages: &UnboundedSender<Message>,
        executor: &Executor<'static>,
    ) {
        let mut received = Received { record, at: clock::instant() };
        let mut watch = self.0.lock();
        if let Some((files, _)) = &*watch {
            match files.unbounded_send(received) {
                Ok(()) => return,
                // The board has come up, or it is too late.
                Err(rejected) => received = rejected.into_inner(),
            }
        }
        let (files, inbox) = unbounded();
        let looks = Looks { messages: messages.clone() };
        *watch = Some((files, executor.spawn(Box::pin(looks.watch(received, inbox)))));
    }
}

/// The looks at a disk.
struct Looks {
    messages: UnboundedSender<Message>,
}

impl Looks {
    /// Watches one boot after another, until one is over before the next begins.
    async fn watch(self, first: Received, mut files: UnboundedReceiver<Received>) {
        let mut next = Some(first);
        while let Some(file) = next.take() {
            next = match self.first_look(&file).await {
                Ok(before) => self.watch_boot(file, &before, &mut files).await,
                Err(reason) => {
                    file.report(MountState::Unknown, &reason);
                    None
                }
            };
        }
        files.close();
    }

    /// Looks at the disk until its board has mounted it, or it is too late. Returns the first file of the next boot if that begins
    /// before.
    async fn watch_boot(
        &self,
        mut file: Received,
        before: &DiskMarks,
        files: &mut UnboundedReceiver<Received>,
    ) -> Option<Received> {
        let mut has_changed = false;
        let mut last_look = clock::instant();
        loop {
            let interval = (clock::elapsed(file.at) / 4).max(MIN_INTERVAL);
            let due = last_look.max(file.at) + interval;
            let is_last = due > file.at + MAX_TIME;
            let next = async { files.recv().await.ok() };
            let wait = async {
                Timer::at(due.min(file.at + MAX_TIME)).await;
                None
            };
            let next = or(next, wait).await;
            // A kernel and its initrd follow each other closely.
            if let Some(next) = next.as_ref().filter(|_| !has_changed && clock::elapsed(last_look) < MIN_INTERVAL)
                && next.is_same_boot(&file)
            {
                file = Received { record: next.record.clone(), at: next.at };
                continue;
            }
            last_look = clock::instant();
            let change = match self.look(before).await {
                Ok(change) => change,
                // It may be being written.
                Err(LookError::Read(Error::Corrupt(_))) if !is_last && next.is_none() => continue,
                Err(error) => {
                    // Has no effect if more is known.
                    file.report(MountState::Unknown, &error.to_string());
                    return next;
                }
            };
            let text = &change.text;
            match change.change {
                Change::Mounted => {
                    file.report(MountState::Mounted, text);
                    return next;
                }
                Change::Written if !has_changed => {
                    has_changed = true;
                    file.report(MountState::Written, text);
                }
                Change::None if text.is_empty() => {
                    file.report(MountState::Unknown, "nothing on the disk shows whether it is mounted");
                    return next;
                }
                Change::None if is_last || next.as_ref().is_some_and(|next| !next.is_same_boot(&file)) => {
                    file.report(MountState::Unchanged, text);
                }
                _ => {}
            }
            match next {
                Some(next) if has_changed || !next.is_same_boot(&file) => return Some(next),
                Some(next) => file = next,
                None if is_last => return None,
                None => {}
            }
        }
    }

    /// Reads the marks with which later ones are compared. Fails with the reason why they would show nothing.
    async fn first_look(&self, file: &Received) -> Result<DiskMarks, String> {
        let read = async {
            let Connection { device, memory, work } = self.connection().await?;
            DiskMarks::read(device, memory, &work).await.map_err(|error| error.to_string())
        };
        let left = FIRST_LOOK_LIMIT.saturating_sub(clock::elapsed(file.at));
        within(left, read).await.unwrap_or_else(|| Err("the disk was too slow to be looked at before".into()))
    }

    /// Compares the marks with those of an earlier look.
    async fn look(&self, before: &DiskMarks) -> Result<DiskChange, LookError> {
        let Connection { device, memory, work } = self.connection().await.map_err(LookError::Refused)?;
        before.compare(device, memory, &work).await.map_err(LookError::Read)
    }

    async fn connection(&self) -> Result<Connection, &'static str> {
        let (reply, connection) = oneshot::channel();
        let _ = self.messages.unbounded_send(Message::Look { reply });
        connection.await.unwrap_or(Err("the disk is disconnected"))
    }
}

/// The reason why a look shows nothing.
#[derive(Debug)]
enum LookError {
    Refused(&'static str),
    Read(Error),
}

impl fmt::Display for LookError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(reason) => f.write_str(reason),
            Self::Read(error) => error.fmt(f),
        }
    }
}

impl Received {
    fn is_same_boot(&self, other: &Self) -> bool {
        self.record.boot_began() == other.record.boot_began()
    }

    /// Records what a look at the disk has shown.
    fn report(&self, state: MountState, text: &str) {
        let seconds = clock::elapsed(self.at).as_secs_f64();
        let text = match state {
            MountState::Unknown => text.to_owned(),
            // A look takes some milliseconds.
            _ => format!("{text} within {:.0} s", (seconds - 0.1).ceil()),
        };
        self.record.set_mount(Mount { state, seconds, text });
    }
}
