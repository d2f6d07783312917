#![doc = include_str!("../README.md")]
//!
//! # Where to begin
//!
//! - [`Packet`] is what goes over the wire, borrowed from the datagram.
//! - [`options::negotiate`](wire::options::negotiate) turns what a client asks into [`Settings`](wire::options::Settings).
//! - [`Sender`] sends a file with them. It is plain data; every call is given the time.
//! - [`Receiver`] is its other end: it asks for a file and receives it, driven in the same way.
//! - [`Output`] is what it asks its driver to do.
//! - [`BlockReader`] is where the file's bytes come from, [`BlockSink`] where they go.
//!
//! Beside these are [`RequestPath`], a file name that cannot leave its root, and [`config::disk::DiskConfig`], the description of a
//! remote disk.
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

pub mod config;
pub mod netascii;
pub mod time;
pub mod transfer;
pub mod wire;

/// The strings and lists of bounded length that [`config`] are made of.
#[doc(no_inline)]
pub use heapless;

pub use crate::{
    time::Instant,
    transfer::{
        io::{BlockReader, BlockSink, ReadFailed, WriteFailed},
        output::{Outcome, Output, Transmit},
        receiver::Receiver,
        sender::Sender,
    },
    wire::{packet::Packet, path::RequestPath},
};
