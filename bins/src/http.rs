//! The sockets and the certificate of the HTTP server.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
    num::ParseIntError,
    str::FromStr,
    sync::Arc,
};

use rtftp_runtime::http::{HttpConfig, Tls, TlsFiles};

/// The options of the HTTP server.
#[derive(Debug, Default)]
pub(crate) struct HttpOptions {
    /// `--http`.
    pub(crate) listen: Option<ListenAddress>,
    /// `--https`, with `--tls-certificate` and `--tls-key`.
    pub(crate) tls: Option<(ListenAddress, TlsFiles)>,
    /// `--http-prefix`.
    pub(crate) prefix: String,
}

/// The address to listen on: `IP:PORT`, or `PORT` for all addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ListenAddress {
    All(u16),
    One(SocketAddr),
}

impl FromStr for ListenAddress {
    type Err = ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self::One).or_else(|_| text.parse().map(Self::All))
    }
}

/// The listening sockets of the service manager, with their names.
#[derive(Debug, Default)]
pub(crate) struct HttpSockets {
    pub(crate) plain: Option<(TcpListener, String)>,
    pub(crate) tls: Option<(TcpListener, String)>,
}

/// Returns the configuration of the HTTP server, with the sockets of the service manager or new ones; `None` without any.
///
/// # Errors
///
/// An address is not available, or the certificate or its key cannot be used.
pub(crate) fn config(options: HttpOptions, activated: HttpSockets) -> io::Result<Option<HttpConfig>> {
    let HttpOptions { listen: address, tls, prefix } = options;
    let plain = listener("HTTP", "--http", address, activated.plain)?;
    let (address, files) = tls.unzip();
    let tls = match (files, listener("HTTPS", "--https", address, activated.tls)?) {
        (Some(files), Some(listener)) => {
            let tls = Tls::load(files).map_err(|error| io::Error::other(format!("--https: {error}")))?;
            Some((listener, Arc::new(tls)))
        }
        (None, Some(_)) => {
            let missing = "socket activation (https): --https, --tls-certificate and --tls-key are missing";
            return Err(io::Error::other(missing));
        }
        (_, None) => None,
    };
    let is_on = plain.is_some() || tls.is_some();
    Ok(is_on.then_some(HttpConfig { plain, tls, prefix }))
}

/// Returns the socket of the service manager, or a new one on the address of an option; `None` without either.
fn listener(
    protocol: &str,
    option: &str,
    address: Option<ListenAddress>,
    activated: Option<(TcpListener, String)>,
) -> io::Result<Option<TcpListener>> {
    let listener = match (activated, address) {
        (Some((listener, name)), _) => {
            log::info!("using socket {name} of the service manager for {protocol}: ignoring the address of {option}");
            listener
        }
        (None, Some(address)) => listen(option, address)?,
        (None, None) => return Ok(None),
    };
    log::info!("serving files over {protocol} on {}", listener.local_addr()?);
    Ok(Some(listener))
}

/// Listens on the address of an option.
fn listen(option: &str, address: ListenAddress) -> io::Result<TcpListener> {
    let (shown, listener) = match address {
        ListenAddress::One(address) => (address.to_string(), TcpListener::bind(address)),
        ListenAddress::All(port) => {
            let both = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port));
            // Without IPv6 in the kernel.
            let bound = both.or_else(|error| match error.kind() {
                io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied => Err(error),
                _ => TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)),
            });
            (format!("port {port}"), bound)
        }
    };
    listener.map_err(|error| {
        let hint = match error.kind() {
            io::ErrorKind::PermissionDenied => {
                " (a port below 1024 needs root, or the capability CAP_NET_BIND_SERVICE)"
            }
            io::ErrorKind::AddrInUse => " (another program uses it: `ss -ltnp` shows which)",
            _ => "",
        };
        io::Error::other(format!("{option}: cannot listen on {shown}: {error}{hint}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_alone_means_all_addresses() {
        assert_eq!("80".parse(), Ok(ListenAddress::All(80)));
        assert_eq!("10.0.0.1:80".parse(), Ok(ListenAddress::One(([10, 0, 0, 1], 80).into())));
        for text in ["", "here", "10.0.0.1", ":80", "65536"] {
            assert!(text.parse::<ListenAddress>().is_err(), "{text}");
        }
    }

    #[test]
    fn reports_an_address_in_use() {
        let first = listen("--http", ListenAddress::One(([127, 0, 0, 1], 0).into())).expect("a port");
        let address = first.local_addr().expect("bound");
        let error = listen("--http", ListenAddress::One(address)).expect_err("the address is in use").to_string();
        assert!(error.starts_with(&format!("--http: cannot listen on {address}: ")), "{error}");
    }
}
