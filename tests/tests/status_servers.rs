//! `rtftp status --server`: several servers as one.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    process::Output,
    thread,
};

use nix::sys::signal::Signal;
use rtftp_tests::{Rtftp, run_with_bad_arguments};
use serde_json::Value;

const BOARD: &str = "127.0.0.7";

/// Starts a daemon with a status page, and returns the address of the page.
fn daemon() -> (Rtftp, String) {
    let daemon = Rtftp::start_with("127.0.0.1", 3600, &["--status-listen", "0"]);
    let line = daemon.logged(&["status page at http://"]);
    let address = line.split("http://").nth(1).expect("an address").trim_end_matches('/').to_owned();
    daemon.put("default/config.txt", "arm_64bit=1");
    daemon.put("default/kernel", "a kernel");
    (daemon, address)
}

/// Runs `rtftp status` with these servers.
fn status(servers: &[&str], args: &[&str]) -> Output {
    let servers = servers.iter().flat_map(|server| ["--server", server]);
    run_with_bad_arguments(["status"].into_iter().chain(servers).chain(args.iter().copied()))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Returns the output of `rtftp status`, which must be printable ASCII.
#[track_caller]
fn output(servers: &[&str], args: &[&str]) -> String {
    let output = status(servers, args);
    assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
    assert!(output.stdout.iter().all(|byte| matches!(byte, b'\n' | b' '..=b'~')), "{}", output.stdout.escape_ascii());
    text(&output.stdout)
}

#[test]
fn shows_each_board_once_and_which_server_answered() {
    let ((first, first_page), (second, second_page)) = (daemon(), daemon());
    assert_eq!(first.fetch(BOARD, "config.txt").as_deref(), Ok("arm_64bit=1"));
    assert_eq!(second.fetch(BOARD, "kernel").as_deref(), Ok("a kernel"));
    assert_eq!(first.fetch("127.0.0.8", "kernel").as_deref(), Ok("a kernel"));
    first.logged(&["127.0.0.8", "kernel", "complete"]);
    second.logged(&[BOARD, "kernel", "complete"]);
    let servers = [&*first_page, &format!("http://{second_page}/")];

    let table = output(&servers, &[]);
    let boards: Vec<_> =
        table.lines().filter(|line| line.starts_with("127.0.0.") && !line.contains(": rtftp ")).collect();
    assert_eq!(boards.len(), 2, "{table}");
    for (board, (address, complete, server)) in
        boards.iter().zip([(BOARD, "2", &second_page), ("127.0.0.8", "1", &first_page)])
    {
        let words: Vec<_> = board.split_whitespace().collect();
        assert_eq!((words[0], words[4], words[6]), (address, complete, server.as_str()), "{table}");
        assert!(board.contains("kernel complete"), "{board}");
    }
    for page in [&first_page, &second_page] {
        assert!(table.contains(&format!("{page}: rtftp ")), "{table}");
    }

    let history = output(&servers, &[BOARD]);
    let (history, log) = history.split_once("\nlog\n").expect("the log");
    assert!(log.contains(" config.txt from default/") && log.contains(" kernel from default/"), "{log}");
    assert_eq!(history.matches("\nboot ").count(), 1, "{history}");
    let (config, kernel) = (history.find("config.txt").expect("a line"), history.rfind(" kernel ").expect("a line"));
    assert!(config < kernel, "in the order of the requests: {history}");
    assert!(history[config..kernel].contains(&format!("from default/; by {first_page}\n")), "{history}");
    assert!(history[kernel..].contains(&format!("from default/; by {second_page}\n")), "{history}");

    let json: Value = serde_json::from_str(&output(&servers, &["--json"])).expect("JSON");
    assert_eq!(json["servers"][0]["server"], first_page);
    assert_eq!(json["servers"][1]["server"], second_page);
    assert_eq!(json["servers"][0]["totals"]["complete"], 2);
    assert_eq!(json["clients"].as_array().map(Vec::len), Some(2));
    let json: Value = serde_json::from_str(&output(&servers, &["--json", BOARD])).expect("JSON");
    assert_eq!(json["boots"][0]["files"][1]["server"], second_page);
}

#[test]
fn shows_the_others_if_a_server_does_not_answer() {
    let ((first, first_page), (second, second_page)) = (daemon(), daemon());
    assert_eq!(first.fetch(BOARD, "kernel").as_deref(), Ok("a kernel"));
    first.logged(&[BOARD, "kernel", "complete"]);
    second.stop(Signal::SIGTERM);
    let servers = [&*first_page, &*second_page];
    let problem =
        format!("{second_page}: Connection refused (os error 111): is rtftp running with this --status-listen?");
    let table = output(&servers, &[]);
    assert!(table.contains(&format!("\n{problem}\n")) && table.contains(&format!("\n{BOARD} ")), "{table}");
    let json: Value = serde_json::from_str(&output(&servers, &["--json"])).expect("JSON");
    assert!(json["servers"][1]["error"].as_str().is_some_and(|error| problem.ends_with(error)), "{json}");
    let history = status(&servers, &[BOARD]);
    assert_eq!(text(&history.stderr), format!("rtftp: {problem}\n"));
    assert!(history.status.success() && text(&history.stdout).contains("kernel complete"));
    first.stop(Signal::SIGTERM);
    for args in [&[][..], &["--json"], &[BOARD]] {
        let nobody = status(&servers, args);
        let stderr = text(&nobody.stderr);
        assert!(nobody.status.code() == Some(1) && stderr.lines().count() == 2, "{args:?}: {stderr}");
    }
}

/// Replies to every request with these bytes, and then with `repeated` until the client closes the connection.
fn hostile_server(reply: &'static [u8], repeated: &'static [u8]) -> String {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let address: SocketAddr = listener.local_addr().expect("bound");
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let _ = stream.read(&mut [0; 4096]);
            let mut sent = stream.write_all(reply);
            while sent.is_ok() && !repeated.is_empty() {
                sent = stream.write_all(repeated);
            }
        }
    });
    address.to_string()
}

#[test]
fn trusts_no_reply_of_a_server() {
    let (daemon, page) = daemon();
    assert_eq!(daemon.fetch(BOARD, "kernel").as_deref(), Ok("a kernel"));
    let hostile = [
        (hostile_server(b"HTTP/1.1 200 OK\r\n\r\n", &[b'['; 1 << 16]), "the reply is larger than 128 MiB"),
        (hostile_server(b"HTTP/1.1 200 OK\r\n\r\n\"\x1b[2J\n\"", b""), "unexpected reply"),
        (hostile_server(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{\"now\":\"\xc2\x9b", b""), "unexpected reply"),
        (hostile_server(b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n", b""), "404 No: is this the address"),
        (hostile_server(b"SSH-2.0-OpenSSH\r\n", b""), "the answer is not HTTP"),
        (hostile_server(b"", b""), "connection closed without an answer"),
    ];
    let servers: Vec<_> = [&*page].into_iter().chain(hostile.iter().map(|(server, _)| &**server)).collect();
    let table = output(&servers, &[]);
    for (server, problem) in &hostile {
        let line = table.lines().find(|line| line.starts_with(&format!("{server}: "))).expect("a line");
        assert!(line.contains(problem), "{line}");
    }
    assert!(table.contains(&format!("\n{BOARD} ")), "{table}");
}
