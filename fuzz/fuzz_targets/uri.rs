//! An NBD URI that is read can be written, and is read again as the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rtftp_core::config::uri::NbdUri;

fuzz_target!(|uri: &str| {
    if let Ok(read) = NbdUri::parse(uri) {
        assert_eq!(NbdUri::parse(&read.to_string()).as_ref(), Ok(&read));
    }
});
