//! Files from disks that libguestfs reads: connected in the background, read through the appliance, let go again.

use std::{
    fs,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use rtftp_tests::{
    Answer, Appliance, Disk, DiskConfig, FileSystem, NbdServer, Rtftp, SIZES, Tree, assert_same, board_config,
    board_disk,
    client_programs::{ALL_CLIENT_PROGRAMS, ClientProgram},
    noise, poll_until,
    raw_client::{ack, rrq},
};

/// How long a client may have to wait for the start of an appliance.
const START: Duration = Duration::from_secs(120);

/// How the disk of a board is mounted in an appliance.
fn in_appliance(server: &NbdServer) -> DiskConfig {
    board_config(server).backend("guestfs")
}

#[test]
fn real_clients_fetch_from_a_disk_that_was_connected_in_the_background() {
    let _slot = Appliance::permit();
    let disk = board_disk(1);
    let server = NbdServer::qemu(&disk);
    let daemon = Rtftp::with("127.0.0.1", 15, &["--view-gap", "3600"]);
    daemon.put("default/only-here", "default");
    daemon.put("default/f1", "never");
    let files = SIZES.map(|(name, size)| (name, size, noise(size, 1)));
    daemon.connect_disk("127.0.0.1", &in_appliance(&server).tftp_root("/boot"));

    for (name, size, expected) in files {
        // Each large file takes seconds: one client with small blocks and one with large ones will do.
        let large = |tool: &ClientProgram| {
            matches!(tool, ClientProgram::TftpHpa | ClientProgram::AtftpWindows | ClientProgram::CurlLargeBlocks)
        };
        for tool in ALL_CLIENT_PROGRAMS.into_iter().filter(|tool| size < 1 << 20 || large(tool)) {
            if size > 0 || tool.takes_empty_files() {
                let got = tool.fetch(&daemon, name).unwrap_or_else(|said| panic!("{tool:?}: {said}"));
                assert_same(&got, &expected, &format!("{tool:?} {name}"));
            }
        }
    }
    daemon.logged(&["127.0.0.1", "f40m", "127.0.0.1.nbd", "complete"]);
    assert_eq!(daemon.fetch("127.0.0.1", "dir/name").as_deref(), Ok("board 1"));
    assert_eq!(daemon.fetch("127.0.0.1", "\\dir\\name").as_deref(), Ok("board 1"));
    assert_eq!(daemon.fetch("127.0.0.1", "only-here").as_deref(), Ok("default"), "not on the disk: falls through");
    assert_eq!(daemon.fetch("127.0.0.1", "nowhere"), Err(1));
    assert_eq!(daemon.fetch("127.0.0.1", "dir"), Err(2), "a directory is not a file");
    assert_eq!(daemon.fetch("127.0.0.1", "../etc/shadow"), Err(2));
    assert_eq!(daemon.fetch("127.0.0.8", "dir/name"), Err(1), "another client has no disk");

    // Nobody asks any more: the disk is let go, and comes back by itself with the next request.
    daemon.wait_for_disk("127.0.0.1", "let go");
    poll_until("the end of the appliance", Duration::from_secs(10), || daemon.descendants().is_empty().then_some(()));
    assert_eq!(daemon.fetch("127.0.0.1", "dir/name").as_deref(), Ok("board 1"));
}

#[test]
fn two_boards_have_two_disks() {
    let (_one, _two) = (Appliance::permit(), Appliance::permit());
    // As cloud images have them: the numbers 14 and 15 lie before 1, and the first has no file system.
    let (first, second) = (Tree::new().file("which", "gpt"), Tree::new().file("efi", "efi").file("only", "first"));
    let gpt = Disk::gpt(&[
        (14, 4, FileSystem::Nothing),
        (15, 36, FileSystem::Vfat(&second)),
        (1, 16, FileSystem::Ext4(&first.directory("boot/efi"))),
    ]);
    let disk = board_disk(2);
    let (unix, tcp) = (NbdServer::unix(&gpt), NbdServer::nbdkit(&disk));
    let daemon = Rtftp::with("127.0.0.1", 3600, &["--view-gap", "3600"]);
    let of_first = DiskConfig::new(unix.url()).backend("guestfs").partition(1, "/").partition(15, "/boot/efi");
    daemon.put_disk("127.0.0.7", &of_first);
    daemon.put_disk("127.0.0.70", &in_appliance(&tcp).tftp_root("/srv"));
    daemon.wait_for_disk("127.0.0.7", " connected");
    daemon.wait_for_disk("127.0.0.70", " connected");

    assert_eq!(daemon.fetch("127.0.0.7", "which").as_deref(), Ok("gpt"));
    assert_eq!(daemon.fetch("127.0.0.7", "boot/efi/efi").as_deref(), Ok("efi"));
    assert_eq!(daemon.fetch("127.0.0.7", "inside"), Err(1), "this is on the other board's disk");
    assert_eq!(daemon.fetch("127.0.0.70", "boot/efi/only"), Err(1), "this too");

    // Links are followed inside the virtual root, where `/` is that root, and never out of it.
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

    // A board loses its disk: its description is removed. Another's server dies: that is never "not found".
    daemon.put("default/local", "local");
    daemon.put("default/f40m", "never");
    fs::remove_file(daemon.path("127.0.0.7.nbd")).expect("remove");
    daemon.wait_for_disk("127.0.0.7", "removed");
    assert_eq!(daemon.fetch("127.0.0.7", "which"), Err(1), "the board has no disk any more");
    drop(tcp);
    daemon.put_disk("127.0.0.70", &in_appliance(&NbdServer::nbdkit(&disk)).tftp_root("/boot"));
    let asked = Instant::now();
    assert_eq!(daemon.fetch("127.0.0.70", "f40m"), Err(0), "its server is gone, before or after the connection");
    assert!(asked.elapsed() < START);
    assert_eq!(daemon.fetch("127.0.0.9", "local").as_deref(), Ok("local"));
}

#[test]
fn a_disk_that_only_libguestfs_reads_is_opened_by_the_first_request() {
    let _slot = Appliance::permit();
    let tree = Tree::new().file("boot/kernel", "kernel").file("boot/late", "late").link("current", "boot");
    let disk = Disk::whole(128, FileSystem::Btrfs(&tree));
    let server = NbdServer::qemu(&disk);
    let daemon = Rtftp::with("127.0.0.1", 3600, &["--monitor-configs", "false"]);
    daemon.put("default/local", "local");
    daemon.put_disk("127.0.0.7", &DiskConfig::new(server.url()).device("/dev/sda", "/").tftp_root("/current"));
    assert_eq!(daemon.fetch("127.0.0.8", "local").as_deref(), Ok("local"));
    assert!(daemon.log_lines(&["127.0.0.7.nbd", "connect"]).is_empty(), "nobody has asked for the disk yet");

    // The client repeats itself while the disk opens; that is one transfer, answered from one port.
    let mut client = daemon.client("127.0.0.7");
    let first = client.request_until_answered(&rrq("kernel", &[]), START);
    assert_eq!(first, Answer::Data(1, b"kernel".into()));
    let transfer = client.peer();
    assert_eq!(client.finish(first).as_deref(), Ok(&b"kernel"[..]));
    daemon.logged(&["127.0.0.7.nbd", "btrfs is not supported natively; libguestfs is asked"]);
    daemon.logged(&["127.0.0.7", "kernel", "127.0.0.7.nbd", "complete"]);
    assert_eq!(client.peer(), transfer);
    assert_eq!(client.receive_within(Duration::from_millis(300)), None, "the repeated requests were absorbed");
    assert_eq!(daemon.log_lines(&["127.0.0.7", "kernel", "complete"]).len(), 1);
    assert_eq!(daemon.log_lines(&["127.0.0.7.nbd", " connected"]).len(), 1);

    // The daemon is killed in the worst way: its helper and the appliance must not stay.
    assert!(!daemon.descendants().is_empty(), "an appliance runs");
    daemon.kill();
}

#[test]
fn a_disk_that_stops_answering_is_an_error_in_bounded_time() {
    let _slot = Appliance::permit();
    let disk = board_disk(3);
    let server = NbdServer::nbdkit(&disk);
    let daemon = Rtftp::with("127.0.0.1", 3600, &["--read-limit", "5", "--view-gap", "3600"]);
    daemon.put("default/local", "local");
    daemon.put("default/f40m", "never");
    daemon.connect_disk("127.0.0.7", &in_appliance(&server).tftp_root("/boot"));
    let mut client = daemon.client("127.0.0.7");
    assert_eq!(client.ask(&rrq("f40m", &[])).block(), 1);
    server.process().signal(Signal::SIGSTOP);
    let stopped = Instant::now();
    let mut other = daemon.client("127.0.0.9");
    for _ in 0..10 {
        let asked = Instant::now();
        assert_eq!(other.fetch("local", &[]).as_deref(), Ok(&b"local"[..]));
        assert!(asked.elapsed() < Duration::from_secs(2), "another client waits for a stopped disk");
    }
    // What is cached may still be served; sooner or later a block must come from the server.
    let mut block = 1;
    let code = loop {
        client.reply(&ack(block));
        match client.receive_within(START).expect("an answer, at last an ERROR") {
            Answer::Data(number, _) => block = number,
            answer => break answer.code(),
        }
    };
    assert_eq!(code, 0);
    assert!(stopped.elapsed() < START, "{:?}", stopped.elapsed());
    assert_eq!(daemon.fetch("127.0.0.9", "local").as_deref(), Ok("local"));
}
