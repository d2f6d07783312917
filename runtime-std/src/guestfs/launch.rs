//! Finds the helper program and starts it, with KVM or without.

#[cfg(test)]
mod tests;

use std::{
    env,
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
    HelperError,
    child::Child,
    client::{Appliance, within},
    wire::{Reply, Request, Step, VERSION},
};

/// The timeouts of a helper.
#[derive(Debug, Clone, Copy)]
pub struct HelperTimeouts {
    /// From the start of a helper to its mounted disk, including a second attempt without KVM.
    pub start: Duration,
    /// For each reply: of the NBD server to the connection, of the helper to a request.
    pub reply: Duration,
    /// The time without output of the appliance's kernel after which KVM is considered broken.
    pub silence: Duration,
}

impl Default for HelperTimeouts {
    fn default() -> Self {
        Self { start: Duration::from_secs(120), reply: Duration::from_secs(30), silence: Duration::from_secs(20) }
    }
}

/// Starts helpers. The daemon has one, which remembers whether KVM is broken.
#[derive(Debug)]
pub struct Launcher {
    /// The path of the helper program; `None` to search for it.
    helper: Option<PathBuf>,
    timeouts: HelperTimeouts,
    /// Whether to attempt KVM.
    try_kvm: AtomicBool,
    /// Read-locked by every helper until it has ended.
    running: Arc<RwLock<()>>,
}

impl Launcher {
    /// Creates a launcher that searches for the helper when a disk needs it: beside the running program, then in `PATH`.
    pub fn new(timeouts: HelperTimeouts) -> Self {
        Self { helper: None, timeouts, try_kvm: AtomicBool::new(is_kvm_available()), running: Arc::default() }
    }

    /// Creates a launcher of the helper program `helper`.
    pub fn with_helper(helper: PathBuf, timeouts: HelperTimeouts) -> Self {
        Self { helper: Some(helper), ..Self::new(timeouts) }
    }

    /// Waits until all helpers that were dropped or stopped have ended, with all processes that they started. No helper may be
    /// started meanwhile.
    pub async fn all_ended(&self) {
        self.running.write().await;
    }

    /// Starts a helper that mounts the disk described by `json`, the contents of its `.nbd` file. `disk` names it in the log.
    ///
    /// Takes seconds with KVM and tens of seconds without. Dropping the future ends the helper.
    ///
    /// # Errors
    ///
    /// [`HelperError`], one second after [`HelperTimeouts::start`] at the latest. The helper has ended then.
    pub async fn start(&self, disk: &str, json: &[u8]) -> Result<Appliance, HelperError> {
        let deadline = Instant::now() + self.timeouts.start;
        let helper = self.helper.clone().or_else(find_helper).ok_or(HelperError::NotInstalled)?;
        let mut kvm_error = None;
        if self.try_kvm.load(Ordering::Relaxed) {
            match self.attempt(&helper, disk, json, false, deadline).await {
                Err((error, reached)) if may_be_kvm(reached) => {
                    log::info!("{disk}: {error}; retrying without KVM");
                    kvm_error = Some(error);
                }
                result => return result.map_err(|(error, _)| error),
            }
        }
        let appliance = self.attempt(&helper, disk, json, true, deadline).await.map_err(|(error, _)| error)?;
        // The success without KVM shows that the cause was neither the disk nor its server.
        if let Some(error) = kvm_error
            && self.try_kvm.swap(false, Ordering::Relaxed)
        {
            log::warn!(
                "KVM does not work ({error}): disks behind libguestfs now use software emulation, which starts many times \
                 slower; repair /dev/kvm, or set LIBGUESTFS_BACKEND_SETTINGS=force_tcg to skip the attempt"
            );
        }
        Ok(appliance)
    }

    /// Starts a helper. The error comes with the last step that succeeded.
    async fn attempt(
        &self,
        helper: &Path,
        disk: &str,
        json: &[u8],
        emulate: bool,
        deadline: Instant,
    ) -> Result<Appliance, (HelperError, Option<Step>)> {
        let running = self.running.read_arc().await;
        let mut child = Child::spawn(helper.to_owned(), disk, running)
            .await
            .map_err(|error| (HelperError::Spawn { path: helper.to_owned(), error: error.into() }, None))?;
        let mut reached = None;
        match self.mount(&mut child, json, emulate, deadline, &mut reached).await {
            Ok(()) => Ok(Appliance::new(child, self.timeouts.reply)),
            Err(error) => {
                let error = HelperError::Start { reached, error: error.into() };
                Err((error.explained(child.end().await), reached))
            }
        }
    }

    /// Exchanges the messages of the start. Stores each step that succeeded in `reached`.
    async fn mount(
        &self,
        child: &mut Child,
        json: &[u8],
        emulate: bool,
        deadline: Instant,
        reached: &mut Option<Step>,
    ) -> Result<(), HelperError> {
        let reply_deadline = || deadline.min(Instant::now() + self.timeouts.reply);
        match within(reply_deadline(), child.receive_greeting()).await? {
            VERSION => {}
            version => return Err(HelperError::Version(version)),
        }
        let request = Request::Start { emulate, directory: child.directory().into(), description: json.into() };
        within(reply_deadline(), child.send(&request)).await?;
        let log = child.log();
        let silence = async {
            if emulate {
                future::pending::<()>().await;
            }
            log.silence(self.timeouts.silence).await;
            Err(HelperError::Silent(self.timeouts.silence))
        };
        let steps = async {
            loop {
                let deadline = if reached.is_none() { reply_deadline() } else { deadline };
                match within(deadline, child.receive()).await? {
                    Reply::Reached(step) => *reached = Some(step),
                    Reply::Ready => return Ok(()),
                    Reply::Lost(reason) => return Err(HelperError::Lost(reason)),
                    _ => return Err(HelperError::Protocol),
                }
            }
        };
        future::or(steps, silence).await
    }
}

/// Returns whether broken KVM may be the reason that a start failed after this step: the NBD server accepted the connection, and
/// the file systems were not mounted yet.
fn may_be_kvm(reached: Option<Step>) -> bool {
    reached == Some(Step::Connected)
}

/// Returns whether libguestfs would use KVM.
fn is_kvm_available() -> bool {
    let settings = env::var("LIBGUESTFS_BACKEND_SETTINGS").unwrap_or_default();
    let is_forced = settings.split(':').any(|setting| matches!(setting, "force_tcg" | "force_tcg=1"));
    !is_forced && OpenOptions::new().read(true).write(true).open("/dev/kvm").is_ok()
}

/// Searches for the helper program.
fn find_helper() -> Option<PathBuf> {
    const NAME: &str = "rtftp-guestfs";
    let beside = env::current_exe().ok().and_then(|exe| Some(exe.parent()?.join(NAME)));
    let path = env::var_os("PATH").unwrap_or_default();
    let in_path = env::split_paths(&path).map(|directory| directory.join(NAME));
    let is_executable =
        |path: &PathBuf| path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0);
    beside.into_iter().chain(in_path).find(is_executable)
}
