//! Who wants to be told of every request that is over.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use smol::channel::{Receiver, Sender, bounded};

use super::snapshot::Event;
use crate::{clock, rate_limit::RateLimit};

/// How many there may be.
const FOLLOWERS: usize = 16;
/// How many lines wait for a follower that is slow, before it is dropped. All followers share them.
const WAITING: usize = 1024;
/// So many events of clients that did not answer are told at once, and so many a second.
const STRANGERS: (u32, u32) = (100, 10);

/// The followers of a record.
#[derive(Debug)]
pub(super) struct Followers {
    /// Read first, so that nothing is locked or written where nobody follows.
    count: AtomicUsize,
    lines: Mutex<Vec<Sender<Arc<str>>>>,
    strangers: Mutex<RateLimit>,
}

impl Followers {
    pub(super) fn new() -> Self {
        let strangers = Mutex::new(RateLimit::new(STRANGERS.0, STRANGERS.1));
        Self { count: AtomicUsize::new(0), lines: Mutex::default(), strangers }
    }

    /// One more; `None` when there are too many.
    pub(super) fn follow(&self) -> Option<Receiver<Arc<str>>> {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.retain(|line| !line.is_closed());
        if lines.len() >= FOLLOWERS {
            return None;
        }
        let (sender, receiver) = bounded(WAITING);
        lines.push(sender);
        self.count.store(lines.len(), Relaxed);
        Some(receiver)
    }

    /// How many there are.
    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.count.load(Relaxed)
    }

    /// Tells an event; one of a client that has not answered only if there were not too many of these lately.
    pub(super) fn tell(&self, proven: bool, event: impl FnOnce() -> Event) {
        if self.count.load(Relaxed) == 0 || !(proven || self.allows_stranger()) {
            return;
        }
        let Ok(mut line) = serde_json::to_string(&event()) else { return };
        line.push('\n');
        let line = Arc::from(line);
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        // Who has gone, or reads too slowly, is told nothing more.
        lines.retain(|follower| follower.try_send(Arc::clone(&line)).is_ok());
        self.count.store(lines.len(), Relaxed);
    }

    fn allows_stranger(&self) -> bool {
        self.strangers.lock().unwrap_or_else(PoisonError::into_inner).allows(clock::now())
    }
}
