//! Reads from valid servers.

use std::time::Duration;

use smol::{future::poll_once, io::AsyncWriteExt, net::TcpStream};

use super::{super::script::*, *};

/// Returns the contents of a disk.
fn disk(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at / 5 + at / 1000) as u8).collect()
}

/// Returns a server's replies to these requests.
type Replies = fn(&[ReadRequest], &[u8]) -> Vec<u8>;

fn on_disk<'a>(request: &ReadRequest, disk: &'a [u8]) -> &'a [u8] {
    &disk[request.offset as usize..][..request.len as usize]
}

#[test]
fn reads_from_valid_servers() {
    let simple: Replies =
        |all, disk| all.iter().flat_map(|request| simple_reply(0, request.cookie, on_disk(request, disk))).collect();
    let backwards: Replies = |all, disk| {
        all.iter().rev().flat_map(|request| simple_reply(0, request.cookie, on_disk(request, disk))).collect()
    };
    let one_chunk: Replies = |all, disk| {
        all.iter().flat_map(|request| data(true, request.cookie, request.offset, on_disk(request, disk))).collect()
    };
    // The end first, then the beginning; the bytes between are zeros on this disk.
    let pieces: Replies = |all, disk| {
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
        ("neither GO nor chunks", ServerOptions { old: true, ..SIMPLE }, one, &[(0, 8192)], simple),
        ("with zeroes", ServerOptions { old: true, no_zeroes: false, ..SIMPLE }, one, &[(0, 8192)], simple),
        ("whole blocks", ServerOptions { blocks: Some((4096, 1 << 25)), ..SIMPLE }, &[(4095, 2)], &[(0, 8192)], simple),
        (
            "all of a block",
            ServerOptions { blocks: Some((4096, u32::MAX)), ..SIMPLE },
            &[(4096, 4096)],
            &[(4096, 4096)],
            simple,
        ),
        (
            "a part of a block",
            ServerOptions { blocks: Some((512, 4096)), ..STRUCTURED },
            &[(600, 1)],
            &[(512, 512)],
            one_chunk,
        ),
        (
            "short requests",
            ServerOptions { blocks: Some((1024, 5000)), ..SIMPLE },
            &[(1000, 6000)],
            &[(0, 4096), (4096, 3072)],
            backwards,
        ),
    ] {
        let mut disk = disk(8192);
        disk[100..900].fill(0);
        let serve = async |mut client: TcpStream| {
            server.open(&mut client, 8192).await;
            let mut all = vec![];
            for _ in wanted {
                all.push(receive_request(&mut client).await);
            }
            let places: Vec<_> = all.iter().map(|request| (request.offset, request.len)).collect();
            assert_eq!(places, wanted, "{name}");
            client.write_all(&answer(&all, &disk)).await.expect("sent");
            read_to_end(client).await;
        };
        with_server(serve, async |client| {
            let nbd = client.connect().await.expect("a valid server");
            assert_eq!((nbd.size(), nbd.export().read_only, nbd.export().multi_conn), (8192, true, true), "{name}");
            let expected: Vec<_> =
                places.iter().map(|&(offset, len)| Ok(disk[offset as usize..][..len].to_vec())).collect();
            assert!(read_all(&nbd, places).await == expected, "{name}");
            assert!(nbd.is_alive(), "{name}");
        });
    }
}

#[test]
fn reused_buffers_are_overwritten() {
    let serve = async |mut client: TcpStream| {
        STRUCTURED.open(&mut client, 8192).await;
        for _ in 0..3 {
            let ReadRequest { cookie, .. } = receive_request(&mut client).await;
            let answer = [data(false, cookie, 0, &[7; 100]), hole(true, cookie, 100, 900)].concat();
            client.write_all(&answer).await.expect("sent");
        }
        read_to_end(client).await;
    };
    with_server(serve, async |client| {
        let nbd = client.connect().await.expect("a valid server");
        for _ in 0..3 {
            let bytes = nbd.read(0, 1000).await.expect("bytes");
            assert_eq!(*bytes, *[&[7; 100][..], &[0; 900]].concat());
        }
    });
}

#[test]
fn rejects_reads_beyond_the_export() {
    let received = smol::channel::bounded(1);
    let serve = async |mut client: TcpStream| {
        SIMPLE.open(&mut client, 1000).await;
        received.0.send(read_to_end(client).await).await.expect("the test");
    };
    with_server(serve, async |client| {
        let nbd = client.connect().await.expect("a valid server");
        let error = Err("read beyond the end of the disk".to_owned());
        let places = [(1000, 1), (0, 1001), (u64::MAX, 1), (1, usize::MAX), (u64::MAX, usize::MAX), (1001, 0)];
        assert_eq!(read_all(&nbd, &places).await, vec![error; places.len()]);
        assert_eq!(read_all(&nbd, &[(1000, 0), (7, 0)]).await, [Ok(vec![]), Ok(vec![])]);
        drop(nbd);
        assert_eq!(received.1.recv().await.as_deref(), Ok(DISC));
    });
}

/// Serves reads in a random order and in random chunks.
async fn serve_randomly(
    mut client: TcpStream,
    server: ServerOptions,
    disk: &[u8],
    random: &mut Random,
    requests: usize,
) {
    server.open(&mut client, disk.len() as u64).await;
    let mut received = 0;
    // The ranges of all requests that are not sent yet.
    let mut pieces: Vec<(ReadRequest, u64, u64)> = vec![];
    while received < requests || !pieces.is_empty() {
        let has_request = received < requests && poll_once(client.peek(&mut [0])).await.is_some();
        if pieces.is_empty() || has_request && random.coin() {
            let request = receive_request(&mut client).await;
            received += 1;
            let end = request.offset + u64::from(request.len);
            let mut from = request.offset;
            while from < end {
                let len = if server.structured { 1 + random.below(request.len.into()) } else { request.len.into() };
                let to = (from + len).min(end);
                pieces.push((request, from, to));
                from = to;
            }
            continue;
        }
        let (request, from, to) = pieces.swap_remove(random.index(pieces.len()));
        let is_last = pieces.iter().all(|(other, ..)| other.cookie != request.cookie);
        let bytes = &disk[from as usize..to as usize];
        let ends_reply = is_last && random.coin();
        let mut answer = match () {
            () if !server.structured => simple_reply(0, request.cookie, bytes),
            () if bytes.iter().all(|byte| *byte == 0) => hole(ends_reply, request.cookie, from, bytes.len() as u32),
            () => data(ends_reply, request.cookie, from, bytes),
        };
        if server.structured && is_last && !ends_reply {
            answer.extend(done(request.cookie));
        }
        let (first, second) = answer.split_at(random.index(answer.len()));
        client.write_all(first).await.expect("sent");
        smol::future::yield_now().await;
        client.write_all(second).await.expect("sent");
    }
    read_to_end(client).await;
}

#[test]
fn reads_replies_in_any_order() {
    for seed in 0..30 {
        let mut random = Random(seed);
        let mut disk: Vec<u8> = (0..1 + random.index(100_000)).map(|_| random.below(256) as u8).collect();
        for _ in 0..20 {
            let at = random.index(disk.len());
            let len = random.index(10_000).min(disk.len() - at);
            disk[at..at + len].fill(0);
        }
        // No read is longer than one request, so that the server knows the number of requests.
        let blocks = random.coin().then(|| (1 << random.below(13), (1 << 16) + random.below(1 << 20) as u32));
        let server = ServerOptions { structured: random.coin(), blocks, ..SIMPLE };
        let places: Vec<(u64, usize)> = (0..100)
            .map(|_| {
                let at = random.index(disk.len());
                (at as u64, (1 + random.index(30_000)).min(disk.len() - at))
            })
            .collect();
        let serve = async |client| serve_randomly(client, server, &disk, &mut random, places.len()).await;
        with_server(serve, async |client| {
            let nbd = NbdClient::connect(&client.url, Duration::from_secs(30), client.executor)
                .await
                .expect("a valid server");
            for (&(offset, len), read) in places.iter().zip(read_all(&nbd, &places).await) {
                assert!(read.as_deref() == Ok(&disk[offset as usize..][..len]), "seed {seed}: {offset}+{len}");
            }
        });
    }
}
