//! The subscribers that receive an event for each finished request.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use parking_lot::Mutex;
use smol::channel::{Receiver, Sender, bounded};

use super::snapshot::Event;
use crate::{clock, rate_limit::RateLimit};

/// The number of subscribers at a time.
const MAX_SUBSCRIBERS: usize = 16;
/// The number of unread lines after which a slow subscriber is dropped. The lines are shared by all subscribers.
const MAX_QUEUED_LINES: usize = 1024;
/// The number of events of unverified clients that are published at once.
const UNVERIFIED_BURST: u32 = 100;
/// The number of events of unverified clients that are published each second after the burst.
const UNVERIFIED_PER_SECOND: u32 = 10;

/// The subscribers of a history.
#[derive(Debug)]
pub(super) struct Subscribers {
    /// The number of `queues`, read first: without subscribers, publishing takes no lock.
    count: AtomicUsize,
    queues: Mutex<Vec<Sender<Arc<str>>>>,
    unverified: Mutex<RateLimit>,
}

impl Subscribers {
    pub(super) fn new() -> Self {
        let unverified = Mutex::new(RateLimit::new(UNVERIFIED_BURST, UNVERIFIED_PER_SECOND));
        Self { count: AtomicUsize::new(0), queues: Mutex::default(), unverified }
    }

    /// Adds a subscriber. Returns `None` if there are too many.
    pub(super) fn subscribe(&self) -> Option<Receiver<Arc<str>>> {
        let mut queues = self.queues.lock();
        queues.retain(|queue| !queue.is_closed());
        if queues.len() >= MAX_SUBSCRIBERS {
            return None;
        }
        let (sender, receiver) = bounded(MAX_QUEUED_LINES);
        queues.push(sender);
        self.count.store(queues.len(), Relaxed);
        Some(receiver)
    }

    /// Returns the number of subscribers.
    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.count.load(Relaxed)
    }

    /// Sends an event to all subscribers. Events of unverified clients are limited in rate.
    pub(super) fn publish(&self, is_verified: bool, event: impl FnOnce() -> Event) {
        if self.count.load(Relaxed) == 0 || !(is_verified || self.unverified.lock().allows(clock::now())) {
            return;
        }
        let Ok(mut line) = serde_json::to_string(&event()) else { return };
        line.push('\n');
        let line = Arc::from(line);
        let mut queues = self.queues.lock();
        // Drops subscribers that disconnected or read too slowly.
        queues.retain(|queue| queue.try_send(Arc::clone(&line)).is_ok());
        self.count.store(queues.len(), Relaxed);
    }
}
