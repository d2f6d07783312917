//! TLS handshakes, on a thread of their own.
//!
//! A handshake takes about a millisecond of computing, most of it for the signature with the server's key. A thousand handshakes at
//! once delay each other, but neither transfers nor connections without TLS.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use futures_rustls::TlsAcceptor;
use parking_lot::Mutex;
use rustls::{AlertDescription, Error};
use smol::{
    Executor,
    channel::{Sender, bounded},
};

use super::{certificate::Tls, request::Persistence, response, status::Status, transport::Transport};
use crate::{
    clock::{self, within},
    event_loop::Stream,
    rate_limit::RateLimit,
    thread,
};

/// The time limit for a handshake. Firmware computes slowly.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(30);
/// The number of log lines about failed handshakes: at once, and each second.
const FAILURES_LOGGED: (u32, u32) = (20, 1);
/// The first byte of a TLS connection: the type of a handshake record.
const HANDSHAKE_RECORD: u8 = 22;

/// The thread that computes handshakes. Dropping this ends it.
#[derive(Debug)]
pub(super) struct Handshakes {
    tls: Arc<Tls>,
    executor: Arc<Executor<'static>>,
    log: Mutex<RateLimit>,
    _stop: Sender<()>,
}

impl Handshakes {
    /// Starts the thread.
    ///
    /// # Errors
    ///
    /// The system allows no further thread.
    pub(super) fn start(tls: Arc<Tls>) -> io::Result<Self> {
        let executor = Arc::new(Executor::new());
        let (stop, stopped) = bounded::<()>(1);
        let handshakes = executor.clone();
        thread::spawn("tls-handshakes", move || _ = smol::block_on(handshakes.run(stopped.recv())))?;
        Ok(Self { tls, executor, log: Mutex::new(RateLimit::new(FAILURES_LOGGED.0, FAILURES_LOGGED.1)), _stop: stop })
    }

    /// Performs the handshake of a connection. Returns `None` if that failed.
    pub(super) async fn accept(&self, mut stream: Stream, client: SocketAddr) -> Option<Transport> {
        let handshake = async {
            // A connection without a byte is no failure: programs test so whether the port is open.
            let first = stream.peek().await.ok()??;
            if first != HANDSHAKE_RECORD {
                self.log_failure(client, "the client does not speak TLS: is its URL http:// instead of https://?");
                let mut transport = Transport::Plain(stream);
                let head = response::head(Status::BadRequest, None, Persistence::Closed);
                transport.send([head.as_bytes(), &[]]).await.ok()?;
                transport.close().await;
                return None;
            }
            let accept = TlsAcceptor::from(self.tls.config()).accept(stream);
            match self.executor.spawn(accept).await {
                Ok(stream) => Some(Transport::Tls(Box::new(stream))),
                Err(error) => {
                    self.log_failure(client, &describe(&error));
                    None
                }
            }
        };
        within(HANDSHAKE_TIMEOUT, handshake).await.flatten()
    }

    fn log_failure(&self, client: SocketAddr, reason: &str) {
        if self.log.lock().allows(clock::now()) {
            log::info!("{client}: TLS handshake failed: {reason}");
        }
    }
}

/// Returns the reason of a failed handshake, and what to do.
fn describe(error: &io::Error) -> String {
    match error.get_ref().and_then(|error| error.downcast_ref::<Error>()) {
        Some(Error::AlertReceived(AlertDescription::UnknownCA)) => {
            "the client does not know the issuer of the certificate: install the issuer's certificate in it".into()
        }
        Some(Error::AlertReceived(AlertDescription::CertificateExpired)) => {
            "the certificate has expired, or the client's clock is wrong".into()
        }
        Some(Error::AlertReceived(alert)) => format!("the client rejects the certificate or the connection: {alert:?}"),
        Some(Error::PeerIncompatible(_)) => {
            "no cipher suite in common: the client needs TLS 1.3, or TLS 1.2 with AES-GCM and Diffie-Hellman".into()
        }
        None if error.kind() == io::ErrorKind::UnexpectedEof || error.kind() == io::ErrorKind::ConnectionReset => {
            "the client closed the connection: it may not accept the certificate".into()
        }
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn describes_failures_for_people() {
        let other = |error: Error| describe(&io::Error::other(error));
        assert!(other(Error::AlertReceived(AlertDescription::UnknownCA)).contains("issuer"));
        assert!(other(Error::AlertReceived(AlertDescription::BadCertificate)).ends_with("BadCertificate"));
        assert!(
            other(Error::PeerIncompatible(rustls::PeerIncompatible::NoCipherSuitesInCommon)).contains("Diffie-Hellman")
        );
        assert!(describe(&io::ErrorKind::UnexpectedEof.into()).contains("closed the connection"));
        assert_eq!(describe(&io::Error::other("x")), "x");
    }
}
