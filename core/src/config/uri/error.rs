//! Problems of NBD URIs.

use core::fmt;

use super::limits::{MAX_EXPORT, MAX_SOCKET, MAX_TLS_PATH};

/// The reason why a text is not the address of an NBD export.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum InvalidUri {
    /// The scheme is none of `nbd`, `nbd+unix`, `nbd+vsock`, and these with `nbds`.
    Scheme,
    /// There is a user name before the host.
    UserInfo,
    /// The host is missing, invalid or longer than [`MAX_HOST`](super::MAX_HOST).
    Host,
    /// The port is not a number from 1 to 65535.
    Port,
    /// A URI of a Unix socket has a host.
    Authority,
    /// A URI of a Unix socket has no socket path, an empty one or two of them.
    Socket,
    /// A URI of a virtual machine or its host has no context identifier, or one or a port that is not a number below 4294967295.
    Vsock,
    /// A parameter is unknown, there twice, or has no value.
    Parameter,
    /// There is a parameter of TLS, but the scheme is without TLS.
    TlsParameter,
    /// The parameters ask for TLS with keys shared in advance, or without certificates.
    TlsType,
    /// `tls-hostname` is not a host, or longer than [`MAX_HOST`](super::MAX_HOST).
    TlsHostname,
    /// `tls-verify-peer` is neither true nor false.
    TlsVerifyPeer,
    /// `tls-certificates` is longer than [`MAX_TLS_PATH`].
    TlsPathTooLong,
    /// There is a fragment (`#`).
    Fragment,
    /// A character that must be percent-encoded is not, or the decoded text is not UTF-8 or contains a NUL.
    Encoding,
    /// The name of the export is longer than [`MAX_EXPORT`].
    ExportTooLong,
    /// The path of the socket is longer than [`MAX_SOCKET`].
    SocketTooLong,
}

impl fmt::Display for InvalidUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Scheme => {
                "expected nbd://HOST[:PORT]/EXPORT, nbd+unix:///EXPORT?socket=PATH or nbd+vsock://CID[:PORT]/EXPORT (with \
                 TLS: nbds instead of nbd)"
            }
            Self::UserInfo => "expected nbd://HOST[:PORT]/EXPORT without a user name",
            Self::Host => "expected a host name, an IPv4 address or an [IPv6] address after nbd://",
            Self::Port => "expected a port from 1 to 65535 after the host",
            Self::Authority => "expected nbd+unix:///EXPORT?socket=PATH, with three slashes and no host",
            Self::Socket => "expected nbd+unix:///EXPORT?socket=PATH with one socket path",
            Self::Vsock => "expected nbd+vsock://CID[:PORT]/EXPORT, with numbers below 4294967295 (2 is the host)",
            Self::Parameter => {
                "expected no parameter but socket (of nbd+unix://), tls-certificates, tls-hostname, tls-verify-peer and \
                 tls-type (of nbds://), each once"
            }
            Self::TlsParameter => "expected nbds:// or nbds+unix:// with parameters of TLS",
            Self::TlsType => {
                "expected TLS with certificates (tls-certificates, or tls-type=x509): keys shared in advance (PSK) and \
                 anonymous servers are not supported"
            }
            Self::TlsHostname => "expected a host name or an IP address as tls-hostname",
            Self::TlsVerifyPeer => "expected true or false as tls-verify-peer",
            Self::TlsPathTooLong => return write!(f, "expected a tls-certificates of at most {MAX_TLS_PATH} bytes"),
            Self::Fragment => "expected no # (in a name it is written %23)",
            Self::Encoding => "expected percent-encoded UTF-8 without NUL (a space is written %20)",
            Self::ExportTooLong => return write!(f, "expected an export name of at most {MAX_EXPORT} bytes"),
            Self::SocketTooLong => return write!(f, "expected a socket path of at most {MAX_SOCKET} bytes"),
        })
    }
}

impl core::error::Error for InvalidUri {}
