//! Queries servers over HTTP, at the address of their `--status-listen`. What they reply is not trusted.

use std::{
    fmt,
    io::ErrorKind,
    net::SocketAddr,
    panic::resume_unwind,
    str::FromStr,
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rtftp_runtime::{
    client::{
        InvalidUrl, ResolveError, Url,
        http::{BodyBuffer, HttpClient, HttpError},
        resolve,
    },
    history::snapshot::Snapshot,
    text::printable,
};
use smol::{Timer, block_on};

use super::{merge::merge, view::View};

/// The port of HTTP.
const DEFAULT_PORT: u16 = 80;
/// The time without any byte after which a server does not answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// The time limit for a reply.
const REPLY_TIMEOUT: Duration = Duration::from_secs(15);
/// The maximum size of a reply in bytes. That of a full history has some 20 MB, and 1 MB for each thousand boards.
const MAX_REPLY: usize = 128 << 20;

/// The address of a server, as the user has given it: `HOST[:PORT]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Server(String);

impl Server {
    /// Returns the address as the user has given it, without the scheme.
    pub(crate) fn name(&self) -> &str {
        &self.0
    }
}

impl FromStr for Server {
    type Err = InvalidUrl;

    fn from_str(text: &str) -> Result<Self, InvalidUrl> {
        let text = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
        if text.contains('/') { Err(InvalidUrl::Server) } else { Ok(Self(text.to_owned())) }
    }
}

/// The reason why a server has not answered.
#[derive(Debug)]
enum ServerError {
    Resolve(ResolveError),
    Http(HttpError),
    /// The reply is larger than [`MAX_REPLY`].
    TooLarge,
    /// The reply is not the history.
    Invalid(serde_json::Error),
}

/// Queries all servers at the same time.
pub(super) fn view(servers: &[Server]) -> View {
    let replies: Vec<_> = thread::scope(|scope| {
        let queries = servers.iter().map(|server| scope.spawn(move || block_on(snapshot(server))));
        let queries: Vec<_> = queries.collect();
        queries.into_iter().map(|query| query.join().unwrap_or_else(|panic| resume_unwind(panic))).collect()
    });
    let named = servers.iter().map(|server| printable(server.0.as_bytes()));
    let replies = named.zip(replies);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    merge(now, replies)
}

/// Returns the history of a server, or the printable reason why there is none.
pub(crate) async fn snapshot(server: &Server) -> Result<Snapshot, String> {
    query(&server.0).await.map_err(|error| printable(error.to_string().as_bytes()))
}

/// Returns the history of a server, from the first of its addresses that answers.
async fn query(server: &str) -> Result<Snapshot, ServerError> {
    let mut result = Err(ServerError::Http(HttpError::Interrupted));
    for address in resolve(server, DEFAULT_PORT).await.map_err(ServerError::Resolve)? {
        result = snapshot_at(address).await;
        if !matches!(result, Err(ServerError::Http(HttpError::Unreachable { .. } | HttpError::NoAnswer { .. }))) {
            break;
        }
    }
    result
}

async fn snapshot_at(address: SocketAddr) -> Result<Snapshot, ServerError> {
    // The address, not the name: the status page replies to few names. The `%` before a zone is encoded.
    let url = format!("http://{}/boots.json", address.to_string().replace('%', "%25"));
    let Ok(url) = Url::parse(url.as_bytes()) else { return Err(ServerError::Http(HttpError::Interrupted)) };
    let mut reply = BodyBuffer::new(MAX_REPLY);
    let timeout = async {
        Timer::after(REPLY_TIMEOUT).await;
    };
    match HttpClient::new(PATIENCE, None).fetch(&url, &mut reply, timeout, |_| {}).await {
        Ok(_) => serde_json::from_slice(reply.bytes()).map_err(ServerError::Invalid),
        Err(HttpError::Sink(_)) => Err(ServerError::TooLarge),
        Err(error) => Err(ServerError::Http(error)),
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Resolve(error) => error.fmt(f),
            Self::Http(HttpError::Unreachable { error, .. }) if error.kind() == ErrorKind::ConnectionRefused => {
                write!(f, "{error}: is rtftp running with this --status-listen?")
            }
            Self::Http(HttpError::Unreachable { error, .. }) => write!(f, "{error}"),
            Self::Http(HttpError::NoAnswer { .. } | HttpError::TimedOut { .. } | HttpError::Interrupted) => {
                f.write_str("no reply: check the address, and that firewalls pass TCP")
            }
            Self::Http(HttpError::Refused { status, reason, .. }) => {
                write!(f, "{status} {reason}: is this the address of --status-listen?")
            }
            Self::Http(error) => error.fmt(f),
            Self::TooLarge => write!(f, "the reply is larger than {} MiB: is this rtftp?", MAX_REPLY >> 20),
            Self::Invalid(error) => write!(f, "unexpected reply, is the daemon of another version? {error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_an_address_with_and_without_its_scheme() {
        for text in ["nas:8080", "http://nas:8080", "http://nas:8080/"] {
            assert_eq!(text.parse(), Ok(Server("nas:8080".into())), "{text}");
        }
        for text in ["https://nas:8080", "http://nas:8080/boots.json", "nas/8080"] {
            assert!(text.parse::<Server>().is_err(), "{text}");
        }
    }
}
