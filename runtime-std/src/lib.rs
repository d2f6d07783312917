//! The rtftp boot server on smol: sockets, local directories and disks behind NBD exports.
//!
//! [`Server`](server::Server) takes requests in; each becomes a session, a task of its own, which looks for the file in the
//! client's roots and drives the core's [`Sender`](rtftp_core::Sender) with a socket and a clock. [`fetch`](client::fetch) is the
//! other end: it drives the core's [`Receiver`](rtftp_core::Receiver). [`History`](history::History) is the record of who booted how;
//! [`check`](check::check) looks at everything that a server would serve, and says what is wrong with it.

mod buffer;
pub mod check;
pub mod client;
pub mod client_name;
mod clock;
pub mod disk;
mod event_loop;
pub mod files;
pub mod fs;
pub mod guestfs;
pub mod history;
mod last_seen;
pub mod nbd;
mod net;
mod openat;
mod rate_limit;
pub mod sandbox;
pub mod server;
pub mod status;
pub mod text;
mod unsandboxed;

/// The core, whose types are in the signatures here.
#[doc(no_inline)]
pub use rtftp_core;
/// The executor that [`nbd`] is handed, and the streams it can work over.
#[doc(no_inline)]
pub use smol;
