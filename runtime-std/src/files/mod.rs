//! The files that clients are served, from local directories and from disks behind NBD servers.
//!
//! [`FileStore`] looks files up in the roots of a client and opens them; [`OpenFile`] reads them. Neither depends on TFTP, so other
//! protocols can serve the same files.

mod error;
mod local;
mod open_file;
mod origin;
mod root_index;
mod store;
mod watch;

pub use self::{error::OpenError, open_file::OpenFile, origin::Origin, store::FileStore};
pub(crate) use self::{
    local::{LocalError, LocalFile},
    store::Boards,
};
