//! `/healthz` and `/readyz` of the status page.

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use nix::sys::signal::Signal;
use rtftp_tests::{HungThread, Rtftp, poll_until, raw_client::rrq};

const SOON: Duration = Duration::from_secs(20);

/// Starts a daemon with a status page, and returns the address of the page.
fn start(arguments: &[&str]) -> (Rtftp, SocketAddr) {
    let daemon = Rtftp::start_with("127.0.0.1", 3600, &[&["--status-listen", "0"], arguments].concat());
    let line = daemon.logged(&["status page at "]);
    let address = line.split("http://").nth(1).and_then(|rest| rest.trim_end_matches('/').parse().ok());
    (daemon, address.unwrap_or_else(|| panic!("no address in `{line}`")))
}

/// Returns the status code and the body of a response.
#[track_caller]
fn request(page: SocketAddr, request: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(page).expect("connected");
    stream.set_read_timeout(Some(SOON)).expect("set");
    stream.write_all(request.as_bytes()).expect("written");
    let mut response = String::new();
    stream.read_to_string(&mut response).expect("a response");
    let code = response.split(' ').nth(1).and_then(|code| code.parse().ok());
    let body = response.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
    (code.unwrap_or_else(|| panic!("{response}")), body.expect("a body"))
}

/// Sends a probe as the kubelet does.
#[track_caller]
fn probe(page: SocketAddr, path: &str) -> (u16, String) {
    request(page, &format!("GET {path} HTTP/1.1\r\nHost: 10.1.2.3:8080\r\nUser-Agent: kube-probe/1.32\r\n\r\n"))
}

/// Waits until a probe gets this response: a busy machine may need more than the 2 s that the threads have to answer.
#[track_caller]
fn wait_for(page: SocketAddr, path: &str, code: u16, body: &str) {
    let expected = (code, format!("{body}\n"));
    poll_until(&format!("{path}: {body}"), SOON, || (probe(page, path) == expected).then_some(()));
}

#[test]
fn probes_answer_for_any_host_and_only_to_get_and_head() {
    let (_daemon, page) = start(&[]);
    for path in ["/healthz", "/readyz", "/readyz?verbose"] {
        wait_for(page, path, 200, "ok");
        let named = format!("GET {path} HTTP/1.1\r\nHost: probe.example.org\r\n\r\n");
        assert!(matches!(request(page, &named).0, 200 | 503), "{path}");
        assert_eq!(request(page, &format!("HEAD {path} HTTP/1.1\r\nHost: a\r\n\r\n")).1, "", "{path}");
        assert_eq!(request(page, &format!("POST {path} HTTP/1.1\r\nHost: a\r\n\r\n")).0, 405, "{path}");
    }
    assert_eq!(request(page, "GET /boots.json HTTP/1.1\r\nHost: probe.example.org\r\n\r\n").0, 421);
    assert_eq!(request(page, "GET /livez HTTP/1.1\r\nHost: probe.example.org\r\n\r\n").0, 421, "no such probe");
}

#[test]
fn both_probes_fail_while_the_thread_for_disks_hangs() {
    let (daemon, page) = start(&[]);
    wait_for(page, "/healthz", 200, "ok");
    let Some(thread) = HungThread::of(daemon.process(), "disks") else { return };
    for path in ["/healthz", "/readyz"] {
        wait_for(page, path, 503, "the thread that reads disks has not answered for 2 s");
    }
    thread.resume();
    for path in ["/healthz", "/readyz"] {
        wait_for(page, path, 200, "ok");
    }
}

#[test]
fn healthz_fails_while_the_thread_for_requests_hangs() {
    let (daemon, page) = start(&[]);
    let Some(thread) = HungThread::of(daemon.process(), "rtftp") else { return };
    wait_for(page, "/healthz", 503, "the thread that serves requests has not answered for 2 s");
    thread.resume();
    wait_for(page, "/healthz", 200, "ok");
}

#[test]
fn readyz_fails_while_the_root_cannot_be_read() {
    let (daemon, page) = start(&[]);
    let root = daemon.path("").display().to_string().trim_end_matches('/').to_owned();
    let away = format!("{root}.away");
    wait_for(page, "/readyz", 200, "ok");
    fs::rename(&root, &away).expect("renamed");
    wait_for(page, "/readyz", 503, &format!("{root}: No such file or directory (os error 2)"));
    // A restart would not help.
    wait_for(page, "/healthz", 200, "ok");
    fs::rename(&away, &root).expect("renamed");
    wait_for(page, "/readyz", 200, "ok");
}

#[test]
fn readyz_fails_while_the_server_stops() {
    let (daemon, page) = start(&["--stop-grace", "60"]);
    daemon.put("default/file", [1; 2000]);
    let mut client = daemon.client("127.0.0.7");
    let first = client.exchange(&rrq("file", &[]));
    daemon.process().signal(Signal::SIGTERM);
    wait_for(page, "/readyz", 503, "no requests are received: the server is starting or stopping");
    assert_eq!(client.finish(first).map(|file| file.len()), Ok(2000), "the running transfer");
    daemon.wait_for_end(SOON);
}
