//! The daemon's side of the helper program.

use std::{
    fmt, io,
    time::{Duration, Instant},
};

use rtftp_core::wire::path::RequestPath;
use smol::{Timer, future};

use super::{
    child::Child,
    wire::{Reply, Request, VERSION},
};
pub use super::{
    launch::{HelperTimeouts, Launcher},
    wire::{DirectoryEntry, MAX_READ},
};
use crate::error::{OpenError, Unavailable};

/// A running helper with its disk mounted.
///
/// It answers one call at a time. When a call takes too long, when its future is dropped before its end, or when the disk is lost,
/// the helper is ended and every later call fails at once. Dropping the appliance ends the helper and all it started, too.
#[derive(Debug)]
pub struct Appliance {
    /// `None` when it is dead.
    child: Option<Child>,
    /// How long one answer may take.
    answer: Duration,
    /// Why it is dead.
    ended: String,
}

/// An open file of an [`Appliance`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenedFile {
    /// What [`Appliance::read`] is given; valid until [`Appliance::close`].
    pub id: u32,
    /// Its length in bytes.
    pub size: u64,
}

impl Appliance {
    pub(super) fn new(child: Child, answer: Duration) -> Self {
        Self { child: Some(child), answer, ended: "an earlier request was given up".into() }
    }

    /// Opens a regular file below the disk's `tftp_root`.
    ///
    /// # Errors
    ///
    /// [`OpenError`]; see [`is_alive`](Self::is_alive) for whether other files may do better.
    pub async fn open(&mut self, path: &RequestPath) -> Result<OpenedFile, OpenError> {
        match self.ask(&Request::Open { path: path.as_bytes().into() }).await? {
            Reply::Opened { id, size } => Ok(OpenedFile { id, size }),
            Reply::NotFound => Err(OpenError::NotFound),
            Reply::Forbidden(reason) => Err(OpenError::Forbidden(reason)),
            _ => Err(self.confused().await.into()),
        }
    }

    /// Reads `len` bytes from `offset` on, at most [`MAX_READ`] of them; fewer means that the file ends there.
    ///
    /// # Errors
    ///
    /// [`Unavailable`]; see [`is_alive`](Self::is_alive) for whether another try may do better.
    pub async fn read(&mut self, id: u32, offset: u64, len: u32) -> Result<Vec<u8>, Unavailable> {
        let len = len.min(MAX_READ);
        match self.ask(&Request::Read { id, offset, len }).await? {
            Reply::Data(data) if data.len() <= len as usize => Ok(data),
            _ => Err(self.confused().await),
        }
    }

    /// Forgets a file that [`open`](Self::open) gave.
    ///
    /// # Errors
    ///
    /// [`Unavailable`] if the appliance is dead.
    pub async fn close(&mut self, id: u32) -> Result<(), Unavailable> {
        match self.ask(&Request::Close { id }).await? {
            Reply::Closed => Ok(()),
            _ => Err(self.confused().await),
        }
    }

    /// Tells what is in a directory, by its path below `tftp_root`, without links; empty for `tftp_root` itself.
    ///
    /// # Errors
    ///
    /// [`Unavailable`], also if it has too many names; see [`is_alive`](Self::is_alive) for whether others may do better.
    pub async fn list(&mut self, path: &[u8]) -> Result<Vec<DirectoryEntry>, Unavailable> {
        match self.ask(&Request::List { path: path.into() }).await? {
            Reply::Listed(list) => Ok(list),
            _ => Err(self.confused().await),
        }
    }

    /// Whether the appliance works, as far as is known; once `false`, it stays so.
    pub fn is_alive(&self) -> bool {
        self.child.is_some()
    }

    /// Ends the helper and waits until all it started is gone, a second at most.
    pub async fn stop(self) {
        if let Some(child) = self.child {
            child.end().await;
        }
    }

    async fn ask(&mut self, request: &Request) -> Result<Reply, Unavailable> {
        // Taken away for the time of the exchange: if this future is dropped, so is the child, whose answer nobody would want.
        let Some(mut child) = self.child.take() else { return Err(unavailable(self.ended.clone())) };
        let exchange = async {
            child.tell(request).await?;
            child.listen().await
        };
        let trouble = match within(Instant::now() + self.answer, exchange).await {
            Ok(Reply::Lost(reason)) => Trouble::Lost(reason),
            Ok(Reply::Failed(reason)) => {
                self.child = Some(child);
                return Err(unavailable(reason));
            }
            Ok(reply) => {
                self.child = Some(child);
                return Ok(reply);
            }
            Err(trouble) => trouble,
        };
        self.ended = explain(trouble.to_string(), child.end().await);
        Err(unavailable(self.ended.clone()))
    }

    /// Ends a helper that answered something else than it was asked.
    async fn confused(&mut self) -> Unavailable {
        if let Some(child) = self.child.take() {
            self.ended = explain(Trouble::Protocol.to_string(), child.end().await);
        }
        unavailable(self.ended.clone())
    }
}

/// Why a helper is given up.
#[derive(Debug)]
pub(super) enum Trouble {
    /// It took too long.
    TimedOut,
    /// The appliance that it started under KVM says nothing.
    Silent(Duration),
    /// It said so itself.
    Lost(String),
    /// It speaks another version of the protocol.
    Version(u32),
    /// It speaks another language.
    Protocol,
    /// It ended, or its pipes broke.
    Ended,
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::InvalidData { Self::Protocol } else { Self::Ended }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TimedOut => f.write_str("no answer in time"),
            Self::Silent(limit) => write!(f, "no sign of life for {} s", limit.as_secs_f32()),
            Self::Lost(reason) => f.write_str(reason),
            Self::Version(version) => {
                write!(
                    f,
                    "rtftp-guestfs is of another version (protocol {version}, not {VERSION}): install the one that \
                           belongs to this rtftp"
                )
            }
            Self::Protocol => f.write_str("rtftp-guestfs answers what was not asked"),
            Self::Ended => f.write_str("rtftp-guestfs ended unexpectedly"),
        }
    }
}

pub(super) fn unavailable(reason: String) -> Unavailable {
    Unavailable { to_client: "disk not available", reason }
}

/// Adds the line of stderr that tells more, unless it is known.
pub(super) fn explain(reason: String, line: Option<String>) -> String {
    match line {
        Some(line) if !reason.contains(&line) => format!("{reason} ({line})"),
        _ => reason,
    }
}

/// Waits for `work` up to the given time.
pub(super) async fn within<T>(until: Instant, work: impl Future<Output = io::Result<T>>) -> Result<T, Trouble> {
    let limit = async {
        Timer::at(until).await;
        Err(Trouble::TimedOut)
    };
    future::or(async { work.await.map_err(Trouble::from) }, limit).await
}

#[cfg(test)]
mod tests {
    use super::{
        super::fake::{Fake, patient},
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
    fn files_are_opened_read_and_closed() {
        let fake = Fake::new("works");
        let mut appliance = start(&fake);
        smol::block_on(async {
            assert_eq!(appliance.open(&path()).await, Ok(OpenedFile { id: 7, size: 3 }));
            assert_eq!(appliance.read(7, 0, 10).await.as_deref(), Ok(&b"abc"[..]));
            assert_eq!(appliance.read(7, 0, 10).await, Err(unavailable("I/O".into())));
            assert!(appliance.is_alive(), "one error is not the end");
            assert_eq!(appliance.close(7).await, Ok(()));
            assert_eq!(appliance.open(&path()).await, Err(OpenError::NotFound));
            assert_eq!(appliance.open(&path()).await, Err(OpenError::Forbidden("x".into())));
            let listed = DirectoryEntry { name: b"a".to_vec(), kind: FileType::File, size: 3 };
            assert_eq!(appliance.list(b"").await, Ok(vec![listed]));
            appliance.stop().await;
        });
        fake.assert_nothing_is_left();
    }

    #[track_caller]
    fn dies(fault: &str, answer: Duration, expected: &str) {
        let fake = Fake::new(fault);
        let mut appliance = start(&fake);
        appliance.answer = answer;
        smol::block_on(async {
            assert_eq!(appliance.read(0, 0, 5).await, Err(unavailable(expected.into())));
            assert!(!appliance.is_alive());
            assert_eq!(appliance.open(&path()).await, Err(unavailable(expected.into()).into()), "it stays dead");
        });
        fake.assert_nothing_is_left();
    }

    #[test]
    fn an_answer_has_a_limit() {
        dies("hung-read", Duration::from_millis(100), "no answer in time");
        dies("half-answer", Duration::from_millis(100), "no answer in time");
    }

    #[test]
    fn a_wrong_answer_is_the_end() {
        dies("too-much", patient().reply, "rtftp-guestfs answers what was not asked");
        dies("dies", patient().reply, "rtftp-guestfs ended unexpectedly");
    }

    #[test]
    fn a_dropped_appliance_leaves_nothing() {
        let fake = Fake::new("hung-read");
        drop(start(&fake));
        fake.assert_nothing_is_left();
    }

    #[test]
    fn a_call_that_is_given_up_is_the_end() {
        let fake = Fake::new("hung-read");
        let mut appliance = start(&fake);
        smol::block_on(async {
            let mut call = Box::pin(appliance.read(0, 0, 1));
            assert!(future::poll_once(&mut call).await.is_none());
        });
        assert!(!appliance.is_alive());
        fake.assert_nothing_is_left();
    }
}
