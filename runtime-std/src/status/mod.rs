//! The status socket: a Unix socket through which local programs read the boot history.
//!
//! Each connection receives one JSON object, after the line `client NAME` with only this board; or, after the line `follow`, one line of
//! JSON for each finished request.

mod connection;
mod socket;
#[cfg(test)]
mod tests;

pub(crate) use self::socket::Socket;
pub use self::socket::{DEFAULT_SOCKET, StatusSocket};
