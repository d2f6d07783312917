//! URLs of files (RFC 3986, RFC 9110 section 4.2).

use std::fmt;

use super::address::split;
use crate::text::{percent_decoded, percent_encoded};

/// The URL of a file on an HTTP server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    is_secure: bool,
    /// `HOST[:PORT]`.
    authority: String,
    /// The path and the query as a request contains them.
    target: String,
}

/// The reason why a text is not the URL of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum InvalidUrl {
    /// It begins with neither `http://` nor `https://`.
    Scheme,
    /// Host or port is missing or malformed.
    Server,
    /// It contains a user name.
    UserName,
}

impl fmt::Display for InvalidUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Scheme => "expected http:// or https:// at its start",
            Self::Server => "expected HOST or HOST:PORT after http://, an IPv6 address as [ADDRESS]",
            Self::UserName => "user names and passwords are not supported: remove the text before @",
        })
    }
}

impl std::error::Error for InvalidUrl {}

impl Url {
    /// Parses a URL. Characters of its path that a request cannot contain are encoded.
    ///
    /// # Errors
    ///
    /// Returns the part that is malformed.
    pub fn parse(url: &[u8]) -> Result<Self, InvalidUrl> {
        let (is_secure, rest) = match (without_prefix(url, b"http://"), without_prefix(url, b"https://")) {
            (Some(rest), _) => (false, rest),
            (None, Some(rest)) => (true, rest),
            (None, None) => return Err(InvalidUrl::Scheme),
        };
        let rest = rest.split(|byte| *byte == b'#').next().unwrap_or_default();
        let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?')).unwrap_or(rest.len());
        let authority = str::from_utf8(&rest[..end]).map_err(|_| InvalidUrl::Server)?;
        if authority.contains('@') {
            return Err(InvalidUrl::UserName);
        }
        // RFC 6874: the `%` before a zone is encoded.
        let authority = authority.replace("%25", "%");
        let is_bare_ipv6 = !authority.starts_with('[') && authority.matches(':').count() > 1;
        let is_plain = authority.bytes().all(|byte| byte.is_ascii_graphic());
        if is_bare_ipv6 || !is_plain || split(&authority, 80).is_none() {
            return Err(InvalidUrl::Server);
        }
        let slash = if rest[end..].starts_with(b"/") { "" } else { "/" };
        Ok(Self { is_secure, authority, target: format!("{slash}{}", percent_encoded(&rest[end..], is_in_target)) })
    }

    /// Returns whether the connection is encrypted (`https`).
    #[must_use]
    pub fn is_secure(&self) -> bool {
        self.is_secure
    }

    /// Returns `HOST[:PORT]`.
    #[must_use]
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// Returns the start of all URLs of the same server and port.
    pub(super) fn origin(&self) -> String {
        let scheme = if self.is_secure { "https" } else { "http" };
        format!("{scheme}://{}", self.authority)
    }

    /// Returns the name or the address of the server, without brackets and the zone of an IPv6 address.
    #[must_use]
    pub fn host(&self) -> &str {
        let host = split(&self.authority, 0).map_or("", |(host, _)| host);
        host.split('%').next().unwrap_or_default()
    }

    /// Returns the port that applies if the URL has none.
    #[must_use]
    pub fn default_port(&self) -> u16 {
        if self.is_secure { 443 } else { 80 }
    }

    /// Returns the path and the query as a request contains them.
    #[must_use]
    pub fn target(&self) -> &str {
        &self.target
    }

    /// Returns the value of the header `Host`: without the zone of an IPv6 address, which has a meaning only on this machine.
    #[must_use]
    pub fn host_header(&self) -> String {
        match (self.authority.find('%'), self.authority.find(']')) {
            (Some(zone), Some(end)) if zone < end => [&self.authority[..zone], &self.authority[end..]].concat(),
            _ => self.authority.clone(),
        }
    }

    /// Returns the last name of the path, decoded; `None` if that is no name of a file.
    #[must_use]
    pub fn file_name(&self) -> Option<Vec<u8>> {
        let path = self.target.split('?').next().unwrap_or_default();
        let name = percent_decoded(path.rsplit('/').next().unwrap_or_default().as_bytes());
        let is_name = !matches!(&*name, b"" | b"." | b"..") && !name.contains(&b'/') && !name.contains(&0);
        is_name.then_some(name)
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.origin(), self.target)
    }
}

/// Removes a prefix, whose letters may have any case.
fn without_prefix<'a>(text: &'a [u8], prefix: &[u8]) -> Option<&'a [u8]> {
    let (start, rest) = text.split_at_checked(prefix.len())?;
    start.eq_ignore_ascii_case(prefix).then_some(rest)
}

/// Returns whether a target can contain this byte.
fn is_in_target(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_urls() {
        for (url, authority, target, host) in [
            ("http://boot/x.efi", "boot", "/x.efi", "boot"),
            ("HTTP://boot:8080/a/b?c=d#e", "boot:8080", "/a/b?c=d", "boot:8080"),
            ("http://10.0.0.1", "10.0.0.1", "/", "10.0.0.1"),
            ("http://boot?x", "boot", "/?x", "boot"),
            ("http://[::1]:8080/f", "[::1]:8080", "/f", "[::1]:8080"),
            ("http://[fe80::1%25eth0]:80/f", "[fe80::1%eth0]:80", "/f", "[fe80::1]:80"),
            ("http://[fe80::1%eth0]/f", "[fe80::1%eth0]", "/f", "[fe80::1]"),
            ("https://boot/a b\u{e9}%20", "boot", "/a%20b%C3%A9%20", "boot"),
        ] {
            let parsed = Url::parse(url.as_bytes()).expect(url);
            assert_eq!(
                (parsed.authority(), parsed.target(), &*parsed.host_header()),
                (authority, target, host),
                "{url}"
            );
            assert_eq!(parsed.default_port(), if url.starts_with("https") { 443 } else { 80 });
        }
    }

    #[test]
    fn returns_the_host_of_a_certificate() {
        for (url, host) in [
            ("https://boot:8443/f", "boot"),
            ("https://10.0.0.1/f", "10.0.0.1"),
            ("https://[fe80::1%25eth0]:443/f", "fe80::1"),
        ] {
            assert_eq!(Url::parse(url.as_bytes()).expect(url).host(), host, "{url}");
        }
    }

    #[test]
    fn rejects_malformed_urls() {
        for (url, reason) in [
            ("ftp://boot/f", InvalidUrl::Scheme),
            ("http:/boot/f", InvalidUrl::Scheme),
            ("http:///f", InvalidUrl::Server),
            ("http://boot:http/f", InvalidUrl::Server),
            ("http://boot:0/f", InvalidUrl::Server),
            ("http://::1/f", InvalidUrl::Server),
            ("http://[::1/f", InvalidUrl::Server),
            ("http://a b/f", InvalidUrl::Server),
            ("http://a\r\nb/f", InvalidUrl::Server),
            ("http://me:secret@boot/f", InvalidUrl::UserName),
        ] {
            assert_eq!(Url::parse(url.as_bytes()), Err(reason), "{url}");
        }
    }

    #[test]
    fn returns_the_name_of_the_file() {
        for (url, name) in [
            ("http://boot/a/vmlinuz", Some("vmlinuz")),
            ("http://boot/a%20b?x=/y", Some("a b")),
            ("http://boot/", None),
            ("http://boot/a/", None),
            ("http://boot/..", None),
            ("http://boot/%2e%2e", None),
            ("http://boot/a%2fb", None),
        ] {
            assert_eq!(Url::parse(url.as_bytes()).expect(url).file_name(), name.map(Into::into), "{url}");
        }
    }
}
