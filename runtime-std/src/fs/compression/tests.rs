//! Decodes and rejects small extents.

use super::*;

fn decode(codec: Codec, bytes: &[u8], decoded: usize) -> Option<Vec<u8>> {
    Compressed { codec, len: bytes.len(), decoded, sector: 4096 }.decode(bytes)
}

/// An LZO extent with one segment.
fn lzo(segment: &[u8]) -> Vec<u8> {
    let len = segment.len() as u32;
    [&(len + 8).to_le_bytes()[..], &len.to_le_bytes(), segment].concat()
}

#[test]
fn decodes_literals_and_matches_of_lzo() {
    // Four literals, then 12 bytes at distance 4, then the end.
    let segment = [&[17 + 4][..], b"abcd", &[32 + 10, 3 << 2, 0], &[17, 0, 0]].concat();
    let extent = lzo(&segment);
    assert_eq!(decode(Codec::Lzo, &extent, 16).as_deref(), Some(&b"abcdabcdabcdabcd"[..]));
    assert_eq!(decode(Codec::Lzo, &extent, 15), None, "longer than expected");
    assert_eq!(decode(Codec::Lzo, &extent, 17).as_deref(), Some(&b"abcdabcdabcdabcd\0"[..]));
    assert_eq!(decode(Codec::Lzo, &extent, 16 + 4096), None, "shorter than expected");
    for len in 0..extent.len() {
        assert_eq!(decode(Codec::Lzo, &extent[..len], 16), None, "{len} bytes");
    }
    let before_start = [&[17 + 4][..], b"abcd", &[32 + 10, 4 << 2, 0], &[17, 0, 0]].concat();
    assert_eq!(decode(Codec::Lzo, &lzo(&before_start), 16), None);
}

#[test]
fn decodes_zlib_within_its_length() {
    // "hello" as a stored block.
    let stored = [&[0x78, 0x01, 1, 5, 0, 0xfa, 0xff][..], b"hello", &[0x06, 0x2c, 0x02, 0x15], &[0; 20]].concat();
    assert_eq!(decode(Codec::Zlib, &stored, 5).as_deref(), Some(&b"hello"[..]));
    assert_eq!(decode(Codec::Zlib, &stored, 6).as_deref(), Some(&b"hello\0"[..]));
    assert_eq!(decode(Codec::Zlib, &stored, 4), None);
    assert_eq!(decode(Codec::Zlib, &stored, 5 + 4096), None);
    assert_eq!(decode(Codec::Zlib, &stored[..10], 5), None);
}

#[test]
fn decodes_zstd_within_its_length() {
    // A frame with one raw block, followed by zeros.
    let header = |window: u8| [0x28, 0xb5, 0x2f, 0xfd, 0, window];
    let block = |kind: u32, len: u32| (1 | kind << 1 | len << 3).to_le_bytes()[..3].to_vec();
    let raw = [&header(0)[..], &block(0, 5), b"hello", &[0; 20]].concat();
    assert_eq!(decode(Codec::Zstd, &raw, 5).as_deref(), Some(&b"hello"[..]));
    assert_eq!(decode(Codec::Zstd, &raw, 6).as_deref(), Some(&b"hello\0"[..]));
    assert_eq!(decode(Codec::Zstd, &raw, 4), None);
    assert_eq!(decode(Codec::Zstd, &raw, 5 + 4096), None);
    let repeated = [&header(0)[..], &block(1, 1000), b"x"].concat();
    assert_eq!(decode(Codec::Zstd, &repeated, 1000), Some(vec![b'x'; 1000]));
    // A window of 2 GiB.
    let large = [&header(21 << 3)[..], &block(0, 5), b"hello"].concat();
    assert_eq!(decode(Codec::Zstd, &large, 5), None);
}
