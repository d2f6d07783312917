//! `--single-port`: all transfers use the listening port.

use std::{
    net::{IpAddr, SocketAddr, SocketAddrV6},
    thread,
    time::Duration,
};

use nix::{net::if_::if_nametoindex, sys::signal::Signal};
use rtftp_tests::{
    Answer, Client, Rtftp, VethNetwork, assert_same,
    client_programs::ALL_CLIENT_PROGRAMS,
    load_client::Load,
    noise, poll_until,
    raw_client::{ack, error, rrq},
};

/// The time without a datagram after which a client counts as receiving none.
const SILENCE: Duration = Duration::from_millis(300);

/// Starts a daemon on all addresses with one file `default/f` of this length.
fn serving(len: usize) -> (Rtftp, Vec<u8>) {
    let daemon = Rtftp::start_with("::", 3600, &["--single-port"]);
    let file = noise(len, 7);
    daemon.put("default/f", &file);
    (daemon, file)
}

/// Returns a client that receives only from the address and port of the server.
fn client(daemon: &Rtftp, from: &str, to: &str) -> Client {
    let to: IpAddr = to.parse().expect("an address");
    Client::new(from, (to, daemon.address().port()).into()).behind_nat()
}

/// Returns whether a client receives nothing for some time.
fn receives_nothing(client: &mut Client) -> bool {
    client.receive_within(SILENCE).is_none()
}

#[test]
fn replies_come_from_requested_address_and_port() {
    let (daemon, file) = serving(100_000);
    for (from, to) in [("127.0.0.7", "127.0.0.1"), ("127.0.0.7", "127.0.0.5"), ("::1", "::1")] {
        for options in [&[][..], &[("blksize", "1468")], &[("blksize", "65464")]] {
            let got = client(&daemon, from, to).fetch("f", options).expect("the file");
            assert_same(&got, &file, to);
        }
        // ERROR packets, too.
        assert_eq!(client(&daemon, from, to).exchange(&rrq("missing", &[])).code(), 1);
        assert_eq!(client(&daemon, from, to).exchange(b"\0\x02f\0octet\0").code(), 2);
        assert_eq!(client(&daemon, from, to).exchange(b"nonsense").code(), 4);
    }
}

#[test]
fn listens_on_one_address() {
    for ip in ["127.0.0.5", "::1"] {
        let daemon = Rtftp::start_with(ip, 3600, &["--single-port"]);
        daemon.put("default/f", "short");
        assert_eq!(client(&daemon, ip, ip).fetch("f", &[]).as_deref(), Ok(&b"short"[..]));
    }
}

#[test]
fn distinguishes_transfers_by_address_and_port() {
    let (daemon, file) = serving(20_000);
    let other_file = noise(20_000, 8);
    daemon.put("127.0.0.8/f", &other_file);
    let first = client(&daemon, "127.0.0.7", "127.0.0.1");
    let same_port = SocketAddr::new(IpAddr::from([127, 0, 0, 8]), first.address().port());
    let server = SocketAddr::new(IpAddr::from([127, 0, 0, 1]), daemon.address().port());
    let mut clients = [
        (first, &file),
        (Client::at(same_port, server).behind_nat(), &other_file),
        (client(&daemon, "127.0.0.7", "127.0.0.1"), &file),
    ];
    let mut got = [const { Vec::new() }; 3];
    // One block of each transfer in rotation.
    for block in 0..=20_000 / 512 {
        for ((client, _), got) in clients.iter_mut().zip(&mut got) {
            let request = rrq("f", &[]);
            let answer = if block == 0 { client.exchange(&request) } else { client.acknowledge(block) };
            assert_eq!(answer.block(), block + 1);
            if let Answer::Data(_, bytes) = answer {
                got.extend(bytes);
            }
        }
    }
    for ((client, file), got) in clients.iter().zip(got) {
        client.reply(&ack(40));
        assert_same(&got, file, &client.address().to_string());
        daemon.logged(&[&client.address().to_string(), "20000 bytes", "complete"]);
    }
}

#[test]
fn ignores_unknown_sources() {
    let (daemon, file) = serving(2000);
    let mut board = client(&daemon, "127.0.0.7", "127.0.0.1");
    let first = board.exchange(&rrq("f", &[]));
    assert_eq!(first.block(), 1);
    let port = board.address().port();
    let at = |to: [u8; 4]| SocketAddr::new(IpAddr::from(to), daemon.address().port());
    // Another address with the same port; another port of the same address.
    let mut unknown = [
        Client::at(SocketAddr::new(IpAddr::from([127, 0, 0, 8]), port), at([127, 0, 0, 1])),
        Client::new("127.0.0.7", at([127, 0, 0, 1])),
    ];
    for source in &unknown {
        source.request(&ack(1));
        source.request(&error(0, "abort"));
    }
    // The board first: its block is retransmitted after a second.
    assert!(receives_nothing(&mut board), "an unknown source acknowledged the block");
    assert!(unknown.iter_mut().all(receives_nothing));
    assert_same(&board.finish(first).expect("the file"), &file, "undisturbed");
}

#[test]
fn ignores_datagrams_to_another_server_address() {
    let (daemon, file) = serving(2000);
    let port = daemon.address().port();
    let mut board = Client::new("127.0.0.7", SocketAddr::new(IpAddr::from([127, 0, 0, 1]), port));
    let first = board.exchange(&rrq("f", &[]));
    board.send_to(&error(0, "abort"), SocketAddr::new(IpAddr::from([127, 0, 0, 5]), port));
    assert_same(&board.finish(first).expect("the file"), &file, "undisturbed");
}

#[test]
fn does_not_reply_to_late_ack() {
    let (daemon, _) = serving(10);
    let mut board = client(&daemon, "127.0.0.7", "127.0.0.1");
    assert_eq!(board.exchange(&rrq("f", &[])).block(), 1);
    board.reply(&ack(1));
    daemon.logged(&["127.0.0.7", "complete"]);
    board.reply(&ack(1));
    assert!(receives_nothing(&mut board));
    // The client's port can be used for the next file.
    assert_eq!(board.exchange(&rrq("f", &[])).block(), 1);
}

#[test]
fn client_ends_or_replaces_transfer_from_the_same_port() {
    let (daemon, file) = serving(2000);
    daemon.put("default/other", "other");
    let mut board = client(&daemon, "127.0.0.7", "127.0.0.1");
    assert_eq!(board.exchange(&rrq("f", &[])).block(), 1);
    board.request(&rrq("f", &[]));
    assert_eq!(board.acknowledge(1).block(), 2, "a duplicate request restarted the transfer");
    assert_eq!(board.exchange(&rrq("other", &[])), Answer::Data(1, b"other".into()));
    daemon.logged(&["replaced by the client's next request"]);
    board.reply(&error(3, "enough"));
    daemon.logged(&["other", "ended by the client with error 3"]);
    assert_same(&board.fetch("f", &[]).expect("the file"), &file, "from the same port");
}

#[test]
fn completes_running_transfers_when_the_daemon_stops() {
    let (daemon, file) = serving(5000);
    let mut board = client(&daemon, "127.0.0.7", "127.0.0.1");
    let first = board.exchange(&rrq("f", &[]));
    daemon.process().signal(Signal::SIGTERM);
    daemon.logged(&["stopping"]);
    let mut late = client(&daemon, "127.0.0.8", "127.0.0.1");
    late.request(&rrq("f", &[]));
    assert!(receives_nothing(&mut late), "a new transfer started");
    assert_same(&board.finish(first).expect("the file"), &file, "within the grace period");
    daemon.logged(&["127.0.0.7", "complete"]);
}

#[test]
fn serves_real_client_programs() {
    let daemon = Rtftp::start_with("127.0.0.1", 3600, &["--single-port"]);
    let expected = noise(1_000_000, 1);
    daemon.put("default/f", &expected);
    for tool in ALL_CLIENT_PROGRAMS {
        let got = tool.fetch(&daemon, "f").unwrap_or_else(|error| panic!("{tool:?}: {error}"));
        assert_same(&got, &expected, &format!("{tool:?}"));
    }
}

#[test]
fn serves_200_boards_at_once_with_windows_and_loss() {
    let daemon = Rtftp::start_with("0.0.0.0", 3600, &["--single-port"]);
    let file = noise(1_000_000, 9);
    daemon.put("default/f", &file);
    let (timeout, limit) = (Duration::from_millis(300), Duration::from_secs(60));
    let server = SocketAddr::new(IpAddr::from([127, 0, 0, 1]), daemon.address().port());
    let load =
        Load { clients: 200, times: 1, name: "f", blksize: 1468, windowsize: 1, gro: false, loss: 0.0, timeout, limit };
    for (windowsize, loss) in [(1, 0.0), (16, 0.0), (64, 0.0), (1, 0.01), (16, 0.01), (64, 0.01)] {
        let report = Load { windowsize, loss, ..load.clone() }.run(server, &file).expect("sockets");
        println!("window {windowsize}, loss {loss}: {:?}, {} retransmitted", report.wall, report.repeated);
        assert_eq!(
            (report.complete.len(), &report.failed),
            (200, &(0, String::new())),
            "window {windowsize}, loss {loss}"
        );
    }
}

#[test]
fn sends_blocks_of_any_size_over_a_network_interface() {
    let file = noise(3 << 20, 7);
    VethNetwork::test(&["--single-port"], |cable| {
        cable.daemon().put("default/f", &file);
        thread::scope(|scope| {
            for (from, to) in [("10.9.0.5", "10.9.0.1"), ("fd09::5", "[fd09::1]")] {
                for blksize in ["1428", "8192"] {
                    let (mut client, file) = (cable.client(from, to).behind_nat(), &file);
                    scope.spawn(move || {
                        let got = client.fetch("f", &[("blksize", blksize)]).expect("the file");
                        assert_same(&got, file, &format!("{from} in blocks of {blksize}"));
                    });
                }
            }
        });
    });
}

#[test]
fn serves_link_local_addresses() {
    VethNetwork::test(&["--single-port"], |cable| {
        cable.daemon().put("default/f", "short");
        let scope = if_nametoindex("board").expect("an interface");
        let at = |ip: &str, port| SocketAddrV6::new(ip.parse().expect("an address"), port, 0, scope).into();
        let server = at("fe80::1", cable.daemon().address().port());
        let mut client = Client::at(at("fe80::5", 0), server).behind_nat();
        assert_eq!(client.fetch("f", &[]).as_deref(), Ok(&b"short"[..]));
    });
}

#[test]
fn transfers_leak_no_descriptors() {
    let (daemon, file) = serving(5000);
    let sockets = || {
        let names = daemon.process().open_files();
        names.iter().filter(|name| name.to_string_lossy().starts_with("socket:")).count()
    };
    let before = sockets();
    for _ in 0..20 {
        assert_same(&client(&daemon, "127.0.0.7", "127.0.0.1").fetch("f", &[]).expect("the file"), &file, "f");
        assert_eq!(client(&daemon, "127.0.0.7", "127.0.0.1").exchange(&rrq("missing", &[])).code(), 1);
    }
    poll_until("the end of all transfers", Duration::from_secs(5), || (sockets() == before).then_some(()));
}
