//! All attacks at the same time, with honest boards beside them, which must be served as if there were none.

use std::{
    collections::BTreeMap,
    env, fs,
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
    delays::{Delays, Echo, SchedulingDelay},
    hostile_nbd::{Behaviour, HOSTILE},
    noise, not_tested, poll_until,
    raw_client::{Answer, ack, rrq},
    sparse_image::expand,
};

/// The time that they last, in seconds, unless the environment variable `SOAK_SECONDS` says otherwise.
const SECONDS: u64 = 40;
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

/// The time that 99 %, and 99.99 %, of the datagrams of honest boards may wait because of others. The kernel stops the daemon for
/// seconds in rare cases, to move pages of its memory.
const LIMITS: [Duration; 2] = [Duration::from_millis(20), Duration::from_millis(100)];
/// The delay of 99 % of the echoes up to which the machine has a processor for the daemon, so that the limits hold for its local files
/// whatever else it waits for.
const ECHO_LIMIT: Duration = Duration::from_millis(1);
/// The time that 99 % of the first packets from disks may take. They wait for some twenty answers of an NBD server that shares the
/// processors, and the disk takes turns with hostile ones.
const DISK_OPEN_LIMIT: Duration = Duration::from_millis(500);
/// The minimum number of transfers in a minute, of all boards.
const MIN_TRANSFERS: u64 = 100;
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

/// The delays of the datagrams of boards: from their requests to the first answers, from their other packets to the next ones, and
/// those of a program that does nothing but answer.
#[derive(Debug, Default)]
struct BoardDelays {
    requests: Delays,
    packets: Delays,
    echoes: Delays,
}

/// What the boards measure.
#[derive(Debug)]
struct Measured<'a> {
    server: &'a Rtftp,
    scheduling: SchedulingDelay,
    echo: Echo,
}

/// Fetches a file again and again. Each must arrive, complete and unchanged.
fn boot_repeatedly(measured: &Measured<'_>, client: &str, expected: &[u8], stop: &AtomicBool) -> BoardDelays {
    let Measured { server, scheduling, echo } = measured;
    let request = rrq("kernel", &[("blksize", "1428")]);
    let mut delays = BoardDelays::default();
    while !stop.load(Ordering::Relaxed) {
        delays.echoes.add(echo.measure(), Duration::ZERO);
        let (mut board, mut waited) = (server.client(client), scheduling.total());
        board.request(&request);
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
                let before = std::mem::replace(&mut waited, scheduling.total());
                kind.add(sent.elapsed(), waited - before);
                sent = Instant::now();
            }
            match last {
                Some(block) => board.reply(&ack(block)),
                None => board.request(&request),
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
    let seconds = env::var("SOAK_SECONDS").map_or(SECONDS, |text| text.parse().expect("SOAK_SECONDS is a number"));
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
    if std::env::var_os("READ").is_none() {
        daemon.stop_reading_log();
    }

    let scheduling = SchedulingDelay::of(daemon.process().id(), &["disks"]);
    let (stop, measured) = (AtomicBool::new(false), Measured { server: &daemon, scheduling, echo: Echo::start() });
    let (sent, delays) = thread::scope(|scope| {
        let (measured, kernel, requests, stop, address) = (&measured, &kernel, &requests, &stop, daemon.address());
        let boards = ["127.0.0.11", "127.0.0.12", "127.0.0.21", "127.0.0.22"]
            .map(|client| (client, scope.spawn(move || boot_repeatedly(measured, client, kernel, stop))));
        let flood = scope.spawn(move || flood(address, "kernel", FLOOD_RATE, stop));
        run_elsewhere();
        scope.spawn(move || receive_slowly(address, "kernel", SLOW_CLIENTS, SLOW_PAUSE, stop));
        scope.spawn(move || connect_slowly(page, stop));
        scope.spawn(move || request_repeatedly(address, requests, stop));
        let deadline = Instant::now() + Duration::from_secs(seconds);
        while Instant::now() < deadline && boards.iter().all(|(_, board)| !board.is_finished()) {
            thread::sleep(Duration::from_millis(100));
        }
        stop.store(true, Ordering::Relaxed);
        let delays = boards.map(|(client, board)| (client, board.join().expect("a board that boots")));
        (flood.join().expect("the flood"), BTreeMap::from(delays))
    });
    let memory = daemon.process().peak_memory();
    let terminated = Instant::now();
    daemon.process().signal(Signal::SIGTERM);
    poll_until("the end of the daemon", STOP_LIMIT, || daemon.process().has_ended().then_some(()));
    let terminated = terminated.elapsed();
    drop(hanging);
    daemon.stop(Signal::SIGTERM);
    println!("{sent} forged requests; peak memory {memory} KiB; ended {terminated:?} after SIGTERM");
    assert!(memory <= MEMORY_LIMIT, "{memory} KiB");
    let [mut all, mut local, mut disks] = [(); 3].map(|()| BoardDelays::default());
    for (client, delays) in &delays {
        for sum in [&mut all, if client.starts_with("127.0.0.1") { &mut local } else { &mut disks }] {
            sum.requests.extend(&delays.requests);
            sum.packets.extend(&delays.packets);
            sum.echoes.extend(&delays.echoes);
        }
    }
    assert!(all.requests.count() as u64 >= MIN_TRANSFERS * seconds / 60, "{} transfers", all.requests.count());
    let [echoes, _] = all.echoes.print("echoes of a program that does nothing else");
    for (whose, delays) in [("local files", &local), ("disks", &disks)] {
        let [requests, own_requests] = delays.requests.print(&format!("requests for {whose}"));
        let [packets, own_packets] = delays.packets.print(&format!("other packets for {whose}"));
        let first = if whose == "disks" { DISK_OPEN_LIMIT } else { LIMITS[0] };
        for (own, limit) in [(own_requests, first), (own_packets, LIMITS[0] + echoes.most)] {
            assert!(own.most <= limit, "{whose}: the daemon delays them for {own:?} ms");
        }
        assert!(own_packets.almost_all <= LIMITS[1], "{whose}: the daemon delays them for {own_packets:?} ms");
        if echoes.most <= ECHO_LIMIT && whose == "local files" {
            assert!(requests.most.max(packets.most) <= LIMITS[0], "{requests:?} and {packets:?} ms");
        }
    }
}
