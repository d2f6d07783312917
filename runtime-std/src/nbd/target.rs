//! The address of an export, and what its description says about its server.

use std::path::Path;

use rtftp_core::config::{disk::TlsConfig, uri::NbdUri};

/// An export, and the verification of its server if the URI asks for TLS.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target<'t> {
    /// The address of the export.
    pub(crate) url: &'t NbdUri,
    /// The object `tls` of the description.
    pub(crate) tls: Option<&'t TlsConfig>,
    /// The directory to which relative paths of certificates and keys refer.
    pub(crate) directory: &'t Path,
}

impl<'t> Target<'t> {
    /// Returns an export without a description. Relative paths refer to the working directory.
    pub(super) fn of(url: &'t NbdUri) -> Self {
        Self { url, tls: None, directory: Path::new("") }
    }
}
