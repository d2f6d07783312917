//! The daemon's side of the helper program: starts it, asks it, and ends it.

use std::env;
use std::fmt;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rtftp_core::path::RequestPath;
use smol::{Timer, future};

use super::child::Child;
pub use super::wire::MAX_READ;
use super::wire::{Reply, Request, Step, VERSION};
use crate::error::{OpenError, Unavailable};

/// How long a helper may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// From the start of a helper to its mounted disk, a second attempt without KVM included.
    pub start: Duration,
    /// For one answer: the NBD server's to the connection, the helper's to a request.
    pub answer: Duration,
    /// How long the kernel of an appliance under KVM may say nothing before KVM is taken to be broken.
    pub silence: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { start: Duration::from_secs(120), answer: Duration::from_secs(30), silence: Duration::from_secs(20) }
    }
}

/// Starts helpers; one for the whole daemon, as it remembers that KVM is broken.
#[derive(Debug)]
pub struct Launcher {
    /// Where the helper is, if it is not to be looked for.
    helper: Option<PathBuf>,
    limits: Limits,
    /// Whether KVM is worth an attempt.
    kvm: AtomicBool,
}

impl Launcher {
    /// Makes a launcher that looks for the helper when a disk needs it: beside the program that runs, then in `PATH`.
    pub fn new(limits: Limits) -> Self {
        Self { helper: None, limits, kvm: AtomicBool::new(may_have_kvm()) }
    }

    /// Makes a launcher of the helper program at `helper`.
    pub fn with_helper(helper: PathBuf, limits: Limits) -> Self {
        Self { helper: Some(helper), ..Self::new(limits) }
    }

    /// Starts a helper that opens and mounts the disk that `json`, the text of its `.nbd` file, describes.
    ///
    /// `disk` names it in the log. Takes seconds with KVM and tens of seconds without; dropping the future ends what was started.
    ///
    /// # Errors
    ///
    /// [`Unavailable`] after at most [`Limits::start`] and a second; nothing is left running then.
    pub async fn start(&self, disk: &str, json: &[u8]) -> Result<Appliance, Unavailable> {
        let until = Instant::now() + self.limits.start;
        let helper = self.helper.clone().map_or_else(find_helper, Ok)?;
        let mut kvm_failed = None;
        if self.kvm.load(Ordering::Relaxed) {
            match self.attempt(&helper, disk, json, false, until).await {
                Err(failed) if failed.may_be_kvm() => {
                    log::info!("{disk}: {failed}; trying again without KVM");
                    kvm_failed = Some(failed);
                }
                result => return result.map_err(Unavailable::from),
            }
        }
        let appliance = self.attempt(&helper, disk, json, true, until).await?;
        // Only now it is clear that neither the disk nor its server was the cause.
        if let Some(failed) = kvm_failed
            && self.kvm.swap(false, Ordering::Relaxed)
        {
            log::warn!(
                "KVM is broken ({failed}): from now on disks behind libguestfs are read by software emulation, which takes \
                 many times longer to start; repair /dev/kvm, or set LIBGUESTFS_BACKEND_SETTINGS=force_tcg to skip the attempt"
            );
        }
        Ok(appliance)
    }

    async fn attempt(
        &self,
        helper: &Path,
        disk: &str,
        json: &[u8],
        emulate: bool,
        until: Instant,
    ) -> Result<Appliance, StartFailed> {
        let mut child = Child::spawn(helper, disk).map_err(|error| StartFailed {
            reached: None,
            reason: format!("cannot run {}: {error}", helper.display()),
        })?;
        let mut reached = None;
        match self.converse(&mut child, json, emulate, until, &mut reached).await {
            Ok(()) => Ok(Appliance {
                child: Some(child),
                answer: self.limits.answer,
                ended: "an earlier request was given up".into(),
            }),
            Err(trouble) => {
                let reason = match trouble {
                    // Says itself what it was about.
                    Trouble::Lost(reason) => reason,
                    trouble => format!("{}{trouble}", during(reached)),
                };
                let reason = explain(reason, child.end().await);
                Err(StartFailed { reached, reason })
            }
        }
    }

    /// Sees a helper through its start.
    async fn converse(
        &self,
        child: &mut Child,
        json: &[u8],
        emulate: bool,
        until: Instant,
        reached: &mut Option<Step>,
    ) -> Result<(), Trouble> {
        let soon = || until.min(Instant::now() + self.limits.answer);
        match within(soon(), child.listen()).await? {
            Reply::Hello { version: VERSION } => {}
            Reply::Hello { version } => return Err(Trouble::Version(version)),
            _ => return Err(Trouble::Protocol),
        }
        let request = Request::Start { emulate, folder: child.folder().into(), description: json.into() };
        within(soon(), child.tell(&request)).await?;
        let log = child.log();
        let silence = async {
            if emulate {
                future::pending::<()>().await;
            }
            Child::silence(log, self.limits.silence).await;
            Err(Trouble::Silent(self.limits.silence))
        };
        let steps = async {
            loop {
                let until = if reached.is_none() { soon() } else { until };
                match within(until, child.listen()).await? {
                    Reply::Reached(step) => *reached = Some(step),
                    Reply::Ready => return Ok(()),
                    Reply::Lost(reason) => return Err(Trouble::Lost(reason)),
                    _ => return Err(Trouble::Protocol),
                }
            }
        };
        future::or(steps, silence).await
    }
}

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
enum Trouble {
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

/// A start that failed.
#[derive(Debug)]
struct StartFailed {
    reached: Option<Step>,
    reason: String,
}

impl StartFailed {
    /// Whether the appliance did not come up: the disk's server has answered, and its file systems were not looked at yet.
    fn may_be_kvm(&self) -> bool {
        self.reached == Some(Step::Connected)
    }
}

impl fmt::Display for StartFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl From<StartFailed> for Unavailable {
    fn from(failed: StartFailed) -> Self {
        unavailable(failed.reason)
    }
}

fn unavailable(reason: String) -> Unavailable {
    Unavailable { to_client: "disk not available", reason }
}

/// What was being done after `reached`.
fn during(reached: Option<Step>) -> &'static str {
    match reached {
        None => "connecting to the NBD server: ",
        Some(Step::Connected) => "starting the appliance: ",
        Some(Step::Launched) => "mounting: ",
    }
}

/// Adds the line of stderr that tells more, unless it is known.
fn explain(reason: String, line: Option<String>) -> String {
    match line {
        Some(line) if !reason.contains(&line) => format!("{reason} ({line})"),
        _ => reason,
    }
}

/// Waits for `work` up to the given time.
async fn within<T>(until: Instant, work: impl Future<Output = io::Result<T>>) -> Result<T, Trouble> {
    let limit = async {
        Timer::at(until).await;
        Err(Trouble::TimedOut)
    };
    future::or(async { work.await.map_err(Trouble::from) }, limit).await
}

/// Whether libguestfs would try KVM.
fn may_have_kvm() -> bool {
    let settings = env::var("LIBGUESTFS_BACKEND_SETTINGS").unwrap_or_default();
    let forced = settings.split(':').any(|setting| matches!(setting, "force_tcg" | "force_tcg=1"));
    !forced && OpenOptions::new().read(true).write(true).open("/dev/kvm").is_ok()
}

/// Finds the helper program.
fn find_helper() -> Result<PathBuf, Unavailable> {
    const NAME: &str = "rtftp-guestfs";
    let beside = env::current_exe().ok().and_then(|exe| Some(exe.parent()?.join(NAME)));
    let in_path = env::var_os("PATH").unwrap_or_default();
    let in_path = env::split_paths(&in_path).map(|folder| folder.join(NAME));
    let executable =
        |path: &PathBuf| path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0);
    beside.into_iter().chain(in_path).find(executable).ok_or_else(|| {
        unavailable(
            "this disk needs libguestfs, and its helper rtftp-guestfs is neither beside rtftp nor in PATH: \
             build it with `cargo build --release -p rtftp-guestfs`, which needs the package libguestfs-dev"
                .into(),
        )
    })
}
