//! The socket of the HTTP server.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
    num::ParseIntError,
    str::FromStr,
};

use rtftp_runtime::http::HttpConfig;

/// The options of the HTTP server.
#[derive(Debug, Default)]
pub(crate) struct HttpOptions {
    /// `--http`.
    pub(crate) listen: Option<ListenAddress>,
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

/// Returns the configuration of the HTTP server, with the socket of the service manager or a new one; `None` without either.
///
/// # Errors
///
/// The address is not available.
pub(crate) fn config(options: HttpOptions, activated: Option<(TcpListener, String)>) -> io::Result<Option<HttpConfig>> {
    let listener = match (activated, options.listen) {
        (Some((listener, name)), _) => {
            log::info!("using socket {name} of the service manager for HTTP: ignoring --http");
            listener
        }
        (None, Some(address)) => listen(address)?,
        (None, None) => return Ok(None),
    };
    log::info!("serving files over HTTP on {}", listener.local_addr()?);
    Ok(Some(HttpConfig { listener, prefix: options.prefix }))
}

fn listen(address: ListenAddress) -> io::Result<TcpListener> {
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
        io::Error::other(format!("--http: cannot listen on {shown}: {error}{hint}"))
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
        let first = listen(ListenAddress::One(([127, 0, 0, 1], 0).into())).expect("a port");
        let address = first.local_addr().expect("bound");
        let error = listen(ListenAddress::One(address)).expect_err("the address is in use").to_string();
        assert!(error.starts_with(&format!("--http: cannot listen on {address}: ")), "{error}");
    }
}
