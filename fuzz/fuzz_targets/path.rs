//! A requested name is rejected, or becomes a path that cannot leave its root.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rtftp_core::RequestPath;

fuzz_target!(|name: &[u8]| {
    let Ok(path) = RequestPath::parse(name) else { return };
    for name in path.names() {
        assert!(!matches!(name, b"" | b"." | b".."));
        assert!(!name.iter().any(|byte| matches!(byte, b'/' | b'\\' | 0)));
    }
    assert_eq!(RequestPath::parse(path.as_bytes()).as_ref(), Ok(&path), "a path parses to itself");
});
