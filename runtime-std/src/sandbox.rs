//! The sandbox: of all files, only those that are served can be opened, and only to be read (Landlock, Linux 5.13).
//!
//! It is the last line behind the checks of paths: if all of them were wrong, the kernel would still refuse. It does not restrict
//! the network, nor which Unix sockets are connected to, as disks may be anywhere.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
};

use landlock::{
    ABI, Access, AccessFs, LandlockStatus, RestrictionStatus, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError,
    path_beneath_rules,
};

use crate::unsandboxed;

/// Why a process is not confined.
#[derive(Debug)]
pub enum Unconfined {
    /// The kernel was built without Landlock.
    NotBuilt,
    /// The kernel was started without Landlock.
    NotEnabled,
    /// Something went wrong.
    Failed(String),
}

/// Confines the calling thread and all threads that it starts from now on, so it is to be called before any other thread is
/// started. They cannot get new privileges either (`no_new_privs`).
///
/// What is below `root` stays readable, and what symbolic links directly in it lead to at this moment; those that lead out are
/// returned. A directory that takes the place of `root` later is not readable.
///
/// # Errors
///
/// Why there is no sandbox; the thread goes on without.
pub fn confine(root: &Path) -> Result<Vec<PathBuf>, Unconfined> {
    unsandboxed::open();
    let linked = linked(root)?;
    match restrict(root, &linked)?.landlock {
        LandlockStatus::NotImplemented => Err(Unconfined::NotBuilt),
        LandlockStatus::NotEnabled => Err(Unconfined::NotEnabled),
        _ => Ok(linked),
    }
}

/// What the links in a directory lead to outside of it.
fn linked(root: &Path) -> io::Result<Vec<PathBuf>> {
    let real = root.canonicalize()?;
    let links = fs::read_dir(root)?.filter_map(Result::ok).filter(|entry| entry.path().is_symlink());
    let targets = links.filter_map(|link| link.path().canonicalize().ok());
    Ok(targets.filter(|target| !target.starts_with(&real)).collect())
}

fn restrict(root: &Path, linked: &[PathBuf]) -> Result<RestrictionStatus, RulesetError> {
    // All that can be done with files, as far as the kernel can forbid it: reading and writing since the first version.
    // The version after this one would forbid Unix sockets.
    let all = AccessFs::from_all(ABI::V8);
    let readable = linked.iter().map(PathBuf::as_path).chain([root]);
    Ruleset::default()
        .handle_access(all)?
        .create()?
        .add_rules(path_beneath_rules(readable, AccessFs::ReadFile | AccessFs::ReadDir))?
        .restrict_self()
}

impl From<io::Error> for Unconfined {
    fn from(error: io::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<RulesetError> for Unconfined {
    fn from(error: RulesetError) -> Self {
        Self::Failed(error.to_string())
    }
}

impl fmt::Display for Unconfined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotBuilt => f.write_str("this kernel has no landlock"),
            Self::NotEnabled => {
                f.write_str("landlock is not enabled in this kernel: `lsm=` on its command line leaves it out")
            }
            Self::Failed(why) => f.write_str(why),
        }
    }
}
