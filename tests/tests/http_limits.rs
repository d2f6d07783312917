//! The limits of the HTTP server: clients that do nothing, little, or very much hold nobody else up.

use std::{
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use parking_lot::Mutex;
use rtftp_tests::{Rtftp, assert_same, http_client::HttpClient, noise, poll_until};

const OTHER: &str = "127.0.0.6";
/// Firmware gives up after 5 s.
const LIMIT: Duration = Duration::from_secs(4);
/// Held by each attack: another one takes the processors that it is measured with.
static ATTACK: Mutex<()> = Mutex::new(());

/// Returns the time of a request of another client.
#[track_caller]
fn other_client(address: SocketAddr) -> Duration {
    let started = Instant::now();
    let response = HttpClient::connect(OTHER, address).request("GET", "/a", &[]).expect("a response");
    assert_eq!(response.body, b"file");
    started.elapsed()
}

/// Returns the address of attacker `number` of a hundred.
fn attacker(number: usize) -> String {
    format!("127.0.1.{}", number % 100 + 1)
}

#[test]
fn ten_thousand_idle_connections_keep_nobody_out() {
    let _alone = ATTACK.lock();
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("raised");
    let count = usize::try_from(hard).unwrap_or(usize::MAX).saturating_sub(500).min(10_000);
    let (daemon, address) = Rtftp::start_http(&[]);
    daemon.put("default/a", "file");
    let before = daemon.process().resident_memory();
    let started = Instant::now();
    let mut open = vec![];
    let mut slowest = Duration::ZERO;
    for number in 0..count {
        open.push(HttpClient::connect(&attacker(number), address));
        if number % 500 == 499 {
            slowest = slowest.max(other_client(address));
        }
    }
    let memory = daemon.process().resident_memory().saturating_sub(before) >> 20;
    println!(
        "{count} idle connections in {:?}: another client in at most {slowest:?}; {memory} MiB",
        started.elapsed()
    );
    assert!(slowest < LIMIT);
    assert!(memory < 40);
    let warnings =
        daemon.log_lines(&["HTTP connection beyond the limit of 1024 for all clients", "replaces an idle one"]);
    assert_eq!(warnings.len(), 1, "once a minute");
}

/// The side that closes a connection first keeps its ports in use for a minute.
#[test]
fn a_client_can_close_first_after_an_error() {
    let (_daemon, address) = Rtftp::start_http(&[]);
    let request = || {
        let mut client = HttpClient::connect(OTHER, address);
        client.send("GET /missing HTTP/1.0\r\n\r\n").expect("sent");
        assert_eq!(client.response(false).expect("a response").status, 404);
        client
    };
    // On a busy machine the client may be late.
    poll_until("a connection that is open after the response", Duration::from_secs(10), || {
        request().is_open_for(Duration::from_millis(50)).then_some(())
    });
    assert_eq!(request().rest(), b"", "a client that waits for the end gets it");
}

#[test]
fn slow_heads_keep_nobody_out() {
    let _alone = ATTACK.lock();
    let (daemon, address) = Rtftp::start_http(&["--max-per-client", "64"]);
    daemon.put("default/a", "file");
    let mut slow: Vec<_> = (0..1000).map(|number| HttpClient::connect(&attacker(number % 10), address)).collect();
    let mut slowest = Duration::ZERO;
    for byte in b"GET /a HTTP/1.1\r\nA: b".chunks(1) {
        for client in &mut slow {
            // The server may have closed it.
            let _ = client.send(byte);
        }
        slowest = slowest.max(other_client(address));
    }
    println!("another client beside 1,000 slow heads: at most {slowest:?}");
    assert!(slowest < LIMIT);
    let warnings = daemon.log_lines(&["HTTP connection beyond the limit of 64 for one client (--max-per-client)"]);
    assert_eq!(warnings.len(), 1, "once a minute");
    let first = HttpClient::connect(&attacker(0), address).request("GET", "/a", &[]).expect("a response");
    assert_eq!(first.status, 200, "a new connection of the same client replaces an idle one");
}

#[test]
fn many_requests_on_one_connection_delay_nobody() {
    const COUNT: usize = 20_000;
    let _alone = ATTACK.lock();
    let (daemon, address) = Rtftp::start_http(&[]);
    daemon.put("default/a", "file");
    let before = daemon.process().resident_memory();
    let mut client = HttpClient::connect("127.0.0.5", address);
    let mut writer = client.duplicate();
    let flood = thread::spawn(move || {
        let requests = "GET /a HTTP/1.1\r\n\r\n".repeat(100);
        (0..COUNT / 100).try_for_each(|_| writer.send(&requests))
    });
    let reader = thread::spawn(move || {
        let started = Instant::now();
        (0..COUNT).for_each(|_| assert_eq!(client.response(false).expect("a response").body, b"file"));
        started.elapsed()
    });
    let mut times = vec![];
    while !reader.is_finished() {
        times.push(other_client(address));
    }
    flood.join().expect("sent").expect("sent");
    let taken = reader.join().expect("received");
    let slowest = times.iter().max().expect("at least one");
    let memory = daemon.process().resident_memory().saturating_sub(before) >> 20;
    println!(
        "{COUNT} requests in {taken:?}: {} requests of another client, the slowest in {slowest:?}; {memory} MiB",
        times.len()
    );
    assert!(*slowest < LIMIT);
    assert!(*slowest < taken / 4, "another client waited for all requests");
    assert!(memory < 40);
}

#[test]
fn slow_readers_of_a_large_body_keep_nobody_out() {
    const SIZE: usize = 20_000_000;
    let _alone = ATTACK.lock();
    let (daemon, address) = Rtftp::start_http(&["--max-per-client", "50"]);
    daemon.put("default/a", "file");
    daemon.put("default/large", noise(SIZE, 1));
    let before = daemon.process().resident_memory();
    let mut slow: Vec<_> = (0..200).map(|number| HttpClient::connect(&attacker(number % 4), address)).collect();
    for client in &mut slow {
        client.send("GET /large HTTP/1.1\r\n\r\n").expect("sent");
        assert_eq!(client.head().expect("a response").status, 200);
    }
    let taken = other_client(address);
    let memory = daemon.process().resident_memory().saturating_sub(before) >> 20;
    println!("another client beside 200 that do not read: {taken:?}; {memory} MiB");
    assert!(taken < LIMIT);
    assert!(memory < 40);
    // Those of the same client are replaced once they have not read for a while, and not before.
    let mut whole = slow.pop().expect("one of them");
    let other = attacker(199 % 4);
    let received = thread::spawn(move || whole.rest());
    let replaced = poll_until("a place", Duration::from_secs(10), || {
        let response = HttpClient::connect(&other, address).request("GET", "/a", &[]);
        response.ok().filter(|response| response.body == b"file")
    });
    assert_eq!(replaced.status, 200);
    assert_same(&received.join().expect("received"), &noise(SIZE, 1), "the one that reads is not replaced");
}

#[test]
fn a_client_that_never_waits_shares_the_thread() {
    let _alone = ATTACK.lock();
    let (daemon, address) = Rtftp::start_http(&[]);
    daemon.put("default/a", "file");
    daemon.put("default/large", noise(50_000_000, 2));
    let readers: Vec<_> = (0..4)
        .map(|_| {
            thread::spawn(move || {
                let response = HttpClient::connect("127.0.0.5", address).request("GET", "/large", &[]);
                response.map(|response| response.body.len())
            })
        })
        .collect();
    let (started, mut slowest) = (Instant::now(), Duration::ZERO);
    while !readers.iter().all(thread::JoinHandle::is_finished) {
        slowest = slowest.max(other_client(address));
    }
    let taken = started.elapsed();
    for reader in readers {
        assert_eq!(reader.join().expect("received").expect("a response"), 50_000_000);
    }
    println!("another client beside four fast readers: at most {slowest:?} of {taken:?}");
    assert!(slowest < LIMIT);
    assert!(slowest < taken / 2, "another client waited for all readers");
}
