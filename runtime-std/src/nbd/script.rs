//! Scripted servers for tests: their messages are spelled out, valid or not.

mod messages;
mod stream;

use std::time::Duration;

use rtftp_core::config::uri::NbdUri;
use smol::{
    Executor, block_on,
    future::{or, pending},
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

pub(crate) use self::{messages::*, stream::ScriptedStream};
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

/// Receives until the client closes the connection, and returns what it sent.
pub(crate) async fn read_to_end(mut client: TcpStream) -> Vec<u8> {
    let mut received = vec![];
    // The connection may be reset.
    let _ = client.read_to_end(&mut received).await;
    received
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
        self.greet(client).await;
        self.negotiate(client, size).await;
    }

    /// Exchanges greetings.
    pub(crate) async fn greet(self, client: &mut TcpStream) {
        client.write_all(&greeting(if self.no_zeroes { 3 } else { 1 })).await.expect("sent");
        assert_eq!(receive::<4>(client).await, [0, 0, 0, if self.no_zeroes { 3 } else { 1 }], "the client's flags");
    }

    /// Replies to options until the export is open.
    pub(crate) async fn negotiate(self, client: &mut (impl AsyncRead + AsyncWrite + Unpin), size: u64) {
        let zeroes = if self.no_zeroes { 0 } else { 124 };
        loop {
            let (option, data) = receive_option(client).await;
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
            client.flush().await.expect("sent");
            if option == 1 || option == 7 && !self.old {
                return;
            }
        }
    }
}

/// Receives an option and its data.
pub(crate) async fn receive_option(client: &mut (impl AsyncRead + Unpin)) -> (u32, Vec<u8>) {
    assert_eq!(&receive::<8>(client).await, b"IHAVEOPT");
    let option = u32::from_be_bytes(receive(client).await);
    let mut data = vec![0; u32::from_be_bytes(receive(client).await) as usize];
    client.read_exact(&mut data).await.expect("an option");
    (option, data)
}

/// A read request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ReadRequest {
    pub(crate) cookie: u64,
    pub(crate) offset: u64,
    pub(crate) len: u32,
}

/// Receives the next request, which must be a read.
pub(crate) async fn receive_request(client: &mut (impl AsyncRead + Unpin)) -> ReadRequest {
    assert_eq!(receive(client).await, [0x25, 0x60, 0x95, 0x13, 0, 0, 0, 0]);
    ReadRequest {
        cookie: u64::from_be_bytes(receive(client).await),
        offset: u64::from_be_bytes(receive(client).await),
        len: u32::from_be_bytes(receive(client).await),
    }
}

async fn receive<const N: usize>(client: &mut (impl AsyncRead + Unpin)) -> [u8; N] {
    let mut bytes = [0; N];
    client.read_exact(&mut bytes).await.expect("a message of the client");
    bytes
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
