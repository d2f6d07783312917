//! Files with certificates and keys in the PEM format.

use std::{
    error, fmt,
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

/// The largest part of a file that is read, in bytes. The bundle of authorities of a distribution has some hundred KiB.
const MAX_FILE: u64 = 16 << 20;

/// The reason why a file in the PEM format cannot be used.
#[derive(Debug)]
#[non_exhaustive]
pub enum PemError {
    /// The file cannot be read.
    Read(PathBuf, io::Error),
    /// The file contains no certificate in the PEM format.
    NoCertificate(PathBuf),
    /// The file contains no key in the PEM format, or an encrypted one.
    NoKey(PathBuf),
    /// The file contains no list of revoked certificates in the PEM format.
    NoRevocationList(PathBuf),
}

/// Reads a file. Blocks.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, PemError> {
    let mut bytes = vec![];
    let read = File::open(path).and_then(|file| file.take(MAX_FILE).read_to_end(&mut bytes));
    read.map_err(|error| PemError::Read(path.to_owned(), error))?;
    Ok(bytes)
}

/// Reads the certificates of authorities. Blocks. A bundle may contain certificates of kinds that are not known here.
pub(crate) fn authorities(path: &Path) -> Result<RootCertStore, PemError> {
    let pem = read(path)?;
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok));
    if added == 0 { Err(PemError::NoCertificate(path.to_owned())) } else { Ok(roots) }
}

/// Reads a certificate, followed by those of intermediate authorities. Blocks.
pub(crate) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, PemError> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(path)?).collect();
    let chain = chain.ok().filter(|chain| !chain.is_empty());
    chain.ok_or_else(|| PemError::NoCertificate(path.to_owned()))
}

/// Reads a key. Blocks.
pub(crate) fn key(path: &Path) -> Result<PrivateKeyDer<'static>, PemError> {
    PrivateKeyDer::from_pem_slice(&read(path)?).map_err(|_| PemError::NoKey(path.to_owned()))
}

impl fmt::Display for PemError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(path, error) => write!(f, "{}: {error}", path.display()),
            Self::NoCertificate(path) => {
                write!(f, "{}: no certificate in the PEM format (-----BEGIN CERTIFICATE-----)", path.display())
            }
            Self::NoRevocationList(path) => {
                write!(
                    f,
                    "{}: no list of revoked certificates in the PEM format (-----BEGIN X509 CRL-----)",
                    path.display()
                )
            }
            Self::NoKey(path) => write!(
                f,
                "{}: no key in the PEM format, or an encrypted one: `openssl pkey` writes it without a passphrase",
                path.display()
            ),
        }
    }
}

impl error::Error for PemError {}
