//! The sandbox: the kernel denies access to all files except those served, and to those it allows reading only (Landlock, Linux
//! 5.13). Only the recorded history can be written, if there is one.
//!
//! It backs up the checks of requested paths: if all of them failed, the kernel would still deny access. It does not restrict
//! connections to TCP ports and to the paths of Unix sockets, since disks may be anywhere, and their descriptions appear later.

use std::{
    error, fmt, fs, io,
    path::{Path, PathBuf},
};

use landlock::{
    ABI, Access, AccessFs, AccessNet, LandlockStatus, RestrictionStatus, Ruleset, RulesetAttr, RulesetCreatedAttr,
    RulesetError, Scope, path_beneath_rules,
};
use nix::sys::prctl::set_no_new_privs;

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

/// What a sandbox allows.
#[derive(Debug)]
pub struct Sandbox {
    /// The targets outside of the root directory to which symbolic links directly in it lead. They are readable.
    pub link_targets: Vec<PathBuf>,
    /// The actions that this kernel cannot deny, each with the version of Linux that can; empty if it denies all.
    pub not_denied: Vec<&'static str>,
}

/// The actions that versions of Landlock before these do not deny.
const LATER_ABIS: [(ABI, &str); 3] = [
    (ABI::V3, "truncating files (Linux 6.2)"),
    (ABI::V4, "listening on TCP ports (Linux 6.7)"),
    (ABI::V6, "signals to other programs and abstract Unix sockets (Linux 6.12)"),
];

/// Prevents the calling thread, the threads that it starts later, and all programs that they start from gaining privileges, as
/// set-user-ID programs would. Call it before any other thread is started.
///
/// # Errors
///
/// Fails if the kernel is older than Linux 3.5.
pub fn deny_new_privileges() -> io::Result<()> {
    Ok(set_no_new_privs()?)
}

/// Confines the calling thread and all threads that it starts later. Call it before any other thread is started.
///
/// Files below `root` and below `also` stay readable, and so do the present targets of symbolic links directly in `root`. Files
/// below `writable` can be created, read, written and removed. A directory that replaces `root` later is readable only if it is
/// below `also`. The threads cannot listen on TCP ports, signal other programs, or connect to abstract Unix sockets.
///
/// # Errors
///
/// Returns [`SandboxError`]; then the thread is not confined.
pub fn confine(root: &Path, also: Option<&Path>, writable: Option<&Path>) -> Result<Sandbox, SandboxError> {
    unsandboxed::start();
    let link_targets = link_targets(root).map_err(SandboxError::Root)?;
    match restrict(link_targets.iter().map(PathBuf::as_path).chain([root]).chain(also), writable)
        .map_err(SandboxError::Rules)?
        .landlock
    {
        LandlockStatus::NotImplemented => Err(SandboxError::NotSupported),
        LandlockStatus::NotEnabled => Err(SandboxError::NotEnabled),
        LandlockStatus::Available { effective_abi, .. } => {
            Ok(Sandbox { link_targets, not_denied: not_denied(effective_abi) })
        }
    }
}

/// Returns the actions that this version of Landlock does not deny.
fn not_denied(abi: ABI) -> Vec<&'static str> {
    LATER_ABIS.iter().filter(|(first, _)| abi < *first).map(|(_, action)| *action).collect()
}

/// Returns the targets outside of a directory to which symbolic links directly in it lead.
fn link_targets(root: &Path) -> io::Result<Vec<PathBuf>> {
    let real_root = root.canonicalize()?;
    let links = fs::read_dir(root)?.filter_map(Result::ok).filter(|entry| entry.path().is_symlink());
    let targets = links.filter_map(|link| link.path().canonicalize().ok());
    Ok(targets.filter(|target| !target.starts_with(&real_root)).collect())
}

fn restrict<'p>(
    readable: impl Iterator<Item = &'p Path>,
    writable: Option<&'p Path>,
) -> Result<RestrictionStatus, RulesetError> {
    // Handles every access that the kernel can deny; ABI 1 covers reading and writing. ABI 9 would deny Unix sockets.
    let all = AccessFs::from_all(ABI::V8);
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let write = read | AccessFs::WriteFile | AccessFs::MakeReg | AccessFs::RemoveFile;
    Ruleset::default()
        .handle_access(all)?
        .handle_access(AccessNet::BindTcp)?
        .scope(Scope::Signal | Scope::AbstractUnixSocket)?
        .create()?
        .add_rules(path_beneath_rules(readable, read))?
        .add_rules(path_beneath_rules(writable, write))?
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn older_kernels_deny_less() {
        for (abi, expected) in [(ABI::V1, 3), (ABI::V2, 3), (ABI::V3, 2), (ABI::V5, 1), (ABI::V6, 0), (ABI::V8, 0)] {
            assert_eq!(not_denied(abi).len(), expected, "{abi:?}");
        }
    }
}
