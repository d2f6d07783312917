//! Arbitrary bytes of an HTTP client: the requests are the same however the bytes are split, a path never leaves its root, and a
//! part never exceeds its file.
#![no_main]

use std::time::{Duration, UNIX_EPOCH};

use libfuzzer_sys::fuzz_target;
use rtftp_runtime::http::{
    Status,
    conditions::Version,
    range::Part,
    request::{MAX_HEAD, Request, parse, take_head},
};

/// The most places at which an input is split, of which each needs the work again.
const MAX_SPLITS: usize = 64;
const SIZES: [u64; 6] = [0, 1, 10, 4096, 43 << 20, u64::MAX];
const TAG: &str = "\"a\"";

/// The heads of all requests, and the error after which the connection is closed.
type Heads = (Vec<Vec<u8>>, Option<Status>);

/// Takes the heads from the pieces of a connection.
fn heads<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Heads {
    let (mut heads, mut received) = (vec![], vec![]);
    for piece in pieces {
        received.extend_from_slice(piece);
        loop {
            let before = received.clone();
            match take_head(&mut received) {
                Ok(head) => {
                    let len = head.as_ref().map_or(0, Vec::len);
                    assert!(before.ends_with(&received) && before.len() >= received.len() + len);
                    assert!(before[..before.len() - received.len()].ends_with(head.as_deref().unwrap_or_default()));
                    assert!(received.len().min(len) <= MAX_HEAD && (head.is_some() || received.len() <= MAX_HEAD));
                    let Some(head) = head else { break };
                    assert!(len > 0, "each request takes bytes");
                    heads.push(head);
                }
                Err(status) => return (heads, Some(status)),
            }
        }
    }
    (heads, None)
}

fn check_request(request: &Request<'_>) {
    for prefix in ["", "/boot", "a/b/"] {
        let Ok(path) = request.path(prefix) else { continue };
        for name in path.names() {
            assert!(!matches!(name, b"" | b"." | b".."), "{path} leaves its root");
            assert!(!name.iter().any(|byte| matches!(byte, b'/' | b'\\' | 0)), "{path} is not plain");
        }
        let whole = request.path("").expect("a part of it is valid");
        assert!(whole.as_bytes().ends_with(path.as_bytes()), "only a prefix is removed");
    }
    let now = UNIX_EPOCH + Duration::from_secs(1 << 31);
    for version in [Version::default(), Version::new(Some(TAG.into()), Some(UNIX_EPOCH), now)] {
        let _ = request.conditions.evaluate(&version);
        for size in SIZES {
            match request.part(&version, size, now) {
                Part::Bytes(part) => {
                    assert!(part.start < part.end && part.end <= size, "{part:?} of {size} bytes");
                    assert!(request.range.is_some() && !request.is_head);
                    assert!(request.conditions.if_range.is_none() || version.tag.is_some());
                }
                Part::Unsatisfiable => assert!(request.range.is_some() && !request.is_head),
                Part::Whole => {}
            }
        }
    }
}

fuzz_target!(|bytes: &[u8]| {
    let whole = heads([bytes]);
    for at in (0..bytes.len()).step_by(bytes.len() / MAX_SPLITS + 1) {
        let (first, second) = bytes.split_at(at);
        assert_eq!(heads([first, second]), whole, "split at {at}");
    }
    if bytes.len() <= 1024 {
        assert_eq!(heads(bytes.chunks(1)), whole, "byte by byte");
    }
    for head in &whole.0 {
        match parse(head) {
            Ok(request) => check_request(&request),
            Err(status) => assert!(!matches!(status, Status::Ok | Status::PartialContent | Status::NotModified)),
        }
    }
});
