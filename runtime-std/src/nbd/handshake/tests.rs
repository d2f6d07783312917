//! Tests of the handshake against scripted servers.

use std::time::Instant;

use smol::{Executor, Timer, block_on, net::TcpStream};

use super::{options::MAX_REPLY_LEN, *};
use crate::nbd::{NbdClient, probe, script::*};

/// Probes a server that sends `messages` at once, then closes the connection or waits for the client to do so.
fn probe_server(messages: &[u8], closes: bool) -> Result<(), String> {
    let serve = async |mut client: TcpStream| {
        client.write_all(messages).await.expect("sent");
        if !closes {
            read_to_end(client).await;
        }
    };
    with_server(serve, async |client| probe(&client.url).await.map_err(|error| error.to_string()))
}

fn connect_to(messages: &[u8], closes: bool) -> Result<Export, String> {
    let serve = async |mut client: TcpStream| {
        client.write_all(messages).await.expect("sent");
        if !closes {
            read_to_end(client).await;
        }
    };
    with_server(serve, async |client| client.connect().await.map(|nbd| nbd.export().clone()))
}

/// Returns a server's greeting and its replies to [`OPT_INFO`].
fn info(replies: &[(u32, &[u8])]) -> Vec<u8> {
    let replies = replies.iter().map(|(kind, data)| option_reply(OPT_INFO, *kind, data));
    [greeting(3)].into_iter().chain(replies).flatten().collect()
}

/// Returns a server's greeting and its replies to [`OPT_STRUCTURED_REPLY`] and [`OPT_GO`].
fn opened(replies: &[(u32, &[u8])]) -> Vec<u8> {
    let replies = replies.iter().map(|(kind, data)| option_reply(OPT_GO, *kind, data));
    let structured = option_reply(OPT_STRUCTURED_REPLY, REP_ACK, &[]);
    [greeting(3), structured].into_iter().chain(replies).flatten().collect()
}

#[test]
fn parses_the_description_of_the_export() {
    let (export, blocks) = (info_export(1 << 40, 0b1_0000_0001), info_block_size(512, 5000));
    let unrequested: &[u8] = &[0, 1, b'n', b'a', b'm', b'e'];
    let valid: &[(u32, &[u8])] = &[(REP_INFO, &blocks), (REP_INFO, unrequested), (REP_INFO, &export), (REP_ACK, &[])];
    assert_eq!(probe_server(&info(valid), false), Ok(()));
    let expected = Export {
        size: 1 << 40,
        read_only: false,
        multi_conn: true,
        min_block: 512,
        max_request: 4608,
        structured: true,
    };
    assert_eq!(connect_to(&opened(valid), false), Ok(expected));
}

#[test]
fn assumes_the_export_on_a_server_without_opt_info() {
    assert_eq!(probe_server(&info(&[(REP_ERR_UNSUP, b"")]), false), Ok(()));
}

#[test]
fn probe_ends_with_opt_abort() {
    let serve = async |mut client: TcpStream| {
        let export = info_export(1, 1);
        client.write_all(&info(&[(REP_INFO, &export), (REP_ACK, &[])])).await.expect("sent");
        let received = read_to_end(client).await;
        assert_eq!(received[..4], [0, 0, 0, 3]);
        assert_eq!(received[4..32], *b"IHAVEOPT\0\0\0\x06\0\0\0\x0c\0\0\0\x04disk\0\x01\0\x03");
        assert_eq!(received[32..], *b"IHAVEOPT\0\0\0\x02\0\0\0\0");
    };
    with_server(serve, async |client| probe(&client.url).await.expect("a valid server"));
}

#[test]
fn explains_an_invalid_greeting() {
    for (messages, reason) in [
        (b"SSH-2.0-OpenSSH_9.2p1 Debian".to_vec(), "not an NBD server"),
        (b"NBDMAGICnonsense!".to_vec(), "not an NBD server"),
        (
            [&b"NBDMAGIC"[..], &OLDSTYLE_MAGIC.to_be_bytes(), &[0; 136]].concat(),
            "the server uses the oldstyle NBD handshake, which is not supported",
        ),
        (greeting(0), "the server does not support the fixed newstyle NBD handshake"),
        (greeting(2), "the server does not support the fixed newstyle NBD handshake"),
        ([greeting(3), vec![7; 20]].concat(), "the server sent an invalid NBD reply"),
        ([greeting(3), option_reply(OPT_ABORT, REP_ACK, &[])].concat(), "the server sent an invalid NBD reply"),
    ] {
        assert_eq!(probe_server(&messages, false), Err(reason.to_owned()));
        assert_eq!(connect_to(&messages, false), Err(reason.to_owned()));
    }
}

#[test]
fn explains_an_invalid_option_reply() {
    let export = info_export(4096, 1);
    let export: (u32, &[u8]) = (REP_INFO, &export);
    let ack: (u32, &[u8]) = (REP_ACK, &[]);
    for (replies, reason) in [
        (&[(REP_ERR_UNKNOWN, &b"no"[..])][..], "the server has no export \"disk\""),
        (
            &[(REP_ERR_TLS_REQD, b"")],
            "the server requires TLS: use nbds:// instead of nbd://, or nbds+unix:// instead of nbd+unix://",
        ),
        (&[(REP_ERR + 2, b"not\nyou")], "the server refused the export \"disk\" (error 0x80000002): not\\nyou"),
        (&[(REP_ERR + 2, b"\x1b[2J\xff")], {
            "the server refused the export \"disk\" (error 0x80000002): \\u{1b}[2J\u{fffd}"
        }),
        (&[ack], "the server did not send the size of the export \"disk\""),
        (&[(REP_INFO, &info_export(0, 1)), ack], "the export \"disk\" is empty"),
        (
            &[(REP_INFO, &info_export(1 << 63, 1)), ack],
            "the export \"disk\" has an invalid size of 9223372036854775808 bytes",
        ),
        (
            &[export, (REP_INFO, &info_block_size(0, 4096)), ack],
            "the server has invalid block sizes: minimum 0, preferred 4096, maximum 4096 bytes",
        ),
        (
            &[export, (REP_INFO, &info_block_size(513, 4096)), ack],
            "the server has invalid block sizes: minimum 513, preferred 4096, maximum 4096 bytes",
        ),
        (
            &[export, (REP_INFO, &info_block_size(1 << 17, 1 << 20)), ack],
            "the server has invalid block sizes: minimum 131072, preferred 4096, maximum 1048576 bytes",
        ),
        (
            &[export, (REP_INFO, &info_block_size(4096, 4095)), ack],
            "the server has invalid block sizes: minimum 4096, preferred 4096, maximum 4095 bytes",
        ),
        (
            &[export, (REP_INFO, &info_block_size(1, 1)), ack],
            "the server has invalid block sizes: minimum 1, preferred 4096, maximum 1 bytes",
        ),
        (
            &[export, (REP_INFO, &[&[0, 3][..], &[0, 0, 2, 0, 0, 0, 2, 1], &[0xff; 4]].concat()), ack],
            "the server has invalid block sizes: minimum 512, preferred 513, maximum 4294967295 bytes",
        ),
        (&[(REP_INFO, &[0]), ack], "the server sent an invalid NBD reply"),
        (&[(REP_INFO, &[0; 11]), ack], "the server sent an invalid NBD reply"),
        (&[(REP_INFO, &[0; 13]), ack], "the server sent an invalid NBD reply"),
        (&[export, (REP_INFO, &[0, 3, 0, 0]), ack], "the server sent an invalid NBD reply"),
        (&[export, (2, b"a list"), ack], "the server sent an invalid NBD reply"),
        (&[export, (REP_INFO, &[9; MAX_REPLY_LEN as usize + 1]), ack], "the server sent an invalid NBD reply"),
    ] {
        assert_eq!(probe_server(&info(replies), false), Err(reason.to_owned()));
        assert_eq!(connect_to(&opened(replies), false), Err(reason.to_owned()));
    }
}

#[test]
fn reports_required_tls_if_all_options_are_refused() {
    let messages = [
        greeting(3),
        option_reply(OPT_STRUCTURED_REPLY, REP_ERR_TLS_REQD, b""),
        option_reply(OPT_GO, REP_ERR_TLS_REQD, b""),
    ];
    assert_eq!(
        connect_to(&messages.concat(), false),
        Err("the server requires TLS: use nbds:// instead of nbd://, or nbds+unix:// instead of nbd+unix://".into())
    );
}

#[test]
fn fails_if_the_server_closes_the_connection() {
    let export = info_export(4096, 1);
    let valid: &[(u32, &[u8])] = &[(REP_INFO, &export), (REP_ACK, &[])];
    for len in 0..info(valid).len() {
        assert!(probe_server(&info(valid)[..len], true).is_err(), "{len}");
    }
    for len in 0..opened(valid).len() {
        assert!(connect_to(&opened(valid)[..len], true).is_err(), "{len}");
    }
}

#[test]
fn fails_if_an_old_server_does_not_know_the_export() {
    let messages =
        [greeting(3), option_reply(OPT_STRUCTURED_REPLY, REP_ERR_UNSUP, b""), option_reply(OPT_GO, REP_ERR_UNSUP, b"")];
    let serve = async |mut client: TcpStream| {
        client.write_all(&messages.concat()).await.expect("sent");
        // The client flags and three options.
        let mut options = [0; 4 + 16 + 28 + 20];
        smol::io::AsyncReadExt::read_exact(&mut client, &mut options).await.expect("the client's options");
    };
    let reason = "the server closed the connection when asked for the export \"disk\"";
    with_server(serve, async |client| assert_eq!(client.connect().await.err(), Some(reason.into())));
}

#[test]
fn handshake_has_one_deadline() {
    let trickle = async |mut client: TcpStream| {
        for byte in greeting(3) {
            Timer::after(TIMEOUT / 8).await;
            if client.write_all(&[byte]).await.is_err() {
                return;
            }
        }
    };
    let silent = async |client: TcpStream| drop(read_to_end(client).await);
    let started = Instant::now();
    let late = "no greeting within 0.2 s: the server hangs, or it serves one connection at a time, and another client has it \
         (qemu-nbd: --shared=0)";
    let late = Some(late.to_owned());
    with_server(trickle, async |client| assert_eq!(client.connect().await.err(), late, "one byte at a time"));
    with_server(silent, async |client| assert_eq!(client.connect().await.err(), late, "silence"));
    assert!(started.elapsed() < 20 * TIMEOUT);
}

#[test]
fn deadline_ends_endless_replies() {
    let endless = ScriptedStream::new(opened(&[]), option_reply(OPT_GO, REP_INFO, &[0, 1, b'a']));
    let executor = Executor::new();
    let nbd = block_on(NbdClient::from_stream(endless, "disk", TIMEOUT, &executor));
    assert_eq!(nbd.expect_err("endless replies").to_string(), "no reply within 0.2 s");
}
