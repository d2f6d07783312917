//! How a helper program is found and started, with KVM or without.

use std::{
    env, fmt,
    fs::OpenOptions,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use smol::{future, lock::RwLock};

use super::{
    child::Child,
    client::{Appliance, Trouble, explain, unavailable, within},
    wire::{Reply, Request, Step, VERSION},
};
use crate::error::Unavailable;

/// How long a helper may take.
#[derive(Debug, Clone, Copy)]
pub struct HelperTimeouts {
    /// From the start of a helper to its mounted disk, a second attempt without KVM included.
    pub start: Duration,
    /// For one answer: the NBD server's to the connection, the helper's to a request.
    pub reply: Duration,
    /// How long the kernel of an appliance under KVM may say nothing before KVM is taken to be broken.
    pub silence: Duration,
}

impl Default for HelperTimeouts {
    fn default() -> Self {
        Self { start: Duration::from_secs(120), reply: Duration::from_secs(30), silence: Duration::from_secs(20) }
    }
}

/// Starts helpers; one for the whole daemon, as it remembers that KVM is broken.
#[derive(Debug)]
pub struct Launcher {
    /// Where the helper is, if it is not to be looked for.
    helper: Option<PathBuf>,
    limits: HelperTimeouts,
    /// Whether KVM is worth an attempt.
    kvm: AtomicBool,
    /// Read-locked by every helper until it is gone.
    living: Arc<RwLock<()>>,
}

impl Launcher {
    /// Makes a launcher that looks for the helper when a disk needs it: beside the program that runs, then in `PATH`.
    pub fn new(limits: HelperTimeouts) -> Self {
        Self { helper: None, limits, kvm: AtomicBool::new(may_have_kvm()), living: Arc::default() }
    }

    /// Makes a launcher of the helper program at `helper`.
    pub fn with_helper(helper: PathBuf, limits: HelperTimeouts) -> Self {
        Self { helper: Some(helper), ..Self::new(limits) }
    }

    /// Waits until every helper that was dropped or stopped is gone, with all that it had started. None may be started meanwhile.
    pub async fn all_ended(&self) {
        self.living.write().await;
    }

    /// Starts a helper that opens and mounts the disk that `json`, the text of its `.nbd` file, describes.
    ///
    /// `disk` names it in the log. Takes seconds with KVM and tens of seconds without; dropping the future ends what was started.
    ///
    /// # Errors
    ///
    /// [`Unavailable`] after at most [`HelperTimeouts::start`] and a second; nothing is left running then.
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
        let living = self.living.read_arc().await;
        let mut child = Child::spawn(helper.to_owned(), disk, living).await.map_err(|error| StartFailed {
            reached: None,
            reason: format!("cannot run {}: {error}", helper.display()),
        })?;
        let mut reached = None;
        match self.converse(&mut child, json, emulate, until, &mut reached).await {
            Ok(()) => Ok(Appliance::new(child, self.limits.reply)),
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
        let soon = || until.min(Instant::now() + self.limits.reply);
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

/// What was being done after `reached`.
fn during(reached: Option<Step>) -> &'static str {
    match reached {
        None => "connecting to the NBD server: ",
        Some(Step::Connected) => "starting the appliance: ",
        Some(Step::Launched) => "mounting: ",
    }
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

#[cfg(test)]
mod tests {
    use super::{
        super::fake::{Fake, patient},
        *,
    };

    fn launcher(fake: &Fake, limits: HelperTimeouts, kvm: bool) -> Launcher {
        Launcher { kvm: AtomicBool::new(kvm), ..Launcher::with_helper(fake.helper.clone(), limits) }
    }

    fn start(launcher: &Launcher) -> Result<(), Unavailable> {
        smol::block_on(async {
            launcher.start("disk", b"{}").await?.stop().await;
            Ok(())
        })
    }

    #[track_caller]
    fn fails(fault: &str, limits: HelperTimeouts, expected: &str) {
        let fake = Fake::new(fault);
        assert_eq!(start(&launcher(&fake, limits, false)).expect_err("a failure").reason, expected);
        fake.assert_nothing_is_left();
    }

    #[test]
    fn a_start_has_a_limit() {
        let soon = HelperTimeouts { reply: Duration::from_secs(2), ..patient() };
        fails("silent", soon, "connecting to the NBD server: no answer in time");
        fails("hung-server", soon, "connecting to the NBD server: no answer in time");
        let soon = HelperTimeouts { start: Duration::from_secs(2), ..patient() };
        fails("hung-mount", soon, "mounting: no answer in time");
    }

    #[test]
    fn a_stranger_is_no_helper() {
        let confused = "connecting to the NBD server: rtftp-guestfs answers what was not asked";
        fails("garbage", patient(), confused);
        fails("confused", patient(), confused);
        let old = "connecting to the NBD server: rtftp-guestfs is of another version (protocol 0, not 2): install the one that \
                   belongs to this rtftp";
        fails("old", patient(), old);
    }

    #[test]
    fn a_failure_is_explained_by_stderr() {
        fails("lost", patient(), "no disk (Failed to connect: Connection refused)");
        let library = "connecting to the NBD server: rtftp-guestfs ended unexpectedly (rtftp-guestfs: error while loading \
                       shared libraries: libguestfs.so.0: cannot open shared object file)";
        fails("missing-library", patient(), library);
        let nowhere = Launcher::with_helper("/nonexistent".into(), patient());
        assert!(start(&nowhere).expect_err("a failure").reason.starts_with("cannot run /nonexistent: "));
    }

    #[test]
    fn stderr_without_end_is_read_and_forgotten() {
        let fake = Fake::new("endless-line");
        assert_eq!(start(&launcher(&fake, patient(), false)), Ok(()));
        fake.assert_nothing_is_left();
    }

    #[test]
    fn broken_kvm_is_found_out_once() {
        let fake = Fake::new("broken-kvm");
        let launcher = launcher(&fake, HelperTimeouts { silence: Duration::from_millis(300), ..patient() }, true);
        assert_eq!(start(&launcher), Ok(()));
        assert_eq!(start(&launcher), Ok(()));
        assert!(!launcher.kvm.load(Ordering::Relaxed));
        assert_eq!(fake.children().len(), 3, "one attempt with KVM, two without");
        fake.assert_nothing_is_left();
    }

    #[test]
    fn a_slow_appliance_that_speaks_is_waited_for() {
        let fake = Fake::new("slow-kvm");
        let launcher = launcher(&fake, HelperTimeouts { silence: Duration::from_secs(4), ..patient() }, true);
        assert_eq!(start(&launcher), Ok(()));
        assert!(launcher.kvm.load(Ordering::Relaxed));
    }

    #[test]
    fn a_disk_that_starts_in_no_way_does_not_blame_kvm() {
        let fake = Fake::new("broken-both");
        let launcher = launcher(&fake, patient(), true);
        assert_eq!(start(&launcher).expect_err("a failure").reason, "no start");
        assert!(launcher.kvm.load(Ordering::Relaxed));
        fake.assert_nothing_is_left();
    }

    #[test]
    fn a_start_that_is_given_up_leaves_nothing() {
        let fake = Fake::new("hung-mount");
        let launcher = launcher(&fake, patient(), false);
        smol::block_on(future::or(async { drop(launcher.start("disk", b"{}").await) }, fake.has_started()));
        fake.assert_nothing_is_left();
    }
}
