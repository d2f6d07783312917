//! The disk that most tests use: a board with `/boot` on vfat and `/` on ext4.

use crate::{Disk, DiskConfig, FileSystem, NbdServer, Tree, sized_files};

/// Builds a disk with an MBR, `/boot` on vfat and `/` on ext4 with symbolic links of every kind. File contents depend on `seed`.
pub fn board_disk(seed: u64) -> Disk {
    let boot = sized_files(seed).file("dir/name", format!("board {seed}"));
    let root = Tree::new()
        .file("etc/shadow", "secret")
        .file("srv/inside", "inside")
        .link("srv/near", "inside")
        .link("srv/absolute", "/inside")
        .link("srv/up", "../../../srv/inside")
        .link("srv/escape", "../etc/shadow")
        .link("srv/escape2", "/etc/shadow")
        .link("srv/loop", "loop")
        .directory("boot");
    Disk::mbr(&[(1, 64, FileSystem::Vfat(&boot)), (2, 32, FileSystem::Ext4(&root))])
}

/// Returns the description of a [`board_disk`] without a `tftp_root`.
pub fn board_config(server: &NbdServer) -> DiskConfig {
    DiskConfig::new(server.url()).partition(2, "/").partition(1, "/boot")
}
