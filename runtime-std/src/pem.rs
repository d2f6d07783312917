//! Files with certificates in the PEM format.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

/// The largest part of a file that is read, in bytes. The bundle of authorities of a distribution has some hundred KiB.
const MAX_FILE: u64 = 16 << 20;

/// The description of a file without certificates.
pub(crate) const NO_CERTIFICATE: &str = "no certificate in the PEM format (-----BEGIN CERTIFICATE-----)";

/// Reads a file. Blocks.
pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = vec![];
    File::open(path)?.take(MAX_FILE).read_to_end(&mut bytes)?;
    Ok(bytes)
}
