//! What is answered. Nothing of a request goes into an answer.

use std::sync::Arc;

/// What everybody may do with the answer: nothing but show it.
const NOTHING: &str = "default-src 'none'; frame-ancestors 'none'";

/// How a request ended (RFC 9110, section 15).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    Ok,
    BadRequest,
    NotFound,
    MethodNotAllowed,
    RequestTimeout,
    Misdirected,
    TooLarge,
}

impl Status {
    /// As it stands in the first line.
    fn line(self) -> &'static str {
        match self {
            Self::Ok => "200 OK",
            Self::BadRequest => "400 Bad Request",
            Self::NotFound => "404 Not Found",
            Self::MethodNotAllowed => "405 Method Not Allowed",
            Self::RequestTimeout => "408 Request Timeout",
            Self::Misdirected => "421 Misdirected Request",
            Self::TooLarge => "431 Request Header Fields Too Large",
        }
    }

    /// What to do.
    fn advice(self) -> &'static str {
        match self {
            Self::Ok => "",
            Self::BadRequest => "this is not a request of HTTP/1.1",
            Self::NotFound => "there are /, /boots.json and /metrics",
            Self::MethodNotAllowed => "only GET and HEAD are possible",
            Self::RequestTimeout => "a request must be here within 5 s",
            Self::Misdirected => "ask for this server by its address, or as localhost",
            Self::TooLarge => "a request may have 8192 bytes and 64 headers",
        }
    }
}

/// An answer.
#[derive(Debug)]
pub(super) struct Response {
    status: Status,
    content_type: &'static str,
    /// What a browser may do with it.
    policy: String,
    pub(super) body: Arc<Vec<u8>>,
}

impl Response {
    /// What was asked for.
    pub(super) fn new(content_type: &'static str, body: Arc<Vec<u8>>) -> Self {
        Self { status: Status::Ok, content_type, policy: NOTHING.into(), body }
    }

    /// Why there is no other answer, for people.
    pub(super) fn refusal(status: Status) -> Self {
        let body = format!("{}: {}\n", status.line(), status.advice()).into_bytes();
        Self { status, ..Self::new("text/plain; charset=utf-8", Arc::new(body)) }
    }

    /// Allows a browser more than to show it, by directives of a Content-Security-Policy.
    pub(super) fn allowing(mut self, directives: &str) -> Self {
        self.policy = format!("{NOTHING}; {directives}");
        self
    }

    /// The first line and the headers, with the empty line at their end.
    pub(super) fn head(&self) -> String {
        let allow = if self.status == Status::MethodNotAllowed { "Allow: GET, HEAD\r\n" } else { "" };
        format!(
            "HTTP/1.1 {}\r\n\
             {allow}\
             Content-Type: {}\r\n\
             Content-Length: {}\r\n\
             Content-Security-Policy: {}\r\n\
             X-Content-Type-Options: nosniff\r\n\
             Cross-Origin-Resource-Policy: same-origin\r\n\
             Referrer-Policy: no-referrer\r\n\
             Cache-Control: no-store\r\n\
             Connection: close\r\n\
             \r\n",
            self.status.line(),
            self.content_type,
            self.body.len(),
            self.policy,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_lines_of_names_and_values() {
        let answers = [
            Response::new("application/json", Arc::new(b"{}".into())),
            Response::new("text/html", Arc::default()).allowing("img-src data:"),
            Response::refusal(Status::MethodNotAllowed),
        ];
        for answer in answers {
            let head = answer.head();
            let lines = head.strip_suffix("\r\n\r\n").expect("an empty line at the end");
            for line in lines.split("\r\n").skip(1) {
                let (name, value) = line.split_once(": ").expect(line);
                assert!(name.bytes().all(|byte| byte.is_ascii_alphabetic() || byte == b'-'), "{line}");
                assert!(!value.is_empty() && value.bytes().all(|byte| matches!(byte, b' '..=b'~')), "{line}");
            }
            assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", answer.body.len())), "{head}");
        }
    }

    #[test]
    fn only_a_wrong_method_is_told_the_right_ones() {
        assert!(Response::refusal(Status::MethodNotAllowed).head().contains("\r\nAllow: GET, HEAD\r\n"));
        assert!(!Response::refusal(Status::NotFound).head().contains("Allow:"));
    }
}
