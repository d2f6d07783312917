//! Tests of TLS against scripted servers.

mod authority;

use std::{fs, path::Path, time::Duration};

use futures_rustls::{TlsAcceptor, server::TlsStream};
use rtftp_core::config::{
    disk::{ClientIdentity, TlsConfig},
    uri::{NbdUri, TlsParameters},
};
use rustls::version::{TLS12, TLS13};
use smol::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use self::authority::Authority;
use crate::{
    fs::BlockDevice,
    nbd::{NbdClient, Target, script::*},
};

const OPT_STARTTLS: u32 = 5;
const REP_ACK: u32 = 1;
const REP_ERR_POLICY: u32 = 0x8000_0002;
/// The time limit of connections, also on a busy machine.
const LIMIT: Duration = Duration::from_secs(30);

fn identity(name: &str) -> Option<ClientIdentity> {
    let [certificate, key] = ["pem", "key"].map(|end| format!("{name}.{end}").as_str().try_into().expect("short"));
    Some(ClientIdentity { certificate, key })
}

/// Greets a client, receives its request for TLS and nothing before, and replies with `reply`.
async fn start_tls(client: &mut TcpStream, reply: &[u8]) {
    SIMPLE.greet(client).await;
    assert_eq!(receive_option(client).await, (OPT_STARTTLS, vec![]));
    client.write_all(reply).await.expect("sent");
}

/// Connects with TLS; relative paths refer to `directory`.
async fn connect(client: &Client<'_>, tls: &TlsConfig, directory: &Path) -> Result<NbdClient, String> {
    let url = NbdUri { tls: Some(TlsParameters::default()), ..client.url.clone() };
    let target = Target { url: &url, tls: Some(tls), directory };
    NbdClient::connect_on(None, target, (LIMIT, LIMIT), client.executor).await.map_err(|error| error.to_string())
}

/// Connects to a server that agrees to TLS.
fn connect_to(
    acceptor: &TlsAcceptor,
    tls: &TlsConfig,
    directory: &Path,
    serve: impl AsyncFnOnce(TlsStream<TcpStream>),
    test: impl AsyncFnOnce(NbdClient),
) -> Result<(), String> {
    let serve = async |mut client: TcpStream| {
        start_tls(&mut client, &option_reply(OPT_STARTTLS, REP_ACK, b"")).await;
        if let Ok(mut stream) = acceptor.accept(client).await {
            // The client may have left.
            if stream.flush().await.is_ok() {
                serve(stream).await;
            }
        }
    };
    with_server(serve, async |client| {
        test(connect(&client, tls, directory).await?).await;
        Ok(())
    })
}

/// Returns why a client does not connect.
fn rejection(acceptor: &TlsAcceptor, tls: &TlsConfig, directory: &Path) -> String {
    let ignore = async |mut stream: TlsStream<TcpStream>| _ = stream.close().await;
    connect_to(acceptor, tls, directory, ignore, async |_| {}).expect_err("a rejection")
}

#[test]
fn reads_through_tls() {
    let authority = Authority::new();
    authority.issue("server", "127.0.0.1", (2000, 2100)).issue("client", "client", (2000, 2100));
    let size = 1 << 20;
    let tls = TlsConfig { identity: identity("client"), ..authority.description() };
    for (version, clients) in [(&TLS12, None), (&TLS12, Some(&authority)), (&TLS13, None), (&TLS13, Some(&authority))] {
        let serve = async |mut stream: TlsStream<TcpStream>| {
            SIMPLE.negotiate(&mut stream, size).await;
            for _ in 0..2 {
                let request = receive_request(&mut stream).await;
                let data: Vec<u8> = (request.offset..).map(|at| (at % 251) as u8).take(request.len as usize).collect();
                stream.write_all(&simple_reply(0, request.cookie, &data)).await.expect("sent");
                stream.flush().await.expect("sent");
            }
            stream.close().await.expect("closed");
        };
        let read = connect_to(&authority.server_with(version, clients), &tls, authority.path(), serve, async |nbd| {
            for (offset, len) in [(0, size as usize), (1000, 5)] {
                let data = nbd.read(offset, len).await.expect("read");
                assert!((offset..).zip(data.iter()).all(|(at, byte)| *byte == (at % 251) as u8));
            }
            let error = nbd.read(0, 1).await.expect_err("the server has closed the connection");
            assert!(error.to_string().contains("the server closed the connection"), "{error}");
        });
        assert_eq!(read, Ok(()));
    }
}

#[test]
fn rejects_servers_that_are_not_the_right_one() {
    let (authority, other) = (Authority::new(), Authority::new());
    let valid = (2000, 2100);
    for (host, dates, trusted, reason) in [
        ("nas.lan", valid, &authority, "not for 127.0.0.1, but for nas.lan: write one of them as \"hostname\""),
        ("127.0.0.1", (2000, 2020), &authority, "expired at 2020-01-01T00:00:00Z"),
        ("127.0.0.1", (2090, 2100), &authority, "not valid before 2090-01-01T00:00:00Z"),
        ("127.0.0.1", valid, &other, "from an authority that is not known (CN=authority)"),
    ] {
        authority.issue("server", host, dates);
        let message = rejection(&authority.server(), &trusted.description(), trusted.path());
        assert!(message.contains(reason), "expected `{reason}`: {message}");
    }
    authority.issue("server", "nas.lan", valid);
    let named = TlsConfig { hostname: Some("nas.lan".try_into().expect("short")), ..authority.description() };
    let ends = async |mut stream: TlsStream<TcpStream>| SIMPLE.negotiate(&mut stream, 1 << 20).await;
    assert_eq!(connect_to(&authority.server(), &named, authority.path(), ends, async |_| {}), Ok(()));
}

#[test]
fn fingerprint_stands_for_name_issuer_and_dates() {
    let authority = Authority::new();
    authority.issue_to_itself("server");
    let acceptor = authority.server();

    let message = rejection(&acceptor, &authority.description(), authority.path());
    let (_, rest) = message.split_once("self-signed: if its fingerprint is sha256:").expect(&message);
    let digits = rest.split(',').next().expect("digits").split(':');
    let bytes: Vec<u8> = digits.map(|byte| u8::from_str_radix(byte, 16).expect("digits")).collect();
    let mut fingerprint: [u8; 32] = bytes.try_into().expect("32 bytes");
    let ends = async |mut stream: TlsStream<TcpStream>| SIMPLE.negotiate(&mut stream, 1 << 20).await;
    let pinned = |fingerprint| TlsConfig { fingerprint: Some(fingerprint), ..TlsConfig::default() };
    assert_eq!(connect_to(&acceptor, &pinned(fingerprint), authority.path(), ends, async |_| {}), Ok(()));
    fingerprint[31] ^= 1;
    let message = rejection(&acceptor, &pinned(fingerprint), authority.path());
    assert!(message.contains("not the expected one: its fingerprint is sha256:"), "{message}");
}

#[test]
fn server_that_rejects_the_client_is_explained() {
    let (authority, other) = (Authority::new(), Authority::new());
    authority.issue("server", "127.0.0.1", (2000, 2100)).issue("client", "client", (2000, 2020));
    other.issue("client", "client", (2000, 2100));
    fs::copy(authority.path().join("ca.pem"), other.path().join("ca.pem")).expect("copied");
    let expired = TlsConfig { identity: identity("client"), ..authority.description() };
    // The server decides within the handshake of TLS 1.2, and after that of TLS 1.3.
    for version in [&TLS12, &TLS13] {
        let acceptor = authority.server_with(version, Some(&authority));
        for (tls, files, reason) in [
            (&authority.description(), &authority, "demands a certificate of the client: name its files"),
            (&expired, &authority, "rejects the client's certificate (CertificateExpired)"),
            (&expired, &other, "rejects the client's certificate"),
        ] {
            let message = rejection(&acceptor, tls, files.path());
            assert!(message.contains(reason), "expected `{reason}`: {message}");
        }
    }
}

#[test]
fn never_continues_without_tls() {
    let refusal = option_reply(OPT_STARTTLS, REP_ERR_POLICY, b"not here");
    let agreement = option_reply(OPT_STARTTLS, REP_ACK, b"");
    // What follows the agreement was not encrypted by the server, whoever has sent it.
    let injected = [&agreement[..], &option_reply(7, REP_ACK, b"")].concat();
    for (reply, later, reason) in [
        (&refusal, &b""[..], "the server does not offer TLS: give it a certificate"),
        (&injected, b"", "the server sent an invalid NBD reply"),
        (&agreement, &[b'x'; 100], "the server agreed to TLS, but sent something else"),
    ] {
        let (received, sent) = smol::channel::bounded(1);
        let serve = async |mut client: TcpStream| {
            start_tls(&mut client, reply).await;
            if !later.is_empty() {
                // The head of the first message of TLS.
                let mut head = [0; 1];
                client.read_exact(&mut head).await.expect("a message");
                client.write_all(later).await.expect("sent");
            }
            received.send(read_to_end(client).await).await.expect("the test");
        };
        with_server(serve, async |client| {
            let tls = TlsConfig { fingerprint: Some([0; 32]), ..TlsConfig::default() };
            let error = connect(&client, &tls, Path::new("")).await.expect_err("no TLS");
            assert!(error.starts_with(reason), "expected `{reason}`: {error}");
            let sent = sent.recv().await.expect("the end");
            assert!(!sent.windows(8).any(|bytes| bytes == b"IHAVEOPT"), "an option without TLS: {sent:?}");
        });
    }
}

#[test]
fn handshake_has_a_time_limit() {
    let serve = async |mut client: TcpStream| {
        start_tls(&mut client, &option_reply(OPT_STARTTLS, REP_ACK, b"")).await;
        read_to_end(client).await;
    };
    with_server(serve, async |client| {
        let url =
            NbdUri { tls: Some(TlsParameters { is_unverified: true, ..Default::default() }), ..client.url.clone() };
        let error = NbdClient::connect(&url, TIMEOUT, client.executor).await.expect_err("a silent server");
        assert_eq!(error.to_string(), "no reply within 0.2 s");
    });
}

#[test]
fn server_that_ends_the_handshake_is_explained() {
    let authority = Authority::new();
    authority.issue("server", "127.0.0.1", (2000, 2100));
    let serve = async |mut client: TcpStream| {
        start_tls(&mut client, &option_reply(OPT_STARTTLS, REP_ACK, b"")).await;
        client.read_exact(&mut [0; 100]).await.expect("a message");
        client.shutdown(std::net::Shutdown::Write).expect("closed");
        read_to_end(client).await;
    };
    with_server(serve, async |client| {
        let error = connect(&client, &authority.description(), authority.path()).await.expect_err("closed");
        assert!(error.contains("closed the connection during the TLS handshake"), "{error}");
    });
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let (authority, other) = (Authority::new(), Authority::new());
    authority.issue("client", "client", (2000, 2100));
    other.issue("client", "client", (2000, 2100));
    fs::copy(other.path().join("client.key"), authority.path().join("other.key")).expect("copied");
    fs::write(authority.path().join("empty.pem"), "").expect("written");
    let name = |name: &str| name.try_into().expect("short");
    let files = |certificate: &str, key: &str| TlsConfig {
        identity: Some(ClientIdentity { certificate: name(certificate), key: name(key) }),
        ..authority.description()
    };
    let url = NbdUri::parse("nbds://127.0.0.1:1/").expect("a URI");
    for (tls, reason) in [
        (TlsConfig { ca: Some(name("missing.pem")), ..TlsConfig::default() }, "missing.pem: No such file or directory"),
        (
            TlsConfig { ca: Some(name("empty.pem")), ..TlsConfig::default() },
            "empty.pem: no certificate in the PEM format",
        ),
        (files("empty.pem", "client.key"), "empty.pem: no certificate in the PEM format"),
        (files("client.pem", "client.pem"), "client.pem: no key in the PEM format"),
        (files("client.pem", "other.key"), "other.key: cannot be used as the client's certificate"),
    ] {
        let target = Target { url: &url, tls: Some(&tls), directory: authority.path() };
        let executor = smol::Executor::new();
        let connected = smol::block_on(NbdClient::connect_on(None, target, (LIMIT, LIMIT), &executor));
        let message = connected.expect_err("unusable files").to_string();
        assert!(message.contains(reason), "expected `{reason}`: {message}");
        assert!(message.starts_with(&authority.path().display().to_string()), "{message}");
    }
}

#[test]
fn directory_of_a_uri_has_the_names_of_libnbd() {
    let authority = Authority::new();
    authority.issue("server", "127.0.0.1", (2000, 2100)).issue("client", "client", (2000, 2100));
    let names = [("ca.pem", "ca-cert.pem"), ("client.pem", "client-cert.pem"), ("client.key", "client-key.pem")];
    let acceptor = authority.server_with(&TLS13, Some(&authority));
    let connect = |parameters: TlsParameters| {
        let serve = async |mut client: TcpStream| {
            start_tls(&mut client, &option_reply(OPT_STARTTLS, REP_ACK, b"")).await;
            if let Ok(mut stream) = acceptor.accept(client).await {
                SIMPLE.negotiate(&mut stream, 1 << 20).await;
            }
        };
        with_server(serve, async |client| {
            let url = NbdUri { tls: Some(parameters), ..client.url.clone() };
            NbdClient::connect(&url, LIMIT, client.executor).await.map(drop).map_err(|error| error.to_string())
        })
    };
    let certificates = Some(authority.path().to_str().expect("text").try_into().expect("a short path"));
    let parameters = TlsParameters { certificates, ..TlsParameters::default() };
    let message = connect(parameters.clone()).expect_err("no authority");
    assert!(message.contains("ca-cert.pem: No such file"), "{message}");
    for (from, to) in names {
        fs::copy(authority.path().join(from), authority.path().join(to)).expect("copied");
    }
    assert_eq!(connect(parameters.clone()), Ok(()));
    let hostname = Some("nas.lan".try_into().expect("short"));
    let message = connect(TlsParameters { hostname, ..parameters.clone() }).expect_err("another name");
    assert!(message.contains("not for nas.lan, but for 127.0.0.1"), "{message}");
    let hostname = Some("nas.lan".try_into().expect("short"));
    assert_eq!(connect(TlsParameters { hostname, is_unverified: true, ..parameters }), Ok(()));
}
