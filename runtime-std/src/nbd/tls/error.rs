//! Problems of TLS, each as one sentence with its remedy.

use std::{error, fmt, time::Duration};

use rustls::{AlertDescription, Error};

use crate::{pem::PemError, text::printable};

/// The reason why a connection cannot be encrypted, or why one side rejects the other.
#[derive(Debug)]
#[non_exhaustive]
pub enum TlsError {
    /// The server refuses `NBD_OPT_STARTTLS`.
    NotOffered,
    /// A file cannot be read, or has other contents.
    File(PemError),
    /// The files were not read in time.
    FilesTimeout(Duration),
    /// The system has no certificates of authorities, for the reason that follows.
    NoSystemAuthorities(String),
    /// The client's certificate or its key, both named, cannot be used for the reason that follows.
    Identity(String, String),
    /// The name of the server cannot be the name in a certificate.
    InvalidName(String),
    /// The server's certificate is not for this name, but for those that follow.
    WrongName(String, Vec<String>),
    /// The server's certificate, or that of its issuer, expired at this time.
    Expired(String),
    /// The server's certificate, or that of its issuer, is valid from this time on.
    NotValidYet(String),
    /// The issuer of the server's certificate is not known.
    UnknownIssuer(String),
    /// The server's certificate is its own issuer, and not one of the authorities. Its fingerprint follows.
    SelfSigned(String),
    /// The server's certificate has this fingerprint instead of the expected one.
    WrongFingerprint(String),
    /// The server's certificate is not valid for another reason.
    InvalidCertificate(String),
    /// The server demands a certificate of the client.
    ClientCertificateDemanded,
    /// The server closed the connection after it got the client's certificate, with this alert if it sent one.
    ClientCertificateRejected(Option<AlertDescription>),
    /// The server ended the connection with an alert.
    Alert(AlertDescription),
    /// The server closed the connection during the handshake.
    Closed,
    /// The server sent something else than TLS.
    NotTls,
    /// The server and the client have no version or cipher suite in common.
    Incompatible,
    /// Another error of TLS.
    Other(String),
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotOffered => f.write_str(
                "the server does not offer TLS: give it a certificate, or use nbd:// instead of nbds:// in a trusted network",
            ),
            Self::File(error) => error.fmt(f),
            Self::FilesTimeout(limit) => {
                write!(f, "the certificates were not read within {} s: is their file system available?", limit.as_secs())
            }
            Self::NoSystemAuthorities(reason) => write!(
                f,
                "this system has no certificates of authorities: install ca-certificates, or name a file with \"ca\" in \"tls\"{reason}"
            ),
            Self::Identity(files, reason) => write!(f, "{files}: cannot be used as the client's certificate: {reason}"),
            Self::InvalidName(name) => {
                write!(f, "{name} cannot be a name in a certificate: write \"hostname\" in \"tls\"")
            }
            Self::WrongName(name, names) if names.is_empty() => write!(
                f,
                "the server's certificate has no name (subjectAltName): have it issued for {name}, or write \"fingerprint\" in \"tls\""
            ),
            Self::WrongName(name, names) => write!(
                f,
                "the server's certificate is not for {name}, but for {}: write one of them as \"hostname\" in \"tls\", if it is the right server",
                names.join(", ")
            ),
            Self::Expired(time) => {
                write!(f, "the server's certificate expired at {time}: renew it, or correct the clock of this machine")
            }
            Self::NotValidYet(time) => {
                write!(f, "the server's certificate is not valid before {time}: is the clock of this machine right?")
            }
            Self::UnknownIssuer(issuer) => write!(
                f,
                "the server's certificate is from an authority that is not known ({issuer}): name the file with the authority's \
                 certificate as \"ca\" in \"tls\""
            ),
            Self::SelfSigned(fingerprint) => write!(
                f,
                "the server's certificate is self-signed: if its fingerprint is {fingerprint}, write that as \"fingerprint\" in \"tls\""
            ),
            Self::WrongFingerprint(found) => write!(
                f,
                "the server's certificate is not the expected one: its fingerprint is {found}; if it was renewed, correct \
                 \"fingerprint\" in \"tls\""
            ),
            Self::InvalidCertificate(reason) => write!(f, "the server's certificate is not valid: {reason}"),
            Self::ClientCertificateDemanded => f.write_str(
                "the server demands a certificate of the client: name its files as \"certificate\" and \"key\" in \"tls\"",
            ),
            Self::ClientCertificateRejected(alert) => {
                f.write_str("the server rejects the client's certificate")?;
                if let Some(alert) = alert {
                    write!(f, " ({alert:?})")?;
                }
                f.write_str(": does it know the issuer, and is the certificate still valid? See the server's log")
            }
            Self::Alert(alert) => write!(f, "the server ended the TLS connection ({alert:?}): see its log"),
            Self::Closed => f.write_str("the server closed the connection during the TLS handshake: see its log"),
            Self::NotTls => f.write_str("the server agreed to TLS, but sent something else"),
            Self::Incompatible => f.write_str(
                "no version or cipher suite of TLS in common with the server: it needs TLS 1.2 or 1.3 with AES-GCM or ChaCha20-Poly1305",
            ),
            Self::Other(reason) => write!(f, "TLS failed: {reason}"),
        }
    }
}

impl error::Error for TlsError {}

impl From<PemError> for TlsError {
    fn from(error: PemError) -> Self {
        Self::File(error)
    }
}

impl From<&Error> for TlsError {
    fn from(error: &Error) -> Self {
        match error {
            Error::AlertReceived(alert) => Self::Alert(*alert),
            Error::InvalidMessage(_) => Self::NotTls,
            Error::PeerIncompatible(_) => Self::Incompatible,
            error => Self::Other(printable(error.to_string().as_bytes())),
        }
    }
}
