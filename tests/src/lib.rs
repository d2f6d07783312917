//! Building blocks of the end-to-end tests: the built daemon, real disks, real NBD servers, real TFTP clients.
//!
//! A test builds a [`Disk`] from [`Tree`]s, exports it with an [`NbdServer`], writes its [`DiskConfig`] into the root directory of
//! an [`Rtftp`] daemon and fetches files with a [`client program`](client_programs) or, packet by packet, with a [`Client`]. A
//! [`BootNetwork`] has an emulated PC that boots over HTTP. An [`OwnerMachine`] is a virtual machine that has the disk mounted and
//! changes it meanwhile; a [`RecordingNbdServer`] records its writes for a [`power_cut`]. In the other direction, [`RtftpGet`]
//! fetches from an [`Rtftp`] daemon, from a [`ForeignServer`] or, packet by packet, from a [`ScriptedServer`].
//!
//! No test uses a fixed port or sleeps for a guessed time. Dropping a value ends the processes that it started.
//!
//! [`sim`] simulates a network in virtual time for the state machines of the core.

mod activated;
mod appliance;
pub mod attackers;
mod authority;
pub mod bench_arguments;
mod board_disk;
pub mod boards;
pub mod boot_guide;
mod boot_kernel;
mod boot_network;
pub mod boot_storm;
mod browser;
pub mod client_programs;
mod daemon;
mod debian_disk;
pub mod delays;
mod disk;
mod disk_changes;
mod efi_program;
mod emulated_machine;
mod etcd;
mod foreign_server;
pub mod grub;
mod hanging_fs;
pub mod hostile_nbd;
pub mod http_client;
pub mod http_load;
mod hung_thread;
mod kernel;
mod kernel_mount;
mod listing;
pub mod load_client;
pub mod measured_run;
pub mod measured_server;
mod namespace;
mod nbd;
pub mod nbd_program;
mod nbds;
mod not_tested;
mod one_processor;
mod owner_machine;
mod owner_system;
pub mod power_cut;
mod process;
pub mod raw_client;
mod reading;
mod recording_nbd;
mod resource_usage;
pub mod rtftp_check;
pub mod rtftp_get;
mod secure_debian_disk;
pub mod sim;
pub mod sparse_image;
mod tmux;
mod two_servers;
mod unified_kernel;
mod upgrade_recorder;
pub mod upgrade_recording;
mod veth_network;
mod wait;

pub use activated::activated;
pub use appliance::AppliancePermit;
pub use authority::Authority;
pub use board_disk::{board_config, board_disk};
pub use boot_kernel::{board_kernel, boot_kernel};
pub use boot_network::BootNetwork;
pub use browser::Browser;
pub use daemon::{Rtftp, binary, run_with_bad_arguments};
pub use debian_disk::{DebianDisk, initrd};
pub use disk::{Disk, DiskConfig, FileSystem, Tree};
pub use efi_program::{certificate_table, efi_program};
pub use emulated_machine::{Firmware, SNAKEOIL_KEY, U_BOOT};
pub use etcd::{EtcdServer, RtftpEtcd};
pub use foreign_server::{ForeignServer, TftpServerProgram};
pub use hanging_fs::{Hang, HangingFileSystem};
pub use hung_thread::HungThread;
pub use kernel_mount::{KernelMount, read_directory};
pub use listing::{Entry, Listing, write_awkward_files};
pub use namespace::Namespace;
pub use nbd::{NbdServer, closed_port, silent_server};
pub use nbds::TlsExport;
pub use not_tested::{can_unshare, not_tested};
pub use one_processor::share_one_processor;
pub use owner_machine::{BTRFS_MODULES, OwnerMachine};
pub use owner_system::OwnerSystem;
pub use process::{Process, run};
pub use raw_client::{Answer, Client};
pub use reading::{Content, read_image, read_natively, try_read_image};
pub use recording_nbd::RecordingNbdServer;
pub use resource_usage::{ResourceUsage, thread_cpu_times};
pub use rtftp_get::{GetResult, RtftpGet, ScriptedServer};
pub use secure_debian_disk::SecureDebianDisk;
pub use tmux::Tmux;
pub use two_servers::{ANYCAST_ADDRESS, BootServer, Keepalived, TwoServers, VIRTUAL_ADDRESS};
pub use unified_kernel::signed_unified_kernel;
pub use veth_network::{BOARD_MAC, Router, VethNetwork};
pub use wait::poll_until;

/// File names and sizes in bytes around the default block size, and a size typical of a kernel.
pub const SIZES: [(&str, usize); 6] =
    [("f0", 0), ("f1", 1), ("f511", 511), ("f512", 512), ("f513", 513), ("f40m", 40 << 20)];

/// Returns `len` pseudo-random bytes that depend only on `seed`.
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

/// Returns a tree with one file of each of the [`SIZES`]; the contents depend on `seed`.
pub fn sized_files(seed: u64) -> Tree {
    SIZES.iter().fold(Tree::new(), |tree, (name, size)| tree.file(name, noise(*size, seed)))
}

/// Asserts that two files are equal; a failure prints the lengths and the first difference instead of the contents.
#[track_caller]
pub fn assert_same(got: &[u8], expected: &[u8], what: &str) {
    // Comparing whole slices is fast; comparing bytes one by one takes seconds in an unoptimised build.
    if got != expected {
        let differ = got.iter().zip(expected).position(|(got, expected)| got != expected);
        panic!("{what}: got {} bytes, expected {}, first difference at {differ:?}", got.len(), expected.len());
    }
}
