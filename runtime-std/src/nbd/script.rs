//! Scripted servers for tests: their messages are spelled out, valid or not.

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

/// The timeout of the clients under test.
pub(crate) const TIMEOUT: Duration = Duration::from_millis(200);

/// Runs a client against a server on a port of its own until the client completes. The server closes the connection when it
/// completes.
pub(crate) fn with_server<T>(server: impl AsyncFnOnce(TcpStream), client: impl AsyncFnOnce(Client) -> T) -> T {
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

/// The address that a client connects to.
pub(crate) struct Client<'a> {
    pub(crate) url: NbdUri,
    pub(crate) executor: &'a Executor<'static>,
}

impl Client<'_> {
    pub(crate) async fn connect(&self) -> Result<NbdClient, String> {
        NbdClient::connect(&self.url, TIMEOUT, self.executor).await.map_err(|error| error.to_string())
    }
}

/// A server that always has another message ready.
pub(crate) struct Endless {
    current: Cursor<Vec<u8>>,
    repeated: Vec<u8>,
}

impl Endless {
    /// Sends `first` once, then `repeated` again and again.
    pub(crate) fn new(first: Vec<u8>, repeated: Vec<u8>) -> Self {
        Self { current: Cursor::new(first), repeated }
    }
}

impl AsyncRead for Endless {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        if self.current.position() == self.current.get_ref().len() as u64 {
            self.current = Cursor::new(self.repeated.clone());
        }
        Pin::new(&mut self.current).poll_read(cx, buf)
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

/// Receives until the client closes the connection, and returns what it sent.
pub(crate) async fn read_to_end(mut client: TcpStream) -> Vec<u8> {
    let mut received = vec![];
    // The connection may be reset.
    let _ = client.read_to_end(&mut received).await;
    received
}

pub(crate) fn greeting(flags: u16) -> Vec<u8> {
    [&b"NBDMAGICIHAVEOPT"[..], &flags.to_be_bytes()].concat()
}

pub(crate) fn option_reply(option: u32, kind: u32, data: &[u8]) -> Vec<u8> {
    let len = data.len() as u32;
    [&0x0003_e889_0455_65a9u64.to_be_bytes()[..], &option.to_be_bytes(), &kind.to_be_bytes(), &len.to_be_bytes(), data]
        .concat()
}

pub(crate) fn info_export(size: u64, flags: u16) -> Vec<u8> {
    [&[0, 0][..], &size.to_be_bytes(), &flags.to_be_bytes()].concat()
}

pub(crate) fn info_block_size(min: u32, max: u32) -> Vec<u8> {
    [&[0, 3][..], &min.to_be_bytes(), &4096u32.to_be_bytes(), &max.to_be_bytes()].concat()
}

/// The properties of a server with a valid handshake.
#[derive(Clone, Copy)]
pub(crate) struct ServerOptions {
    /// Whether it supports structured replies.
    pub(crate) structured: bool,
    /// Whether it only supports `NBD_OPT_EXPORT_NAME`.
    pub(crate) old: bool,
    /// Whether it supports `NBD_FLAG_NO_ZEROES`.
    pub(crate) no_zeroes: bool,
    /// The minimum block size and the maximum payload in bytes, if it announces them.
    pub(crate) blocks: Option<(u32, u32)>,
}

pub(crate) const SIMPLE: ServerOptions = ServerOptions { structured: false, old: false, no_zeroes: true, blocks: None };
pub(crate) const STRUCTURED: ServerOptions = ServerOptions { structured: true, ..SIMPLE };

impl ServerOptions {
    /// Performs the handshake for an export of `size` bytes.
    pub(crate) async fn open(self, client: &mut TcpStream, size: u64) {
        let zeroes = if self.no_zeroes { 0 } else { 124 };
        client.write_all(&greeting(if self.no_zeroes { 3 } else { 1 })).await.expect("sent");
        assert_eq!(receive::<4>(client).await, [0, 0, 0, if self.no_zeroes { 3 } else { 1 }], "the client's flags");
        loop {
            assert_eq!(&receive::<8>(client).await, b"IHAVEOPT");
            let option = u32::from_be_bytes(receive(client).await);
            let mut data = vec![0; u32::from_be_bytes(receive(client).await) as usize];
            client.read_exact(&mut data).await.expect("an option");
            let reply = |kind, data: &[u8]| option_reply(option, kind, data);
            let flags = 0b1_0000_0011;
            let reply_to_option = match option {
                1 => [&info_export(size, flags)[2..], &vec![0; zeroes]].concat(),
                8 if self.structured => reply(1, &[]),
                7 if !self.old => {
                    assert_eq!(data, b"\0\0\0\x04disk\0\x01\0\x03");
                    let blocks = self.blocks.map(|(min, max)| reply(3, &info_block_size(min, max)));
                    [blocks.unwrap_or_default(), reply(3, &info_export(size, flags)), reply(1, &[])].concat()
                }
                _ => reply(0x8000_0001, b"unsupported"),
            };
            client.write_all(&reply_to_option).await.expect("sent");
            if option == 1 || option == 7 && !self.old {
                return;
            }
        }
    }
}

/// A read request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ReadRequest {
    pub(crate) cookie: u64,
    pub(crate) offset: u64,
    pub(crate) len: u32,
}

/// Receives the next request, which must be a read.
pub(crate) async fn receive_request(client: &mut TcpStream) -> ReadRequest {
    assert_eq!(receive(client).await, [0x25, 0x60, 0x95, 0x13, 0, 0, 0, 0]);
    ReadRequest {
        cookie: u64::from_be_bytes(receive(client).await),
        offset: u64::from_be_bytes(receive(client).await),
        len: u32::from_be_bytes(receive(client).await),
    }
}

async fn receive<const N: usize>(client: &mut TcpStream) -> [u8; N] {
    let mut bytes = [0; N];
    client.read_exact(&mut bytes).await.expect("a message of the client");
    bytes
}

pub(crate) fn simple_reply(error: u32, cookie: u64, data: &[u8]) -> Vec<u8> {
    [&0x6744_6698u32.to_be_bytes()[..], &error.to_be_bytes(), &cookie.to_be_bytes(), data].concat()
}

pub(crate) fn chunk(done: bool, kind: u16, cookie: u64, payload: &[u8]) -> Vec<u8> {
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

pub(crate) fn data(done: bool, cookie: u64, offset: u64, data: &[u8]) -> Vec<u8> {
    chunk(done, 1, cookie, &[&offset.to_be_bytes()[..], data].concat())
}

pub(crate) fn hole(done: bool, cookie: u64, offset: u64, len: u32) -> Vec<u8> {
    chunk(done, 2, cookie, &[&offset.to_be_bytes()[..], &len.to_be_bytes()].concat())
}

pub(crate) fn done(cookie: u64) -> Vec<u8> {
    chunk(true, 0, cookie, &[])
}

pub(crate) fn error(done: bool, cookie: u64, error: u32, text: &[u8]) -> Vec<u8> {
    let text_len = text.len() as u16;
    chunk(done, 0x8001, cookie, &[&error.to_be_bytes()[..], &text_len.to_be_bytes(), text].concat())
}

/// A generator of pseudo-random numbers (splitmix64).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// Returns a number below `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }

    /// Returns an index below `end`.
    pub(crate) fn index(&mut self, end: usize) -> usize {
        self.below(end as u64) as usize
    }

    /// Returns `true` half of the time.
    pub(crate) fn coin(&mut self) -> bool {
        self.below(2) == 1
    }
}
