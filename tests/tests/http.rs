//! The status page, its JSON and its metrics over HTTP.

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, SocketAddrV4, TcpListener, TcpStream},
    os::fd::AsRawFd,
    time::{Duration, Instant},
};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, socket};
use rtftp_runtime::history::snapshot::{Snapshot, State};
use rtftp_tests::{
    Rtftp, noise, poll_until,
    raw_client::{Answer, ack, error, rrq},
    run_with_bad_arguments,
};

const BOARD: &str = "127.0.0.7";
const SOON: Duration = Duration::from_secs(10);

/// Starts a daemon with a status page, and returns its address.
fn daemon() -> (Rtftp, SocketAddr) {
    daemon_on("0")
}

/// Starts a daemon with a status page on this address, and returns the address with its port.
fn daemon_on(listen: &str) -> (Rtftp, SocketAddr) {
    let daemon = Rtftp::start_with("127.0.0.1", 3600, &["--status-listen", listen]);
    let line = daemon.logged(&["status page at "]);
    let address = line.split("http://").nth(1).and_then(|rest| rest.trim_end_matches('/').parse().ok());
    (daemon, address.unwrap_or_else(|| panic!("no address in `{line}`")))
}

/// An HTTP response: status line, headers and body.
#[derive(Debug)]
struct Response {
    status: String,
    headers: String,
    body: String,
}

/// Sends a request, and reads the response until the connection is closed.
#[track_caller]
fn exchange(address: SocketAddr, request: &[u8]) -> Response {
    let mut stream = TcpStream::connect(address).expect("connected");
    stream.write_all(request).expect("written");
    read_response(stream)
}

#[track_caller]
fn read_response(mut stream: TcpStream) -> Response {
    stream.set_read_timeout(Some(3 * SOON)).expect("a timeout");
    let mut response = String::new();
    stream.read_to_string(&mut response).expect("a complete response");
    let (head, body) = response.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no response: {response:?}"));
    let (status, headers) = head.split_once("\r\n").expect("headers");
    Response { status: status.into(), headers: format!("{headers}\r\n"), body: body.into() }
}

#[track_caller]
fn request(address: SocketAddr, method: &str, path: &str) -> Response {
    exchange(address, format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\n\r\n").as_bytes())
}

/// Requests a page that exists, and returns its body.
#[track_caller]
fn get(address: SocketAddr, path: &str) -> String {
    let response = request(address, "GET", path);
    assert_eq!(response.status, "HTTP/1.1 200 OK", "{path}");
    response.body
}

#[test]
fn serves_get_and_head() {
    let (_daemon, address) = daemon();
    for (path, content_type) in [
        ("/", "text/html; charset=utf-8"),
        ("/?from=bookmark", "text/html; charset=utf-8"),
        ("/boots.json", "application/json"),
        ("/metrics", "text/plain; version=0.0.4; charset=utf-8"),
    ] {
        let (got, head) = (request(address, "GET", path), request(address, "HEAD", path));
        let length = format!("Content-Length: {}\r\n", got.body.len());
        for header in [
            format!("Content-Type: {content_type}\r\n").as_str(),
            length.as_str(),
            "Content-Security-Policy: default-src 'none'; ",
            "X-Content-Type-Options: nosniff\r\n",
            "Cache-Control: no-store\r\n",
            "Connection: close\r\n",
        ] {
            assert!(got.headers.contains(header), "{path}: `{header}` in\n{}", got.headers);
        }
        assert_eq!((got.status.as_str(), head.status.as_str()), ("HTTP/1.1 200 OK", "HTTP/1.1 200 OK"), "{path}");
        assert_eq!(head.body, "", "{path}");
        assert!(head.headers.contains(&format!("Content-Type: {content_type}\r\n")), "{path}: {}", head.headers);
        assert!(head.headers.contains("Content-Length: "), "{path}: {}", head.headers);
    }
    assert!(get(address, "/").starts_with("<!doctype html>"));
}

#[test]
fn rejects_other_requests_with_a_reason() {
    let (_daemon, address) = daemon();
    let long = format!("GET / HTTP/1.1\r\nHost: {address}\r\nX: {}\r\n\r\n", "x".repeat(20_000));
    for (request, status) in [
        ("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\nhi", "405 Method Not Allowed"),
        ("DELETE /boots.json HTTP/1.1\r\nHost: localhost\r\n\r\n", "405 Method Not Allowed"),
        ("GET /favicon.ico HTTP/1.1\r\nHost: localhost\r\n\r\n", "404 Not Found"),
        ("GET /../etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n", "404 Not Found"),
        ("POST /metrics/ HTTP/1.1\r\nHost: localhost\r\n\r\n", "404 Not Found"),
        ("GET / HTTP/1.1\r\nHost: rebound.example.org\r\n\r\n", "421 Misdirected Request"),
        ("GET / HTTP/1.1\r\n\r\n", "400 Bad Request"),
        ("\u{0}\u{1}kernel8.img\u{0}octet\u{0}", "400 Bad Request"),
        (&long, "431 Request Header Fields Too Large"),
    ] {
        let response = exchange(address, request.as_bytes());
        assert_eq!(response.status, format!("HTTP/1.1 {status}"), "{request:.50}");
        assert!(response.body.starts_with(&format!("{status}: ")), "{request:.50}: {}", response.body);
        assert_eq!(
            response.headers.contains("Allow: GET, HEAD\r\n"),
            status.starts_with("405"),
            "{}",
            response.headers
        );
    }
    assert_eq!(exchange(address, b"GET /metrics HTTP/1.0\r\n\r\n").status, "HTTP/1.1 200 OK");
}

#[test]
fn metrics_match_the_history() {
    let (daemon, address) = daemon();
    daemon.put("default/config.txt", "arm_64bit=1");
    daemon.put("default/kernel", noise(1 << 20, 1));
    assert_eq!(daemon.fetch(BOARD, "config.txt").as_deref(), Ok("arm_64bit=1"));
    assert_eq!(daemon.fetch(BOARD, "start4.elf"), Err(1));
    assert_eq!(daemon.fetch("127.0.0.8", "../start4.elf"), Err(2));
    let mut probe = daemon.client(BOARD);
    probe.exchange(&rrq("config.txt", &[("tsize", "0")]));
    probe.reply(&error(8, "size known"));
    let mut running = daemon.client(BOARD);
    let repeated = rrq("kernel", &[("blksize", "1024"), ("windowsize", "4")]);
    running.exchange(&repeated);
    running.request(&repeated);
    running.reply(&ack(0));
    while !matches!(running.receive(), Answer::Data(4, _)) {}
    running.reply(&ack(4));

    let snapshot = poll_until("a running transfer", SOON, || {
        let snapshot: Snapshot = serde_json::from_str(&get(address, "/boots.json")).expect("JSON");
        let files = &snapshot.clients.iter().find(|client| client.client == BOARD)?.boots[0].files;
        let states: Vec<_> = files.iter().map(|file| file.state).collect();
        let all_recorded = states == [State::Complete, State::Missing, State::Probe, State::Running];
        (all_recorded && files[3].acknowledged == 4096).then_some(snapshot)
    });
    let metrics = get(address, "/metrics");
    for line in [
        "rtftp_requests_total 5",
        "rtftp_transfers_total{result=\"complete\"} 1",
        "rtftp_transfers_total{result=\"probe\"} 1",
        "rtftp_transfers_total{result=\"missing\"} 1",
        "rtftp_transfers_total{result=\"refused\"} 1",
        "rtftp_transfers_total{result=\"failed\"} 0",
        "rtftp_bytes_total 11",
        "rtftp_request_copies_total 1",
        "rtftp_transfers_running 1",
        "rtftp_clients 2",
        &format!("rtftp_build_info{{version=\"{}\"}} 1", snapshot.version),
    ] {
        assert!(metrics.lines().any(|found| found == line), "`{line}` in\n{metrics}");
    }
    let value = |name: &str| -> f64 {
        let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("{name} in\n{metrics}"))
    };
    assert!((value("rtftp_start_time_seconds") - snapshot.started).abs() < 1.0);
}

#[test]
fn closes_a_connection_without_a_request() {
    let (_daemon, address) = daemon();
    let mut slow = TcpStream::connect(address).expect("connected");
    slow.write_all(b"GET / HTTP/1.1\r\nHost: ").expect("written");
    let since = Instant::now();
    assert_eq!(read_response(slow).status, "HTTP/1.1 408 Request Timeout");
    println!("closed after {:?}", since.elapsed());
    assert!((Duration::from_secs(1)..Duration::from_secs(5)).contains(&since.elapsed()), "{:?}", since.elapsed());
}

/// Connects from an address of the loopback interface, and sends a part of a request, or a request whose response is not read.
fn connect_slowly(from: [u8; 4], to: SocketAddr, request: &[u8]) -> TcpStream {
    let socket = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).expect("a socket");
    bind(socket.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(from.into(), 0))).expect("bound");
    let SocketAddr::V4(to) = to else { panic!("not IPv4") };
    connect(socket.as_raw_fd(), &SockaddrIn::from(to)).expect("connected");
    let mut stream = TcpStream::from(socket);
    stream.write_all(request).expect("written");
    stream
}

#[test]
fn slow_connections_delay_neither_page_nor_transfers() {
    const LOADS: usize = 20;
    let (daemon, address) = daemon();
    daemon.put("default/kernel", "served");
    let complete = format!("GET / HTTP/1.1\r\nHost: {address}\r\n\r\n");
    let events = format!("GET /events HTTP/1.1\r\nHost: {address}\r\n\r\n");
    for (addresses, name) in [(1, "the address of the reader"), (8, "8 addresses")] {
        let mut slowest = Duration::ZERO;
        let mut slow = Vec::new();
        for load in 0..LOADS {
            for number in 0..64 {
                let request = match number % 4 {
                    0 | 2 => b"GET / HTTP/1.1\r\nHost: ",
                    1 => complete.as_bytes(),
                    _ => events.as_bytes(),
                };
                slow.push(connect_slowly([127, 0, 0, 1 + number % addresses], address, request));
            }
            let since = Instant::now();
            assert_eq!(daemon.fetch(BOARD, "kernel").as_deref(), Ok("served"), "transfer {load}");
            assert!(get(address, "/").starts_with("<!doctype html>"), "page {load}");
            slowest = slowest.max(since.elapsed());
        }
        println!("page and transfer beside {} slow connections from {name}: at most {slowest:?}", slow.len());
        assert!(slowest < Duration::from_secs(1), "{slowest:?}");
    }
}

#[test]
fn rejects_foreign_names_on_every_address() {
    for (listen, reached) in [
        ("127.0.0.1:0", "127.0.0.1"),
        ("0.0.0.0:0", "127.0.0.1"),
        ("[::ffff:127.0.0.1]:0", "127.0.0.1"),
        ("[::]:0", "127.0.0.1"),
        ("[::]:0", "::1"),
    ] {
        let (_daemon, address) = daemon_on(listen);
        let address = SocketAddr::new(reached.parse().expect("an address"), address.port());
        for (host, expected) in [
            ("rebound.example.org", "HTTP/1.1 421 Misdirected Request"),
            ("rebound.example.org:80", "HTTP/1.1 421 Misdirected Request"),
            ("localhost", "HTTP/1.1 200 OK"),
            ("127.0.0.1", "HTTP/1.1 200 OK"),
        ] {
            let response = exchange(address, format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes());
            assert_eq!(response.status, expected, "{host} on {listen} through {reached}");
        }
    }
}

#[test]
fn daemon_stops_despite_clients_that_do_not_read() {
    let (daemon, address) = daemon();
    let _not_reading: Vec<_> = (0..40)
        .map(|_| {
            let mut stream = TcpStream::connect(address).expect("connected");
            stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("written");
            stream
        })
        .collect();
    assert!(get(address, "/metrics").contains("rtftp_clients 0"));
    drop(daemon);
    let refused = TcpStream::connect(address).expect_err("the daemon has stopped");
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn fails_at_start_if_address_is_in_use() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let output =
        run_with_bad_arguments(["--root-dir", "/", "--listen-ip", "127.0.0.1", "-p", "0", "--status-listen", &address]);
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{log}");
    assert!(log.contains(&format!("--status-listen: cannot listen on {address}: Address already in use")), "{log}");
}

#[test]
fn does_not_listen_by_default() {
    let daemon = Rtftp::start();
    assert_eq!(daemon.log_lines(&["status page"]), [] as [String; 0]);
    let sockets = std::fs::read_to_string(format!("/proc/{}/net/tcp", daemon.process().id())).expect("the sockets");
    let inodes: Vec<_> = daemon.process().open_files();
    let listening = sockets.lines().skip(1).filter(|line| line.split_whitespace().nth(3) == Some("0A"));
    for inode in listening.filter_map(|line| line.split_whitespace().nth(9)) {
        assert!(
            !inodes.iter().any(|file| file.to_str() == Some(&format!("socket:[{inode}]"))),
            "a TCP socket is listening"
        );
    }
}
