//! A flood of datagrams from unverified clients, and honest clients at the same time.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use rtftp_tests::{
    Rtftp, assert_same, noise, poll_until,
    raw_client::{ack, error, rrq},
};

/// The number of flooding addresses, and of ports on each: fewer than the transfers allowed per address, so that each port gets one.
const ADDRESSES: u8 = 20;
const PORTS: u8 = 100;
/// The daemon's limit of transfers: less than the flood requests.
const TRANSFERS: usize = 500;
/// The duration of the flood.
const FLOOD: Duration = Duration::from_secs(4);
/// The time limit for a fetch of an honest client during the flood, on a busy machine.
const FETCH_LIMIT: Duration = Duration::from_secs(30);
/// The time limit for a reply after the flood.
const REPLY_LIMIT: Duration = Duration::from_secs(2);
/// The time limit for the end of the flood's transfers, and for the report of suppressed lines.
const CLEANUP_LIMIT: Duration = Duration::from_secs(20);
/// The limit of the memory that the daemon needs for the flood, in KiB, of which some is for requests that wait: 10 MiB, and more if it
/// gets little processor time. With a full buffer for each transfer it was 25 MiB.
const MEMORY_LIMIT: u64 = 18 << 10;

/// The text that identifies log lines about flooding clients.
const FLOOD_LINE: &str = " 127.1.0.";
/// The limits of log lines about unverified clients: at once, and per second.
const LINE_LIMITS: (u64, u64) = (1000, 10);
/// The length of the longest log line in bytes, for any requested name.
const MAX_LINE: usize = 800;

/// Returns the datagrams of the flood. Each port sends one of them repeatedly.
fn hostile() -> Vec<Vec<u8>> {
    let large = |options: &[(&str, &str)]| rrq("large", options);
    let mut datagrams = vec![
        large(&[]),
        large(&[("blksize", "65464"), ("windowsize", "65535"), ("tsize", "0"), ("timeout", "255")]),
        large(&[("blksize", "65464")]),
        large(&[("blksize", "8"), ("windowsize", "32767")]),
        large(&[("blksize", "65464"); 50]),
        large(&[("blksize", "65535"), ("windowsize", "-1"), ("timeout", "0"), ("multicast", "")]),
        rrq("../../etc/passwd", &[]),
        rrq(&"large/../".repeat(200), &[("blksize", "65464")]),
        rrq(&"\u{7f}".repeat(2000), &[]),
        b"\0\x02large\0octet\0".to_vec(),
        b"\0\x01large\0nonsense\0".to_vec(),
        b"\0\x01large\0octet".to_vec(),
        [b"\0\x03\0\x01".to_vec(), noise(1468, 1)].concat(),
        error(0, "go away"),
        ack(1),
    ];
    datagrams.extend((0..5).map(|nth| rrq(&format!("missing-{nth}"), &[("tsize", "0")])));
    datagrams.extend((0..5).map(|seed| noise(400 * seed as usize, seed)));
    datagrams
}

/// Returns ports on many addresses, each with the datagram that it sends.
fn flooders() -> Vec<(UdpSocket, Vec<u8>)> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("raised");
    let addresses = (1..=ADDRESSES).flat_map(|last| (0..PORTS).map(move |_| IpAddr::from([127, 1, 0, last])));
    let sockets = addresses.map(|ip| UdpSocket::bind((ip, 0)).expect("a local address"));
    sockets.zip(hostile().into_iter().cycle()).collect()
}

/// Sends from all ports in rotation until a point in time. Returns the number of datagrams sent.
fn flood(flooders: &[(UdpSocket, Vec<u8>)], server: SocketAddr, until: Instant) -> u64 {
    let mut sent = 0;
    while Instant::now() < until {
        sent += flooders.iter().filter(|(socket, datagram)| socket.send_to(datagram, server).is_ok()).count() as u64;
    }
    sent
}

/// Ends the transfers that have replied, with an ERROR to each.
fn end_transfers(flooders: &[(UdpSocket, Vec<u8>)]) {
    for (socket, _) in flooders {
        socket.set_nonblocking(true).expect("set");
        while let Ok((_, from)) = socket.recv_from(&mut [0; 4]) {
            // If this fails, the next retransmission is answered.
            let _ = socket.send_to(&error(0, "aborted"), from);
        }
    }
}

/// Fetches a file repeatedly until `stop` is set. Returns the number of fetches and the longest time of one.
fn fetches(daemon: &Rtftp, from: &str, file: &[u8], stop: &AtomicBool) -> (usize, Duration) {
    let (mut count, mut longest) = (0, Duration::ZERO);
    while !stop.load(Ordering::Relaxed) {
        let started = Instant::now();
        let got = daemon.client(from).fetch("file", &[("blksize", "8192")]).expect("the file");
        longest = longest.max(started.elapsed());
        assert_same(&got, file, from);
        count += 1;
    }
    (count, longest)
}

#[test]
fn flood_stops_no_client_and_fills_neither_memory_nor_log() {
    let daemon = Rtftp::start_with("127.0.0.1", 3600, &["--max-transfers", &TRANSFERS.to_string()]);
    let file = noise(3 << 20, 7);
    daemon.put("default/file", &file);
    daemon.put("default/large", noise(30 << 20, 8));
    let (started, flooders, honest) = (Instant::now(), flooders(), ["127.0.0.7", "127.0.0.8"]);
    let idle_memory = daemon.process().peak_memory();

    let (server, until, stop) = (daemon.address(), Instant::now() + FLOOD, AtomicBool::new(false));
    let (sent, fetched) = thread::scope(|scope| {
        let clients = honest.map(|from| scope.spawn(|| fetches(&daemon, from, &file, &stop)));
        let (half, other) = flooders.split_at(flooders.len() / 2);
        let floods = [half, other].map(|half| scope.spawn(move || flood(half, server, until)));
        let sent: u64 = floods.map(|flood| flood.join().expect("a flood")).iter().sum();
        stop.store(true, Ordering::Relaxed);
        (sent, clients.map(|client| client.join().expect("an honest client")))
    });
    let (memory, open) = (daemon.process().peak_memory() - idle_memory, daemon.process().open_files().len());
    println!(
        "{} datagrams per second; fetches and the longest time of each honest client: {fetched:?}",
        sent / FLOOD.as_secs()
    );
    println!("{memory} KiB of memory, {open} descriptors open, {} lines", daemon.log().len());
    assert!(memory < MEMORY_LIMIT, "{memory} KiB");

    let (mut client, flood_end) = (daemon.client("127.0.0.9"), Instant::now());
    let first = client.exchange(&rrq("file", &[("blksize", "8192")]));
    let reply_time = flood_end.elapsed();
    println!("reply after {reply_time:?}");
    assert!(reply_time < REPLY_LIMIT, "reply after {reply_time:?}");
    assert_same(&client.finish(first).expect("the file"), &file, "after the flood");
    poll_until("the end of the flood's transfers", CLEANUP_LIMIT, || {
        end_transfers(&flooders);
        (!daemon.process().open_files().iter().any(|file| file.ends_with("default/large"))).then_some(())
    });

    for (from, (count, longest)) in honest.iter().zip(fetched) {
        assert!(count > 0 && longest < FETCH_LIMIT, "{from}: {count} fetches, the longest took {longest:?}");
        assert_eq!(daemon.log_lines(&[from, "complete"]).len(), count, "log lines of {from}");
    }
    daemon.wait_for("the number of suppressed lines", CLEANUP_LIMIT, |line| {
        line.contains("more lines like these left out")
    });
    // A client that has sent an ERROR is verified.
    let lines = daemon.log_lines(&[FLOOD_LINE]);
    let unverified = lines.iter().filter(|line| !line.ends_with("probe")).count() as u64;
    let limit = LINE_LIMITS.0 + LINE_LIMITS.1 * (started.elapsed().as_secs() + 1);
    println!("{unverified} lines about unverified clients, limit {limit}");
    assert!(unverified <= limit, "{unverified} lines, limit {limit}");
    assert!(lines.iter().all(|line| line.len() <= MAX_LINE), "{:?}", lines.iter().max_by_key(|line| line.len()));
}
