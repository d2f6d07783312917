//! Waking a thread that may be asleep in the kernel.

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

/// Wakes the thread that runs an event loop, with a system call only if it sleeps.
#[derive(Debug)]
pub(super) struct Alarm {
    eventfd: OwnedFd,
    state: AtomicU8,
}

/// The thread is at work and will look whether it was woken before it sleeps.
const AWAKE: u8 = 0;
/// It was woken since.
const WOKEN: u8 = 1;
/// It sleeps, or is about to: only the eventfd wakes it.
const ASLEEP: u8 = 2;

impl Alarm {
    pub(super) fn new() -> io::Result<Self> {
        let eventfd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { eventfd, state: AtomicU8::new(AWAKE) })
    }

    /// What can be read from when the thread is to wake.
    pub(super) fn eventfd(&self) -> &OwnedFd {
        &self.eventfd
    }

    /// Says that the thread is at work.
    pub(super) fn stay_awake(&self) {
        self.state.swap(AWAKE, Ordering::AcqRel);
    }

    /// Whether the thread was not woken since it said so; if so, it must be asleep in the kernel next.
    pub(super) fn may_sleep(&self) -> bool {
        self.state.compare_exchange(AWAKE, ASLEEP, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.state.swap(WOKEN, Ordering::AcqRel) == ASLEEP {
            // Fails only when the counter is full, and then the thread has been woken often enough.
            let _ = rustix::io::write(&self.eventfd, &1u64.to_ne_bytes());
        }
    }
}
