//! Certificates for scripted servers and their clients.

use std::{fs, path::Path, sync::Arc};

use futures_rustls::TlsAcceptor;
use rcgen::{BasicConstraints, Certificate, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use rtftp_core::config::disk::TlsConfig;
use rustls::{ServerConfig, SupportedProtocolVersion, server::WebPkiClientVerifier, version::TLS13};
use tempfile::TempDir;

use crate::{nbd::tls::verifier::PROVIDER, pem};

/// An authority, and a directory with its certificate `ca.pem`, and `NAME.pem` and `NAME.key` of each certificate that it issued.
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    files: TempDir,
}

impl Authority {
    pub(super) fn new() -> Self {
        let (mut params, key) = (CertificateParams::default(), KeyPair::generate().expect("a key"));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "authority");
        let files = TempDir::new().expect("a directory");
        let certificate = params.self_signed(&key).expect("a certificate");
        fs::write(files.path().join("ca.pem"), certificate.pem()).expect("written");
        Self { issuer: Issuer::new(params, key), files }
    }

    /// Issues a certificate that is valid between the starts of two years.
    pub(super) fn issue(&self, name: &str, host: &str, (start, end): (i32, i32)) -> &Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new([host.to_owned()]).expect("a name");
        (params.not_before, params.not_after) = (date_time_ymd(start, 1, 1), date_time_ymd(end, 1, 1));
        self.write(name, &params.signed_by(&key, &self.issuer).expect("a certificate"), &key);
        self
    }

    /// Writes a certificate that is its own authority.
    pub(super) fn issue_to_itself(&self, name: &str) {
        let (mut params, key) = (CertificateParams::default(), KeyPair::generate().expect("a key"));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        self.write(name, &params.self_signed(&key).expect("a certificate"), &key);
    }

    fn write(&self, name: &str, certificate: &Certificate, key: &KeyPair) {
        fs::write(self.path().join(format!("{name}.pem")), certificate.pem()).expect("written");
        fs::write(self.path().join(format!("{name}.key")), key.serialize_pem()).expect("written");
    }

    pub(super) fn path(&self) -> &Path {
        self.files.path()
    }

    /// Returns the configuration of a server with the certificate `server`.
    pub(super) fn server(&self) -> TlsAcceptor {
        self.server_with(&TLS13, None)
    }

    /// Returns that of a server with this version of TLS, for clients with a certificate of `clients` if there is such an authority.
    pub(super) fn server_with(
        &self,
        version: &'static SupportedProtocolVersion,
        clients: Option<&Self>,
    ) -> TlsAcceptor {
        let chain = pem::certificates(&self.path().join("server.pem")).expect("a certificate");
        let key = pem::key(&self.path().join("server.key")).expect("a key");
        let builder = ServerConfig::builder_with_provider(PROVIDER.clone());
        let builder = builder.with_protocol_versions(&[version]).expect("a version");
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(clients) => {
                let roots = pem::authorities(&clients.path().join("ca.pem")).expect("an authority");
                let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), PROVIDER.clone()).build();
                builder.with_client_cert_verifier(verifier.expect("a verifier"))
            }
        };
        TlsAcceptor::from(Arc::new(builder.with_single_cert(chain, key).expect("a configuration")))
    }

    /// Returns the description of a server whose certificate this authority has issued.
    pub(super) fn description(&self) -> TlsConfig {
        TlsConfig { ca: Some("ca.pem".try_into().expect("short")), ..TlsConfig::default() }
    }
}
