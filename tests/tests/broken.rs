//! Disks that cannot be had: broken descriptions, servers that refuse, are silent or missing. No appliance gets to run.

use std::{
    fs,
    time::{Duration, Instant},
};

use rtftp_tests::{Answer, DiskConfig, Rtftp, closed_port, raw_client::rrq, silent_server};

/// How long a client may have to wait for the word that its disk cannot be had.
const LIMIT: Duration = Duration::from_secs(60);

/// Asserts ERROR 0 for a client whose disk is broken; `default/` must not step in.
#[track_caller]
fn assert_broken(daemon: &Rtftp, from: &str) -> String {
    match daemon.client(from).request_until_answered(&rrq("file", &[]), LIMIT) {
        Answer::Error(0, text) => text,
        other => panic!("{from}: {other:?}"),
    }
}

#[test]
fn a_broken_description_is_reported_once_with_line_and_column() {
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
        daemon.put(&format!("{client}.nbd"), text);
        let line = daemon.logged(&[&format!("{client}.nbd")]);
        assert!(line.contains(named), "`{named}` should be named: {line}");
        for _ in 0..3 {
            let told = assert_broken(&daemon, client);
            assert!(!told.is_empty() && told.len() < 200, "a short reason: {told}");
        }
    }
    assert_eq!(daemon.client("127.0.0.9").fetch("file", &[]).as_deref(), Ok(&b"default"[..]), "others notice nothing");
    for (client, _, named) in descriptions {
        let lines = daemon.log_lines(&[&format!("{client}.nbd"), named]);
        // The lines of the refused transfers may name the description as their root, but not the mistake again.
        assert_eq!(
            lines.iter().filter(|line| line.contains("WARN") || line.contains("ERROR")).count(),
            1,
            "{lines:#?}"
        );
    }
    assert!(daemon.descendants().is_empty(), "nothing was started for them");
}

#[test]
fn a_mended_description_is_taken_up() {
    let daemon = Rtftp::start();
    daemon.put("default/file", "default");
    daemon.put("127.0.0.7.nbd", "{");
    assert_broken(&daemon, "127.0.0.7");
    fs::remove_file(daemon.path("127.0.0.7.nbd")).expect("remove");
    let mut client = daemon.client("127.0.0.7");
    assert_eq!(client.fetch("file", &[]).as_deref(), Ok(&b"default"[..]), "without a description there is no disk");
    daemon.put_disk("127.0.0.7", &DiskConfig::new(closed_port()).partition(1, "/"));
    assert_broken(&daemon, "127.0.0.7");
}

#[test]
fn a_server_that_refuses_or_is_silent_fails_its_own_client_only() {
    let daemon = Rtftp::start();
    daemon.put("default/file", "default");
    let hung = silent_server();
    let disks = [
        ("127.0.0.10", closed_port()),
        ("127.0.0.11", "nbd+unix:///disk?socket=/nowhere/nbd.sock".to_owned()),
        ("127.0.0.12", hung.clone()),
        ("127.0.0.13", hung.clone()),
        ("127.0.0.14", hung),
    ];
    for (client, url) in &disks {
        daemon.put_disk(client, &DiskConfig::new(url).partition(1, "/"));
    }
    let started = Instant::now();
    std::thread::scope(|scope| {
        for (client, _) in &disks {
            scope.spawn(|| assert_broken(&daemon, client));
        }
        // Meanwhile another client is served as if nothing were wrong.
        for _ in 0..50 {
            let asked = Instant::now();
            assert_eq!(daemon.client("127.0.0.9").fetch("file", &[]).as_deref(), Ok(&b"default"[..]));
            assert!(asked.elapsed() < Duration::from_secs(2), "waited for somebody else's disk: {:?}", asked.elapsed());
        }
    });
    assert!(started.elapsed() < LIMIT, "{:?}", started.elapsed());
    for (client, _) in &disks {
        daemon.wait_for_disk(client, "ERROR");
    }
}
