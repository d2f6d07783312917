//! A restart loses no boot: running transfers complete, and the requests of that time are answered by the next daemon.

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream, UdpSocket},
    process::{Command, Stdio},
    time::Duration,
};

use nix::sys::{
    signal::Signal,
    socket::{setsockopt, sockopt},
};
use rtftp_tests::{Client, Process, Rtftp, activated, assert_same, noise, poll_until, raw_client::rrq};
use tempfile::TempDir;

const SOON: Duration = Duration::from_secs(20);
/// The process ends by force 3.8 s after SIGTERM, unless the grace period is longer than by default.
const BEYOND_THE_DEFAULT: Duration = Duration::from_millis(4500);

#[test]
fn transfer_completes_and_waiting_request_is_answered_by_the_next_daemon() {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    // As PassPacketInfo= in the socket unit does.
    setsockopt(&socket, sockopt::Ipv4PacketInfo, &true).expect("set");
    let address = socket.local_addr().expect("bound");
    let directory = TempDir::new().expect("a directory");
    let status = directory.path().join("status.sock");
    let mut command = activated(socket.try_clone().expect("a copy"), 1);
    let old = Rtftp::start_by(command.args(["--stop-grace", "60"]).arg("--status-socket").arg(&status));
    let content = noise(200_000, 1);
    old.put("default/file", &content);
    old.put("default/next", "of the old daemon");
    let mut client = old.client("127.0.0.7");
    let first = client.exchange(&rrq("file", &[("blksize", "1024")]));
    old.process().signal(Signal::SIGTERM);
    poll_until("the end of receiving requests", SOON, || (!status.exists()).then_some(()));
    let mut waiting = Client::new("127.0.0.8", address);
    waiting.request(&rrq("next", &[]));
    assert_eq!(waiting.receive_within(BEYOND_THE_DEFAULT), None, "the old daemon takes no more requests");
    assert_same(&client.finish(first).expect("a complete transfer"), &content, "across the restart");
    old.wait_for_end(SOON);
    let new = Rtftp::start_by(&mut activated(socket, 1));
    let answer = waiting.receive_within(SOON).expect("an answer to the request of that time");
    assert_eq!(answer.code(), 1, "the new daemon has another root");
    new.put("default/next", "of the new daemon");
    assert_eq!(new.fetch("127.0.0.8", "next").as_deref(), Ok("of the new daemon"));
}

#[test]
fn http_download_completes_and_connection_between_two_daemons_is_served_by_the_next() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    let old = Rtftp::start_by(activated(listener.try_clone().expect("a copy"), 1).args(["--stop-grace", "60"]));
    let content = noise(16 << 20, 1);
    old.put("default/file", &content);
    let downloaded = old.path("downloaded");
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--fail", "--limit-rate", "8M", "--output"]).arg(&downloaded);
    let mut curl = Process::start(curl.arg(format!("http://{address}/file")).stdin(Stdio::null()));
    poll_until("the start of the download", SOON, || {
        fs::metadata(&downloaded).is_ok_and(|file| file.len() > 0).then_some(())
    });
    old.process().signal(Signal::SIGTERM);
    old.logged(&["stopping"]);
    assert!(curl.wait(SOON).success(), "curl");
    assert_same(&fs::read(&downloaded).expect("a file"), &content, "across the restart");
    old.wait_for_end(SOON);
    let mut waiting = TcpStream::connect(address).expect("the socket stays open");
    waiting.set_read_timeout(Some(SOON)).expect("set");
    write!(waiting, "GET /next HTTP/1.0\r\n\r\n").expect("written");
    let _new = Rtftp::start_by(&mut activated(listener, 1));
    let mut response = String::new();
    waiting.read_to_string(&mut response).expect("a response of the new daemon");
    assert!(response.contains(" 404 "), "the new daemon has another root: {response}");
}

#[test]
fn second_signal_aborts_running_transfers() {
    let daemon = Rtftp::start_with("127.0.0.1", 3600, &["--stop-grace", "3600"]);
    daemon.put("default/file", [1; 2000]);
    let mut client = daemon.client("127.0.0.7");
    assert_eq!(client.exchange(&rrq("file", &[])).block(), 1);
    daemon.process().signal(Signal::SIGTERM);
    daemon.logged(&["stopping"]);
    assert!(client.acknowledge(1).block() <= 2, "the transfer goes on");
    daemon.stop(Signal::SIGTERM);
}
