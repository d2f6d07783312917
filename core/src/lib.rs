//! A TFTP protocol core without sockets, clock, heap or log: the same state machines run in a daemon, in firmware, in a
//! simulated network and under a fuzzer.
//!
//! - [`Packet`] is what goes over the wire, borrowed from the datagram.
//! - [`options::negotiate`] turns what a client asks into [`Settings`](options::Settings).
//! - [`Sender`] sends a file with them. It is plain data; every call is given the time.
//! - [`Receiver`] is its other end: it asks for a file and receives it, driven in the same way.
//! - [`Output`] is what it asks its driver to do.
//! - [`BlockReader`] is where the file's bytes come from, [`BlockSink`] where they go.
//!
//! Beside these are [`RequestPath`], a file name that cannot leave its root, and [`disk::DiskConfig`], the description of a
//! remote disk.
//!
//! It is not a server: it opens no port and no file. It does not read network packets other than TFTP's, and it does not
//! store files for clients (WRQ).
//!
//! # The driving loop
//!
//! ```
//! use rtftp_core::{Instant, Outcome, Output, Packet, Sender, options::{Limits, negotiate}};
//!
//! /// Serves one request; `send` and `receive` stand for a UDP socket, `now` for a clock.
//! fn serve(
//!     request: &[u8],
//!     mut file: &[u8],
//!     now: impl Fn() -> Instant,
//!     mut send: impl FnMut(&[u8]),
//!     mut receive: impl FnMut(Instant) -> Option<Vec<u8>>, // `None`: nothing came before that instant
//! ) -> Option<Outcome> {
//!     let Ok(Packet::ReadRequest(request)) = Packet::parse(request) else { return None };
//!     let size = file.len() as u64;
//!     let (settings, granted) = negotiate(request.options, &Limits::default(), Some(size));
//!     let mut sender = Sender::new(now(), settings, granted, Some(size));
//!     let mut buf = [0; 65_536];
//!     loop {
//!         match sender.poll(now(), &mut file, &mut buf) {
//!             Output::Transmit(t) => buf[..t.len].chunks(t.segment).for_each(&mut send),
//!             Output::Wait(until) => if let Some(datagram) = receive(until) { sender.handle(now(), &datagram) },
//!             Output::NeedData => unreachable!("bytes in memory are always loaded"),
//!             Output::Finished(outcome) => return Some(outcome),
//!         }
//!     }
//! }
//!
//! // A client that acknowledges the one block it gets.
//! let mut sent = Vec::new();
//! let outcome = serve(
//!     b"\x00\x01kernel\0octet\0",
//!     b"vmlinuz",
//!     || Instant::from_micros(0),
//!     |datagram| sent.extend_from_slice(datagram),
//!     |_| Some(b"\x00\x04\x00\x01".to_vec()),
//! );
//! assert_eq!(outcome, Some(Outcome::Complete));
//! assert_eq!(sent, b"\x00\x03\x00\x01vmlinuz");
//! ```
//!
//! # Features
//!
//! `defmt` derives `defmt::Format` on every public type.
#![no_std]
#![cfg_attr(
    not(test),
    warn(
        clippy::alloc_instead_of_core,
        clippy::arithmetic_side_effects,
        clippy::as_conversions,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic,
        clippy::std_instead_of_core,
        clippy::unwrap_used
    )
)]

#[cfg(test)]
extern crate std;

pub mod block;
pub mod disk;
mod ending;
pub mod netascii;
pub mod options;
pub mod output;
mod pace;
pub mod packet;
pub mod path;
pub mod reader;
pub mod receiver;
mod rto;
pub mod sender;
pub mod time;
pub mod uri;

pub use crate::{
    output::{Outcome, Output, Transmit},
    packet::Packet,
    path::RequestPath,
    reader::{BlockReader, BlockSink, ReadFailed, WriteFailed},
    receiver::Receiver,
    sender::Sender,
    time::Instant,
};
