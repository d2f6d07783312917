//! The rtftp boot server on smol: sockets, local directories and disks behind NBD exports.

pub mod error;
pub mod remote;
