//! Identifies the client to servers that demand it, and explains their refusals.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use rustls::{SignatureScheme, client::ResolvesClientCert, sign::CertifiedKey};

use super::TlsError;
use crate::nbd::NbdError;

/// The certificate of the client, if it has one.
#[derive(Debug)]
pub(in crate::nbd) struct Identification {
    identity: Option<Arc<CertifiedKey>>,
    /// Whether the server asked for a certificate.
    is_requested: AtomicBool,
}

impl Identification {
    pub(super) fn new(identity: Option<Arc<CertifiedKey>>) -> Self {
        Self { identity, is_requested: AtomicBool::new(false) }
    }

    /// Returns the reason of an error during the handshake or right after it: the connection ends so if the server asked for a
    /// certificate and does not accept the answer. Few servers say so.
    pub(in crate::nbd) fn explain(&self, error: NbdError) -> NbdError {
        let alert = match &error {
            NbdError::Closed => None,
            NbdError::Io(reason) if is_end(reason) => None,
            NbdError::Tls(reason) => match **reason {
                TlsError::Closed => None,
                TlsError::Alert(alert) => Some(alert),
                _ => return error,
            },
            _ => return error,
        };
        match (self.is_requested.load(Ordering::Relaxed), &self.identity) {
            (true, None) => TlsError::ClientCertificateDemanded.into(),
            (true, Some(_)) => TlsError::ClientCertificateRejected(alert).into(),
            (false, _) => error,
        }
    }
}

/// Returns whether an error means that the server closed the connection.
pub(super) fn is_end(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof)
}

impl ResolvesClientCert for Identification {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.is_requested.store(true, Ordering::Relaxed);
        self.identity.clone()
    }

    fn has_certs(&self) -> bool {
        // Otherwise rustls would not ask.
        true
    }
}
