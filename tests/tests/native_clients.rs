//! TFTP client programs and a disk with the backend `native`. The only test of its program, so that no other test runs meanwhile:
//! curl accepts packets of any sender, and ports are reused.

use rtftp_tests::{
    NbdServer, Rtftp, SIZES, assert_same, board_config, board_disk, client_programs::ALL_CLIENT_PROGRAMS, noise,
    share_one_processor,
};

#[test]
fn client_programs_fetch_from_a_connected_disk() {
    share_one_processor();
    let disk = board_disk(1);
    let server = NbdServer::qemu(&disk);
    let daemon = Rtftp::start_with("127.0.0.1", 2, &["--view-gap", "1"]);
    daemon.put("default/only-here", "default");
    daemon.put("default/f1", "never");
    daemon.connect_disk("127.0.0.1", &board_config(&server).tftp_root("/boot"));
    for (name, size) in SIZES {
        let expected = noise(size, 1);
        for program in ALL_CLIENT_PROGRAMS {
            if size > 0 || program.takes_empty_files() {
                let got = program.fetch(&daemon, name).unwrap_or_else(|output| panic!("{program:?}: {output}"));
                assert_same(&got, &expected, &format!("{program:?} {name}"));
            }
        }
    }
    daemon.logged(&["127.0.0.1", "f40m", "127.0.0.1.nbd", "complete"]);
    assert_eq!(daemon.fetch("127.0.0.1", "dir/name").as_deref(), Ok("board 1"));
    assert_eq!(daemon.fetch("127.0.0.1", "DIR\\Name").as_deref(), Ok("board 1"), "FAT is case-insensitive");
    assert_eq!(daemon.fetch("127.0.0.1", "only-here").as_deref(), Ok("default"), "a file that is not on the disk");
    assert_eq!(daemon.fetch("127.0.0.1", "nowhere"), Err(1));
    assert_eq!(daemon.fetch("127.0.0.1", "dir"), Err(2), "a directory is not a file");
    assert_eq!(daemon.fetch("127.0.0.1", "../etc/shadow"), Err(2));
    assert_eq!(daemon.fetch("127.0.0.8", "dir/name"), Err(1), "another client has no disk");
    assert!(daemon.descendants().is_empty(), "no appliance is needed");

    // Without requests, the disk is disconnected; the next request connects it again.
    daemon.wait_for_disk("127.0.0.1", "disconnected after");
    assert_eq!(daemon.fetch("127.0.0.1", "dir/name").as_deref(), Ok("board 1"));
}
