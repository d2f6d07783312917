//! A TFTP protocol core without I/O.
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

mod block;
pub mod disk;
pub mod options;
pub mod output;
pub mod packet;
pub mod path;
pub mod reader;
mod rto;
pub mod sender;
pub mod time;
pub mod uri;

pub use crate::{
    output::{Outcome, Output, Transmit},
    packet::Packet,
    path::RequestPath,
    reader::{BlockReader, ReadFailed},
    sender::Sender,
    time::Instant,
};
