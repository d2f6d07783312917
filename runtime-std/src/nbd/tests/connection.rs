//! The connection: its begin, its limits and its end.

use std::time::{Duration, Instant};

use rtftp_core::config::uri::NbdUri;
use smol::{
    Executor, Timer, block_on,
    future::{poll_once, zip},
    io::AsyncWriteExt,
    net::TcpStream,
};

use super::{
    super::{probe, script::*},
    *,
};

#[test]
fn idle_connection_stays_and_detects_its_end() {
    let serve = async |mut client: TcpStream| {
        SIMPLE.open(&mut client, 1 << 20).await;
        let request = receive_request(&mut client).await;
        client.write_all(&simple_reply(0, request.cookie, b"late")).await.expect("sent");
    };
    with_server(serve, async |client| {
        let nbd = client.connect().await.expect("a valid server");
        Timer::after(2 * TIMEOUT).await;
        assert!(nbd.is_alive(), "an idle connection is not late");
        assert_eq!(read_all(&nbd, &[(0, 4)]).await, [Ok(b"late".to_vec())]);
        let started = Instant::now();
        while nbd.is_alive() && started.elapsed() < Duration::from_secs(5) {
            smol::future::yield_now().await;
        }
        assert!(!nbd.is_alive(), "the server closed the connection");
    });
}

#[test]
fn limits_the_bytes_in_flight() {
    let size = 100 << 20;
    let serve = async |mut client: TcpStream| {
        SIMPLE.open(&mut client, size).await;
        let mut all = vec![];
        for _ in 0..4 {
            all.push(receive_request(&mut client).await);
        }
        let mut peeked = [0; 1];
        let more = poll_once(client.peek(&mut peeked)).await;
        assert!(more.is_none(), "another request beyond 4 MiB in flight");
        for _ in 4..100 {
            let request = all.remove(all.len() / 2);
            let fill = vec![(request.offset >> 20) as u8; request.len as usize];
            client.write_all(&simple_reply(0, request.cookie, &fill)).await.expect("sent");
            all.push(receive_request(&mut client).await);
        }
        for request in all {
            let fill = vec![(request.offset >> 20) as u8; request.len as usize];
            client.write_all(&simple_reply(0, request.cookie, &fill)).await.expect("sent");
        }
        read_to_end(client).await;
    };
    with_server(serve, async |client| {
        let nbd =
            NbdClient::connect(&client.url, Duration::from_secs(60), client.executor).await.expect("a valid server");
        let places: Vec<_> = (0..size).step_by(1 << 20).map(|offset| (offset, 1 << 20)).collect();
        let parts = read_all(&nbd, &places).await;
        assert!((0..).zip(parts).all(|(index, part)| part == Ok(vec![index; 1 << 20])));
    });
}

#[test]
fn long_read_makes_few_requests_at_a_time() {
    let serve = async |mut client: TcpStream| {
        ServerOptions { blocks: Some((1, 4096)), ..SIMPLE }.open(&mut client, 1 << 20).await;
        let mut all = vec![];
        for _ in 0..8 {
            all.push(receive_request(&mut client).await);
        }
        let more = poll_once(client.peek(&mut [0])).await;
        assert!(more.is_none(), "more than 8 of the 256 requests at the same time");
        for left in (0..256).rev() {
            let request = all.remove(0);
            let fill = [(request.offset >> 12) as u8; 4096];
            client.write_all(&simple_reply(0, request.cookie, &fill)).await.expect("sent");
            if left >= 8 {
                all.push(receive_request(&mut client).await);
            }
        }
        read_to_end(client).await;
    };
    with_server(serve, async |client| {
        let nbd =
            NbdClient::connect(&client.url, Duration::from_secs(60), client.executor).await.expect("a valid server");
        let whole = nbd.read(0, 1 << 20).await.expect("all of the disk");
        assert!((0..=255).zip(whole.chunks(4096)).all(|(index, part)| part == [index; 4096]));
    });
}

#[test]
fn discards_replies_to_cancelled_reads() {
    let (received, first_received) = smol::channel::bounded(1);
    let serve = async |mut client: TcpStream| {
        SIMPLE.open(&mut client, 1 << 20).await;
        let dropped = receive_request(&mut client).await;
        received.send(()).await.expect("the test");
        let request = receive_request(&mut client).await;
        assert_eq!((request.offset, request.len), (3, 4), "the second read was cancelled before it was sent");
        client.write_all(&simple_reply(0, dropped.cookie, &vec![1; dropped.len as usize])).await.expect("sent");
        client.write_all(&simple_reply(0, request.cookie, b"good")).await.expect("sent");
        read_to_end(client).await;
    };
    with_server(serve, async |client| {
        let nbd = client.connect().await.expect("a valid server");
        let first = nbd.read(0, 100_000);
        first_received.recv().await.expect("the server's signal");
        drop(first);
        drop(nbd.read(1, 1));
        assert_eq!(nbd.read(3, 4).await.as_deref(), Ok(&b"good"[..]));
    });
}

#[test]
fn dropping_the_client_disconnects() {
    for reads in [0, 1, 64, 200] {
        let received = smol::channel::bounded(1);
        let serve = async |mut client: TcpStream| {
            SIMPLE.open(&mut client, 1 << 20).await;
            received.0.send(read_to_end(client).await).await.expect("the test");
        };
        with_server(serve, async |client| {
            let nbd = NbdClient::connect(&client.url, Duration::from_secs(60), client.executor)
                .await
                .expect("a valid server");
            let mut pending: Vec<_> = (0..reads).map(|at| nbd.read(at, 1)).collect();
            for read in &mut pending {
                assert!(poll_once(read).await.is_none());
            }
            smol::future::yield_now().await;
            drop(pending);
            drop(nbd);
            let received = received.1.recv().await.expect("the server's record");
            assert!(received.ends_with(DISC), "{reads}: {received:?}");
            while !client.executor.is_empty() {
                smol::future::yield_now().await;
            }
        });
    }
}

#[test]
fn connects_over_a_unix_socket() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("nbd.sock");
    let executor = Executor::new();
    block_on(executor.run(async {
        let listener = smol::net::unix::UnixListener::bind(&path).expect("a socket");
        let url = NbdUri::parse(&format!("nbd+unix:///disk?socket={}", path.display())).expect("a URI");
        let serve = async {
            let (mut client, _) = listener.accept().await.expect("a client");
            let messages = [greeting(3), option_reply(8, 0x8000_0001, b""), option_reply(7, 0x8000_0006, b"")].concat();
            client.write_all(&messages).await.expect("sent");
            client
        };
        let (nbd, _client) = zip(NbdClient::connect(&url, TIMEOUT, &executor), serve).await;
        assert_eq!(nbd.expect_err("no export").to_string(), "the server has no export \"disk\"");
    }));
}

#[test]
fn fails_without_a_server() {
    let url = NbdUri::parse("nbd+unix:///disk?socket=/nowhere/nbd.sock").expect("a URI");
    let executor = Executor::new();
    let reason = "No such file or directory (os error 2)";
    assert_eq!(block_on(probe(&url)).expect_err("no server").to_string(), reason);
    let connected = block_on(NbdClient::connect(&url, TIMEOUT, &executor));
    assert_eq!(connected.expect_err("no server").to_string(), reason);
}
