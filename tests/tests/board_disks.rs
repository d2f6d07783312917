//! Whether a board came up after its boot, as its disk shows it: a real kernel mounts the disk, and the daemon looks at it.

use std::{fs, os::unix::fs::FileExt as _, time::Duration};

use rtftp_runtime::history::snapshot::{BoardState, Client, MountState, Snapshot};
use rtftp_tests::{
    AppliancePermit, BTRFS_MODULES, Disk, DiskConfig, FileSystem, NbdServer, OwnerMachine, Rtftp, Tree, poll_until,
    run_with_bad_arguments,
};
use tempfile::TempDir;

const BOARD: &str = "127.0.0.5";

/// The maximum time until a look shows what has happened. A busy machine is slow.
const LIMIT: Duration = Duration::from_secs(60);

/// A daemon, and the disk of a board: FAT with the kernel, ext4, XFS and btrfs.
struct Board {
    daemon: Rtftp,
    server: NbdServer,
    disk: Disk,
    /// The path of the status socket.
    socket: String,
    _directory: TempDir,
}

impl Board {
    #[track_caller]
    fn new() -> Self {
        let tree = Tree::new().file("config.txt", "kernel=kernel8.img\n").file("kernel8.img", [7; 200_000]);
        let disk = Disk::mbr(&[
            (1, 40, FileSystem::Vfat(&tree)),
            (2, 32, FileSystem::Ext4(&Tree::new())),
            (3, 64, FileSystem::Xfs(&[])),
            (4, 128, FileSystem::Btrfs(&[])),
        ]);
        let server = NbdServer::qemu(&disk);
        let directory = TempDir::new().expect("a temporary directory");
        let socket = directory.path().join("status").to_str().expect("UTF-8").to_owned();
        let daemon = Rtftp::start_with("127.0.0.1", 60, &["--status-socket", &socket]);
        daemon.put_disk(BOARD, &DiskConfig::new(server.url()).partition(1, "/"));
        Self { daemon, server, disk, socket, _directory: directory }
    }

    /// Starts the machine that has the disk. Its boot files it does not load itself.
    #[track_caller]
    fn machine(&self) -> OwnerMachine {
        OwnerMachine::boot_with_modules(&self.server, &[&["xfs"], &BTRFS_MODULES[..]].concat())
    }

    /// Loads the boot files.
    #[track_caller]
    fn load(&self, from: &str) {
        for name in ["config.txt", "kernel8.img"] {
            self.daemon.client(from).fetch(name, &[("blksize", "1428")]).expect(name);
        }
    }

    /// Loads the boot files, runs a command on the machine, and waits for the line that says this of the disk.
    #[track_caller]
    fn assert_boot_shows(&self, machine: &mut OwnerMachine, command: &str, text: &str) {
        let words = format!("{BOARD} after kernel8.img: {text} within");
        let count = self.daemon.log_lines(&[&words]).len();
        self.load(BOARD);
        machine.run(command);
        let is_new = |_: &str| self.daemon.log_lines(&[&words]).len() > count;
        self.daemon.wait_for(text, LIMIT, is_new);
    }

    /// Returns the first bytes of the partition with ext4.
    fn superblock(&self) -> Vec<u8> {
        let mut bytes = vec![0; 4096];
        let file = fs::File::open(self.disk.path()).expect("an image");
        file.read_exact_at(&mut bytes, 41 << 20).expect("read");
        bytes
    }

    #[track_caller]
    fn status(&self, arguments: &[&str]) -> String {
        let output = run_with_bad_arguments([&["status", "--once", "--socket", &self.socket], arguments].concat());
        String::from_utf8(output.stdout).expect("text")
    }

    #[track_caller]
    fn board(&self, address: &str) -> Client {
        let snapshot: Snapshot = serde_json::from_str(&self.status(&["--json"])).expect("JSON");
        snapshot.clients.into_iter().find(|client| client.client == address).expect("the board")
    }
}

#[test]
fn mounts_of_each_file_system_are_seen() {
    let _permit = AppliancePermit::acquire();
    let board = Board::new();
    let mut machine = board.machine();
    let before = board.superblock();
    machine.run("mkdir /mnt/1 /mnt/2 /mnt/3 /mnt/4; mount -o ro /dev/vda2 /mnt/2 && sync");
    assert!(board.superblock() == before, "a read-only mount writes nothing");
    board.assert_boot_shows(&mut machine, "mount -o remount,rw /mnt/2", "ext4 on partition 2 mounted");
    let client = board.board(BOARD);
    assert!(client.status.contains("kernel8.img complete; ext4 on partition 2 mounted within "), "{}", client.status);
    assert_eq!(client.boots[0].mount.as_ref().map(|mount| mount.state), Some(MountState::Mounted));
    let shown = board.status(&[BOARD]);
    assert!(shown.contains("\n  then         ext4 on partition 2 mounted within "), "{shown}");
    board.assert_boot_shows(&mut machine, "mount -t vfat /dev/vda1 /mnt/1", "FAT16 on partition 1 mounted");
    let write = "mount -t xfs /dev/vda3 /mnt/3 && echo a >/mnt/3/a && sync";
    board.assert_boot_shows(&mut machine, write, "XFS on partition 3 written");
    let write = "mount -t btrfs /dev/vda4 /mnt/4 && echo a >/mnt/4/a && sync";
    board.assert_boot_shows(&mut machine, write, "btrfs on partition 4 written");
    // With the bit of FAT set, and the clock where it was.
    machine.power_cut();
    let mut machine = board.machine();
    board.assert_boot_shows(&mut machine, "mount -t ext4 /dev/vda2 /mnt", "ext4 on partition 2 mounted");
}

#[test]
fn nothing_is_claimed_of_a_disk_that_several_boards_have() {
    let board = Board::new();
    let other = "127.0.0.6";
    board.daemon.put_disk(other, &DiskConfig::new(board.server.url()).partition(1, "/"));
    board.load(other);
    board.load(BOARD);
    let mounts = || {
        let mut boards = [BOARD, other].into_iter().map(|address| board.board(address).boots.remove(0).mount);
        Some([boards.next()??, boards.next()??])
    };
    let mounts = poll_until("results", LIMIT, mounts);
    for mount in mounts {
        assert_eq!((mount.state, mount.text.as_str()), (MountState::Unknown, "several boards may use the disk"));
    }
    assert!(board.board(BOARD).status.ends_with("kernel8.img complete"));
    let shown = board.status(&[BOARD]);
    assert!(shown.contains("not known whether the board came up: several boards may use the disk"), "{shown}");
}

#[test]
#[ignore = "takes 5 min"]
fn a_board_that_does_not_come_up_is_named() {
    let _permit = AppliancePermit::acquire();
    let board = Board::new();
    let unmounted = "ext4 on partition 2 not mounted read-write, XFS on partition 3 not written";
    let wait = |text: &str| drop(board.daemon.wait_for(text, 3 * LIMIT, |line| line.contains(text)));
    // As with an overlay on a root that is never mounted read-write: nothing to report.
    let mut machine = board.machine();
    board.load(BOARD);
    machine.run("mkdir /mnt/2; mount -o ro /dev/vda2 /mnt/2");
    wait(unmounted);
    assert_eq!(board.board(BOARD).state, BoardState::Booted);
    board.assert_boot_shows(&mut machine, "mount -o remount,rw /mnt/2", "ext4 on partition 2 mounted");
    // The kernel does not find its disk.
    machine.power_cut();
    board.load(BOARD);
    wait("ext4 on partition 2 not mounted again");
    assert_eq!(board.board(BOARD).state, BoardState::Unmounted);
    let shown = board.status(&[]);
    assert!(shown.contains("0 of 1 board booted") && shown.contains(", 1 not mounted"), "{shown}");
}
