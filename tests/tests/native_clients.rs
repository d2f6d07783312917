//! Real clients and a disk that the daemon reads by itself. No other test runs beside this one: curl takes what any program sends
//! to its port for an answer of its server, and ports are used again.

use rtftp_tests::{
    NbdServer, Rtftp, SIZES, assert_same, board_config, board_disk, client_programs::ALL_CLIENT_PROGRAMS, noise,
};

#[test]
fn real_clients_fetch_from_a_disk_that_was_connected_in_the_background() {
    let disk = board_disk(1);
    let server = NbdServer::qemu(&disk);
    let daemon = Rtftp::with("127.0.0.1", 2, &["--view-gap", "1"]);
    daemon.put("default/only-here", "default");
    daemon.put("default/f1", "never");
    daemon.connect_disk("127.0.0.1", &board_config(&server).tftp_root("/boot"));
    for (name, size) in SIZES {
        let expected = noise(size, 1);
        for tool in ALL_CLIENT_PROGRAMS {
            if size > 0 || tool.takes_empty_files() {
                let got = tool.fetch(&daemon, name).unwrap_or_else(|said| panic!("{tool:?}: {said}"));
                assert_same(&got, &expected, &format!("{tool:?} {name}"));
            }
        }
    }
    daemon.logged(&["127.0.0.1", "f40m", "127.0.0.1.nbd", "complete"]);
    assert_eq!(daemon.fetch("127.0.0.1", "dir/name").as_deref(), Ok("board 1"));
    assert_eq!(daemon.fetch("127.0.0.1", "DIR\\Name").as_deref(), Ok("board 1"), "FAT knows no case");
    assert_eq!(daemon.fetch("127.0.0.1", "only-here").as_deref(), Ok("default"), "not on the disk: falls through");
    assert_eq!(daemon.fetch("127.0.0.1", "nowhere"), Err(1));
    assert_eq!(daemon.fetch("127.0.0.1", "dir"), Err(2), "a directory is not a file");
    assert_eq!(daemon.fetch("127.0.0.1", "../etc/shadow"), Err(2));
    assert_eq!(daemon.fetch("127.0.0.8", "dir/name"), Err(1), "another client has no disk");
    assert!(daemon.descendants().is_empty(), "no appliance is needed");

    // Nobody asks any more: the disk is let go, and comes back by itself with the next request.
    daemon.wait_for_disk("127.0.0.1", "let go");
    assert_eq!(daemon.fetch("127.0.0.1", "dir/name").as_deref(), Ok("board 1"));
}
