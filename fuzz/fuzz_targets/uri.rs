//! A parsed NBD URI can be written, and parses to the same URI again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rtftp_core::config::uri::NbdUri;

fuzz_target!(|uri: &str| {
    if let Ok(parsed) = NbdUri::parse(uri) {
        assert_eq!(NbdUri::parse(&parsed.to_string()).as_ref(), Ok(&parsed));
    }
});
