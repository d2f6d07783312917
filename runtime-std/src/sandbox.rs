//! The sandbox: the kernel denies access to all files except those served, and to those it allows reading only (Landlock, Linux
//! 5.13).
//!
//! It backs up the checks of requested paths: if all of them failed, the kernel would still deny access. It restricts neither the
//! network nor connections to Unix sockets, since disks may be anywhere.

use std::{
    error, fmt, fs, io,
    path::{Path, PathBuf},
};

use landlock::{
    ABI, Access, AccessFs, LandlockStatus, RestrictionStatus, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError,
    path_beneath_rules,
};

use crate::unsandboxed;

/// The reason why a thread could not be confined.
#[derive(Debug)]
#[non_exhaustive]
pub enum SandboxError {
    /// The kernel was built without Landlock.
    NotSupported,
    /// The kernel was started without Landlock.
    NotEnabled,
    /// The root directory cannot be read.
    Root(io::Error),
    /// The kernel rejected the rules.
    Rules(RulesetError),
}

/// Confines the calling thread and all threads that it starts later. Call it before any other thread is started. The threads cannot
/// gain privileges either (`no_new_privs`).
///
/// Files below `root` stay readable, and so do the present targets of symbolic links directly in it. Returns the targets outside of
/// `root`. A directory that replaces `root` later is not readable.
///
/// # Errors
///
/// Returns [`SandboxError`]; then the thread is not confined.
pub fn confine(root: &Path) -> Result<Vec<PathBuf>, SandboxError> {
    unsandboxed::start();
    let link_targets = link_targets(root).map_err(SandboxError::Root)?;
    match restrict(root, &link_targets).map_err(SandboxError::Rules)?.landlock {
        LandlockStatus::NotImplemented => Err(SandboxError::NotSupported),
        LandlockStatus::NotEnabled => Err(SandboxError::NotEnabled),
        _ => Ok(link_targets),
    }
}

/// Returns the targets outside of a directory to which symbolic links directly in it lead.
fn link_targets(root: &Path) -> io::Result<Vec<PathBuf>> {
    let real_root = root.canonicalize()?;
    let links = fs::read_dir(root)?.filter_map(Result::ok).filter(|entry| entry.path().is_symlink());
    let targets = links.filter_map(|link| link.path().canonicalize().ok());
    Ok(targets.filter(|target| !target.starts_with(&real_root)).collect())
}

fn restrict(root: &Path, link_targets: &[PathBuf]) -> Result<RestrictionStatus, RulesetError> {
    // Handles every access that the kernel can deny; ABI 1 covers reading and writing. ABI 9 would deny Unix sockets.
    let all = AccessFs::from_all(ABI::V8);
    let readable = link_targets.iter().map(PathBuf::as_path).chain([root]);
    Ruleset::default()
        .handle_access(all)?
        .create()?
        .add_rules(path_beneath_rules(readable, AccessFs::ReadFile | AccessFs::ReadDir))?
        .restrict_self()
}

impl fmt::Display for SandboxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotSupported => f.write_str("the kernel was built without Landlock"),
            Self::NotEnabled => f.write_str("Landlock is disabled: add it to `lsm=` on the kernel's command line"),
            Self::Root(error) => error.fmt(f),
            Self::Rules(error) => error.fmt(f),
        }
    }
}

impl error::Error for SandboxError {}
