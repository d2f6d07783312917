//! `--single-port`: all transfers come from the port that requests go to.

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

/// How long nothing must come, where nothing must come.
const A_WHILE: Duration = Duration::from_millis(300);

/// A daemon on all addresses with one file `default/f` of this length.
fn serving(len: usize) -> (Rtftp, Vec<u8>) {
    let daemon = Rtftp::start_with("::", 3600, &["--single-port"]);
    let file = noise(len, 7);
    daemon.put("default/f", &file);
    (daemon, file)
}

/// A client that hears only what comes from the address and port that it asks.
fn client(daemon: &Rtftp, from: &str, to: &str) -> Client {
    let to: IpAddr = to.parse().expect("an address");
    Client::new(from, (to, daemon.address().port()).into()).behind_nat()
}

/// Whether nothing comes for a while.
fn is_silent(client: &mut Client) -> bool {
    client.receive_within(A_WHILE).is_none()
}

#[test]
fn all_answers_come_from_the_address_and_port_that_was_asked() {
    let (daemon, file) = serving(100_000);
    for (from, to) in [("127.0.0.7", "127.0.0.1"), ("127.0.0.7", "127.0.0.5"), ("::1", "::1")] {
        for options in [&[][..], &[("blksize", "1468")], &[("blksize", "65464")]] {
            let got = client(&daemon, from, to).fetch("f", options).expect("the file");
            assert_same(&got, &file, to);
        }
        // ERRORs, too.
        assert_eq!(client(&daemon, from, to).exchange(&rrq("missing", &[])).code(), 1);
        assert_eq!(client(&daemon, from, to).exchange(b"\0\x02f\0octet\0").code(), 2);
        assert_eq!(client(&daemon, from, to).exchange(b"nonsense").code(), 4);
    }
}

#[test]
fn one_address_can_be_listened_on() {
    for ip in ["127.0.0.5", "::1"] {
        let daemon = Rtftp::start_with(ip, 3600, &["--single-port"]);
        daemon.put("default/f", "short");
        assert_eq!(client(&daemon, ip, ip).fetch("f", &[]).as_deref(), Ok(&b"short"[..]));
    }
}

#[test]
fn transfers_are_told_apart_by_address_and_by_port() {
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
    // Block by block, in turn.
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
fn who_has_no_part_in_a_transfer_changes_nothing() {
    let (daemon, file) = serving(2000);
    let mut board = client(&daemon, "127.0.0.7", "127.0.0.1");
    let first = board.exchange(&rrq("f", &[]));
    assert_eq!(first.block(), 1);
    let port = board.address().port();
    let at = |to: [u8; 4]| SocketAddr::new(IpAddr::from(to), daemon.address().port());
    // Another address with the same port; another port of the same address; another address of ours.
    let mut strangers = [
        Client::at(SocketAddr::new(IpAddr::from([127, 0, 0, 8]), port), at([127, 0, 0, 1])),
        Client::new("127.0.0.7", at([127, 0, 0, 1])),
    ];
    for stranger in &strangers {
        stranger.request(&ack(1));
        stranger.request(&error(0, "go away"));
    }
    // The board first, whose block is sent again after a second.
    assert!(is_silent(&mut board), "nobody has acknowledged anything");
    assert!(strangers.iter_mut().all(is_silent));
    assert_same(&board.finish(first).expect("the file"), &file, "undisturbed");
}

#[test]
fn word_to_another_address_of_ours_is_not_for_the_transfer() {
    let (daemon, file) = serving(2000);
    let port = daemon.address().port();
    let mut board = Client::new("127.0.0.7", SocketAddr::new(IpAddr::from([127, 0, 0, 1]), port));
    let first = board.exchange(&rrq("f", &[]));
    board.send_to(&error(0, "go away"), SocketAddr::new(IpAddr::from([127, 0, 0, 5]), port));
    assert_same(&board.finish(first).expect("the file"), &file, "undisturbed");
}

#[test]
fn a_late_ack_is_met_with_silence() {
    let (daemon, _) = serving(10);
    let mut board = client(&daemon, "127.0.0.7", "127.0.0.1");
    assert_eq!(board.exchange(&rrq("f", &[])).block(), 1);
    board.reply(&ack(1));
    daemon.logged(&["127.0.0.7", "complete"]);
    board.reply(&ack(1));
    assert!(is_silent(&mut board));
    // The port is free for the next file.
    assert_eq!(board.exchange(&rrq("f", &[])).block(), 1);
}

#[test]
fn a_client_ends_its_transfer_or_asks_again_from_the_same_port() {
    let (daemon, file) = serving(2000);
    daemon.put("default/other", "other");
    let mut board = client(&daemon, "127.0.0.7", "127.0.0.1");
    assert_eq!(board.exchange(&rrq("f", &[])).block(), 1);
    board.request(&rrq("f", &[]));
    assert_eq!(board.acknowledge(1).block(), 2, "a copy of the request is nothing new");
    assert_eq!(board.exchange(&rrq("other", &[])), Answer::Data(1, b"other".into()));
    daemon.logged(&["replaced by the client's next request"]);
    board.reply(&error(3, "enough"));
    daemon.logged(&["other", "ended by the client with error 3"]);
    assert_same(&board.fetch("f", &[]).expect("the file"), &file, "from the same port");
}

#[test]
fn running_transfers_come_to_their_end_when_the_daemon_stops() {
    let (daemon, file) = serving(5000);
    let mut board = client(&daemon, "127.0.0.7", "127.0.0.1");
    let first = board.exchange(&rrq("f", &[]));
    daemon.process().signal(Signal::SIGTERM);
    daemon.logged(&["stopping"]);
    let mut late = client(&daemon, "127.0.0.8", "127.0.0.1");
    late.request(&rrq("f", &[]));
    assert!(is_silent(&mut late), "no new ones");
    assert_same(&board.finish(first).expect("the file"), &file, "within the grace");
    daemon.logged(&["127.0.0.7", "complete"]);
}

#[test]
fn real_clients_fetch_files() {
    let daemon = Rtftp::start_with("127.0.0.1", 3600, &["--single-port"]);
    let expected = noise(1_000_000, 1);
    daemon.put("default/f", &expected);
    for tool in ALL_CLIENT_PROGRAMS {
        let got = tool.fetch(&daemon, "f").unwrap_or_else(|said| panic!("{tool:?}: {said}"));
        assert_same(&got, &expected, &format!("{tool:?}"));
    }
}

#[test]
fn two_hundred_boards_are_served_at_once_in_windows_and_with_loss() {
    let daemon = Rtftp::start_with("0.0.0.0", 3600, &["--single-port"]);
    let file = noise(1_000_000, 9);
    daemon.put("default/f", &file);
    let (timeout, limit) = (Duration::from_millis(300), Duration::from_secs(60));
    let server = SocketAddr::new(IpAddr::from([127, 0, 0, 1]), daemon.address().port());
    let load =
        Load { clients: 200, times: 1, name: "f", blksize: 1468, windowsize: 1, gro: false, loss: 0.0, timeout, limit };
    for (windowsize, loss) in [(1, 0.0), (16, 0.0), (64, 0.0), (1, 0.01), (16, 0.01), (64, 0.01)] {
        let report = Load { windowsize, loss, ..load.clone() }.run(server, &file).expect("sockets");
        println!("window {windowsize}, loss {loss}: {:?}, {} repeated", report.wall, report.repeated);
        assert_eq!(
            (report.complete.len(), &report.failed),
            (200, &(0, String::new())),
            "window {windowsize}, loss {loss}"
        );
    }
}

#[test]
fn over_a_network_card_blocks_of_every_size_arrive() {
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
fn link_local_addresses_are_served() {
    VethNetwork::test(&["--single-port"], |cable| {
        cable.daemon().put("default/f", "short");
        let scope = if_nametoindex("board").expect("the card");
        let at = |ip: &str, port| SocketAddrV6::new(ip.parse().expect("an address"), port, 0, scope).into();
        let server = at("fe80::1", cable.daemon().address().port());
        let mut client = Client::at(at("fe80::5", 0), server).behind_nat();
        assert_eq!(client.fetch("f", &[]).as_deref(), Ok(&b"short"[..]));
    });
}

#[test]
fn transfers_leave_no_descriptor_behind() {
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
    poll_until("the end of all", Duration::from_secs(5), || (sockets() == before).then_some(()));
}
