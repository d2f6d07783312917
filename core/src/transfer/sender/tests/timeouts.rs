//! When packets are sent again, and when the sender gives up.

use super::*;

#[test]
fn retransmits_with_doubling_timeouts_and_then_gives_up() {
    let mut transfer = Transfer::new(100_000, b"");
    transfer.sends(&[1]);
    transfer.ack(1);
    transfer.sends(&[2]);
    let mut waits = vec![];
    let error = loop {
        waits.push(transfer.expire());
        let sent = transfer.datagrams();
        assert_eq!(sent.len(), 1);
        if !matches!(Packet::parse(&sent[0]), Ok(Packet::Data { block: 2, .. })) {
            break sent[0].clone();
        }
    };
    assert_eq!(error, b"\x00\x05\x00\x00timed out\0");
    assert!(waits.is_sorted(), "{waits:?}");
    assert!(waits.iter().sum::<Duration>() >= PATIENCE);
    assert!(waits.len() < 25, "{waits:?}");
    transfer.ends(Outcome::TimedOut);
}

#[test]
fn agreed_timeout_is_kept_and_lengthens_the_patience() {
    for (option, interval, tries) in [(&b"timeout\x0060\0"[..], 60_000, 4), (b"timeout\x00255\0", 255_000, 4)] {
        let mut transfer = Transfer::new(100_000, option);
        transfer.datagrams();
        transfer.ack(0);
        transfer.sends(&[1]);
        transfer.pass(1);
        transfer.ack(1);
        for _ in 0..tries {
            transfer.sends(&[2]);
            assert_eq!(transfer.expire(), Duration::from_millis(interval));
        }
        assert_eq!(transfer.datagrams(), [b"\x00\x05\x00\x00timed out\0".to_vec()]);
    }
}

/// While `utimeout` was the upper bound, a silent client received 100 packets a second.
#[test]
fn short_agreed_timeout_still_backs_off() {
    let mut transfer = Transfer::new(100_000, b"utimeout\x0010000\0");
    transfer.datagrams();
    transfer.ack(0);
    transfer.sends(&[1]);
    let mut waits = vec![transfer.expire()];
    while transfer.datagrams()[0][1] == 3 {
        waits.push(transfer.expire());
    }
    assert!(waits.is_sorted() && waits.len() < 25, "{waits:?}");
}

#[test]
fn ambiguous_ack_extends_the_timeout_of_the_next_block() {
    let mut transfer = Transfer::new(100_000, b"");
    transfer.sends(&[1]);
    transfer.pass(10);
    transfer.ack(1);
    transfer.sends(&[2]);
    let usual = transfer.expire();
    assert_eq!(usual, Duration::from_millis(50), "10 ms measured: the lower bound applies");
    transfer.sends(&[2]);
    assert_eq!(transfer.expire(), Duration::from_millis(60), "30 ms doubled");
    transfer.sends(&[2]);
    transfer.ack(2);
    transfer.sends(&[3]);
    assert_eq!(transfer.wait(), Duration::from_millis(50 + 60 + 10), "the ACK may answer the first sending");
    transfer.pass(10);
    transfer.ack(3);
    transfer.sends(&[4]);
    assert_eq!(transfer.wait(), usual);
}

/// A window slower than the timeout was sent twice, so it was not measured, so the next one was sent twice too.
#[test]
fn slow_link_does_not_get_every_window_twice() {
    // The size of a window, how long it takes in milliseconds, and how often the first is sent until that is measured.
    for (windowsize, takes, sendings) in [(1, 60, 2), (1, 120, 3), (1, 3000, 9), (4, 120, 2), (4, 3000, 6)] {
        let asked = format!("windowsize\0{windowsize}\0");
        let mut transfer = Transfer::new(100_000, asked.as_bytes());
        transfer.datagrams();
        // Only the small OACK is measured.
        transfer.pass(1);
        transfer.ack(0);
        for window in 1..=10 {
            let acked = transfer.now.after(Duration::from_millis(takes));
            transfer.datagrams();
            while transfer.now.after(transfer.wait()) < acked {
                transfer.expire();
                transfer.datagrams();
            }
            transfer.now = acked;
            transfer.ack(windowsize * window);
        }
        let again = transfer.sender.retransmitted() / u64::from(windowsize);
        assert_eq!(again + 1, sendings, "windows of {windowsize} that take {takes} ms");
    }
}

/// With a loss in every window no ACK named its last block, so the timeout stayed at its initial second.
#[test]
fn ack_inside_the_window_measures_the_round_trip() {
    let mut transfer = Transfer::new(100_000, b"windowsize\x004\0");
    transfer.datagrams();
    transfer.expire();
    transfer.datagrams();
    transfer.ack(0);
    transfer.sends(&[1, 2, 3, 4]);
    transfer.pass(10);
    transfer.ack(2);
    transfer.sends(&[3, 4, 5, 6]);
    assert_eq!(transfer.wait(), Duration::from_millis(50));
}

#[test]
fn first_window_without_an_answer_may_exceed_the_mtu() {
    for (options, from) in [
        (&b"blksize\x001468\0windowsize\x004\0"[..], Some(2)),
        (b"blksize\x001468\0", Some(2)),
        (b"blksize\x001468\0timeout\x0060\0", Some(1)),
        (b"tsize\x000\0windowsize\x004\0", None),
    ] {
        let mut transfer = Transfer::new(100_000, options);
        let _ = transfer.poll();
        assert!(!transfer.sender.may_exceed_mtu(transfer.now), "the OACK is small");
        transfer.ack(0);
        for repetitions in 0..3 {
            transfer.datagrams();
            let expected = from.is_some_and(|from| repetitions >= from);
            assert_eq!(transfer.sender.may_exceed_mtu(transfer.now), expected, "{repetitions} repetitions");
            transfer.expire();
        }
        let _ = transfer.poll();
        transfer.ack(1);
        for _ in 0..2 {
            transfer.datagrams();
            transfer.expire();
            assert!(!transfer.sender.may_exceed_mtu(transfer.now), "a block has arrived");
        }
    }
}
