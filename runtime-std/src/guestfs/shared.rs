//! An appliance that many transfers share.

use rtftp_core::RequestPath;
use smol::{
    Executor,
    channel::{Receiver, Sender, bounded, unbounded},
};

use super::client::{Appliance, DirectoryEntry, OpenedFile, unavailable};
use crate::error::{OpenError, Unavailable};

/// An [`Appliance`] in the hands of a task that makes one call after the other. Cheap to clone; with the last clone and the last
/// file the appliance ends.
#[derive(Debug, Clone)]
pub(crate) struct SharedAppliance {
    requests: Sender<Request>,
}

/// An open file, which is closed when it is dropped.
#[derive(Debug)]
pub(crate) struct SharedFile {
    appliance: SharedAppliance,
    file: OpenedFile,
}

#[derive(Debug)]
enum Request {
    Open { path: Box<RequestPath>, reply: Sender<Result<OpenedFile, OpenError>> },
    Read { id: u32, offset: u64, len: u32, reply: Sender<Result<Vec<u8>, Unavailable>> },
    Close(u32),
    List { path: Vec<u8>, reply: Sender<Result<Vec<DirectoryEntry>, Unavailable>> },
}

impl SharedAppliance {
    /// Shares an appliance.
    pub(crate) fn new(appliance: Appliance, executor: &Executor<'static>) -> Self {
        let (requests, inbox) = unbounded();
        executor.spawn(serve(appliance, inbox)).detach();
        Self { requests }
    }

    /// Whether the appliance works, as far as is known.
    pub(crate) fn is_alive(&self) -> bool {
        !self.requests.is_closed()
    }

    /// Opens a regular file below the disk's `tftp_root`.
    ///
    /// # Errors
    ///
    /// As [`Appliance::open`].
    pub(crate) async fn open(&self, path: &RequestPath) -> Result<SharedFile, OpenError> {
        let (reply, answer) = bounded(1);
        let request = Request::Open { path: Box::new(path.clone()), reply };
        let file = self.ask(request, answer).await.unwrap_or_else(|| Err(lost().into()))?;
        Ok(SharedFile { appliance: self.clone(), file })
    }

    /// Tells what is in a directory.
    ///
    /// # Errors
    ///
    /// As [`Appliance::list`].
    pub(crate) async fn list(&self, path: &[u8]) -> Result<Vec<DirectoryEntry>, Unavailable> {
        let (reply, answer) = bounded(1);
        let request = Request::List { path: path.into(), reply };
        self.ask(request, answer).await.unwrap_or_else(|| Err(lost()))
    }

    async fn ask<T>(&self, request: Request, answer: Receiver<T>) -> Option<T> {
        self.requests.try_send(request).ok()?;
        answer.recv().await.ok()
    }
}

impl SharedFile {
    /// Its length in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.file.size
    }

    /// Reads up to `len` bytes from `offset` on.
    ///
    /// # Errors
    ///
    /// As [`Appliance::read`].
    pub(crate) async fn read(&self, offset: u64, len: u32) -> Result<Vec<u8>, Unavailable> {
        let (reply, answer) = bounded(1);
        let request = Request::Read { id: self.file.id, offset, len, reply };
        self.appliance.ask(request, answer).await.unwrap_or_else(|| Err(lost()))
    }
}

impl Drop for SharedFile {
    fn drop(&mut self) {
        // An appliance that is gone has no open files.
        let _ = self.appliance.requests.try_send(Request::Close(self.file.id));
    }
}

/// Makes the calls, until nobody is left who could want one, or the appliance is dead.
async fn serve(mut appliance: Appliance, inbox: Receiver<Request>) {
    while let Ok(request) = inbox.recv().await {
        // An answer that nobody waits for any more goes nowhere.
        match request {
            Request::Open { path, reply } => {
                let opened = appliance.open(&path).await;
                if let Err(Ok(OpenedFile { id, .. })) =
                    reply.try_send(opened).map_err(smol::channel::TrySendError::into_inner)
                {
                    let _ = appliance.close(id).await;
                }
            }
            Request::Read { id, offset, len, reply } => {
                let _ = reply.try_send(appliance.read(id, offset, len).await);
            }
            Request::Close(id) => {
                let _ = appliance.close(id).await;
            }
            Request::List { path, reply } => {
                let _ = reply.try_send(appliance.list(&path).await);
            }
        }
        if !appliance.is_alive() {
            return;
        }
    }
    appliance.stop().await;
}

fn lost() -> Unavailable {
    unavailable("the appliance ended".into())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use smol::{block_on, future};

    use super::{
        super::{
            client::Launcher,
            fake::{Fake, patient},
        },
        *,
    };

    fn start(fake: &Fake, executor: &Executor<'static>) -> SharedAppliance {
        let launcher = Launcher::with_helper(fake.helper.clone(), patient());
        SharedAppliance::new(block_on(launcher.start("disk", b"{}")).expect("an appliance"), executor)
    }

    fn path() -> RequestPath {
        RequestPath::parse(b"a/b").expect("a path")
    }

    #[test]
    fn a_call_that_is_given_up_disturbs_no_other() {
        let fake = Fake::new("works");
        let executor = Arc::new(Executor::new());
        let appliance = start(&fake, &executor);
        block_on(executor.run(async {
            let file = appliance.open(&path()).await.expect("a file");
            assert_eq!(file.size(), 3);
            let mut given_up = Box::pin(file.read(0, 10));
            assert!(future::poll_once(&mut given_up).await.is_none());
            drop(given_up);
            assert_eq!(file.read(0, 10).await, Err(unavailable("I/O".into())), "the second answer, not the first");
            assert!(appliance.is_alive());
        }));
    }

    #[test]
    fn the_last_one_ends_it() {
        let fake = Fake::new("works");
        let executor = Arc::new(Executor::new());
        let appliance = start(&fake, &executor);
        block_on(executor.run(async {
            let file = appliance.open(&path()).await.expect("a file");
            drop(appliance);
            assert_eq!(file.read(0, 10).await.as_deref(), Ok(&b"abc"[..]), "a file keeps its appliance");
        }));
        while executor.try_tick() {}
        block_on(executor.run(async {
            while !executor.is_empty() {
                future::yield_now().await;
            }
        }));
        fake.assert_nothing_is_left();
    }

    #[test]
    fn a_dead_appliance_is_told() {
        let fake = Fake::new("dies");
        let executor = Arc::new(Executor::new());
        let appliance = start(&fake, &executor);
        block_on(executor.run(async {
            let why = appliance.open(&path()).await.expect_err("it dies");
            assert!(matches!(why, OpenError::Unavailable(_)));
            let again = appliance.open(&path()).await.expect_err("it is dead");
            assert_eq!(again, lost().into());
            assert!(!appliance.is_alive());
        }));
        fake.assert_nothing_is_left();
    }
}
