//! TLS: the certificates that the client trusts, and the handshake.

use std::{fmt, io, net::TcpStream, path::Path, sync::Arc};

use futures_rustls::{TlsConnector, client::TlsStream};
use rustls::{ClientConfig, crypto::ring, pki_types::ServerName};
use smol::Async;

use crate::pem::{self, PemError};

/// The certificate authorities that a client trusts.
#[derive(Clone)]
pub struct Trust(TlsConnector);

/// The reason why the certificates of authorities cannot be used.
#[derive(Debug)]
#[non_exhaustive]
pub enum TrustError {
    /// The file cannot be read, or has other contents.
    File(PemError),
    /// TLS cannot be configured.
    Tls(rustls::Error),
}

impl Trust {
    /// Reads the certificates of a file in the PEM format. Blocks.
    ///
    /// # Errors
    ///
    /// Returns [`TrustError`].
    pub fn load(path: &Path) -> Result<Self, TrustError> {
        let roots = pem::authorities(path).map_err(TrustError::File)?;
        let config = ClientConfig::builder_with_provider(ring::default_provider().into())
            .with_safe_default_protocol_versions()
            .map_err(TrustError::Tls)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self(Arc::new(config).into()))
    }

    /// Performs the handshake with the server of this name.
    pub(super) async fn connect(
        &self,
        host: &str,
        stream: Async<TcpStream>,
    ) -> io::Result<Box<TlsStream<Async<TcpStream>>>> {
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        self.0.connect(name, stream).await.map(Box::new)
    }
}

/// Returns what to do about an error of a handshake.
pub(super) fn remedy(error: &io::Error) -> &'static str {
    match error.get_ref().and_then(|error| error.downcast_ref()) {
        Some(rustls::Error::InvalidCertificate(_)) => {
            "check the server's certificate, and that the file of --ca has the one of its authority"
        }
        Some(rustls::Error::InvalidMessage(_)) => "is this an HTTPS server?",
        _ => "see the server's log",
    }
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trust").finish_non_exhaustive()
    }
}

impl fmt::Display for TrustError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(PemError::Read(path, error)) => {
                write!(
                    f,
                    "cannot read {}: {error}: give the certificate of the authority with --ca FILE",
                    path.display()
                )
            }
            Self::File(error) => error.fmt(f),
            Self::Tls(error) => write!(f, "cannot use TLS: {error}"),
        }
    }
}

impl std::error::Error for TrustError {}
