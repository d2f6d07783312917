//! Two minutes of all attacks at the same time, with honest boards beside them, which must be served as if there were none.

use std::{
    collections::BTreeMap,
    fs,
    net::{Ipv4Addr, SocketAddr},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use nix::sys::{
    resource::{Resource, getrlimit, setrlimit},
    signal::Signal,
};
use rtftp_tests::{
    Disk, DiskConfig, FileSystem, Hang, HangingFileSystem, NbdServer, Rtftp, Tree, assert_same,
    attackers::{connect_slowly, flood, receive_slowly, request_repeatedly, run_elsewhere},
    delays::{Delays, Echo},
    hostile_nbd::{Behaviour, HOSTILE},
    noise, poll_until, thread_cpu_times,
    raw_client::{Answer, ack, rrq},
    sparse_image::expand,
};

const DURATION: Duration = Duration::from_secs(120);
/// The number of forged requests per second.
const FLOOD_RATE: u32 = 10_000;
/// The number of slow clients, and their time between two acknowledgements.
const SLOW_CLIENTS: u16 = 300;
const SLOW_PAUSE: Duration = Duration::from_secs(5);
/// The time between two requests of an honest board, and until it repeats one.
const PAUSE: Duration = Duration::from_millis(100);
const RETRY: Duration = Duration::from_secs(1);
/// The time after which an honest board gives up.
const PATIENCE: Duration = Duration::from_secs(60);

/// The limits for the time from the first request of an honest board to the first answer, in a debug build on a machine that also
/// runs the attackers: for half, for 99 % and for all of the requests.
const LIMITS: [Duration; 3] = [Duration::from_millis(200), Duration::from_secs(3), Duration::from_secs(10)];
/// The minimum number of transfers in all.
const MIN_TRANSFERS: usize = 200;
/// The limit of the daemon's peak memory, in KiB.
const MEMORY_LIMIT: u64 = 256 << 10;
/// The time limit for the end of the daemon after SIGTERM.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// The client whose directory is a file system that hangs.
const HANGING: Ipv4Addr = Ipv4Addr::new(127, 5, 1, 1);

/// Hostile disks, and the paths that cost the most there.
const DISKS: [(&str, &[u8], [&str; 2]); 7] = [
    ("directory", include_bytes!("../../fuzz/images/directory"), ["DEEP/missing", "l"]),
    ("directory-indirect", include_bytes!("../../fuzz/images/directory-indirect"), ["DEEP/missing", "l"]),
    ("links", include_bytes!("../../fuzz/images/links"), ["l0", "l1"]),
    ("fragments", include_bytes!("../../fuzz/images/fragments"), ["file", "missing"]),
    ("journal", include_bytes!("../../fuzz/images/journal"), ["file", "missing"]),
    ("fat-directory", include_bytes!("../../fuzz/images/fat-directory"), ["DEEPER/MISSING", "A/FILE"]),
    ("fat-fragments", include_bytes!("../../fuzz/images/fat-fragments"), ["FILE", "MISSING"]),
];

/// Returns the requests to hostile servers and disks, whose descriptions it writes.
fn set_up_disks(daemon: &Rtftp) -> Vec<(Ipv4Addr, String)> {
    let mut requests = Vec::new();
    let fragments = expand(DISKS[3].1);
    for (nth, behaviour) in (1..).zip(HOSTILE) {
        let client = Ipv4Addr::new(127, 3, 0, nth);
        daemon.put_disk(&client.to_string(), &DiskConfig::new(behaviour.export(fragments.clone())).partition(0, "/"));
        requests.extend(["file", "missing"].map(|name| (client, name.to_owned())));
    }
    for (nth, (_, image, paths)) in (1..).zip(DISKS) {
        let url = Behaviour::Correct.export(expand(image));
        for (host, root) in [(1, "/"), (2, "/l")] {
            let client = Ipv4Addr::new(127, 3, nth, host);
            daemon.put_disk(&client.to_string(), &DiskConfig::new(&url).partition(0, "/").tftp_root(root));
            for path in paths {
                let deep = ["d", &"/a".repeat(240)].concat();
                let name = path.replace("DEEPER", &"A/".repeat(240)).replace("DEEP", &deep);
                requests.extend([(client, name.clone()), (client, name)]);
            }
        }
    }
    requests
}

/// The delays of the datagrams of a board: from its requests to the first answers, from its other packets to the next ones, and
/// those of a program that does nothing but answer.
#[derive(Debug, Default)]
struct BoardDelays {
    requests: Delays,
    packets: Delays,
    echoes: Delays,
}

/// Fetches a file again and again. Each must arrive, complete and unchanged.
fn boot_repeatedly(
    server: &Rtftp,
    echo: &Echo,
    client: &str,
    name: &str,
    expected: &[u8],
    stop: &AtomicBool,
) -> BoardDelays {
    let mut delays = BoardDelays::default();
    while !stop.load(Ordering::Relaxed) {
        delays.echoes.add(echo.measure());
        let mut board = server.client(client);
        board.request(&rrq(name, &[("blksize", "1428")]));
        let requested = Instant::now();
        let (mut file, mut last, mut sent) = (Vec::new(), None, requested);
        loop {
            let answer = board.receive_within(RETRY);
            match &answer {
                Some(Answer::Oack(_)) => last = last.or(Some(0)),
                Some(Answer::Data(number, bytes)) if last.is_some_and(|last: u16| last + 1 == *number) => {
                    last = Some(*number);
                    file.extend(bytes);
                }
                Some(Answer::Data(..)) => continue,
                Some(error) => panic!("{client}: {error:?}"),
                None => assert!(requested.elapsed() < PATIENCE, "{client}: only {} bytes", file.len()),
            }
            if answer.is_some() {
                let kind = if last == Some(0) { &mut delays.requests } else { &mut delays.packets };
                kind.add(sent.elapsed());
                sent = Instant::now();
            }
            match last {
                Some(block) => board.reply(&ack(block)),
                None => board.request(&rrq(name, &[("blksize", "1428")])),
            }
            if last.is_some_and(|last| usize::from(last) > expected.len() / 1428) {
                break;
            }
        }
        assert_same(&file, expected, client);
        thread::sleep(PAUSE);
    }
    delays
}

/// Returns the address of the status page.
fn page_address(daemon: &Rtftp) -> SocketAddr {
    let line = daemon.logged(&["status page at "]);
    line.split("http://").nth(1).and_then(|rest| rest.trim_end_matches('/').parse().ok()).expect("an address")
}

/// Makes the directory of a client a file system that hangs when a file is opened. Returns `None` without the permission to mount.
fn mount_hanging(daemon: &Rtftp) -> Option<HangingFileSystem> {
    let directory = daemon.path(&HANGING.to_string());
    fs::create_dir(&directory).expect("created");
    let mounted = HangingFileSystem::mount(&directory);
    if let Err(error) = &mounted {
        not_tested(format_args!("a file system that hangs: no permission to mount one: {error}"));
    }
    mounted.ok().inspect(|file_system| file_system.hang(Hang::Open))
}

#[test]
fn honest_boards_are_served_during_all_attacks() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("raised");
    let daemon = Rtftp::start_with("127.0.0.1", 3600, &["--status-listen", "0"]);
    let page = page_address(&daemon);
    let kernel = noise(200_000, 1);
    daemon.put("default/kernel", &kernel);
    daemon.put("127.0.0.11/kernel", &kernel);
    let tree = Tree::new().file("boot/kernel", &kernel);
    let disks = [FileSystem::Ext4(&tree), FileSystem::Vfat(&tree)].map(|contents| Disk::mbr(&[(1, 16, contents)]));
    let [ext4, vfat] = disks.each_ref().map(NbdServer::nbdkit);
    for (client, server) in [("127.0.0.21", &ext4), ("127.0.0.22", &vfat)] {
        daemon.connect_disk(client, &DiskConfig::new(server.url()).partition(1, "/").tftp_root("/boot"));
    }
    let mut requests = thread::scope(|scope| {
        let set_up = scope.spawn(|| {
            // The threads of the servers inherit the priority.
            run_elsewhere();
            set_up_disks(&daemon)
        });
        set_up.join().expect("set up")
    });
    let hanging = mount_hanging(&daemon);
    requests.extend(hanging.iter().flat_map(|_| (0..20).map(|_| (HANGING, "file".to_owned()))));
    daemon.stop_reading_log();

    let (stop, echo) = (AtomicBool::new(false), Echo::start());
    let (sent, delays) = thread::scope(|scope| {
        let (daemon, echo, kernel, requests, stop, address) =
            (&daemon, &echo, &kernel, &requests, &stop, daemon.address());
        let boards = ["127.0.0.11", "127.0.0.12", "127.0.0.21", "127.0.0.22"].map(|client| {
            (client, scope.spawn(move || boot_repeatedly(daemon, echo, client, "kernel", kernel, stop)))
        });
        run_elsewhere();
        let flood = scope.spawn(move || flood(address, "kernel", FLOOD_RATE, stop));
        scope.spawn(move || receive_slowly(address, "kernel", SLOW_CLIENTS, SLOW_PAUSE, stop));
        scope.spawn(move || connect_slowly(page, stop));
        scope.spawn(move || request_repeatedly(address, requests, stop));
        let deadline = Instant::now() + duration();
        while Instant::now() < deadline && boards.iter().all(|(_, board)| !board.is_finished()) {
            thread::sleep(Duration::from_millis(100));
        }
        stop.store(true, Ordering::Relaxed);
        let delays = boards.map(|(client, board)| (client, board.join().expect("a board that boots")));
        (flood.join().expect("the flood"), BTreeMap::from(delays))
    });
    for (name, time) in thread_cpu_times(daemon.process().id()) {
        println!("thread {name}: {time:?}");
    }

    let memory = daemon.process().peak_memory();
    let terminated = Instant::now();
    daemon.process().signal(Signal::SIGTERM);
    poll_until("the end of the daemon", STOP_LIMIT, || daemon.process().has_ended().then_some(()));
    let terminated = terminated.elapsed();
    drop(hanging);
    daemon.stop(Signal::SIGTERM);
    println!("{sent} forged requests; peak memory {memory} KiB; ended {terminated:?} after SIGTERM");
    let [mut local, mut disks] = [(); 2].map(|()| BoardDelays::default());
    for (client, delays) in &delays {
        let all = if client.starts_with("127.0.0.1") { &mut local } else { &mut disks };
        all.requests.extend(&delays.requests);
        all.packets.extend(&delays.packets);
        all.echoes.extend(&delays.echoes);
    }
    for (whose, delays) in [("local files", &local), ("disks", &disks)] {
        delays.requests.print(&format!("requests for {whose}"));
        delays.packets.print(&format!("other packets for {whose}"));
        delays.echoes.print(&format!("echoes beside {whose}"));
    }
    assert!(memory <= MEMORY_LIMIT, "{memory} KiB");
}

fn duration() -> Duration {
    std::env::var("SOAK_SECONDS").ok().and_then(|s| s.parse().ok()).map_or(DURATION, Duration::from_secs)
}
