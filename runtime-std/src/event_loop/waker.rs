//! The waker of an event loop's thread.

use std::{
    io,
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    task::Wake,
};

use rustix::event::{EventfdFlags, eventfd};

/// Wakes the thread of an event loop. Takes a system call only if the thread sleeps.
#[derive(Debug)]
pub(super) struct EventfdWaker {
    eventfd: OwnedFd,
    state: AtomicU8,
}

/// The thread runs, and checks the state before it sleeps.
const AWAKE: u8 = 0;
/// The thread was woken since it was set awake.
const WOKEN: u8 = 1;
/// The thread sleeps, or is about to: only the eventfd wakes it.
const ASLEEP: u8 = 2;

impl EventfdWaker {
    pub(super) fn new() -> io::Result<Self> {
        let eventfd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { eventfd, state: AtomicU8::new(AWAKE) })
    }

    /// Returns the descriptor that becomes readable when a sleeping thread is woken.
    pub(super) fn eventfd(&self) -> &OwnedFd {
        &self.eventfd
    }

    /// Marks the thread as awake, and forgets earlier wakes.
    pub(super) fn set_awake(&self) {
        self.state.swap(AWAKE, Ordering::AcqRel);
    }

    /// Returns `true`, and marks the thread as asleep, unless it was woken since it was set awake.
    pub(super) fn may_sleep(&self) -> bool {
        self.state.compare_exchange(AWAKE, ASLEEP, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

impl Wake for EventfdWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.state.swap(WOKEN, Ordering::AcqRel) == ASLEEP {
            // Fails only if the counter overflows, after 2^64 - 1 pending wakes.
            let _ = rustix::io::write(&self.eventfd, &1u64.to_ne_bytes());
        }
    }
}
