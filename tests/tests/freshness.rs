//! The promise that matters: the machine that a disk belongs to changes its boot files, and is served what it has written.

use std::time::{Duration, Instant};

use rtftp_tests::{
    Answer, Appliance, Disk, DiskConfig, FileSystem, NbdServer, OwnerMachine, Rtftp, Tree, assert_same, noise,
    raw_client::rrq,
};

/// How long what an owner has not flushed may take to be on its disk: its journal is committed every second.
const COMMITTED: Duration = Duration::from_secs(60);

/// How long a client may have to wait for its first answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// ext4 as scripts for the Raspberry Pi make it: its journal is one without checksums.
const RASPBERRY_PI: [&str; 2] = ["-O", "^64bit,^metadata_csum"];

/// The file systems of a board that have a journal: the number of the partition, and how its owner mounts it.
const JOURNALED: [(u32, &str); 3] =
    [(2, "-t ext4 -o commit=1"), (3, "-t ext4 -o commit=1"), (5, "-t ext3 -o commit=1")];
/// And one that has none.
const VFAT: (u32, &str) = (1, "-t vfat");

/// A kernel; those of different versions have the same size.
fn kernel(version: u64) -> Vec<u8> {
    noise(700_001, version)
}

/// A board that runs, its disk, and a daemon that serves every partition of it, to a client of its own, with a view a request.
struct Board {
    daemon: Rtftp,
    owner: OwnerMachine,
    /// Is killed after the owner, which would complain otherwise.
    _server: NbdServer,
    _disk: Disk,
    /// A machine takes a processor and memory, as an appliance does.
    _slot: Appliance,
}

impl Board {
    #[track_caller]
    fn start(serve: fn(&Disk) -> NbdServer) -> Self {
        let slot = Appliance::permit();
        let tree = Tree::new().file("boot/vmlinuz", kernel(1)).file("boot/cmdline.txt", "quiet");
        let disk = Disk::mbr(&[
            (1, 40, FileSystem::Vfat(&tree)),
            (2, 32, FileSystem::Ext4(&tree)),
            (3, 32, FileSystem::Ext4With(&tree, &RASPBERRY_PI)),
            (5, 32, FileSystem::Ext("ext3", &tree, &[])),
        ]);
        let server = serve(&disk);
        let mut owner = OwnerMachine::boot(&server);
        for (number, options) in JOURNALED.into_iter().chain([VFAT]) {
            owner.run(&format!("mkdir /mnt/{number}; mount {options} /dev/vda{number} /mnt/{number}"));
        }
        let daemon = Rtftp::with("127.0.0.1", 3600, &["--view-gap", "0"]);
        for (number, _) in JOURNALED.into_iter().chain([VFAT]) {
            let config = DiskConfig::new(server.url()).partition(number, "/").tftp_root("/boot").backend("native");
            daemon.put_disk(&client(number), &config);
        }
        Self { daemon, owner, _server: server, _disk: disk, _slot: slot }
    }

    /// What the client of a partition gets.
    #[track_caller]
    fn fetch(&self, number: u32, name: &str) -> Result<Vec<u8>, Answer> {
        self.daemon.client(&client(number)).fetch(name, &[("blksize", "1428")])
    }

    /// Asserts that the client of a partition gets these bytes.
    #[track_caller]
    fn assert_served(&self, number: u32, name: &str, expected: &[u8]) {
        match self.fetch(number, name) {
            Ok(got) => assert_same(&got, expected, &format!("{name} of partition {number}")),
            Err(error) => panic!("{name} of partition {number}: {error:?}"),
        }
    }

    /// Runs a script in the boot directory of a partition.
    #[track_caller]
    fn owner_runs(&mut self, number: u32, script: &str) {
        self.owner.run(&format!("cd /mnt/{number}/boot; {script}"));
    }

    /// Writes a file of that directory, without flushing it.
    #[track_caller]
    fn owner_writes(&mut self, number: u32, name: &str, bytes: &[u8]) {
        self.owner.write(&format!("/mnt/{number}/boot/{name}"), bytes);
    }

    /// Fetches the kernel, runs a script in the middle of the transfer, goes on; returns what comes of the transfer.
    #[track_caller]
    fn fetch_while(&mut self, number: u32, script: &str) -> Result<Vec<u8>, Answer> {
        let mut transfer = self.daemon.client(&client(number));
        let first = transfer.request_until_answered(&rrq("vmlinuz", &[("blksize", "1428")]), PATIENCE);
        transfer.finish_with(first, |block| {
            if block == 100 {
                self.owner_runs(number, script);
            }
        })
    }
}

/// The client whose disk has this partition for its boot files.
fn client(number: u32) -> String {
    format!("127.0.1.{number}")
}

#[test]
fn a_board_that_stays_mounted_is_served_what_it_has_flushed() {
    let mut board = Board::start(NbdServer::nbdkit);
    for (number, _) in JOURNALED.into_iter().chain([VFAT]) {
        board.assert_served(number, "vmlinuz", &kernel(1));

        // As dpkg does it.
        board.owner_writes(number, "vmlinuz.new", &kernel(2));
        // vfat has no journal, so that its directory is whole only after everything was written.
        let flush = if number == VFAT.0 { "sync" } else { "sync ." };
        board.owner_runs(number, &format!("sync vmlinuz.new; mv vmlinuz.new vmlinuz; {flush}"));
        board.assert_served(number, "vmlinuz", &kernel(2));

        // As cp does it, and in place.
        board.owner_writes(number, "vmlinuz", &kernel(3)[..650_000]);
        board.owner_runs(number, "sync");
        board.assert_served(number, "vmlinuz", &kernel(3)[..650_000]);
        board.owner.write("/tmp/kernel", &kernel(4));
        board.owner_runs(number, "dd if=/tmp/kernel of=vmlinuz bs=64k conv=notrunc; sync");
        board.assert_served(number, "vmlinuz", &kernel(4));

        assert_eq!(board.fetch(number, "initrd.img").map_err(|error| error.code()), Err(1), "not there yet");
        board.owner_writes(number, "initrd.img", &kernel(5));
        board.owner_runs(number, "sync");
        board.assert_served(number, "initrd.img", &kernel(5));

        board.owner_runs(number, "rm vmlinuz; sync");
        assert_eq!(board.fetch(number, "vmlinuz").map_err(|error| error.code()), Err(1), "not there any more");
        board.assert_served(number, "cmdline.txt", b"quiet");
    }
    for (number, _) in JOURNALED.into_iter().chain([VFAT]) {
        board.daemon.logged(&[&format!("{}.nbd", client(number)), "in use"]);
    }
}

#[test]
fn no_transfer_of_a_file_that_changes_is_ever_completed() {
    let mut board = Board::start(NbdServer::qemu);
    for number in [2, 3, 5, VFAT.0] {
        board.owner_writes(number, "vmlinuz.new", &kernel(2));
        board.owner_runs(number, "sync");
        match board.fetch_while(number, "mv vmlinuz.new vmlinuz; sync") {
            Err(Answer::Error(0, text)) => assert!(!text.is_empty()),
            other => panic!("replaced on partition {number}: {:?}", other.map(|file| file.len())),
        }
        board.assert_served(number, "vmlinuz", &kernel(2));
    }
    // In place, the transfer holds bytes of both. vfat can hide that: it knows times to two seconds only.
    board.owner.write("/tmp/kernel", &kernel(3));
    for number in [2, 3] {
        match board.fetch_while(number, "dd if=/tmp/kernel of=vmlinuz bs=64k conv=notrunc; sync") {
            Err(Answer::Error(0, _)) => {}
            other => panic!("overwritten on partition {number}: {:?}", other.map(|file| file.len())),
        }
        board.assert_served(number, "vmlinuz", &kernel(3));
    }
    // What happens to other files is no reason to end a transfer.
    for (number, version) in [(2, 3), (3, 3), (5, 2), (VFAT.0, 2)] {
        let script = "echo new >cmdline.txt; echo more >more; rm more; dd if=/tmp/kernel of=other bs=64k; sync";
        match board.fetch_while(number, script) {
            Ok(got) => assert_same(&got, &kernel(version), "a transfer while another file changes"),
            Err(error) => panic!("another file changed on partition {number}: {error:?}"),
        }
    }
}

#[test]
fn what_nothing_but_the_journal_holds_is_served() {
    let mut board = Board::start(NbdServer::qemu);
    board.owner.disable_writeback();
    let (old, new) = (kernel(1), kernel(2));
    for (number, _) in JOURNALED {
        board.owner_writes(number, "vmlinuz.new", &new);
        board.owner_runs(number, "mv vmlinuz.new vmlinuz");
        let renamed = Instant::now();
        loop {
            match board.fetch(number, "vmlinuz") {
                Ok(got) if got == new => break,
                Ok(got) => assert_same(&got, &old, "neither the old kernel nor the new one"),
                // The journal was committed in the middle of the transfer.
                Err(error) => assert_eq!(error.code(), 0, "{error:?}"),
            }
            assert!(renamed.elapsed() < COMMITTED, "partition {number}: the new kernel is never served");
        }
    }
    for (number, _) in JOURNALED {
        board.owner_writes(number, "vmlinuz.new", &kernel(3));
        board.owner_runs(number, "sync vmlinuz.new; mv vmlinuz.new vmlinuz; sync .");
    }
    board.owner.power_cut();
    for (number, _) in JOURNALED {
        board.assert_served(number, "vmlinuz", &kernel(3));
    }
}
