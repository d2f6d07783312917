//! Files of the server's own: the order of the roots, and what never leaves them.

use std::{
    fs::{self, Permissions},
    net::{IpAddr, SocketAddr},
    os::unix::fs::{PermissionsExt, symlink},
};

use rtftp_tests::{
    Answer, Client, Rtftp, SIZES, assert_same, client_programs::ALL_CLIENT_PROGRAMS, noise, raw_client::rrq,
};

#[test]
fn a_clients_own_directory_comes_before_default() {
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
fn an_address_that_begins_alike_is_another_client() {
    let daemon = Rtftp::start();
    daemon.put("127.0.0.10/file", "of 10");
    daemon.put("127.0.0.1/only", "of 1");
    assert_eq!(daemon.fetch("127.0.0.1", "file"), Err(1));
    assert_eq!(daemon.fetch("127.0.0.10", "only"), Err(1));
    assert_eq!(daemon.fetch("127.0.0.10", "file").as_deref(), Ok("of 10"));
}

#[test]
fn directories_may_come_and_go_while_it_runs() {
    let daemon = Rtftp::start();
    assert_eq!(daemon.fetch("127.0.0.7", "file"), Err(1));
    daemon.put("default/file", "default");
    assert_eq!(daemon.fetch("127.0.0.7", "file").as_deref(), Ok("default"));
    daemon.put("127.0.0.7/file", "own");
    assert_eq!(daemon.fetch("127.0.0.7", "file").as_deref(), Ok("own"));
    fs::remove_dir_all(daemon.path("127.0.0.7")).expect("remove");
    assert_eq!(daemon.fetch("127.0.0.7", "file").as_deref(), Ok("default"));
}

#[test]
fn forbidden_does_not_fall_through() {
    let daemon = Rtftp::start_without_dac_override();
    let secret = daemon.put("secret", "secret");
    for name in ["locked", "link", "directory"] {
        daemon.put(&format!("default/{name}"), "default");
    }
    daemon.put("127.0.0.7/directory/file", "inside");
    symlink(&secret, daemon.path("127.0.0.7/link")).expect("a link");
    assert_eq!(daemon.fetch("127.0.0.7", "link"), Err(2));
    assert_eq!(daemon.fetch("127.0.0.7", "directory"), Err(2));
    let locked = daemon.put("127.0.0.7/locked", "locked");
    fs::set_permissions(&locked, Permissions::from_mode(0o000)).expect("chmod");
    assert_eq!(daemon.fetch("127.0.0.7", "locked"), Err(2));
}

#[test]
fn no_request_leaves_its_root() {
    let daemon = Rtftp::start();
    let secret = daemon.put("secret", "secret");
    daemon.put("127.0.0.8/private", "of another client");
    daemon.put("127.0.0.7/dir/file", "fine");
    daemon.put("default/file", "default");
    let own = daemon.path("127.0.0.7");
    symlink("../secret", own.join("relative")).expect("a link");
    symlink(&secret, own.join("absolute")).expect("a link");
    symlink("..", own.join("up")).expect("a link");
    symlink("../127.0.0.8", own.join("dir/other")).expect("a link");
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
fn names_are_read_as_firmware_means_them() {
    let daemon = Rtftp::start();
    daemon.put("default/boot/x64/file", "found");
    daemon.put("default/with space", "space");
    symlink("boot/x64/file", daemon.path("default/inside")).expect("a link");
    symlink("boot", daemon.path("default/directory")).expect("a link");
    for name in ["boot/x64/file", "/boot/x64/file", "\\boot\\x64\\file", "boot//x64/./file", "boot/../boot/x64/file"] {
        assert_eq!(daemon.fetch("127.0.0.7", name).as_deref(), Ok("found"), "{name}");
    }
    assert_eq!(daemon.fetch("127.0.0.7", "inside").as_deref(), Ok("found"));
    assert_eq!(daemon.fetch("127.0.0.7", "directory/x64/file").as_deref(), Ok("found"));
    assert_eq!(daemon.fetch("127.0.0.7", "with space").as_deref(), Ok("space"));
}

#[test]
fn ipv6_clients_have_roots_too() {
    let daemon = Rtftp::start_with("::1", 60, &[]);
    daemon.put("::1/file", "six");
    daemon.put("default/common", "common");
    assert_eq!(daemon.fetch("::1", "file").as_deref(), Ok("six"));
    assert_eq!(daemon.fetch("::1", "common").as_deref(), Ok("common"));
}

#[test]
fn an_ipv4_client_of_an_ipv6_socket_is_its_ipv4_address() {
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
fn the_answer_leaves_from_the_address_that_was_asked() {
    let daemon = Rtftp::start_with("0.0.0.0", 60, &[]);
    daemon.put("default/file", "x");
    let asked: IpAddr = "127.0.0.99".parse().expect("an address");
    let mut client = Client::new("127.0.0.7", SocketAddr::new(asked, daemon.address().port()));
    assert_eq!(client.exchange(&rrq("file", &[])), Answer::Data(1, b"x".into()));
    assert_eq!(client.peer().ip(), asked);
}

#[test]
fn real_clients_fetch_files_of_all_sizes() {
    let daemon = Rtftp::start();
    for (name, size) in SIZES {
        let expected = noise(size, 1);
        daemon.put(&format!("default/dir/{name}"), &expected);
        for tool in ALL_CLIENT_PROGRAMS.into_iter().filter(|tool| size > 0 || tool.takes_empty_files()) {
            let got = tool.fetch(&daemon, &format!("dir/{name}")).unwrap_or_else(|said| panic!("{tool:?}: {said}"));
            assert_same(&got, &expected, &format!("{tool:?} {name}"));
        }
    }
}

#[test]
fn real_clients_are_told_that_a_file_is_missing() {
    let daemon = Rtftp::start();
    for tool in ALL_CLIENT_PROGRAMS {
        assert!(
            tool.fetch(&daemon, "missing").is_err() || tool.fetch(&daemon, "missing") == Ok(Vec::new()),
            "{tool:?}"
        );
    }
}
