//! Failures of rtftp-get: error messages, ERROR packets to the server, and no remaining files.

use std::{
    net::UdpSocket,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use rtftp_tests::{
    GetResult, RtftpGet, ScriptedServer, VethNetwork, assert_same, can_unshare, noise, poll_until,
    raw_client::{ack, error},
};

/// An OACK that grants the default options for a file of 10,000 bytes.
const OACK: &[u8] = b"\0\x06tsize\x0010000\0blksize\x001428\0windowsize\x0016\0";

/// Returns a DATA packet with `len` bytes.
fn data(block: u16, len: usize) -> Vec<u8> {
    [&[0, 3], &block.to_be_bytes()[..], &noise(len, 1)].concat()
}

/// Runs rtftp-get with a scripted server. Asserts that no file remains, and returns the result.
#[track_caller]
fn run_with_server(args: &[&str], script: impl FnOnce(&mut ScriptedServer)) -> GetResult {
    let (getter, mut server) = (RtftpGet::new(), ScriptedServer::new());
    let address = server.address();
    let running = getter.start(&[&[&*address, "f"], args].concat());
    server.request();
    script(&mut server);
    drop(server);
    let got = running.end();
    assert_eq!(getter.files(), Vec::<String>::new(), "{}", got.stderr);
    got
}

#[test]
fn escapes_control_characters_in_errors_of_the_server() {
    let got = run_with_server(&[], |server| server.send(&error(2, "not \x1b[31mfor you\r\n")));
    got.assert_exit(1, &["127.0.0.1:", r": ERROR 2 (access violation): not \u{1b}[31mfor you\r\n"]);
    let got = run_with_server(&["--trace"], |server| {
        server.send(OACK);
        assert_eq!(server.receive(), ack(0));
        server.send(&data(1, 1428));
        server.send(&error(0, "disk is \x07down"));
    });
    got.assert_exit(1, &[r"ERROR 0 (see the text): disk is \u{7}down"]);
    assert!(!got.stderr.contains(['\x07', '\x1b']));
}

#[test]
fn keeps_existing_file_if_the_transfer_fails() {
    let (getter, mut server) = (RtftpGet::new(), ScriptedServer::new());
    std::fs::write(getter.path("f"), "old").expect("written");
    let running = getter.start(&[&server.address(), "f"]);
    server.request();
    server.send(OACK);
    server.receive();
    server.send(&data(1, 1428));
    server.send(&error(0, "no more"));
    running.end().assert_exit(1, &["no more"]);
    assert_eq!((getter.files(), getter.read("f")), (vec!["f".to_owned()], b"old".to_vec()));
}

#[test]
fn reports_closed_port() {
    // A socket connected to another port reserves this one; the kernel still reports it as closed.
    let closed = UdpSocket::bind("127.0.0.1:0").expect("a port");
    closed.connect("127.0.0.1:1").expect("an address");
    let (getter, started) = (RtftpGet::new(), Instant::now());
    let address = closed.local_addr().expect("bound").to_string();
    getter.get(&[&address, "f"]).assert_exit(3, &[&address, "port closed", "is the server running"]);
    assert!(started.elapsed().as_secs() < 30, "the failure is reported before the time limit");
    assert_eq!(getter.files(), Vec::<String>::new());
}

#[test]
fn reports_missing_answer() {
    let got = run_with_server(&["--patience", "2"], |server| {
        assert_eq!(server.request()[..2], [0, 1], "the repeated request");
        // The client gives up while the server is running.
        let silent = server.client();
        poll_until("the end of the client", Duration::from_secs(30), || UdpSocket::bind(silent).ok());
    });
    got.assert_exit(3, &["127.0.0.1:", "no answer", "firewall"]);
}

#[test]
fn reports_answer_from_another_address() {
    let (getter, mut server) = (RtftpGet::new(), ScriptedServer::answering_from("127.0.0.2"));
    let address = server.address();
    let running = getter.start(&[&address, "f", "--patience", "1", "--trace"]);
    server.request();
    server.send(OACK);
    assert_eq!(server.receive(), error(5, "Unknown transfer ID"));
    let other_address = server.transfer_port().to_string();
    let words = [&format!("{address}: no answer, but one from {other_address}"), "(not the server) OACK"];
    running.end().assert_exit(3, &words);
}

#[test]
fn reports_server_that_closes_its_port() {
    let started = Instant::now();
    let got = run_with_server(&[], |server| {
        server.send(OACK);
        server.receive();
        server.send(&data(1, 1428));
    });
    got.assert_exit(3, &["127.0.0.1:", "closed its port after 1428 bytes", "Connection refused"]);
    assert!(started.elapsed().as_secs() < 30, "the failure is reported before the time limit");
}

#[test]
fn sends_error_to_unresponsive_server() {
    let got = run_with_server(&["--patience", "1"], |server| {
        server.send(OACK);
        server.receive();
        server.send(&data(1, 1428));
        while server.receive() != error(0, "timed out") {}
    });
    got.assert_exit(3, &["127.0.0.1:", "timed out after 1428 bytes"]);
}

#[test]
fn rejects_oack_with_options_that_were_not_requested() {
    for (oack, words) in [
        (&b"\0\x06blksize\x001429\0"[..], "blksize=1429"),
        (b"\0\x06windowsize\x0017\0", "windowsize=17"),
        (b"\0\x06timeout\x003\0", "timeout=3"),
        (b"\0\x06multicast\0\x1b[2J\0", r"multicast=\u{1b}[2J"),
        (b"\0\x06blksize\0many\0", "blksize=many"),
        (b"\0\x06tsize\0-1\0", "tsize=-1"),
    ] {
        let got = run_with_server(&[], |server| {
            server.send(oack);
            assert_eq!(server.receive()[..4], [0, 5, 0, 8], "{words}");
        });
        got.assert_exit(3, &["protocol violation", "does not match the request", words]);
    }
    let got = run_with_server(&["--no-options"], |server| {
        server.send(b"\0\x06blksize\x00512\0");
        assert_eq!(server.receive()[..4], [0, 5, 0, 8]);
    });
    got.assert_exit(3, &["blksize=512"]);
}

#[test]
fn rejects_oversized_block() {
    let got = run_with_server(&[], |server| {
        server.send(OACK);
        server.receive();
        server.send(&data(1, 1429));
        assert_eq!(server.receive()[..4], [0, 5, 0, 4]);
    });
    got.assert_exit(3, &["protocol violation", "larger than negotiated"]);
}

#[test]
fn full_disk_ends_the_transfer() {
    let got = run_with_server(&["-o", "/dev/full"], |server| {
        server.send(OACK);
        server.receive();
        server.send(&data(1, 1428));
        assert_eq!(server.receive(), error(3, "no space left"));
    });
    got.assert_exit(4, &["cannot write /dev/full: No space left on device"]);
    // A file system of one megabyte in an unprivileged mount namespace.
    let namespace = ["unshare", "--user", "--map-root-user", "--mount"];
    if !can_unshare(&namespace[1..]) {
        return;
    }
    let script = "mount -t tmpfs -o size=1m none . && cd \"$PWD\" && \"$@\"; code=$?; ls -A; exit $code";
    let getter = RtftpGet::behind(&[&namespace[..], &["--", "sh", "-c", script, "sh"]].concat());
    let daemon = rtftp_tests::Rtftp::start();
    daemon.put("default/f", noise(2 << 20, 1));
    let got = getter.get(&[&daemon.address().to_string(), "f"]);
    got.assert_exit(4, &["cannot write f: No space left on device (os error 28)\n"]);
    assert_eq!(String::from_utf8_lossy(&got.stdout), "", "no file remains");
    daemon.logged(&["127.0.0.1", " f ", "ended by the client with error 3"]);
}

#[test]
fn closed_standard_output_ends_the_transfer() {
    let (getter, mut server) = (RtftpGet::new(), ScriptedServer::new());
    let mut running = getter.start(&[&server.address(), "f", "-o", "-"]);
    running.close_stdout();
    server.request();
    server.send(OACK);
    server.receive();
    server.send(&data(1, 1428));
    assert_eq!(server.receive(), error(3, "the output was closed"));
    running.end().assert_exit(4, &["cannot write standard output: Broken pipe"]);
}

#[test]
fn checks_output_path_before_the_request() {
    let (getter, server) = (RtftpGet::new(), ScriptedServer::new());
    for (out, words) in [("nowhere/f", "No such file or directory"), (".", "is a directory")] {
        getter.get(&[&server.address(), "f", "-o", out]).assert_exit(4, &["cannot write", words]);
    }
    assert!(!server.has_request());
}

#[test]
fn signals_remove_the_file_and_send_an_error() {
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let (getter, mut server) = (RtftpGet::new(), ScriptedServer::new());
        let running = getter.start(&[&server.address(), "f"]);
        server.request();
        server.send(OACK);
        server.receive();
        server.send(&data(1, 1428));
        assert_eq!(getter.files().len(), 1, "the partial file is hidden: {:?}", getter.files());
        running.signal(signal);
        while server.receive() != error(0, "interrupted") {}
        running.end().assert_exit(130, &["interrupted"]);
        assert_eq!(getter.files(), Vec::<String>::new());
    }
}

#[test]
fn ignores_unknown_sources_and_recovers_lost_packets() {
    let (getter, mut server) = (RtftpGet::new(), ScriptedServer::new());
    let running = getter.start(&[&server.address(), "f", "--trace", "-o", "out"]);
    server.request();
    server.request();
    server.send(OACK);
    assert_eq!(server.receive(), ack(0));
    let unknown_source = UdpSocket::bind("127.0.0.1:0").expect("a port");
    unknown_source.send_to(&data(1, 1428), server.client()).expect("sent");
    let mut answer = [0; 64];
    let len = unknown_source.recv(&mut answer).expect("an answer");
    assert_eq!(answer[..len], error(5, "Unknown transfer ID"));
    // The ERROR to a closed port causes an ICMP error, which must not end the transfer.
    for _ in 0..3 {
        let closed = UdpSocket::bind("127.0.0.1:0").expect("a port");
        closed.send_to(&ack(1), server.client()).expect("sent");
    }
    server.send(&data(1, 10));
    assert_eq!(server.receive(), ack(1));
    let got = running.end();
    got.assert_exit(0, &["f: 10 bytes", " 1 retransmissions", "(not the server) DATA 1, 1428 bytes"]);
    got.assert_exit(0, &["warning: the server announced 10000 bytes and sent 10"]);
    assert_eq!(getter.read("out"), noise(10, 1));
}

#[test]
fn waits_for_an_interrupted_link_within_its_patience() {
    VethNetwork::test(&[], |cable| {
        // Long enough for the link to go down in the middle.
        let file = noise(8 * 60_000, 7);
        cable.daemon().put("default/f", &file);
        let server = format!("10.9.0.1:{}", cable.daemon().address().port());
        for (patience, comes_back) in [("60", true), ("2", false)] {
            let getter = RtftpGet::new();
            let args = [&*server, "f", "--blksize", "8", "--windowsize", "1", "--patience", patience];
            let running = getter.start(&args);
            let received = || cable.counter("InDelivers");
            let begun = received() + 1000;
            poll_until("blocks to arrive", Duration::from_secs(10), || (received() >= begun).then_some(()));
            let unsent = cable.counter("OutNoRoutes") + 3;
            cable.run_on_board("ip link set board down");
            poll_until("errors of the network", Duration::from_secs(10), || {
                (cable.counter("OutNoRoutes") >= unsent).then_some(())
            });
            if comes_back {
                cable.run_on_board("ip link set board up");
                running.end().assert_exit(0, &["480000 bytes"]);
                assert_same(&getter.read("f"), &file, "after the interruption");
            } else {
                running.end().assert_exit(3, &["timed out after ", "Network is unreachable"]);
            }
        }
        RtftpGet::new().get(&[&server, "f"]).assert_exit(3, &["unreachable: Network is unreachable"]);
    });
}
