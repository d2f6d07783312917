//! The longest parts of a URI.

/// The longest host name, in bytes.
pub const MAX_HOST: usize = 255;

/// The longest export name, in bytes.
pub const MAX_EXPORT: usize = 255;

/// The longest path of a Unix socket, in bytes: Linux allows 108 with the NUL at the end.
pub const MAX_SOCKET: usize = 107;

/// The longest path of certificates, in bytes.
pub const MAX_TLS_PATH: usize = 255;
