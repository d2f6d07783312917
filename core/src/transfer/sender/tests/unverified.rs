//! What a client receives that has acknowledged nothing, or nothing that proves its address.

use super::*;

/// With `utimeout` 10000, one forged request made the server send 5,848 packets; with `timeout` 1 it was 61, without options 15.
#[test]
fn unverified_client_receives_six_packets_whatever_it_asks_for() {
    let all = b"blksize\x0065464\0windowsize\x0064\0timeout\x00255\0utimeout\x0010000\0tsize\x000\0rollover\x001\0";
    let requests: [&[u8]; 10] = [
        b"",
        b"tsize\x000\0",
        b"blksize\x008\0",
        b"blksize\x0065464\0",
        b"windowsize\x0064\0",
        b"timeout\x001\0",
        b"timeout\x00255\0",
        b"utimeout\x0010000\0",
        b"rollover\x001\0",
        all,
    ];
    for options in requests {
        for known_port in [false, true] {
            let mut transfer = Transfer::new(100_000, options);
            if known_port {
                transfer.sender = transfer.sender.on_known_port(1);
            }
            let (mut sent, mut bytes) = (vec![], 0);
            let outcome = loop {
                match transfer.poll() {
                    Output::Transmit(Transmit { len, segment }) => {
                        assert_eq!(len, segment, "one packet");
                        sent.push(transfer.now.as_micros() / 1_000_000);
                        bytes += len;
                    }
                    Output::Wait(until) => transfer.now = until,
                    Output::Finished(outcome) => break outcome,
                    Output::NeedData => panic!("the file is in memory"),
                }
            };
            std::println!("{}: {} packets, {bytes} bytes", options.escape_ascii(), sent.len());
            assert_eq!((outcome, &sent[..]), (Outcome::TimedOut, &[0, 1, 3, 7, 15, 31][..]));
            assert_eq!(transfer.now, Instant::from_micros(63_000_000), "the last interval is waited for");
            assert!(bytes <= 6 * 516);
        }
    }
}

#[test]
fn error_counts_as_a_packet_to_an_unverified_client() {
    for (sendings, errors) in [(5, 1), (6, 0)] {
        let mut transfer = Transfer::new(2000, b"");
        transfer.sends(&[1]);
        for _ in 1..sendings {
            transfer.expire();
            transfer.sends(&[1]);
        }
        transfer.sender.abort("shutting down");
        assert_eq!(transfer.datagrams().len(), errors);
        transfer.ends(Outcome::Aborted);
    }
}

/// One forged ACK made the server repeat a window for a minute.
#[test]
fn ack_of_the_oack_proves_nothing_on_a_known_port() {
    for (known_port, verified) in [(false, true), (true, false)] {
        let mut transfer = Transfer::new(100_000, b"windowsize\x004\0");
        if known_port {
            transfer.sender = transfer.sender.on_known_port(1);
        }
        assert_eq!(transfer.datagrams().len(), 1);
        transfer.ack(0);
        assert_eq!(transfer.sender.is_verified(), verified);
        let mut packets = 0;
        let outcome = loop {
            packets += transfer.datagrams().len();
            match transfer.poll() {
                Output::Wait(until) => transfer.now = until,
                Output::Finished(outcome) => break outcome,
                other => panic!("{other:?}"),
            }
        };
        std::println!("known port: {known_port}, {packets} packets in {} s", transfer.now.as_micros() / 1_000_000);
        assert_eq!(outcome, Outcome::TimedOut);
        assert_eq!(packets == 5 * 4, known_port, "five windows and no ERROR");
    }
}
