//! The parameters of a URI, most of which concern TLS.

use core::fmt;

use heapless::String;

use super::{
    error::InvalidUri,
    limits::{MAX_HOST, MAX_TLS_PATH},
    syntax::{is_plain, parse_hostname, percent_decode, percent_encode},
};

/// The parameters of TLS in a URI, as libnbd names them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct TlsParameters {
    /// `tls-certificates`: the directory with `ca-cert.pem` and, for a server that demands them, `client-cert.pem` and
    /// `client-key.pem`.
    pub certificates: Option<String<MAX_TLS_PATH>>,
    /// `tls-hostname`: the name in the certificate of the server, if it is not the host of the URI.
    pub hostname: Option<String<MAX_HOST>>,
    /// Whether `tls-verify-peer=false` allows any server.
    pub is_unverified: bool,
}

impl TlsParameters {
    /// Writes the parameters, the first one after `separator`.
    pub(super) fn write(&self, f: &mut impl fmt::Write, mut separator: char) -> fmt::Result {
        let values = [
            ("tls-certificates", self.certificates.as_deref()),
            ("tls-hostname", self.hostname.as_deref()),
            ("tls-verify-peer", self.is_unverified.then_some("false")),
        ];
        for (name, value) in values {
            if let Some(value) = value {
                write!(f, "{separator}{name}=")?;
                percent_encode(f, value, is_plain)?;
                separator = '&';
            }
        }
        Ok(())
    }

    /// Parses a parameter whose name begins with `tls-`.
    fn add(&mut self, name: &str, value: &str) -> Result<(), InvalidUri> {
        match name {
            "tls-certificates" if self.certificates.is_none() && !value.is_empty() => {
                self.certificates = Some(percent_decode(value, InvalidUri::TlsPathTooLong)?);
            }
            "tls-hostname" if self.hostname.is_none() => {
                let host: String<MAX_HOST> = percent_decode(value, InvalidUri::TlsHostname)?;
                self.hostname = Some(parse_hostname(&host).ok_or(InvalidUri::TlsHostname)?);
            }
            "tls-verify-peer" => match value {
                "1" | "true" => {}
                "0" | "false" => self.is_unverified = true,
                _ => return Err(InvalidUri::TlsVerifyPeer),
            },
            "tls-type" if value == "x509" => {}
            "tls-type" | "tls-psk-file" => return Err(InvalidUri::TlsType),
            _ => return Err(InvalidUri::Parameter),
        }
        Ok(())
    }
}

/// The part of a URI after the `?`.
pub(super) struct Query<'u> {
    /// The path of the socket, not decoded, not empty.
    pub(super) socket: Option<&'u str>,
    pub(super) tls: TlsParameters,
}

impl<'u> Query<'u> {
    /// Parses the parameters that the scheme allows.
    pub(super) fn parse(query: &'u str, is_unix: bool, is_tls: bool) -> Result<Self, InvalidUri> {
        let mut parsed = Self { socket: None, tls: TlsParameters::default() };
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            match parameter.split_once('=').ok_or(InvalidUri::Parameter)? {
                ("socket", path) if is_unix && parsed.socket.is_none() && !path.is_empty() => {
                    parsed.socket = Some(path);
                }
                ("socket", _) if is_unix => return Err(InvalidUri::Socket),
                (name, _) if name.starts_with("tls-") && !is_tls => return Err(InvalidUri::TlsParameter),
                (name, value) if name.starts_with("tls-") => parsed.tls.add(name, value)?,
                _ => return Err(InvalidUri::Parameter),
            }
        }
        Ok(parsed)
    }
}
