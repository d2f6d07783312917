//! Places for transfers: forged requests and silent clients do not keep others out.

use std::{
    io::IoSlice,
    net::{SocketAddr, UdpSocket},
    os::fd::AsRawFd,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::{
    libc,
    sys::socket::{ControlMessage, MsgFlags, SockaddrIn, sendmsg},
};

use rtftp_tests::{
    Answer, Client, Rtftp, assert_same, noise,
    raw_client::{ack, error, rrq},
};

/// The time limit for the first reply to an honest client during a flood, on a machine that is busy with other tests. On an idle
/// one it is half a second.
const WORST_WAIT: Duration = Duration::from_secs(5);

#[test]
fn forged_requests_in_name_of_board_neither_lock_it_out_nor_end_its_transfer() {
    let daemon = Rtftp::start();
    let file = noise(5000, 7);
    daemon.put("default/f", &file);
    daemon.put("default/g", "other");
    let mut board = daemon.client("127.0.0.7");
    assert_eq!(board.exchange(&rrq("f", &[])).block(), 1);
    let second = board.acknowledge(1);
    let transfer = board.peer();
    // Forged requests: from other ports of the board, and from its own.
    let forged: Vec<_> = (0..200).map(|_| daemon.client("127.0.0.7")).collect();
    forged.iter().for_each(|client| client.request(&rrq("f", &[])));
    board.request(&rrq("g", &[]));
    // The transfer repeats its block meanwhile.
    while board.receive() != Answer::Data(1, b"other".into()) {}
    board.send_to(&ack(2), transfer);
    while board.receive() != Answer::Data(3, file[1024..1536].into()) {}
    assert_eq!(second.block(), 2);
    // A new file of the board.
    let got = daemon.client("127.0.0.7").fetch("f", &[]).expect("the file");
    assert_same(&got, &file, "beside 200 forged requests");
}

#[test]
fn silent_requests_use_up_no_descriptors() {
    let mut command = Command::new("prlimit");
    command.args(["--nofile=1024:1024", "--"]).arg(rtftp_tests::binary("rtftp")).stdin(Stdio::null());
    let daemon = Rtftp::start_by(&mut command);
    let file = noise(5000, 7);
    daemon.put("default/f", &file);
    daemon.logged(&["at most 298 transfers instead of 4096", "1024", "LimitNOFILE="]);
    for boards in [64, 40] {
        let silent: Vec<_> = (0..334).map(|n| daemon.client(&format!("127.0.1.{}", 1 + n % 10))).collect();
        silent.iter().for_each(|client| client.request(&rrq("f", &[])));
        for board in 0..boards {
            let got = daemon.client(&format!("127.0.2.{}", 1 + board)).fetch("f", &[]).expect("the file");
            assert_same(&got, &file, "beside 334 silent requests");
        }
        println!("{boards} of {boards} boards served, {} descriptors", daemon.process().open_files().len());
    }
    assert!(daemon.log_lines(&["Too many open files"]).is_empty());
}

#[test]
fn slow_transfers_of_few_addresses_lose_their_places_to_others() {
    let daemon = Rtftp::start_with("127.0.0.1", 3600, &["--max-transfers", "64", "--max-per-client", "16"]);
    let file = noise(5000, 7);
    daemon.put("default/f", &file);
    let mut slow: Vec<_> = (0..64).map(|n| daemon.client(&format!("127.0.1.{}", 1 + n / 16))).collect();
    for client in &mut slow {
        client.request(&rrq("f", &[]));
        if let Answer::Data(1, _) = client.receive() {
            client.acknowledge(1);
        }
    }
    for board in 1..=20 {
        let got = daemon.client(&format!("127.0.2.{board}")).fetch("f", &[]).expect("the file");
        assert_same(&got, &file, "beside slow transfers");
    }
    let lines = daemon.log_lines(&["ended by the server: the server needs the place"]);
    println!("20 of 20 boards served, {} slow transfers ended", lines.len());
    daemon.logged(&["WARN", "--max-transfers"]);
}

#[test]
fn answers_same_request_after_last_ack_and_after_error() {
    let daemon = Rtftp::start();
    daemon.put("default/f", "short");
    let mut client = daemon.client("127.0.0.7");
    for end in [ack(1), error(0, "Early terminate")] {
        for round in 0..20 {
            assert_eq!(client.exchange(&rrq("f", &[])), Answer::Data(1, b"short".into()), "round {round}");
            client.reply(&end);
        }
    }
    println!("40 of 40 requests answered");
}

#[test]
fn records_files_from_one_port_as_complete_in_single_port_mode() {
    let daemon = Rtftp::start_with("127.0.0.1", 3600, &["--single-port"]);
    let mut client = daemon.client("127.0.0.7");
    for file in 0..40 {
        daemon.put(&format!("default/{file}"), "short");
        assert_eq!(client.exchange(&rrq(&file.to_string(), &[])).block(), 1);
        client.reply(&ack(1));
    }
    daemon.logged(&["default/", " 39 ", "complete"]);
    assert_eq!(daemon.log_lines(&["complete"]).len(), 40);
}

#[test]
fn warns_about_limit_per_client() {
    let daemon = Rtftp::start_with("127.0.0.1", 3600, &["--max-per-client", "1"]);
    daemon.put("default/f", noise(5000, 7));
    let mut first = daemon.client("127.0.0.7");
    first.exchange(&rrq("f", &[]));
    first.acknowledge(1);
    for _ in 0..5 {
        assert_eq!(daemon.client("127.0.0.7").exchange(&rrq("f", &[])).code(), 0);
    }
    daemon.logged(&["WARN", "127.0.0.7", "too many transfers to this client", "--max-per-client"]);
    assert_eq!(daemon.log_lines(&["WARN", "--max-per-client"]).len(), 1, "more than one warning a minute");
}

/// Sends requests with random source addresses at a rate until a point in time. Returns the number sent.
fn flood(server: SocketAddr, seed: u64, per_second: u32, until: Instant) -> u64 {
    // On all addresses, so that each datagram can have its own source.
    let socket = UdpSocket::bind("0.0.0.0:0").expect("a port");
    let (request, started) = (rrq("f", &[]), Instant::now());
    let SocketAddr::V4(server) = server else { panic!("an IPv6 address") };
    let server = SockaddrIn::from(server);
    let mut random = noise(4 << 20, seed).into_iter().cycle();
    let mut sent = 0;
    while Instant::now() < until {
        if sent >= (started.elapsed().as_secs_f64() * f64::from(per_second)) as u64 {
            thread::sleep(Duration::from_millis(1));
            continue;
        }
        let mut next = || random.next().unwrap_or(1);
        let source = libc::in_addr { s_addr: u32::from_ne_bytes([127, 64 | next(), next(), next()]) };
        let info = libc::in_pktinfo { ipi_ifindex: 0, ipi_spec_dst: source, ipi_addr: libc::in_addr { s_addr: 0 } };
        let control = [ControlMessage::Ipv4PacketInfo(&info)];
        // Fails for a broadcast address.
        let _ = sendmsg(socket.as_raw_fd(), &[IoSlice::new(&request)], &control, MsgFlags::empty(), Some(&server));
        sent += 1;
    }
    sent
}

/// Measures the time until the first reply to new honest clients, which repeat their requests after 250 ms.
fn waits(daemon: &Rtftp, file: &[u8], until: Instant) -> Vec<Duration> {
    let mut waits = vec![];
    while Instant::now() < until {
        let from = format!("127.1.{}.{}", waits.len() / 250, 1 + waits.len() % 250);
        let (mut client, begin) = (Client::new(&from, daemon.address()), Instant::now());
        let first = client.request_until_answered(&rrq("f", &[]), Duration::from_secs(20));
        waits.push(begin.elapsed());
        assert_same(&client.finish(first).expect("the file"), file, &from);
    }
    waits.sort();
    waits
}

#[test]
fn flood_of_random_addresses_delays_honest_clients_little() {
    const DURATION: Duration = Duration::from_secs(8);

    let daemon = Rtftp::start_with("0.0.0.0", 3600, &[]);
    let file = noise(2000, 7);
    daemon.put("default/f", &file);
    let server = ([127, 0, 0, 1], daemon.address().port()).into();
    let rate = std::env::var("FLOOD_RATE").ok().and_then(|rate| rate.parse().ok()).unwrap_or(10_000);
    // The flood ends by itself, also if an honest client fails.
    let until = Instant::now() + DURATION;
    let (sent, waits) = thread::scope(|scope| {
        let flood = scope.spawn(|| flood(server, 1, rate, until));
        let waits = waits(&daemon, &file, until);
        (flood.join().expect("a flood"), waits)
    });
    let (median, worst) = (waits[waits.len() / 2], waits[waits.len() - 1]);
    println!(
        "{} forged requests per second, {} honest ones: median {median:?}, worst {worst:?}",
        sent / DURATION.as_secs(),
        waits.len()
    );
    assert!(median < Duration::from_secs(1) && worst < WORST_WAIT, "honest clients waited {median:?}, worst {worst:?}");
}
