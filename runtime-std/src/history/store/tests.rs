use super::{
    super::{
        boot::{MAX_BOOTS, MAX_UNVERIFIED_RECORDS, MAX_VERIFIED_RECORDS},
        earlier::MAX_BOARDS,
        snapshot::{BoardState, MountState, State},
    },
    *,
};

fn at(millis: u64) -> Instant {
    Instant::from_micros(1000 * millis)
}

fn board(number: u32) -> IpAddr {
    IpAddr::from(number.to_be_bytes())
}

/// Returns the requested names of each boot, the newest boot first.
fn boots(store: &Store, client: IpAddr) -> Vec<Vec<String>> {
    let client = store.snapshot(client, WallClock::now()).expect("a client");
    client.boots.into_iter().map(|boot| boot.files.into_iter().map(|file| file.name).collect()).collect()
}

/// Records requests at intervals of 100 ms, and an answer to each if the client is `verified`. Returns the time of the last one.
fn request(store: &mut Store, client: IpAddr, from: u64, names: &[&str], verified: bool) -> u64 {
    let mut now = from;
    for (index, name) in names.iter().enumerate() {
        now = from + 100 * index as u64;
        let record = store.record_request(client, Protocol::Tftp, name.as_bytes(), at(now));
        if verified {
            record.note_activity(at(now));
        }
    }
    now
}

#[test]
fn starts_new_boot_after_long_silence() {
    let (mut store, client) = (Store::default(), board(1));
    let last = request(&mut store, client, 1_000, &["a", "b"], true);
    let last = request(&mut store, client, last + 29_999, &["c"], true);
    request(&mut store, client, last + 30_000, &["d"], true);
    assert_eq!(boots(&store, client), [vec!["d"], vec!["a", "b", "c"]]);
}

#[test]
fn counts_packets_of_transfers_and_copies_as_activity() {
    let (mut store, client) = (Store::default(), board(1));
    let record = store.record_request(client, Protocol::Tftp, b"large", at(0));
    record.note_activity(at(100_000));
    request(&mut store, client, 129_999, &["b"], true);
    store.record_copy(client, b"b", at(150_000));
    request(&mut store, client, 179_999, &["c"], true);
    assert_eq!(boots(&store, client), [["large", "b", "c"]]);
}

/// A Raspberry Pi 4 checks that `start4.elf` exists, requests `config.txt`, and then requests `start4.elf` again.
#[test]
fn starts_new_boot_with_first_file_only_after_a_pause() {
    let (mut store, client) = (Store::default(), board(1));
    let pi = ["serial/start4.elf", "serial/config.txt", "serial/start4.elf", "serial/kernel8.img"];
    let last = request(&mut store, client, 0, &pi, true);
    request(&mut store, client, last + 2_999, &pi, true);
    assert_eq!(boots(&store, client), [[pi, pi].concat()], "too soon for a reset");
    let last = request(&mut store, client, 20_000, &pi, true);
    assert_eq!(boots(&store, client).len(), 2);
    request(&mut store, client, last + 3_000, &pi[1..], true);
    assert_eq!(boots(&store, client).len(), 2, "not with the first file");
}

#[test]
fn shows_a_boot_loop_until_the_board_is_quiet() {
    let (mut store, client) = (Store::default(), board(1));
    let mut boot = |number: u64, is_verified| {
        let began = 1_000_000 + number * 45_000;
        for name in ["config.txt", "kernel8.img"] {
            let record = store.record_request(client, Protocol::Tftp, name.as_bytes(), at(began));
            if is_verified {
                record.note_activity(at(began));
            }
            record.finish(at(began), snapshot::State::Complete, None);
        }
        let summary = |now| {
            let found = store.snapshot(client, WallClock::at(at(now))).expect("a client");
            (found.state, found.status)
        };
        (summary(began + 1000), summary(began + 700_000))
    };
    let booted = (snapshot::BoardState::Booted, "kernel8.img complete".to_owned());
    for number in 0..3 {
        assert_eq!(boot(number, true).0, booted);
    }
    let looping = "boot loop, 4 boots in 2 min: kernel8.img complete".to_owned();
    assert_eq!(boot(3, true), ((snapshot::BoardState::Looping, looping), booted.clone()));
    assert_eq!(boot(4, false).0, booted, "anyone can forge requests");
}

#[test]
fn keeps_one_boot_when_only_the_first_file_repeats() {
    let (mut store, client) = (Store::default(), board(1));
    for from in [0, 5_000, 10_000] {
        request(&mut store, client, from, &["pxelinux.0"], false);
    }
    assert_eq!(boots(&store, client), [["pxelinux.0"; 3]]);
}

#[test]
fn keeps_last_boots_and_last_requests_of_each() {
    let (mut store, client) = (Store::default(), board(1));
    for boot in 0..=MAX_BOOTS as u64 {
        request(&mut store, client, boot * 40_000, &[&format!("boot-{boot}")], true);
    }
    let kept = boots(&store, client);
    assert_eq!(
        (kept.len(), &kept[0][..], &kept[MAX_BOOTS - 1][..]),
        (MAX_BOOTS, &["boot-4".into()][..], &["boot-1".into()][..])
    );

    let names: Vec<_> = (0..=MAX_VERIFIED_RECORDS).map(|index| format!("file-{index}")).collect();
    request(&mut store, board(2), 0, &names.iter().map(String::as_str).collect::<Vec<_>>(), true);
    assert_eq!(boots(&store, board(2)), [&names[1..]]);
    assert_eq!(store.snapshot(board(2), WallClock::now()).map(|client| client.boots[0].more), Some(1));
}

#[test]
fn drops_unverified_requests_and_boots_first() {
    let (mut store, client) = (Store::default(), board(1));
    request(&mut store, client, 0, &["kernel", "initrd"], true);
    let forged: Vec<_> = (0..200).map(|index| format!("missing-{index}")).collect();
    request(&mut store, client, 500, &forged.iter().map(String::as_str).collect::<Vec<_>>(), false);
    let kept = boots(&store, client);
    assert_eq!((kept[0].len(), &kept[0][..2]), (MAX_VERIFIED_RECORDS, &["kernel".to_owned(), "initrd".to_owned()][..]));
    assert_eq!(kept[0].last(), forged.last(), "the last request is kept even if it is not verified");

    for boot in 1..100 {
        request(&mut store, client, boot * 40_000, &["forged"], false);
    }
    let kept = boots(&store, client);
    assert_eq!(
        (kept.len(), &kept[0][..], &kept[MAX_BOOTS - 1][0]),
        (MAX_BOOTS, &["forged".into()][..], &"kernel".to_owned())
    );
}

#[test]
fn counts_copies_on_the_running_request_of_that_name() {
    let (mut store, client) = (Store::default(), board(1));
    let finished = store.record_request(client, Protocol::Tftp, b"a", at(0));
    finished.finish(at(1), snapshot::State::Complete, None);
    store.record_request(client, Protocol::Tftp, b"a", at(2));
    store.record_request(client, Protocol::Tftp, b"b", at(3));
    for _ in 0..3 {
        store.record_copy(client, b"a", at(4));
    }
    store.record_copy(client, b"c", at(5));
    store.record_copy(board(2), b"a", at(5));
    let client = store.snapshot(client, WallClock::now()).expect("a client");
    assert_eq!(client.boots[0].files.iter().map(|file| file.copies).collect::<Vec<_>>(), [0, 3, 0]);
}

#[test]
fn keeps_verified_clients_during_flood_of_unverified_ones() {
    let mut store = Store::default();
    let boards: Vec<_> = (0..MAX_VERIFIED_CLIENTS as u32).map(board).collect();
    for (index, board) in boards.iter().enumerate() {
        request(&mut store, *board, index as u64, &["start4.elf", "kernel8.img"], true);
    }
    for index in 0..100_000 {
        request(&mut store, board(1_000_000 + index), 5_000 + u64::from(index), &["forged"], false);
    }
    for board in boards {
        assert_eq!(boots(&store, board), [["start4.elf", "kernel8.img"]], "{board}");
    }
    let limit = MAX_VERIFIED_CLIENTS + MAX_UNVERIFIED_CLIENTS + EVICTION_INTERVAL as usize;
    assert!(store.clients.len() <= limit, "{} clients", store.clients.len());
}

#[test]
fn bounds_records_of_unverified_clients() {
    let mut store = Store::default();
    for index in 0..200_000 {
        request(&mut store, board(index % 300), 100 * u64::from(index), &["forged"], false);
    }
    let records: usize = store.boots().map(|(.., boot)| boot.len()).sum();
    let limit = MAX_UNVERIFIED_CLIENTS * MAX_UNVERIFIED_RECORDS + EVICTION_INTERVAL as usize;
    assert!(records <= limit, "{records} records, {limit} allowed");
}

#[test]
fn keeps_most_recently_seen_clients() {
    let mut store = Store::default();
    let count = 2 * (MAX_VERIFIED_CLIENTS as u32 + EVICTION_INTERVAL as u32);
    for index in 0..count {
        request(&mut store, board(index), u64::from(index), &["file"], true);
    }
    store.evict(at(u64::from(count)));
    let kept = store.clients();
    assert_eq!((kept.len(), kept[0]), (MAX_VERIFIED_CLIENTS, board(count - 1)));
    assert!(!kept.contains(&board(count - 1 - MAX_VERIFIED_CLIENTS as u32)));
}

#[test]
fn evicts_oldest_boots_but_keeps_last_boot_of_each_client() {
    let mut store = Store::default();
    let names: Vec<_> = (0..60).map(|index| format!("file-{index}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    for boot in 0..3 {
        for index in 0..500 {
            request(&mut store, board(index), boot * 100_000, &names, true);
        }
    }
    store.evict(at(300_000));
    let records: usize = store.boots().map(|(.., boot)| boot.len()).sum();
    assert!((MAX_RECORDS - 60..=MAX_RECORDS).contains(&records), "{records}");
    assert!((0..500).all(|index| boots(&store, board(index))[0].len() == 60));
}

/// Lets this many boards boot, of which each has this root, and then as many other clients. Returns the store.
fn store_of(count: u32, described: Described, root: &str) -> Store {
    let mut store = Store::new(described);
    let mut boot = |number: u32, root: &str, now: u64| {
        for name in ["config.txt", "kernel8.img"] {
            let record = store.record_request(board(number), Protocol::Tftp, name.as_bytes(), at(now));
            record.set_origin(root.replace("IP", &board(number).to_string()));
            record.note_activity(at(now));
            record.finish(at(now), snapshot::State::Complete, None);
        }
    };
    (0..count).for_each(|number| boot(number, root, u64::from(number)));
    (0..count).for_each(|number| boot(0x1000_0000 + number, "default/", 100_000 + u64::from(number)));
    store.evict(at(200_000));
    store
}

#[test]
fn others_never_displace_boards_that_the_owner_has_described() {
    let described = |ip: IpAddr| ip < board(5000);
    for (count, described, root) in [
        (50_000, Described::default(), "IP.nbd"),
        (5000, Described::default(), "0.0.0.0_8.nbd"),
        (5000, Described::default(), "dc-a6-32-IP/"),
        (5000, Described::new(described), "default/"),
    ] {
        let mut store = store_of(count, described, root);
        assert_eq!(store.client_count(), count as usize + MAX_VERIFIED_CLIENTS, "{root}");
        for number in [0, 777, count - 1] {
            let found = store.snapshot(board(number), WallClock::now()).expect("a board");
            assert_eq!((found.status.as_str(), found.boots.len()), ("kernel8.img complete", 1), "{root}");
            assert_eq!((found.boots[0].files.len(), found.boots[0].more), (1, 1), "{root}");
        }
        assert_eq!(counted(&mut store, 900_000).0.complete, u64::from(count) + MAX_VERIFIED_CLIENTS as u64, "{root}");
        // The next request belongs to the same boot, or to the next one.
        let last = request(&mut store, board(0), 10_000, &["initrd"], true);
        assert_eq!(boots(&store, board(0)), [["kernel8.img", "initrd"]], "{root}");
        request(&mut store, board(0), last + 40_000, &["config.txt"], true);
        assert_eq!(boots(&store, board(0)).len(), 2, "{root}");
        assert_eq!(store.client_count(), count as usize + MAX_VERIFIED_CLIENTS, "{root}");
    }
    let store = store_of(5000, Described::default(), "default.nbd");
    assert_eq!(store.client_count(), MAX_VERIFIED_CLIENTS, "all clients have this root");
}

#[test]
fn keeps_described_boards_without_an_answer_and_one_address_of_each_name() {
    let mut store = Store::new(Described::new(|ip| ip < board(5000)));
    for number in 0..10_000 {
        request(&mut store, board(number), u64::from(number), &["missing"], false);
    }
    store.evict(at(20_000));
    assert_eq!(store.client_count(), 5000 + MAX_UNVERIFIED_CLIENTS);
    let mut store = Store::default();
    for number in 0..10_000 {
        let record = store.record_request(board(number), Protocol::Tftp, b"kernel", at(u64::from(number)));
        record.set_origin("9ffefdef/");
        record.note_activity(at(u64::from(number)));
    }
    store.evict(at(20_000));
    assert_eq!(store.client_count(), MAX_VERIFIED_CLIENTS + 1, "a board that always has another address");
}

#[test]
fn a_board_whose_disk_was_not_mounted_stays_a_problem() {
    let mut store = Store::new(Described::new(|ip| ip == board(0)));
    for (began, state) in [(0, MountState::Mounted), (40_000, MountState::Mounted), (80_000, MountState::Unchanged)] {
        let record = store.record_request(board(0), Protocol::Tftp, b"kernel", at(began));
        record.note_activity(at(began));
        record.finish(at(began), State::Complete, None);
        let mount = snapshot::Mount { state, seconds: 1.0, text: "as it is".into() };
        assert!(store.set_mount(board(0), at(began), mount));
    }
    let state = |store: &Store| {
        let found = store.snapshot(board(0), WallClock::at(at(200_000))).expect("a board");
        (found.state, found.boots.len())
    };
    assert_eq!(state(&store), (BoardState::Unmounted, 3));
    for number in 1..3000 {
        request(&mut store, board(number), 90_000 + u64::from(number), &["kernel"], true);
    }
    store.evict(at(200_000));
    assert_eq!(state(&store), (BoardState::Unmounted, 2));
    let mount = snapshot::Mount { state: MountState::Mounted, seconds: 9.0, text: "mounted".into() };
    assert!(store.set_mount(board(0), at(80_000), mount), "what is seen later");
    assert_eq!(state(&store), (BoardState::Booted, 2));
}

#[test]
fn bounds_the_described_boards() {
    let mut store = Store::new(Described::new(|_| true));
    for number in 0..100_000 {
        request(&mut store, board(number), u64::from(number), &["missing"], false);
        assert!(store.client_count() <= MAX_BOARDS + MAX_UNVERIFIED_CLIENTS + 2 * EVICTION_INTERVAL as usize);
    }
    assert!(store.snapshot(board(0), WallClock::now()).is_none() && store.has_evicted());
    assert!(store.snapshot(board(50_000), WallClock::now()).is_some());
}

/// Returns the numbers of boots by the state of their last request, and the number and sum of their durations.
fn counted(store: &mut Store, now: u64) -> (snapshot::BootTotals, u64, f64) {
    let metrics = store.count_ended_boots(at(now));
    (metrics.totals(), metrics.durations().count, metrics.durations().sum)
}

#[test]
fn counts_each_boot_of_a_verified_client_once_when_it_has_ended() {
    let (mut store, client) = (Store::default(), board(1));
    let first = store.record_request(client, Protocol::Tftp, b"kernel", at(1_000));
    first.note_activity(at(3_000));
    first.finish(at(3_000), snapshot::State::Complete, None);
    assert_eq!(counted(&mut store, 32_999), (snapshot::BootTotals::default(), 0, 0.0), "a request may follow");
    let complete = snapshot::BootTotals { complete: 1, ..Default::default() };
    assert_eq!(counted(&mut store, 33_000), (complete, 1, 2.0));
    assert_eq!(counted(&mut store, 90_000), (complete, 1, 2.0));

    // The next boot ends with a missing file and without a delivered one, when a third boot begins.
    let missing = store.record_request(client, Protocol::Tftp, b"absent", at(100_000));
    missing.note_activity(at(100_000));
    missing.finish(at(100_000), snapshot::State::Missing, None);
    request(&mut store, client, 140_000, &["kernel"], true);
    let both = snapshot::BootTotals { complete: 1, missing: 1, ..Default::default() };
    assert_eq!(counted(&mut store, 140_000), (both, 1, 2.0));
    assert_eq!(counted(&mut store, 900_000).0, both, "the last boot is still loading");
}

#[test]
fn does_not_count_boots_of_unverified_clients() {
    let mut store = Store::default();
    store.record_request(board(1), Protocol::Tftp, b"kernel", at(0)).finish(at(0), snapshot::State::Missing, None);
    assert_eq!(counted(&mut store, 60_000), (snapshot::BootTotals::default(), 0, 0.0));
}

#[test]
fn names_a_board_whose_disk_is_not_mounted_as_it_was_before() {
    let (mut store, client) = (Store::default(), board(1));
    let mut boot = |began: u64, state: MountState| {
        let record = store.record_request(client, Protocol::Tftp, b"kernel", at(began));
        record.note_activity(at(began));
        record.finish(at(began), State::Complete, None);
        let mount = Mount { state, seconds: 12.0, text: format!("{state:?} within 12 s") };
        assert!(store.set_mount(client, at(began), mount.clone()));
        let known = store.snapshot(client, WallClock::at(at(began))).expect("a client");
        assert_eq!(known.boots[0].mount.as_ref(), Some(&mount));
        (known.state, known.status)
    };
    let text = |state: &str| format!("kernel complete; {state} within 12 s");
    // A disk that is never mounted read-write.
    assert_eq!(boot(0, MountState::Unchanged), (BoardState::Booted, text("Unchanged")));
    assert_eq!(boot(1_000_000, MountState::Mounted), (BoardState::Booted, text("Mounted")));
    assert_eq!(boot(2_000_000, MountState::Unknown), (BoardState::Booted, "kernel complete".into()));
    assert_eq!(boot(3_000_000, MountState::Unchanged), (BoardState::Unmounted, text("Unchanged")));
    let less = Mount { state: MountState::Unchanged, seconds: 1.0, text: String::new() };
    assert!(!store.set_mount(client, at(1_000_000), less.clone()), "less than is known");
    assert!(!store.set_mount(client, at(1), less), "no boot");
}
