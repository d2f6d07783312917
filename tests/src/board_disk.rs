//! The disk of a board, as most tests want it.

use crate::{Disk, DiskConfig, FileSystem, NbdServer, Tree, sized_files};

/// A disk with an MBR: `/boot` on vfat, `/` on ext4 with links of every kind. Its files differ from those of other seeds.
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

/// How it is mounted; `tftp_root` is still to be said.
pub fn board_config(server: &NbdServer) -> DiskConfig {
    DiskConfig::new(server.url()).partition(2, "/").partition(1, "/boot")
}
