//! No disk delays the clients of others, whatever is on it and however slow its server is.

use std::{
    net::UdpSocket,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use rtftp_tests::{
    Disk, DiskConfig, FileSystem, NbdServer, Rtftp, Tree, noise, poll_until, raw_client::rrq, silent_server,
    sparse_image::expand,
};

const OWNER: &str = "127.0.0.66";
const BOARD: &str = "127.0.0.5";
const OTHER: &str = "127.0.0.6";
/// The longest wait of another client. This build is slow, and shares the processors with other tests.
const MAX_DELAY: Duration = Duration::from_millis(1500);
/// The time within which the daemon must obey SIGTERM.
const STOP_LIMIT: Duration = Duration::from_secs(4);

/// A disk of 2 MiB whose directory `d` of 64 MiB contains itself as `a` in its last block. The link `l` leads through it many times.
const LABORIOUS: &[u8] = include_bytes!("../../fuzz/images/directory");

/// Returns an ordinary disk: 4,500 files in a directory, and 38 links with names as long.
fn disk_with_links() -> Disk {
    let link = |number: usize| format!("{number:z>250}");
    let mut tree = Tree::new().file("d/file", "file");
    for number in 0..4500 {
        tree = tree.file(&format!("{number:a>250}"), "");
    }
    for number in 0..38 {
        tree = tree.link(&link(number), &link(number + 1));
    }
    tree = tree.link(&link(38), "d/file");
    Disk::whole(32, FileSystem::Ext4With(&tree, &["-b", "4096", "-N", "8000"]))
}

fn config(server: &NbdServer) -> DiskConfig {
    DiskConfig::new(server.url()).device("/dev/sda", "/").backend("native")
}

/// Requests a file from several ports, without waiting for an answer.
fn request(daemon: &Rtftp, from: &str, name: &str, count: usize) -> Vec<UdpSocket> {
    let send = |_| {
        let socket = UdpSocket::bind((from, 0)).expect("a port");
        socket.send_to(&rrq(name, &[]), daemon.address()).expect("sent");
        socket
    };
    (0..count).map(send).collect()
}

/// Returns the longest time that other clients wait for a small file, from a directory and from a disk.
fn worst_delay(daemon: &Rtftp) -> Duration {
    let fetch = |from: &str, name: &str| {
        let started = Instant::now();
        assert_eq!(daemon.fetch(from, name).as_deref(), Ok("small"), "{from}");
        started.elapsed()
    };
    let delays = (0..40).map(|_| fetch(BOARD, "small").max(fetch(OTHER, "small")));
    delays.max().unwrap_or_default()
}

#[test]
fn laborious_paths_delay_no_other_client() {
    let daemon = Rtftp::start();
    let laborious = Disk::raw(&expand(LABORIOUS));
    let honest = Disk::whole(32, FileSystem::Ext4(&Tree::new().file("boot/small", "small")));
    let servers = [NbdServer::qemu(&laborious), NbdServer::qemu(&honest)];
    daemon.put("default/small", "small");
    daemon.connect_disk(BOARD, &config(&servers[1]).tftp_root("/boot"));
    daemon.connect_disk(OWNER, &config(&servers[0]));

    let path = format!("d/{}file", "a/".repeat(240));
    let _requests = request(&daemon, OWNER, &path, 8);
    let worst = worst_delay(&daemon);
    println!("worst delay of others beside 8 laborious paths: {worst:?}");
    assert!(worst < MAX_DELAY, "{worst:?}");
    daemon.wait_for("the end of such a path", Duration::from_secs(60), |line| {
        line.contains("127.0.0.66.nbd") && line.contains("too much work")
    });
    assert_eq!(daemon.log_lines(&["ERROR", "127.0.0.66.nbd", "too much work"]).len(), 1, "it is logged once");
    let file = daemon.client(OWNER).fetch("file", &[]).expect("other paths of the disk are served");
    assert_eq!(file.len(), 1200);

    // A `tftp_root` behind such links: the disk cannot be opened.
    daemon.put_disk(OTHER, &config(&servers[0]).tftp_root("/l"));
    let _requests = request(&daemon, OTHER, "small", 4);
    let started = Instant::now();
    assert_eq!(daemon.fetch(BOARD, "small").as_deref(), Ok("small"));
    assert!(started.elapsed() < MAX_DELAY, "{:?}", started.elapsed());
    daemon.wait_for("the end of opening", Duration::from_secs(60), |line| {
        line.contains("127.0.0.6.nbd") && line.contains("too much work")
    });

    let _requests = request(&daemon, OWNER, &path, 8);
    let started = Instant::now();
    daemon.stop(Signal::SIGTERM);
    println!("end after SIGTERM beside 8 laborious paths: {:?}", started.elapsed());
    assert!(started.elapsed() < STOP_LIMIT, "{:?}", started.elapsed());
}

/// Searching the directory for each link would take some 2,000 reads.
#[test]
fn links_in_a_large_directory_are_followed_fast() {
    let daemon = Rtftp::start();
    let server = NbdServer::qemu(&disk_with_links());
    daemon.connect_disk(OWNER, &config(&server));
    for _ in 0..2 {
        let started = Instant::now();
        assert_eq!(daemon.fetch(OWNER, &format!("{:z>250}", 0)).as_deref(), Ok("file"));
        let elapsed = started.elapsed();
        println!("38 links in a directory of 4,500 names: {elapsed:?}");
        assert!(elapsed < MAX_DELAY / 3, "{elapsed:?}");
    }
}

#[test]
fn slow_disks_answer_in_time_and_let_others_connect() {
    let daemon = Rtftp::start_with("127.0.0.1", 3600, &["--open-limit", "3", "--read-limit", "60"]);
    let honest =
        Disk::whole(32, FileSystem::Ext4(&Tree::new().file("small", "small").file("large", noise(100_000, 1))));
    // Each read takes two seconds, and opening the disk takes several.
    let slow = NbdServer::nbdkit_with(&honest, "delay", &["delay-read=2"]);
    let fast = NbdServer::qemu(&honest);
    for number in 10..18 {
        daemon.put_disk(&format!("127.0.0.{number}"), &config(&slow));
        daemon.put_disk(
            &format!("127.0.1.{number}"),
            &DiskConfig::new(silent_server()).device("/dev/sda", "/").backend("native"),
        );
    }
    daemon.put_disk(BOARD, &config(&fast));
    let started = Instant::now();
    daemon.wait_for_disk(BOARD, " connected");
    println!("connected beside 16 slow disks after {:?}", started.elapsed());

    let started = Instant::now();
    assert_eq!(daemon.fetch("127.0.0.10", "small"), Err(0), "an ERROR, not silence");
    println!("ERROR for a client of a slow disk after {:?}", started.elapsed());
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    poll_until("a log line about the slow disk", Duration::from_secs(10), || {
        daemon.log_lines(&["127.0.0.10.nbd"]).into_iter().find(|line| line.contains("within 3 s"))
    });
}
