//! Unavailable disks: invalid descriptions, NBD servers that refuse, do not answer or do not exist. No appliance is started.

use std::{
    fs,
    time::{Duration, Instant},
};

use rtftp_tests::{Answer, DiskConfig, Rtftp, closed_port, raw_client::rrq, silent_server};

/// The maximum time until a client learns that its disk is unavailable.
const LIMIT: Duration = Duration::from_secs(60);

/// Asserts that a client with an unavailable disk receives ERROR 0 (and no file from `default/`), and returns its text.
#[track_caller]
fn assert_unavailable(daemon: &Rtftp, client: &str) -> String {
    match daemon.client(client).request_until_answered(&rrq("file", &[]), LIMIT) {
        Answer::Error(0, text) => text,
        other => panic!("{client}: {other:?}"),
    }
}

#[test]
fn invalid_description_is_reported_once_with_line_and_column() {
    let daemon = Rtftp::start();
    daemon.put("default/file", "default");
    let mount = r#""mounts": [{"partition": 1, "mountpoint": "/"}], "tftp_root": "/""#;
    let descriptions = [
        ("127.0.0.10", "{\n  \"url\": nonsense\n}\n".to_owned(), "line 2, column 10"),
        ("127.0.0.11", format!("{{\"url\": \"http://host/\", {mount}}}"), "url"),
        ("127.0.0.12", format!("{{\"url\": \"nbd://host/x\", {}}}", mount.replace(": 1", ": 256")), "partition"),
        (
            "127.0.0.13",
            format!("{{\"url\": \"nbd://host/x\", {}}}", mount.replace("\"/\"}", "\"boot\"}")),
            "mountpoint",
        ),
        ("127.0.0.14", "{\"url\": \"nbd://host/x\"}".to_owned(), "mounts"),
        ("127.0.0.15", format!("{{\"url\": \"nbd://host/x\", \"rooot\": 1, {mount}}}"), "rooot"),
        ("127.0.0.16", String::new(), "line 1, column 1"),
    ];
    for (client, text, named) in &descriptions {
        daemon.put_disk(client, text);
        let line = daemon.logged(&[&format!("{client}.nbd")]);
        assert!(line.contains(named), "no `{named}` in {line}");
        for _ in 0..3 {
            let reason = assert_unavailable(&daemon, client);
            assert!(!reason.is_empty() && reason.len() < 200, "{reason}");
        }
    }
    assert_eq!(
        daemon.client("127.0.0.9").fetch("file", &[]).as_deref(),
        Ok(&b"default"[..]),
        "other clients are not affected"
    );
    for (client, _, named) in descriptions {
        let lines = daemon.log_lines(&[&format!("{client}.nbd"), named]);
        // Lines about the rejected requests may name the description as root, but must not repeat the problem.
        assert_eq!(
            lines.iter().filter(|line| line.contains("WARN") || line.contains("ERROR")).count(),
            1,
            "{lines:#?}"
        );
    }
    assert!(daemon.descendants().is_empty(), "no helper process was started");
}

#[test]
fn corrected_description_is_reloaded() {
    let daemon = Rtftp::start();
    daemon.put("default/file", "default");
    daemon.put("127.0.0.7.nbd", "{");
    assert_unavailable(&daemon, "127.0.0.7");
    fs::remove_file(daemon.path("127.0.0.7.nbd")).expect("remove");
    let mut client = daemon.client("127.0.0.7");
    assert_eq!(
        client.fetch("file", &[]).as_deref(),
        Ok(&b"default"[..]),
        "without a description, the client uses default/"
    );
    daemon.put_disk("127.0.0.7", &DiskConfig::new(closed_port()).partition(1, "/"));
    assert_unavailable(&daemon, "127.0.0.7");
}

#[test]
fn unreachable_nbd_server_fails_only_its_own_client() {
    let daemon = Rtftp::start();
    daemon.put("default/file", "default");
    let silent = silent_server();
    let disks = [
        ("127.0.0.10", closed_port()),
        ("127.0.0.11", "nbd+unix:///disk?socket=/nowhere/nbd.sock".to_owned()),
        // Without this kind of sockets, or without a server there.
        ("127.0.0.15", "nbd+vsock://1:1/disk".to_owned()),
        ("127.0.0.12", silent.clone()),
        ("127.0.0.13", silent.clone()),
        ("127.0.0.14", silent),
    ];
    for (client, url) in &disks {
        daemon.put_disk(client, &DiskConfig::new(url).partition(1, "/"));
    }
    let started = Instant::now();
    std::thread::scope(|scope| {
        for (client, _) in &disks {
            scope.spawn(|| assert_unavailable(&daemon, client));
        }
        // Meanwhile, another client is served without delay.
        for _ in 0..50 {
            let requested = Instant::now();
            assert_eq!(daemon.client("127.0.0.9").fetch("file", &[]).as_deref(), Ok(&b"default"[..]));
            assert!(
                requested.elapsed() < Duration::from_secs(2),
                "waited {:?} for the disk of another client",
                requested.elapsed()
            );
        }
    });
    assert!(started.elapsed() < LIMIT, "{:?}", started.elapsed());
    for (client, _) in &disks {
        daemon.wait_for_disk(client, "ERROR");
    }
}
