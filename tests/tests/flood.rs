//! Strangers who send all they can, and honest clients in the middle of it.

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

/// The strangers' addresses, and the ports of each: fewer than the transfers one address may have, so that each port counts.
const ADDRESSES: u8 = 20;
const PORTS: u8 = 100;
/// How many transfers the daemon runs at most: fewer than the strangers ask for.
const TRANSFERS: usize = 500;
/// How long they go on.
const FLOOD: Duration = Duration::from_secs(4);
/// How long an honest client may take for a file meanwhile, on a machine that others keep busy too.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long an answer may take once there is peace again.
const AT_ONCE: Duration = Duration::from_secs(2);
/// How long the daemon may take to forget the strangers, and to say how many lines it has left out.
const SOON: Duration = Duration::from_secs(20);
/// How much memory the daemon may ever use, in KiB. With a full buffer for each of the strangers' transfers it was 39 MiB.
const MEMORY: u64 = 20 << 10;

/// How strangers' lines begin, other than those of honest clients.
const STRANGER: &str = " 127.1.0.";
/// So many lines of strangers may be in the log after some seconds.
const LINES: (u64, u64) = (1000, 10);
/// The longest line, in bytes, whatever the name that was asked for.
const LINE: usize = 800;

/// What strangers send, each always the same.
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

/// Ports on many addresses, and what each of them sends.
fn strangers() -> Vec<(UdpSocket, Vec<u8>)> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    setrlimit(Resource::RLIMIT_NOFILE, most, most).expect("as many open files as are allowed");
    let addresses = (1..=ADDRESSES).flat_map(|last| (0..PORTS).map(move |_| IpAddr::from([127, 1, 0, last])));
    let sockets = addresses.map(|ip| UdpSocket::bind((ip, 0)).expect("a local address"));
    sockets.zip(hostile().into_iter().cycle()).collect()
}

/// Sends from all of them in turn until the time is over; returns the number of datagrams.
fn flood(strangers: &[(UdpSocket, Vec<u8>)], server: SocketAddr, until: Instant) -> u64 {
    let mut sent = 0;
    while Instant::now() < until {
        sent += strangers.iter().filter(|(socket, datagram)| socket.send_to(datagram, server).is_ok()).count() as u64;
    }
    sent
}

/// Ends the transfers whose answers have come by now.
fn goodbye(strangers: &[(UdpSocket, Vec<u8>)]) {
    for (socket, _) in strangers {
        socket.set_nonblocking(true).expect("a socket that does not wait");
        while let Ok((_, from)) = socket.recv_from(&mut [0; 4]) {
            // What cannot be sent is sent after the next answer.
            let _ = socket.send_to(&error(0, "goodbye"), from);
        }
    }
}

/// Fetches a file again and again until it is told to stop; returns how often, and the longest time that one fetch took.
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
fn a_flood_stops_nobody_and_fills_neither_memory_nor_log() {
    let daemon = Rtftp::start_with("127.0.0.1", 3600, &["--max-transfers", &TRANSFERS.to_string()]);
    let file = noise(3 << 20, 7);
    daemon.put("default/file", &file);
    daemon.put("default/large", noise(30 << 20, 8));
    let (started, strangers, honest) = (Instant::now(), strangers(), ["127.0.0.7", "127.0.0.8"]);

    let (server, until, stop) = (daemon.address(), Instant::now() + FLOOD, AtomicBool::new(false));
    let (sent, fetched) = thread::scope(|scope| {
        let clients = honest.map(|from| scope.spawn(|| fetches(&daemon, from, &file, &stop)));
        let (half, other) = strangers.split_at(strangers.len() / 2);
        let floods = [half, other].map(|half| scope.spawn(move || flood(half, server, until)));
        let sent: u64 = floods.map(|flood| flood.join().expect("a flood")).iter().sum();
        stop.store(true, Ordering::Relaxed);
        (sent, clients.map(|client| client.join().expect("an honest client")))
    });
    let (memory, open) = (daemon.process().peak_memory(), daemon.process().open_files().len());
    println!("{} datagrams a second; honest fetches and the longest: {fetched:?}", sent / FLOOD.as_secs());
    println!("{memory} KiB of memory, {open} descriptors open, {} lines", daemon.log().len());
    assert!(memory < MEMORY, "{memory} KiB");

    let (mut client, peace) = (daemon.client("127.0.0.9"), Instant::now());
    let first = client.exchange(&rrq("file", &[("blksize", "8192")]));
    println!("an answer after {:?}", peace.elapsed());
    assert!(peace.elapsed() < AT_ONCE, "an answer after {:?}", peace.elapsed());
    assert_same(&client.finish(first).expect("the file"), &file, "afterwards");
    poll_until("the end of the strangers' transfers", SOON, || {
        goodbye(&strangers);
        (!daemon.process().open_files().iter().any(|file| file.ends_with("default/large"))).then_some(())
    });

    for (from, (count, longest)) in honest.iter().zip(fetched) {
        assert!(count > 0 && longest < PATIENCE, "{from}: {count} fetches, the longest in {longest:?}");
        assert_eq!(daemon.log_lines(&[from, "complete"]).len(), count, "every one has its line");
    }
    daemon.wait_for("the number of lines left out", SOON, |line| line.contains("more lines like these left out"));
    // A stranger who has said goodbye is none any more.
    let lines = daemon.log_lines(&[STRANGER]);
    let unanswered = lines.iter().filter(|line| !line.ends_with("probe")).count() as u64;
    let most = LINES.0 + LINES.1 * (started.elapsed().as_secs() + 1);
    println!("{unanswered} lines about strangers, {most} allowed");
    assert!(unanswered <= most, "{unanswered} lines, {most} allowed");
    assert!(lines.iter().all(|line| line.len() <= LINE), "{:?}", lines.iter().max_by_key(|line| line.len()));
}
