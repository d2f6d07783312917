//! Verifies the certificate of a server, and keeps why it was rejected.

use std::{
    sync::{Arc, LazyLock, OnceLock, Weak},
    time::Duration,
};

use ::ring::digest;
use rustls::{
    CertificateError, DigitallySignedStruct, Error, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use x509_cert::{
    Certificate,
    der::{DateTime, Decode},
};

use super::TlsError;
use crate::text::printable;

/// The cryptography of all connections.
pub(super) static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| ring::default_provider().into());

/// The check of a server's certificate.
#[derive(Debug)]
pub(super) struct ServerCheck {
    method: Method,
    rejection: OnceLock<TlsError>,
}

#[derive(Debug)]
enum Method {
    Authorities(Arc<WebPkiServerVerifier>),
    Fingerprint([u8; 32]),
    Anyone,
}

impl ServerCheck {
    /// Accepts a certificate of certain authorities.
    pub(super) fn authorities(verifier: Arc<WebPkiServerVerifier>) -> Self {
        Self { method: Method::Authorities(verifier), rejection: OnceLock::new() }
    }

    /// Accepts one certificate, by its SHA-256 digest.
    pub(super) fn fingerprint(digest: [u8; 32]) -> Self {
        Self { method: Method::Fingerprint(digest), rejection: OnceLock::new() }
    }

    /// Accepts every certificate.
    pub(super) fn anyone() -> Self {
        Self { method: Method::Anyone, rejection: OnceLock::new() }
    }

    /// Returns why the certificate was rejected, if it was.
    pub(super) fn into_rejection(self: Arc<Self>) -> Option<TlsError> {
        Arc::into_inner(self)?.rejection.into_inner()
    }
}

/// The check in the form that rustls needs. A connection keeps this, but needs the check only until the handshake ends: the owner of
/// the check then frees the authorities.
#[derive(Debug)]
pub(super) struct Verifier(pub(super) Weak<ServerCheck>);

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(check) = self.0.upgrade() else { return Err(Error::General("no check of certificates".into())) };
        let verified = match &check.method {
            Method::Authorities(verifier) => verifier
                .verify_server_cert(certificate, intermediates, name, ocsp, now)
                .map_err(|error| (describe(&error, certificate, name), error)),
            Method::Fingerprint(expected) if sha256(certificate) != *expected => Err((
                TlsError::WrongFingerprint(fingerprint(certificate)),
                CertificateError::ApplicationVerificationFailure.into(),
            )),
            Method::Fingerprint(_) | Method::Anyone => Ok(ServerCertVerified::assertion()),
        };
        verified.map_err(|(rejection, error)| {
            // A handshake has one certificate.
            let _ = check.rejection.set(rejection);
            error
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &PROVIDER.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &PROVIDER.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        PROVIDER.signature_verification_algorithms.supported_schemes()
    }
}

/// Returns the reason of a rejection, and what to do.
fn describe(error: &Error, certificate: &CertificateDer<'_>, name: &ServerName<'_>) -> TlsError {
    let Error::InvalidCertificate(error) = error else { return TlsError::from(error) };
    match error {
        CertificateError::ExpiredContext { not_after, .. } => return TlsError::Expired(date(*not_after)),
        CertificateError::NotValidYetContext { not_before, .. } => return TlsError::NotValidYet(date(*not_before)),
        CertificateError::NotValidForNameContext { presented, .. } => {
            return TlsError::WrongName(name.to_str().into_owned(), presented.iter().map(|name| plain(name)).collect());
        }
        CertificateError::Revoked => return TlsError::InvalidCertificate("it is revoked by ca-crl.pem".into()),
        _ => {}
    }
    let parsed = Certificate::from_der(certificate).ok();
    let parsed = parsed.as_ref().map(Certificate::tbs_certificate);
    match (error, parsed) {
        (_, Some(parsed)) if parsed.issuer() == parsed.subject() => TlsError::SelfSigned(fingerprint(certificate)),
        (CertificateError::UnknownIssuer | CertificateError::BadSignature, Some(parsed)) => {
            TlsError::UnknownIssuer(printable(parsed.issuer().to_string().as_bytes()))
        }
        (error, _) => TlsError::InvalidCertificate(printable(error.to_string().as_bytes())),
    }
}

/// Returns a name without its type: `DnsName("nas.lan")` is `nas.lan`.
fn plain(name: &str) -> String {
    let inner = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')')).unwrap_or(name);
    printable(inner.trim_matches('"').as_bytes())
}

fn date(time: UnixTime) -> String {
    DateTime::from_unix_duration(Duration::from_secs(time.as_secs()))
        .map_or_else(|_| format!("second {} of 1970", time.as_secs()), |date| date.to_string())
}

fn sha256(certificate: &CertificateDer<'_>) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest::digest(&digest::SHA256, certificate).as_ref());
    bytes
}

/// Returns the fingerprint of a certificate as it is written in a description.
fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    let digits: Vec<String> = sha256(certificate).iter().map(|byte| format!("{byte:02X}")).collect();
    format!("sha256:{}", digits.join(":"))
}
