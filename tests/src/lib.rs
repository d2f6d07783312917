//! The kit of the end-to-end tests: the built daemon, real disks, real NBD servers, real TFTP clients.
//!
//! A test makes a [`Disk`] from [`Tree`]s, exports it with an [`NbdServer`], writes its [`DiskConfig`] into the root directory
//! of an [`Rtftp`] and fetches files with the programs of [`tools`] or, byte by byte, with a [`Client`]. The machine whose disk
//! it is can run meanwhile and change it: an [`Owner`].
//! The other way round, a [`Getter`] fetches from an [`Rtftp`], a [`ForeignServer`] or, byte by byte, a [`PlayedServer`].
//! Nothing uses a fixed port, nothing sleeps for a guessed time, and whatever was started is gone when its value is dropped.
//!
//! [`sim`] is the network that exists in the computer's mind only, for the core's state machines.

mod board;
mod browser;
mod cable;
pub mod check;
pub mod client;
mod daemon;
mod disk;
pub mod get;
mod kernel;
mod listing;
pub mod load;
mod nbd;
mod owner;
mod process;
mod reading;
pub mod sim;
mod tftpd;
pub mod tools;
mod usage;
mod wait;

pub use board::{board, mounted};
pub use browser::Browser;
pub use cable::{CARD, Cable};
pub use client::{Answer, Client};
pub use daemon::{Rtftp, arguments_refused, binary};
pub use disk::{Disk, DiskConfig, FileSystem, Tree};
pub use get::{Getter, Got, PlayedServer};
pub use listing::{Entry, Listing, write_awkward_files};
pub use nbd::{NbdServer, hung_server, refused_port};
pub use owner::Owner;
pub use process::{Process, run};
pub use reading::{Content, read_natively};
pub use tftpd::{ForeignServer, Tftpd};
pub use usage::{Usage, threads};
pub use wait::{Appliance, poll_until};

/// The file sizes at which block transfers go wrong, and one that a boot really has.
pub const SIZES: [(&str, usize); 6] =
    [("f0", 0), ("f1", 1), ("f511", 511), ("f512", 512), ("f513", 513), ("f40m", 40 << 20)];

/// Makes `len` bytes that look random, are the same in every run and differ from seed to seed.
pub fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// Makes a tree with a file of each of the [`SIZES`]; its files differ from those of other seeds.
pub fn sized_files(seed: u64) -> Tree {
    SIZES.iter().fold(Tree::new(), |tree, (name, size)| tree.file(name, noise(*size, seed)))
}

/// Asserts that two files are the same without printing megabytes when they are not.
#[track_caller]
pub fn assert_same(got: &[u8], expected: &[u8], what: &str) {
    // Whole slices are compared at once; byte by byte, an unoptimised test takes seconds for a large file.
    if got != expected {
        let differ = got.iter().zip(expected).position(|(got, expected)| got != expected);
        panic!("{what}: got {} bytes, expected {}, first difference at {differ:?}", got.len(), expected.len());
    }
}
