//! Conditional requests and parts of a file (RFC 9110 sections 13 and 14).

use super::{
    range::{self, Part},
    request::Request,
};

impl Request<'_> {
    /// Returns the part to send of a file with this entity tag and `size` bytes.
    #[must_use]
    pub fn part(&self, tag: Option<&str>, size: u64) -> Part {
        let Some(range) = self.range.filter(|_| !self.is_head) else { return Part::Whole };
        // The rest of another version would not fit to what the client has (section 13.1.5).
        if self.if_range.is_some_and(|known| tag.is_none_or(|tag| known != tag.as_bytes())) {
            return Part::Whole;
        }
        range::parse(range, size)
    }

    /// Returns whether the client has a file with this entity tag already (section 13.1.2).
    #[must_use]
    pub fn has_version(&self, tag: Option<&str>) -> bool {
        let (Some(list), Some(tag)) = (self.if_none_match, tag) else { return false };
        let mut tags = list.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        tags.any(|known| known == b"*" || known.strip_prefix(b"W/").unwrap_or(known) == tag.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::{super::request::parse, *};

    const TAG: Option<&str> = Some("\"a\"");

    /// Passes the request with these header fields to `check`.
    fn with<T>(method: &str, fields: &str, check: impl Fn(&Request<'_>) -> T) -> T {
        let head = format!("{method} / HTTP/1.1\r\n{fields}\r\n");
        check(&parse(head.as_bytes()).expect(fields))
    }

    #[test]
    fn sends_a_part_of_the_same_version_only() {
        for (method, fields, tag, expected) in [
            ("GET", "", TAG, Part::Whole),
            ("GET", "Range: bytes=2-\r\n", TAG, Part::Bytes(2..10)),
            ("HEAD", "Range: bytes=2-\r\n", TAG, Part::Whole),
            ("GET", "Range: bytes=2-\r\nIf-Range: \"a\"\r\n", TAG, Part::Bytes(2..10)),
            ("GET", "Range: bytes=2-\r\nIf-Range: \"b\"\r\n", TAG, Part::Whole),
            ("GET", "Range: bytes=2-\r\nIf-Range: W/\"a\"\r\n", TAG, Part::Whole),
            ("GET", "Range: bytes=2-\r\nIf-Range: \"a\"\r\n", None, Part::Whole),
        ] {
            assert_eq!(with(method, fields, |request| request.part(tag, 10)), expected, "{method} {fields}");
        }
    }

    #[test]
    fn recognises_the_version_of_the_client() {
        for (fields, tag, expected) in [
            ("", TAG, false),
            ("If-None-Match: \"a\"\r\n", TAG, true),
            ("If-None-Match: \"b\", W/\"a\"\r\n", TAG, true),
            ("If-None-Match: *\r\n", TAG, true),
            ("If-None-Match: \"b\"\r\n", TAG, false),
            ("If-None-Match: *\r\n", None, false),
        ] {
            assert_eq!(with("GET", fields, |request| request.has_version(tag)), expected, "{fields}");
        }
    }
}
