//! An appliance: a running helper with its disk mounted, and the exchange of requests and replies with it.

use std::{
    io, mem,
    time::{Duration, Instant},
};

use rtftp_core::wire::path::RequestPath;

use super::{
    HelperError,
    child::Child,
    wire::{DirectoryEntry, MAX_READ, Reply, Request},
};
use crate::clock;

/// A running helper with its disk mounted.
///
/// It processes one request at a time. The helper is ended, and all later requests fail with the same error, when a request
/// times out, when its future is dropped before it completes, or when the disk is lost. Dropping the appliance ends the helper
/// and all processes that it started.
#[derive(Debug)]
pub struct Appliance {
    /// `Err` with the reason after the helper was ended.
    child: Result<Child, HelperError>,
    /// The time limit for each reply.
    timeout: Duration,
}

/// An open file of an [`Appliance`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenedFile {
    /// The identifier for [`Appliance::read`] and [`Appliance::close`].
    pub id: u32,
    /// The size in bytes.
    pub size: u64,
}

impl Appliance {
    pub(super) fn new(child: Child, timeout: Duration) -> Self {
        Self { child: Ok(child), timeout }
    }

    /// Opens a regular file below the disk's `tftp_root`.
    ///
    /// # Errors
    ///
    /// [`HelperError`].
    pub async fn open(&mut self, path: &RequestPath) -> Result<OpenedFile, HelperError> {
        match self.request(&Request::Open { path: path.as_bytes().into() }).await? {
            Reply::Opened { id, size } => Ok(OpenedFile { id, size }),
            _ => Err(self.end(HelperError::Protocol).await),
        }
    }

    /// Reads `len` bytes at `offset`, at most [`MAX_READ`]; fewer only at the end of the file.
    ///
    /// # Errors
    ///
    /// [`HelperError`].
    pub async fn read(&mut self, id: u32, offset: u64, len: u32) -> Result<Vec<u8>, HelperError> {
        let len = len.min(MAX_READ);
        match self.request(&Request::Read { id, offset, len }).await? {
            Reply::Data(data) if data.len() <= len as usize => Ok(data),
            _ => Err(self.end(HelperError::Protocol).await),
        }
    }

    /// Closes a file.
    ///
    /// # Errors
    ///
    /// [`HelperError`].
    pub async fn close(&mut self, id: u32) -> Result<(), HelperError> {
        match self.request(&Request::Close { id }).await? {
            Reply::Closed => Ok(()),
            _ => Err(self.end(HelperError::Protocol).await),
        }
    }

    /// Lists the directory at a path below `tftp_root`, links resolved; empty for `tftp_root` itself.
    ///
    /// # Errors
    ///
    /// [`HelperError`], also if the directory has too many entries for one message.
    pub async fn list(&mut self, path: &[u8]) -> Result<Vec<DirectoryEntry>, HelperError> {
        match self.request(&Request::List { path: path.into() }).await? {
            Reply::Listed(entries) => Ok(entries),
            _ => Err(self.end(HelperError::Protocol).await),
        }
    }

    /// Returns `false` once the helper has been ended.
    pub fn is_alive(&self) -> bool {
        self.child.is_ok()
    }

    /// Ends the helper and waits, for a second at most, until all processes that it started have ended.
    pub async fn stop(self) {
        if let Ok(child) = self.child {
            child.end().await;
        }
    }

    /// Sends a request and returns the reply, unless it is an error.
    async fn request(&mut self, request: &Request) -> Result<Reply, HelperError> {
        // Taken out for the duration of the exchange: if this future is dropped, so is the child, whose next reply would
        // belong to this request.
        let mut child = match mem::replace(&mut self.child, Err(HelperError::Cancelled)) {
            Ok(child) => child,
            Err(error) => {
                self.child = Err(error.clone());
                return Err(error);
            }
        };
        let exchange = async {
            child.send(request).await?;
            child.receive().await
        };
        let reply = within(Instant::now() + self.timeout, exchange).await;
        self.child = Ok(child);
        match reply {
            Ok(Reply::NotFound) => Err(HelperError::NotFound),
            Ok(Reply::Forbidden(reason)) => Err(HelperError::Forbidden(reason)),
            Ok(Reply::Failed(reason)) => Err(HelperError::Failed(reason)),
            Ok(Reply::Lost(reason)) => Err(self.end(HelperError::Lost(reason)).await),
            Ok(reply) => Ok(reply),
            Err(error) => Err(self.end(error).await),
        }
    }

    /// Ends the helper because of an error. Returns the error with the explanation on the helper's stderr.
    async fn end(&mut self, error: HelperError) -> HelperError {
        let child = mem::replace(&mut self.child, Err(error.clone()));
        let line = match child {
            Ok(child) => child.end().await,
            Err(_) => None,
        };
        let error = error.explained(line);
        self.child = Err(error.clone());
        error
    }
}

/// Returns the result of `work`, or [`HelperError::Timeout`] at the given time.
pub(super) async fn within<T>(deadline: Instant, work: impl Future<Output = io::Result<T>>) -> Result<T, HelperError> {
    Ok(clock::until(deadline, work).await.ok_or(HelperError::Timeout)??)
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            Launcher,
            fake::{Fake, patient},
        },
        *,
    };
    use crate::fs::FileType;

    fn start(fake: &Fake) -> Appliance {
        let launcher = Launcher::with_helper(fake.helper.clone(), patient());
        smol::block_on(launcher.start("disk", b"{}")).expect("an appliance")
    }

    fn path() -> RequestPath {
        RequestPath::parse(b"a/b").expect("a path")
    }

    #[test]
    fn opens_reads_and_closes_files() {
        let fake = Fake::new("works");
        let mut appliance = start(&fake);
        smol::block_on(async {
            assert_eq!(appliance.open(&path()).await.expect("opened"), OpenedFile { id: 7, size: 3 });
            assert_eq!(appliance.read(7, 0, 10).await.expect("read"), b"abc");
            let error = appliance.read(7, 0, 10).await.expect_err("a failed read");
            assert_eq!((error.to_string().as_str(), error.is_fatal()), ("I/O", false));
            assert!(appliance.is_alive(), "a failed request does not end the helper");
            appliance.close(7).await.expect("closed");
            assert!(matches!(appliance.open(&path()).await, Err(HelperError::NotFound)));
            assert!(matches!(appliance.open(&path()).await, Err(HelperError::Forbidden(reason)) if reason == "x"));
            let entry = DirectoryEntry { name: b"a".to_vec(), file_type: FileType::File, size: 3 };
            assert_eq!(appliance.list(b"").await.expect("a list"), [entry]);
            appliance.stop().await;
        });
        fake.assert_nothing_is_left();
    }

    #[track_caller]
    fn fails(fault: &str, timeout: Duration, expected: &str) {
        let fake = Fake::new(fault);
        let mut appliance = start(&fake);
        appliance.timeout = timeout;
        smol::block_on(async {
            let error = appliance.read(0, 0, 5).await.expect_err("a failed read");
            assert_eq!((error.to_string().as_str(), error.is_fatal()), (expected, true));
            assert!(!appliance.is_alive());
            let error = appliance.open(&path()).await.expect_err("the helper has ended");
            assert_eq!(error.to_string(), expected);
        });
        fake.assert_nothing_is_left();
    }

    #[test]
    fn ends_a_helper_that_replies_late() {
        fails("hung-read", Duration::from_millis(100), "no reply in time");
        fails("half-reply", Duration::from_millis(100), "no reply in time");
    }

    #[test]
    fn ends_a_helper_that_sends_an_invalid_reply() {
        fails("too-much", patient().reply, "rtftp-guestfs sent an invalid message");
        fails("exits", patient().reply, "rtftp-guestfs exited unexpectedly");
    }

    #[test]
    fn dropping_an_appliance_ends_its_processes() {
        let fake = Fake::new("hung-read");
        drop(start(&fake));
        fake.assert_nothing_is_left();
    }

    #[test]
    fn cancelling_a_request_ends_the_helper() {
        let fake = Fake::new("hung-read");
        let mut appliance = start(&fake);
        smol::block_on(async {
            let mut read = Box::pin(appliance.read(0, 0, 1));
            assert!(smol::future::poll_once(&mut read).await.is_none());
        });
        assert!(!appliance.is_alive());
        fake.assert_nothing_is_left();
    }
}
