//! Parses the request line and the headers of a request (RFC 9112). A body is ignored.

use std::{
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr},
};

use smol::io::{AsyncRead, AsyncReadExt};

use super::response::Status;

/// The maximum size of a request in bytes.
const MAX_REQUEST: usize = 8 << 10;
/// The maximum number of headers.
const MAX_HEADERS: usize = 64;

/// The method of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    Get,
    Head,
    /// Any other method, which is not allowed.
    Other,
}

/// A request.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) method: Method,
    /// The path without the query.
    pub(super) path: String,
    /// The query, as it was sent.
    pub(super) query: String,
    /// The Host header; only HTTP/1.0 allows a request without one.
    host: Option<String>,
}

/// Reads a request; returns the status of the response if it is not valid.
///
/// # Errors
///
/// Fails if the connection ends before the request does.
pub(super) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Result<Request, Status>> {
    let (mut bytes, mut len) = ([0; MAX_REQUEST], 0);
    loop {
        match stream.read(&mut bytes[len..]).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => len += read,
        }
        match parse(&bytes[..len]) {
            Ok(Some(request)) => return Ok(Ok(request)),
            Ok(None) if len < bytes.len() => {}
            Ok(None) => return Ok(Err(Status::TooLarge)),
            Err(status) => return Ok(Err(status)),
        }
    }
}

/// Parses a request; returns `None` if it is incomplete.
fn parse(bytes: &[u8]) -> Result<Option<Request>, Status> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(bytes) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(Status::TooLarge),
        Err(_) => return Err(Status::BadRequest),
    }
    let (Some(method), Some(target), Some(version)) = (request.method, request.path, request.version) else {
        return Err(Status::BadRequest);
    };
    let mut hosts = request.headers.iter().filter(|header| header.name.eq_ignore_ascii_case("host"));
    // RFC 9112, section 3.2: exactly one Host header.
    let host = match (hosts.next(), hosts.next()) {
        (None, _) if version == 0 => None,
        (Some(host), None) => Some(std::str::from_utf8(host.value).map_err(|_| Status::BadRequest)?.to_owned()),
        _ => return Err(Status::BadRequest),
    };
    let method = match method {
        "GET" => Method::Get,
        "HEAD" => Method::Head,
        _ => Method::Other,
    };
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    Ok(Some(Request { method, path: path.to_owned(), query: query.to_owned(), host }))
}

impl Request {
    /// Returns whether the Host header is an IP address, the name of this machine, or a name without a dot such as `localhost`. A foreign
    /// site can use none of them.
    pub(super) fn host_is_trusted(&self, host_name: &str) -> bool {
        let Some(host) = &self.host else {
            // Browsers always send the header.
            return true;
        };
        let is_port = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        let name = match host.rsplit_once(':') {
            Some((name, port)) if is_port(port) => name,
            _ => host,
        };
        let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let is_plain = |name: &str| {
            !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
        };
        (!name.is_empty() && name.eq_ignore_ascii_case(host_name))
            || is_plain(name)
            || host.parse::<SocketAddr>().is_ok()
            || host.parse::<IpAddr>().is_ok()
            || bracketed.is_some_and(|address| address.parse::<Ipv6Addr>().is_ok())
    }
}

#[cfg(test)]
mod tests {
    use smol::{block_on, io::Cursor};

    use super::*;

    fn parsed(request: &str) -> Result<Request, Status> {
        block_on(read(&mut Cursor::new(request.as_bytes()))).expect("a complete request")
    }

    #[test]
    fn reads_method_and_path() {
        for (request, method, path, query) in [
            ("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", Method::Get, "/", ""),
            (
                "HEAD /boots.json?at=1 HTTP/1.1\r\nhOsT: 10.0.0.1\r\nAccept: */*\r\n\r\n",
                Method::Head,
                "/boots.json",
                "at=1",
            ),
            ("GET /board.json?fe80::1 HTTP/1.1\r\nHost: a\r\n\r\n", Method::Get, "/board.json", "fe80::1"),
            ("POST /?/ HTTP/1.1\r\nHost:\r\nContent-Length: 3\r\n\r\nabc", Method::Other, "/", "/"),
            ("get / HTTP/1.1\r\nHost: a\r\n\r\n", Method::Other, "/", ""),
            ("GET / HTTP/1.0\r\n\r\n", Method::Get, "/", ""),
        ] {
            let found = parsed(request).expect(request);
            assert_eq!((found.method, found.path.as_str(), found.query.as_str()), (method, path, query), "{request}");
        }
    }

    #[test]
    fn reads_a_request_in_fragments() {
        let request = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n";
        for len in 1..request.len() {
            assert_eq!(parse(&request[..len]), Ok(None), "{len} bytes");
            assert!(block_on(read(&mut Cursor::new(&request[..len]))).is_err(), "{len} bytes");
        }
    }

    #[test]
    fn rejects_malformed_requests() {
        for request in [
            "\0\0\0\0",
            "\u{16}\u{3}\u{1}\u{2}\0\u{1}",
            "GET /\r\n\r\n",
            "GET / HTTP/2.0\r\n\r\n",
            "GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHo st: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: \u{1}\r\n\r\n",
        ] {
            assert_eq!(parsed(request), Err(Status::BadRequest), "{request:?}");
        }
    }

    #[test]
    fn limits_size_and_headers() {
        let padded = |len: usize| {
            let head = "GET / HTTP/1.1\r\nHost: a\r\nX: ";
            format!("{head}{}\r\n\r\n", "x".repeat(len - head.len() - 4))
        };
        assert!(parsed(&padded(MAX_REQUEST)).is_ok());
        assert_eq!(parsed(&padded(MAX_REQUEST + 1)), Err(Status::TooLarge));
        assert_eq!(parsed(&format!("GET /{}", "a".repeat(MAX_REQUEST))), Err(Status::TooLarge));
        let headers = |count: usize| format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(count - 1));
        assert!(parsed(&headers(MAX_HEADERS)).is_ok());
        assert_eq!(parsed(&headers(MAX_HEADERS + 1)), Err(Status::TooLarge));
    }

    #[test]
    fn trusts_only_addresses_and_names_of_this_network() {
        let trusted = |host: &str| {
            let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
            parsed(&request).expect(host).host_is_trusted("boot.example.com")
        };
        for host in [
            "localhost",
            "LocalHost:8080",
            "boot",
            "Boot.example.com:8080",
            "127.0.0.1",
            "127.0.0.1:80",
            "[::1]",
            "[::1]:8080",
            "10.0.0.1",
        ] {
            assert!(trusted(host), "{host}");
        }
        for host in [
            "",
            "example.org",
            "example.org:80",
            "localhost.example.org",
            "127.0.0.1.example.org",
            "localhost.",
            "[::1",
            "x:y",
        ] {
            assert!(!trusted(host), "{host}");
        }
        assert!(parsed("GET / HTTP/1.0\r\n\r\n").expect("a request").host_is_trusted("boot"));
    }
}
