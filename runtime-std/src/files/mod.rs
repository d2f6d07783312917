//! The files that clients are served, from directories of this machine and from their disks.

pub(crate) mod local;
pub(crate) mod open_file;
pub(crate) mod root_index;
pub(crate) mod store;
pub(crate) mod watch;
