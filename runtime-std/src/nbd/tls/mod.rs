//! TLS: encrypts a connection, verifies the server, and identifies the client to it.
//!
//! The client asks for TLS before everything else (`NBD_OPT_STARTTLS`), and there is no way on without it. A handshake is computed on
//! the thread of the disks; the files are read on another one.

mod error;
mod files;
mod identification;
mod pause;
mod settings;
#[cfg(test)]
mod tests;
mod verifier;

use std::{io, sync::Arc};

use futures_rustls::TlsConnector;
use rustls::{ClientConfig, client::Resumption};

pub use self::error::TlsError;
pub(super) use self::{
    files::{Credentials, load},
    identification::Identification,
    settings::Settings,
};
use self::{
    identification::is_end,
    pause::Pausing,
    verifier::{PROVIDER, Verifier},
};
use super::{NbdError, transport::BoxedStream};

/// Performs the handshake. The identification explains an error of the first exchange that follows.
pub(super) async fn encrypt(
    stream: BoxedStream,
    credentials: Credentials,
) -> Result<(BoxedStream, Arc<Identification>), NbdError> {
    let Credentials { name, check, identity } = credentials;
    let (check, identification) = (Arc::new(check), Arc::new(Identification::new(identity)));
    let mut config = ClientConfig::builder_with_provider(PROVIDER.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError::from(&error))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Verifier(Arc::downgrade(&check))))
        .with_client_cert_resolver(identification.clone());
    // The configuration serves this connection only.
    config.resumption = Resumption::disabled();
    match TlsConnector::from(Arc::new(config)).connect(name, Pausing::new(stream)).await {
        Ok(stream) => Ok((Box::new(stream), identification)),
        Err(error) => {
            Err(check.into_rejection().map_or_else(|| identification.explain(describe(error)), NbdError::from))
        }
    }
}

/// Returns the reason of a failed handshake.
fn describe(error: io::Error) -> NbdError {
    let is_end = error.get_ref().is_none_or(|error| !error.is::<rustls::Error>()) && is_end(&error);
    if is_end { TlsError::Closed.into() } else { error.into() }
}
