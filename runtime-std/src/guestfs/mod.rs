//! The libguestfs backend, for disks with file systems or volumes that are not supported natively (LVM, LUKS, ...).
//!
//! libguestfs boots a small virtual machine, and its calls have no time limit and cannot be cancelled. The daemon therefore does
//! not link it. Each disk gets a child process instead, the helper program `rtftp-guestfs`, which can be killed. This is the
//! daemon's side of it, and [`wire`] the protocol between the two.

mod child;
mod client;
mod error;
#[cfg(test)]
mod fake;
mod launch;
mod shared;
mod stderr;
pub mod wire;

pub(crate) use self::shared::{SharedAppliance, SharedFile};
pub use self::{
    client::{Appliance, OpenedFile},
    error::HelperError,
    launch::{HelperTimeouts, Launcher},
};
