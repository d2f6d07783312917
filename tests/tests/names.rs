//! The names of clients, and the addresses, ports and block sizes of transfers, on real networks.

use std::{
    collections::HashSet,
    io::Read,
    net::{IpAddr, UdpSocket},
    os::unix::net::UnixStream,
};

use nix::net::if_::if_nametoindex;
use rtftp_tests::{
    Answer, BOARD_MAC, Client, DiskConfig, NbdServer, Rtftp, VethNetwork, assert_same, board_config, board_disk,
    closed_port, noise,
    raw_client::{ack, error, rrq},
};
use tempfile::TempDir;

#[test]
fn serves_directory_named_after_mac_for_all_addresses() {
    VethNetwork::test(&[], |cable| {
        let daemon = cable.daemon();
        daemon.put(&format!("{BOARD_MAC}/file"), "MAC");
        daemon.put("02-00-00-00-00-06/other", "another MAC");
        daemon.put("default/file", "default");
        daemon.put("default/common", "common");
        for from in ["10.9.0.5", "10.9.0.6", "fd09::5"] {
            assert_eq!(cable.fetch(from, "file").as_deref(), Ok("MAC"), "{from}");
            assert_eq!(cable.fetch(from, "common").as_deref(), Ok("common"), "{from}");
            assert_eq!(cable.fetch(from, "other"), Err(1), "{from}");
        }
        let interface = if_nametoindex("board").expect("an interface");
        let mut link_local = cable.client("::", &format!("[fe80::1%{interface}]"));
        assert_eq!(link_local.exchange(&rrq("file", &[])), Answer::Data(1, b"MAC".into()));
        daemon.logged(&["10.9.0.5", &format!("file from {BOARD_MAC}/"), "complete"]);
        daemon.put("10.9.0.5/file", "address");
        assert_eq!(cable.fetch("10.9.0.5", "file").as_deref(), Ok("address"));
        assert_eq!(cable.fetch("10.9.0.6", "file").as_deref(), Ok("MAC"));
    });
}

#[test]
fn serves_disk_named_after_mac() {
    VethNetwork::test(&["--view-gap", "0"], |cable| {
        let disk = board_disk(1);
        let server = NbdServer::unix(&disk);
        let daemon = cable.daemon();
        daemon.connect_disk(BOARD_MAC, &board_config(&server).tftp_root("/boot"));
        daemon.put(&format!("{BOARD_MAC}/f1"), "directory");
        daemon.put("9ffefdef/name", "serial number");
        assert_eq!(cable.fetch("10.9.0.5", "f1").as_deref(), Ok("directory"));
        assert_eq!(cable.fetch("10.9.0.5", "dir/name").as_deref(), Ok("board 1"));
        assert_eq!(cable.fetch("10.9.0.5", "9ffefdef/name").as_deref(), Ok("serial number"));
        daemon.logged(&["10.9.0.5", &format!("dir/name from {BOARD_MAC}.nbd"), "complete"]);
        daemon.put("default/dir/name", "default");
        daemon.put_disk(BOARD_MAC, &DiskConfig::new("nbd+unix:///?socket=/nowhere").partition(1, "/"));
        assert_eq!(cable.fetch("10.9.0.5", "dir/name"), Err(0), "the client's own disk is down");
    });
}

#[test]
fn mac_prefix_of_a_raspberry_pi_opens_only_its_own_root() {
    VethNetwork::test(&["--view-gap", "0"], |cable| {
        let (disk, other) = (board_disk(1), "02-00-00-00-00-06");
        let server = NbdServer::unix(&disk);
        let daemon = cable.daemon();
        daemon.connect_disk(BOARD_MAC, &board_config(&server).tftp_root("/boot"));
        daemon.put(&format!("{BOARD_MAC}/start4.elf"), "own");
        daemon.put(&format!("{BOARD_MAC}/{BOARD_MAC}/config.txt"), "with the prefix");
        daemon.put(&format!("{BOARD_MAC}/config.txt"), "without");
        daemon.put(&format!("{other}/secret"), "another board's");
        daemon.put(&format!("default/{BOARD_MAC}/common"), "common");
        for from in ["10.9.0.5", "fd09::5"] {
            let fetch = |mac: &str, name: &str| cable.fetch(from, &format!("{mac}/{name}"));
            assert_eq!(fetch(BOARD_MAC, "start4.elf").as_deref(), Ok("own"), "{from}");
            assert_eq!(fetch(BOARD_MAC, "dir/name").as_deref(), Ok("board 1"), "{from}");
            assert_eq!(fetch(BOARD_MAC, "config.txt").as_deref(), Ok("with the prefix"), "{from}");
            assert_eq!(fetch(BOARD_MAC, "common").as_deref(), Ok("common"), "{from}");
            for name in ["secret", "start4.elf"] {
                assert_eq!(fetch(other, name), Err(1), "{from}: {name}");
            }
        }
        daemon.logged(&["10.9.0.5", &format!("{BOARD_MAC}/start4.elf from {BOARD_MAC}/"), "complete"]);
    });
}

#[test]
fn link_local_address_has_one_name_on_every_interface() {
    let directory = TempDir::new().expect("a directory");
    let socket = directory.path().join("status.sock");
    VethNetwork::test(&["--status-socket", socket.to_str().expect("UTF-8")], |cable| {
        let daemon = cable.daemon();
        daemon.put("fe80::5/file", "link-local");
        daemon.put("fe80::5%server/file", "misspelled");
        daemon.logged(&["fe80::5%server: ignored: rename to fe80::5"]);
        let interface = if_nametoindex("board").expect("an interface");
        let mut client = cable.client(&format!("fe80::5%{interface}"), &format!("[fe80::1%{interface}]"));
        assert_eq!(client.exchange(&rrq("file", &[])), Answer::Data(1, b"link-local".into()));
        client.reply(&ack(1));
        daemon.logged(&["[fe80::5%", "file from fe80::5/", "complete"]);
        let mut history = String::new();
        UnixStream::connect(&socket).and_then(|mut status| status.read_to_string(&mut history)).expect("a snapshot");
        assert!(history.contains(r#""client":"fe80::5""#), "{history}");
    });
}

#[test]
fn resolves_mac_missing_from_neighbour_table() {
    VethNetwork::test(&[], |cable| {
        let daemon = cable.daemon();
        daemon.put(&format!("{BOARD_MAC}/file"), "MAC");
        daemon.put("default/file", "default");
        // The board has a static entry for the server: an ARP request for it would reveal the board's own MAC address.
        cable.run_on_server("ip link set server address 02:00:00:00:00:01");
        for (own, daemons) in [("10.9.0.5", "10.9.0.1"), ("fd09::5", "fd09::1")] {
            cable.run_on_board(&format!("ip neighbour replace {daemons} lladdr 02:00:00:00:00:01 dev board"));
            for _ in 0..3 {
                cable.run_on_server("ip neighbour flush dev server");
                assert_eq!(cable.fetch(own, "file").as_deref(), Ok("MAC"), "{own}");
            }
        }
    });
}

#[test]
fn ignores_mac_of_a_router() {
    VethNetwork::test(&[], |cable| {
        let daemon = cable.daemon();
        daemon.put(&format!("{BOARD_MAC}/file"), "router");
        daemon.put("default/file", "default");
        cable.run_on_board("ip address add 10.10.0.7/32 dev board");
        cable.run_on_server("ip route add 10.10.0.0/24 via 10.9.0.5");
        assert_eq!(cable.fetch("10.10.0.7", "file").as_deref(), Ok("default"));
        assert_eq!(cable.fetch("10.9.0.5", "file").as_deref(), Ok("router"));
    });
}

#[test]
fn serves_directory_and_disk_named_after_serial_number() {
    let disk = board_disk(2);
    let server = NbdServer::nbdkit(&disk);
    let daemon = Rtftp::start_with("127.0.0.1", 3600, &["--view-gap", "0"]);
    daemon.put("9ffefdef/start4.elf", "directory");
    daemon.put("default/9ffefdef/common", "common");
    daemon.put("default/dir/name", "default");
    daemon.connect_disk("9ffefdef", &board_config(&server).tftp_root("/boot"));
    for from in ["127.0.0.7", "127.0.0.8"] {
        assert_eq!(daemon.fetch(from, "9ffefdef/start4.elf").as_deref(), Ok("directory"));
        assert_eq!(daemon.fetch(from, "9ffefdef/dir/name").as_deref(), Ok("board 2"));
        assert_eq!(daemon.fetch(from, "/9ffefdef//dir\\name").as_deref(), Ok("board 2"));
        assert_eq!(daemon.fetch(from, "9ffefdef/common").as_deref(), Ok("common"));
        assert_eq!(daemon.fetch(from, "9ffefdef/../9ffefdee/dir/name"), Err(1));
        // A board omits the serial number if it finds no start4.elf below it.
        assert_eq!(daemon.fetch(from, "dir/name").as_deref(), Ok("default"));
        assert_eq!(daemon.fetch(from, "start4.elf"), Err(1));
    }
    daemon.logged(&["127.0.0.7", "9ffefdef/start4.elf from 9ffefdef/", "complete"]);
    daemon.logged(&["127.0.0.7", "9ffefdef/dir/name from 9ffefdef.nbd", "complete"]);
    daemon.put("127.0.0.8/9ffefdef/dir/name", "address");
    assert_eq!(daemon.fetch("127.0.0.8", "9ffefdef/dir/name").as_deref(), Ok("address"));
    assert_eq!(daemon.fetch("127.0.0.7", "9ffefdef/dir/name").as_deref(), Ok("board 2"));
}

#[test]
fn unavailable_disk_of_serial_number_ends_the_search() {
    let daemon = Rtftp::start();
    daemon.put_disk("9ffefdef", &DiskConfig::new(closed_port()).partition(1, "/"));
    daemon.put("default/9ffefdef/start4.elf", "default");
    assert_eq!(daemon.fetch("127.0.0.7", "9ffefdef/start4.elf"), Err(0));
}

#[test]
fn logs_intended_name_of_misspelled_entries() {
    let daemon = Rtftp::start();
    for (entry, intended) in [
        ("9FFEFDEF.nbd", "9ffefdef.nbd"),
        ("10000000abcdef01.nbd", "abcdef01.nbd"),
        ("DC-A6-32-01-36-C2.nbd", "dc-a6-32-01-36-c2.nbd"),
        ("dc:a6:32:01:36:c3/file", "dc-a6-32-01-36-c3"),
        ("FE80::1/file", "fe80::1"),
    ] {
        daemon.put(entry, "{}");
        let name = entry.split('/').next().expect("a name");
        daemon.logged(&[&format!("{name}: ignored: rename to {intended}")]);
    }
}

#[test]
fn transfers_use_only_the_port_range() {
    // Three consecutive free ports; the middle one is in use by this test.
    let ports = std::iter::repeat_with(|| {
        let port = |port| UdpSocket::bind(("127.0.0.1", port));
        let first = port(0).ok()?;
        let number = first.local_addr().ok()?.port();
        let (middle, _last) = (port(number.checked_add(1)?).ok()?, port(number.checked_add(2)?).ok()?);
        Some((number, middle))
    });
    let (first, _middle) = ports.take(1000).flatten().next().expect("three consecutive ports");
    let daemon = Rtftp::start_with("127.0.0.1", 3600, &["--port-range", &format!("{first}-{}", first + 2)]);
    daemon.put("default/file", noise(5000, 7));
    let (mut one, mut other, mut third) =
        (daemon.client("127.0.0.7"), daemon.client("127.0.0.8"), daemon.client("127.0.0.9"));
    let transfer_port = |client: &mut Client| {
        assert_eq!(client.exchange(&rrq("file", &[])).block(), 1);
        client.peer().port()
    };
    let used = HashSet::from([transfer_port(&mut one), transfer_port(&mut other)]);
    assert_eq!(used, HashSet::from([first, first + 2]));
    third.request(&rrq("file", &[]));
    let all = format!("all ports from {first} to {} are in use", first + 2);
    daemon.logged(&["127.0.0.9", "no port for a transfer", &all]);
    let freed = one.peer().port();
    one.reply(&error(0, "enough"));
    daemon.logged(&["127.0.0.7", "file"]);
    assert_eq!(transfer_port(&mut third), freed);
}

#[test]
fn new_clients_get_the_ports_of_unverified_ones() {
    let free = UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a free port").port();
    let daemon = Rtftp::start_with("127.0.0.1", 3600, &["--port-range", &format!("{free}-{free}")]);
    daemon.put("default/file", "file");
    daemon.client("127.0.0.7").exchange(&rrq("file", &[]));
    let mut client = daemon.client("127.0.0.8");
    assert_eq!(client.fetch("file", &[]).as_deref(), Ok(&b"file"[..]));
    assert_eq!(client.peer().port(), free);
}

#[test]
fn names_the_reason_why_packets_were_not_sent() {
    VethNetwork::test(&[], |cable| {
        cable.daemon().put("default/file", [7; 2000]);
        let mut client = cable.client("10.9.0.5", "10.9.0.1");
        assert_eq!(client.exchange(&rrq("file", &[])).block(), 1);
        // As a rule of the local firewall: the kernel refuses to send.
        cable.run_on_server("ip route add prohibit 10.9.0.5/32");
        client.reply(&ack(1));
        client.reply(&error(0, "no packets"));
        let line = cable.daemon().logged(&["file from default/", "not sent"]);
        assert!(line.ends_with("error 0; the last packet was not sent: Permission denied (os error 13)"), "{line}");
    });
}

#[test]
fn mtu_clamp_limits_block_size_to_path_mtu() {
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
        assert_eq!(granted("10.10.0.7", "1468"), 1280 - 32, "the path MTU of the route");
        cable.run_on_server("ip link set server mtu 1400");
        assert_eq!(granted("10.9.0.5", "65464"), 1400 - 32);
        let got = cable.client("10.9.0.5", "10.9.0.1").fetch("file", &[("blksize", "65464")]).expect("the file");
        assert_same(&got, &file, "in unfragmented blocks");
        assert_eq!(cable.fragments(), 0);
    });
    VethNetwork::test(&[], |cable| {
        cable.daemon().put("default/file", &file);
        let mut client = cable.client("10.9.0.5", "10.9.0.1");
        let granted = client.exchange(&rrq("file", &[("blksize", "8192")]));
        assert_eq!(granted, Answer::oack(&[("blksize", "8192")]), "without --mtu-clamp");
        assert_same(&client.finish(granted).expect("the file"), &file, "in fragments");
        assert_ne!(cable.fragments(), 0);
    });
}
