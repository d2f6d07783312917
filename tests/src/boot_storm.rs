//! What many boards request when they boot at once, and the disks and directories that have it.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use tempfile::TempDir;

use crate::{
    Disk, DiskConfig, FileSystem, NbdServer, Tree,
    load_client::{Requested, address},
    nbd_program::NbdProgram,
    noise,
};

/// The requested files with their sizes in bytes, in the order of the requests. `None` does not exist.
const BOOT: [(&str, Option<usize>); 25] = [
    ("9ffefdef/start4.elf", None),
    ("9ffefdef/start.elf", None),
    ("config.txt", Some(2_000)),
    ("pieeprom.sig", None),
    ("recovery.elf", None),
    ("recover4.elf", None),
    ("start4.elf", Some(2_200_000)),
    ("fixup4.dat", Some(5_400)),
    ("vl805.sig", None),
    ("dt-blob.bin", None),
    ("config.txt", Some(2_000)),
    ("bootcfg.txt", None),
    ("bcm2711-rpi-4-b.dtb", Some(55_000)),
    ("overlays/overlay_map.dtb", Some(5_000)),
    ("overlays/vc4-kms-v3d-pi4.dtbo", Some(4_000)),
    ("overlays/disable-bt.dtbo", Some(1_000)),
    ("cmdline.txt", Some(150)),
    ("armstub8-gic.bin", None),
    ("kernel8.img", Some(10_000_000)),
    ("armstub8.bin", None),
    ("recovery8.img", None),
    ("initramfs8", Some(40_000_000)),
    ("bootconf.txt", None),
    ("autoboot.txt", None),
    ("cmdline.txt", Some(150)),
];

/// The size from which a file is scaled.
const LARGE: usize = 1_000_000;

/// The files of a boot.
#[derive(Debug)]
pub struct Boot(Vec<(&'static str, Option<Vec<u8>>)>);

impl Boot {
    /// Creates the files. The sizes of large ones are divided by `divisor`.
    pub fn new(divisor: usize) -> Self {
        let contents = |index, size| noise(if size < LARGE { size } else { size / divisor }, index);
        Self(
            (1..)
                .zip(BOOT)
                .map(|(index, (name, size))| (name, size.map(|size| contents(seed(name, index), size))))
                .collect(),
        )
    }

    /// Returns the requests of a boot, in their order.
    pub fn requested(&self) -> Vec<Requested<'_>> {
        self.0.iter().map(|(name, contents)| Requested { name, contents: contents.as_deref() }).collect()
    }

    /// Returns a root directory with the files in `default`.
    pub fn local_files(&self) -> TempDir {
        let root = directory_for_all();
        for (name, bytes) in self.existing() {
            let path = root.path().join("default").join(name);
            fs::create_dir_all(path.parent().expect("a directory")).expect("made");
            fs::write(path, bytes).expect("written");
        }
        root
    }

    /// Returns the files that exist.
    fn existing(&self) -> impl Iterator<Item = (&'static str, &[u8])> {
        self.0.iter().filter_map(|(name, contents)| Some((*name, contents.as_deref()?)))
    }
}

/// A file that is requested twice has the same contents both times.
fn seed(name: &str, index: u64) -> u64 {
    (1..).zip(BOOT).find(|(_, (other, _))| *other == name).map_or(index, |(first, _)| first)
}

/// The disks of all boards, each with the files of a boot, and a root directory with their description.
#[derive(Debug)]
pub struct BootDisks {
    _disk: Disk,
    /// Contains a directory that has the disk under the address of each board, and the socket of the NBD server.
    exports: TempDir,
    root: TempDir,
}

impl BootDisks {
    /// Creates the disks.
    pub fn new(boot: &Boot, boards: u16) -> Self {
        let tree = boot.existing().fold(Tree::new(), |tree, (name, bytes)| tree.file(name, bytes));
        let disk = Disk::whole(128, FileSystem::Ext4(&tree));
        let exports = tempfile::tempdir_in(disk.path().parent().expect("its directory")).expect("a directory");
        let directory = exports.path().join("exports");
        fs::create_dir(&directory).expect("made");
        // The first answer, which shows that the server has started, is for 127.0.0.1.
        for board in (0..boards).map(|board| address(board).to_string()).chain(["127.0.0.1".into()]) {
            fs::hard_link(disk.path(), directory.join(board)).expect("a hard link");
        }
        let root = directory_for_all();
        let url = format!("nbd+unix:///{{ip}}?socket={}", exports.path().join("nbd.sock").display());
        let description = DiskConfig::new(url).partition(0, "/").to_string();
        fs::write(root.path().join("default.nbd"), description).expect("a description");
        Self { _disk: disk, exports, root }
    }

    /// Returns the root directory.
    pub fn root(&self) -> &Path {
        self.root.path()
    }

    /// Starts an NBD server with all disks.
    pub fn serve(&self, program: NbdProgram) -> NbdServer {
        program.start(&self.exports.path().join("exports"), &self.exports.path().join("nbd.sock"))
    }
}

/// Returns an empty directory that servers can read without root.
fn directory_for_all() -> TempDir {
    let directory = tempfile::tempdir().expect("a temporary directory");
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).expect("set");
    directory
}
