//! Granted options were requested, and are within the limits.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rtftp_core::wire::{
    options::{Limits, negotiate},
    packet::Options,
};

fuzz_target!(|input: (&[u8], u16, u16, u32, Option<u64>)| {
    let (requested, blksize, windowsize, window_bytes, size) = input;
    let limits = Limits { blksize: blksize.max(8), windowsize: windowsize.max(1), window_bytes };
    let (settings, granted) = negotiate(Options::new(requested), &limits, size);
    for (name, value) in granted.options() {
        assert!(Options::new(requested).any(|(other, _)| other == name), "not requested");
        assert!(!value.is_empty() && value.iter().all(u8::is_ascii_digit));
        let count = granted.options().filter(|(other, _)| other.eq_ignore_ascii_case(name)).count();
        assert_eq!(count, 1, "granted twice");
    }
    assert!(settings.blksize == 512 || (8..=limits.blksize).contains(&settings.blksize));
    assert!((1..=limits.windowsize).contains(&settings.windowsize));
    let bytes = u64::from(settings.blksize) * u64::from(settings.windowsize);
    assert!(settings.windowsize == 1 || bytes <= u64::from(window_bytes));
});
