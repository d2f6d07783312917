//! The protocol on the wire, byte by byte.

use std::{
    os::unix::fs::symlink,
    thread,
    time::{Duration, Instant},
};

use rtftp_tests::{
    Answer, Rtftp, assert_same,
    load_client::Load,
    noise,
    raw_client::{ack, error, rrq},
    thread_cpu_times,
};

/// Starts a daemon with one file `default/f` of this length.
fn serving(len: usize) -> (Rtftp, Vec<u8>) {
    let daemon = Rtftp::start();
    let file = noise(len, 7);
    daemon.put("default/f", &file);
    (daemon, file)
}

/// Returns a read request of these words, each terminated by a NUL.
fn request(words: &str) -> Vec<u8> {
    let words = words.split(' ').map(|word| format!("{word}\0"));
    [b"\0\x01".to_vec(), words.collect::<String>().into_bytes()].concat()
}

#[test]
fn replies_with_data_without_options() {
    let (daemon, file) = serving(600);
    for words in ["f octet", "f oCtEt", "f octet multicast ", "f octet utimeout 1000"] {
        let mut client = daemon.client("127.0.0.7");
        assert_eq!(client.exchange(&request(words)), Answer::Data(1, file[..512].into()), "{words}");
        assert_eq!(client.acknowledge(1), Answer::Data(2, file[512..].into()));
        client.reply(&ack(2));
    }
}

#[test]
fn omits_or_lowers_invalid_option_values() {
    let (daemon, _) = serving(100);
    let options = [("blksize", "7"), ("timeout", "0"), ("windowsize", "0"), ("tsize", "0")];
    assert_eq!(daemon.client("127.0.0.7").exchange(&rrq("f", &options)), Answer::oack(&[("tsize", "100")]));
    for (value, max) in [("65464", 65464), ("65535", 65464), ("99999999999999999999", 65464)] {
        match daemon.client("127.0.0.7").exchange(&rrq("f", &[("blksize", value)])) {
            Answer::Oack(options) => {
                let granted: u32 = options[0].1.parse().expect("a number");
                assert!((8..=max).contains(&granted), "blksize {value}: {options:?}");
            }
            Answer::Data(1, _) => {}
            other => panic!("blksize {value}: {other:?}"),
        }
    }
    match daemon.client("127.0.0.7").exchange(&rrq("f", &[("windowsize", "65535"), ("blksize", "65464")])) {
        Answer::Oack(options) => assert!(options.iter().all(|(_, value)| value.parse::<u16>().is_ok())),
        other => panic!("{other:?}"),
    }
}

#[test]
fn accepts_request_padded_with_nul_bytes() {
    let (daemon, file) = serving(100);
    let mut request = rrq("f", &[]);
    request.resize(516, 0);
    assert_eq!(daemon.client("127.0.0.7").exchange(&request), Answer::Data(1, file));
}

#[test]
fn replies_to_other_packets_with_error() {
    let (daemon, _) = serving(100);
    let write = daemon.client("127.0.0.7").exchange(b"\0\x02f\0octet\0");
    assert!(matches!(write.code(), 2 | 4), "{write:?}");
    for request in [&b"\0\x09f\0octet\0"[..], b"\xff\xffx", b"\0\x01f", b"\0\x01f\0", b"\0\x01f\0octet"] {
        assert_eq!(daemon.client("127.0.0.7").exchange(request).code(), 4, "{}", request.escape_ascii());
    }
    for mode in ["mail", "nonsense"] {
        let request = format!("\0\u{1}f\0{mode}\0");
        let code = daemon.client("127.0.0.7").exchange(request.as_bytes()).code();
        assert!(matches!(code, 0 | 4), "{mode}: {code}");
    }
}

#[test]
fn error_texts_start_with_those_of_rfc_1350() {
    let (daemon, _) = serving(100);
    symlink("/etc/passwd", daemon.path("default/link")).expect("linked");
    let write = b"\0\x02f\0octet\0".to_vec();
    for (request, text) in [
        (rrq("missing", &[]), "File not found"),
        (rrq("../f", &[]), "Access violation"),
        (rrq("link", &[]), "Access violation"),
        (write, "Access violation: this server does not take files"),
        (b"\0\x09f\0octet\0".to_vec(), "Illegal TFTP operation: not a TFTP request"),
    ] {
        let answer = daemon.client("127.0.0.7").exchange(&request);
        assert!(matches!(&answer, Answer::Error(_, found) if found == text), "{text}: {answer:?}");
    }
}

#[test]
fn converts_line_ends_in_netascii_mode() {
    let daemon = Rtftp::start();
    daemon.put("default/text", "one\ntwo\r\nthree".repeat(100));
    let mut client = daemon.client("127.0.0.7");
    // The size is not known before the transfer, so `tsize` is omitted (RFC 2349).
    let first = client.exchange(&request("text NETASCII tsize 0 blksize 700"));
    assert_eq!(first, Answer::oack(&[("blksize", "700")]));
    let text = client.finish(first).expect("the text");
    assert_same(&text, "one\r\ntwo\r\0\r\nthree".repeat(100).as_bytes(), "netascii");
    daemon.logged(&["127.0.0.7", "text", "default/", "complete"]);
}

#[test]
fn limits_granted_options_and_transfers_per_client() {
    let args =
        ["--max-blksize", "1000", "--max-windowsize", "9", "--max-window-bytes", "4000", "--max-per-client", "2"];
    let daemon = Rtftp::start_with("127.0.0.1", 3600, &args);
    daemon.put("default/f", noise(5000, 7));
    let mut first = daemon.client("127.0.0.7");
    let granted = first.exchange(&request("f octet blksize 1468 windowsize 64"));
    assert_eq!(granted, Answer::oack(&[("blksize", "1000"), ("windowsize", "4")]));
    let mut second = daemon.client("127.0.0.7");
    let granted = second.exchange(&request("f octet windowsize 64 utimeout 300000 rollover 1"));
    assert_eq!(granted, Answer::oack(&[("windowsize", "7"), ("utimeout", "300000"), ("rollover", "1")]));
    // Unverified transfers would be evicted.
    assert_eq!((first.acknowledge(0).block(), second.acknowledge(0).block()), (1, 1));
    assert_eq!(daemon.client("127.0.0.7").exchange(&request("f octet")).code(), 0, "a third transfer to the client");
    assert_eq!(daemon.client("127.0.0.8").exchange(&request("f octet")).block(), 1, "a transfer to another client");
}

/// A client that acknowledged the OACK and then gave up was recorded as one that asked for the size.
#[test]
fn client_that_never_got_block_1_is_reported_as_failed() {
    let (daemon, _) = serving(5000);
    let mut client = daemon.client("127.0.0.7");
    assert_eq!(client.exchange(&rrq("f", &[("tsize", "0")])), Answer::oack(&[("tsize", "5000")]));
    assert_eq!(client.acknowledge(0).block(), 1);
    let repetitions = 6;
    for _ in 0..repetitions {
        assert_eq!(client.receive().block(), 1);
    }
    client.reply(&error(0, "timed out"));
    daemon.logged(&["127.0.0.7", " f ", &format!("block 1 never acknowledged, {repetitions} repetitions")]);
    let mut probe = daemon.client("127.0.0.8");
    assert_eq!(probe.exchange(&rrq("f", &[("tsize", "0")])), Answer::oack(&[("tsize", "5000")]));
    probe.reply(&error(0, "early terminate"));
    daemon.logged(&["127.0.0.8", " f ", "probe"]);
}

/// A block was repeated after 50 ms, whatever interval was agreed.
#[test]
fn keeps_agreed_timeout() {
    let (daemon, _) = serving(5000);
    let repetitions = |options: &[(&str, &str)]| {
        let mut client = daemon.client("127.0.0.7");
        let granted = client.exchange(&rrq("f", options));
        assert_eq!(client.acknowledge(0).block(), 1);
        assert_eq!(client.acknowledge(1).block(), 2);
        let until = Instant::now() + Duration::from_secs(2);
        let mut count = 0;
        while client.receive_within(until.saturating_duration_since(Instant::now())).is_some() {
            count += 1;
        }
        (granted, count)
    };
    thread::scope(|scope| {
        for (agreed, expected) in [([("timeout", "60")], 0), ([("utimeout", "1500000")], 1)] {
            scope.spawn(move || assert_eq!(repetitions(&agreed), (Answer::oack(&agreed), expected)));
        }
        let (granted, count) = repetitions(&[("timeout", "5"), ("blksize", "512")]);
        println!("timeout 5 is not granted: {count} repetitions in 2 s");
        assert_eq!(granted, Answer::oack(&[("blksize", "512")]));
        assert!((3..10).contains(&count), "{count}");
    });
}

#[test]
fn ignores_noise_and_error_packets() {
    let (daemon, file) = serving(100);
    let mut client = daemon.client("127.0.0.7");
    // An ERROR is never answered (RFC 1350 section 7): two servers could reply to each other forever.
    for request in [error(0, "hello"), error(5, "unknown transfer"), error(4, "")] {
        client.request(&request);
    }
    for seed in 1..200 {
        let len = usize::try_from(seed * 7 % 600).expect("small");
        daemon.client("127.0.0.8").request(&noise(len, seed));
    }
    assert_eq!(client.exchange(&rrq("f", &[])), Answer::Data(1, file));
}

#[test]
fn serves_duplicate_requests_once() {
    let (daemon, file) = serving(700);
    let mut client = daemon.client("127.0.0.7");
    for _ in 0..10 {
        client.request(&rrq("f", &[]));
    }
    assert_eq!(client.receive(), Answer::Data(1, file[..512].into()));
    let transfer = client.peer();
    assert_eq!(client.finish(Answer::Data(1, file[..512].into())).as_deref(), Ok(&file[..]));
    assert_eq!(client.peer(), transfer, "the transfer changed its port");
    daemon.logged(&["complete"]);
    assert_eq!(daemon.log_lines(&["127.0.0.7", "complete"]).len(), 1);
}

#[test]
fn replaces_transfer_on_new_request_from_the_same_port() {
    let (daemon, file) = serving(5000);
    daemon.put("default/g", "the other file");
    let mut client = daemon.client("127.0.0.7");
    assert_eq!(client.exchange(&rrq("f", &[])), Answer::Data(1, file[..512].into()));
    let old = client.peer();
    assert_eq!(client.exchange(&rrq("g", &[])), Answer::Data(1, b"the other file".into()));
    assert_ne!(client.peer(), old, "the new transfer has the old port");
    client.reply(&ack(1));
    // lpxelinux uses the same port at once for each of its files.
    for _ in 0..20 {
        assert_eq!(client.fetch("f", &[("blksize", "1000")]).as_deref(), Ok(&file[..]));
        assert_eq!(client.fetch("g", &[]).as_deref(), Ok(&b"the other file"[..]));
    }
}

/// The kernel replies with ICMP "port unreachable" until the transfer has lasted longer than that of a small file.
#[test]
fn replies_error_5_to_unknown_source_and_continues() {
    let (daemon, file) = serving(512 * 20_000);
    let (mut client, mut unknown) = (daemon.client("127.0.0.7"), daemon.client("127.0.0.7"));
    let block = |number: u16| Answer::Data(number, file[usize::from(number - 1) * 512..][..512].into());
    assert_eq!(client.exchange(&rrq("f", &[])), block(1));
    let reply = (1..20_000).find_map(|number| {
        for datagram in [error(0, "stop"), ack(number)] {
            unknown.send_to(&datagram, client.peer());
        }
        assert_eq!(client.acknowledge(number), block(number + 1));
        unknown.receive_within(Duration::from_millis(1))
    });
    assert_eq!(reply.expect("a reply").code(), 5);
}

#[test]
fn retransmits_nothing_for_duplicate_acks() {
    let (daemon, file) = serving(512 * 40);
    let mut client = daemon.client("127.0.0.7");
    let mut answer = client.exchange(&rrq("f", &[]));
    for block in 1..=40 {
        assert_eq!(answer, Answer::Data(block, file[usize::from(block - 1) * 512..][..512].into()));
        // The duplicates arrive before the next ACK: a retransmitted block would be received first.
        for _ in 0..3 {
            client.reply(&ack(block));
        }
        answer = client.receive();
    }
    assert_eq!(answer, Answer::Data(41, Vec::new()), "the empty block at the end");
    client.reply(&ack(41));
    daemon.logged(&["complete"]);
}

#[test]
fn restarts_window_after_last_acknowledged_block() {
    let (daemon, file) = serving(512 * 20 + 100);
    let mut client = daemon.client("127.0.0.7");
    assert_eq!(client.exchange(&rrq("f", &[("windowsize", "8")])), Answer::oack(&[("windowsize", "8")]));
    client.reply(&ack(0));
    let blocks =
        |client: &mut rtftp_tests::Client, count| (0..count).map(|_| client.receive().block()).collect::<Vec<_>>();
    assert_eq!(blocks(&mut client, 8), [1, 2, 3, 4, 5, 6, 7, 8]);
    // Block 4 was lost: a client acknowledges block 3 once, EDK2 once more for every later block of the window.
    for _ in 0..5 {
        client.reply(&ack(3));
    }
    assert_eq!(blocks(&mut client, 8), [4, 5, 6, 7, 8, 9, 10, 11]);
    client.reply(&ack(11));
    assert_eq!(blocks(&mut client, 8), [12, 13, 14, 15, 16, 17, 18, 19]);
    client.reply(&ack(19));
    assert_eq!(client.receive(), Answer::Data(20, file[512 * 19..512 * 20].into()));
    assert_eq!(client.receive(), Answer::Data(21, file[512 * 20..].into()));
    // A loss in the last window does not end the transfer.
    client.reply(&ack(20));
    assert_eq!(client.receive().block(), 21);
    client.reply(&ack(21));
    daemon.logged(&["127.0.0.7", "complete"]);
}

#[test]
fn retransmits_unacknowledged_packets() {
    let (daemon, file) = serving(100);
    let mut client = daemon.client("127.0.0.7");
    let granted = client.exchange(&rrq("f", &[("tsize", "0")]));
    assert_eq!(granted, Answer::oack(&[("tsize", "100")]));
    assert_eq!(client.receive(), granted, "the retransmitted OACK");
    assert_eq!(client.acknowledge(0), Answer::Data(1, file.clone()));
    assert_eq!(client.receive(), Answer::Data(1, file), "the retransmitted block");
    client.reply(&ack(1));
    daemon.logged(&["127.0.0.7", "complete"]);
}

#[test]
fn error_ends_transfer_and_size_query_is_a_probe() {
    let (daemon, _) = serving(100);
    let mut client = daemon.client("127.0.0.7");
    client.exchange(&rrq("f", &[("tsize", "0"), ("blksize", "1468"), ("windowsize", "4")]));
    client.reply(&error(8, "User aborted the transfer"));
    let line = daemon.logged(&["127.0.0.7", "probe"]);
    assert!(!line.contains("WARN") && !line.contains("ERROR"), "{line}");
    assert_eq!(client.receive_within(Duration::from_millis(300)), None, "a reply to an ERROR");
}

#[test]
fn continues_after_block_65535() {
    let (daemon, file) = serving(8 * 65536 + 5000);
    for options in [&[("blksize", "8")][..], &[("blksize", "8"), ("tsize", "0")]] {
        let got = daemon.client("127.0.0.7").fetch("f", options).expect("a file");
        assert_same(&got, &file, "after the rollover");
    }
}

#[test]
fn completes_many_transfers_at_once() {
    let daemon = Rtftp::start_with("0.0.0.0", 3600, &[]);
    let file = noise(200_000, 7);
    daemon.put("default/f", &file);
    let server = ([127, 0, 0, 1], daemon.address().port()).into();
    let (timeout, limit) = (Duration::from_secs(1), Duration::from_secs(60));
    // Large blocks cost the daemon more time than its clients: if a processor is idle, another worker takes some transfers.
    for (times, blksize) in [(1, 512), (20, 65464)] {
        let load =
            Load { clients: 300, times, name: "f", blksize, windowsize: 1, gro: false, loss: 0.0, timeout, limit };
        let report = load.run(server, &file).expect("sockets");
        assert_eq!((report.complete.len(), report.failed), (300 * times as usize, (0, String::new())));
    }
    let threads = thread_cpu_times(daemon.process().id());
    let workers = threads.iter().filter(|(name, _)| name.starts_with("worker-")).count();
    assert!(
        workers < thread::available_parallelism().map_or(1, usize::from),
        "more workers than processors: {threads:?}"
    );
}
