//! Paths with a smaller MTU than the network of the server.

use rtftp_tests::{RtftpGet, VethNetwork, assert_same, noise, run};

/// The MTU of the link between the router and the board.
const MTU: u32 = 1400;

#[test]
fn files_arrive_over_a_smaller_mtu_that_no_icmp_reports() {
    let file = noise(300_000, 7);
    for options in [&[][..], &["--single-port"]] {
        VethNetwork::test(options, |cable| {
            let router = cable.insert_router(MTU);
            router.drop_icmp();
            cable.daemon().put("default/f", &file);
            let port = cable.daemon().address().port();
            let getter = RtftpGet::new();
            // IPv6 routers do not fragment: blocks of 1452 bytes, which fit the server's own link, would be lost.
            for server in [format!("10.9.0.1:{port}"), format!("[fd09::1]:{port}")] {
                for (windowsize, first) in [("1", true), ("16", false)] {
                    let got = getter.get(&[&server, "f", "--blksize", "1468", "--windowsize", windowsize]);
                    got.assert_exit(0, &["300000 bytes", "blksize 1468"]);
                    assert_same(&getter.read("f"), &file, &format!("{options:?} {server}, window {windowsize}"));
                    let complete = |line: &&String| line.contains(" f from default/") && line.ends_with(", complete");
                    let log = cable.daemon().log();
                    let line = log.iter().rfind(complete).expect("a log line");
                    assert_eq!(line.contains(", 0 retransmitted,"), !first, "{options:?} {server}: {line}");
                }
            }
            for client in ["10.10.0.7", "fd10::7"] {
                let noted = cable.daemon().log_lines(&[client, "only after they could be fragmented", "--max-blksize"]);
                assert_eq!(noted.len(), 1, "{client}: {noted:?}");
            }
        });
    }
}

#[test]
fn busybox_fetches_over_a_smaller_mtu_that_no_icmp_reports() {
    VethNetwork::test(&[], |cable| {
        let file = noise(100_000, 7);
        let router = cable.insert_router(MTU);
        router.drop_icmp();
        cable.daemon().put("default/f", &file);
        let port = cable.daemon().address().port().to_string();
        let got = run("busybox", ["tftp", "-g", "-r", "f", "-l", "-", "-b", "1468", "10.9.0.1", &port]);
        assert_same(&got.stdout, &file, "busybox");
    });
}

#[test]
fn blocks_are_not_fragmented_by_routers_that_report_their_mtu() {
    VethNetwork::test(&[], |cable| {
        let file = noise(300_000, 7);
        let router = cable.insert_router(MTU);
        cable.daemon().put("default/f", &file);
        let port = cable.daemon().address().port();
        let getter = RtftpGet::new();
        for server in [format!("10.9.0.1:{port}"), format!("[fd09::1]:{port}")] {
            getter.get(&[&server, "f", "--blksize", "1400"]).assert_exit(0, &["300000 bytes", "blksize 1400"]);
            assert_same(&getter.read("f"), &file, &server);
        }
        assert_eq!(router.fragments(), 0);
        assert!(cable.daemon().log_lines(&["fragmented"]).is_empty());
    });
}
