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

/// Waits until a probe fails, and returns the reason.
#[track_caller]
fn reason(page: SocketAddr, path: &str) -> String {
    poll_until(path, SOON, || match probe(page, path) {
        (503, body) => Some(body.trim_end().to_owned()),
        (code, body) => {
            assert_eq!((code, &*body), (200, "ok\n"), "{path}");
            None
        }
    })
}

#[test]
fn probes_answer_for_any_host_and_only_to_get_and_head() {
    let (_daemon, page) = start(&[]);
    for path in ["/healthz", "/readyz", "/readyz?verbose"] {
        assert_eq!(probe(page, path), (200, "ok\n".into()), "{path}");
        let named = format!("GET {path} HTTP/1.1\r\nHost: probe.example.org\r\n\r\n");
        assert_eq!(request(page, &named), (200, "ok\n".into()), "{path}");
        assert_eq!(request(page, &format!("HEAD {path} HTTP/1.1\r\nHost: a\r\n\r\n")), (200, String::new()), "{path}");
        assert_eq!(request(page, &format!("POST {path} HTTP/1.1\r\nHost: a\r\n\r\n")).0, 405, "{path}");
    }
    assert_eq!(request(page, "GET /boots.json HTTP/1.1\r\nHost: probe.example.org\r\n\r\n").0, 421);
    assert_eq!(request(page, "GET /livez HTTP/1.1\r\nHost: probe.example.org\r\n\r\n").0, 421, "no such probe");
}

#[test]
fn both_probes_fail_while_the_thread_for_disks_hangs() {
    let (daemon, page) = start(&[]);
    assert_eq!(probe(page, "/healthz").0, 200);
    let Some(thread) = HungThread::of(daemon.process(), "disks") else { return };
    for path in ["/healthz", "/readyz"] {
        assert_eq!(probe(page, path), (503, "the thread that reads disks has not answered for 2 s\n".into()), "{path}");
    }
    thread.resume();
    for path in ["/healthz", "/readyz"] {
        poll_until("the thread answers", SOON, || (probe(page, path).0 == 200).then_some(()));
    }
}

#[test]
fn healthz_fails_while_the_thread_for_requests_hangs() {
    let (daemon, page) = start(&[]);
    let Some(thread) = HungThread::of(daemon.process(), "rtftp") else { return };
    assert_eq!(reason(page, "/healthz"), "the thread that serves requests has not answered for 2 s");
    thread.resume();
    poll_until("the thread answers", SOON, || (probe(page, "/healthz").0 == 200).then_some(()));
}

#[test]
fn readyz_fails_while_the_root_cannot_be_read() {
    let (daemon, page) = start(&[]);
    let root = daemon.path("").display().to_string().trim_end_matches('/').to_owned();
    let away = format!("{root}.away");
    assert_eq!(probe(page, "/readyz").0, 200);
    fs::rename(&root, &away).expect("renamed");
    assert_eq!(reason(page, "/readyz"), format!("{root}: No such file or directory (os error 2)"));
    assert_eq!(probe(page, "/healthz").0, 200, "a restart would not help");
    fs::rename(&away, &root).expect("renamed");
    poll_until("the root is back", SOON, || (probe(page, "/readyz").0 == 200).then_some(()));
}

#[test]
fn readyz_fails_while_the_server_stops() {
    let (daemon, page) = start(&["--stop-grace", "60"]);
    daemon.put("default/file", [1; 2000]);
    let mut client = daemon.client("127.0.0.7");
    let first = client.exchange(&rrq("file", &[]));
    daemon.process().signal(Signal::SIGTERM);
    assert_eq!(reason(page, "/readyz"), "no requests are received: the server is starting or stopping");
    assert_eq!(client.finish(first).map(|file| file.len()), Ok(2000), "the running transfer");
    daemon.wait_for_end(SOON);
}
