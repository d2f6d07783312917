//! Arbitrary compressed extents: each is decoded to exactly its length, or is an error, within bounded memory.
//!
//! The first byte of the input selects the algorithm and the size of a sector, the next three are the length of the contents; the rest
//! is the extent.
#![no_main]

use std::{alloc::System, panic};

use cap::Cap;
use libfuzzer_sys::fuzz_target;
use rtftp_runtime::fs::{Codec, Compressed, CompressedExtent, Error, FileMap};

/// Counts what is allocated.
#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

/// The maximum memory in use at any time, in bytes.
const MAX_MEMORY: usize = 4 << 20;
/// The maximum number of bytes that are allocated in all, a measure of the work.
const MAX_WORK: usize = 32 << 20;
/// The maximum length of the contents of an extent in bytes.
const MAX_DECODED: usize = 128 << 10;
const CODECS: [Codec; 3] = [Codec::Zlib, Codec::Lzo, Codec::Zstd];

fuzz_target!(init: ignore_panics_of_zstd(), |data: &[u8]| {
    let Some(([form, len @ ..], bytes)) = data.split_first_chunk::<4>() else { return };
    let form = usize::from(*form);
    let decoded = u32::from_le_bytes([len[0], len[1], len[2], 0]) as usize % MAX_DECODED + 1;
    let sector = 4096 << (form / CODECS.len() % 5);
    let form = Compressed { codec: CODECS[form % CODECS.len()], len: bytes.len(), decoded, sector };
    let extent = CompressedExtent { file_offset: 0, len: decoded as u64, disk_offset: 0, form, skip: 0 };
    let file = FileMap { size: decoded as u64, compressed: vec![extent], ..FileMap::default() };
    let disk = bytes.to_vec();
    let (memory, work) = (ALLOCATOR.allocated(), ALLOCATOR.total_allocated());
    // An allocation beyond the limit aborts the process.
    ALLOCATOR.set_limit(memory + MAX_MEMORY).expect("it is not reached yet");
    let read = smol::block_on(file.read(&disk, 0, decoded));
    ALLOCATOR.set_limit(usize::MAX).expect("there is none");
    match read {
        Ok(bytes) => assert_eq!(bytes.len(), decoded),
        Err(Error::Corrupt(_)) => {}
        Err(error) => panic!("{error}"),
    }
    let work = ALLOCATOR.total_allocated() - work;
    assert!(work < MAX_WORK, "{work} bytes were allocated");
});

/// The decoder of zstd, which has checks for overflow here, may panic: the caller makes an error of it.
fn ignore_panics_of_zstd() {
    let report = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        if panic.location().is_some_and(|location| location.file().contains("ruzstd")) {
            return;
        }
        ALLOCATOR.set_limit(usize::MAX).expect("there is none");
        report(panic);
    }));
}
