//! `/healthz` and `/readyz`: whether the daemon works, for Kubernetes, load balancers and monitoring.

use std::{sync::Arc, time::Duration};

use rtftp_runtime::server::Server;

use super::response::Response;

/// The time in which the daemon must answer.
const LIMIT: Duration = Duration::from_secs(2);

/// A probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Probe {
    /// Fails if the daemon must be restarted: a thread hangs. The condition of the watchdog.
    Alive,
    /// Fails if requests cannot be served.
    Ready,
}

impl Probe {
    /// Returns the probe at a path, if there is one.
    pub(super) fn at(path: &str) -> Option<Self> {
        match path {
            "/healthz" => Some(Self::Alive),
            "/readyz" => Some(Self::Ready),
            _ => None,
        }
    }

    /// Returns `ok`, or 503 with the reason.
    pub(super) async fn response(self, server: &Server) -> Response {
        let result = match self {
            Self::Alive => server.check_alive(LIMIT).await,
            Self::Ready => server.check_ready(LIMIT).await,
        };
        match result {
            Ok(()) => Response::new("text/plain; charset=utf-8", Arc::new(b"ok\n".to_vec())),
            Err(error) => Response::unavailable(&error.to_string()),
        }
    }
}
