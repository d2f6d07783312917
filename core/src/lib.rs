#![doc = include_str!("../README.md")]
//!
//! # Modules and types
//!
//! - [`Receiver`] requests a file and receives it; [`ReceiverConfig`] has its options and times, [`Peer`] checks the source of every
//!   packet.
//! - [`Sender`] sends a file, with the [`Settings`](wire::options::Settings) that [`negotiate`](wire::options::negotiate) returns.
//! - [`Output`] is the next action that either of them wants from its driver.
//! - [`BlockSink`] stores the bytes of a received file, [`BlockReader`] provides those of a sent one.
//! - [`Packet`] is one packet, borrowed from its datagram; [`RequestPath`] is a file name that cannot leave its root.
//! - [`netascii`] converts text files.
#![cfg_attr(feature = "disk-config", doc = "- [`config`] parses the `.nbd` description of a remote disk.")]
#![no_std]
#![cfg_attr(
    not(test),
    warn(
        clippy::alloc_instead_of_core,
        clippy::arithmetic_side_effects,
        clippy::as_conversions,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::must_use_candidate,
        clippy::panic,
        clippy::std_instead_of_core,
        clippy::unwrap_used
    )
)]

#[cfg(test)]
extern crate std;

#[cfg(feature = "disk-config")]
pub mod config;
pub mod netascii;
pub mod time;
pub mod transfer;
pub mod wire;

/// The bounded strings and lists in the types of [`config`].
#[cfg(feature = "disk-config")]
#[doc(no_inline)]
pub use heapless;

pub use crate::{
    time::Instant,
    transfer::{
        io::{BlockReader, BlockSink, ReadFailed, WriteFailed},
        output::{Outcome, Output, Transmit},
        peer::{Peer, UnknownSource},
        receiver::{Receiver, ReceiverConfig},
        sender::Sender,
    },
    wire::{packet::Packet, path::RequestPath},
};
