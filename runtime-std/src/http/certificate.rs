//! The certificate of the server and its key, from two files that can be read again.

use std::{
    error, fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use parking_lot::Mutex;
use rustls::{InconsistentKeys, ServerConfig, pki_types::CertificateDer};
use x509_cert::{
    Certificate,
    der::{DateTime, Decode},
};

use super::ffdhe;
use crate::{
    clock::within,
    pem::{self, PemError},
    unsandboxed,
};

/// The time limit for reading the files again.
const READ_TIMEOUT: Duration = Duration::from_secs(10);
/// The time before the end of a certificate at which that is reported.
const EXPIRY_WARNING: Duration = Duration::from_secs(14 * 24 * 3600);

/// The files of a certificate and its key, in the PEM format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate, followed by those of intermediate authorities.
    pub certificate: PathBuf,
    /// The key, which is not encrypted.
    pub key: PathBuf,
}

/// The certificate that the server presents.
#[derive(Debug)]
pub struct Tls {
    files: TlsFiles,
    config: Mutex<Arc<ServerConfig>>,
}

/// The reason why a certificate cannot be used.
#[derive(Debug)]
#[non_exhaustive]
pub enum TlsError {
    /// A file cannot be read, or has other contents.
    File(PemError),
    /// The key is not that of the certificate.
    WrongKey(TlsFiles),
    /// The certificate or the key is not valid, or of an unknown kind.
    Invalid(TlsFiles, rustls::Error),
    /// The thread for reading could not be started, or did not end in time.
    Timeout,
}

impl Tls {
    /// Reads the files. Blocks. Logs when the certificate expires.
    ///
    /// # Errors
    ///
    /// Returns [`TlsError`].
    pub fn load(files: TlsFiles) -> Result<Self, TlsError> {
        let config = load(&files)?;
        Ok(Self { files, config: Mutex::new(config) })
    }

    /// Reads the files again, for connections from now on. Logs an error, and keeps the present certificate then.
    pub async fn reload(&self) {
        let files = self.files.clone();
        // The sandbox does not show the files to other threads.
        let loaded = unsandboxed::spawn(move || load(&files));
        let loaded = within(READ_TIMEOUT, loaded.recv()).await.and_then(Result::ok).unwrap_or(Err(TlsError::Timeout));
        match loaded {
            Ok(config) => *self.config.lock() = config,
            Err(error) => log::error!("{error}; the certificate read before stays in use"),
        }
    }

    /// Returns the configuration for a new connection.
    pub(super) fn config(&self) -> Arc<ServerConfig> {
        self.config.lock().clone()
    }
}

/// Reads the files and checks that they belong together.
fn load(files: &TlsFiles) -> Result<Arc<ServerConfig>, TlsError> {
    let TlsFiles { certificate, key } = files;
    let chain = pem::certificates(certificate)?;
    let private_key = pem::key(key)?;
    let validity = chain.first().and_then(|first| validity(first));
    let invalid = |error| match error {
        rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => TlsError::WrongKey(files.clone()),
        error => TlsError::Invalid(files.clone(), error),
    };
    // Without protocols for ALPN: every client speaks HTTP/1, whatever it offers.
    let config = ServerConfig::builder_with_provider(ffdhe::provider())
        .with_safe_default_protocol_versions()
        .map_err(invalid)?
        .with_no_client_auth()
        .with_single_cert(chain, private_key)
        .map_err(invalid)?;
    if let Some(validity) = validity {
        report(certificate, validity, SystemTime::now());
    }
    Ok(Arc::new(config))
}

/// Returns the first and the last moment at which a certificate is valid.
fn validity(certificate: &CertificateDer<'_>) -> Option<(DateTime, DateTime)> {
    let certificate = Certificate::from_der(certificate).ok()?;
    let validity = certificate.tbs_certificate().validity();
    Some((validity.not_before.to_date_time(), validity.not_after.to_date_time()))
}

/// Logs until when a certificate is valid: as a warning if that is soon, or clients reject it already.
fn report(path: &Path, (first, last): (DateTime, DateTime), now: SystemTime) {
    let path = path.display();
    if last.to_system_time() < now {
        log::warn!("{path}: the certificate expired at {last}: clients reject it; renew it and reload");
    } else if first.to_system_time() > now {
        log::warn!("{path}: the certificate is not valid before {first}: clients reject it; is the clock right?");
    } else if last.to_system_time() < now + EXPIRY_WARNING {
        log::warn!("{path}: the certificate expires at {last}: renew it and reload");
    } else {
        log::info!("{path}: the certificate is valid until {last}");
    }
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(error) => error.fmt(f),
            Self::WrongKey(TlsFiles { certificate, key }) => {
                write!(f, "{}: not the key of the certificate {}", key.display(), certificate.display())
            }
            Self::Invalid(TlsFiles { certificate, key }, error) => {
                write!(f, "{}, {}: cannot be used: {error}", certificate.display(), key.display())
            }
            Self::Timeout => write!(f, "certificate not read within {} s", READ_TIMEOUT.as_secs()),
        }
    }
}

impl error::Error for TlsError {}

impl From<PemError> for TlsError {
    fn from(error: PemError) -> Self {
        Self::File(error)
    }
}
