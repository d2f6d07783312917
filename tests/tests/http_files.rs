//! The files of the boot server over HTTP.

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::symlink,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use rtftp_runtime::history::snapshot::{Protocol, Snapshot, State};
use rtftp_tests::{
    Disk, DiskConfig, FileSystem, NbdServer, Rtftp, Tree, assert_same, binary,
    http_client::{HttpClient, HttpResponse},
    noise, silent_server,
};

const BOARD: &str = "127.0.0.5";
const OTHER: &str = "127.0.0.6";

fn get(address: SocketAddr, from: &str, target: &str) -> HttpResponse {
    HttpClient::connect(from, address).request("GET", target, &[]).expect("a response")
}

/// Returns the disk of a board with this kernel.
fn disk(kernel: &[u8]) -> Disk {
    let tree = Tree::new()
        .file("boot/vmlinuz", kernel)
        .file("boot/grub/grub.cfg", "linux /vmlinuz")
        .link("boot/kernel", "vmlinuz");
    Disk::whole(64, FileSystem::Ext4(&tree))
}

fn put_disk(daemon: &Rtftp, client: &str, server: &NbdServer) {
    daemon.put_disk(client, &DiskConfig::new(server.url()).device("/dev/sda", "/").tftp_root("/boot"));
}

#[test]
fn serves_the_same_roots_as_over_tftp() {
    let (daemon, address) = Rtftp::start_http(&[]);
    let kernel = noise(3_000_001, 1);
    let image = disk(&kernel);
    let server = NbdServer::qemu(&image);
    put_disk(&daemon, BOARD, &server);
    daemon.put("127.0.0.5/config.txt", "own");
    daemon.put("default/config.txt", "default");
    daemon.put("default/large", noise(5_000_003, 2));
    daemon.put("default/empty", "");
    for (from, target, expected) in [
        (BOARD, "/config.txt", Some(b"own".to_vec())),
        (OTHER, "/config.txt", Some(b"default".to_vec())),
        (BOARD, "/vmlinuz", Some(kernel.clone())),
        (BOARD, "//./kernel?mac=1", Some(kernel)),
        (BOARD, "/grub%2Fgrub.cfg", Some(b"linux /vmlinuz".to_vec())),
        (BOARD, "/large", Some(noise(5_000_003, 2))),
        (OTHER, "/empty", Some(vec![])),
        (OTHER, "/vmlinuz", None),
    ] {
        let response = get(address, from, target);
        match expected {
            Some(expected) => {
                assert_eq!(response.status, 200, "{from} {target}");
                assert_same(&response.body, &expected, target);
                let name = target.split('?').next().unwrap_or(target).replace("%2F", "/");
                assert_same(&daemon.client(from).fetch(&name, &[]).expect("served over TFTP"), &expected, &name);
            }
            None => assert_eq!((response.status, response.header("Content-Length")), (404, Some("0")), "{target}"),
        }
    }
}

#[test]
fn keeps_connections_open_and_answers_pipelined_requests_in_order() {
    let (daemon, address) = Rtftp::start_http(&[]);
    daemon.put("default/a", "first");
    daemon.put("default/b", noise(200_000, 3));
    let mut client = HttpClient::connect(BOARD, address);
    let head = client.request("HEAD", "/a", &[]).expect("a response");
    assert_eq!((head.status, head.header("Content-Length"), head.header("Connection")), (200, Some("5"), None));
    let got = client.request("GET", "/a", &[]).expect("a response");
    assert_eq!(
        (got.body.as_slice(), &got.headers[1..]),
        (&b"first"[..], &head.headers[1..]),
        "HEAD is as right as GET"
    );
    client.send("GET /a HTTP/1.1\r\n\r\nGET /missing HTTP/1.1\r\n\r\nHEAD /b HTTP/1.1\r\n\r\nGET /b HTTP/1.1\r\nConnection: close\r\n\r\n").expect("sent");
    assert_eq!(client.response(false).expect("a response").body, b"first");
    assert_eq!(client.response(false).expect("a response").status, 404);
    assert_eq!(client.response(true).expect("a response").header("Content-Length"), Some("200000"));
    let last = client.response(false).expect("a response");
    assert_same(&last.body, &noise(200_000, 3), "b");
    assert_eq!((last.header("Connection"), client.rest()), (Some("close"), vec![]));
    let mut old = HttpClient::connect(BOARD, address);
    old.send("GET /a HTTP/1.0\r\n\r\n").expect("sent");
    assert_eq!((old.response(false).expect("a response").header("Connection"), old.rest()), (Some("close"), vec![]));
}

#[test]
fn serves_parts_of_one_version_only() {
    let (daemon, address) = Rtftp::start_http(&[]);
    let kernel = noise(2_000_000, 4);
    let image = disk(&kernel);
    let server = NbdServer::qemu(&image);
    put_disk(&daemon, BOARD, &server);
    daemon.put("default/local", &kernel);
    for target in ["/vmlinuz", "/local"] {
        let mut client = HttpClient::connect(BOARD, address);
        let whole = client.request("GET", target, &[]).expect("a response");
        let tag = whole.header("ETag").expect("an entity tag").to_owned();
        for (range, start, end) in [
            ("bytes=0-0", 0, 1),
            ("bytes=300000-700000", 300_000, 700_001),
            ("bytes=1999990-", 1_999_990, 2_000_000),
            ("bytes=-7", 1_999_993, 2_000_000),
        ] {
            let part = client
                .request("GET", target, &[&format!("Range: {range}"), &format!("If-Range: {tag}")])
                .expect("a response");
            assert_eq!(part.status, 206, "{target} {range}");
            assert_eq!(part.header("Content-Range"), Some(&*format!("bytes {start}-{}/2000000", end - 1)));
            assert_same(&part.body, &kernel[start..end], range);
        }
        let beyond = client.request("GET", target, &["Range: bytes=2000000-"]).expect("a response");
        assert_eq!((beyond.status, beyond.header("Content-Range")), (416, Some("bytes */2000000")));
        let other = client.request("GET", target, &["Range: bytes=5-", "If-Range: \"other\""]).expect("a response");
        assert_eq!((other.status, other.body.len()), (200, kernel.len()));
        assert_eq!(client.request("GET", target, &[&format!("If-None-Match: {tag}")]).expect("a response").status, 304);
        assert_eq!(client.request("GET", target, &["If-None-Match: \"other\""]).expect("a response").status, 200);
    }
    let old = get(address, BOARD, "/local").header("ETag").map(str::to_owned);
    daemon.put("default/local", noise(2_000_000, 5));
    assert_ne!(get(address, BOARD, "/local").header("ETag").map(str::to_owned), old);
}

#[test]
fn ends_the_connection_instead_of_mixing_versions() {
    let (daemon, address) = Rtftp::start_http(&[]);
    let size = 40_000_000;
    let path = daemon.put("default/kernel", noise(size, 6));
    let mut client = HttpClient::connect(BOARD, address);
    client.send("GET /kernel HTTP/1.1\r\n\r\n").expect("sent");
    assert_eq!(client.head().expect("a response").status, 200);
    // More than the socket buffers hold is not sent yet.
    fs::write(&path, noise(size, 7)).expect("overwritten");
    let received = client.rest().len();
    assert!(received < size, "the client received a whole file");
    daemon.logged(&["kernel", "over HTTP", "the file changed during the transfer"]);
}

#[test]
fn serves_the_upgraded_kernel_at_the_next_boot() {
    let (daemon, address) = Rtftp::start_http(&["--view-gap", "0"]);
    let (old, new) = (noise(900_000, 8), noise(900_000, 9));
    let image = disk(&old);
    let server = NbdServer::qemu(&image);
    put_disk(&daemon, BOARD, &server);
    assert_same(&get(address, BOARD, "/vmlinuz").body, &old, "the old kernel");
    let upgraded = disk(&new);
    fs::copy(upgraded.path(), image.path()).expect("written");
    assert_same(&get(address, BOARD, "/vmlinuz").body, &new, "the new kernel");
}

#[test]
fn refuses_as_over_tftp_with_empty_bodies() {
    let (daemon, address) = Rtftp::start_http(&[]);
    daemon.put("default/a", "file");
    daemon.put("127.0.0.5/secret/key", "");
    symlink("/etc/passwd", daemon.path("default/passwd")).expect("a link");
    for (request, status) in [
        ("GET /missing HTTP/1.1\r\n\r\n", 404),
        ("GET / HTTP/1.1\r\n\r\n", 404),
        ("GET /%2e%2e/a HTTP/1.1\r\n\r\n", 403),
        ("GET /passwd HTTP/1.1\r\n\r\n", 403),
        ("GET /secret HTTP/1.1\r\n\r\n", 403),
        ("POST /a HTTP/1.1\r\nContent-Length: 2\r\n\r\nab", 405),
        ("GET /a HTTP/2.0\r\n\r\n", 505),
        ("GET /a\r\n\r\n", 400),
        (&*format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(1000)), 414),
        (&*format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(9000)), 414),
    ] {
        let mut client = HttpClient::connect(BOARD, address);
        client.send(request).expect("sent");
        let response = client.response(false).expect("a response");
        assert_eq!((response.status, response.header("Content-Length")), (status, Some("0")), "{request:.60}");
        assert!(response.header("Date").is_some());
    }
}

#[test]
fn unavailable_disk_is_no_missing_file() {
    let (daemon, address) = Rtftp::start_http(&[]);
    daemon.put("default/vmlinuz", "of others");
    daemon.put_disk(BOARD, &DiskConfig::new(silent_server()).device("/dev/sda", "/").tftp_root("/boot"));
    let started = Instant::now();
    let response = get(address, BOARD, "/vmlinuz");
    assert_eq!((response.status, response.header("Retry-After"), response.body.len()), (503, Some("2"), 0));
    assert!(started.elapsed() < Duration::from_secs(6), "firmware gives up after 5 s: {:?}", started.elapsed());
    assert_eq!(get(address, OTHER, "/vmlinuz").body, b"of others", "another client is served");
}

#[test]
fn removes_a_prefix_and_records_the_boot() {
    let socket = tempfile::tempdir().expect("a directory");
    let path = socket.path().join("status.sock").display().to_string();
    let (daemon, address) = Rtftp::start_http(&["--http-prefix", "/boot/", "--status-socket", &path]);
    daemon.put("default/a b.cfg", "menu");
    assert_eq!(get(address, BOARD, "/boot/a b.cfg").body, b"menu");
    assert_eq!(get(address, BOARD, "/a%20b.cfg").body, b"menu");
    assert_eq!(get(address, BOARD, "/boot/missing").status, 404);
    let output =
        Command::new(binary("rtftp")).args(["status", "--json", "--socket", &path]).output().expect("rtftp status");
    let snapshot: Snapshot = serde_json::from_slice(&output.stdout).expect("JSON");
    let files = &snapshot.clients[0].boots[0].files;
    let found: Vec<_> =
        files.iter().map(|file| (file.name.as_str(), file.protocol, file.state, file.acknowledged)).collect();
    assert_eq!(
        found,
        [
            (r#""/boot/a b.cfg""#, Protocol::Http, State::Complete, 4),
            ("/a%20b.cfg", Protocol::Http, State::Complete, 4),
            ("/boot/missing", Protocol::Http, State::Missing, 0)
        ]
    );
}

#[test]
fn completes_running_responses_before_it_ends() {
    let (daemon, address) = Rtftp::start_http(&[]);
    daemon.put("default/kernel", noise(8_000_000, 10));
    let mut client = HttpClient::connect(BOARD, address);
    client.send("GET /kernel HTTP/1.1\r\n\r\n").expect("sent");
    assert_eq!(client.head().expect("a response").status, 200);
    let _idle = HttpClient::connect(OTHER, address);
    let reader = thread::spawn(move || client.rest());
    daemon.stop(Signal::SIGTERM);
    assert_same(&reader.join().expect("received"), &noise(8_000_000, 10), "kernel");
}
