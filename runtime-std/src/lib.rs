//! The rtftp boot server on smol: sockets, local directories and disks behind NBD exports.
//!
//! * [`server`] receives requests. Each becomes a session, a task that opens the file in the client's roots and sends it: the event
//!   loop drives the core's [`Sender`](rtftp_core::Sender) with a socket and the clock.
//! * [`client`] fetches files: [`fetch`](client::fetch) drives the core's [`Receiver`](rtftp_core::Receiver), and
//!   [`HttpClient`](client::http::HttpClient) fetches over HTTP.
//! * [`history`] records the boots of each client and the outcome of each request.
//! * [`monitor`] reads figures of everything that a server does, for metrics.
//! * [`board_log`] keeps the last log lines about each board.
//! * [`boot_entries`] makes boot menus from the files on a disk.
//! * [`check`] inspects everything that a server would serve and reports problems.

pub mod board_log;
pub mod boot_entries;
mod buffer;
pub mod check;
pub mod client;
pub mod client_name;
pub mod clock;
pub mod connections;
mod descriptors;
pub mod disk;
mod event_loop;
pub mod files;
pub mod fs;
pub mod guestfs;
mod histogram;
pub mod history;
pub mod hostnames;
pub mod http;
mod last_seen;
mod local_fs;
pub mod memory;
pub mod monitor;
pub mod nbd;
mod net;
pub mod network;
pub mod pem;
pub mod prefix;
mod rate_limit;
pub mod sandbox;
pub mod server;
pub mod status;
pub mod text;
pub mod thread;
mod unsandboxed;

/// The core, whose types are in the signatures here.
#[doc(no_inline)]
pub use rtftp_core;
/// The executor that [`nbd`] is handed, and the streams it can work over.
#[doc(no_inline)]
pub use smol;
