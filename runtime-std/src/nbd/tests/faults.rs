//! Servers that violate the protocol, are late or reply with errors.

use std::time::{Duration, Instant};

use smol::{Executor, Timer, block_on, io::AsyncWriteExt, net::TcpStream};

use super::{super::script::*, *};

/// Returns a server's reply to the request with this cookie.
type Reply = fn(u64) -> Vec<u8>;

#[test]
fn loses_the_connection_to_an_invalid_server() {
    const INVALID: &str = "the server sent an invalid NBD reply";
    const UNREQUESTED: &str = "the server sent data that was not requested";
    const LATE: &str = "no reply within 0.2 s";
    const CLOSED: &str = "the server closed the connection";
    // Each server receives a request for 1,000 bytes at offset 500.
    let cases: &[(&str, ServerOptions, bool, Reply)] = &[
        (LATE, SIMPLE, false, |_| vec![]),
        (LATE, SIMPLE, false, |cookie| simple_reply(0, cookie, &[0; 999])),
        (LATE, STRUCTURED, false, |cookie| data(false, cookie, 500, &[0; 1000])),
        (LATE, STRUCTURED, false, |cookie| error(false, cookie, 5, b"")),
        (CLOSED, SIMPLE, true, |_| vec![]),
        (CLOSED, SIMPLE, true, |cookie| simple_reply(0, cookie, &[0; 999])),
        (CLOSED, SIMPLE, true, |cookie| simple_reply(0, cookie, &[])[..15].to_vec()),
        (CLOSED, STRUCTURED, true, |cookie| data(true, cookie, 500, &[0; 1000])[..40].to_vec()),
        (INVALID, SIMPLE, false, |_| vec![0; 16]),
        (INVALID, STRUCTURED, false, |_| b"HTTP/1.1 400 Bad Request".to_vec()),
        (UNREQUESTED, SIMPLE, false, |cookie| simple_reply(0, cookie + 9, &[0; 1000])),
        (UNREQUESTED, SIMPLE, false, |cookie| simple_reply(5, !cookie, &[])),
        (UNREQUESTED, STRUCTURED, false, |cookie| done(cookie + 9)),
        (UNREQUESTED, STRUCTURED, false, |cookie| error(false, cookie + 9, 5, b"")),
        (UNREQUESTED, STRUCTURED, false, |cookie| data(true, cookie + 9, 500, &[0; 1000])),
        (UNREQUESTED, STRUCTURED, false, |cookie| data(true, cookie, 499, &[0; 1000])),
        (UNREQUESTED, STRUCTURED, false, |cookie| data(true, cookie, 501, &[0; 1000])),
        (UNREQUESTED, STRUCTURED, false, |cookie| data(true, cookie, u64::MAX, &[0; 2])),
        (UNREQUESTED, STRUCTURED, false, |cookie| hole(true, cookie, 500, u32::MAX)),
        (UNREQUESTED, STRUCTURED, false, |cookie| hole(true, cookie, u64::MAX, u32::MAX)),
        (UNREQUESTED, STRUCTURED, false, |cookie| hole(true, cookie, 500, 0)),
        (UNREQUESTED, STRUCTURED, false, |cookie| {
            [data(false, cookie, 500, &[0; 10]), hole(true, cookie, 509, 991)].concat()
        }),
        (UNREQUESTED, STRUCTURED, false, |cookie| {
            [data(false, cookie, 500, &[0; 1000]), simple_reply(0, cookie, &[0; 1000])].concat()
        }),
        ("the server sent an incomplete reply", STRUCTURED, false, |cookie| data(true, cookie, 500, &[0; 999])),
        ("the server sent an incomplete reply", STRUCTURED, false, done),
        ("the server sent a reply in too many chunks", STRUCTURED, false, |cookie| {
            (250..750).flat_map(|at| hole(false, cookie, at * 2, 1)).collect()
        }),
        ("the server sent a reply in too many chunks", STRUCTURED, false, |cookie| {
            (500..1500).flat_map(|at| data(false, cookie, at, &[0])).collect()
        }),
        ("the server sent a structured reply, which was not negotiated", SIMPLE, false, |cookie| {
            data(true, cookie, 500, &[0; 1000])
        }),
        // Unknown or unexpected reply types, and invalid lengths.
        (INVALID, STRUCTURED, false, |cookie| chunk(true, 5, cookie, &[0; 12])),
        (INVALID, STRUCTURED, false, |cookie| chunk(false, 0, cookie, &[])),
        (INVALID, STRUCTURED, false, |cookie| chunk(true, 0, cookie, &[0])),
        (INVALID, STRUCTURED, false, |cookie| chunk(true, 1, cookie, &[0; 8])),
        (INVALID, STRUCTURED, false, |cookie| chunk(true, 2, cookie, &[0; 13])),
        (INVALID, STRUCTURED, false, |cookie| chunk(true, 0x8001, cookie, &[0; 5])),
        (INVALID, STRUCTURED, false, |cookie| chunk(true, 0x8001, cookie, &[0, 0, 0, 5, 0, 1])),
        (INVALID, STRUCTURED, false, |cookie| chunk(true, 0x8001, cookie, &[0; 5000])),
    ];
    for (case, &(reason, server, closes, answer)) in cases.iter().enumerate() {
        let serve = async |mut client: TcpStream| {
            server.open(&mut client, 1 << 40).await;
            let request = receive_request(&mut client).await;
            receive_request(&mut client).await;
            client.write_all(&answer(request.cookie)).await.expect("sent");
            if !closes {
                read_to_end(client).await;
            }
        };
        let started = Instant::now();
        with_server(serve, async |client| {
            let nbd = client.connect().await.expect("a valid handshake");
            let expected = Err(format!("lost the connection to the NBD server: {reason}"));
            let both = [expected.clone(), expected.clone()];
            assert_eq!(read_all(&nbd, &[(500, 1000), (0, 1)]).await, both, "case {case}");
            assert!(!nbd.is_alive(), "case {case}");
            assert_eq!(read_all(&nbd, &[(0, 1), (0, 2)]).await, both, "case {case}, later");
        });
        assert!(started.elapsed() < Duration::from_secs(2), "case {case}");
    }
}

#[test]
fn error_reply_fails_one_request() {
    let texts: &[(ServerOptions, Reply, &str)] = &[
        (SIMPLE, |cookie| simple_reply(5, cookie, &[]), "Input/output error (os error 5)"),
        (SIMPLE, |cookie| simple_reply(22, cookie, &[]), "Invalid argument (os error 22)"),
        (STRUCTURED, |cookie| error(true, cookie, 5, b""), "Input/output error (os error 5)"),
        (STRUCTURED, |cookie| error(true, cookie, 5, b"bad\n\x1b[2J\xff"), {
            "Input/output error (os error 5): bad\\n\\u{1b}[2J\u{fffd}"
        }),
        (
            STRUCTURED,
            |cookie| {
                // An error at one offset (ERROR_OFFSET), then the rest of the data, then another error.
                let payload = [&[0, 0, 0, 5, 0, 3][..], b"one", &4096u64.to_be_bytes()].concat();
                let first = chunk(false, 0x8002, cookie, &payload);
                [first, hole(false, cookie, 4096, 512), error(false, cookie, 12, b"two"), done(cookie)].concat()
            },
            "Input/output error (os error 5): one",
        ),
        (STRUCTURED, |cookie| simple_reply(5, cookie, &[]), "Input/output error (os error 5)"),
    ];
    for &(server, answer, reason) in texts {
        let serve = async |mut client: TcpStream| {
            server.open(&mut client, 1 << 20).await;
            for _ in 0..3 {
                let bad = receive_request(&mut client).await;
                client.write_all(&answer(bad.cookie)).await.expect("sent");
                let good = receive_request(&mut client).await;
                client.write_all(&simple_reply(0, good.cookie, b"good")).await.expect("sent");
            }
            read_to_end(client).await;
        };
        with_server(serve, async |client| {
            let nbd = client.connect().await.expect("a valid server");
            for _ in 0..3 {
                let refused = Err(format!("the NBD server cannot read 512 bytes at offset 4096: {reason}"));
                assert_eq!(read_all(&nbd, &[(4096, 512), (0, 4)]).await, [refused, Ok(b"good".to_vec())]);
            }
            assert!(nbd.is_alive());
        });
    }
}

#[test]
fn slow_reply_misses_the_deadline() {
    let serve = async |mut client: TcpStream| {
        SIMPLE.open(&mut client, 1 << 20).await;
        let request = receive_request(&mut client).await;
        for byte in simple_reply(0, request.cookie, &[0; 4096]) {
            Timer::after(TIMEOUT / 8).await;
            if client.write_all(&[byte]).await.is_err() {
                return;
            }
        }
    };
    let started = Instant::now();
    with_server(serve, async |client| {
        let nbd = client.connect().await.expect("a valid server");
        let late = "lost the connection to the NBD server: no reply within 0.2 s";
        assert_eq!(read_all(&nbd, &[(0, 4096)]).await, [Err(late.to_owned())]);
    });
    assert!(started.elapsed() < 10 * TIMEOUT);
}

#[test]
fn endless_chunks_miss_the_deadline() {
    let info = [option_reply(7, 3, &info_export(4096, 1)), option_reply(7, 1, b"")].concat();
    let opened = [greeting(3), option_reply(8, 1, b""), info].concat();
    let server = ScriptedStream::new(opened, error(false, 1, 5, b"again"));
    let executor = Executor::new();
    block_on(executor.run(async {
        let nbd = NbdClient::from_stream(server, "disk", TIMEOUT, &executor).await.expect("a valid handshake");
        let late = "lost the connection to the NBD server: no reply within 0.2 s";
        assert_eq!(read_all(&nbd, &[(0, 4096)]).await, [Err(late.to_owned())]);
    }));
}
