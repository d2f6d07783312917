//! Responses. No part of a request is repeated in a response.

use std::sync::Arc;

/// The policy of all responses: a browser loads nothing and shows them in no frame.
const BASE_POLICY: &str = "default-src 'none'; frame-ancestors 'none'";

/// The status of a response (RFC 9110, section 15).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    Ok,
    BadRequest,
    NotFound,
    MethodNotAllowed,
    RequestTimeout,
    Misdirected,
    TooLarge,
    Unavailable,
}

impl Status {
    /// Returns code and reason phrase.
    fn line(self) -> &'static str {
        match self {
            Self::Ok => "200 OK",
            Self::BadRequest => "400 Bad Request",
            Self::NotFound => "404 Not Found",
            Self::MethodNotAllowed => "405 Method Not Allowed",
            Self::RequestTimeout => "408 Request Timeout",
            Self::Misdirected => "421 Misdirected Request",
            Self::TooLarge => "431 Request Header Fields Too Large",
            Self::Unavailable => "503 Service Unavailable",
        }
    }

    /// Returns the explanation in the body.
    fn explanation(self) -> &'static str {
        match self {
            Self::Ok | Self::Unavailable => "",
            Self::BadRequest => "not an HTTP/1.1 request",
            Self::NotFound => {
                "the paths are /, /boots.json, /board.json?ADDRESS, /events, /metrics, /healthz and /readyz"
            }
            Self::MethodNotAllowed => "use GET or HEAD",
            Self::RequestTimeout => "the request was not complete within 2 s",
            Self::Misdirected => "use the IP address of this server, its host name, or localhost",
            Self::TooLarge => "the limits are 8192 bytes and 64 headers",
        }
    }
}

/// A response.
#[derive(Debug)]
pub(super) struct Response {
    status: Status,
    content_type: &'static str,
    /// The Content-Security-Policy.
    policy: String,
    pub(super) body: Arc<Vec<u8>>,
    /// Whether events follow, up to the end of the connection, instead of a body.
    pub(super) has_events: bool,
}

impl Response {
    /// Creates a successful response.
    pub(super) fn new(content_type: &'static str, body: Arc<Vec<u8>>) -> Self {
        Self { status: Status::Ok, content_type, policy: BASE_POLICY.into(), body, has_events: false }
    }

    /// Creates a response that events follow.
    pub(super) fn events() -> Self {
        Self { has_events: true, ..Self::new("text/event-stream", Arc::default()) }
    }

    /// Creates an error response with an explanation.
    pub(super) fn error(status: Status) -> Self {
        let body = format!("{}: {}\n", status.line(), status.explanation()).into_bytes();
        Self { status, ..Self::new("text/plain; charset=utf-8", Arc::new(body)) }
    }

    /// Creates the response of a failed probe.
    pub(super) fn unavailable(reason: &str) -> Self {
        let body = format!("{reason}\n").into_bytes();
        Self { status: Status::Unavailable, ..Self::new("text/plain; charset=utf-8", Arc::new(body)) }
    }

    /// Adds directives to the Content-Security-Policy.
    pub(super) fn with_policy(mut self, directives: &str) -> Self {
        self.policy = format!("{BASE_POLICY}; {directives}");
        self
    }

    /// Returns the status line and the headers, with the final empty line.
    pub(super) fn head(&self) -> String {
        let length = if self.has_events { String::new() } else { format!("Content-Length: {}\r\n", self.body.len()) };
        let allow = if self.status == Status::MethodNotAllowed { "Allow: GET, HEAD\r\n" } else { "" };
        format!(
            "HTTP/1.1 {}\r\n\
             {allow}\
             Content-Type: {}\r\n\
             {length}\
             Content-Security-Policy: {}\r\n\
             X-Content-Type-Options: nosniff\r\n\
             Cross-Origin-Resource-Policy: same-origin\r\n\
             Referrer-Policy: no-referrer\r\n\
             Cache-Control: no-store\r\n\
             Connection: close\r\n\
             \r\n",
            self.status.line(),
            self.content_type,
            self.policy,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn head_consists_of_valid_header_lines() {
        let responses = [
            Response::new("application/json", Arc::new(b"{}".into())),
            Response::new("text/html", Arc::default()).with_policy("img-src data:"),
            Response::error(Status::MethodNotAllowed),
        ];
        for response in responses {
            let head = response.head();
            let lines = head.strip_suffix("\r\n\r\n").expect("an empty line at the end");
            for line in lines.split("\r\n").skip(1) {
                let (name, value) = line.split_once(": ").expect(line);
                assert!(name.bytes().all(|byte| byte.is_ascii_alphabetic() || byte == b'-'), "{line}");
                assert!(!value.is_empty() && value.bytes().all(|byte| matches!(byte, b' '..=b'~')), "{line}");
            }
            assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", response.body.len())), "{head}");
        }
    }

    #[test]
    fn only_method_not_allowed_has_an_allow_header() {
        assert!(Response::error(Status::MethodNotAllowed).head().contains("\r\nAllow: GET, HEAD\r\n"));
        assert!(!Response::error(Status::NotFound).head().contains("Allow:"));
    }

    #[test]
    fn events_have_no_length() {
        let head = Response::events().head();
        assert!(head.contains("\r\nContent-Type: text/event-stream\r\n") && !head.contains("Content-Length"), "{head}");
    }
}
