use std::{format, string::ToString};

use super::*;

fn tcp(host: &str, port: u16, export: &str) -> NbdUri {
    let server = NbdServer::Tcp { host: host.try_into().expect("a short host"), port };
    NbdUri { server, export: export.try_into().expect("a short export"), tls: None }
}

fn unix(socket: &str, export: &str) -> NbdUri {
    let server = NbdServer::Unix(socket.try_into().expect("a short path"));
    NbdUri { server, export: export.try_into().expect("a short export"), tls: None }
}

fn vsock(cid: u32, port: u32, export: &str) -> NbdUri {
    NbdUri { server: NbdServer::Vsock { cid, port }, export: export.try_into().expect("a short export"), tls: None }
}

fn with_tls(uri: NbdUri, certificates: &str, hostname: &str, is_unverified: bool) -> NbdUri {
    let certificates = Some(certificates).filter(|path| !path.is_empty());
    let certificates = certificates.map(|path| path.try_into().expect("a short path"));
    let hostname = Some(hostname).filter(|host| !host.is_empty()).map(|host| host.try_into().expect("a short host"));
    NbdUri { tls: Some(TlsParameters { certificates, hostname, is_unverified }), ..uri }
}

#[test]
fn uris_round_trip() {
    for (uri, expected, canonical) in [
        ("nbd://10.10.10.10:25000/server_root", tcp("10.10.10.10", 25000, "server_root"), ""),
        ("nbd://boot-1.example_lan.:10810/a", tcp("boot-1.example_lan.", 10810, "a"), ""),
        ("nbd://h/", tcp("h", 10809, ""), ""),
        ("nbd://h", tcp("h", 10809, ""), "nbd://h/"),
        ("NBD://h:10809/x", tcp("h", 10809, "x"), "nbd://h/x"),
        ("nbd://h/x?", tcp("h", 10809, "x"), "nbd://h/x"),
        ("nbd://h//disk", tcp("h", 10809, "/disk"), ""),
        ("nbd://h/a/b:c@d", tcp("h", 10809, "a/b:c@d"), ""),
        ("nbd://[::1]/x", tcp("::1", 10809, "x"), ""),
        ("nbd://[2001:DB8:0::1]:65535/", tcp("2001:db8::1", 65535, ""), "nbd://[2001:db8::1]:65535/"),
        ("nbd://h/a%20b%2fc%25", tcp("h", 10809, "a b/c%"), "nbd://h/a%20b/c%25"),
        ("nbd://h/gr%C3%BCn%0A%23%3f", tcp("h", 10809, "grün\n#?"), "nbd://h/gr%C3%BCn%0A%23%3F"),
        ("nbd://h/a+b&c;d", tcp("h", 10809, "a+b&c;d"), "nbd://h/a%2Bb%26c%3Bd"),
        ("nbd+unix:///?socket=/run/nbd.sock", unix("/run/nbd.sock", ""), ""),
        ("nbd+unix:///x?socket=nbd.sock", unix("nbd.sock", "x"), ""),
        ("Nbd+Unix:////x?&socket=/a%20b%26", unix("/a b&", "/x"), "nbd+unix:////x?socket=/a%20b%26"),
        ("nbd+unix://?socket=/s=1?", unix("/s=1?", ""), "nbd+unix:///?socket=/s=1%3F"),
        ("nbd+vsock://2:123456/x", vsock(2, 123_456, "x"), ""),
        ("NBD+VSOCK://3", vsock(3, 10809, ""), "nbd+vsock://3/"),
        ("nbds+vsock://2/x?tls-hostname=nas", with_tls(vsock(2, 10809, "x"), "", "nas", false), ""),
        ("nbds://h/x", with_tls(tcp("h", 10809, "x"), "", "", false), ""),
        (
            "NBDS://h:1?tls-hostname=nas.lan&tls-verify-peer=1&tls-type=x509",
            with_tls(tcp("h", 1, ""), "", "nas.lan", false),
            "nbds://h:1/?tls-hostname=nas.lan",
        ),
        ("nbds://[::1]/?tls-hostname=::1", with_tls(tcp("::1", 10809, ""), "", "::1", false), ""),
        (
            "nbds://h/x?tls-verify-peer=0&tls-certificates=/etc/pki%20a%26",
            with_tls(tcp("h", 10809, "x"), "/etc/pki a&", "", true),
            "nbds://h/x?tls-certificates=/etc/pki%20a%26&tls-verify-peer=false",
        ),
        ("nbds+unix:///x?socket=/s", with_tls(unix("/s", "x"), "", "", false), ""),
        (
            "nbds+unix:///?tls-certificates=tls&socket=/s&tls-hostname=10.0.0.1",
            with_tls(unix("/s", ""), "tls", "10.0.0.1", false),
            "nbds+unix:///?socket=/s&tls-certificates=tls&tls-hostname=10.0.0.1",
        ),
    ] {
        let parsed = NbdUri::parse(uri);
        assert_eq!(parsed.as_ref(), Ok(&expected), "{uri}");
        let written = expected.to_string();
        assert_eq!(written, if canonical.is_empty() { uri } else { canonical });
        assert_eq!(NbdUri::parse(&written), parsed, "{written}");
    }
}

#[test]
fn every_character_round_trips() {
    for character in (1..=0x2ff).filter_map(char::from_u32) {
        for uri in [tcp("h", 1, &character.to_string()), unix(&character.to_string(), "x")] {
            assert_eq!(NbdUri::parse(&uri.to_string()), Ok(uri), "{character:?}");
        }
    }
}

#[test]
fn rejects_invalid_uris() {
    for (error, uris) in [
        (
            InvalidUri::Scheme,
            &["", "h", "nbd:h/x", "nbd:/h/x", "http://h/x", "nbd+tcp://h/x", " nbd://h/x", "nbdss://h"][..],
        ),
        (InvalidUri::UserInfo, &["nbd://user@h/x", "nbd://u:p@h/x", "nbd://@h"]),
        (
            InvalidUri::Host,
            &[
                "nbd://",
                "nbd:///x",
                "nbd://:10809/x",
                "nbd://::1/x",
                "nbd://[::1/x",
                "nbd://[1.2.3.4]/x",
                "nbd://[fe80::1%25eth0]/x",
                "nbd://a b/x",
                "nbd://a,b/x",
                "nbd://a%41/x",
                "nbd://ü/x",
                "nbd://-a/x",
                "nbd://a..b/x",
                "nbd://./x",
                "nbd://1.2.3/x",
                "nbd://1.2.3.256/x",
            ],
        ),
        (
            InvalidUri::Port,
            &[
                "nbd://h:/x",
                "nbd://h:0/x",
                "nbd://h:65536/x",
                "nbd://h:99999999999/x",
                "nbd://h:+1/x",
                "nbd://h:-1/x",
                "nbd://h:nbd/x",
                "nbd://[::1]1/x",
                "nbd://[::1]:/x",
            ],
        ),
        (InvalidUri::Authority, &["nbd+unix://h/x?socket=/s", "nbd+unix://run/nbd.sock"]),
        (
            InvalidUri::Socket,
            &["nbd+unix:///x", "nbd+unix:///x?", "nbd+unix:///x?socket=", "nbd+unix:///?socket=/a&socket=/b"],
        ),
        (
            InvalidUri::Vsock,
            &[
                "nbd+vsock://",
                "nbd+vsock:///x",
                "nbd+vsock://h/x",
                "nbd+vsock://+2/x",
                "nbd+vsock://4294967295/x",
                "nbd+vsock://2:/x",
                "nbd+vsock://2:x/x",
                "nbd+vsock://2:4294967295/x",
                "nbd+vsock://2:1:1/x",
            ],
        ),
        (
            InvalidUri::Parameter,
            &[
                "nbd+vsock://2/x?socket=/s",
                "nbd://h/x?socket=/s",
                "nbd://h?y",
                "nbd+unix:///?socket",
                "nbds://h/?tls-hostname",
                "nbds://h/?tls-certificates=",
                "nbds://h/?tls-certificates=a&tls-certificates=b",
                "nbds://h/?tls-priority=NORMAL",
                "nbds://h/?socket=/s",
            ],
        ),
        (InvalidUri::TlsParameter, &["nbd+unix:///?socket=/s&tls-type=x509", "nbd://h/?tls-verify-peer=1"]),
        (
            InvalidUri::TlsType,
            &["nbds://h/?tls-psk-file=keys", "nbds://h/?tls-type=psk", "nbds+unix:///?socket=/s&tls-type=anon"],
        ),
        (
            InvalidUri::TlsHostname,
            &["nbds://h/?tls-hostname=", "nbds://h/?tls-hostname=a%20b", "nbds://h/?tls-hostname=%5B::1%5D"],
        ),
        (InvalidUri::TlsVerifyPeer, &["nbds://h/?tls-verify-peer=", "nbds://h/?tls-verify-peer=maybe"]),
        (InvalidUri::Fragment, &["nbd://h/x#y", "nbd://h#", "nbd+unix:///?socket=/s#"]),
        (
            InvalidUri::Encoding,
            &[
                "nbd://h/%",
                "nbd://h/%2",
                "nbd://h/%+1",
                "nbd://h/%zz",
                "nbd://h/%00",
                "nbd://h/%ff",
                "nbd://h/a b",
                "nbd://h/ü",
                "nbd://h/a\nb",
                "nbd+unix:///?socket=/%00",
            ],
        ),
    ] {
        for uri in uris {
            assert_eq!(NbdUri::parse(uri), Err(error), "{uri}");
        }
    }
}

#[test]
fn rejects_parts_over_their_maximum_length() {
    for (before, limit, error) in [
        ("nbd://", MAX_HOST, InvalidUri::Host),
        ("nbd://h/", MAX_EXPORT, InvalidUri::ExportTooLong),
        ("nbd+unix:///?socket=", MAX_SOCKET, InvalidUri::SocketTooLong),
        ("nbds://h/?tls-certificates=", MAX_TLS_PATH, InvalidUri::TlsPathTooLong),
        ("nbds://h/?tls-hostname=", MAX_HOST, InvalidUri::TlsHostname),
    ] {
        assert!(NbdUri::parse(&format!("{before}{}", "a".repeat(limit))).is_ok(), "{before}");
        assert_eq!(NbdUri::parse(&format!("{before}{}", "a".repeat(limit + 1))), Err(error), "{before}");
    }
}

#[test]
fn errors_name_what_was_expected() {
    for (uri, message) in [
        (
            "iscsi://h/x",
            "expected nbd://HOST[:PORT]/EXPORT, nbd+unix:///EXPORT?socket=PATH or nbd+vsock://CID[:PORT]/EXPORT (with TLS: \
             nbds instead of nbd)",
        ),
        ("nbd://h/x?tls-hostname=h", "expected nbds:// or nbds+unix:// with parameters of TLS"),
        (
            "nbds://h/x?tls-psk-file=keys",
            "expected TLS with certificates (tls-certificates, or tls-type=x509): keys shared in advance (PSK) and anonymous \
             servers are not supported",
        ),
        ("nbds://h/x?tls-hostname=a..b", "expected a host name or an IP address as tls-hostname"),
        ("nbds://h/x?tls-verify-peer=no", "expected true or false as tls-verify-peer"),
        ("nbd://me@h/x", "expected nbd://HOST[:PORT]/EXPORT without a user name"),
        ("nbd:///x", "expected a host name, an IPv4 address or an [IPv6] address after nbd://"),
        ("nbd://h:0/x", "expected a port from 1 to 65535 after the host"),
        ("nbd+unix://h/x", "expected nbd+unix:///EXPORT?socket=PATH, with three slashes and no host"),
        ("nbd+unix:///x", "expected nbd+unix:///EXPORT?socket=PATH with one socket path"),
        ("nbd+vsock://h/x", "expected nbd+vsock://CID[:PORT]/EXPORT, with numbers below 4294967295 (2 is the host)"),
        (
            "nbd://h/x?a=b",
            "expected no parameter but socket (of nbd+unix://), tls-certificates, tls-hostname, tls-verify-peer and tls-type \
             (of nbds://), each once",
        ),
        ("nbd://h/x#1", "expected no # (in a name it is written %23)"),
        ("nbd://h/%gg", "expected percent-encoded UTF-8 without NUL (a space is written %20)"),
    ] {
        assert_eq!(NbdUri::parse(uri).expect_err("a bad URI").to_string(), message, "{uri}");
    }
    assert_eq!(InvalidUri::ExportTooLong.to_string(), "expected an export name of at most 255 bytes");
    assert_eq!(InvalidUri::SocketTooLong.to_string(), "expected a socket path of at most 107 bytes");
    assert_eq!(InvalidUri::TlsPathTooLong.to_string(), "expected a tls-certificates of at most 255 bytes");
}
