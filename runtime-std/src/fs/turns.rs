//! The order in which disks use the thread that reads all of them: the one that has used it least recently is the next.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use smol::{
    channel::{Sender, bounded},
    future::pending,
    lock::{Semaphore, SemaphoreGuardArc},
};

use crate::clock;

/// The time after which half of what a disk has used is forgotten.
const HALF_LIFE: Duration = Duration::from_secs(5);

/// The time that the operations of one disk have used. A clone refers to the same disk.
#[derive(Debug, Clone)]
pub struct DiskWork {
    turns: Turns,
    usage: Arc<Mutex<Usage>>,
    /// Taken by the operation that waits for the turn of the disk, or has it.
    in_turn: Arc<Semaphore>,
}

#[derive(Debug)]
struct Usage {
    /// The time used, half of which is forgotten in each [`HALF_LIFE`].
    recent: Duration,
    updated: Instant,
    /// The time used since the last turn.
    slice: Duration,
}

impl DiskWork {
    /// Returns the work of a disk that takes turns with others.
    pub fn new(turns: &Turns) -> Self {
        let usage = Usage { recent: Duration::ZERO, updated: clock::instant(), slice: Duration::ZERO };
        Self { turns: turns.clone(), usage: Arc::new(Mutex::new(usage)), in_turn: Arc::new(Semaphore::new(1)) }
    }

    /// Adds to the time used.
    pub(super) fn add(&self, time: Duration, now: Instant) {
        let mut usage = self.usage.lock();
        usage.recent = usage.recent(now) + time;
        usage.updated = now;
        usage.slice += time;
    }

    /// Waits for the turn of this disk, and within it for that of an operation.
    pub(super) async fn turn(&self) -> DiskTurn {
        let in_turn = self.in_turn.acquire_arc().await;
        let turn = self.turns.wait(self.usage.clone()).await;
        self.usage.lock().slice = Duration::ZERO;
        DiskTurn { _turn: turn, _in_turn: in_turn }
    }

    /// Returns the time used since the last turn.
    pub(super) fn slice(&self) -> Duration {
        self.usage.lock().slice
    }

    /// Returns whether an operation waits for the turn of this disk, or any disk has it.
    #[cfg(test)]
    pub(super) fn has_turn(&self) -> bool {
        self.in_turn.try_acquire_arc().is_none() || self.turns.0.lock().is_taken
    }
}

impl Usage {
    fn recent(&self, now: Instant) -> Duration {
        let half_lives = now.saturating_duration_since(self.updated).as_secs_f64() / HALF_LIFE.as_secs_f64();
        self.recent.mul_f64(0.5_f64.powf(half_lives))
    }
}

/// The turns of the disks that are read by one thread. A clone refers to the same disks.
#[derive(Debug, Clone, Default)]
pub struct Turns(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    is_taken: bool,
    waiting: Vec<(Arc<Mutex<Usage>>, Sender<Turn>)>,
}

impl Turns {
    /// Waits for the turn of a disk.
    async fn wait(&self, disk: Arc<Mutex<Usage>>) -> Turn {
        let granted = {
            let mut state = self.0.lock();
            if !std::mem::replace(&mut state.is_taken, true) {
                return Turn(self.clone());
            }
            let (grant, granted) = bounded(1);
            state.waiting.push((disk, grant));
            granted
        };
        match granted.recv().await {
            Ok(turn) => turn,
            // Never: the list keeps the sender until it has sent.
            Err(_) => pending().await,
        }
    }
}

/// The turn of an operation in the turn of its disk. Dropping it passes both on.
#[derive(Debug)]
pub(super) struct DiskTurn {
    _turn: Turn,
    _in_turn: SemaphoreGuardArc,
}

/// The turn of a disk. Dropping it passes it on.
#[derive(Debug)]
struct Turn(Turns);

impl Drop for Turn {
    fn drop(&mut self) {
        let next = {
            let (mut state, now) = (self.0.0.lock(), clock::instant());
            state.waiting.retain(|(_, grant)| !grant.is_closed());
            let usages = state.waiting.iter().map(|(disk, _)| disk.lock().recent(now)).enumerate();
            let next = usages.min_by_key(|(_, recent)| *recent).map(|(index, _)| index);
            state.is_taken = next.is_some();
            next.map(|index| state.waiting.remove(index))
        };
        // If nobody waits there any more, the turn is dropped, and so passed on, again.
        let _ = next.map(|(_, grant)| grant.try_send(Self(self.0.clone())));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_is_forgotten_with_time() {
        let (disk, now) = (DiskWork::new(&Turns::default()), Instant::now());
        disk.add(Duration::from_millis(4), now);
        let recent = |after: Duration| disk.usage.lock().recent(now + after).as_micros();
        assert_eq!((recent(Duration::ZERO), recent(HALF_LIFE), recent(3 * HALF_LIFE)), (4000, 2000, 500));
    }
}
