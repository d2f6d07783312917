//! One registered socket, and the events that are requested from the kernel for it.

use std::{
    fmt::Debug,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
    task::Waker,
};

use rustix::event::epoll::{self, EventData, EventFlags};

use super::handler::SharedHandler;

/// The epoll token of the first socket; lower ones are the event loop's own.
pub(super) const FIRST_TOKEN: u64 = 2;

/// The events of a handler's socket.
pub(super) const HANDLER_EVENTS: EventFlags = EventFlags::IN.union(EventFlags::ET);

/// A socket that can be registered.
pub(crate) trait Source: AsFd + Debug + Send + Sync {}

impl<T: AsFd + Debug + Send + Sync> Source for T {}

/// A registered socket.
#[derive(Debug)]
pub(super) struct Registration {
    socket: Arc<dyn Source>,
    /// The events that may be requested from the kernel.
    interest: EventFlags,
    /// The events that are requested; none if the socket is not in epoll.
    requested: EventFlags,
    pub(super) waiting: Waiting,
    /// The events since a task was last told of some.
    pub(super) events: EventFlags,
    /// Whether it is in the run queue.
    pub(super) is_scheduled: bool,
    /// Whether the handler receives before its next poll.
    pub(super) should_receive: bool,
}

/// The party that waits for a socket.
#[derive(Debug)]
pub(super) enum Waiting {
    /// Nothing.
    Nothing,
    /// A task, until the socket is ready.
    Task(Waker),
    /// A handler, and a task that waits until it detaches.
    Handler(SharedHandler, Waker),
    /// A task whose wait is over but that has not been polled since.
    Done,
    /// Nothing, until the socket gets another handler.
    Idle,
}

impl Registration {
    /// Creates the registration of a socket for which no events are requested yet.
    pub(super) fn new(socket: Arc<dyn Source>, interest: EventFlags) -> Self {
        Self {
            socket,
            interest,
            requested: EventFlags::empty(),
            waiting: Waiting::Nothing,
            events: EventFlags::empty(),
            is_scheduled: false,
            should_receive: false,
        }
    }

    /// Returns the events that are requested from the kernel.
    pub(super) fn requested(&self) -> EventFlags {
        self.requested
    }

    /// Requests these events from the kernel, as far as the socket is registered for them.
    pub(super) fn request(&mut self, epoll: &OwnedFd, id: usize, events: EventFlags) {
        let events = if self.interest.intersects(events) {
            events & (self.interest | EventFlags::ET)
        } else {
            EventFlags::empty()
        };
        if self.requested == events {
            return;
        }
        let data = EventData::new_u64(FIRST_TOKEN + id as u64);
        let changed = if events.is_empty() {
            epoll::delete(epoll, &self.socket)
        } else if self.requested.is_empty() {
            epoll::add(epoll, &self.socket, data, events)
        } else {
            epoll::modify(epoll, &self.socket, data, events)
        };
        match changed {
            Ok(()) => self.requested = events,
            Err(error) => log::error!("epoll_ctl: {error}"),
        }
    }
}
