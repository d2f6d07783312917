//! The time of a client's last packet after its request.

use std::sync::atomic::{AtomicU64, Ordering};

use rtftp_core::Instant;

/// The time of a client's last packet after its request, in microseconds of the clock; 0 if there was none.
///
/// A client that has answered is *verified*: it receives packets at the address it sends from. The address of a client that has
/// not may be forged.
#[derive(Debug, Default)]
pub(crate) struct LastSeen(AtomicU64);

impl LastSeen {
    /// Records a packet from the client.
    pub(crate) fn record(&self, now: Instant) {
        self.0.store(now.as_micros().max(1), Ordering::Relaxed);
    }

    /// Returns the time of the last packet, or `None` if the client has not answered yet.
    pub(crate) fn last(&self) -> Option<Instant> {
        Some(self.0.load(Ordering::Relaxed)).filter(|&micros| micros != 0).map(Instant::from_micros)
    }

    /// Returns whether the client has answered.
    pub(crate) fn is_verified(&self) -> bool {
        self.last().is_some()
    }
}
