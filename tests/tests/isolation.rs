//! No disk delays the clients of others, whatever is on it and however slow its server is.

use std::{
    net::UdpSocket,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use rtftp_tests::{
    Disk, DiskConfig, FileSystem, NbdServer, Rtftp, Tree, noise, poll_until, raw_client::rrq, silent_server,
};

const OWNER: &str = "127.0.0.66";
const BOARD: &str = "127.0.0.5";
const OTHER: &str = "127.0.0.6";
/// The longest wait of another client. This build is slow, and shares the processors with other tests.
const MAX_DELAY: Duration = Duration::from_millis(1500);
/// The time within which the daemon must obey SIGTERM.
const STOP_LIMIT: Duration = Duration::from_secs(4);

/// Returns a disk with a directory of a megabyte, and links through it: each looks up 500 of its names, and names the next link. A path
/// through all of them would read 10 GB.
fn laborious_disk() -> Disk {
    let mut tree = Tree::new().file("boot/d/file", "file");
    // Half of them before the others, half behind them: mke2fs may keep the order of this machine's file system, or sort them.
    let detours: Vec<String> = (0..500).map(|number| format!("z{number}")).collect();
    let (before, behind) = detours.split_at(detours.len() / 2);
    let directories =
        |tree: Tree, names: &[String]| names.iter().fold(tree, |tree, name| tree.directory(&format!("boot/{name}")));
    tree = directories(tree, before);
    for number in 0..4000 {
        tree = tree.file(&format!("boot/{number:a>250}"), "");
    }
    tree = directories(tree, behind);
    let detour: String = detours.iter().map(|name| format!("{name}/../")).collect();
    for number in 0..38 {
        tree = tree.link(&format!("boot/link{number}"), &format!("{detour}link{}", number + 1));
    }
    tree = tree.link("boot/link38", "d/file");
    for number in 0..38 {
        tree = tree.link(&format!("boot/short{number}"), &format!("short{}", number + 1));
    }
    tree = tree.link("boot/short38", "d/file");
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
    let (laborious, honest) =
        (laborious_disk(), Disk::whole(32, FileSystem::Ext4(&Tree::new().file("boot/small", "small"))));
    let servers = [NbdServer::qemu(&laborious), NbdServer::qemu(&honest)];
    daemon.put("default/small", "small");
    daemon.connect_disk(BOARD, &config(&servers[1]).tftp_root("/boot"));
    daemon.connect_disk(OWNER, &config(&servers[0]).tftp_root("/boot"));

    let started = Instant::now();
    assert_eq!(daemon.fetch(OWNER, "short0").as_deref(), Ok("file"));
    println!("38 links in a directory of 4,000 names: {:?}", started.elapsed());

    let _requests = request(&daemon, OWNER, "link0", 8);
    let worst = worst_delay(&daemon);
    println!("worst delay of others beside 8 laborious paths: {worst:?}");
    assert!(worst < MAX_DELAY, "{worst:?}");
    daemon.wait_for("the end of such a path", Duration::from_secs(60), |line| {
        line.contains("127.0.0.66.nbd") && line.contains("too much work")
    });
    assert_eq!(daemon.log_lines(&["ERROR", "127.0.0.66.nbd", "too much work"]).len(), 1, "it is logged once");
    assert_eq!(daemon.fetch(OWNER, "d/file").as_deref(), Ok("file"), "other paths of the disk are served");

    // A `tftp_root` behind such links: the disk cannot be opened.
    daemon.put_disk(OTHER, &config(&servers[0]).tftp_root("/boot/link0"));
    let _requests = request(&daemon, OTHER, "small", 4);
    let started = Instant::now();
    assert_eq!(daemon.fetch(BOARD, "small").as_deref(), Ok("small"));
    assert!(started.elapsed() < MAX_DELAY, "{:?}", started.elapsed());
    daemon.wait_for("the end of opening", Duration::from_secs(60), |line| {
        line.contains("127.0.0.6.nbd") && line.contains("too much work")
    });

    let _requests = request(&daemon, OWNER, "link1", 8);
    let started = Instant::now();
    daemon.stop(Signal::SIGTERM);
    println!("end after SIGTERM beside 8 laborious paths: {:?}", started.elapsed());
    assert!(started.elapsed() < STOP_LIMIT, "{:?}", started.elapsed());
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
