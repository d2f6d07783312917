use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::Shutdown,
    os::unix::{fs::PermissionsExt, net},
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Instant,
};

use smol::{Executor, future::or};
use tempfile::TempDir;

use super::{
    Socket,
    connection::{FOLLOW, WRITE_TIMEOUT},
    socket::MODE,
};
use crate::{
    clock,
    files::FileStore,
    history::{
        History,
        snapshot::{Snapshot, State},
    },
    monitor::Monitor,
};

fn directory() -> (TempDir, PathBuf) {
    let directory = TempDir::new().expect("a directory");
    let path = directory.path().join("status.sock");
    (directory, path)
}

fn bind_error(path: &Path) -> String {
    Socket::bind(path).expect_err("no socket").to_string()
}

/// Serves an empty history while `test` runs.
fn serving(test: impl FnOnce(&History, &Path) + Send) {
    let (_directory, path) = directory();
    let socket = Socket::bind(&path).expect("a socket");
    let (history, executor) = (History::new(), Executor::new());
    let files = FileStore::new(path.with_file_name("root"), Arc::default());
    let monitor = Monitor::new(history.clone(), Arc::new(files), 1);
    let (stop, stopped) = smol::channel::bounded::<()>(1);
    let (history, monitor, executor, socket) = (&history, &monitor, &executor, &socket);
    thread::scope(move |scope| {
        let server = scope.spawn(move || {
            let until_stopped = async {
                let _: Result<(), _> = stopped.recv().await;
            };
            smol::block_on(executor.run(or(socket.serve(monitor, executor), until_stopped)));
        });
        // Dropped also if the test panics, which stops the server.
        let stop = stop;
        test(history, &path);
        drop(stop);
        server.join().expect("a server");
    });
}

fn request(history: &History, name: &str) {
    history.record_request([10, 0, 0, 5].into(), name.as_bytes()).finish(State::Missing, None);
}

#[test]
fn replaces_only_a_stale_socket() {
    let (_directory, path) = directory();
    drop(net::UnixListener::bind(&path).expect("bound"));
    // A program that another test starts at this moment holds the listener, too, until it is executed.
    while net::UnixStream::connect(&path).is_ok() {}
    let socket = Socket::bind(&path).expect("replaces the stale socket");
    assert_eq!(fs::metadata(&path).expect("a file").permissions().mode() & 0o777, MODE);
    assert!(bind_error(&path).contains("another program is listening"), "{}", bind_error(&path));
    drop(socket);
    assert!(!path.exists());
    fs::write(&path, "precious").expect("a file");
    assert!(bind_error(&path).contains("not a socket"), "{}", bind_error(&path));
    assert_eq!(fs::read(&path).expect("the file"), b"precious");
    assert!(bind_error(Path::new("/nowhere/at/all.sock")).contains("/nowhere/at/all.sock"));
}

#[test]
fn keeps_the_socket_of_another_server() {
    let (_directory, path) = directory();
    let first = Socket::bind(&path).expect("a socket");
    fs::remove_file(&path).expect("removed");
    let _second = Socket::bind(&path).expect("a socket");
    drop(first);
    assert!(path.exists());
}

#[test]
fn default_socket_needs_its_directory() {
    let (directory, path) = directory();
    assert!(Socket::bind_if_writable(&path).is_some());
    drop(directory);
    assert!(Socket::bind_if_writable(&path).is_none());
}

#[test]
fn sends_only_the_requested_client() {
    serving(|history, path| {
        request(history, "start4.elf");
        history.record_request([10, 9, 0, 1].into(), b"kernel").finish(State::Missing, None);
        for (client, expected) in [("10.9.0.1", vec!["10.9.0.1"]), ("10.9.0.2", vec![]), ("\u{1b}", vec![])] {
            let mut stream = net::UnixStream::connect(path).expect("connected");
            stream.write_all(format!("client {client}\n").as_bytes()).expect("written");
            let mut reply = String::new();
            stream.read_to_string(&mut reply).expect("a reply");
            let snapshot: Snapshot = serde_json::from_str(&reply).expect("JSON");
            let clients: Vec<_> = snapshot.clients.iter().map(|client| client.client.as_str()).collect();
            assert_eq!((clients, snapshot.totals.missing), (expected, 2));
        }
    });
}

#[test]
fn sends_snapshot_for_any_other_request() {
    serving(|history, path| {
        request(history, "start4.elf");
        for request in ["", "snapshot\n", "follow", "GET / HTTP/1.0\r\n\r\n"] {
            let mut stream = net::UnixStream::connect(path).expect("connected");
            stream.write_all(request.as_bytes()).expect("written");
            let mut reply = String::new();
            stream.read_to_string(&mut reply).expect("a reply");
            let snapshot: Snapshot = serde_json::from_str(&reply).expect("JSON");
            assert_eq!(snapshot.totals.missing, 1, "{request}");
        }
    });
}

#[test]
fn silent_connections_keep_nobody_out() {
    serving(|history, path| {
        let followers: Vec<_> = (1..=16).map(|count| subscribe(history, path, count)).collect();
        let silent: Vec<_> = (0..100).map(|_| net::UnixStream::connect(path).expect("connected")).collect();
        let since = Instant::now();
        let mut stream = net::UnixStream::connect(path).expect("connected");
        stream.write_all(b"snapshot\n").expect("written");
        let mut reply = String::new();
        stream.read_to_string(&mut reply).expect("a reply");
        println!("a snapshot beside {} silent connections: {:?}", silent.len(), since.elapsed());
        assert!(serde_json::from_str::<Snapshot>(&reply).is_ok(), "{reply}");
        drop(followers);
    });
}

/// Subscribes to events, and waits until there are `count` subscribers.
fn subscribe(history: &History, path: &Path, count: usize) -> net::UnixStream {
    let mut stream = net::UnixStream::connect(path).expect("connected");
    stream.write_all(FOLLOW).expect("written");
    poll_until("the subscription", || history.subscriber_count() == count);
    stream
}

/// Waits for a condition.
fn poll_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + WRITE_TIMEOUT;
    while !condition() {
        assert!(Instant::now() < deadline, "timed out waiting for {what}");
        thread::yield_now();
    }
}

#[test]
fn sends_events_after_client_has_shut_down_its_side() {
    serving(|history, path| {
        let stream = subscribe(history, path, 1);
        stream.shutdown(Shutdown::Write).expect("half closed");
        request(history, "kernel");
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).expect("a line");
        assert!(line.starts_with(r#"{"client":"10.0.0.5","name":"kernel""#), "{line}");
    });
}

#[test]
fn notices_disconnected_subscribers_without_events() {
    serving(|history, path| {
        let subscribers: Vec<_> = (1..=16).map(|count| subscribe(history, path, count)).collect();
        assert!(history.subscribe().is_none());
        drop(subscribers);
        poll_until("a free subscription", || history.subscribe().is_some());
    });
}

#[test]
fn drops_subscriber_that_does_not_read() {
    serving(|history, path| {
        let mut slow = subscribe(history, path, 1);
        let deadline = Instant::now() + WRITE_TIMEOUT;
        while history.subscriber_count() > 0 {
            assert!(Instant::now() < deadline, "the subscriber was not dropped");
            history.record_request([10, 0, 0, 5].into(), b"kernel").note_activity(clock::now(), 0, 0);
        }
        let mut received = vec![];
        slow.read_to_end(&mut received).expect("an end");
        assert!(received.len() < 4 << 20, "{} bytes", received.len());
    });
}
