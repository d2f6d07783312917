//! rtftp-get over HTTP: with rtftp, with Python's server, and with servers that break the rules.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use nix::sys::signal::Signal;
use rtftp_tests::{GetResult, Process, Rtftp, RtftpGet, assert_same, closed_port, noise, poll_until};
use tempfile::TempDir;

/// The longest wait for the client.
const LIMIT: Duration = Duration::from_secs(30);

/// Starts a daemon that serves files over HTTP, too. Returns the start of its URLs.
fn daemon(listen: &str, arguments: &[&str]) -> (Rtftp, String) {
    let daemon = Rtftp::start_with("127.0.0.1", 3600, &[&["--http", listen], arguments].concat());
    let line = daemon.logged(&["serving files over HTTP on "]);
    let address = line.split(" on ").nth(1).expect("an address").to_owned();
    (daemon, format!("http://{address}"))
}

/// A client of a scripted server.
struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    #[track_caller]
    fn accept(listener: &TcpListener) -> Self {
        let (stream, _) = listener.accept().expect("a connection");
        stream.set_read_timeout(Some(LIMIT)).expect("set");
        Self { stream: BufReader::new(stream) }
    }

    /// Returns the lines of the next request; none if the client has closed the connection.
    fn request(&mut self) -> Vec<String> {
        let lines = (&mut self.stream).lines().map_while(Result::ok);
        lines.take_while(|line| !line.is_empty()).collect()
    }

    /// Sends bytes, if the client still reads.
    fn send(&mut self, bytes: &str) {
        let _ = self.stream.get_mut().write_all(bytes.as_bytes());
    }
}

/// Runs rtftp-get with `http://SERVER/f` and further arguments; the server answers the first connection by `script`. Returns the
/// result, and asserts that no file remains unless the exit code is 0.
#[track_caller]
fn run_with_server(args: &[&str], script: impl FnOnce(&mut Client) + Send + 'static) -> (GetResult, RtftpGet) {
    let getter = RtftpGet::new();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/f", listener.local_addr().expect("bound"));
    let server = thread::spawn(move || {
        let mut client = Client::accept(&listener);
        script(&mut client);
    });
    let got = getter.get(&[&[&*url], args].concat());
    server.join().expect("the script");
    if got.code != Some(0) {
        assert_eq!(getter.files(), Vec::<String>::new(), "{}", got.stderr);
    }
    (got, getter)
}

/// Runs rtftp-get with a server that sends this answer and closes the connection.
#[track_caller]
fn run_with_answer(answer: &str) -> (GetResult, RtftpGet) {
    let answer = answer.to_owned();
    run_with_server(&[], move |client| {
        client.request();
        client.send(&answer);
    })
}

#[test]
fn fetches_from_rtftp() {
    let (daemon, url) = daemon("127.0.0.1:0", &[]);
    let (large, getter) = (noise(20_000_003, 3), RtftpGet::new());
    daemon.put("default/boot/vmlinuz", &large);
    daemon.put("default/a b.cfg", "blank");
    daemon.put("default/empty", "");
    let got = getter.get(&[&format!("{url}/boot/vmlinuz")]);
    got.assert_exit(0, &[&format!("{url}/boot/vmlinuz: 20000003 bytes in "), " MB/s, application/octet-stream"]);
    assert_eq!(got.stderr.lines().count(), 1, "{}", got.stderr);
    assert_same(&getter.read("vmlinuz"), &large, "the kernel");
    getter.get(&[&format!("{url}/a b.cfg"), "-q"]).assert_exit(0, &[]);
    assert_eq!(getter.read("a b.cfg"), b"blank");
    getter.get(&[&format!("{url}/empty?x=1")]).assert_exit(0, &["0 bytes in "]);
    assert_eq!(getter.read("empty"), b"");
    assert_eq!(getter.get(&[&format!("{url}/a%20b.cfg"), "-o", "-"]).stdout, b"blank");
    getter.get(&[&format!("{url}/missing")]).assert_exit(1, &[": 404 Not Found: check the path"]);
    assert!(!getter.files().contains(&"missing".to_owned()));
}

#[test]
fn compares_with_a_local_file() {
    let (daemon, url) = daemon("127.0.0.1:0", &[]);
    let getter = RtftpGet::new();
    daemon.put("default/f", "abc");
    let url = format!("{url}/f");
    let local = |content| daemon.put("local", content).display().to_string();
    getter.get(&[&url, "--verify", &local("abc")]).assert_exit(0, &["f: 3 bytes"]);
    getter.get(&[&url, "--verify", &local("abX")]).assert_exit(5, &["differs at byte 2"]);
    getter.get(&[&url, "--verify", &local("abcd")]).assert_exit(5, &["is longer"]);
    assert_eq!(getter.files(), Vec::<String>::new());
}

#[test]
fn fetches_several_files_over_one_connection() {
    let (daemon, url) = daemon("127.0.0.1:0", &[]);
    let getter = RtftpGet::new();
    for name in ["a", "b", "c"] {
        daemon.put(&format!("default/{name}"), name);
    }
    let got = getter.get(&[&format!("{url}/a"), &format!("{url}/b"), &format!("{url}/c"), "--trace"]);
    got.assert_exit(0, &["/a: 1 bytes", "/b: 1 bytes", "/c: 1 bytes"]);
    assert_eq!(["a", "b", "c"].map(|name| getter.read(name)), [b"a", b"b", b"c"]);
    assert_eq!(got.stderr.matches(" connected").count(), 1, "{}", got.stderr);
    assert_eq!(got.stderr.matches(" connection used again").count(), 2, "{}", got.stderr);
    // The first error ends the program; files before it are kept.
    let got = getter.get(&[&format!("{url}/a"), &format!("{url}/missing"), &format!("{url}/later")]);
    got.assert_exit(1, &["/a: 1 bytes", "404"]);
    assert_eq!(got.stderr.lines().count(), 2, "{}", got.stderr);
}

#[test]
fn fetches_over_ipv6() {
    let (daemon, url) = daemon("[::1]:0", &[]);
    daemon.put("default/f", "six");
    let getter = RtftpGet::new();
    assert!(url.starts_with("http://[::1]:"), "{url}");
    getter.get(&[&format!("{url}/f"), "--trace"]).assert_exit(0, &["f: 3 bytes", "-> [::1]:", " Host: [::1]:"]);
    assert_eq!(getter.read("f"), b"six");
}

#[test]
fn tries_all_addresses_of_a_name() {
    let (daemon, url) = daemon("127.0.0.1:0", &[]);
    daemon.put("default/f", "four");
    let getter = RtftpGet::new();
    // `localhost` usually resolves to ::1 first.
    getter.get(&[&format!("{}/f", url.replace("127.0.0.1", "localhost"))]).assert_exit(0, &[]);
    assert_eq!(getter.read("f"), b"four");
}

#[test]
fn traces_heads_and_times() {
    let (daemon, url) = daemon("127.0.0.1:0", &[]);
    daemon.put("default/dir/x.efi", "abc");
    let got = RtftpGet::new().get(&[&format!("{url}/dir/x.efi"), "--trace"]);
    let server = url.strip_prefix("http://").expect("a URL");
    let host = format!(" -> {server} Host: {server}");
    got.assert_exit(0, &[&host]);
    let lines: Vec<_> = got.stderr.lines().collect();
    let mut at = 0;
    for expected in [
        "-> SERVER connected",
        "-> SERVER GET /dir/x.efi HTTP/1.1",
        "-> SERVER User-Agent: rtftp-get/",
        "<- SERVER HTTP/1.1 200 OK",
        "<- SERVER Content-Length: 3",
        "<- SERVER Content-Type: application/efi",
        "<- SERVER body begins, 3 bytes",
        "<- SERVER body ends, 3 bytes in all",
    ] {
        let expected = expected.replace("SERVER", server);
        let found = lines[at..].iter().position(|line| line.contains(&expected));
        at += found.unwrap_or_else(|| panic!("`{expected}` not found after line {at} of: {}", got.stderr)) + 1;
    }
    let time = |line: &str| line.split_whitespace().next().and_then(|time| time.parse::<f64>().ok());
    let times: Vec<f64> = lines[..at].iter().map(|line| time(line).expect("a time")).collect();
    assert!(times.is_sorted(), "{times:?}");
}

#[test]
fn fetches_from_python() {
    let directory = TempDir::new().expect("a directory");
    let file = noise(3_000_000, 4);
    std::fs::create_dir(directory.path().join("dir")).expect("made");
    std::fs::write(directory.path().join("dir/f"), &file).expect("written");
    let mut command = Command::new("python3");
    command.args(["-u", "-m", "http.server", "--bind", "127.0.0.1", "--directory"]).arg(directory.path()).arg("0");
    let mut server = Process::start(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()));
    let mut line = String::new();
    BufReader::new(server.child().stdout.take().expect("a pipe")).read_line(&mut line).expect("a line");
    let url = line.split(['(', ')']).find(|word| word.starts_with("http://")).expect("a URL").trim_end_matches('/');
    let getter = RtftpGet::new();
    // The server closes the connection after each file.
    let got = getter.get(&[&format!("{url}/dir/f"), "--trace"]);
    got.assert_exit(0, &["f: 3000000 bytes in ", "Content-Length: 3000000"]);
    assert_same(&getter.read("f"), &file, "the file");
    getter.get(&[&format!("{url}/missing")]).assert_exit(1, &["404 File not found"]);
    let got = getter.get(&[&format!("{url}/dir")]);
    got.assert_exit(1, &["301 Moved Permanently: redirected to /dir/: fetch that URL"]);
}

#[test]
fn explains_statuses() {
    for (status, words) in [
        ("404 Not Found", ["404 Not Found: check the path", "this machine's address"]),
        ("403 Forbidden", ["403 Forbidden: the server may not serve this path", "see its log"]),
        ("503 Service Unavailable\r\nRetry-After: 2", ["try again after 2 (Retry-After)", "see the server's log"]),
        ("503 Service Unavailable", ["is not available now: try again", "see the server's log"]),
        ("302 Found\r\nLocation: http://10.0.0.9/g", ["302 Found: redirected to http://10.0.0.9/g: ", "do not follow"]),
        ("500 Broken", ["500 Broken", "see the server's log"]),
        ("206 Partial Content\r\nContent-Range: bytes 0-1/9", ["206 Partial Content", "see the server's log"]),
    ] {
        let (got, _) = run_with_answer(&format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\nno"));
        got.assert_exit(1, &words);
    }
}

#[test]
fn reports_a_connection_that_breaks_off() {
    for (answer, words) in [
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
            "connection closed after 3 of 10 bytes, before the end of the file",
        ),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n4\r\nde", "connection closed after 5 bytes"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n", "connection closed after 3 bytes"),
        ("HTTP/1.1 200 OK\r\nContent-Le", "connection closed without an answer"),
        ("", "connection closed without an answer"),
    ] {
        let (got, _) = run_with_answer(answer);
        got.assert_exit(3, &["127.0.0.1:", words]);
    }
}

#[test]
fn keeps_existing_file_if_the_connection_breaks_off() {
    let getter = RtftpGet::new();
    std::fs::write(getter.path("f"), "old").expect("written");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let running = getter.start(&[&format!("http://{}/f", listener.local_addr().expect("bound"))]);
    let mut client = Client::accept(&listener);
    client.request();
    client.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc");
    drop(client);
    running.end().assert_exit(3, &["after 3 of 10 bytes"]);
    assert_eq!((getter.files(), getter.read("f")), (vec!["f".to_owned()], b"old".to_vec()));
}

#[test]
fn reports_violations_of_the_protocol() {
    for (answer, words) in [
        ("SSH-2.0-OpenSSH_9.2\r\n\r\n", "the answer is not HTTP"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 3, 4\r\n\r\nabc", "Content-Length is not one number"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nabc", "Transfer-Encoding is not chunked"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n", "a chunk is longer than its size"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nabcx\r\n", "the size of a chunk is malformed"),
        (&"HTTP/1.1 100 Continue\r\n\r\n".repeat(20), "too many interim responses"),
        (&format!("HTTP/1.1 200 OK\r\nA: {}", "a".repeat(20_000)), "the head of the response is too large"),
    ] {
        let (got, _) = run_with_answer(answer);
        got.assert_exit(3, &["127.0.0.1:", ": protocol violation: ", words]);
    }
}

#[test]
fn accepts_chunks_and_interim_responses() {
    let (got, getter) = run_with_answer(
        "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\nA\r\n\
         0123456789\r\n0\r\nX-Sum: 1\r\n\r\n",
    );
    got.assert_exit(0, &["/f: 13 bytes in "]);
    assert_eq!(getter.read("f"), b"abc0123456789");
}

#[test]
fn warns_of_a_missing_content_length() {
    let (got, getter) = run_with_answer("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\nabc");
    got.assert_exit(0, &["3 bytes", "warning: the server sent no Content-Length", "UEFI and GRUB"]);
    assert_eq!(getter.read("f"), b"abc");
}

#[test]
fn ignores_what_follows_the_body() {
    let (got, getter) = run_with_answer("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcdef");
    got.assert_exit(0, &["3 bytes"]);
    assert_eq!(getter.read("f"), b"abc");
}

#[test]
fn connects_again_if_the_server_has_closed_the_kept_connection() {
    let getter = RtftpGet::new();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    let running = getter.start(&[&format!("{url}/a"), &format!("{url}/b")]);
    for name in ["a", "b"] {
        let mut client = Client::accept(&listener);
        assert_eq!(client.request()[0], format!("GET /{name} HTTP/1.1"));
        client.send(&format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{name}"));
        if name == "a" {
            // The request for the second file has arrived, and gets no answer.
            assert_eq!(client.request()[0], "GET /b HTTP/1.1");
        }
    }
    running.end().assert_exit(0, &["/b: 1 bytes"]);
    assert_eq!(getter.read("b"), b"b");
}

#[test]
fn gives_up_after_its_patience() {
    let (got, _) = run_with_server(&["--patience", "1"], |client| {
        client.request();
        let _ = client.stream.read(&mut [0]);
    });
    got.assert_exit(3, &["127.0.0.1:", "no answer: check"]);
    let (got, _) = run_with_server(&["--patience", "1"], |client| {
        client.request();
        client.send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc");
        let _ = client.stream.read(&mut [0]);
    });
    got.assert_exit(3, &["127.0.0.1:", "timed out after 3 bytes"]);
}

#[test]
fn reports_a_closed_port_and_other_wrong_urls() {
    let getter = RtftpGet::new();
    getter
        .get(&[&closed_port().replace("nbd://", "http://")])
        .assert_exit(3, &["port closed", "is the server running"]);
    getter.get(&["http://me:secret@127.0.0.1/f"]).assert_exit(2, &["user names and passwords are not supported"]);
    getter.get(&["http://127.0.0.1/"]).assert_exit(2, &["does not end with a file name: use -o OUT"]);
}

#[test]
fn removes_the_temporary_file_when_interrupted() {
    let getter = RtftpGet::new();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let running = getter.start(&[&format!("http://{}/f", listener.local_addr().expect("bound"))]);
    let mut client = Client::accept(&listener);
    client.request();
    client.send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc");
    poll_until("the temporary file", LIMIT, || (!getter.files().is_empty()).then_some(()));
    running.signal(Signal::SIGTERM);
    running.end().assert_exit(130, &["interrupted"]);
    assert_eq!(getter.files(), Vec::<String>::new());
}
