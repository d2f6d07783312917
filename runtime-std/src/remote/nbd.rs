//! A look at an NBD server: is it there, does it have the export? (NBD protocol, fixed newstyle negotiation.)

use std::{io, time::Duration};

use rtftp_core::uri::{NbdServer, NbdUri};
use smol::{
    Timer,
    future::or,
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpStream, unix::UnixStream},
};

use crate::error::Unavailable;

/// How long the whole look may take.
const LIMIT: Duration = Duration::from_secs(5);

const GREETING: u64 = u64::from_be_bytes(*b"NBDMAGIC");
const OPTION: u64 = u64::from_be_bytes(*b"IHAVEOPT");
const OLD_STYLE: u64 = 0x0000_4202_8186_1253;
const REPLY: u64 = 0x0003_e889_0455_65a9;

/// The server's and the client's flag for fixed newstyle; `NO_ZEROES` is not asked for.
const FIXED_NEWSTYLE: u16 = 1;
const ABORT: u32 = 2;
const INFO: u32 = 6;

const ACK: u32 = 1;
const ERR_UNSUPPORTED: u32 = 0x8000_0001;
const ERR_TLS_REQUIRED: u32 = 0x8000_0005;
const ERR_UNKNOWN: u32 = 0x8000_0006;
/// The longest reply that is read to its end: RFC-style texts for people are shorter.
const MAX_REPLY: u32 = 4096;

/// Asks the server for the export and hangs up. Tells in milliseconds what an appliance takes seconds to find out, in words.
pub(super) async fn check(url: &NbdUri) -> Result<(), Unavailable> {
    let look = async {
        match &url.server {
            NbdServer::Tcp { host, port } => ask(TcpStream::connect((host.as_str(), *port)).await?, &url.export).await,
            NbdServer::Unix(path) => ask(UnixStream::connect(path.as_str()).await?, &url.export).await,
        }
    };
    let limit = async {
        Timer::after(LIMIT).await;
        Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {} s", LIMIT.as_secs())))
    };
    or(look, limit).await.map_err(|error| Unavailable {
        to_client: "the disk of this client cannot be reached",
        reason: format!("{url}: {error}"),
    })
}

async fn ask(mut server: impl AsyncRead + AsyncWrite + Unpin, export: &str) -> io::Result<()> {
    if number(&mut server).await? != GREETING {
        return Err(io::Error::other("not an NBD server"));
    }
    match number(&mut server).await? {
        OPTION => {}
        OLD_STYLE => return Err(io::Error::other("the server speaks the old NBD handshake, which is not supported")),
        _ => return Err(io::Error::other("not an NBD server")),
    }
    let mut flags = [0; 2];
    server.read_exact(&mut flags).await?;
    if u16::from_be_bytes(flags) & FIXED_NEWSTYLE == 0 {
        return Err(io::Error::other("the server does not speak the fixed newstyle NBD handshake"));
    }
    server.write_all(&u32::from(FIXED_NEWSTYLE).to_be_bytes()).await?;

    let mut data = u32::try_from(export.len()).unwrap_or(u32::MAX).to_be_bytes().to_vec();
    data.extend_from_slice(export.as_bytes());
    data.extend_from_slice(&0u16.to_be_bytes());
    option(&mut server, INFO, &data).await?;
    loop {
        match reply(&mut server).await? {
            // A server that does not know the question is left to the appliance.
            (ACK | ERR_UNSUPPORTED, _) => break,
            (ERR_UNKNOWN, _) => return Err(io::Error::other(format!("the server has no export {export:?}"))),
            (ERR_TLS_REQUIRED, _) => return Err(io::Error::other("the server demands TLS, which is not supported")),
            (code @ ERR_UNSUPPORTED.., text) => {
                let text = String::from_utf8_lossy(&text).escape_debug().to_string();
                return Err(io::Error::other(format!(
                    "the server refuses the export {export:?} (error {code:#x}) {text}"
                )));
            }
            // What the export is like.
            _ => {}
        }
    }
    // A server may hang up before it has read this.
    let _ = option(&mut server, ABORT, &[]).await;
    Ok(())
}

async fn number(server: &mut (impl AsyncRead + Unpin)) -> io::Result<u64> {
    let mut bytes = [0; 8];
    server.read_exact(&mut bytes).await?;
    Ok(u64::from_be_bytes(bytes))
}

async fn option(server: &mut (impl AsyncWrite + Unpin), option: u32, data: &[u8]) -> io::Result<()> {
    let len = u32::try_from(data.len()).unwrap_or(u32::MAX);
    let message = [&OPTION.to_be_bytes()[..], &option.to_be_bytes(), &len.to_be_bytes(), data].concat();
    server.write_all(&message).await
}

/// Reads one reply: its type and its data.
async fn reply(server: &mut (impl AsyncRead + Unpin)) -> io::Result<(u32, Vec<u8>)> {
    let mut header = [0; 20];
    server.read_exact(&mut header).await?;
    let [magic @ .., _, _, _, _, t0, t1, t2, t3, l0, l1, l2, l3] = header;
    let len = u32::from_be_bytes([l0, l1, l2, l3]);
    if u64::from_be_bytes(magic) != REPLY || len > MAX_REPLY {
        return Err(io::Error::other("the server's reply is not NBD"));
    }
    let mut data = vec![0; len as usize];
    server.read_exact(&mut data).await?;
    Ok((u32::from_be_bytes([t0, t1, t2, t3]), data))
}

#[cfg(test)]
mod tests {
    use smol::{block_on, future::zip, net::TcpListener};

    use super::*;

    /// What the check says of a server that sends `answer` at once and then, after `pause`, hangs up.
    fn check_against(answer: &[u8], pause: Duration) -> Result<(), String> {
        block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let port = listener.local_addr().expect("bound").port();
            let url = NbdUri::parse(&format!("nbd://127.0.0.1:{port}/disk")).expect("a URI");
            let server = async {
                let (mut stream, _) = listener.accept().await.expect("a client");
                stream.write_all(answer).await.expect("sent");
                // Reads what comes, or the reset that follows unread bytes could overtake the answer.
                or(
                    async {
                        let _ = stream.read_to_end(&mut vec![]).await;
                    },
                    async {
                        Timer::after(pause).await;
                    },
                )
                .await;
            };
            let (checked, ()) = zip(check(&url), server).await;
            checked.map_err(|why| why.reason.replace(&format!("nbd://127.0.0.1:{port}/disk: "), ""))
        })
    }

    fn greeting(flags: u16) -> Vec<u8> {
        [&b"NBDMAGICIHAVEOPT"[..], &flags.to_be_bytes()].concat()
    }

    fn reply(code: u32, data: &[u8]) -> Vec<u8> {
        let len = data.len() as u32;
        [&REPLY.to_be_bytes()[..], &INFO.to_be_bytes(), &code.to_be_bytes(), &len.to_be_bytes(), data].concat()
    }

    #[test]
    fn a_server_with_the_export_is_fine() {
        let export_info = reply(3, &[0; 12]);
        let good = [greeting(3), export_info, reply(ACK, &[])].concat();
        assert_eq!(check_against(&good, LIMIT), Ok(()));
        let unsupported = [greeting(1), reply(ERR_UNSUPPORTED, &[])].concat();
        assert_eq!(check_against(&unsupported, LIMIT), Ok(()), "left to the appliance");
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (answer, reason) in [
            (b"SSH-2.0-OpenSSH_9.2p1 Debian".to_vec(), "not an NBD server"),
            (
                [&b"NBDMAGIC"[..], &OLD_STYLE.to_be_bytes(), &[0; 136]].concat(),
                "the server speaks the old NBD handshake, which is not supported",
            ),
            (greeting(0), "the server does not speak the fixed newstyle NBD handshake"),
            ([greeting(3), reply(ERR_UNKNOWN, b"no")].concat(), "the server has no export \"disk\""),
            ([greeting(3), reply(ERR_TLS_REQUIRED, b"")].concat(), "the server demands TLS, which is not supported"),
            (
                [greeting(3), reply(0x8000_0002, b"not\nyou")].concat(),
                "the server refuses the export \"disk\" (error 0x80000002) not\\nyou",
            ),
            ([greeting(3), vec![7; 20]].concat(), "the server's reply is not NBD"),
            ([greeting(3), reply(3, &[])[..16].to_vec(), vec![0xff; 4]].concat(), "the server's reply is not NBD"),
        ] {
            assert_eq!(check_against(&answer, LIMIT), Err(reason.to_owned()));
        }
    }

    #[test]
    fn a_server_that_hangs_up_is_an_error() {
        for len in [0, 7, 16, 17] {
            let error = check_against(&greeting(3)[..len], Duration::ZERO).expect_err("cut off");
            assert!(!error.is_empty());
        }
    }

    #[test]
    fn a_server_that_is_not_there_is_named() {
        let url = NbdUri::parse("nbd+unix:///disk?socket=/nowhere/nbd.sock").expect("a URI");
        let why = block_on(check(&url)).expect_err("nothing there");
        assert_eq!(why.reason, "nbd+unix:///disk?socket=/nowhere/nbd.sock: No such file or directory (os error 2)");
    }
}
