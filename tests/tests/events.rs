//! The events of the status page: what changes on the boards of this server and of others.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::AsRawFd,
    time::{Duration, Instant},
};

use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, setsockopt, socket, sockopt,
};
use rtftp_tests::{Rtftp, poll_until, run_with_bad_arguments};
use serde_json::{Value, json};

const BOARD: &str = "127.0.0.7";
const SOON: Duration = Duration::from_secs(30);

/// Starts a daemon with a status page and further arguments, and returns its address.
fn daemon(arguments: &[&str]) -> (Rtftp, SocketAddr) {
    let daemon = Rtftp::start_with("127.0.0.1", 3600, &[&["--status-listen", "0"], arguments].concat());
    let line = daemon.logged(&["status page at "]);
    let address = line.split("http://").nth(1).and_then(|rest| rest.trim_end_matches('/').parse().ok());
    (daemon, address.unwrap_or_else(|| panic!("no address in `{line}`")))
}

/// Sends a request, and returns the stream behind the head of a successful response.
#[track_caller]
fn request(address: SocketAddr, path: &str) -> (BufReader<TcpStream>, String) {
    let mut stream = TcpStream::connect(address).expect("connected");
    stream.set_read_timeout(Some(SOON)).expect("a timeout");
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n").as_bytes()).expect("written");
    let (mut stream, mut head) = (BufReader::new(stream), String::new());
    while !head.ends_with("\r\n\r\n") {
        assert!(stream.read_line(&mut head).expect("a response") > 0, "{head}");
    }
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{path}: {head}");
    (stream, head)
}

/// Returns the details of a board.
#[track_caller]
fn board(address: SocketAddr, client: &str) -> Value {
    let (mut stream, _) = request(address, &format!("/board.json?{client}"));
    let mut body = String::new();
    stream.read_to_string(&mut body).expect("a response");
    serde_json::from_str(&body).expect("JSON")
}

/// A stream of events.
struct Events(BufReader<TcpStream>);

impl Events {
    #[track_caller]
    fn of(address: SocketAddr) -> Self {
        let (stream, head) = request(address, "/events");
        assert!(head.contains("\r\nContent-Type: text/event-stream\r\n"), "{head}");
        Self(stream)
    }

    /// Returns the next event, and its length in bytes.
    #[track_caller]
    fn next(&mut self) -> (Value, usize) {
        let mut line = String::new();
        while !line.starts_with("data: ") {
            line.clear();
            assert!(self.0.read_line(&mut line).expect("an event") > 0, "the connection was closed");
        }
        (serde_json::from_str(&line["data: ".len()..]).expect("JSON"), line.len())
    }

    /// Returns the first event that fulfils a condition.
    #[track_caller]
    fn until(&mut self, condition: impl Fn(&Value) -> bool) -> (Value, usize) {
        poll_until("an event", SOON, || Some(self.next()).filter(|(event, _)| condition(event)))
    }
}

/// Returns the boards of an event, with their states.
fn states(event: &Value) -> Vec<(&str, &str)> {
    let boards = event["boards"].as_array().expect("boards").iter();
    boards.map(|board| (board["client"].as_str().expect("a text"), board["state"].as_str().expect("a text"))).collect()
}

#[test]
fn events_have_only_what_changed() {
    let (daemon, address) = daemon(&[]);
    daemon.put("default/kernel", "of all");
    for number in 1..=250 {
        daemon.put(&format!("10.9.0.{number}/kernel"), "of one");
    }
    let mut events = Events::of(address);
    let (first, length) = events.next();
    assert_eq!((&first["complete"], states(&first).len()), (&json!(true), 250));
    assert!(states(&first).contains(&("10.9.0.250", "silent")));
    let (idle, idle_length) = events.next();
    assert_eq!((&idle["complete"], &idle["boards"], &idle["removed"]), (&json!(false), &json!([]), &json!([])));
    println!("{length} bytes for 250 boards, {idle_length} bytes without a change");
    assert!(length < 250 * 200 && idle_length < 600, "{length}, {idle_length}");

    assert_eq!(daemon.fetch(BOARD, "kernel").as_deref(), Ok("of all"));
    let (changed, length) = events.until(|event| states(event).contains(&(BOARD, "booted")));
    assert_eq!(states(&changed), [(BOARD, "booted")]);
    assert!(length < 1000, "{length}");
    fs::remove_dir_all(daemon.path("10.9.0.8")).expect("removed");
    let (changed, _) = events.until(|event| event["removed"] != json!([]));
    assert_eq!((&changed["removed"], states(&changed)), (&json!(["10.9.0.8"]), vec![]));

    let found = board(address, BOARD);
    assert_eq!(found["board"]["boots"][0]["files"][0]["name"], "kernel");
    assert_eq!(
        found["advice"],
        "Everything was sent. What to do: see \"The kernel starts, but the boot stops\" in the guide to troubleshooting."
    );
}

#[test]
fn shows_the_boards_of_other_servers() {
    let (other, other_address) = daemon(&[]);
    other.put("default/kernel", "of the other one");
    other.put("10.9.0.9/kernel", "of a board that has not booted");
    assert_eq!(other.fetch("127.0.0.8", "kernel").as_deref(), Ok("of the other one"));
    // A server that accepts connections and never replies, and one that is not there.
    let hangs = TcpListener::bind("127.0.0.1:0").expect("a port");
    let hangs_at = hangs.local_addr().expect("an address").to_string();
    let gone = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").to_string();
    let (daemon, address) = daemon(&[
        "--status-peer",
        &format!("http://{other_address}"),
        "--status-peer",
        &hangs_at,
        &format!("--status-peer={gone}"),
    ]);
    daemon.put("default/kernel", "of this one");
    assert_eq!(daemon.fetch(BOARD, "kernel").as_deref(), Ok("of this one"));

    let mut events = Events::of(address);
    let (first, _) = events.next();
    assert!(first.to_string().contains(BOARD), "the page does not wait for peers: {first}");
    events.until(|event| states(event).contains(&("127.0.0.8", "booted")));
    let (last, _) = events.until(|event| {
        let servers = event["servers"].as_array().expect("servers");
        servers.iter().filter(|server| server.get("error").is_some_and(|error| error != "no reply yet")).count() == 2
    });
    let servers = last["servers"].as_array().expect("servers");
    assert_eq!(servers[1]["server"], json!(other_address.to_string()));
    assert!(servers[1].get("error").is_none() && servers[0]["totals"]["complete"] == 1, "{last}");
    assert_eq!((&servers[2]["server"], &servers[3]["server"]), (&json!(hangs_at), &json!(gone)));
    assert!(servers[2]["error"].as_str().is_some_and(|error| error.starts_with("no reply")), "{last}");
    assert!(servers[3]["error"].as_str().is_some_and(|error| error.contains("refused")), "{last}");

    let found = board(address, "127.0.0.8");
    assert_eq!(found["board"]["boots"][0]["files"][0]["server"], json!(other_address.to_string()));
    assert_eq!(board(address, "10.9.0.9")["board"]["state"], "silent");
    // Each server answers with its own boards only, so servers that name each other do not loop.
    let (mut own, _) = request(address, "/boots.json");
    let mut body = String::new();
    own.read_to_string(&mut body).expect("a response");
    assert!(body.contains(BOARD) && !body.contains("127.0.0.8"), "{body}");

    drop(other);
    events.until(|event| event["servers"][1]["error"].as_str().is_some_and(|error| error.contains("refused")));
}

/// Connects from an address with the smallest window, and requests the events, but never reads them.
fn never_read(from: [u8; 4], address: SocketAddr) -> TcpStream {
    let socket = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).expect("a socket");
    setsockopt(&socket, sockopt::RcvBuf, &1).expect("a buffer");
    bind(socket.as_raw_fd(), &SockaddrStorage::from(SocketAddr::from((from, 0)))).expect("an address");
    connect(socket.as_raw_fd(), &SockaddrStorage::from(address)).expect("connected");
    let mut stream = TcpStream::from(socket);
    stream.write_all(format!("GET /events HTTP/1.1\r\nHost: {address}\r\n\r\n").as_bytes()).expect("written");
    stream
}

#[test]
fn readers_that_never_read_cost_little_memory_and_delay_nobody() {
    let (daemon, address) = daemon(&[]);
    daemon.put("default/kernel", "of all");
    for number in 0..5000 {
        fs::create_dir(daemon.path(&format!("10.9.{}.{}", number / 250, 1 + number % 250))).expect("created");
    }
    let mut events = Events::of(address);
    let mut parts = 0;
    while events.until(|event| event["complete"] == true).0["more"] == true {
        parts += 1;
    }
    assert_eq!(parts, 4, "1000 boards in each");
    let descriptors = || fs::read_dir(format!("/proc/{}/fd", daemon.process().id())).expect("a process").count();
    let (before, memory) = (descriptors(), daemon.process().resident_memory());
    let slow: Vec<_> = (0..24).map(|number| never_read([127, 0, 0, 2 + number / 8], address)).collect();
    poll_until("the connections", SOON, || (descriptors() >= before + slow.len()).then_some(()));
    let started = Instant::now();
    assert_eq!(daemon.fetch(BOARD, "kernel").as_deref(), Ok("of all"));
    events.until(|event| states(event).contains(&(BOARD, "booted")));
    let (delay, more) = (started.elapsed(), daemon.process().resident_memory().saturating_sub(memory));
    println!("24 readers that never read: an update after {delay:.1?}, {more} bytes");
    assert!(delay < Duration::from_secs(5) && more < 16 << 20, "{delay:?}, {more} bytes");
    // The transfer may have left a socket.
    poll_until("the end of the connections", SOON, || (descriptors() <= before + 4).then_some(()));
    events.next();
}

#[test]
fn peers_need_a_page() {
    let output = run_with_bad_arguments(["--root-dir", "/", "--status-peer", "nas2:8080"]);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert!(error.contains("--status-peer needs --status-listen"), "{error}");
}
