//! One disk, as those see it who want files of it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use rtftp_core::{RequestPath, config::disk::DiskConfig};
use smol::{
    Executor, Task, Timer,
    channel::{Sender, bounded, unbounded},
};

use super::{
    actor::{Backend, DiskActor, Request, Snapshot},
    remote_file::RemoteFile,
    snapshot::DiskError,
};
use crate::error::{OpenError, Unavailable};

/// How long a disk that contradicts itself is looked at again and again before it counts as damaged: its owner may be writing.
pub(crate) const RETRY_LIMIT: Duration = Duration::from_secs(3);
/// How long to wait before looking again.
pub(crate) const RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// A disk, connected or not. Cheap to clone; when the last clone goes, so does the connection.
#[derive(Debug, Clone)]
pub(crate) struct Disk(Arc<Handle>);

#[derive(Debug)]
struct Handle {
    /// The name of the `.nbd` file.
    name: String,
    requests: Sender<Request>,
    executor: Arc<Executor<'static>>,
    /// Dropped with the last [`Disk`], which ends whatever the owner is doing.
    _owner: Task<()>,
}

impl Disk {
    /// A disk that is not connected yet.
    pub(super) fn new(name: String, json: Vec<u8>, config: DiskConfig, backend: Arc<Backend>) -> Self {
        let (requests, inbox) = unbounded();
        let executor = backend.executor();
        let owner = DiskActor::new(name.clone(), json, config, backend, inbox);
        Self(Arc::new(Handle { name, requests, _owner: executor.spawn(owner.run()), executor }))
    }

    /// The name of the `.nbd` file.
    pub(super) fn name(&self) -> &str {
        &self.0.name
    }

    /// Where tasks for this disk run.
    pub(super) fn executor(&self) -> &Executor<'static> {
        &self.0.executor
    }

    /// Has the disk connected in the background.
    pub(super) fn connect(&self) {
        // Here and below, a channel is closed only when nobody waits for what is sent any more.
        let _ = self.0.requests.try_send(Request::Connect);
    }

    /// Opens a file, on a disk that is connected first if need be.
    pub(super) async fn open(&self, path: &RequestPath) -> Result<RemoteFile, OpenError> {
        let asked = Instant::now();
        let until = asked + RETRY_LIMIT;
        let mut refresh = false;
        loop {
            let mut is_older_and_in_use = false;
            let failure = match self.look(refresh).await {
                Ok(look) => match look.open(path).await {
                    Ok(opened) => return Ok(RemoteFile::new(self.clone(), path.clone().into(), look, opened)),
                    Err(failure) => {
                        is_older_and_in_use = look.is_older_than(asked) && look.is_in_use();
                        failure
                    }
                },
                Err(failure) => failure,
            };
            match failure {
                // The journal that an older view has read may have been written over, and names with it.
                DiskError::Permanent(OpenError::NotFound) if !refresh && is_older_and_in_use => {
                    refresh = true;
                    continue;
                }
                DiskError::Transient(_) if Instant::now() < until => refresh = true,
                DiskError::Transient(why) => {
                    log::error!("{}: {why}", self.0.name);
                    return Err(why.into());
                }
                DiskError::Permanent(error) => return Err(error),
            }
            Timer::after(RETRY_INTERVAL).await;
        }
    }

    /// The view of this boot, or one that is younger than this call.
    pub(super) async fn look(&self, refresh: bool) -> Result<Arc<Snapshot>, DiskError> {
        let (reply, answer) = bounded(1);
        let _ = self.0.requests.try_send(Request::Snapshot { refresh, reply });
        answer.recv().await.unwrap_or_else(|_| Err(DiskError::Permanent(let_go().into())))
    }
}

fn let_go() -> Unavailable {
    Unavailable { to_client: "the disk was disconnected", reason: "the disk was disconnected".into() }
}
