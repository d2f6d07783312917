//! The handshake: fixed newstyle, up to an open export or only to what is said of it.
//!
//! The names are those of the protocol's text, without `NBD_`.

use std::io;

use smol::{
    future::yield_now,
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
};

use super::wire::{not_nbd, read, read_array, read_u16, read_u32, read_u64};

const NBDMAGIC: u64 = u64::from_be_bytes(*b"NBDMAGIC");
const IHAVEOPT: u64 = u64::from_be_bytes(*b"IHAVEOPT");
const OLDSTYLE_MAGIC: u64 = 0x0000_4202_8186_1253;
const REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;

/// The server's and the client's flags have the same values.
const FLAG_FIXED_NEWSTYLE: u16 = 1;
const FLAG_NO_ZEROES: u16 = 2;

const OPT_EXPORT_NAME: u32 = 1;
const OPT_ABORT: u32 = 2;
const OPT_INFO: u32 = 6;
const OPT_GO: u32 = 7;
const OPT_STRUCTURED_REPLY: u32 = 8;

const REP_ACK: u32 = 1;
const REP_INFO: u32 = 3;
/// The first of the error replies.
const REP_ERR: u32 = 1 << 31;
const REP_ERR_UNSUP: u32 = REP_ERR + 1;
const REP_ERR_TLS_REQD: u32 = REP_ERR + 5;
const REP_ERR_UNKNOWN: u32 = REP_ERR + 6;

const INFO_EXPORT: u16 = 0;
const INFO_BLOCK_SIZE: u16 = 3;

const FLAG_READ_ONLY: u16 = 1 << 1;
const FLAG_CAN_MULTI_CONN: u16 = 1 << 8;

/// The longest option reply, in bytes: its longest texts have 4,096.
const MAX_REPLY: u32 = 8192;
/// The largest minimum block size there may be, in bytes.
const MAX_MIN_BLOCK: u32 = 1 << 16;
/// The most that is asked for in one request, in bytes. All servers take 32 MiB if they do not say otherwise.
const MAX_REQUEST: u32 = 1 << 20;

/// What the server says of an export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Export {
    /// Its size in bytes: not 0, and fits an `i64`.
    pub size: u64,
    /// Whether nobody can write to it through this connection.
    pub read_only: bool,
    /// Whether what another client has written and flushed is seen here, too (`NBD_FLAG_CAN_MULTI_CONN`).
    pub multi_conn: bool,
    /// What the place and the length of a request must be multiples of, in bytes; a power of two.
    pub(super) min_block: u32,
    /// The longest request, in bytes; a multiple of `min_block`.
    pub(super) max_request: u32,
    /// Whether answers come in chunks.
    pub(super) structured: bool,
}

/// Opens an export: what comes next are requests and replies.
pub(super) async fn go(server: &mut (impl AsyncRead + AsyncWrite + Unpin), name: &str) -> io::Result<Export> {
    let no_zeroes = greet(server).await?;
    send_option(server, OPT_STRUCTURED_REPLY, &[]).await?;
    let structured = match read_reply(server, OPT_STRUCTURED_REPLY).await? {
        (REP_ACK, _) => true,
        // Also for a reason that stands in the way of all options: the next one will tell.
        (REP_ERR.., _) => false,
        _ => return Err(not_nbd()),
    };
    let export = match ask(server, OPT_GO, name).await? {
        Some(export) => export,
        None => export_name(server, name, no_zeroes).await?,
    };
    Ok(Export { structured, ..export })
}

/// Asks the server for an export and leaves it.
///
/// A server that cannot be asked is taken to have it.
pub(super) async fn look(server: &mut (impl AsyncRead + AsyncWrite + Unpin), name: &str) -> io::Result<()> {
    greet(server).await?;
    ask(server, OPT_INFO, name).await?;
    // A server may hang up before it has read this.
    let _ = send_option(server, OPT_ABORT, &[]).await;
    Ok(())
}

/// Exchanges greetings; whether the server will leave out the zeroes after [`OPT_EXPORT_NAME`].
async fn greet(server: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> io::Result<bool> {
    if read_u64(server).await? != NBDMAGIC {
        return Err(io::Error::other("not an NBD server"));
    }
    match read_u64(server).await? {
        IHAVEOPT => {}
        OLDSTYLE_MAGIC => {
            return Err(io::Error::other("the server speaks the old NBD handshake, which is not supported"));
        }
        _ => return Err(io::Error::other("not an NBD server")),
    }
    let flags = read_u16(server).await?;
    if flags & FLAG_FIXED_NEWSTYLE == 0 {
        return Err(io::Error::other("the server does not speak the fixed newstyle NBD handshake"));
    }
    let understood = flags & (FLAG_FIXED_NEWSTYLE | FLAG_NO_ZEROES);
    server.write_all(&u32::from(understood).to_be_bytes()).await?;
    Ok(flags & FLAG_NO_ZEROES != 0)
}

/// Asks for an export with [`OPT_INFO`] or [`OPT_GO`]; `None` if the server does not know that option.
async fn ask(
    server: &mut (impl AsyncRead + AsyncWrite + Unpin),
    option: u32,
    name: &str,
) -> io::Result<Option<Export>> {
    let name_len = length(name.as_bytes());
    // One kind of information is asked for; the one on the export itself always comes.
    let wanted = [1u16.to_be_bytes(), INFO_BLOCK_SIZE.to_be_bytes()];
    let data = [&name_len.to_be_bytes()[..], name.as_bytes(), wanted.as_flattened()].concat();
    send_option(server, option, &data).await?;
    let mut size_and_flags = None;
    let mut blocks = (1, MAX_REQUEST);
    loop {
        match read_reply(server, option).await? {
            (REP_INFO, data) => match data.split_first_chunk().map(|(kind, data)| (u16::from_be_bytes(*kind), data)) {
                Some((INFO_EXPORT, data)) => size_and_flags = Some(parse_export(data)?),
                Some((INFO_BLOCK_SIZE, data)) => blocks = parse_blocks(data)?,
                Some(_) => {}
                None => return Err(not_nbd()),
            },
            (REP_ACK, _) => {
                let size_and_flags = size_and_flags
                    .ok_or_else(|| io::Error::other(format!("the server does not tell the size of {name:?}")))?;
                return export(name, size_and_flags, blocks).map(Some);
            }
            (REP_ERR_UNSUP, _) => return Ok(None),
            (REP_ERR_UNKNOWN, _) => return Err(io::Error::other(format!("the server has no export {name:?}"))),
            (REP_ERR_TLS_REQD, _) => {
                return Err(io::Error::other("the server demands TLS, which is not supported"));
            }
            (code @ REP_ERR.., text) => {
                let text = String::from_utf8_lossy(&text).escape_debug().to_string();
                return Err(io::Error::other(format!(
                    "the server refuses the export {name:?} (error {code:#x}) {text}"
                )));
            }
            _ => return Err(not_nbd()),
        }
    }
}

/// Opens an export with [`OPT_EXPORT_NAME`], which has no answer for an export that there is not.
async fn export_name(
    server: &mut (impl AsyncRead + AsyncWrite + Unpin),
    name: &str,
    no_zeroes: bool,
) -> io::Result<Export> {
    send_option(server, OPT_EXPORT_NAME, name.as_bytes()).await?;
    let answer: [u8; 10] = read_array(server).await.map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => {
            io::Error::other(format!("the server hung up when it was asked for the export {name:?}"))
        }
        _ => error,
    })?;
    if !no_zeroes {
        read_array::<124>(server).await?;
    }
    export(name, parse_export(&answer)?, (1, MAX_REQUEST))
}

/// Takes what the server said of an export if it can be true.
fn export(name: &str, (size, flags): (u64, u16), (min, max): (u32, u32)) -> io::Result<Export> {
    if size == 0 {
        return Err(io::Error::other(format!("the export {name:?} is empty")));
    }
    if i64::try_from(size).is_err() {
        return Err(io::Error::other(format!("the export {name:?} is said to have {size} bytes, more than any disk")));
    }
    if !min.is_power_of_two() || min > MAX_MIN_BLOCK || max < min {
        return Err(io::Error::other(format!("the server wants requests of {min} to {max} bytes, which cannot be")));
    }
    let max = max.min(MAX_REQUEST);
    Ok(Export {
        size,
        read_only: flags & FLAG_READ_ONLY != 0,
        multi_conn: flags & FLAG_CAN_MULTI_CONN != 0,
        min_block: min,
        max_request: max - max % min,
        structured: false,
    })
}

/// The size and the transmission flags.
fn parse_export(data: &[u8]) -> io::Result<(u64, u16)> {
    let (size, flags) = data.split_first_chunk().ok_or_else(not_nbd)?;
    Ok((u64::from_be_bytes(*size), u16::from_be_bytes(flags.try_into().map_err(|_| not_nbd())?)))
}

/// The minimum block size and the maximum payload.
fn parse_blocks(data: &[u8]) -> io::Result<(u32, u32)> {
    let data: [u8; 12] = data.try_into().map_err(|_| not_nbd())?;
    let [m0, m1, m2, m3, _, _, _, _, payload @ ..] = data;
    Ok((u32::from_be_bytes([m0, m1, m2, m3]), u32::from_be_bytes(payload)))
}

async fn send_option(server: &mut (impl AsyncWrite + Unpin), option: u32, data: &[u8]) -> io::Result<()> {
    let message = [&IHAVEOPT.to_be_bytes()[..], &option.to_be_bytes(), &length(data).to_be_bytes(), data].concat();
    server.write_all(&message).await
}

/// Reads one reply to an option: its type and its data.
async fn read_reply(server: &mut (impl AsyncRead + Unpin), option: u32) -> io::Result<(u32, Vec<u8>)> {
    // Were the next reply always there already, nobody would look at the clock.
    yield_now().await;
    let magic = read_u64(server).await?;
    let to = read_u32(server).await?;
    let kind = read_u32(server).await?;
    let len = read_u32(server).await?;
    if magic != REPLY_MAGIC || to != option || len > MAX_REPLY {
        return Err(not_nbd());
    }
    let mut data = vec![0; len as usize];
    read(server, &mut data).await?;
    Ok((kind, data))
}

fn length(data: &[u8]) -> u32 {
    u32::try_from(data.len()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use smol::{Executor, Timer, block_on, net::TcpStream};

    use super::*;
    use crate::nbd::{NbdClient, check, script::*};

    /// What is said of a server that says all of its `words` at once and then waits for the client to go, or hangs up itself.
    fn look_at(words: &[u8], hangs_up: bool) -> Result<(), String> {
        let serve = async |mut client: TcpStream| {
            client.write_all(words).await.expect("sent");
            if !hangs_up {
                hear_out(client).await;
            }
        };
        against(serve, async |client| check(&client.url).await.map_err(|why| client.reason(&why)))
    }

    fn connect_to(words: &[u8], hangs_up: bool) -> Result<Export, String> {
        let serve = async |mut client: TcpStream| {
            client.write_all(words).await.expect("sent");
            if !hangs_up {
                hear_out(client).await;
            }
        };
        against(serve, async |client| client.connect().await.map(|nbd| nbd.export().clone()))
    }

    /// A server's words in answer to [`OPT_INFO`].
    fn info(replies: &[(u32, &[u8])]) -> Vec<u8> {
        let replies = replies.iter().map(|(kind, data)| option_reply(OPT_INFO, *kind, data));
        [greeting(3)].into_iter().chain(replies).flatten().collect()
    }

    /// A server's words in answer to [`OPT_STRUCTURED_REPLY`] and [`OPT_GO`].
    fn opened(replies: &[(u32, &[u8])]) -> Vec<u8> {
        let replies = replies.iter().map(|(kind, data)| option_reply(OPT_GO, *kind, data));
        let structured = option_reply(OPT_STRUCTURED_REPLY, REP_ACK, &[]);
        [greeting(3), structured].into_iter().chain(replies).flatten().collect()
    }

    #[test]
    fn what_the_server_says_of_the_export_is_known() {
        let (export, blocks) = (info_export(1 << 40, 0b1_0000_0001), info_block_size(512, 1000));
        let unasked: &[u8] = &[0, 1, b'n', b'a', b'm', b'e'];
        let good: &[(u32, &[u8])] = &[(REP_INFO, &blocks), (REP_INFO, unasked), (REP_INFO, &export), (REP_ACK, &[])];
        assert_eq!(look_at(&info(good), false), Ok(()));
        let expected = Export {
            size: 1 << 40,
            read_only: false,
            multi_conn: true,
            min_block: 512,
            max_request: 512,
            structured: true,
        };
        assert_eq!(connect_to(&opened(good), false), Ok(expected));
    }

    #[test]
    fn a_server_that_cannot_be_asked_is_taken_to_have_the_export() {
        assert_eq!(look_at(&info(&[(REP_ERR_UNSUP, b"")]), false), Ok(()));
    }

    #[test]
    fn a_server_that_is_looked_at_is_left_in_good_order() {
        let serve = async |mut client: TcpStream| {
            let export = info_export(1, 1);
            client.write_all(&info(&[(REP_INFO, &export), (REP_ACK, &[])])).await.expect("sent");
            let heard = hear_out(client).await;
            assert_eq!(heard[..4], [0, 0, 0, 3]);
            assert_eq!(heard[4..32], *b"IHAVEOPT\0\0\0\x06\0\0\0\x0c\0\0\0\x04disk\0\x01\0\x03");
            assert_eq!(heard[32..], *b"IHAVEOPT\0\0\0\x02\0\0\0\0");
        };
        against(serve, async |client| check(&client.url).await.expect("a good server"));
    }

    #[test]
    fn a_bad_greeting_is_explained() {
        for (words, reason) in [
            (b"SSH-2.0-OpenSSH_9.2p1 Debian".to_vec(), "not an NBD server"),
            (b"NBDMAGICnonsense!".to_vec(), "not an NBD server"),
            (
                [&b"NBDMAGIC"[..], &OLDSTYLE_MAGIC.to_be_bytes(), &[0; 136]].concat(),
                "the server speaks the old NBD handshake, which is not supported",
            ),
            (greeting(0), "the server does not speak the fixed newstyle NBD handshake"),
            (greeting(2), "the server does not speak the fixed newstyle NBD handshake"),
            ([greeting(3), vec![7; 20]].concat(), "the server's reply is not NBD"),
            ([greeting(3), option_reply(OPT_ABORT, REP_ACK, &[])].concat(), "the server's reply is not NBD"),
        ] {
            assert_eq!(look_at(&words, false), Err(reason.to_owned()));
            assert_eq!(connect_to(&words, false), Err(reason.to_owned()));
        }
    }

    #[test]
    fn a_bad_reply_is_explained() {
        let export = info_export(4096, 1);
        let export: (u32, &[u8]) = (REP_INFO, &export);
        let ack: (u32, &[u8]) = (REP_ACK, &[]);
        for (replies, reason) in [
            (&[(REP_ERR_UNKNOWN, &b"no"[..])][..], "the server has no export \"disk\""),
            (&[(REP_ERR_TLS_REQD, b"")], "the server demands TLS, which is not supported"),
            (&[(REP_ERR + 2, b"not\nyou")], "the server refuses the export \"disk\" (error 0x80000002) not\\nyou"),
            (&[(REP_ERR + 2, b"\x1b[2J\xff")], {
                "the server refuses the export \"disk\" (error 0x80000002) \\u{1b}[2J\u{fffd}"
            }),
            (&[ack], "the server does not tell the size of \"disk\""),
            (&[(REP_INFO, &info_export(0, 1)), ack], "the export \"disk\" is empty"),
            (
                &[(REP_INFO, &info_export(1 << 63, 1)), ack],
                "the export \"disk\" is said to have 9223372036854775808 bytes, more than any disk",
            ),
            (
                &[export, (REP_INFO, &info_block_size(0, 4096)), ack],
                "the server wants requests of 0 to 4096 bytes, which cannot be",
            ),
            (
                &[export, (REP_INFO, &info_block_size(513, 4096)), ack],
                "the server wants requests of 513 to 4096 bytes, which cannot be",
            ),
            (
                &[export, (REP_INFO, &info_block_size(1 << 17, 1 << 20)), ack],
                "the server wants requests of 131072 to 1048576 bytes, which cannot be",
            ),
            (
                &[export, (REP_INFO, &info_block_size(4096, 4095)), ack],
                "the server wants requests of 4096 to 4095 bytes, which cannot be",
            ),
            (&[(REP_INFO, &[0]), ack], "the server's reply is not NBD"),
            (&[(REP_INFO, &[0; 11]), ack], "the server's reply is not NBD"),
            (&[(REP_INFO, &[0; 13]), ack], "the server's reply is not NBD"),
            (&[export, (REP_INFO, &[0, 3, 0, 0]), ack], "the server's reply is not NBD"),
            (&[export, (2, b"a list"), ack], "the server's reply is not NBD"),
            (&[export, (REP_INFO, &[9; MAX_REPLY as usize + 1]), ack], "the server's reply is not NBD"),
        ] {
            assert_eq!(look_at(&info(replies), false), Err(reason.to_owned()));
            assert_eq!(connect_to(&opened(replies), false), Err(reason.to_owned()));
        }
    }

    #[test]
    fn tls_is_named_by_a_server_that_refuses_every_option() {
        let words = [
            greeting(3),
            option_reply(OPT_STRUCTURED_REPLY, REP_ERR_TLS_REQD, b""),
            option_reply(OPT_GO, REP_ERR_TLS_REQD, b""),
        ];
        assert_eq!(connect_to(&words.concat(), false), Err("the server demands TLS, which is not supported".into()));
    }

    #[test]
    fn a_server_that_hangs_up_is_an_error() {
        let export = info_export(4096, 1);
        let good: &[(u32, &[u8])] = &[(REP_INFO, &export), (REP_ACK, &[])];
        for len in 0..info(good).len() {
            assert!(look_at(&info(good)[..len], true).is_err(), "{len}");
        }
        for len in 0..opened(good).len() {
            assert!(connect_to(&opened(good)[..len], true).is_err(), "{len}");
        }
    }

    #[test]
    fn an_old_server_hangs_up_for_want_of_words() {
        let words = [
            greeting(3),
            option_reply(OPT_STRUCTURED_REPLY, REP_ERR_UNSUP, b""),
            option_reply(OPT_GO, REP_ERR_UNSUP, b""),
        ];
        let serve = async |mut client: TcpStream| {
            client.write_all(&words.concat()).await.expect("sent");
            // The client's flags and three options.
            let mut heard = [0; 4 + 16 + 28 + 20];
            smol::io::AsyncReadExt::read_exact(&mut client, &mut heard).await.expect("asked");
        };
        let reason = "the server hung up when it was asked for the export \"disk\"";
        against(serve, async |client| assert_eq!(client.connect().await.err(), Some(reason.into())));
    }

    #[test]
    fn a_handshake_has_one_deadline() {
        let trickle = async |mut client: TcpStream| {
            for byte in greeting(3) {
                Timer::after(LIMIT / 8).await;
                if client.write_all(&[byte]).await.is_err() {
                    return;
                }
            }
        };
        let silent = async |client: TcpStream| drop(hear_out(client).await);
        let started = Instant::now();
        let late = Some("no answer within 0.2 s".to_owned());
        against(trickle, async |client| assert_eq!(client.connect().await.err(), late, "one byte at a time"));
        against(silent, async |client| assert_eq!(client.connect().await.err(), late, "silence"));
        assert!(started.elapsed() < 20 * LIMIT);
    }

    #[test]
    fn endless_replies_end_at_the_deadline() {
        let endless = Endless::new(opened(&[]), option_reply(OPT_GO, REP_INFO, &[0, 1, b'a']));
        let executor = Executor::new();
        let nbd = block_on(NbdClient::from_stream(endless, "disk", LIMIT, &executor));
        assert_eq!(nbd.expect_err("no end").to_string(), "no answer within 0.2 s");
    }
}
