//! Disks that libguestfs reads: connected in the background, read through the appliance, disconnected when idle.

use std::{
    fs,
    os::unix::fs::FileExt as _,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use rtftp_tests::{
    Answer, AppliancePermit, Disk, DiskConfig, FileSystem, NbdServer, Rtftp, SIZES, Tree, assert_same, board_config,
    board_disk,
    client_programs::{ALL_CLIENT_PROGRAMS, ClientProgram},
    noise, poll_until,
    raw_client::{ack, rrq},
    sparse_image::expand_to,
};

/// The maximum time to start an appliance.
const APPLIANCE_LIMIT: Duration = Duration::from_secs(120);

/// Returns the description of a board's disk with the backend `guestfs`.
fn guestfs_config(server: &NbdServer) -> DiskConfig {
    board_config(server).backend("guestfs")
}

#[test]
fn client_programs_fetch_from_a_connected_disk() {
    let _permit = AppliancePermit::acquire();
    let disk = board_disk(1);
    let server = NbdServer::qemu(&disk);
    let daemon = Rtftp::start_with("127.0.0.1", 15, &["--view-gap", "3600", "--read-limit", "60"]);
    daemon.put("default/only-here", "default");
    daemon.put("default/f1", "never");
    let files = SIZES.map(|(name, size)| (name, size, noise(size, 1)));
    daemon.connect_disk("127.0.0.1", &guestfs_config(&server).tftp_root("/boot"));

    for (name, size, expected) in files {
        // A large file takes seconds, so only some clients fetch it.
        let fetches_large_files =
            |program: &ClientProgram| matches!(program, ClientProgram::AtftpWindows | ClientProgram::CurlLargeBlocks);
        for program in ALL_CLIENT_PROGRAMS.into_iter().filter(|program| size < 1 << 20 || fetches_large_files(program))
        {
            if size > 0 || program.takes_empty_files() {
                let got = program.fetch(&daemon, name).unwrap_or_else(|output| panic!("{program:?}: {output}"));
                assert_same(&got, &expected, &format!("{program:?} {name}"));
            }
        }
    }
    daemon.logged(&["127.0.0.1", "f40m", "127.0.0.1.nbd", "complete"]);
    assert_eq!(daemon.fetch("127.0.0.1", "dir/name").as_deref(), Ok("board 1"));
    assert_eq!(daemon.fetch("127.0.0.1", "\\dir\\name").as_deref(), Ok("board 1"));
    assert_eq!(daemon.fetch("127.0.0.1", "only-here").as_deref(), Ok("default"), "a file that is not on the disk");
    assert_eq!(daemon.fetch("127.0.0.1", "nowhere"), Err(1));
    assert_eq!(daemon.fetch("127.0.0.1", "dir"), Err(2), "a directory is not a file");
    assert_eq!(daemon.fetch("127.0.0.1", "../etc/shadow"), Err(2));
    assert_eq!(daemon.fetch("127.0.0.8", "dir/name"), Err(1), "another client has no disk");

    // Without requests, the disk is disconnected; the next request connects it again.
    daemon.wait_for_disk("127.0.0.1", "disconnected after");
    poll_until("the end of the appliance", Duration::from_secs(10), || daemon.descendants().is_empty().then_some(()));
    assert_eq!(daemon.fetch("127.0.0.1", "dir/name").as_deref(), Ok("board 1"));
}

#[test]
fn each_board_has_its_own_disk() {
    let (_one, _two) = (AppliancePermit::acquire(), AppliancePermit::acquire());
    // As in cloud images: partitions 14 and 15 are in front of partition 1, and 14 has no file system.
    let (first, second) = (Tree::new().file("which", "gpt"), Tree::new().file("efi", "efi").file("only", "first"));
    let gpt = Disk::gpt(&[
        (14, 4, FileSystem::Nothing),
        (15, 36, FileSystem::Vfat(&second)),
        (1, 16, FileSystem::Ext4(&first.directory("boot/efi").directory("mnt"))),
        (2, 32, FileSystem::Nothing),
    ]);
    let btrfs = expand_to(include_bytes!("../../fuzz/images/btrfs"), 32 << 20);
    let image = fs::File::options().write(true).open(gpt.path()).expect("the image");
    image.write_all_at(&btrfs, (1 + 4 + 36 + 16) << 20).expect("space in partition 2");
    let disk = board_disk(2);
    let (unix, tcp) = (NbdServer::unix(&gpt), NbdServer::nbdkit(&disk));
    let daemon = Rtftp::start_with("127.0.0.1", 3600, &["--view-gap", "3600"]);
    let gpt_config = DiskConfig::new(unix.url()).backend("guestfs").partition(1, "/").partition(15, "/boot/efi");
    let gpt_config = gpt_config.subvolume(2, "@/nested", "/mnt");
    daemon.put_disk("127.0.0.7", &gpt_config);
    daemon.put_disk("127.0.0.70", &guestfs_config(&tcp).tftp_root("/srv"));
    daemon.wait_for_disk("127.0.0.7", " connected");
    daemon.wait_for_disk("127.0.0.70", " connected");

    assert_eq!(daemon.fetch("127.0.0.7", "which").as_deref(), Ok("gpt"));
    assert_eq!(daemon.fetch("127.0.0.7", "boot/efi/efi").as_deref(), Ok("efi"));
    assert_eq!(daemon.fetch("127.0.0.7", "mnt/file").as_deref(), Ok("nested\n"), "a subvolume");
    assert_eq!(daemon.fetch("127.0.0.7", "inside"), Err(1), "a file of the other board's disk");
    assert_eq!(daemon.fetch("127.0.0.70", "boot/efi/only"), Err(1), "a file of the other board's disk");

    // Links are resolved relative to the virtual root and cannot leave it.
    for name in ["inside", "near", "absolute"] {
        assert_eq!(daemon.fetch("127.0.0.70", name).as_deref(), Ok("inside"), "{name}");
    }
    for name in ["up", "escape", "escape2", "loop", "../etc/shadow", "..", "/etc/shadow", "near/../../etc/shadow"] {
        match daemon.fetch("127.0.0.70", name) {
            Err(1 | 2) => {}
            Ok(file) if name == "up" && file == "inside" => {}
            other => panic!("{name}: {other:?}"),
        }
    }

    // Removing a description removes the disk. A dead NBD server causes ERROR 0, not "file not found".
    daemon.put("default/local", "local");
    daemon.put("default/f40m", "never");
    fs::remove_file(daemon.path("127.0.0.7.nbd")).expect("remove");
    daemon.wait_for_disk("127.0.0.7", "removed");
    assert_eq!(daemon.fetch("127.0.0.7", "which"), Err(1), "without a description");
    drop(tcp);
    daemon.put_disk("127.0.0.70", &guestfs_config(&NbdServer::nbdkit(&disk)).tftp_root("/boot"));
    let requested = Instant::now();
    assert_eq!(daemon.fetch("127.0.0.70", "f40m"), Err(0), "a dead server, before or after the connection");
    assert!(requested.elapsed() < APPLIANCE_LIMIT);
    assert_eq!(daemon.fetch("127.0.0.9", "local").as_deref(), Ok("local"));
}

#[test]
fn first_request_connects_a_disk_that_needs_libguestfs() {
    let _permit = AppliancePermit::acquire();
    let tree = Tree::new().file("boot/kernel", "kernel").file("boot/late", "late").link("current", "boot");
    let disk = Disk::whole(128, FileSystem::F2fs(&tree));
    let server = NbdServer::qemu(&disk);
    let daemon = Rtftp::start_with("127.0.0.1", 3600, &["--monitor-configs", "false"]);
    daemon.put("default/local", "local");
    daemon.put_disk("127.0.0.7", &DiskConfig::new(server.url()).device("/dev/sda", "/").tftp_root("/current"));
    assert_eq!(daemon.fetch("127.0.0.8", "local").as_deref(), Ok("local"));
    assert!(daemon.log_lines(&["127.0.0.7.nbd", "connect"]).is_empty(), "no request for the disk yet");

    // The client repeats its request while the disk connects: one transfer, answered from one port.
    let mut client = daemon.client("127.0.0.7");
    let first = client.request_until_answered(&rrq("kernel", &[]), APPLIANCE_LIMIT);
    assert_eq!(first, Answer::Data(1, b"kernel".into()));
    let transfer = client.peer();
    assert_eq!(client.finish(first).as_deref(), Ok(&b"kernel"[..]));
    daemon.logged(&["127.0.0.7.nbd", "F2FS is not supported natively; using libguestfs"]);
    daemon.logged(&["127.0.0.7", "kernel", "127.0.0.7.nbd", "complete"]);
    assert_eq!(client.peer(), transfer);
    assert_eq!(client.receive_within(Duration::from_millis(300)), None, "the repeated requests are ignored");
    assert_eq!(daemon.log_lines(&["127.0.0.7", "kernel", "complete"]).len(), 1);
    assert_eq!(daemon.log_lines(&["127.0.0.7.nbd", " connected"]).len(), 1);

    // After SIGKILL of the daemon, its helper and the appliance must end.
    assert!(!daemon.descendants().is_empty(), "an appliance runs");
    daemon.kill();
}

/// Returns one of the two members of a RAID 1 (md, metadata 1.2), which contains a file system.
fn raid_member(tree: &Tree) -> Disk {
    const DATA: usize = 1 << 20;
    let volume = fs::read(Disk::whole(16, FileSystem::Ext4(tree)).path()).expect("an image");
    // `struct mdp_superblock_1` in the kernel's include/uapi/linux/raid/md_p.h.
    let mut superblock = [0; 260];
    let mut put = |at: usize, bytes: &[u8]| superblock[at..][..bytes.len()].copy_from_slice(bytes);
    let sectors = (volume.len() as u64 / 512).to_le_bytes();
    put(0, &0xa92b_4efc_u32.to_le_bytes());
    put(4, &1u32.to_le_bytes());
    put(16, b"UUID of an array");
    put(32, b"board:0");
    put(72, &1u32.to_le_bytes());
    put(80, &sectors);
    put(92, &2u32.to_le_bytes());
    put(128, &(DATA as u64 / 512).to_le_bytes());
    put(136, &sectors);
    put(144, &8u64.to_le_bytes());
    put(168, b"UUID of a member");
    put(200, &1u64.to_le_bytes());
    put(208, &u64::MAX.to_le_bytes());
    put(220, &2u32.to_le_bytes());
    put(258, &1u16.to_le_bytes());
    let words = superblock.as_chunks().0.iter().map(|word| u64::from(u32::from_le_bytes(*word)));
    let sum: u64 = words.sum();
    superblock[216..220].copy_from_slice(&((sum + (sum >> 32)) as u32).to_le_bytes());
    let mut member = vec![0; DATA];
    member[4096..][..superblock.len()].copy_from_slice(&superblock);
    member.extend_from_slice(&volume);
    Disk::raw(&member)
}

#[test]
fn reads_a_raid_of_which_only_one_member_is_there() {
    let _permit = AppliancePermit::acquire();
    let disk = raid_member(&Tree::new().file("boot/kernel", "kernel"));
    let server = NbdServer::nbdkit(&disk);
    let daemon = Rtftp::start_with("127.0.0.1", 3600, &[]);
    daemon.connect_disk("127.0.0.7", &DiskConfig::new(server.url()).device("/dev/md127", "/").tftp_root("/boot"));
    daemon.logged(&["127.0.0.7.nbd", "device /dev/md127 is not supported natively; using libguestfs"]);
    assert_eq!(daemon.fetch("127.0.0.7", "kernel").as_deref(), Ok("kernel"));
}

#[test]
fn unresponsive_disk_fails_transfers_within_the_time_limit() {
    let _permit = AppliancePermit::acquire();
    let disk = board_disk(3);
    let server = NbdServer::nbdkit(&disk);
    let daemon = Rtftp::start_with("127.0.0.1", 3600, &["--read-limit", "5", "--view-gap", "3600"]);
    daemon.put("default/local", "local");
    daemon.put("default/f40m", "never");
    daemon.connect_disk("127.0.0.7", &guestfs_config(&server).tftp_root("/boot"));
    let mut client = daemon.client("127.0.0.7");
    assert_eq!(client.exchange(&rrq("f40m", &[])).block(), 1);
    server.process().signal(Signal::SIGSTOP);
    let stopped = Instant::now();
    let mut other = daemon.client("127.0.0.9");
    for _ in 0..10 {
        let requested = Instant::now();
        assert_eq!(other.fetch("local", &[]).as_deref(), Ok(&b"local"[..]));
        assert!(requested.elapsed() < Duration::from_secs(2), "another client waits for the stopped server");
    }
    // Cached blocks may still be served, until a block must be read from the server.
    let mut block = 1;
    let code = loop {
        client.reply(&ack(block));
        match client.receive_within(APPLIANCE_LIMIT).expect("DATA or ERROR") {
            Answer::Data(number, _) => block = number,
            answer => break answer.code(),
        }
    };
    assert_eq!(code, 0);
    assert!(stopped.elapsed() < APPLIANCE_LIMIT, "{:?}", stopped.elapsed());
    assert_eq!(daemon.fetch("127.0.0.9", "local").as_deref(), Ok("local"));
}
