//! Local file systems: opens and reads files without blocking the thread.
//!
//! A call runs on the calling thread only if it cannot wait for a network or another process: the file system is local, and
//! openat2(2) finds the path in the kernel's caches and on one mount. All other calls run on threads that may block, within limits:
//! [`calls`].

mod calls;
mod kind;
mod open;
mod root;
mod shared_root;

pub(crate) use self::{
    root::{OpenRoot, RootDirectory, ServedFile, Version},
    shared_root::SharedRoot,
};
