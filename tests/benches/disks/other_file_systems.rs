//! The rows for XFS and btrfs, beside those for ext4.

use std::{fs, path::Path, process::Command};

use rtftp_tests::{Disk, FileSystem, KernelMount, NbdServer, Tree, noise};

use super::{LARGE_SIZE, SMALL_SIZE, first_data, is_selected, memory, milliseconds, open_whole, read_file, row, speed};

/// The size of the disks with files in MiB, and of the large ones.
const SIZE: u64 = 512;
const LARGE: u64 = 1 << 20;
/// The options of `mkfs.btrfs` for each row of it.
const BTRFS: [(&str, &[&str]); 2] = [("btrfs", &[]), ("btrfs with SHA-256", &["--csum", "sha256"])];
/// The number of files that fill a log of 64 MiB, with directories of as many files each.
const LOGGED_FILES: usize = 90_000;
const FILES_PER_DIRECTORY: usize = 1000;

/// Prints the rows.
pub(super) fn rows() {
    let bytes = noise(LARGE_SIZE, 1);
    let tree = Tree::new().file("whole", &bytes).file("small", &bytes[..SMALL_SIZE]);
    let small = Tree::new().file("boot/kernel", "kernel");
    let xfs = (String::from("XFS"), xfs(SIZE, &tree), xfs(LARGE, &small));
    let btrfs = BTRFS.map(|(name, options)| (name.into(), btrfs(SIZE, &tree, options), btrfs(LARGE, &small, options)));
    for (name, disk, large) in std::iter::once(xfs).chain(btrfs) {
        let servers = [NbdServer::qemu(&disk), NbdServer::nbdkit(&disk)];
        row(&format!("{name}, not connected: request to first DATA"), &servers, |server| {
            milliseconds(first_data(server, true))
        });
        row(&format!("64 MiB of {name} in one piece"), &servers, |server| speed(read_file(server, "whole")));
        row(&format!("200 disks of {name}, all serving: memory per disk"), &servers, memory);
        let servers = [NbdServer::qemu(&large), NbdServer::nbdkit(&large)];
        row(&format!("{name} of 1 TiB: connect, open, look up a file"), &servers, |server| {
            milliseconds(open_whole(server))
        });
    }
    let title = "XFS with a log of 64 MiB to replay: connect, open, look up a file";
    if !is_selected(title) {
        return;
    }
    match with_full_log() {
        Ok(disk) => {
            let servers = [NbdServer::qemu(&disk), NbdServer::nbdkit(&disk)];
            row(title, &servers, |server| milliseconds(open_whole(server)));
        }
        Err(reason) => println!("{title}: not measured: {reason}"),
    }
}

/// Builds an XFS with the files of a tree.
fn xfs(size: u64, tree: &Tree) -> Disk {
    let description =
        Tree::new().file("description", format!("/dev/null\n0 0\nd--755 0 0\n{}$\n", describe(tree.path())));
    let description = description.path().join("description").display().to_string();
    Disk::whole(size, FileSystem::Xfs(&["-p", &description]))
}

/// Describes the contents of a directory for `mkfs.xfs` (`mkfs.xfs(8)`, `-p`).
fn describe(directory: &Path) -> String {
    let mut text = String::new();
    for entry in fs::read_dir(directory).expect("a tree") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a name").display();
        match path.is_dir() {
            true => text += &format!("{name} d--755 0 0\n{}$\n", describe(&path)),
            false => text += &format!("{name} ---644 0 0 {}\n", path.display()),
        }
    }
    text
}

/// Builds a btrfs with the files of a tree.
fn btrfs(size: u64, tree: &Tree, options: &[&str]) -> Disk {
    let root = tree.path().display().to_string();
    Disk::whole(size, FileSystem::Btrfs(&[options, &["--rootdir", &root]].concat()))
}

/// Builds an XFS that was not unmounted, with a log of 64 MiB that is as full as Linux lets it become.
fn with_full_log() -> Result<Disk, String> {
    let disk = Disk::whole(2048, FileSystem::Xfs(&["-l", "size=64m"]));
    let mount = KernelMount::new(&disk.path(), &["-t", "xfs"])?;
    for number in 0..LOGGED_FILES {
        let directory = mount.path().join((number / FILES_PER_DIRECTORY).to_string());
        if number % FILES_PER_DIRECTORY == 0 {
            fs::create_dir(&directory).map_err(|error| error.to_string())?;
        }
        fs::write(directory.join(format!("a-file-{number}")), "").map_err(|error| error.to_string())?;
    }
    fs::create_dir(mount.path().join("boot")).map_err(|error| error.to_string())?;
    fs::write(mount.path().join("boot/kernel"), "kernel").map_err(|error| error.to_string())?;
    // Writes the log, and nothing else any more.
    let stopped = Command::new("xfs_io").args(["-x", "-c", "shutdown -f"]).arg(mount.path()).status();
    match stopped {
        Ok(status) if status.success() => {}
        _ => return Err("xfs_io failed".into()),
    }
    drop(mount);
    Ok(disk)
}
