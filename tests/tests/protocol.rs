//! The protocol on the wire, byte by byte.

use std::{thread, time::Duration};

use rtftp_tests::{
    Answer, Rtftp, assert_same,
    load_client::Load,
    noise,
    raw_client::{ack, error, rrq},
    thread_cpu_times,
};

/// A daemon with one file `default/f` of this length.
fn serving(len: usize) -> (Rtftp, Vec<u8>) {
    let daemon = Rtftp::start();
    let file = noise(len, 7);
    daemon.put("default/f", &file);
    (daemon, file)
}

/// A read request of these words, each ended by a NUL as on the wire.
fn request(words: &str) -> Vec<u8> {
    let words = words.split(' ').map(|word| format!("{word}\0"));
    [b"\0\x01".to_vec(), words.collect::<String>().into_bytes()].concat()
}

#[test]
fn without_options_the_first_answer_is_data() {
    let (daemon, file) = serving(600);
    for words in ["f octet", "f oCtEt", "f octet multicast ", "f octet utimeout 1000"] {
        let mut client = daemon.client("127.0.0.7");
        assert_eq!(client.exchange(&request(words)), Answer::Data(1, file[..512].into()), "{words}");
        assert_eq!(client.acknowledge(1), Answer::Data(2, file[512..].into()));
        client.reply(&ack(2));
    }
}

#[test]
fn what_an_option_may_not_say_is_left_out_or_lowered() {
    let (daemon, _) = serving(100);
    let options = [("blksize", "7"), ("timeout", "0"), ("windowsize", "0"), ("tsize", "0")];
    assert_eq!(daemon.client("127.0.0.7").exchange(&rrq("f", &options)), Answer::oack(&[("tsize", "100")]));
    for (value, most) in [("65464", 65464), ("65535", 65464), ("99999999999999999999", 65464)] {
        match daemon.client("127.0.0.7").exchange(&rrq("f", &[("blksize", value)])) {
            Answer::Oack(options) => {
                let granted: u32 = options[0].1.parse().expect("a number");
                assert!((8..=most).contains(&granted), "blksize {value}: {options:?}");
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
fn a_request_padded_with_nul_bytes_is_a_request() {
    let (daemon, file) = serving(100);
    let mut request = rrq("f", &[]);
    request.resize(516, 0);
    assert_eq!(daemon.client("127.0.0.7").exchange(&request), Answer::Data(1, file));
}

#[test]
fn what_is_not_a_read_request_gets_the_proper_error() {
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
fn netascii_turns_line_ends() {
    let daemon = Rtftp::start();
    daemon.put("default/text", "one\ntwo\r\nthree".repeat(100));
    let mut client = daemon.client("127.0.0.7");
    // The size is not known before it is sent, so `tsize` is left out (RFC 2349).
    let first = client.exchange(&request("text NETASCII tsize 0 blksize 700"));
    assert_eq!(first, Answer::oack(&[("blksize", "700")]));
    let text = client.finish(first).expect("the text");
    assert_same(&text, "one\r\ntwo\r\0\r\nthree".repeat(100).as_bytes(), "netascii");
    daemon.logged(&["127.0.0.7", "text", "default/", "complete"]);
}

#[test]
fn what_is_granted_has_the_limits_that_were_set() {
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
    assert_eq!(daemon.client("127.0.0.7").exchange(&request("f octet")).code(), 0, "two transfers are running");
    assert_eq!(daemon.client("127.0.0.8").exchange(&request("f octet")).block(), 1, "to another client as well");
}

#[test]
fn noise_neither_stops_it_nor_starts_an_argument() {
    let (daemon, file) = serving(100);
    let mut client = daemon.client("127.0.0.7");
    // An ERROR is answered by nothing (RFC 1350 section 7), or two servers could go on for ever.
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
fn repeated_requests_are_one_transfer() {
    let (daemon, file) = serving(700);
    let mut client = daemon.client("127.0.0.7");
    for _ in 0..10 {
        client.request(&rrq("f", &[]));
    }
    assert_eq!(client.receive(), Answer::Data(1, file[..512].into()));
    let transfer = client.peer();
    assert_eq!(client.finish(Answer::Data(1, file[..512].into())).as_deref(), Ok(&file[..]));
    assert_eq!(client.peer(), transfer, "all of it came from one port");
    daemon.logged(&["complete"]);
    assert_eq!(daemon.log_lines(&["127.0.0.7", "complete"]).len(), 1);
}

#[test]
fn another_request_from_the_same_port_replaces_the_transfer() {
    let (daemon, file) = serving(5000);
    daemon.put("default/g", "the other file");
    let mut client = daemon.client("127.0.0.7");
    assert_eq!(client.exchange(&rrq("f", &[])), Answer::Data(1, file[..512].into()));
    let old = client.peer();
    assert_eq!(client.exchange(&rrq("g", &[])), Answer::Data(1, b"the other file".into()));
    assert_ne!(client.peer(), old, "a new transfer has a new port");
    client.reply(&ack(1));
    // The same port at once again, as lpxelinux does for each of its files.
    for _ in 0..20 {
        assert_eq!(client.fetch("f", &[("blksize", "1000")]).as_deref(), Ok(&file[..]));
        assert_eq!(client.fetch("g", &[]).as_deref(), Ok(&b"the other file"[..]));
    }
}

#[test]
fn a_stranger_gets_error_5_and_the_transfer_goes_on() {
    let (daemon, file) = serving(1500);
    let (mut client, mut stranger) = (daemon.client("127.0.0.7"), daemon.client("127.0.0.7"));
    let first = client.exchange(&rrq("f", &[]));
    for from in [error(0, "stop"), ack(1)] {
        stranger.send_to(&from, client.peer());
    }
    assert_eq!(stranger.receive().code(), 5);
    assert_eq!(client.finish(first).as_deref(), Ok(&file[..]));
}

#[test]
fn a_second_copy_of_an_ack_resends_nothing() {
    let (daemon, file) = serving(512 * 40);
    let mut client = daemon.client("127.0.0.7");
    let mut answer = client.exchange(&rrq("f", &[]));
    for block in 1..=40 {
        assert_eq!(answer, Answer::Data(block, file[usize::from(block - 1) * 512..][..512].into()));
        // Every later copy is in the transfer's queue before the next ACK is: a resent block would come first.
        for _ in 0..3 {
            client.reply(&ack(block));
        }
        answer = client.receive();
    }
    assert_eq!(answer, Answer::Data(41, Vec::new()), "a file of whole blocks ends with an empty one");
    client.reply(&ack(41));
    daemon.logged(&["complete"]);
}

#[test]
fn a_lost_block_restarts_the_window_after_the_last_good_one() {
    let (daemon, file) = serving(512 * 20 + 100);
    let mut client = daemon.client("127.0.0.7");
    assert_eq!(client.exchange(&rrq("f", &[("windowsize", "8")])), Answer::oack(&[("windowsize", "8")]));
    client.reply(&ack(0));
    let blocks =
        |client: &mut rtftp_tests::Client, count| (0..count).map(|_| client.receive().block()).collect::<Vec<_>>();
    assert_eq!(blocks(&mut client, 8), [1, 2, 3, 4, 5, 6, 7, 8]);
    // Block 4 was "lost": the client says so once, and EDK2 says it again for every later block of the window.
    for _ in 0..5 {
        client.reply(&ack(3));
    }
    assert_eq!(blocks(&mut client, 8), [4, 5, 6, 7, 8, 9, 10, 11]);
    client.reply(&ack(11));
    assert_eq!(blocks(&mut client, 8), [12, 13, 14, 15, 16, 17, 18, 19]);
    client.reply(&ack(19));
    assert_eq!(client.receive(), Answer::Data(20, file[512 * 19..512 * 20].into()));
    assert_eq!(client.receive(), Answer::Data(21, file[512 * 20..].into()));
    // A loss in the last window does not end the transfer either.
    client.reply(&ack(20));
    assert_eq!(client.receive().block(), 21);
    client.reply(&ack(21));
    daemon.logged(&["127.0.0.7", "complete"]);
}

#[test]
fn an_unanswered_block_comes_again_by_itself() {
    let (daemon, file) = serving(100);
    let mut client = daemon.client("127.0.0.7");
    let granted = client.exchange(&rrq("f", &[("tsize", "0")]));
    assert_eq!(granted, Answer::oack(&[("tsize", "100")]));
    assert_eq!(client.receive(), granted, "the OACK again");
    assert_eq!(client.acknowledge(0), Answer::Data(1, file.clone()));
    assert_eq!(client.receive(), Answer::Data(1, file), "the block again");
    client.reply(&ack(1));
    daemon.logged(&["127.0.0.7", "complete"]);
}

#[test]
fn an_error_ends_the_transfer_and_a_size_query_is_a_probe() {
    let (daemon, _) = serving(100);
    let mut client = daemon.client("127.0.0.7");
    client.exchange(&rrq("f", &[("tsize", "0"), ("blksize", "1468"), ("windowsize", "4")]));
    client.reply(&error(8, "User aborted the transfer"));
    let line = daemon.logged(&["127.0.0.7", "probe"]);
    assert!(!line.contains("WARN") && !line.contains("ERROR"), "{line}");
    assert_eq!(client.receive_within(Duration::from_millis(300)), None, "an ERROR is answered by nothing");
}

#[test]
fn block_numbers_go_on_after_65535() {
    let (daemon, file) = serving(8 * 65536 + 5000);
    for options in [&[("blksize", "8")][..], &[("blksize", "8"), ("tsize", "0")]] {
        let got = daemon.client("127.0.0.7").fetch("f", options).expect("a file");
        assert_same(&got, &file, "across the wrap");
    }
}

#[test]
fn many_transfers_at_once_are_all_completed() {
    let daemon = Rtftp::start_with("0.0.0.0", 3600, &[]);
    let file = noise(200_000, 7);
    daemon.put("default/f", &file);
    let server = ([127, 0, 0, 1], daemon.address().port()).into();
    let (timeout, limit) = (Duration::from_secs(1), Duration::from_secs(60));
    // Large blocks cost the daemon more than its clients: where a processor is idle, another thread takes a share of them.
    for (times, blksize) in [(1, 512), (20, 65464)] {
        let load =
            Load { clients: 300, times, name: "f", blksize, windowsize: 1, gro: false, loss: 0.0, timeout, limit };
        let report = load.run(server, &file).expect("sockets");
        assert_eq!((report.complete.len(), report.failed), (300 * times as usize, (0, String::new())));
    }
    let threads = thread_cpu_times(daemon.process().id());
    let workers = threads.iter().filter(|(name, _)| name.starts_with("worker-")).count();
    assert!(workers < thread::available_parallelism().map_or(1, usize::from), "one is the main thread: {threads:?}");
}
