//! An appliance that several transfers share.

use rtftp_core::RequestPath;
use smol::{
    Executor,
    channel::{Receiver, Sender, TrySendError, bounded, unbounded},
};

use super::{
    HelperError,
    client::{Appliance, OpenedFile},
    wire::DirectoryEntry,
};

/// A handle to a task that owns an [`Appliance`] and sends it one request after the other. Cheap to clone; the appliance is
/// stopped after the last handle and the last file are dropped.
#[derive(Debug, Clone)]
pub(crate) struct SharedAppliance {
    requests: Sender<Request>,
}

/// An open file. Closed when it is dropped.
#[derive(Debug)]
pub(crate) struct SharedFile {
    appliance: SharedAppliance,
    file: OpenedFile,
}

#[derive(Debug)]
enum Request {
    Open { path: Box<RequestPath>, reply: Sender<Result<OpenedFile, HelperError>> },
    Read { id: u32, offset: u64, len: u32, reply: Sender<Result<Vec<u8>, HelperError>> },
    Close(u32),
    List { path: Vec<u8>, reply: Sender<Result<Vec<DirectoryEntry>, HelperError>> },
}

impl SharedAppliance {
    /// Starts the task.
    pub(crate) fn new(appliance: Appliance, executor: &Executor<'static>) -> Self {
        let (requests, inbox) = unbounded();
        executor.spawn(serve(appliance, inbox)).detach();
        Self { requests }
    }

    /// Returns `false` once the helper has ended.
    pub(crate) fn is_alive(&self) -> bool {
        !self.requests.is_closed()
    }

    /// See [`Appliance::open`].
    pub(crate) async fn open(&self, path: &RequestPath) -> Result<SharedFile, HelperError> {
        let (reply, opened) = bounded(1);
        let file = self.request(Request::Open { path: Box::new(path.clone()), reply }, opened).await?;
        Ok(SharedFile { appliance: self.clone(), file })
    }

    /// See [`Appliance::list`].
    pub(crate) async fn list(&self, path: &[u8]) -> Result<Vec<DirectoryEntry>, HelperError> {
        let (reply, entries) = bounded(1);
        self.request(Request::List { path: path.into(), reply }, entries).await
    }

    async fn request<T>(&self, request: Request, reply: Receiver<Result<T, HelperError>>) -> Result<T, HelperError> {
        // If this fails, the reply channel is closed as well.
        let _ = self.requests.try_send(request);
        reply.recv().await.unwrap_or(Err(HelperError::Exited))
    }
}

impl SharedFile {
    /// Returns the size in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.file.size
    }

    /// See [`Appliance::read`].
    pub(crate) async fn read(&self, offset: u64, len: u32) -> Result<Vec<u8>, HelperError> {
        let (reply, data) = bounded(1);
        self.appliance.request(Request::Read { id: self.file.id, offset, len, reply }, data).await
    }
}

impl Drop for SharedFile {
    fn drop(&mut self) {
        // Fails if the appliance has ended, and its files with it.
        let _ = self.appliance.requests.try_send(Request::Close(self.file.id));
    }
}

/// Processes requests until all handles are dropped or the appliance has ended.
async fn serve(mut appliance: Appliance, inbox: Receiver<Request>) {
    while let Ok(request) = inbox.recv().await {
        // Sending a reply fails if the requester has been dropped.
        match request {
            Request::Open { path, reply } => {
                let opened = appliance.open(&path).await;
                if let Err(Ok(OpenedFile { id, .. })) = reply.try_send(opened).map_err(TrySendError::into_inner) {
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use smol::{block_on, future};

    use super::{
        super::{
            Launcher,
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
    fn cancelling_a_request_does_not_disturb_others() {
        let fake = Fake::new("works");
        let executor = Arc::new(Executor::new());
        let appliance = start(&fake, &executor);
        block_on(executor.run(async {
            let file = appliance.open(&path()).await.expect("a file");
            assert_eq!(file.size(), 3);
            let mut cancelled = Box::pin(file.read(0, 10));
            assert!(future::poll_once(&mut cancelled).await.is_none());
            drop(cancelled);
            let error = file.read(0, 10).await.expect_err("the second reply, not the first");
            assert_eq!(error.to_string(), "I/O");
            assert!(appliance.is_alive());
        }));
    }

    #[test]
    fn stops_after_the_last_handle_and_file() {
        let fake = Fake::new("works");
        let executor = Arc::new(Executor::new());
        let appliance = start(&fake, &executor);
        block_on(executor.run(async {
            let file = appliance.open(&path()).await.expect("a file");
            drop(appliance);
            assert_eq!(file.read(0, 10).await.expect("data"), b"abc", "an open file keeps its appliance");
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
    fn reports_the_end_of_the_helper() {
        let fake = Fake::new("exits");
        let executor = Arc::new(Executor::new());
        let appliance = start(&fake, &executor);
        block_on(executor.run(async {
            let error = appliance.open(&path()).await.expect_err("the helper exits");
            assert!(error.is_fatal());
            let error = appliance.open(&path()).await.expect_err("the helper has ended");
            assert!(matches!(error, HelperError::Exited));
            assert!(!appliance.is_alive());
        }));
        fake.assert_nothing_is_left();
    }
}
