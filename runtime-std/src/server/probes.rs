//! The probes of a server, for the watchdog and for `/healthz` and `/readyz`.

use std::{io, sync::atomic::Ordering::Relaxed, time::Duration};

use super::{HealthError, Server};
use crate::clock::within;

impl Server {
    /// Checks that the thread that serves requests and the one that reads disks run a task within `limit`.
    ///
    /// # Errors
    ///
    /// Returns the thread that does not.
    pub async fn check_alive(&self, limit: Duration) -> Result<(), HealthError> {
        self.health.check_alive(&self.executor, self.disk_thread.executor(), limit).await
    }

    /// Checks that the server is alive, receives requests, and can read its root directory, each within `limit`.
    ///
    /// # Errors
    ///
    /// Returns what does not work.
    pub async fn check_ready(&self, limit: Duration) -> Result<(), HealthError> {
        if !self.health.is_serving.load(Relaxed) {
            return Err(HealthError::NotServing);
        }
        self.check_alive(limit).await?;
        let read = within(limit, self.context.files.check_root()).await;
        let read = read.unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()));
        read.map_err(|error| HealthError::Root { path: self.config.root_dir.clone(), error })
    }
}
