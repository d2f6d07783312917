//! A running machine changes the boot files on its mounted disk, and clients receive the flushed version, never a mixture.

use std::time::{Duration, Instant};

use rtftp_tests::{
    Answer, AppliancePermit, BTRFS_MODULES, Disk, DiskConfig, FileSystem, NbdServer, OwnerMachine, Rtftp, Tree,
    assert_same, noise, raw_client::rrq,
};

/// The maximum time until unflushed changes reach the disk. The owner commits its journal every second.
const COMMIT_LIMIT: Duration = Duration::from_secs(60);

/// The maximum time until a client receives its first answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);

/// The options of ext4 in images for the Raspberry Pi: the journal has no checksums.
const RASPBERRY_PI: [&str; 2] = ["-O", "^64bit,^metadata_csum"];

/// The journaled file systems of a board: partition number and mount options.
const JOURNALED: [(u32, &str); 5] =
    [(2, "-t ext4 -o commit=1"), (3, "-t ext4 -o commit=1"), (5, "-t ext3 -o commit=1"), XFS, BTRFS];
/// Those with a log, which are created empty.
const XFS: (u32, &str) = (6, "-t xfs");
const BTRFS: (u32, &str) = (7, "-t btrfs -o commit=1,compress=zstd,subvol=@");
/// The file system without a journal.
const VFAT: (u32, &str) = (1, "-t vfat");

/// Returns a kernel image; all versions have the same size.
fn kernel(version: u64) -> Vec<u8> {
    noise(700_001, version)
}

/// A running board, its disk, and a daemon that serves each partition to a client of its own, with a new snapshot for each request.
struct Board {
    daemon: Rtftp,
    owner: OwnerMachine,
    /// Dropped after the owner, which would report errors otherwise.
    _server: NbdServer,
    _disk: Disk,
    /// The owner needs as much memory and CPU time as an appliance.
    _permit: AppliancePermit,
}

impl Board {
    #[track_caller]
    fn start(serve: fn(&Disk) -> NbdServer) -> Self {
        let permit = AppliancePermit::acquire();
        let tree = Tree::new().file("boot/vmlinuz", kernel(1)).file("boot/cmdline.txt", "quiet");
        let disk = Disk::mbr(&[
            (1, 40, FileSystem::Vfat(&tree)),
            (2, 32, FileSystem::Ext4(&tree)),
            (3, 32, FileSystem::Ext4With(&tree, &RASPBERRY_PI)),
            (5, 32, FileSystem::Ext("ext3", &tree, &[])),
            (XFS.0, 64, FileSystem::Xfs(&[])),
            (BTRFS.0, 128, FileSystem::Btrfs(&[])),
        ]);
        let server = serve(&disk);
        let mut owner = OwnerMachine::boot_with_modules(&server, &[&["xfs"], &BTRFS_MODULES[..]].concat());
        let subvolume = "mount -t btrfs /dev/vda7 /mnt && btrfs subvolume create /mnt/@ && umount /mnt";
        owner.run(subvolume);
        for (number, options) in JOURNALED.into_iter().chain([VFAT]) {
            owner.run(&format!("mkdir /mnt/{number}; mount {options} /dev/vda{number} /mnt/{number}"));
        }
        owner.run(&format!("cp -r /mnt/2/boot /mnt/{}; cp -r /mnt/2/boot /mnt/{}; sync", XFS.0, BTRFS.0));
        let daemon = Rtftp::start_with("127.0.0.1", 3600, &["--view-gap", "0"]);
        for (number, _) in JOURNALED.into_iter().chain([VFAT]) {
            let config = DiskConfig::new(server.url());
            let config = match number {
                7 => config.device("btrfsvol:/dev/sda7/@", "/"),
                _ => config.partition(number, "/"),
            };
            let config = config.tftp_root("/boot").backend("native");
            daemon.put_disk(&client(number), &config);
        }
        Self { daemon, owner, _server: server, _disk: disk, _permit: permit }
    }

    /// Fetches a file as the client of a partition.
    #[track_caller]
    fn fetch(&self, number: u32, name: &str) -> Result<Vec<u8>, Answer> {
        self.daemon.client(&client(number)).fetch(name, &[("blksize", "1428")])
    }

    /// Asserts that the client of a partition receives `expected`.
    #[track_caller]
    fn assert_served(&self, number: u32, name: &str, expected: &[u8]) {
        match self.fetch(number, name) {
            Ok(got) => assert_same(&got, expected, &format!("{name} of partition {number}")),
            Err(error) => panic!("{name} of partition {number}: {error:?}"),
        }
    }

    /// Runs a script in the boot directory of a partition on the owner.
    #[track_caller]
    fn run_on_owner(&mut self, number: u32, script: &str) {
        self.owner.run(&format!("cd /mnt/{number}/boot; {script}"));
    }

    /// Writes a file of that directory on the owner, without flushing it.
    #[track_caller]
    fn write_on_owner(&mut self, number: u32, name: &str, bytes: &[u8]) {
        self.owner.write(&format!("/mnt/{number}/boot/{name}"), bytes);
    }

    /// Fetches the kernel and runs a script on the owner during the transfer. Returns the result of the transfer.
    #[track_caller]
    fn fetch_while(&mut self, number: u32, script: &str) -> Result<Vec<u8>, Answer> {
        let mut transfer = self.daemon.client(&client(number));
        let first = transfer.request_until_answered(&rrq("vmlinuz", &[("blksize", "1428")]), ANSWER_LIMIT);
        transfer.finish_with(first, |block| {
            if block == 100 {
                self.run_on_owner(number, script);
            }
        })
    }
}

/// Returns the address of the client that is served from a partition.
fn client(number: u32) -> String {
    format!("127.0.1.{number}")
}

#[test]
fn serves_flushed_changes_of_a_mounted_disk() {
    let mut board = Board::start(NbdServer::nbdkit);
    for (number, _) in JOURNALED.into_iter().chain([VFAT]) {
        board.assert_served(number, "vmlinuz", &kernel(1));

        // Like dpkg: write, flush, rename.
        board.write_on_owner(number, "vmlinuz.new", &kernel(2));
        // vfat has no journal: its directory is consistent only after everything was written.
        let flush = if number == VFAT.0 { "sync" } else { "sync ." };
        board.run_on_owner(number, &format!("sync vmlinuz.new; mv vmlinuz.new vmlinuz; {flush}"));
        board.assert_served(number, "vmlinuz", &kernel(2));

        // Like cp: truncate and write. Then overwrite in place.
        board.write_on_owner(number, "vmlinuz", &kernel(3)[..650_000]);
        board.run_on_owner(number, "sync");
        board.assert_served(number, "vmlinuz", &kernel(3)[..650_000]);
        board.owner.write("/tmp/kernel", &kernel(4));
        board.run_on_owner(number, "dd if=/tmp/kernel of=vmlinuz bs=64k conv=notrunc; sync");
        board.assert_served(number, "vmlinuz", &kernel(4));

        assert_eq!(board.fetch(number, "initrd.img").map_err(|error| error.code()), Err(1), "before its creation");
        board.write_on_owner(number, "initrd.img", &kernel(5));
        board.run_on_owner(number, "sync");
        board.assert_served(number, "initrd.img", &kernel(5));

        board.run_on_owner(number, "rm vmlinuz; sync");
        assert_eq!(board.fetch(number, "vmlinuz").map_err(|error| error.code()), Err(1), "after its deletion");
        board.assert_served(number, "cmdline.txt", b"quiet");
    }
    for (number, _) in JOURNALED.into_iter().chain([VFAT]) {
        board.daemon.logged(&[&format!("{}.nbd", client(number)), "in use"]);
    }
}

#[test]
fn fails_transfer_of_a_file_that_changes() {
    let mut board = Board::start(NbdServer::qemu);
    for number in [2, 3, 5, XFS.0, BTRFS.0, VFAT.0] {
        board.write_on_owner(number, "vmlinuz.new", &kernel(2));
        board.run_on_owner(number, "sync");
        match board.fetch_while(number, "mv vmlinuz.new vmlinuz; sync") {
            Err(Answer::Error(0, text)) => assert!(!text.is_empty()),
            other => panic!("replaced on partition {number}: {:?}", other.map(|file| file.len())),
        }
        board.assert_served(number, "vmlinuz", &kernel(2));
    }
    // Overwritten in place, a transfer would mix both versions. Not tested on vfat, whose times have a resolution of two seconds.
    board.owner.write("/tmp/kernel", &kernel(3));
    for number in [2, 3, XFS.0, BTRFS.0] {
        match board.fetch_while(number, "dd if=/tmp/kernel of=vmlinuz bs=64k conv=notrunc; sync") {
            Err(Answer::Error(0, _)) => {}
            other => panic!("overwritten on partition {number}: {:?}", other.map(|file| file.len())),
        }
        board.assert_served(number, "vmlinuz", &kernel(3));
    }
    // Changes of other files do not end a transfer.
    for (number, version) in [(2, 3), (3, 3), (5, 2), (XFS.0, 3), (BTRFS.0, 3), (VFAT.0, 2)] {
        let script = "echo new >cmdline.txt; echo more >more; rm more; dd if=/tmp/kernel of=other bs=64k; sync";
        match board.fetch_while(number, script) {
            Ok(got) => assert_same(&got, &kernel(version), "transfer during a change of another file"),
            Err(error) => panic!("another file changed on partition {number}: {error:?}"),
        }
    }
}

#[test]
fn serves_changes_that_are_only_in_the_journal() {
    let mut board = Board::start(NbdServer::qemu);
    board.owner.disable_writeback();
    let (old, new) = (kernel(1), kernel(2));
    // XFS writes no data of a file that is only renamed, and btrfs commits by a thread that does not wait for it.
    for (number, _) in JOURNALED.into_iter().filter(|mount| ![XFS, BTRFS].contains(mount)) {
        board.write_on_owner(number, "vmlinuz.new", &new);
        board.run_on_owner(number, "mv vmlinuz.new vmlinuz");
        let renamed = Instant::now();
        loop {
            match board.fetch(number, "vmlinuz") {
                Ok(got) if got == new => break,
                Ok(got) => assert_same(&got, &old, "neither the old nor the new kernel"),
                // The journal was committed during the transfer.
                Err(error) => assert_eq!(error.code(), 0, "{error:?}"),
            }
            assert!(renamed.elapsed() < COMMIT_LIMIT, "partition {number}: the new kernel is not served");
        }
    }
    for (number, _) in JOURNALED {
        board.write_on_owner(number, "vmlinuz.new", &kernel(3));
        board.run_on_owner(number, "sync vmlinuz.new; mv vmlinuz.new vmlinuz; sync .");
    }
    board.owner.power_cut();
    for (number, _) in JOURNALED {
        board.assert_served(number, "vmlinuz", &kernel(3));
    }
}
