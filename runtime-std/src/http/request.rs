//! The head of a request (RFC 9112).

use std::time::SystemTime;

use rtftp_core::{RequestPath, wire::path::InvalidPath};

use super::{
    conditions::{Conditions, Version},
    range::{self, Part},
    status::Status,
};
use crate::text::percent_decoded;

/// The largest head of a request in bytes.
pub const MAX_HEAD: usize = 8 << 10;
/// The largest number of header fields.
const MAX_FIELDS: usize = 64;

/// The head of a request for a file.
#[derive(Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// The target as it was sent, for the log.
    pub target: &'a [u8],
    /// Whether the response has no body: the method is HEAD.
    pub is_head: bool,
    /// What happens to the connection after the response.
    pub persistence: Persistence,
    /// The value of `Range`.
    pub range: Option<&'a [u8]>,
    /// The versions of the file that the request depends on.
    pub conditions: Conditions<'a>,
}

/// What happens to a connection after a response (RFC 9112 section 9.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Persistence {
    /// It is kept open, which is the default of HTTP/1.1.
    Kept,
    /// It is kept open, which a client of HTTP/1.0 must be told.
    Announced,
    /// It is closed.
    Closed,
    /// It is closed after the client has closed it, or has waited for that.
    ClosedByClient,
}

impl Persistence {
    /// Returns whether the connection is kept open.
    #[must_use]
    pub fn keeps_open(self) -> bool {
        matches!(self, Self::Kept | Self::Announced)
    }

    /// Returns what happens after an error.
    pub(super) fn after_error(self) -> Self {
        if self.keeps_open() { self } else { Self::ClosedByClient }
    }
}

/// Removes the head of the next request, including its empty line, from the start of what a client has sent. Returns `None` if it is
/// not complete.
///
/// # Errors
///
/// If it has more than [`MAX_HEAD`] bytes: [`Status::UriTooLong`] if already its first line has, otherwise [`Status::HeadTooLarge`].
/// [`Status::BadRequest`] if it begins with no method.
pub fn take_head(received: &mut Vec<u8>) -> Result<Option<Vec<u8>>, Status> {
    // Empty lines before a request are ignored (RFC 9112 section 2.2).
    let empty = received.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
    received.drain(..empty);
    // Another protocol, such as TLS, whose client waits for an answer.
    if received.first().is_some_and(|byte| !byte.is_ascii_graphic()) {
        return Err(Status::BadRequest);
    }
    let len = head_len(received);
    if len.unwrap_or(received.len()) > MAX_HEAD {
        let has_line = received[..MAX_HEAD].contains(&b'\n');
        return Err(if has_line { Status::HeadTooLarge } else { Status::UriTooLong });
    }
    Ok(len.map(|len| received.drain(..len).collect()))
}

/// Returns the length of the head that `bytes` begin with, including its empty line; `None` if it is not complete.
fn head_len(bytes: &[u8]) -> Option<usize> {
    let line_ends = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1);
    line_ends
        .into_iter()
        .find(|end| matches!(bytes.get(*end..), Some([b'\n', ..] | [b'\r', b'\n', ..])))
        .map(|end| if bytes[end] == b'\n' { end + 1 } else { end + 2 })
}

/// Parses the head of a request.
///
/// # Errors
///
/// The status to respond with, after which the connection must be closed.
pub fn parse(head: &[u8]) -> Result<Request<'_>, Status> {
    let end = head.iter().position(|byte| *byte == b'\n').ok_or(Status::BadRequest)?;
    let line = head[..end].strip_suffix(b"\r").unwrap_or(&head[..end]);
    // From both ends: GRUB sends a file name with blanks as it is.
    let mut parts = line.splitn(2, |byte| *byte == b' ');
    let (Some(method), Some(rest)) = (parts.next(), parts.next()) else { return Err(Status::BadRequest) };
    let mut parts = rest.rsplitn(2, |byte| *byte == b' ');
    let (Some(version), Some(target)) = (parts.next(), parts.next()) else { return Err(Status::BadRequest) };
    let is_http_1_0 = match version {
        b"HTTP/1.0" => true,
        // Later minor versions are compatible (RFC 9110 section 2.5).
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'1'..=b'9'] => false,
        version if version.starts_with(b"HTTP/") => return Err(Status::VersionNotSupported),
        _ => return Err(Status::BadRequest),
    };
    let is_head = match method {
        b"GET" => false,
        b"HEAD" => true,
        _ => return Err(Status::MethodNotAllowed),
    };
    let mut request = Request {
        target,
        is_head,
        persistence: if is_http_1_0 { Persistence::Closed } else { Persistence::Kept },
        range: None,
        conditions: Conditions::default(),
    };
    let conditions = &mut request.conditions;
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let fields = match httparse::parse_headers(&head[end + 1..], &mut fields) {
        Ok(httparse::Status::Complete((_, fields))) => fields,
        Err(httparse::Error::TooManyHeaders) => return Err(Status::HeadTooLarge),
        Ok(httparse::Status::Partial) | Err(_) => return Err(Status::BadRequest),
    };
    let (mut has_body, mut wants_close) = (false, false);
    for httparse::Header { name, value } in fields.iter() {
        match name.to_ascii_lowercase().as_str() {
            "connection" => {
                for option in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                    wants_close |= option.eq_ignore_ascii_case(b"close");
                    if option.eq_ignore_ascii_case(b"keep-alive") && is_http_1_0 {
                        request.persistence = Persistence::Announced;
                    }
                }
            }
            "range" => request.range = Some(value),
            "if-range" => conditions.if_range = Some(value),
            "if-match" => conditions.if_match.push(value),
            "if-none-match" => conditions.if_none_match.push(value),
            "if-modified-since" => conditions.if_modified_since = Some(value),
            "if-unmodified-since" => conditions.if_unmodified_since = Some(value),
            "transfer-encoding" => has_body = true,
            "content-length" => has_body |= value.trim_ascii() != b"0",
            _ => {}
        }
    }
    // The body is not read, so no other request can follow it.
    if wants_close || has_body {
        request.persistence = Persistence::Closed;
    }
    Ok(request)
}

impl Request<'_> {
    /// Returns the part to send of a file of this version and `size` bytes.
    #[must_use]
    pub fn part(&self, version: &Version, size: u64, now: SystemTime) -> Part {
        // HEAD has no ranges (RFC 9110 section 14.2).
        let range = self.range.filter(|_| !self.is_head && self.conditions.allows_range(version, now));
        range.map_or(Part::Whole, |range| range::parse(range, size))
    }

    /// Returns the path of the requested file; the query is ignored. `prefix` is removed from its start, if it is there.
    ///
    /// # Errors
    ///
    /// [`InvalidPath`] if the target is no path of a file below a root.
    pub fn path(&self, prefix: &str) -> Result<RequestPath, InvalidPath> {
        let path = origin_form(self.target);
        let path = path.split(|byte| *byte == b'?').next().unwrap_or_default();
        let path = RequestPath::parse(&percent_decoded(path))?;
        let prefix = prefix.trim_matches('/').as_bytes();
        match path.as_bytes().strip_prefix(prefix) {
            Some(rest) if !prefix.is_empty() && rest.starts_with(b"/") => RequestPath::parse(rest),
            _ => Ok(path),
        }
    }
}

/// Removes scheme and authority from a target in absolute form (RFC 9112 section 3.2.2).
fn origin_form(target: &[u8]) -> &[u8] {
    let schemes = [&b"http://"[..], b"https://"];
    let is_start = |scheme: &&[u8]| target.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme));
    let Some(scheme) = schemes.into_iter().find(is_start) else { return target };
    let rest = &target[scheme.len()..];
    rest.iter().position(|byte| *byte == b'/').map_or(b"/", |at| &rest[at..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(target: &str) -> Result<RequestPath, InvalidPath> {
        let head = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
        parse(head.as_bytes()).expect(target).path("/boot/")
    }

    #[test]
    fn finds_the_end_of_a_head() {
        for (bytes, expected) in [
            ("GET / HTTP/1.1\r\n\r\nmore", Some(18)),
            ("GET / HTTP/1.1\n\nmore", Some(16)),
            ("GET / HTTP/1.1\r\nA: b\r\n\r", None),
            ("GET / HTTP/1.1\r\n", None),
            ("", None),
        ] {
            assert_eq!(head_len(bytes.as_bytes()), expected, "{bytes:?}");
        }
    }

    #[test]
    fn takes_one_head_after_another() {
        let mut received = b"\r\n\nGET / HTTP/1.0\r\n\r\n\r\nHEAD / HTTP/1.1\n\nGE".to_vec();
        for expected in ["GET / HTTP/1.0\r\n\r\n", "HEAD / HTTP/1.1\n\n"] {
            assert_eq!(take_head(&mut received), Ok(Some(expected.into())));
        }
        assert_eq!((take_head(&mut received), &*received), (Ok(None), &b"GE"[..]));
        for (len, expected) in [(MAX_HEAD, Ok(None)), (MAX_HEAD + 1, Err(Status::UriTooLong))] {
            assert_eq!(take_head(&mut vec![b'a'; len]), expected, "{len}");
        }
        for (line, expected) in [(MAX_HEAD, Status::UriTooLong), (MAX_HEAD - 1, Status::HeadTooLarge)] {
            let mut complete = [vec![b'a'; line], b"\nb\n\n".to_vec()].concat();
            assert_eq!(take_head(&mut complete), Err(expected), "a first line of {line} bytes");
        }
        assert_eq!(take_head(&mut b"\x16\x03\x01".to_vec()), Err(Status::BadRequest), "TLS");
    }

    #[test]
    fn parses_the_requests_of_boot_clients() {
        for (head, is_head, keep_alive) in [
            (
                "HEAD /x.efi HTTP/1.1\r\nHost: 10.69.0.1\r\nAccept: */*\r\nUser-Agent: UefiHttpBoot/1.0\r\n\r\n",
                true,
                true,
            ),
            ("GET /x.efi HTTP/1.1\r\nHost: 10.69.0.1\r\nUser-Agent: GRUB 2.06-13+deb12u2\r\n\r\n", false, true),
            (
                "GET /x.efi HTTP/1.1\r\nConnection: keep-alive\r\nUser-Agent: iPXE/1.0.0\r\nHost: a:8080\r\n\r\n",
                false,
                true,
            ),
            ("GET /x.efi HTTP/1.0\r\n\r\n", false, false),
            ("GET /x.efi HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", false, true),
            ("GET /x.efi HTTP/1.0\r\nConnection: close, Keep-Alive\r\n\r\n", false, false),
            ("GET /x.efi HTTP/1.2\r\n\r\n", false, true),
            ("GET /x.efi HTTP/1.1\nconnection: x, Close\n\n", false, false),
            ("GET /x.efi HTTP/1.1\r\nContent-Length: 3\r\n\r\n", false, false),
        ] {
            let request = parse(head.as_bytes()).expect(head);
            assert_eq!(
                (request.is_head, request.persistence.keeps_open(), request.target),
                (is_head, keep_alive, &b"/x.efi"[..]),
                "{head}"
            );
        }
    }

    #[test]
    fn keeps_range_and_conditions() {
        let head =
            b"GET / HTTP/1.1\r\nRANGE: bytes=1-\r\nIf-Range: \"a\"\r\nIf-None-Match: \"b\"\r\nIf-None-Match: \"c\"\r\n\
            If-Match: *\r\nIf-Modified-Since: x\r\nIf-Unmodified-Since: y\r\n\r\n";
        let request = parse(head).expect("valid");
        assert_eq!(request.range, Some(&b"bytes=1-"[..]));
        let expected = Conditions {
            if_match: vec![b"*"],
            if_none_match: vec![b"\"b\"", b"\"c\""],
            if_modified_since: Some(b"x"),
            if_unmodified_since: Some(b"y"),
            if_range: Some(b"\"a\""),
        };
        assert_eq!(request.conditions, expected);
    }

    #[test]
    fn decodes_targets() {
        for (target, expected) in [
            ("/x.efi", "x.efi"),
            ("//grub//./x86_64-efi/normal.mod", "grub/x86_64-efi/normal.mod"),
            ("/a b.cfg", "a b.cfg"),
            ("/a%20b.cfg", "a b.cfg"),
            ("/100%", "100%"),
            ("/100%zz%4", "100%zz%4"),
            ("/x.efi?mac=1&b=2", "x.efi"),
            ("/x%3Fy", "x?y"),
            ("http://10.0.0.1:8080/x.efi", "x.efi"),
            ("HTTP://host/x.efi", "x.efi"),
            ("https://host/x.efi", "x.efi"),
            ("x.efi", "x.efi"),
            ("/a/%2e%2e/x.efi", "x.efi"),
            ("/boot/vmlinuz", "vmlinuz"),
            ("/boot//a/b", "a/b"),
            ("/bootx/a", "bootx/a"),
            ("/boot", "boot"),
        ] {
            assert_eq!(path(target).expect(target).as_bytes(), expected.as_bytes(), "{target}");
        }
        assert_eq!(path("/%2e%2e/etc/passwd"), Err(InvalidPath::LeavesRoot));
        assert_eq!(path("/a%00b"), Err(InvalidPath::Nul));
        assert_eq!(path("/"), Err(InvalidPath::Empty));
        assert_eq!(path("http://host"), Err(InvalidPath::Empty));
    }

    #[test]
    fn rejects_other_requests() {
        for (head, status) in [
            ("\r\n", Status::BadRequest),
            ("GET\r\n\r\n", Status::BadRequest),
            ("GET /\r\n\r\n", Status::BadRequest),
            ("GET / FTP/1.1\r\n\r\n", Status::BadRequest),
            ("PRI * HTTP/2.0\r\n\r\n", Status::VersionNotSupported),
            ("POST / HTTP/1.1\r\n\r\n", Status::MethodNotAllowed),
            ("get / HTTP/1.1\r\n\r\n", Status::MethodNotAllowed),
            ("GET / HTTP/1.1\r\nA b: c\r\n\r\n", Status::BadRequest),
            ("GET / HTTP/1.1\r\nA: \u{1}\r\n\r\n", Status::BadRequest),
        ] {
            assert_eq!(parse(head.as_bytes()), Err(status), "{head:?}");
        }
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(MAX_FIELDS + 1));
        assert_eq!(parse(many.as_bytes()), Err(Status::HeadTooLarge));
    }
}
