//! The registered sockets of an event loop, their deadlines, and the work that events cause.

use std::{
    collections::BTreeSet,
    fmt::Debug,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
    task::{Poll, Waker},
    time::Duration,
};

use parking_lot::Mutex;
use rtftp_core::Instant;
use rustix::{
    event::epoll::{self, EventData, EventFlags},
    time::{Itimerspec, TimerfdTimerFlags, Timespec, timerfd_settime},
};
use slab::Slab;

use super::run_queue::RunQueue;
use crate::clock;

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

/// The epoll token of the first socket; lower ones are the event loop's own.
pub(super) const FIRST_TOKEN: u64 = 2;

/// The registered sockets of an event loop.
#[derive(Debug, Default)]
pub(super) struct Registry {
    registrations: Slab<Registration>,
    /// The timers of registrations, at most one each.
    timers: BTreeSet<(Instant, usize)>,
    /// The instant for which the kernel's timer is set.
    timer_set_for: Option<Instant>,
    /// The registrations whose handlers are due.
    run_queue: RunQueue,
    /// The number of sockets that are kept for later.
    idle: usize,
}

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
    waiting: Waiting,
    /// The events since [`Registry::poll_events`] returned some; only for tasks.
    events: EventFlags,
    /// The handler's deadline.
    deadline: Option<Instant>,
    /// The registration's entry in `timers`: earlier than the deadline if that was moved, never later.
    timer: Option<Instant>,
    /// Whether it is in the run queue.
    is_scheduled: bool,
    /// Whether the handler receives before its next poll.
    should_receive: bool,
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

impl Registry {
    /// Adds a socket, for the events in `interest`, and returns its number.
    pub(super) fn register(&mut self, socket: Arc<dyn Source>, interest: EventFlags) -> usize {
        self.registrations.insert(Registration {
            socket,
            interest,
            requested: EventFlags::empty(),
            waiting: Waiting::Nothing,
            events: EventFlags::empty(),
            deadline: None,
            timer: None,
            is_scheduled: false,
            should_receive: false,
        })
    }

    /// Removes a socket and returns its registration, to be dropped once the registry is unlocked.
    pub(super) fn deregister(&mut self, epoll: &OwnedFd, id: usize) -> Option<Registration> {
        let mut registration = self.registrations.try_remove(id)?;
        self.idle -= usize::from(matches!(registration.waiting, Waiting::Idle));
        registration.request(epoll, id, EventFlags::empty());
        if let Some(timer) = registration.timer {
            self.timers.remove(&(timer, id));
        }
        Some(registration)
    }

    /// Returns the number of sockets in use.
    pub(super) fn len(&self) -> usize {
        self.registrations.len() - self.idle
    }

    /// Keeps a socket without a handler: it does not count, and stays in epoll. Returns what has waited for it, to be dropped once the
    /// registry is unlocked.
    pub(super) fn set_idle(&mut self, id: usize) -> Option<Waiting> {
        let registration = self.registrations.get_mut(id)?;
        registration.deadline = None;
        let before = std::mem::replace(&mut registration.waiting, Waiting::Idle);
        self.idle += usize::from(!matches!(before, Waiting::Idle));
        Some(before)
    }

    /// Wakes a task once a socket is ready, in place of the task that waited before.
    pub(super) fn wait_ready(&mut self, epoll: &OwnedFd, id: usize, events: EventFlags, waker: &Waker) {
        let Some(registration) = self.registrations.get_mut(id) else { return };
        registration.waiting = Waiting::Task(waker.clone());
        registration.request(epoll, id, events);
    }

    /// Returns the events since the last call that returned some, or wakes a task at the next one. Edge-triggered: the caller has found
    /// the socket empty before.
    pub(super) fn poll_events(
        &mut self,
        epoll: &OwnedFd,
        id: usize,
        events: EventFlags,
        waker: &Waker,
    ) -> Poll<EventFlags> {
        let Some(registration) = self.registrations.get_mut(id) else { return Poll::Pending };
        registration.request(epoll, id, events | EventFlags::ET);
        let events = std::mem::replace(&mut registration.events, EventFlags::empty());
        if !events.is_empty() {
            registration.waiting = Waiting::Nothing;
            return Poll::Ready(events);
        }
        match &mut registration.waiting {
            Waiting::Task(known) => known.clone_from(waker),
            waiting => *waiting = Waiting::Task(waker.clone()),
        }
        Poll::Pending
    }

    /// Attaches a handler, which is due at once; `waker` is called when it detaches.
    pub(super) fn attach(&mut self, epoll: &OwnedFd, id: usize, handler: SharedHandler, waker: &Waker) {
        let Some(registration) = self.registrations.get_mut(id) else { return };
        let before = std::mem::replace(&mut registration.waiting, Waiting::Handler(handler, waker.clone()));
        self.idle -= usize::from(matches!(before, Waiting::Idle));
        registration.request(epoll, id, HANDLER_EVENTS);
        self.schedule(id);
    }

    /// Returns whether a task's wait is over, and otherwise replaces the waker that is called then.
    pub(super) fn poll_wait(&mut self, id: usize, waker: &Waker) -> Poll<()> {
        match self.registrations.get_mut(id).map(|registration| &mut registration.waiting) {
            Some(Waiting::Done) => return Poll::Ready(()),
            Some(Waiting::Task(known) | Waiting::Handler(_, known)) => known.clone_from(waker),
            // Another wait has replaced this one.
            Some(Waiting::Nothing | Waiting::Idle) | None => {}
        }
        Poll::Pending
    }

    /// Handles the kernel's event for a socket.
    ///
    /// A late event may belong to a socket that is gone and hit another one with its number, which then receives nothing.
    pub(super) fn socket_ready(&mut self, epoll: &OwnedFd, id: usize, events: EventFlags, work: &mut Work) {
        let Some(registration) = self.registrations.get_mut(id) else { return };
        registration.events |= events;
        match std::mem::replace(&mut registration.waiting, Waiting::Done) {
            Waiting::Task(waker) => work.woken.push(waker),
            handler @ Waiting::Handler(..) => {
                registration.waiting = handler;
                registration.should_receive = true;
                self.schedule(id);
            }
            unchanged @ (Waiting::Nothing | Waiting::Done | Waiting::Idle) => {
                registration.waiting = unchanged;
                if !registration.requested.contains(EventFlags::ET) {
                    // Level-triggered: until a task waits again, the kernel must not repeat the event.
                    registration.request(epoll, id, EventFlags::empty());
                }
            }
        }
    }

    /// Schedules the handlers whose deadlines have expired.
    pub(super) fn expire(&mut self, now: Instant) {
        self.timer_set_for = None;
        while let Some(&(at, id)) = self.timers.first().filter(|(at, _)| *at <= now) {
            self.timers.remove(&(at, id));
            let Some(registration) = self.registrations.get_mut(id) else { continue };
            registration.timer = None;
            match registration.deadline {
                Some(deadline) if deadline <= now => {
                    // It may have left datagrams unread.
                    registration.should_receive = true;
                    self.schedule(id);
                }
                // The deadline was moved.
                Some(deadline) => {
                    registration.timer = Some(deadline);
                    self.timers.insert((deadline, id));
                }
                None => {}
            }
        }
    }

    /// Adds a socket's handler to the run queue, unless it is there already. It is polled if it is still attached by then.
    pub(super) fn schedule(&mut self, id: usize) {
        let count = self.len();
        if let Some(registration) = self.registrations.get_mut(id)
            && !std::mem::replace(&mut registration.is_scheduled, true)
        {
            self.run_queue.push(id, count);
        }
    }

    /// Returns whether a handler is due.
    pub(super) fn has_due_handlers(&self) -> bool {
        !self.run_queue.is_empty()
    }

    /// Moves up to `max` handlers from the run queue to the work of this iteration.
    pub(super) fn take_due(&mut self, max: usize, work: &mut Work) {
        for id in self.run_queue.next(clock::now).take(max) {
            let Some(registration) = self.registrations.get_mut(id) else { continue };
            registration.is_scheduled = false;
            if let Waiting::Handler(handler, _) = &registration.waiting {
                let should_receive = std::mem::take(&mut registration.should_receive);
                work.due.push(Due { id, handler: handler.clone(), should_receive });
            }
        }
    }

    /// Starts the wait that a handler has asked for, if it is still attached: meanwhile another thread may have removed its socket,
    /// and another socket may have the same number.
    pub(super) fn apply(&mut self, epoll: &OwnedFd, due: &Due, next: Next, woken: &mut Vec<Waker>) {
        let Some(registration) = self.registrations.get_mut(due.id) else { return };
        if !matches!(&registration.waiting, Waiting::Handler(handler, _) if Arc::ptr_eq(handler, &due.handler)) {
            return;
        }
        let space = if next == Next::Writable { EventFlags::OUT } else { EventFlags::empty() };
        registration.request(epoll, due.id, HANDLER_EVENTS | space);
        match next {
            Next::Wait(until) => self.set_deadline(due.id, until),
            Next::Yield => self.schedule(due.id),
            Next::Sleep | Next::Writable => registration.deadline = None,
            Next::Detach => {
                registration.deadline = None;
                if let Waiting::Handler(_, waker) = std::mem::replace(&mut registration.waiting, Waiting::Done) {
                    woken.push(waker);
                }
            }
        }
    }

    /// Returns the first deadline. Moves the timers before it, whose deadlines were moved: the kernel's timer need not fire for them.
    pub(super) fn first_deadline(&mut self) -> Option<Instant> {
        while let Some(&(at, id)) = self.timers.first() {
            let Some(registration) = self.registrations.get_mut(id) else { break };
            if registration.deadline == Some(at) {
                break;
            }
            self.timers.remove(&(at, id));
            registration.timer = registration.deadline;
            self.timers.extend(registration.deadline.map(|deadline| (deadline, id)));
        }
        self.timers.first().map(|(first, _)| *first)
    }

    fn set_deadline(&mut self, id: usize, deadline: Instant) {
        let Some(registration) = self.registrations.get_mut(id) else { return };
        registration.deadline = Some(deadline);
        if registration.timer.is_none_or(|timer| deadline < timer) {
            if let Some(later) = registration.timer.replace(deadline) {
                self.timers.remove(&(later, id));
            }
            self.timers.insert((deadline, id));
        }
    }

    /// Sets the kernel's timer, if it would fire later than the first deadline, or than `task`, the first timer of a task.
    pub(super) fn set_timer(&mut self, timer: &OwnedFd, task: Option<Instant>) {
        let Some(first) = self.timers.first().map(|(first, _)| *first).into_iter().chain(task).min() else { return };
        if self.timer_set_for.is_some_and(|set_for| set_for <= first) {
            return;
        }
        let Some(first) = self.first_deadline().into_iter().chain(task).min() else { return };
        // Zero would disarm it.
        let time = first.since(clock::now()).max(Duration::from_nanos(1));
        let it_value = Timespec::try_from(time).unwrap_or_default();
        match timerfd_settime(timer, TimerfdTimerFlags::empty(), &Itimerspec { it_value, ..NO_REPEAT }) {
            Ok(_) => self.timer_set_for = Some(first),
            Err(error) => log::error!("cannot set a timer: {error}"),
        }
    }
}

/// The events of a handler's socket.
const HANDLER_EVENTS: EventFlags = EventFlags::IN.union(EventFlags::ET);

const NO_REPEAT: Itimerspec =
    Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: Timespec { tv_sec: 0, tv_nsec: 0 } };

impl Registration {
    /// Requests these events from the kernel, as far as the socket is registered for them.
    fn request(&mut self, epoll: &OwnedFd, id: usize, events: EventFlags) {
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

#[cfg(test)]
impl Registry {
    /// Returns the events that are requested from the kernel.
    pub(super) fn requested(&self, id: usize) -> Option<EventFlags> {
        self.registrations.get(id).map(|registration| registration.requested)
    }

    /// Returns whether nothing is left of any socket.
    pub(super) fn is_empty(&self) -> bool {
        self.registrations.is_empty() && self.timers.is_empty() && self.run_queue.is_empty()
    }
}
