//! The kit of the end-to-end tests: the built daemon, real disks, real NBD servers, real TFTP clients.
//!
//! A test makes a [`Disk`] from [`Tree`]s, exports it with an [`NbdServer`], writes its [`DiskConfig`] into the root directory
//! of an [`Rtftp`] and fetches files with the programs of [`client_programs`] or, byte by byte, with a [`Client`]. The machine whose disk
//! it is can run meanwhile and change it: an [`OwnerMachine`].
//! The other way round, a [`RtftpGet`] fetches from an [`Rtftp`], a [`ForeignServer`] or, byte by byte, a [`ScriptedServer`].
//! Nothing uses a fixed port, nothing sleeps for a guessed time, and whatever was started is gone when its value is dropped.
//!
//! [`sim`] is the network that exists in the computer's mind only, for the core's state machines.

mod board_disk;
mod browser;
pub mod client_programs;
mod daemon;
mod disk;
mod foreign_server;
mod kernel;
mod listing;
pub mod load_client;
mod nbd;
mod owner_machine;
mod process;
pub mod raw_client;
mod reading;
mod resource_usage;
pub mod rtftp_check;
pub mod rtftp_get;
pub mod sim;
mod veth_network;
mod wait;

pub use board_disk::{board_config, board_disk};
pub use browser::Browser;
pub use daemon::{Rtftp, binary, run_with_bad_arguments};
pub use disk::{Disk, DiskConfig, FileSystem, Tree};
pub use foreign_server::{ForeignServer, TftpServerProgram};
pub use listing::{Entry, Listing, write_awkward_files};
pub use nbd::{NbdServer, closed_port, silent_server};
pub use owner_machine::OwnerMachine;
pub use process::{Process, run};
pub use raw_client::{Answer, Client};
pub use reading::{Content, read_natively};
pub use resource_usage::{ResourceUsage, thread_cpu_times};
pub use rtftp_get::{GetResult, RtftpGet, ScriptedServer};
pub use veth_network::{BOARD_MAC, VethNetwork};
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
