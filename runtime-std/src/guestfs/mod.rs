//! The libguestfs backend: disks that need more than the native readers know (LVM, btrfs, XFS, ...).
//!
//! libguestfs boots a small virtual machine, and no call of it has a time limit or can be cancelled. So the daemon does not link
//! it: every disk gets a child process, the helper program `rtftp-guestfs`, that can be killed.
//! [`client`] is the daemon's side, [`wire`] what goes over the pipe, `appliance` (feature `guestfs`) what the helper runs.

#[cfg(feature = "guestfs")]
pub mod appliance;
mod child;
pub mod client;
#[cfg(feature = "guestfs")]
mod failure;
#[cfg(test)]
mod fake;
mod launch;
#[cfg(feature = "guestfs")]
mod mounted;
pub(crate) mod shared;
pub mod wire;
