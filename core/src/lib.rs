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

pub mod disk;
pub mod path;
pub mod reader;
pub mod time;
pub mod uri;
