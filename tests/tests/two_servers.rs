//! Two servers of one service: what boards notice when one of them fails.
//!
//! Most of these tests take minutes: `tests/long.sh two-servers` runs them. Some need keepalived.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::atomic::Ordering::Relaxed,
    time::{Duration, Instant},
};

use rtftp_tests::{
    ANYCAST_ADDRESS, Keepalived, Tree, TwoServers, VIRTUAL_ADDRESS, VethNetwork,
    boards::{BoardFirmware, Boards, CompleteBoot, percentile},
    boot_guide,
    load_client::Requested,
    noise, poll_until,
};

/// The number of boards that boot at the same time.
const BOARDS: u16 = 200;
/// The number of boards that show which packets a router forwards to which server.
const FEW_BOARDS: u16 = 50;
/// The files of a boot, with their sizes.
const FILES: [(&str, usize); 3] = [("config.txt", 1000), ("kernel", 1 << 20), ("initrd", 1 << 20)];
const LIMIT: Duration = Duration::from_secs(300);

/// The contents of the files of a boot.
fn contents() -> Vec<(&'static str, Vec<u8>)> {
    FILES.iter().zip(1..).map(|((name, size), seed)| (*name, noise(*size, seed))).collect()
}

fn tree(contents: &[(&str, Vec<u8>)]) -> Tree {
    contents.iter().fold(Tree::new(), |tree, (name, bytes)| tree.file(name, bytes))
}

fn requested<'f>(contents: &'f [(&'f str, Vec<u8>)]) -> Vec<Requested<'f>> {
    contents.iter().map(|(name, bytes)| Requested { name, contents: Some(bytes) }).collect()
}

/// Prints durations and restarts, of all boards and by their firmware.
fn print(what: &str, boots: &[CompleteBoot]) {
    let print = |who: &str, boots: Vec<CompleteBoot>| {
        let durations = || boots.iter().map(|boot| boot.duration);
        let restarted = boots.iter().filter(|boot| boot.restarts > 0).count();
        println!(
            "{what}: {who}: p50 {:.1} s, p99 {:.1} s, most {:.1} s; {restarted} of {} boards started a file again",
            percentile(durations(), 0.5),
            percentile(durations(), 0.99),
            percentile(durations(), 1.0),
            boots.len()
        );
    };
    print("all", boots.to_vec());
    for firmware in BoardFirmware::ALL {
        print(&format!("{firmware:?}"), boots.iter().copied().filter(|boot| boot.firmware == firmware).collect());
    }
}

/// Boots all boards, and calls `fail` when they have loaded a third of all bytes. All boots are complete. Returns them.
#[track_caller]
fn boot(what: &str, server: SocketAddr, fail: impl FnOnce()) -> Vec<CompleteBoot> {
    let contents = contents();
    let files = requested(&contents);
    let boards = Boards { count: BOARDS, server, files: &files };
    let boots = boards.boot(|loaded| {
        poll_until("a third of all bytes", LIMIT, || (loaded.load(Relaxed) > boards.bytes() / 3).then_some(()));
        fail();
    });
    let failed: Vec<_> = boots.iter().filter_map(|boot| boot.as_ref().err()).collect();
    assert!(failed.is_empty(), "{} boots failed: {failed:?}", failed.len());
    let boots: Vec<_> = boots.into_iter().flatten().collect();
    print(what, &boots);
    boots
}

/// Asserts that a failure has interrupted boots, and prints how much longer they took than without it.
#[track_caller]
fn assert_interrupted(what: &str, before: &[CompleteBoot], after: &[CompleteBoot]) {
    let delays = before.iter().zip(after).map(|(before, after)| after.duration.saturating_sub(before.duration));
    let delays: Vec<_> = delays.collect();
    let [p50, p99] = [0.5, 0.99].map(|part| percentile(delays.iter().copied(), part));
    println!("{what}: delay of a boot: p50 {p50:.1} s, p99 {p99:.1} s");
    assert!(after.iter().any(|boot| boot.restarts > 0), "no boot was interrupted");
}

/// Asserts that `rtftp status` shows each board once, and names the server that does not answer.
#[track_caller]
fn assert_status(two: &TwoServers, missing: usize) {
    let output = two.status(&[]);
    let table = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let boards: Vec<_> = table.lines().filter(|line| line.starts_with("10.8.")).collect();
    let addresses: BTreeSet<_> = boards.iter().map(|board| board.split(' ').next()).collect();
    assert_eq!(boards.len(), addresses.len(), "each board once: {table}");
    assert!(boards.len() > usize::from(BOARDS) / 2, "{table}");
    let page = |number: usize| format!("{}:8080", two.servers[number].address);
    let other = page(1 - missing);
    assert!(boards.iter().all(|board| board.contains(&other) && board.contains("initrd complete")), "{table}");
    let problem = table.lines().find(|line| line.starts_with(&format!("{}: ", page(missing)))).expect("a line");
    assert!(!problem.contains(": rtftp "), "{problem}");
    println!("rtftp status: {problem}");
}

/// Boots all boards from servers with keepalived, of which the master fails in mid-boot.
#[track_caller]
fn fail_over(what: &str, args: &[&str], fail: impl FnOnce(&mut TwoServers) + Send) {
    TwoServers::on_one_segment(args, &tree(&contents()), |two| {
        let has_address = |two: &TwoServers, number: usize, keepalived: &Keepalived| {
            poll_until("the address of the service", LIMIT, || {
                assert!(!keepalived.has_ended(), "keepalived ended: {}", keepalived.log());
                two.servers[number].namespace.has_address(VIRTUAL_ADDRESS).then_some(())
            });
        };
        let first = Keepalived::start(&two.servers[0], &boot_guide::keepalived(), 100);
        has_address(two, 0, &first);
        let second = Keepalived::start(&two.servers[1], &boot_guide::keepalived(), 90);
        second.wait_until_backup();
        let before = boot(&format!("{what}: without a failure"), two.service(), || {});
        let mut moved = None;
        let service = two.service();
        let after = boot(what, service, || {
            let failed = Instant::now();
            fail(two);
            has_address(two, 1, &second);
            moved = Some(failed.elapsed());
        });
        println!("{what}: the address moved in {:.1} s", moved.expect("moved").as_secs_f64());
        assert_interrupted(what, &before, &after);
        assert_status(two, 0);
    });
}

#[test]
#[ignore = "takes a minute and needs keepalived: tests/long.sh"]
fn all_boards_boot_when_keepalived_finds_rtftp_killed() {
    fail_over("keepalived, rtftp killed", &[], |two| two.servers[0].kill());
}

#[test]
#[ignore = "takes a minute and needs keepalived: tests/long.sh"]
fn all_boards_boot_when_the_master_of_keepalived_is_unplugged() {
    fail_over("keepalived, server unplugged", &["--single-port"], |two| two.unplug(0));
}

#[test]
#[ignore = "takes a minute: tests/long.sh"]
fn only_single_port_works_behind_a_router_that_hashes_ports() {
    let contents = contents();
    for (policy, args, all_load) in
        [(0, &[][..], true), (0, &["--single-port"], true), (1, &["--single-port"], true), (1, &[], false)]
    {
        TwoServers::behind_router(policy, args, &tree(&contents), |two| {
            let files = requested(&contents[1..2]);
            let boards = Boards { count: FEW_BOARDS, server: two.service(), files: &files };
            let complete = boards.load_once(Duration::from_secs(10));
            let by = two.servers.each_ref().map(|server| server.daemon().log_lines(&["kernel", "complete"]).len());
            println!(
                "hash policy {policy}, {args:?}: {complete} of {FEW_BOARDS} boards loaded the file, by server {by:?}"
            );
            if all_load {
                assert_eq!(complete, usize::from(FEW_BOARDS));
                assert!(by.iter().all(|count| *count > 0), "one server got all requests");
            } else {
                assert!(complete < usize::from(FEW_BOARDS), "no ACK went to the other server");
            }
        });
    }
}

/// Boots all boards from anycast servers, of which one fails in mid-boot and its route is withdrawn; and again while it comes back.
#[track_caller]
fn withdraw(what: &str, policy: u32, args: &[&str]) {
    TwoServers::behind_router(policy, args, &tree(&contents()), |two| {
        let service = two.service();
        let before = boot(&format!("{what}: without a failure"), service, || {});
        let killed = format!("{what}, one server killed and its route withdrawn");
        let after = boot(&killed, service, || {
            two.servers[0].kill();
            two.announce(1);
        });
        assert_interrupted(&killed, &before, &after);
        assert_status(two, 0);
        let returned = format!("{what}, the server and its route return");
        let after = boot(&returned, service, || {
            two.start_daemon(0, args);
            two.announce(2);
        });
        assert_interrupted(&returned, &before, &after);
    });
}

#[test]
#[ignore = "takes minutes: tests/long.sh"]
fn all_boards_boot_when_the_route_of_an_anycast_server_is_withdrawn() {
    withdraw("anycast by address", 0, &[]);
}

#[test]
#[ignore = "takes minutes: tests/long.sh"]
fn all_boards_boot_from_a_single_port_when_the_route_of_an_anycast_server_is_withdrawn() {
    withdraw("anycast by address and port", 1, &["--single-port"]);
}

#[test]
fn replies_come_from_an_anycast_address_on_the_loopback_interface() {
    for args in [&[][..], &["--single-port"]] {
        VethNetwork::test(args, |network| {
            network.run_on_server("ip link set lo up");
            network.run_on_server(&format!("ip address add {ANYCAST_ADDRESS}/32 dev lo"));
            network.run_on_board(&format!("ip route add {ANYCAST_ADDRESS} via 10.9.0.1"));
            network.daemon().put("default/f", "short");
            let mut client = network.client("10.9.0.5", ANYCAST_ADDRESS);
            assert_eq!(client.fetch("f", &[]).as_deref(), Ok(&b"short"[..]));
            assert_eq!(client.peer().ip().to_string(), ANYCAST_ADDRESS, "{args:?}");
        });
    }
}
