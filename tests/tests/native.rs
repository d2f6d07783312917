//! Files on disks that the daemon reads natively: current for every boot, complete or an error, whatever the NBD server does.

use std::{
    fs,
    io::Read as _,
    net::TcpStream,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use rtftp_tests::{
    Answer, Client, Disk, DiskConfig, FileSystem, NbdServer, Rtftp, Tree, assert_same, board_config, board_disk, noise,
    raw_client::{ack, rrq},
    run,
};

/// The maximum time until a client learns that its disk is lost.
const LIMIT: Duration = Duration::from_secs(30);

/// Returns the location of `/boot` on the disk of a board, for mtools.
fn boot(disk: &Disk) -> String {
    format!("{}@@1M", disk.path().display())
}

/// Writes a file to `/boot` in the image, as the owner of the disk would.
fn write_boot(disk: &Disk, name: &str, bytes: &[u8]) {
    let file = Tree::new().file("new", bytes);
    run("mcopy", ["-o", "-i", &boot(disk), &file.path().join("new").display().to_string(), &format!("::{name}")]);
}

/// Starts a daemon that treats every request as a new boot.
fn daemon(args: &[&str]) -> Rtftp {
    Rtftp::start_with("127.0.0.1", 3600, &[&["--view-gap", "0"], args].concat())
}

/// Returns a client that has received only the first block of a file.
fn begin(daemon: &Rtftp, from: &str, name: &str) -> Client {
    let mut client = daemon.client(from);
    assert_eq!(
        client.request_until_answered(&rrq(name, &[("blksize", "8192")]), LIMIT),
        Answer::oack(&[("blksize", "8192")])
    );
    assert_eq!(client.acknowledge(0).block(), 1);
    client
}

/// Acknowledges all blocks from the first on, and returns the length of the file or the code of the ERROR that ends the transfer.
fn finish(client: &mut Client) -> Result<usize, u16> {
    let (mut block, mut length) = (1, 8192);
    client.reply(&ack(block));
    loop {
        match client.receive_within(LIMIT).expect("a block or an ERROR") {
            Answer::Data(number, bytes) if number == block + 1 => {
                (block, length) = (number, length + bytes.len());
                client.reply(&ack(block));
                if bytes.len() < 8192 {
                    return Ok(length);
                }
            }
            Answer::Data(..) => {}
            answer => return Err(answer.code()),
        }
    }
}

#[test]
fn links_cannot_leave_the_root() {
    let disk = board_disk(2);
    let server = NbdServer::unix(&disk);
    let daemon = daemon(&["--monitor-configs", "false"]);
    daemon.put_disk("127.0.0.1", &board_config(&server).tftp_root("/srv"));
    for name in ["inside", "near", "absolute"] {
        assert_eq!(daemon.fetch("127.0.0.1", name).as_deref(), Ok("inside"), "{name}");
    }
    for name in ["escape", "escape2", "loop", "../etc/shadow", "..", "/etc/shadow", "near/../../etc/shadow"] {
        assert!(matches!(daemon.fetch("127.0.0.1", name), Err(1 | 2)), "{name}");
    }
}

#[test]
fn partitions_are_found_by_number() {
    // Like in cloud images, partitions 14 and 15 come before partition 1, and the first one has no file system.
    let (first, second) = (Tree::new().file("which", "gpt"), Tree::new().file("efi", "efi").file("only", "first"));
    let gpt = Disk::gpt(&[
        (14, 4, FileSystem::Nothing),
        (15, 36, FileSystem::Vfat(&second)),
        (1, 16, FileSystem::Ext4(&first.directory("boot/efi"))),
    ]);
    let server = NbdServer::nbdkit(&gpt);
    let whole = Disk::whole(16, FileSystem::Ext4(&Tree::new().file("boot/kernel", "whole").link("current", "boot")));
    let whole_server = NbdServer::nbdkit(&whole);
    let daemon = daemon(&[]);
    let disk = |server: &NbdServer| DiskConfig::new(server.url());
    daemon.put_disk("127.0.0.2", &disk(&server).partition(1, "/").partition(15, "/boot/efi"));
    assert_eq!(daemon.fetch("127.0.0.2", "which").as_deref(), Ok("gpt"));
    assert_eq!(daemon.fetch("127.0.0.2", "boot/efi/efi").as_deref(), Ok("efi"));
    daemon.put_disk("127.0.0.3", &disk(&server).device("/dev/sda15", "/"));
    assert_eq!(daemon.fetch("127.0.0.3", "only").as_deref(), Ok("first"));
    daemon.put_disk("127.0.0.4", &disk(&whole_server).partition(0, "/").tftp_root("/current"));
    assert_eq!(daemon.fetch("127.0.0.4", "kernel").as_deref(), Ok("whole"));
    daemon.put_disk("127.0.0.5", &disk(&server).partition(2, "/"));
    assert_eq!(daemon.fetch("127.0.0.5", "which"), Err(0));
    daemon.logged(&["127.0.0.5.nbd", "partition 2: not found; the disk has partitions 1, 14, 15"]);
}

#[test]
fn each_boot_sees_the_changes_of_the_owner() {
    let disk = board_disk(3);
    let server = NbdServer::nbdkit(&disk);
    let daemon = daemon(&[]);
    daemon.put_disk("127.0.0.1", &board_config(&server).tftp_root("/boot"));
    daemon.put_disk("127.0.0.2", &board_config(&server).tftp_root("/srv"));
    for round in 0..5 {
        let kernel = noise(3_000_000 + round, round as u64);
        write_boot(&disk, "kernel8.img", &kernel);
        assert_same(&daemon.client("127.0.0.1").fetch("kernel8.img", &[]).expect("a file"), &kernel, "the new kernel");
        run("mdel", ["-i", &boot(&disk), "::kernel8.img"]);
        assert_eq!(daemon.fetch("127.0.0.1", "kernel8.img"), Err(1), "the deletion is visible at once");

        let text = format!("round {round}");
        let file = Tree::new().file("new", &text);
        let root = format!("{}?offset={}", disk.path().display(), 65 << 20);
        let write = format!("write {} /srv/file{round}", file.path().join("new").display());
        assert_eq!(daemon.fetch("127.0.0.2", &format!("file{round}")), Err(1));
        run("debugfs", ["-w", "-R", &write, &root]);
        assert_eq!(daemon.fetch("127.0.0.2", &format!("file{round}")), Ok(text));
    }
}

#[test]
fn all_requests_of_a_boot_share_a_snapshot() {
    let disk = board_disk(4);
    let server = NbdServer::nbdkit(&disk);
    let daemon = Rtftp::start_with("127.0.0.1", 3600, &["--view-gap", "3600"]);
    daemon.put_disk("127.0.0.1", &board_config(&server).tftp_root("/boot"));
    assert_eq!(daemon.fetch("127.0.0.1", "new"), Err(1));
    write_boot(&disk, "new", b"new");
    assert_eq!(daemon.fetch("127.0.0.1", "new"), Err(1), "the same boot");
}

#[test]
fn change_during_a_transfer_is_an_error() {
    let disk = board_disk(5);
    let server = NbdServer::nbdkit(&disk);
    let daemon = daemon(&[]);
    daemon.put_disk("127.0.0.1", &board_config(&server).tftp_root("/boot"));
    let sizes = [3_000_000, 200_000];
    for size in sizes {
        write_boot(&disk, "kernel8.img", &noise(size, 1));
        let mut client = begin(&daemon, "127.0.0.1", "kernel8.img");
        write_boot(&disk, "other", &noise(size, 2));
        assert_eq!(finish(&mut client), Ok(size), "changes of another file are ignored");
    }
    // A smaller file would have been read and checked before its first block was sent.
    write_boot(&disk, "kernel8.img", &noise(sizes[0], 1));
    let mut client = begin(&daemon, "127.0.0.1", "kernel8.img");
    write_boot(&disk, "kernel8.img", &noise(sizes[0] + 5, 3));
    assert_eq!(finish(&mut client), Err(0));
    daemon.logged(&["127.0.0.1.nbd: kernel8.img", "changed"]);
}

#[test]
fn only_changes_of_contents_end_a_transfer() {
    let kernel = noise(3_000_000, 1);
    let disk = Disk::whole(32, FileSystem::Ext4(&Tree::new().file("kernel", &kernel)));
    let image = disk.path().display().to_string();
    let server = NbdServer::nbdkit(&disk);
    let daemon = daemon(&[]);
    daemon.put_disk("127.0.0.1", &DiskConfig::new(server.url()).partition(0, "/"));
    // chmod, a hard link and `touch -a` change these fields.
    let changes = ["mode 0100600", "links_count 2", "ctime 20300101", "atime 20300101", "version 77"];
    for change in changes {
        let mut client = begin(&daemon, "127.0.0.1", "kernel");
        run("debugfs", ["-w", "-R", &format!("set_inode_field /kernel {change}"), &image]);
        assert_eq!(finish(&mut client), Ok(kernel.len()), "{change}");
    }
    for (change, from) in [("mtime", 0), ("ctime", 0), ("ctime", 2_900_000)] {
        let mut client = begin(&daemon, "127.0.0.1", "kernel");
        let mut bytes = fs::read(disk.path()).expect("the image");
        // The contents are overwritten in place.
        let at = bytes.windows(64).position(|window| window == &kernel[from..from + 64]).expect("the kernel");
        bytes[at..at + 64].iter_mut().for_each(|byte| *byte ^= 1);
        let original = fs::read(disk.path()).expect("the image");
        fs::write(disk.path(), &bytes).expect("the image");
        run("debugfs", ["-w", "-R", &format!("set_inode_field /kernel {change} 2031010100000{}", from.min(9)), &image]);
        let finished = finish(&mut client);
        fs::write(disk.path(), original).expect("the image");
        match from {
            0 => assert_eq!(finished, Err(0), "the sent bytes and the new {change}"),
            // Whether the change came before the read or after it: never half of it.
            _ => assert!(matches!(finished, Ok(_) | Err(0)), "{finished:?}"),
        }
    }
}

#[test]
fn transfer_continues_after_a_restart_of_the_nbd_server() {
    let disk = board_disk(6);
    let server = NbdServer::nbdkit(&disk);
    let daemon = daemon(&[]);
    daemon.put_disk("127.0.0.1", &board_config(&server).tftp_root("/boot"));
    let mut client = begin(&daemon, "127.0.0.1", "f40m");
    let address = server.kill();
    let _server = NbdServer::restart_at(address, &disk);
    assert_eq!(finish(&mut client), Ok(40 << 20));
}

#[test]
fn another_disk_at_the_same_address_is_an_error() {
    let (disk, other) = (board_disk(7), board_disk(8));
    let server = NbdServer::nbdkit(&disk);
    let daemon = daemon(&[]);
    daemon.put_disk("127.0.0.1", &board_config(&server).tftp_root("/boot"));
    let mut client = begin(&daemon, "127.0.0.1", "f40m");
    let _server = NbdServer::restart_at(server.kill(), &other);
    assert_eq!(finish(&mut client), Err(0), "the two disks are not mixed");
    assert_eq!(daemon.fetch("127.0.0.1", "dir/name").as_deref(), Ok("board 8"));
}

#[test]
fn lost_nbd_server_is_an_error_in_bounded_time() {
    let disk = board_disk(9);
    let server = NbdServer::nbdkit(&disk);
    let daemon = daemon(&[]);
    daemon.put("default/f40m", "never");
    daemon.put_disk("127.0.0.1", &board_config(&server).tftp_root("/boot"));
    let mut client = begin(&daemon, "127.0.0.1", "f40m");
    server.kill();
    let died = Instant::now();
    assert_eq!(finish(&mut client), Err(0));
    assert!(died.elapsed() < LIMIT, "{:?}", died.elapsed());
    assert_eq!(daemon.fetch("127.0.0.1", "f40m"), Err(0), "neither ERROR 1 nor the file in default/");
}

#[test]
fn stopped_nbd_server_does_not_delay_other_clients() {
    let disk = board_disk(10);
    let server = NbdServer::nbdkit(&disk);
    let daemon = daemon(&["--read-limit", "2"]);
    daemon.put("default/local", "local");
    daemon.put_disk("127.0.0.1", &board_config(&server).tftp_root("/boot"));
    let mut client = begin(&daemon, "127.0.0.1", "f40m");
    server.process().signal(Signal::SIGSTOP);
    let stopped = Instant::now();
    client.reply(&ack(1));
    for _ in 0..10 {
        let asked = Instant::now();
        assert_eq!(daemon.fetch("127.0.0.9", "local").as_deref(), Ok("local"));
        assert!(asked.elapsed() < Duration::from_secs(2), "another client waits for the stopped disk");
    }
    assert_eq!(finish(&mut client), Err(0));
    assert!(stopped.elapsed() < LIMIT, "{:?}", stopped.elapsed());
    server.process().signal(Signal::SIGCONT);
    assert_eq!(daemon.fetch("127.0.0.1", "dir/name").as_deref(), Ok("board 10"), "the disk is available again");
}

#[test]
fn read_error_fails_only_the_affected_file() {
    let disk = board_disk(11);
    let trigger = disk.path().with_file_name("trigger");
    let parameter = format!("error-file={}", trigger.display());
    let server = NbdServer::nbdkit_with(&disk, "error", &["error-pread=EIO", "error-pread-rate=100%", &parameter]);
    let daemon = daemon(&[]);
    daemon.put_disk("127.0.0.1", &board_config(&server).tftp_root("/boot"));
    let mut client = begin(&daemon, "127.0.0.1", "f40m");
    fs::write(&trigger, "").expect("the trigger file");
    assert_eq!(finish(&mut client), Err(0));
    assert_eq!(daemon.fetch("127.0.0.1", "f1"), Err(0));
    fs::remove_file(&trigger).expect("the trigger file");
    assert_eq!(daemon.fetch("127.0.0.1", "dir/name").as_deref(), Ok("board 11"));
}

#[test]
fn server_with_one_connection_is_left_to_the_board_after_the_boot() {
    let disk = board_disk(12);
    let server = NbdServer::qemu_single(&disk);
    let daemon = Rtftp::start_with("127.0.0.1", 3600, &["--view-gap", "1"]);
    daemon.put_disk("127.0.0.1", &board_config(&server).tftp_root("/boot"));
    assert_eq!(daemon.fetch("127.0.0.1", "dir/name").as_deref(), Ok("board 12"));
    let booted = Instant::now();
    // The initramfs of the board connects.
    let mut board = TcpStream::connect(server.url().trim_start_matches("nbd://")).expect("the server listens");
    board.set_read_timeout(Some(LIMIT)).expect("a timeout");
    let mut magic = [0; 8];
    board.read_exact(&mut magic).expect("the connection is free");
    println!("the board gets the connection {:?} after its last file", booted.elapsed());
    daemon.logged(&["127.0.0.1.nbd", "--shared=0"]);
}

#[test]
fn unsupported_file_system_is_named() {
    let disk = Disk::whole(16, FileSystem::Nothing);
    let mut image = fs::read(disk.path()).expect("the image");
    image[3..11].copy_from_slice(b"NTFS    ");
    fs::write(disk.path(), image).expect("the image");
    let server = NbdServer::nbdkit(&disk);
    let daemon = daemon(&[]);
    daemon.put_disk("127.0.0.1", &DiskConfig::new(server.url()).partition(0, "/").backend("native"));
    assert_eq!(daemon.fetch("127.0.0.1", "kernel"), Err(0));
    daemon.logged(&["127.0.0.1.nbd", "the whole disk: NTFS is not supported natively"]);
}
