//! The settings of TLS: those of the description, then those of the URI, then defaults.

use std::path::{Path, PathBuf};

use rtftp_core::config::uri::NbdServer;
use rustls::pki_types::ServerName;

use super::TlsError;
use crate::nbd::target::Target;

/// The name in the certificate of a server behind a Unix socket or vsock.
const LOCAL_NAME: &str = "localhost";

/// How a server is verified, and how the client identifies itself.
#[derive(Debug)]
pub(in crate::nbd) struct Settings {
    pub(super) name: ServerName<'static>,
    pub(super) trust: Trust,
    pub(super) identity: Option<Identity>,
}

/// The servers that are trusted.
#[derive(Debug)]
pub(super) enum Trust {
    /// Those with a certificate of an authority that the system trusts.
    System,
    /// Those with a certificate of an authority in the file `ca`, unless the list `crl` revokes it. That file may be missing.
    Authorities { ca: PathBuf, crl: Option<PathBuf> },
    /// The one with a certificate of this SHA-256 digest.
    Fingerprint([u8; 32]),
    /// All.
    Anyone,
}

/// The certificate of the client and its key.
#[derive(Debug)]
pub(super) struct Identity {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
    /// Whether the certificate may be missing.
    pub(super) is_optional: bool,
}

impl Settings {
    /// Returns the directory of the files; an empty path if only those of the system are read.
    pub(super) fn directory(&self) -> &Path {
        let ca = match &self.trust {
            Trust::Authorities { ca, .. } => Some(ca),
            _ => None,
        };
        let file = ca.or(self.identity.as_ref().map(|identity| &identity.certificate));
        file.and_then(|file| file.parent()).unwrap_or(Path::new(""))
    }

    /// Returns the settings for a target; `None` if its URI does not ask for TLS.
    pub(in crate::nbd) fn new(target: Target<'_>) -> Result<Option<Self>, TlsError> {
        let Some(parameters) = &target.url.tls else { return Ok(None) };
        let description = target.tls;
        // An absolute path replaces the directory.
        let file = |path: &str| target.directory.join(path);
        let in_directory = |name: &str| Some(file(parameters.certificates.as_deref()?).join(name));

        let host = match &target.url.server {
            NbdServer::Tcp { host, .. } => host,
            NbdServer::Unix(_) | NbdServer::Vsock { .. } => LOCAL_NAME,
        };
        let name = description.and_then(|tls| tls.hostname.as_deref()).or(parameters.hostname.as_deref());
        let name = name.unwrap_or(host);
        let name = ServerName::try_from(name.to_owned()).map_err(|_| TlsError::InvalidName(name.to_owned()))?;

        let fingerprint = description.and_then(|tls| tls.fingerprint);
        let ca = description.and_then(|tls| tls.ca.as_deref());
        let trust = match (fingerprint, ca, in_directory("ca-cert.pem")) {
            (Some(fingerprint), ..) => Trust::Fingerprint(fingerprint),
            (None, Some(ca), _) => Trust::Authorities { ca: file(ca), crl: None },
            _ if parameters.is_unverified => Trust::Anyone,
            (None, None, Some(ca)) => Trust::Authorities { ca, crl: in_directory("ca-crl.pem") },
            (None, None, None) => Trust::System,
        };
        let identity = match description.and_then(|tls| tls.identity.as_ref()) {
            Some(identity) => Some(Identity {
                certificate: file(&identity.certificate),
                key: file(&identity.key),
                is_optional: false,
            }),
            None => in_directory("client-cert.pem")
                .zip(in_directory("client-key.pem"))
                .map(|(certificate, key)| Identity { certificate, key, is_optional: true }),
        };
        Ok(Some(Self { name, trust, identity }))
    }
}
