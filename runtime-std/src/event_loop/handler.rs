//! Handlers, and the work of one iteration of the event loop.

use std::{fmt::Debug, sync::Arc, task::Waker};

use parking_lot::Mutex;
use rtftp_core::Instant;

/// A state machine that the event loop polls when its socket is ready, its deadline expires, or its waker is called. It must not
/// block.
pub(crate) trait Handler: Debug + Send {
    /// Receives the datagrams that have arrived, without answering yet: all due handlers receive before any of them is polled.
    ///
    /// Edge-triggered: datagrams left unread raise no new event. They are read with the next event or deadline.
    fn receive(&mut self);

    /// Sends the packets that are due, for a limited time, and returns the event to wait for.
    fn poll(&mut self) -> Next;
}

/// The event that a handler waits for after a poll. A datagram, or a call of its waker, makes it due earlier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// This instant.
    Wait(Instant),
    /// Another poll, after the other due handlers.
    Yield,
    /// Its waker.
    Sleep,
    /// Space in the socket's send buffer.
    Writable,
    /// Nothing: it detaches from the event loop.
    Detach,
}

/// A handler, shared by the event loop and the task that registered it.
pub(super) type SharedHandler = Arc<Mutex<dyn Handler>>;

/// The work of one iteration. The vectors are reused.
#[derive(Debug, Default)]
pub(super) struct Work {
    /// The tasks to wake.
    pub(super) woken: Vec<Waker>,
    /// The handlers to poll.
    pub(super) due: Vec<Due>,
    /// The next steps that they returned, in the same order.
    pub(super) next: Vec<Next>,
}

/// A handler to poll.
#[derive(Debug)]
pub(super) struct Due {
    pub(super) id: usize,
    pub(super) handler: SharedHandler,
    pub(super) should_receive: bool,
}
