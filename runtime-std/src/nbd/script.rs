//! Servers of the tests: what they say is written out, well-formed or not.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use rtftp_core::config::uri::NbdUri;
use smol::{
    Executor, block_on,
    future::{or, pending},
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, Cursor},
    net::{TcpListener, TcpStream},
};

use super::NbdClient;
use crate::error::Unavailable;

/// How long the servers of the tests may take.
pub(super) const LIMIT: Duration = Duration::from_millis(200);

/// Runs a client against a server on a port of its own, until the client ends; a server that ends first hangs up.
pub(super) fn against<T>(server: impl AsyncFnOnce(TcpStream), client: impl AsyncFnOnce(Client) -> T) -> T {
    let executor = Executor::new();
    block_on(executor.run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let url = NbdUri::parse(&format!("nbd://127.0.0.1:{port}/disk")).expect("a URI");
        let serve = async {
            server(listener.accept().await.expect("a client").0).await;
            pending().await
        };
        or(client(Client { url, executor: &executor }), serve).await
    }))
}

/// What a client needs.
pub(super) struct Client<'a> {
    pub(super) url: NbdUri,
    pub(super) executor: &'a Executor<'static>,
}

impl Client<'_> {
    pub(super) async fn connect(&self) -> Result<NbdClient, String> {
        NbdClient::connect(&self.url, LIMIT, self.executor).await.map_err(|why| self.reason(&why))
    }

    /// What the administrator is told, without the address, which differs each time.
    pub(super) fn reason(&self, why: &Unavailable) -> String {
        why.reason.replace(&format!("{}: ", self.url), "")
    }
}

/// A server that never stops talking and never makes the client wait.
pub(super) struct Endless {
    first: Cursor<Vec<u8>>,
    again: Vec<u8>,
}

impl Endless {
    /// Says the first words once, and the others again and again.
    pub(super) fn new(first: Vec<u8>, again: Vec<u8>) -> Self {
        Self { first: Cursor::new(first), again }
    }
}

impl AsyncRead for Endless {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        if self.first.position() == self.first.get_ref().len() as u64 {
            self.first = Cursor::new(self.again.clone());
        }
        Pin::new(&mut self.first).poll_read(cx, buf)
    }
}

impl AsyncWrite for Endless {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Waits until the client hangs up; what it had to say.
pub(super) async fn hear_out(mut client: TcpStream) -> Vec<u8> {
    let mut heard = vec![];
    // A reset, too, is an end.
    let _ = client.read_to_end(&mut heard).await;
    heard
}

pub(super) fn greeting(flags: u16) -> Vec<u8> {
    [&b"NBDMAGICIHAVEOPT"[..], &flags.to_be_bytes()].concat()
}

pub(super) fn option_reply(option: u32, kind: u32, data: &[u8]) -> Vec<u8> {
    let len = data.len() as u32;
    [&0x0003_e889_0455_65a9u64.to_be_bytes()[..], &option.to_be_bytes(), &kind.to_be_bytes(), &len.to_be_bytes(), data]
        .concat()
}

pub(super) fn info_export(size: u64, flags: u16) -> Vec<u8> {
    [&[0, 0][..], &size.to_be_bytes(), &flags.to_be_bytes()].concat()
}

pub(super) fn info_block_size(min: u32, max: u32) -> Vec<u8> {
    [&[0, 3][..], &min.to_be_bytes(), &4096u32.to_be_bytes(), &max.to_be_bytes()].concat()
}

/// What kind of a server it is that knows its manners until the export is open.
#[derive(Clone, Copy)]
pub(super) struct Polite {
    pub(super) structured: bool,
    /// Whether it knows no more options than the oldest servers.
    pub(super) old: bool,
    /// Whether it can leave out the zeroes.
    pub(super) no_zeroes: bool,
    pub(super) blocks: Option<(u32, u32)>,
}

pub(super) const SIMPLE: Polite = Polite { structured: false, old: false, no_zeroes: true, blocks: None };
pub(super) const STRUCTURED: Polite = Polite { structured: true, ..SIMPLE };

impl Polite {
    /// Opens an export of `size` bytes for a client.
    pub(super) async fn open(self, client: &mut TcpStream, size: u64) {
        let zeroes = if self.no_zeroes { 0 } else { 124 };
        client.write_all(&greeting(if self.no_zeroes { 3 } else { 1 })).await.expect("sent");
        assert_eq!(hear::<4>(client).await, [0, 0, 0, if self.no_zeroes { 3 } else { 1 }], "the client's flags");
        loop {
            assert_eq!(&hear::<8>(client).await, b"IHAVEOPT");
            let option = u32::from_be_bytes(hear(client).await);
            let mut data = vec![0; u32::from_be_bytes(hear(client).await) as usize];
            client.read_exact(&mut data).await.expect("an option");
            let reply = |kind, data: &[u8]| option_reply(option, kind, data);
            let flags = 0b1_0000_0011;
            let answer = match option {
                1 => [&info_export(size, flags)[2..], &vec![0; zeroes]].concat(),
                8 if self.structured => reply(1, &[]),
                7 if !self.old => {
                    assert_eq!(data, b"\0\0\0\x04disk\0\x01\0\x03");
                    let blocks = self.blocks.map(|(min, max)| reply(3, &info_block_size(min, max)));
                    [blocks.unwrap_or_default(), reply(3, &info_export(size, flags)), reply(1, &[])].concat()
                }
                _ => reply(0x8000_0001, b"what?"),
            };
            client.write_all(&answer).await.expect("sent");
            if option == 1 || option == 7 && !self.old {
                return;
            }
        }
    }
}

/// A request to read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    pub(super) cookie: u64,
    pub(super) offset: u64,
    pub(super) len: u32,
}

/// The next request; nothing but reading may be asked for.
pub(super) async fn hear_request(client: &mut TcpStream) -> Asked {
    assert_eq!(hear(client).await, [0x25, 0x60, 0x95, 0x13, 0, 0, 0, 0]);
    Asked {
        cookie: u64::from_be_bytes(hear(client).await),
        offset: u64::from_be_bytes(hear(client).await),
        len: u32::from_be_bytes(hear(client).await),
    }
}

async fn hear<const N: usize>(client: &mut TcpStream) -> [u8; N] {
    let mut bytes = [0; N];
    client.read_exact(&mut bytes).await.expect("the client's words");
    bytes
}

pub(super) fn simple_reply(error: u32, cookie: u64, data: &[u8]) -> Vec<u8> {
    [&0x6744_6698u32.to_be_bytes()[..], &error.to_be_bytes(), &cookie.to_be_bytes(), data].concat()
}

pub(super) fn chunk(done: bool, kind: u16, cookie: u64, payload: &[u8]) -> Vec<u8> {
    let len = payload.len() as u32;
    [
        &0x668e_33efu32.to_be_bytes()[..],
        &u16::from(done).to_be_bytes(),
        &kind.to_be_bytes(),
        &cookie.to_be_bytes(),
        &len.to_be_bytes(),
        payload,
    ]
    .concat()
}

pub(super) fn data(done: bool, cookie: u64, offset: u64, data: &[u8]) -> Vec<u8> {
    chunk(done, 1, cookie, &[&offset.to_be_bytes()[..], data].concat())
}

pub(super) fn hole(done: bool, cookie: u64, offset: u64, len: u32) -> Vec<u8> {
    chunk(done, 2, cookie, &[&offset.to_be_bytes()[..], &len.to_be_bytes()].concat())
}

pub(super) fn done(cookie: u64) -> Vec<u8> {
    chunk(true, 0, cookie, &[])
}

pub(super) fn error(done: bool, cookie: u64, error: u32, text: &[u8]) -> Vec<u8> {
    let text_len = text.len() as u16;
    chunk(done, 0x8001, cookie, &[&error.to_be_bytes()[..], &text_len.to_be_bytes(), text].concat())
}

/// Numbers that look random and depend on nothing but their seed (splitmix64).
pub(super) struct Random(pub(super) u64);

impl Random {
    /// A number below `end`.
    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }

    /// The same for what is in memory.
    pub(super) fn index(&mut self, end: usize) -> usize {
        self.below(end as u64) as usize
    }

    /// True half of the times.
    pub(super) fn coin(&mut self) -> bool {
        self.below(2) == 1
    }
}
