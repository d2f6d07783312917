//! The head of a response, as boot clients need it.
//!
//! GRUB compares names of header fields with their case, needs `Content-Length`, and takes the body of an error for the file. So
//! names are written in their usual case, every response has a length, and errors have no body.

use std::{fmt::Write as _, ops::Range, time::SystemTime};

use super::{conditions::Version, request::Persistence, status::Status};

/// The seconds after which a client should repeat a request for a disk that is not available.
const RETRY_AFTER: u32 = 2;
/// The media types of file name suffixes. UEFI firmware boots by the type if it does not know the suffix.
const TYPES: [(&[u8], &str); 8] = [
    (b".efi", EFI),
    (b".iso", "application/vnd.efi-iso"),
    (b".img", "application/vnd.efi-img"),
    (b".cfg", TEXT),
    (b".conf", TEXT),
    (b".ipxe", TEXT),
    (b".txt", TEXT),
    (b".json", "application/json"),
];
const EFI: &str = "application/efi";
const TEXT: &str = "text/plain; charset=utf-8";

/// The bytes at the start of a file that show its type.
pub(crate) const TYPE_BYTES: u32 = 1024;

/// The file of a successful response.
#[derive(Debug)]
pub(super) struct Entity {
    /// The size of the file in bytes.
    pub(super) size: u64,
    /// The bytes that follow.
    pub(super) part: Range<u64>,
    pub(super) content_type: &'static str,
    pub(super) version: Version,
}

/// Returns the head of a response. `entity` is the file, if it was found.
pub(super) fn head(status: Status, entity: Option<&Entity>, persistence: Persistence) -> String {
    let mut head = format!("HTTP/1.1 {}\r\nDate: {}\r\n", status.line(), httpdate::HttpDate::from(SystemTime::now()));
    // Writing to a string cannot fail.
    let mut field = |name: &str, value: &dyn std::fmt::Display| _ = write!(head, "{name}: {value}\r\n");
    match (status, entity) {
        (Status::Ok | Status::PartialContent, Some(entity)) => {
            field("Content-Length", &(entity.part.end - entity.part.start));
            field("Content-Type", &entity.content_type);
            field("Accept-Ranges", &"bytes");
            if status == Status::PartialContent {
                let Range { start, end } = entity.part;
                field("Content-Range", &format_args!("bytes {start}-{}/{}", end.saturating_sub(1), entity.size));
            }
        }
        (Status::RangeNotSatisfiable, Some(entity)) => {
            field("Content-Range", &format_args!("bytes */{}", entity.size));
            field("Content-Length", &0);
        }
        (Status::NotModified, _) => {}
        _ => field("Content-Length", &0),
    }
    if let Some(Version { tag, modified }) = entity.map(|entity| &entity.version) {
        tag.iter().for_each(|tag| field("ETag", tag));
        modified.iter().for_each(|time| field("Last-Modified", &httpdate::HttpDate::from(*time)));
    }
    match status {
        Status::Unavailable => field("Retry-After", &RETRY_AFTER),
        Status::MethodNotAllowed => field("Allow", &"GET, HEAD"),
        _ => {}
    }
    match persistence {
        Persistence::Kept => {}
        Persistence::Announced => field("Connection", &"keep-alive"),
        Persistence::Closed | Persistence::ClosedByClient => field("Connection", &"close"),
    }
    head + "\r\n"
}

/// Returns the media type of a file with this name and these first bytes.
pub(crate) fn content_type(name: &[u8], start: &[u8]) -> &'static str {
    let name = name.to_ascii_lowercase();
    let known = TYPES.iter().find(|(suffix, _)| name.ends_with(suffix));
    match known {
        Some((_, content_type)) => content_type,
        None if is_efi_program(start) => EFI,
        None => "application/octet-stream",
    }
}

/// Returns whether a file with these first bytes is an EFI program, such as a Linux kernel: a portable executable (PE).
fn is_efi_program(start: &[u8]) -> bool {
    let offset = start.get(0x3c..0x40).and_then(|offset| offset.try_into().ok()).map(u32::from_le_bytes);
    let header = offset.and_then(|offset| start.get(usize::try_from(offset).ok()?..));
    start.starts_with(b"MZ") && header.is_some_and(|header| header.starts_with(b"PE\0\0"))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn entity(part: Range<u64>) -> Entity {
        let modified = Some(UNIX_EPOCH + Duration::from_secs(784_111_777));
        Entity { size: 10, part, content_type: EFI, version: Version { tag: Some("\"a\"".into()), modified } }
    }

    /// Returns the head without its date.
    fn lines(status: Status, entity: Option<&Entity>) -> String {
        let head = head(status, entity, Persistence::Kept);
        head.split("\r\n").filter(|line| !line.starts_with("Date: ")).collect::<Vec<_>>().join("|")
    }

    #[test]
    fn describes_whole_files_and_parts() {
        let common = "Content-Type: application/efi|Accept-Ranges: bytes";
        let version = "ETag: \"a\"|Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT||";
        assert_eq!(
            lines(Status::Ok, Some(&entity(0..10))),
            format!("HTTP/1.1 200 OK|Content-Length: 10|{common}|{version}")
        );
        assert_eq!(
            lines(Status::PartialContent, Some(&entity(2..6))),
            format!("HTTP/1.1 206 Partial Content|Content-Length: 4|{common}|Content-Range: bytes 2-5/10|{version}")
        );
        assert_eq!(
            lines(Status::RangeNotSatisfiable, Some(&entity(0..0))),
            format!("HTTP/1.1 416 Range Not Satisfiable|Content-Range: bytes */10|Content-Length: 0|{version}")
        );
    }

    #[test]
    fn errors_have_no_body() {
        assert_eq!(lines(Status::NotFound, None), "HTTP/1.1 404 Not Found|Content-Length: 0||");
        assert_eq!(
            lines(Status::Unavailable, None),
            "HTTP/1.1 503 Service Unavailable|Content-Length: 0|Retry-After: 2||"
        );
        assert_eq!(
            lines(Status::MethodNotAllowed, None),
            "HTTP/1.1 405 Method Not Allowed|Content-Length: 0|Allow: GET, HEAD||"
        );
    }

    #[test]
    fn states_whether_the_connection_is_kept_open() {
        for (persistence, expected) in [
            (Persistence::Kept, None),
            (Persistence::Announced, Some("keep-alive")),
            (Persistence::Closed, Some("close")),
        ] {
            let head = head(Status::NotFound, None, persistence);
            assert_eq!(head.split("\r\n").find_map(|line| line.strip_prefix("Connection: ")), expected);
        }
    }

    #[test]
    fn efi_programs_have_their_media_type() {
        let mut program = [0; 0x80];
        program[..2].copy_from_slice(b"MZ");
        program[0x3c] = 0x40;
        program[0x40..0x44].copy_from_slice(b"PE\0\0");
        for (name, start, expected) in [
            ("boot/vmlinuz", &program[..], EFI),
            ("boot/vmlinuz", &program[..0x42], "application/octet-stream"),
            ("boot/vmlinuz", b"MZ", "application/octet-stream"),
            ("EFI/BOOT/BOOTX64.EFI", b"", EFI),
            ("grub/grub.cfg", b"", TEXT),
            ("debian.iso", &program[..], "application/vnd.efi-iso"),
        ] {
            assert_eq!(content_type(name.as_bytes(), start), expected, "{name}");
        }
    }
}
