//! Whole conversations.

use std::time::{Duration, Instant};

use smol::{
    Timer, block_on,
    future::{poll_once, zip},
    io::AsyncWriteExt,
    net::TcpStream,
};

use super::{script::*, *};

fn disk(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at / 5 + at / 1000) as u8).collect()
}

/// Reads all at once; the bytes, or why there are none.
async fn read_all(nbd: &NbdClient, places: &[(u64, usize)]) -> Vec<Result<Vec<u8>, String>> {
    let readings: Vec<_> = places.iter().map(|&(offset, len)| nbd.read(offset, len)).collect();
    let mut read = vec![];
    for reading in readings {
        read.push(reading.await.map_err(|error| error.to_string()));
    }
    read
}

/// What a server answers to the request with this cookie.
type Words = fn(u64) -> Vec<u8>;

/// What a server answers to the requests that it has heard.
type Answer = fn(&[Asked], &[u8]) -> Vec<u8>;

fn on_disk<'a>(asked: &Asked, disk: &'a [u8]) -> &'a [u8] {
    &disk[asked.offset as usize..][..asked.len as usize]
}

#[test]
fn good_servers_are_understood() {
    let simple: Answer =
        |all, disk| all.iter().flat_map(|asked| simple_reply(0, asked.cookie, on_disk(asked, disk))).collect();
    let backwards: Answer =
        |all, disk| all.iter().rev().flat_map(|asked| simple_reply(0, asked.cookie, on_disk(asked, disk))).collect();
    let one_chunk: Answer =
        |all, disk| all.iter().flat_map(|asked| data(true, asked.cookie, asked.offset, on_disk(asked, disk))).collect();
    // The end first, then the beginning; what is between are zeros on this disk.
    let pieces: Answer = |all, disk| {
        let [first, second] = [all[0], all[1]];
        [
            data(false, first.cookie, 900, &disk[900..1000]),
            data(false, second.cookie, 2000, &disk[2000..2001]),
            hole(false, first.cookie, 100, 800),
            data(false, second.cookie, 2001, &disk[2001..2100]),
            done(second.cookie),
            data(true, first.cookie, 0, &disk[..100]),
        ]
        .concat()
    };
    let (one, three) = (&[(0, 8192)][..], &[(0, 512), (7, 1), (8000, 192)][..]);
    for (name, server, places, wanted, answer) in [
        ("simple", SIMPLE, one, &[(0, 8192)][..], simple),
        ("the last bytes", SIMPLE, &[(8191, 1)], &[(8191, 1)], simple),
        ("out of order", SIMPLE, three, &[(0, 512), (7, 1), (8000, 192)], backwards),
        ("one chunk", STRUCTURED, three, &[(0, 512), (7, 1), (8000, 192)], one_chunk),
        ("pieces and holes", STRUCTURED, &[(0, 1000), (2000, 100)], &[(0, 1000), (2000, 100)], pieces),
        ("neither GO nor chunks", Polite { old: true, ..SIMPLE }, one, &[(0, 8192)], simple),
        ("with zeroes", Polite { old: true, no_zeroes: false, ..SIMPLE }, one, &[(0, 8192)], simple),
        ("whole blocks", Polite { blocks: Some((4096, 1 << 25)), ..SIMPLE }, &[(4095, 2)], &[(0, 8192)], simple),
        (
            "all of a block",
            Polite { blocks: Some((4096, u32::MAX)), ..SIMPLE },
            &[(4096, 4096)],
            &[(4096, 4096)],
            simple,
        ),
        ("a part of a block", Polite { blocks: Some((512, 512)), ..STRUCTURED }, &[(600, 1)], &[(512, 512)], one_chunk),
        (
            "short requests",
            Polite { blocks: Some((1024, 3000)), ..SIMPLE },
            &[(1000, 4000)],
            &[(0, 2048), (2048, 2048), (4096, 1024)],
            backwards,
        ),
    ] {
        let mut disk = disk(8192);
        disk[100..900].fill(0);
        let serve = async |mut client: TcpStream| {
            server.open(&mut client, 8192).await;
            let mut all = vec![];
            for _ in wanted {
                all.push(hear_request(&mut client).await);
            }
            let places: Vec<_> = all.iter().map(|asked| (asked.offset, asked.len)).collect();
            assert_eq!(places, wanted, "{name}");
            client.write_all(&answer(&all, &disk)).await.expect("sent");
            hear_out(client).await;
        };
        against(serve, async |client| {
            let nbd = client.connect().await.expect("a good server");
            assert_eq!((nbd.size(), nbd.export().read_only, nbd.export().multi_conn), (8192, true, true), "{name}");
            let expected: Vec<_> =
                places.iter().map(|&(offset, len)| Ok(disk[offset as usize..][..len].to_vec())).collect();
            assert!(read_all(&nbd, places).await == expected, "{name}");
            assert!(nbd.is_alive(), "{name}");
        });
    }
}

#[test]
fn memory_is_used_again_and_nothing_of_it_is_left() {
    let serve = async |mut client: TcpStream| {
        STRUCTURED.open(&mut client, 8192).await;
        for _ in 0..3 {
            let Asked { cookie, .. } = hear_request(&mut client).await;
            let answer = [data(false, cookie, 0, &[7; 100]), hole(true, cookie, 100, 900)].concat();
            client.write_all(&answer).await.expect("sent");
        }
        hear_out(client).await;
    };
    against(serve, async |client| {
        let nbd = client.connect().await.expect("a good server");
        for len in [0, 500, 2000] {
            let used = vec![0xaa; len];
            let place = used.as_ptr();
            let bytes = nbd.read_into(used, 0, 1000).await.expect("bytes");
            assert_eq!(bytes, [&[7; 100][..], &[0; 900]].concat(), "{len}");
            assert!(len < 1000 || bytes.as_ptr() == place, "{len}");
        }
    });
}

#[test]
fn a_bad_server_is_given_up_with_a_reason() {
    const NOT_NBD: &str = "the server's reply is not NBD";
    const NOT_ASKED: &str = "the server sent what it was not asked for";
    const LATE: &str = "the server did not answer within 0.2 s";
    const HUNG_UP: &str = "the server hung up";
    // Each is asked for the 1,000 bytes from 500 on.
    let cases: &[(&str, Polite, bool, Words)] = &[
        (LATE, SIMPLE, false, |_| vec![]),
        (LATE, SIMPLE, false, |cookie| simple_reply(0, cookie, &[0; 999])),
        (LATE, STRUCTURED, false, |cookie| data(false, cookie, 500, &[0; 1000])),
        (LATE, STRUCTURED, false, |cookie| error(false, cookie, 5, b"")),
        (HUNG_UP, SIMPLE, true, |_| vec![]),
        (HUNG_UP, SIMPLE, true, |cookie| simple_reply(0, cookie, &[0; 999])),
        (HUNG_UP, SIMPLE, true, |cookie| simple_reply(0, cookie, &[])[..15].to_vec()),
        (HUNG_UP, STRUCTURED, true, |cookie| data(true, cookie, 500, &[0; 1000])[..40].to_vec()),
        (NOT_NBD, SIMPLE, false, |_| vec![0; 16]),
        (NOT_NBD, STRUCTURED, false, |_| b"HTTP/1.1 400 Bad Request".to_vec()),
        (NOT_ASKED, SIMPLE, false, |cookie| simple_reply(0, cookie + 9, &[0; 1000])),
        (NOT_ASKED, SIMPLE, false, |cookie| simple_reply(5, !cookie, &[])),
        (NOT_ASKED, STRUCTURED, false, |cookie| done(cookie + 9)),
        (NOT_ASKED, STRUCTURED, false, |cookie| error(false, cookie + 9, 5, b"")),
        (NOT_ASKED, STRUCTURED, false, |cookie| data(true, cookie + 9, 500, &[0; 1000])),
        (NOT_ASKED, STRUCTURED, false, |cookie| data(true, cookie, 499, &[0; 1000])),
        (NOT_ASKED, STRUCTURED, false, |cookie| data(true, cookie, 501, &[0; 1000])),
        (NOT_ASKED, STRUCTURED, false, |cookie| data(true, cookie, u64::MAX, &[0; 2])),
        (NOT_ASKED, STRUCTURED, false, |cookie| hole(true, cookie, 500, u32::MAX)),
        (NOT_ASKED, STRUCTURED, false, |cookie| hole(true, cookie, u64::MAX, u32::MAX)),
        (NOT_ASKED, STRUCTURED, false, |cookie| hole(true, cookie, 500, 0)),
        (NOT_ASKED, STRUCTURED, false, |cookie| {
            [data(false, cookie, 500, &[0; 10]), hole(true, cookie, 509, 991)].concat()
        }),
        (NOT_ASKED, STRUCTURED, false, |cookie| {
            [data(false, cookie, 500, &[0; 1000]), simple_reply(0, cookie, &[0; 1000])].concat()
        }),
        ("the server left out a part of what it was asked for", STRUCTURED, false, |cookie| {
            data(true, cookie, 500, &[0; 999])
        }),
        ("the server left out a part of what it was asked for", STRUCTURED, false, done),
        ("the server answers in too many pieces", STRUCTURED, false, |cookie| {
            (250..750).flat_map(|at| hole(false, cookie, at * 2, 1)).collect()
        }),
        ("the server sent a structured reply, which was not agreed on", SIMPLE, false, |cookie| {
            data(true, cookie, 500, &[0; 1000])
        }),
        // Types that there are not, or that were not asked for, and wrong lengths.
        (NOT_NBD, STRUCTURED, false, |cookie| chunk(true, 5, cookie, &[0; 12])),
        (NOT_NBD, STRUCTURED, false, |cookie| chunk(false, 0, cookie, &[])),
        (NOT_NBD, STRUCTURED, false, |cookie| chunk(true, 0, cookie, &[0])),
        (NOT_NBD, STRUCTURED, false, |cookie| chunk(true, 1, cookie, &[0; 8])),
        (NOT_NBD, STRUCTURED, false, |cookie| chunk(true, 2, cookie, &[0; 13])),
        (NOT_NBD, STRUCTURED, false, |cookie| chunk(true, 0x8001, cookie, &[0; 5])),
        (NOT_NBD, STRUCTURED, false, |cookie| chunk(true, 0x8001, cookie, &[0, 0, 0, 5, 0, 1])),
        (NOT_NBD, STRUCTURED, false, |cookie| chunk(true, 0x8001, cookie, &[0; 5000])),
    ];
    for (case, &(reason, server, hangs_up, answer)) in cases.iter().enumerate() {
        let serve = async |mut client: TcpStream| {
            server.open(&mut client, 1 << 40).await;
            let asked = hear_request(&mut client).await;
            hear_request(&mut client).await;
            client.write_all(&answer(asked.cookie)).await.expect("sent");
            if !hangs_up {
                hear_out(client).await;
            }
        };
        let started = Instant::now();
        against(serve, async |client| {
            let nbd = client.connect().await.expect("well so far");
            let expected = Err(format!("the connection to the NBD server is lost: {reason}"));
            let both = [expected.clone(), expected.clone()];
            assert_eq!(read_all(&nbd, &[(500, 1000), (0, 1)]).await, both, "case {case}");
            assert!(!nbd.is_alive(), "case {case}");
            assert_eq!(read_all(&nbd, &[(0, 1), (0, 2)]).await, both, "case {case}, later");
        });
        assert!(started.elapsed() < Duration::from_secs(2), "case {case}");
    }
}

#[test]
fn an_error_concerns_one_request_only() {
    let texts: &[(Polite, Words, &str)] = &[
        (SIMPLE, |cookie| simple_reply(5, cookie, &[]), "Input/output error (os error 5)"),
        (SIMPLE, |cookie| simple_reply(22, cookie, &[]), "Invalid argument (os error 22)"),
        (STRUCTURED, |cookie| error(true, cookie, 5, b""), "Input/output error (os error 5)"),
        (STRUCTURED, |cookie| error(true, cookie, 5, b"bad\n\x1b[2J\xff"), {
            "Input/output error (os error 5): bad\\n\\u{1b}[2J\u{fffd}"
        }),
        (
            STRUCTURED,
            |cookie| {
                // What is told of one place (ERROR_OFFSET), then the rest, then one more error.
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
                let bad = hear_request(&mut client).await;
                client.write_all(&answer(bad.cookie)).await.expect("sent");
                let good = hear_request(&mut client).await;
                client.write_all(&simple_reply(0, good.cookie, b"good")).await.expect("sent");
            }
            hear_out(client).await;
        };
        against(serve, async |client| {
            let nbd = client.connect().await.expect("a good server");
            for _ in 0..3 {
                let refused = Err(format!("the NBD server cannot read 512 bytes at 4096: {reason}"));
                assert_eq!(read_all(&nbd, &[(4096, 512), (0, 4)]).await, [refused, Ok(b"good".to_vec())]);
            }
            assert!(nbd.is_alive());
        });
    }
}

#[test]
fn a_trickling_reply_is_late_all_the_same() {
    let serve = async |mut client: TcpStream| {
        SIMPLE.open(&mut client, 1 << 20).await;
        let asked = hear_request(&mut client).await;
        for byte in simple_reply(0, asked.cookie, &[0; 4096]) {
            Timer::after(LIMIT / 8).await;
            if client.write_all(&[byte]).await.is_err() {
                return;
            }
        }
    };
    let started = Instant::now();
    against(serve, async |client| {
        let nbd = client.connect().await.expect("a good server");
        let late = "the connection to the NBD server is lost: the server did not answer within 0.2 s";
        assert_eq!(read_all(&nbd, &[(0, 4096)]).await, [Err(late.to_owned())]);
    });
    assert!(started.elapsed() < 10 * LIMIT);
}

#[test]
fn a_flood_of_chunks_is_late_all_the_same() {
    let info = [option_reply(7, 3, &info_export(4096, 1)), option_reply(7, 1, b"")].concat();
    let opened = [greeting(3), option_reply(8, 1, b""), info].concat();
    let server = Endless::new(opened, error(false, 1, 5, b"again"));
    let executor = Executor::new();
    block_on(executor.run(async {
        let nbd = NbdClient::from_stream(server, "disk", LIMIT, &executor).await.expect("well so far");
        let late = "the connection to the NBD server is lost: the server did not answer within 0.2 s";
        assert_eq!(read_all(&nbd, &[(0, 4096)]).await, [Err(late.to_owned())]);
    }));
}

#[test]
fn an_idle_connection_stays_and_notices_its_end() {
    let serve = async |mut client: TcpStream| {
        SIMPLE.open(&mut client, 1 << 20).await;
        let asked = hear_request(&mut client).await;
        client.write_all(&simple_reply(0, asked.cookie, b"late")).await.expect("sent");
    };
    against(serve, async |client| {
        let nbd = client.connect().await.expect("a good server");
        Timer::after(2 * LIMIT).await;
        assert!(nbd.is_alive(), "being idle is not being late");
        assert_eq!(read_all(&nbd, &[(0, 4)]).await, [Ok(b"late".to_vec())]);
        let started = Instant::now();
        while nbd.is_alive() && started.elapsed() < Duration::from_secs(5) {
            smol::future::yield_now().await;
        }
        assert!(!nbd.is_alive(), "the server hung up");
    });
}

#[test]
fn the_wire_is_bounded_and_those_who_wait_get_their_turn() {
    let size = 100 << 20;
    let serve = async |mut client: TcpStream| {
        SIMPLE.open(&mut client, size).await;
        let mut all = vec![];
        for _ in 0..8 {
            all.push(hear_request(&mut client).await);
        }
        let mut peeked = [0; 1];
        let more = poll_once(client.peek(&mut peeked)).await;
        assert!(more.is_none(), "8 MiB are under way, and there is another request");
        for _ in 8..100 {
            let asked = all.remove(all.len() / 2);
            let fill = vec![(asked.offset >> 20) as u8; asked.len as usize];
            client.write_all(&simple_reply(0, asked.cookie, &fill)).await.expect("sent");
            all.push(hear_request(&mut client).await);
        }
        for asked in all {
            let fill = vec![(asked.offset >> 20) as u8; asked.len as usize];
            client.write_all(&simple_reply(0, asked.cookie, &fill)).await.expect("sent");
        }
        hear_out(client).await;
    };
    against(serve, async |client| {
        let nbd =
            NbdClient::connect(&client.url, Duration::from_secs(60), client.executor).await.expect("a good server");
        let whole = nbd.read(0, size as usize).await.expect("all of the disk");
        let mut parts = whole.chunks(1 << 20).enumerate();
        assert!(parts.all(|(index, part)| part == vec![index as u8; 1 << 20]));
    });
}

#[test]
fn what_nobody_waits_for_is_thrown_away() {
    let (heard, first_is_sent) = smol::channel::bounded(1);
    let serve = async |mut client: TcpStream| {
        SIMPLE.open(&mut client, 1 << 20).await;
        let dropped = hear_request(&mut client).await;
        heard.send(()).await.expect("the test waits");
        let asked = hear_request(&mut client).await;
        assert_eq!((asked.offset, asked.len), (3, 4), "the second was given up before it was sent");
        client.write_all(&simple_reply(0, dropped.cookie, &vec![1; dropped.len as usize])).await.expect("sent");
        client.write_all(&simple_reply(0, asked.cookie, b"good")).await.expect("sent");
        hear_out(client).await;
    };
    against(serve, async |client| {
        let nbd = client.connect().await.expect("a good server");
        let first = nbd.read(0, 100_000);
        first_is_sent.recv().await.expect("the server hears it");
        drop(first);
        drop(nbd.read(1, 1));
        assert_eq!(nbd.read(3, 4).await.as_deref(), Ok(&b"good"[..]));
    });
}

/// The client's last words.
const DISC: &[u8] = b"\x25\x60\x95\x13\0\0\0\x02\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

#[test]
fn a_dropped_connection_says_goodbye_and_leaves_nothing() {
    for readings in [0, 1, 64, 200] {
        let heard = smol::channel::bounded(1);
        let serve = async |mut client: TcpStream| {
            SIMPLE.open(&mut client, 1 << 20).await;
            heard.0.send(hear_out(client).await).await.expect("the test waits");
        };
        against(serve, async |client| {
            let nbd =
                NbdClient::connect(&client.url, Duration::from_secs(60), client.executor).await.expect("a good server");
            let mut all: Vec<_> = (0..readings).map(|at| nbd.read(at, 1)).collect();
            for reading in &mut all {
                assert!(poll_once(reading).await.is_none());
            }
            smol::future::yield_now().await;
            drop(all);
            drop(nbd);
            let heard = heard.1.recv().await.expect("the server waits");
            assert!(heard.ends_with(DISC), "{readings}: {heard:?}");
            while !client.executor.is_empty() {
                smol::future::yield_now().await;
            }
        });
    }
}

#[test]
fn nothing_is_asked_for_that_is_not_there() {
    let heard = smol::channel::bounded(1);
    let serve = async |mut client: TcpStream| {
        SIMPLE.open(&mut client, 1000).await;
        heard.0.send(hear_out(client).await).await.expect("the test waits");
    };
    against(serve, async |client| {
        let nbd = client.connect().await.expect("a good server");
        let behind = Err("behind the end of the disk".to_owned());
        let places = [(1000, 1), (0, 1001), (u64::MAX, 1), (1, usize::MAX), (u64::MAX, usize::MAX), (1001, 0)];
        assert_eq!(read_all(&nbd, &places).await, vec![behind; places.len()]);
        assert_eq!(read_all(&nbd, &[(1000, 0), (7, 0)]).await, [Ok(vec![]), Ok(vec![])]);
        drop(nbd);
        assert_eq!(heard.1.recv().await.as_deref(), Ok(DISC));
    });
}

/// A server that answers in a random order and in random chunks.
async fn whimsical(mut client: TcpStream, server: Polite, disk: &[u8], random: &mut Random, requests: usize) {
    server.open(&mut client, disk.len() as u64).await;
    let mut heard = 0;
    // The pieces that are still to be sent, of all requests.
    let mut pieces: Vec<(Asked, u64, u64)> = vec![];
    while heard < requests || !pieces.is_empty() {
        let is_asked = heard < requests && poll_once(client.peek(&mut [0])).await.is_some();
        if pieces.is_empty() || is_asked && random.coin() {
            let asked = hear_request(&mut client).await;
            heard += 1;
            let end = asked.offset + u64::from(asked.len);
            let mut from = asked.offset;
            while from < end {
                let len = if server.structured { 1 + random.below(asked.len.into()) } else { asked.len.into() };
                let to = (from + len).min(end);
                pieces.push((asked, from, to));
                from = to;
            }
            continue;
        }
        let (asked, from, to) = pieces.swap_remove(random.index(pieces.len()));
        let is_last = pieces.iter().all(|(other, ..)| other.cookie != asked.cookie);
        let bytes = &disk[from as usize..to as usize];
        let in_one = is_last && random.coin();
        let mut answer = match () {
            () if !server.structured => simple_reply(0, asked.cookie, bytes),
            () if bytes.iter().all(|byte| *byte == 0) => hole(in_one, asked.cookie, from, bytes.len() as u32),
            () => data(in_one, asked.cookie, from, bytes),
        };
        if server.structured && is_last && !in_one {
            answer.extend(done(asked.cookie));
        }
        let (first, second) = answer.split_at(random.index(answer.len()));
        client.write_all(first).await.expect("sent");
        smol::future::yield_now().await;
        client.write_all(second).await.expect("sent");
    }
    hear_out(client).await;
}

#[test]
fn whatever_the_order_every_reading_gets_its_bytes() {
    for seed in 0..30 {
        let mut random = Random(seed);
        let mut disk: Vec<u8> = (0..1 + random.index(100_000)).map(|_| random.below(256) as u8).collect();
        for _ in 0..20 {
            let at = random.index(disk.len());
            let len = random.index(10_000).min(disk.len() - at);
            disk[at..at + len].fill(0);
        }
        // A reading is never longer than one request, so that the server knows how many there will be.
        let blocks = random.coin().then(|| (1 << random.below(13), (1 << 16) + random.below(1 << 20) as u32));
        let server = Polite { structured: random.coin(), blocks, ..SIMPLE };
        let places: Vec<(u64, usize)> = (0..100)
            .map(|_| {
                let at = random.index(disk.len());
                (at as u64, (1 + random.index(30_000)).min(disk.len() - at))
            })
            .collect();
        let serve = async |client| whimsical(client, server, &disk, &mut random, places.len()).await;
        against(serve, async |client| {
            let nbd =
                NbdClient::connect(&client.url, Duration::from_secs(30), client.executor).await.expect("a good server");
            for (&(offset, len), read) in places.iter().zip(read_all(&nbd, &places).await) {
                assert!(read.as_deref() == Ok(&disk[offset as usize..][..len]), "seed {seed}: {offset}+{len}");
            }
        });
    }
}

#[test]
fn an_nbd_server_on_a_unix_socket_is_reached() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("nbd.sock");
    let executor = Executor::new();
    block_on(executor.run(async {
        let listener = smol::net::unix::UnixListener::bind(&path).expect("a socket");
        let url = NbdUri::parse(&format!("nbd+unix:///disk?socket={}", path.display())).expect("a URI");
        let serve = async {
            let (mut client, _) = listener.accept().await.expect("a client");
            let words = [greeting(3), option_reply(8, 0x8000_0001, b""), option_reply(7, 0x8000_0006, b"")].concat();
            client.write_all(&words).await.expect("sent");
            client
        };
        let (nbd, _client) = zip(NbdClient::connect(&url, LIMIT, &executor), serve).await;
        assert_eq!(nbd.expect_err("no disk").reason, format!("{url}: the server has no export \"disk\""));
    }));
}

#[test]
fn a_server_that_is_not_there_is_named() {
    let url = NbdUri::parse("nbd+unix:///disk?socket=/nowhere/nbd.sock").expect("a URI");
    let executor = Executor::new();
    let reason = "nbd+unix:///disk?socket=/nowhere/nbd.sock: No such file or directory (os error 2)";
    assert_eq!(block_on(check(&url)).expect_err("nothing there").reason, reason);
    let connected = block_on(NbdClient::connect(&url, LIMIT, &executor));
    assert_eq!(connected.expect_err("nothing there").reason, reason);
}
