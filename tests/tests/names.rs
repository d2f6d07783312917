//! What clients are called, and where transfers come from: the network that the daemon is on.

use std::{
    collections::HashSet,
    fs,
    net::{IpAddr, UdpSocket},
};

use nix::net::if_::if_nametoindex;
use rtftp_tests::{
    Answer, BOARD_MAC, Client, DiskConfig, NbdServer, Rtftp, VethNetwork, assert_same, board_config, board_disk,
    closed_port, noise,
    raw_client::{error, rrq},
};

#[test]
fn a_network_card_names_its_client_on_every_address() {
    VethNetwork::test(&[], |cable| {
        let daemon = cable.daemon();
        daemon.put(&format!("{BOARD_MAC}/file"), "of the card");
        daemon.put("02-00-00-00-00-06/other", "of another card");
        daemon.put("default/file", "default");
        daemon.put("default/common", "common");
        for from in ["10.9.0.5", "10.9.0.6", "fd09::5"] {
            assert_eq!(cable.fetch(from, "file").as_deref(), Ok("of the card"), "{from}");
            assert_eq!(cable.fetch(from, "common").as_deref(), Ok("common"), "{from}");
            assert_eq!(cable.fetch(from, "other"), Err(1), "{from}");
        }
        let interface = if_nametoindex("board").expect("an interface");
        let mut link_local = cable.client("::", &format!("[fe80::1%{interface}]"));
        assert_eq!(link_local.exchange(&rrq("file", &[])), Answer::Data(1, b"of the card".into()));
        daemon.logged(&["10.9.0.5", &format!("file from {BOARD_MAC}/"), "complete"]);
        daemon.put("10.9.0.5/file", "of the address");
        assert_eq!(cable.fetch("10.9.0.5", "file").as_deref(), Ok("of the address"));
        assert_eq!(cable.fetch("10.9.0.6", "file").as_deref(), Ok("of the card"));
    });
}

#[test]
fn a_network_card_has_a_disk() {
    VethNetwork::test(&["--view-gap", "0"], |cable| {
        let disk = board_disk(1);
        let server = NbdServer::unix(&disk);
        let daemon = cable.daemon();
        daemon.connect_disk(BOARD_MAC, &board_config(&server).tftp_root("/boot"));
        daemon.put(&format!("{BOARD_MAC}/f1"), "of the directory");
        daemon.put("9ffefdef/name", "of the serial number");
        assert_eq!(cable.fetch("10.9.0.5", "f1").as_deref(), Ok("of the directory"));
        assert_eq!(cable.fetch("10.9.0.5", "dir/name").as_deref(), Ok("board 1"));
        assert_eq!(cable.fetch("10.9.0.5", "9ffefdef/name").as_deref(), Ok("of the serial number"));
        daemon.logged(&["10.9.0.5", &format!("dir/name from {BOARD_MAC}.nbd"), "complete"]);
        daemon.put("default/dir/name", "default");
        daemon.put_disk(BOARD_MAC, &DiskConfig::new("nbd+unix:///?socket=/nowhere").partition(1, "/"));
        assert_eq!(cable.fetch("10.9.0.5", "dir/name"), Err(0), "its own disk is down");
    });
}

#[test]
fn a_card_that_the_kernel_has_forgotten_is_asked_for() {
    VethNetwork::test(&[], |cable| {
        let daemon = cable.daemon();
        daemon.put(&format!("{BOARD_MAC}/file"), "of the card");
        daemon.put("default/file", "default");
        // The test's machine knows the daemon's card, and so never asks for it, which would tell its own.
        cable.run_on_server("ip link set server address 02:00:00:00:00:01");
        for (own, daemons) in [("10.9.0.5", "10.9.0.1"), ("fd09::5", "fd09::1")] {
            cable.run_on_board(&format!("ip neighbour replace {daemons} lladdr 02:00:00:00:00:01 dev board"));
            for _ in 0..3 {
                cable.run_on_server("ip neighbour flush dev server");
                assert_eq!(cable.fetch(own, "file").as_deref(), Ok("of the card"), "{own}");
            }
        }
    });
}

#[test]
fn behind_a_router_there_is_no_card() {
    VethNetwork::test(&[], |cable| {
        let daemon = cable.daemon();
        daemon.put(&format!("{BOARD_MAC}/file"), "of the router's card");
        daemon.put("default/file", "default");
        cable.run_on_board("ip address add 10.10.0.7/32 dev board");
        cable.run_on_server("ip route add 10.10.0.0/24 via 10.9.0.5");
        assert_eq!(cable.fetch("10.10.0.7", "file").as_deref(), Ok("default"));
        assert_eq!(cable.fetch("10.9.0.5", "file").as_deref(), Ok("of the router's card"));
    });
}

#[test]
fn a_serial_number_in_front_of_a_path_names_a_directory_and_a_disk() {
    let disk = board_disk(2);
    let server = NbdServer::nbdkit(&disk);
    let daemon = Rtftp::start_with("127.0.0.1", 3600, &["--view-gap", "0"]);
    daemon.put("9ffefdef/start4.elf", "of the directory");
    daemon.put("default/9ffefdef/common", "common");
    daemon.put("default/dir/name", "default");
    daemon.connect_disk("9ffefdef", &board_config(&server).tftp_root("/boot"));
    for from in ["127.0.0.7", "127.0.0.8"] {
        assert_eq!(daemon.fetch(from, "9ffefdef/start4.elf").as_deref(), Ok("of the directory"));
        assert_eq!(daemon.fetch(from, "9ffefdef/dir/name").as_deref(), Ok("board 2"));
        assert_eq!(daemon.fetch(from, "/9ffefdef//dir\\name").as_deref(), Ok("board 2"));
        assert_eq!(daemon.fetch(from, "9ffefdef/common").as_deref(), Ok("common"));
        assert_eq!(daemon.fetch(from, "9ffefdef/../9ffefdee/dir/name"), Err(1));
        // The prefix is dropped by a board that found no start4.elf behind it.
        assert_eq!(daemon.fetch(from, "dir/name").as_deref(), Ok("default"));
        assert_eq!(daemon.fetch(from, "start4.elf"), Err(1));
    }
    daemon.logged(&["127.0.0.7", "9ffefdef/start4.elf from 9ffefdef/", "complete"]);
    daemon.logged(&["127.0.0.7", "9ffefdef/dir/name from 9ffefdef.nbd", "complete"]);
    daemon.put("127.0.0.8/9ffefdef/dir/name", "of the address");
    assert_eq!(daemon.fetch("127.0.0.8", "9ffefdef/dir/name").as_deref(), Ok("of the address"));
    assert_eq!(daemon.fetch("127.0.0.7", "9ffefdef/dir/name").as_deref(), Ok("board 2"));
}

#[test]
fn a_serial_numbers_disk_that_is_down_is_not_replaced() {
    let daemon = Rtftp::start();
    daemon.put_disk("9ffefdef", &DiskConfig::new(closed_port()).partition(1, "/"));
    daemon.put("default/9ffefdef/start4.elf", "default");
    assert_eq!(daemon.fetch("127.0.0.7", "9ffefdef/start4.elf"), Err(0));
}

#[test]
fn a_name_in_another_spelling_is_told_with_the_right_one() {
    let daemon = Rtftp::start();
    for (entry, right) in [
        ("9FFEFDEF.nbd", "9ffefdef.nbd"),
        ("10000000abcdef01.nbd", "abcdef01.nbd"),
        ("DC-A6-32-01-36-C2.nbd", "dc-a6-32-01-36-c2.nbd"),
        ("dc:a6:32:01:36:c3/file", "dc-a6-32-01-36-c3"),
        ("FE80::1/file", "fe80::1"),
    ] {
        daemon.put(entry, "{}");
        let name = entry.split('/').next().expect("a name");
        daemon.logged(&[&format!("{name}: is not looked at, the name must be written {right}")]);
    }
}

#[test]
fn transfers_come_from_the_range_of_ports() {
    // Three free ports in a row, of which the middle one is taken by somebody else.
    let ports = std::iter::repeat_with(|| {
        let port = |port| UdpSocket::bind(("127.0.0.1", port));
        let first = port(0).ok()?;
        let number = first.local_addr().ok()?.port();
        let (middle, _last) = (port(number.checked_add(1)?).ok()?, port(number.checked_add(2)?).ok()?);
        Some((number, middle))
    });
    let (first, _middle) = ports.take(1000).flatten().next().expect("three ports in a row");
    let daemon = Rtftp::start_with("127.0.0.1", 3600, &["--port-range", &format!("{first}-{}", first + 2)]);
    daemon.put("default/file", noise(5000, 7));
    let (mut one, mut other, mut third) =
        (daemon.client("127.0.0.7"), daemon.client("127.0.0.8"), daemon.client("127.0.0.9"));
    let answered = |client: &mut Client| {
        assert_eq!(client.exchange(&rrq("file", &[])).block(), 1);
        client.peer().port()
    };
    let used = HashSet::from([answered(&mut one), answered(&mut other)]);
    assert_eq!(used, HashSet::from([first, first + 2]));
    third.request(&rrq("file", &[]));
    let all = format!("all ports from {first} to {} are in use", first + 2);
    daemon.logged(&["127.0.0.9", "no port for a transfer", &all]);
    let freed = one.peer().port();
    one.reply(&error(0, "enough"));
    daemon.logged(&["127.0.0.7", "file"]);
    assert_eq!(answered(&mut third), freed);
}

#[test]
fn newcomers_get_the_ports_of_those_who_never_answer() {
    let free = UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a free port").port();
    let daemon = Rtftp::start_with("127.0.0.1", 3600, &["--port-range", &format!("{free}-{free}")]);
    daemon.put("default/file", "file");
    daemon.client("127.0.0.7").exchange(&rrq("file", &[]));
    let mut client = daemon.client("127.0.0.8");
    assert_eq!(client.fetch("file", &[]).as_deref(), Ok(&b"file"[..]));
    assert_eq!(client.peer().port(), free);
}

/// How many fragments the daemon's machine has made of packets (proc(5), `/proc/net/snmp`).
fn fragments(cable: &VethNetwork) -> u64 {
    let id = cable.daemon().process().id();
    let counters = fs::read_to_string(format!("/proc/{id}/net/snmp")).expect("the counters of a network");
    let mut lines = counters.lines().filter_map(|line| line.strip_prefix("Ip:"));
    let (names, values) = (lines.next().expect("names"), lines.next().expect("values"));
    let mut pairs = names.split_whitespace().zip(values.split_whitespace());
    let (_, value) = pairs.find(|(name, _)| *name == "FragCreates").expect("the counter of fragments");
    value.parse().expect("a number")
}

#[test]
fn no_block_is_larger_than_the_way_to_its_client_takes() {
    let file = noise(30_000, 7);
    VethNetwork::test(&["--mtu-clamp"], |cable| {
        cable.daemon().put("default/file", &file);
        let granted = |from: &str, asked: &str| {
            let to = if from.parse().is_ok_and(|ip: IpAddr| ip.is_ipv6()) { "[fd09::1]" } else { "10.9.0.1" };
            match cable.client(from, to).exchange(&rrq("file", &[("blksize", asked)])) {
                Answer::Oack(options) => options[0].1.parse::<u32>().expect("a number"),
                other => panic!("an OACK, not {other:?}"),
            }
        };
        assert_eq!(granted("10.9.0.5", "65464"), 1500 - 32);
        assert_eq!(granted("fd09::5", "65464"), 1500 - 52);
        assert_eq!(granted("10.9.0.5", "1468"), 1468);
        assert_eq!(granted("10.9.0.5", "512"), 512);
        cable.run_on_board("ip address add 10.10.0.7/32 dev board");
        cable.run_on_server("ip route add 10.10.0.0/24 via 10.9.0.5 mtu 1280");
        assert_eq!(granted("10.10.0.7", "1468"), 1280 - 32, "somewhere on the way");
        cable.run_on_server("ip link set server mtu 1400");
        assert_eq!(granted("10.9.0.5", "65464"), 1400 - 32);
        let got = cable.client("10.9.0.5", "10.9.0.1").fetch("file", &[("blksize", "65464")]).expect("the file");
        assert_same(&got, &file, "in blocks of the largest size");
        assert_eq!(fragments(cable), 0);
    });
    VethNetwork::test(&[], |cable| {
        cable.daemon().put("default/file", &file);
        let mut client = cable.client("10.9.0.5", "10.9.0.1");
        let granted = client.exchange(&rrq("file", &[("blksize", "8192")]));
        assert_eq!(granted, Answer::oack(&[("blksize", "8192")]), "unless it is asked for");
        assert_same(&client.finish(granted).expect("the file"), &file, "in fragments");
        assert_ne!(fragments(cable), 0);
    });
}
