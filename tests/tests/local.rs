//! Local files: the order in which roots are searched, and their confinement.

use std::{
    fs::{self, Permissions},
    net::{IpAddr, SocketAddr},
    os::unix::fs::{PermissionsExt, symlink},
};

use rtftp_tests::{
    Answer, Client, Rtftp, SIZES, assert_same, client_programs::ALL_CLIENT_PROGRAMS, noise, raw_client::rrq,
    run_with_bad_arguments, share_one_processor,
};

#[test]
fn searches_client_directory_before_default() {
    let daemon = Rtftp::start();
    daemon.put("127.0.0.7/both", "own");
    daemon.put("default/both", "default");
    daemon.put("default/common", "common");
    daemon.put("stray", "never served");
    assert_eq!(daemon.fetch("127.0.0.7", "both").as_deref(), Ok("own"));
    assert_eq!(daemon.fetch("127.0.0.7", "common").as_deref(), Ok("common"));
    assert_eq!(daemon.fetch("127.0.0.8", "both").as_deref(), Ok("default"));
    assert_eq!(daemon.fetch("127.0.0.7", "stray"), Err(1));
    assert_eq!(daemon.fetch("127.0.0.7", "nothing"), Err(1));
    daemon.logged(&["127.0.0.7", "both", "127.0.0.7/", "complete"]);
    daemon.logged(&["127.0.0.7", "common", "default/", "complete"]);
}

#[test]
fn distinguishes_addresses_with_a_common_prefix() {
    let daemon = Rtftp::start();
    daemon.put("127.0.0.10/file", "10");
    daemon.put("127.0.0.1/only", "1");
    assert_eq!(daemon.fetch("127.0.0.1", "file"), Err(1));
    assert_eq!(daemon.fetch("127.0.0.10", "only"), Err(1));
    assert_eq!(daemon.fetch("127.0.0.10", "file").as_deref(), Ok("10"));
}

#[test]
fn notices_directories_added_and_removed_at_run_time() {
    let daemon = Rtftp::start();
    assert_eq!(daemon.fetch("127.0.0.7", "file"), Err(1));
    daemon.put("default/file", "default");
    assert_eq!(daemon.fetch("127.0.0.7", "file").as_deref(), Ok("default"));
    daemon.put("127.0.0.7/file", "own");
    assert_eq!(daemon.fetch("127.0.0.7", "file").as_deref(), Ok("own"));
    fs::remove_dir_all(daemon.path("127.0.0.7")).expect("removed");
    assert_eq!(daemon.fetch("127.0.0.7", "file").as_deref(), Ok("default"));
}

#[test]
fn forbidden_file_ends_the_search() {
    let daemon = Rtftp::start_without_dac_override();
    let secret = daemon.put("secret", "secret");
    for name in ["locked", "link", "directory"] {
        daemon.put(&format!("default/{name}"), "default");
    }
    daemon.put("127.0.0.7/directory/file", "inside");
    symlink(&secret, daemon.path("127.0.0.7/link")).expect("linked");
    assert_eq!(daemon.fetch("127.0.0.7", "link"), Err(2));
    assert_eq!(daemon.fetch("127.0.0.7", "directory"), Err(2));
    let locked = daemon.put("127.0.0.7/locked", "locked");
    fs::set_permissions(&locked, Permissions::from_mode(0o000)).expect("chmod");
    assert_eq!(daemon.fetch("127.0.0.7", "locked"), Err(2));
}

#[test]
fn no_request_escapes_its_root() {
    let daemon = Rtftp::start();
    let secret = daemon.put("secret", "secret");
    daemon.put("127.0.0.8/private", "private");
    daemon.put("127.0.0.7/dir/file", "fine");
    daemon.put("default/file", "default");
    let own = daemon.path("127.0.0.7");
    symlink("../secret", own.join("relative")).expect("linked");
    symlink(&secret, own.join("absolute")).expect("linked");
    symlink("..", own.join("up")).expect("linked");
    symlink("../127.0.0.8", own.join("dir/other")).expect("linked");
    let root = own.parent().expect("the root").display().to_string();
    let absolute = format!("{root}/secret");
    for name in [
        "../secret",
        "..\\secret",
        "dir/../../secret",
        "dir\\..\\..\\secret",
        "../127.0.0.8/private",
        "/../secret",
        "..",
        "../127.0.0.7/dir/file",
        "relative",
        "absolute",
        "up/secret",
        "up/127.0.0.8/private",
        "dir/other/private",
        "dir/../up/secret",
        &absolute,
        "/etc/passwd",
        "//etc/passwd",
        "../../../../../../../../etc/passwd",
    ] {
        match daemon.fetch("127.0.0.7", name) {
            Err(1 | 2) => {}
            other => panic!("{name}: {other:?}"),
        }
    }
}

#[test]
fn accepts_path_spellings_of_firmware() {
    let daemon = Rtftp::start();
    daemon.put("default/boot/x64/file", "found");
    daemon.put("default/with space", "space");
    symlink("boot/x64/file", daemon.path("default/inside")).expect("linked");
    symlink("boot", daemon.path("default/directory")).expect("linked");
    for name in ["boot/x64/file", "/boot/x64/file", "\\boot\\x64\\file", "boot//x64/./file", "boot/../boot/x64/file"] {
        assert_eq!(daemon.fetch("127.0.0.7", name).as_deref(), Ok("found"), "{name}");
    }
    assert_eq!(daemon.fetch("127.0.0.7", "inside").as_deref(), Ok("found"));
    assert_eq!(daemon.fetch("127.0.0.7", "directory/x64/file").as_deref(), Ok("found"));
    assert_eq!(daemon.fetch("127.0.0.7", "with space").as_deref(), Ok("space"));
}

#[test]
fn serves_absolute_names_that_begin_with_the_root() {
    let daemon = Rtftp::start();
    daemon.put("default/pxelinux.0", "common");
    daemon.put("127.0.0.7/own", "own");
    daemon.put("secret", "never served");
    let root = daemon.path("").display().to_string();
    let root = root.trim_end_matches('/');
    for (name, expected) in [
        ("pxelinux.0", Ok("common")),
        ("default/pxelinux.0", Ok("common")),
        ("own", Ok("own")),
        ("secret", Err(1)),
        ("127.0.0.7/own", Err(1)),
    ] {
        let fetched = daemon.fetch("127.0.0.7", &format!("{root}/{name}"));
        assert_eq!(fetched.as_deref().map_err(|code| *code), expected, "{name}");
    }
    assert_eq!(daemon.fetch("127.0.0.7", &format!("{root}x/pxelinux.0")), Err(1));
}

#[test]
fn quotes_names_with_blanks_and_unprintable_bytes() {
    let directory = tempfile::tempdir().expect("a directory");
    let socket = directory.path().join("status.sock").display().to_string();
    let daemon = Rtftp::start_with("127.0.0.1", 60, &["--status-socket", &socket]);
    daemon.put("default/f", "x");
    daemon.put("default/a b", "blank");
    assert_eq!(daemon.fetch("127.0.0.7", "f").as_deref(), Ok("x"));
    assert_eq!(daemon.fetch("127.0.0.7", "a b").as_deref(), Ok("blank"));
    assert_eq!(daemon.fetch("127.0.0.7", "f "), Err(1));
    assert_eq!(daemon.client("127.0.0.7").exchange(b"\0\x01f\xff\0octet\0").code(), 1);
    daemon.logged(&[" f from default/"]);
    daemon.logged(&[r#" "a b" from default/"#]);
    let status = run_with_bad_arguments(["status", "--socket", &socket, "127.0.0.7"]);
    let status = String::from_utf8_lossy(&status.stdout).into_owned();
    for name in [r#""f ""#, r#""f\xff""#] {
        daemon.logged(&[&format!(" {name}: not found")]);
        assert!(status.contains(name), "{name}: {status}");
    }
}

#[test]
fn serves_roots_of_ipv6_clients() {
    let daemon = Rtftp::start_with("::1", 60, &[]);
    daemon.put("::1/file", "six");
    daemon.put("default/common", "common");
    assert_eq!(daemon.fetch("::1", "file").as_deref(), Ok("six"));
    assert_eq!(daemon.fetch("::1", "common").as_deref(), Ok("common"));
}

#[test]
fn names_ipv4_clients_of_an_ipv6_socket_by_ipv4_address() {
    let daemon = Rtftp::start_with("::", 60, &[]);
    daemon.put("127.0.0.7/file", "four");
    daemon.put("::1/file", "six");
    let port = daemon.address().port();
    let mut four = Client::new("127.0.0.7", ([127, 0, 0, 1], port).into());
    let mut six = Client::new("::1", format!("[::1]:{port}").parse().expect("an address"));
    assert_eq!(four.exchange(&rrq("file", &[])), Answer::Data(1, b"four".into()));
    assert_eq!(six.exchange(&rrq("file", &[])), Answer::Data(1, b"six".into()));
}

#[test]
fn replies_from_the_requested_address() {
    let daemon = Rtftp::start_with("0.0.0.0", 60, &[]);
    daemon.put("default/file", "x");
    let requested: IpAddr = "127.0.0.99".parse().expect("an address");
    let mut client = Client::new("127.0.0.7", SocketAddr::new(requested, daemon.address().port()));
    assert_eq!(client.exchange(&rrq("file", &[])), Answer::Data(1, b"x".into()));
    assert_eq!(client.peer().ip(), requested);
}

#[test]
fn client_programs_fetch_files_of_all_sizes() {
    share_one_processor();
    let daemon = Rtftp::start();
    for (name, size) in SIZES {
        let expected = noise(size, 1);
        daemon.put(&format!("default/dir/{name}"), &expected);
        for tool in ALL_CLIENT_PROGRAMS.into_iter().filter(|tool| size > 0 || tool.takes_empty_files()) {
            let got = tool.fetch(&daemon, &format!("dir/{name}")).unwrap_or_else(|output| panic!("{tool:?}: {output}"));
            assert_same(&got, &expected, &format!("{tool:?} {name}"));
        }
    }
}

#[test]
fn client_programs_report_missing_files() {
    let daemon = Rtftp::start();
    for tool in ALL_CLIENT_PROGRAMS {
        assert!(
            tool.fetch(&daemon, "missing").is_err() || tool.fetch(&daemon, "missing") == Ok(Vec::new()),
            "{tool:?}"
        );
    }
}
