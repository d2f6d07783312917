//! TLS: the certificates that the client trusts, and the handshake.

use std::{fmt, io, net::TcpStream, path::Path, sync::Arc};

use futures_rustls::{TlsConnector, client::TlsStream};
use rustls::{ClientConfig, ConfigBuilder, client::WantsClientCert, crypto::ring, pki_types::ServerName};
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
    /// The file with the client's own certificate or key cannot be read, or has other contents.
    Identity(PemError),
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
        Ok(Self::new(authorities(path)?.with_no_client_auth()))
    }

    /// Does the same for a client with a certificate, which is in the first file of `identity`, and its key in the second. Blocks.
    ///
    /// # Errors
    ///
    /// Returns [`TrustError`].
    pub fn load_with_identity(path: &Path, identity: [&Path; 2]) -> Result<Self, TrustError> {
        let [certificate, key] = identity;
        let chain = pem::certificates(certificate).map_err(TrustError::Identity)?;
        let key = pem::key(key).map_err(TrustError::Identity)?;
        let config = authorities(path)?.with_client_auth_cert(chain, key);
        config.map(Self::new).map_err(TrustError::Tls)
    }

    fn new(config: ClientConfig) -> Self {
        Self(Arc::new(config).into())
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

/// Starts a configuration with the authorities in a file.
fn authorities(path: &Path) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, TrustError> {
    let roots = pem::authorities(path).map_err(TrustError::File)?;
    let builder = ClientConfig::builder_with_provider(ring::default_provider().into());
    Ok(builder.with_safe_default_protocol_versions().map_err(TrustError::Tls)?.with_root_certificates(roots))
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
            Self::File(error) | Self::Identity(error) => error.fmt(f),
            Self::Tls(error) => write!(f, "cannot use TLS: {error}"),
        }
    }
}

impl std::error::Error for TrustError {}
