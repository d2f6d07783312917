//! The head of a request (RFC 9112).

use rtftp_core::{RequestPath, wire::path::InvalidPath};

use super::status::Status;
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
    /// Whether the connection is kept open after the response.
    pub keep_alive: bool,
    /// Whether the client speaks HTTP/1.0, and must be told that the connection is kept open.
    pub is_http_1_0: bool,
    /// The value of `Range`.
    pub range: Option<&'a [u8]>,
    /// The value of `If-Range`.
    pub if_range: Option<&'a [u8]>,
    /// The value of `If-None-Match`.
    pub if_none_match: Option<&'a [u8]>,
}

/// Removes the head of the next request, including its empty line, from the start of what a client has sent. Returns `None` if it is
/// not complete.
///
/// # Errors
///
/// [`Status::HeadTooLarge`] if it has more than [`MAX_HEAD`] bytes.
pub fn take_head(received: &mut Vec<u8>) -> Result<Option<Vec<u8>>, Status> {
    // Empty lines before a request are ignored (RFC 9112 section 2.2).
    let empty = received.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
    received.drain(..empty);
    let len = head_len(received);
    if len.unwrap_or(received.len()) > MAX_HEAD {
        return Err(Status::HeadTooLarge);
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
        b"HTTP/1.1" => false,
        b"HTTP/1.0" => true,
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
        keep_alive: !is_http_1_0,
        is_http_1_0,
        range: None,
        if_range: None,
        if_none_match: None,
    };
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let fields = match httparse::parse_headers(&head[end + 1..], &mut fields) {
        Ok(httparse::Status::Complete((_, fields))) => fields,
        Err(httparse::Error::TooManyHeaders) => return Err(Status::HeadTooLarge),
        Ok(httparse::Status::Partial) | Err(_) => return Err(Status::BadRequest),
    };
    let mut has_body = false;
    for httparse::Header { name, value } in fields.iter() {
        match name.to_ascii_lowercase().as_str() {
            "connection" => {
                for option in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                    if option.eq_ignore_ascii_case(b"close") {
                        request.keep_alive = false;
                    } else if option.eq_ignore_ascii_case(b"keep-alive") && is_http_1_0 {
                        request.keep_alive = true;
                    }
                }
            }
            "range" => request.range = Some(value),
            "if-range" => request.if_range = Some(value),
            "if-none-match" => request.if_none_match = Some(value),
            "transfer-encoding" => has_body = true,
            "content-length" => has_body |= value.trim_ascii() != b"0",
            _ => {}
        }
    }
    // The body is not read, so no other request can follow it.
    request.keep_alive &= !has_body;
    Ok(request)
}

impl Request<'_> {
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
    let is_absolute = target.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"http://"));
    if !is_absolute {
        return target;
    }
    let rest = &target[7..];
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
        for (len, expected) in [(MAX_HEAD, Ok(None)), (MAX_HEAD + 1, Err(Status::HeadTooLarge))] {
            assert_eq!(take_head(&mut vec![b'a'; len]), expected, "{len}");
        }
        let complete = [vec![b'a'; MAX_HEAD], b"\n\n".to_vec()].concat();
        assert_eq!(take_head(&mut complete.clone()), Err(Status::HeadTooLarge));
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
            ("GET /x.efi HTTP/1.1\nconnection: x, Close\n\n", false, false),
            ("GET /x.efi HTTP/1.1\r\nContent-Length: 3\r\n\r\n", false, false),
        ] {
            let request = parse(head.as_bytes()).expect(head);
            assert_eq!(
                (request.is_head, request.keep_alive, request.target),
                (is_head, keep_alive, &b"/x.efi"[..]),
                "{head}"
            );
        }
    }

    #[test]
    fn keeps_range_and_validators() {
        let head = b"GET / HTTP/1.1\r\nRANGE: bytes=1-\r\nIf-Range: \"a\"\r\nIf-None-Match: \"b\", \"c\"\r\n\r\n";
        let request = parse(head).expect("valid");
        assert_eq!(request.range, Some(&b"bytes=1-"[..]));
        assert_eq!(request.if_range, Some(&b"\"a\""[..]));
        assert_eq!(request.if_none_match, Some(&b"\"b\", \"c\""[..]));
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
