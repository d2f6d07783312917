//! The head of a response, and what follows it (RFC 9112).

use super::error::text;

/// The largest head of a response, and the largest trailer of a chunked body, in bytes.
pub(super) const MAX_HEAD: usize = 16 << 10;
/// The largest number of header fields.
pub(super) const MAX_FIELDS: usize = 128;

/// The head of a response.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Response {
    pub(super) status: u16,
    /// The reason phrase, printable.
    pub(super) reason: String,
    pub(super) framing: Framing,
    /// Whether the server keeps the connection open after the body.
    pub(super) keep_alive: bool,
    /// The values of these headers, printable.
    pub(super) content_type: Option<String>,
    pub(super) location: Option<String>,
    pub(super) retry_after: Option<String>,
}

/// How a body ends (RFC 9112 section 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// After this number of bytes: `Content-Length`.
    Length(u64),
    /// After the last chunk.
    Chunked,
    /// With the connection.
    Close,
}

/// Parses the head that `received` begins with. Returns it with its length and its lines; `None` if it is not complete.
///
/// # Errors
///
/// Returns the violation of the protocol.
pub(super) fn parse(received: &[u8]) -> Result<Option<(Response, usize)>, &'static str> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut head = httparse::Response::new(&mut fields);
    let len = match head.parse(received) {
        Ok(httparse::Status::Complete(len)) if len <= MAX_HEAD => len,
        Ok(httparse::Status::Partial) if received.len() < MAX_HEAD => return Ok(None),
        Ok(_) | Err(httparse::Error::TooManyHeaders) => return Err("the head of the response is too large"),
        Err(_) => return Err("the answer is not HTTP"),
    };
    let mut response = Response {
        status: head.code.unwrap_or_default(),
        reason: text(head.reason.unwrap_or_default().as_bytes()),
        framing: Framing::Close,
        keep_alive: head.version == Some(1),
        content_type: None,
        location: None,
        retry_after: None,
    };
    let mut content_length = None;
    for httparse::Header { name, value } in head.headers.iter() {
        match name.to_ascii_lowercase().as_str() {
            "content-length" => match number(value) {
                Some(len) if content_length.is_none_or(|known| known == len) => content_length = Some(len),
                _ => return Err("Content-Length is not one number"),
            },
            "transfer-encoding" if value.trim_ascii().eq_ignore_ascii_case(b"chunked") => {
                response.framing = Framing::Chunked;
            }
            "transfer-encoding" => return Err("Transfer-Encoding is not chunked"),
            "connection" => {
                let mut options = value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
                response.keep_alive = match options.next() {
                    Some(option) if option.eq_ignore_ascii_case(b"keep-alive") => true,
                    Some(option) if option.eq_ignore_ascii_case(b"close") => false,
                    _ => response.keep_alive,
                };
            }
            "content-type" => response.content_type = Some(text(value)),
            "location" => response.location = Some(text(value)),
            "retry-after" => response.retry_after = Some(text(value)),
            _ => {}
        }
    }
    match content_length {
        Some(_) if response.framing == Framing::Chunked => return Err("Content-Length and Transfer-Encoding together"),
        Some(len) => response.framing = Framing::Length(len),
        None => {}
    }
    response.keep_alive &= response.framing != Framing::Close;
    Ok(Some((response, len)))
}

/// Parses decimal digits.
fn number(value: &[u8]) -> Option<u64> {
    let digits = value.trim_ascii();
    let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    str::from_utf8(digits).ok().filter(|_| is_number)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recognises_the_end_of_the_body() {
        for (fields, framing, keep_alive) in [
            ("Content-Length: 5\r\n", Framing::Length(5), true),
            ("content-length:5\r\nContent-Length: 5\r\nConnection: close\r\n", Framing::Length(5), false),
            ("Transfer-Encoding: Chunked\r\n", Framing::Chunked, true),
            ("Connection: keep-alive\r\n", Framing::Close, false),
        ] {
            let head = format!("HTTP/1.1 200 OK\r\n{fields}\r\nbody");
            let (response, len) = parse(head.as_bytes()).expect(fields).expect(fields);
            assert_eq!((response.framing, response.keep_alive), (framing, keep_alive), "{fields}");
            assert_eq!(len, head.len() - 4);
            assert_eq!(parse(&head.as_bytes()[..len - 1]), Ok(None));
        }
        let old = b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n";
        assert!(!parse(old).expect("valid").expect("complete").0.keep_alive);
    }

    #[test]
    fn keeps_what_explains_a_refusal() {
        let head = b"HTTP/1.1 503 Later\x1b[\r\nRetry-After: 2\r\nLocation: http://a\x1b/\r\n\r\n";
        assert_eq!(parse(head), Err("the answer is not HTTP"));
        let head = b"HTTP/1.1 503 Later\r\nRetry-After: 2\r\nLocation: http://a\xc2\x85/\r\n\r\n";
        let (response, _) = parse(head).expect("valid").expect("complete");
        assert_eq!((response.status, &*response.reason), (503, "Later"));
        assert_eq!(
            (response.retry_after.as_deref(), response.location.as_deref()),
            (Some("2"), Some(r"http://a\u{85}/"))
        );
    }

    #[test]
    fn rejects_other_answers() {
        for head in [
            "SSH-2.0-OpenSSH\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n",
        ] {
            assert!(parse(head.as_bytes()).is_err(), "{head}");
        }
        let endless = format!("HTTP/1.1 200 OK\r\nA: {}", "a".repeat(MAX_HEAD));
        assert_eq!(parse(endless.as_bytes()), Err("the head of the response is too large"));
    }
}
