//! The rtftp boot server on smol: sockets, local directories and disks behind NBD exports.
//!
//! [`Server`](server::Server) takes requests in; each becomes a session, a task of its own, which looks for the file in the
//! client's roots and drives the core's [`Sender`](rtftp_core::Sender) with a socket and a clock. [`fetch`](fetch::fetch) is the
//! other end: it drives the core's [`Receiver`](rtftp_core::Receiver). [`Boots`](boots::Boots) is the record of who booted how;
//! [`check`](check::check) looks at everything that a server would serve, and says what is wrong with it.

pub mod boots;
pub mod check;
mod clock;
pub mod error;
pub mod fetch;
mod file;
mod listing;
mod local;
mod lookup;
mod mtu;
mod names;
mod neighbours;
mod outside;
mod ports;
mod reactor;
pub mod remote;
mod roots;
pub mod sandbox;
pub mod server;
mod session;
mod sessions;
pub mod status;
mod strangers;
mod transfer;
mod udp;
mod watch;

/// The core, whose types are in the signatures here.
#[doc(no_inline)]
pub use rtftp_core;
/// The executor that [`remote::nbd`] is handed, and the streams it can work over.
#[doc(no_inline)]
pub use smol;
