//! Retransmission, patience, and the wait after the last ACK.

use super::*;

#[test]
fn repeats_the_request_until_it_gives_up() {
    let mut transfer = Transfer::new(WINDOW);
    let mut waits = vec![];
    loop {
        waits.push(transfer.expire());
        match transfer.sent() {
            Some(datagram) => assert_eq!(datagram[..2], [0, 1], "no ERROR without a peer"),
            None => break,
        }
    }
    assert_eq!(waits.iter().sum::<Duration>(), ReceiverConfig::default().patience);
    assert_eq!(waits[..3], [1, 2, 4].map(Duration::from_secs));
    transfer.ends(Outcome::TimedOut);
    assert_eq!(transfer.receiver.retransmitted(), waits.len() as u64 - 1);
}

#[test]
fn configuration_sets_patience_timeouts_and_dally() {
    let config = ReceiverConfig {
        options: WINDOW,
        patience: Duration::from_secs(3),
        dally: 0,
        initial_timeout: Duration::from_millis(500),
        ..ReceiverConfig::default()
    };
    let mut transfer = Transfer::with_config(config);
    assert_eq!(transfer.expire(), Duration::from_millis(500));
    assert!(transfer.sent().is_some());
    assert_eq!(transfer.expire(), Duration::from_secs(1));
    assert!(transfer.sent().is_some());
    assert_eq!(transfer.expire(), Duration::from_millis(1500), "3 s in all");
    transfer.ends(Outcome::TimedOut);
    let mut transfer = Transfer::with_config(config);
    transfer.data(1, b"end");
    assert_eq!(transfer.sent(), Some(vec![0, 4, 0, 1]));
    transfer.ends(Outcome::Complete);
}

#[test]
fn sends_an_error_to_a_silent_server() {
    let mut transfer = Transfer::windowed();
    let error = loop {
        transfer.expire();
        let datagram = transfer.sent().expect("an ACK or the ERROR");
        if datagram[1] != 4 {
            break datagram;
        }
        assert_eq!(datagram, [0, 4, 0, 1]);
    };
    assert_eq!(error, b"\x00\x05\x00\x00timed out\0");
    transfer.ends(Outcome::TimedOut);
}

#[test]
fn timeout_acknowledges_an_incomplete_window() {
    let mut transfer = Transfer::windowed();
    transfer.block(2);
    assert_eq!(transfer.expire(), Duration::from_millis(50));
    transfer.acks(2);
    assert_eq!(transfer.expire(), Duration::from_millis(100));
    transfer.acks(2);
    transfer.block(3);
    assert_eq!(transfer.expire(), Duration::from_millis(50), "a new block ends the doubling");
}

#[test]
fn dallies_for_a_server_that_missed_the_last_ack() {
    let mut transfer = Transfer::windowed();
    transfer.data(2, b"end");
    transfer.acks(2);
    transfer.pass(390);
    transfer.data(2, b"end");
    transfer.acks(2);
    assert!(transfer.receiver.is_delivered());
    assert_eq!(transfer.expire(), Duration::from_millis(800), "the next copy may take twice as long");
    transfer.ends(Outcome::Complete);
    assert_eq!(transfer.disk.bytes, b"\x01\x01\x01\x01\x01\x01\x01\x01end");
}

#[test]
fn dallies_no_longer_than_the_patience() {
    let mut transfer = Transfer::windowed();
    transfer.data(2, b"end");
    transfer.acks(2);
    let start = transfer.now;
    while transfer.now.since(start) < ReceiverConfig::default().patience {
        transfer.pass(100);
        transfer.data(2, b"end");
        while transfer.sent().is_some() {}
    }
    transfer.ends(Outcome::Complete);
}
