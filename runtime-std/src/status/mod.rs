//! The status socket: a Unix socket through which local programs read the boot history.
//!
//! Each connection receives one JSON object, or, after sending the line `follow`, one line of JSON for each finished request.

mod connection;
mod socket;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

pub(crate) use self::socket::Socket;

/// The default path of the status socket.
pub const DEFAULT_SOCKET: &str = "/run/rtftp/status.sock";

/// The path of the status socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StatusSocket {
    /// [`DEFAULT_SOCKET`] if its directory is writable, otherwise none.
    Default,
    /// This path. The server does not start without the socket.
    At(PathBuf),
    /// No status socket.
    Disabled,
}
