//! The registered sockets of an event loop, their deadlines, and the work that events cause.

use std::{
    mem,
    os::fd::OwnedFd,
    sync::Arc,
    task::{Poll, Waker},
    time::Duration,
};

use rtftp_core::Instant;
use rustix::{
    event::epoll::EventFlags,
    time::{Itimerspec, TimerfdTimerFlags, Timespec, timerfd_settime},
};
use slab::Slab;

use super::{
    deadlines::Deadlines,
    handler::{Due, Next, SharedHandler, Work},
    registration::{HANDLER_EVENTS, Registration, Source, Waiting},
    run_queue::RunQueue,
};
use crate::clock;

/// The registered sockets of an event loop.
#[derive(Debug, Default)]
pub(super) struct Registry {
    registrations: Slab<Registration>,
    deadlines: Deadlines,
    /// The instant for which the kernel's timer is set.
    timer_set_for: Option<Instant>,
    /// The registrations whose handlers are due.
    run_queue: RunQueue,
    /// The number of sockets that are kept for later.
    idle: usize,
}

impl Registry {
    /// Adds a socket, for the events in `interest`, and returns its number.
    pub(super) fn register(&mut self, socket: Arc<dyn Source>, interest: EventFlags) -> usize {
        self.registrations.insert(Registration::new(socket, interest))
    }

    /// Removes a socket and returns its registration, to be dropped once the registry is unlocked.
    pub(super) fn deregister(&mut self, epoll: &OwnedFd, id: usize) -> Option<Registration> {
        let mut registration = self.registrations.try_remove(id)?;
        self.idle -= usize::from(matches!(registration.waiting, Waiting::Idle));
        registration.request(epoll, id, EventFlags::empty());
        self.deadlines.remove(id);
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
        self.deadlines.clear(id);
        let before = mem::replace(&mut registration.waiting, Waiting::Idle);
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
        let events = mem::replace(&mut registration.events, EventFlags::empty());
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
        let before = mem::replace(&mut registration.waiting, Waiting::Handler(handler, waker.clone()));
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
        match mem::replace(&mut registration.waiting, Waiting::Done) {
            Waiting::Task(waker) => work.woken.push(waker),
            handler @ Waiting::Handler(..) => {
                registration.waiting = handler;
                registration.should_receive = true;
                self.schedule(id);
            }
            unchanged @ (Waiting::Nothing | Waiting::Done | Waiting::Idle) => {
                registration.waiting = unchanged;
                if !registration.requested().contains(EventFlags::ET) {
                    // Level-triggered: until a task waits again, the kernel must not repeat the event.
                    registration.request(epoll, id, EventFlags::empty());
                }
            }
        }
    }

    /// Schedules the handlers whose deadlines have expired.
    pub(super) fn expire(&mut self, now: Instant) {
        self.timer_set_for = None;
        while let Some(id) = self.deadlines.pop_expired(now) {
            if let Some(registration) = self.registrations.get_mut(id) {
                // It may have left datagrams unread.
                registration.should_receive = true;
                self.schedule(id);
            }
        }
    }

    /// Adds a socket's handler to the run queue, unless it is there already. It is polled if it is still attached by then.
    pub(super) fn schedule(&mut self, id: usize) {
        let count = self.len();
        if let Some(registration) = self.registrations.get_mut(id)
            && !mem::replace(&mut registration.is_scheduled, true)
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
                let should_receive = mem::take(&mut registration.should_receive);
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
            Next::Wait(until) => self.deadlines.set(due.id, until),
            Next::Yield => self.schedule(due.id),
            Next::Sleep | Next::Writable => self.deadlines.clear(due.id),
            Next::Detach => {
                self.deadlines.clear(due.id);
                if let Waiting::Handler(_, waker) = mem::replace(&mut registration.waiting, Waiting::Done) {
                    woken.push(waker);
                }
            }
        }
    }

    /// Sets the kernel's timer, if it would fire later than the first deadline, or than `task`, the first timer of a task.
    pub(super) fn set_timer(&mut self, timer: &OwnedFd, task: Option<Instant>) {
        let set_for = self.timer_set_for;
        let task = task.filter(|task| set_for.is_none_or(|set_for| *task < set_for));
        // If there is a task left, it is the earlier one of both limits.
        let Some(first) = self.deadlines.first_before(task.or(set_for)).or(task) else { return };
        // Zero would disarm it.
        let time = first.since(clock::now()).max(Duration::from_nanos(1));
        let it_value = Timespec::try_from(time).unwrap_or_default();
        match timerfd_settime(timer, TimerfdTimerFlags::empty(), &Itimerspec { it_value, ..NO_REPEAT }) {
            Ok(_) => self.timer_set_for = Some(first),
            Err(error) => log::error!("cannot set a timer: {error}"),
        }
    }
}

const NO_REPEAT: Itimerspec =
    Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: Timespec { tv_sec: 0, tv_nsec: 0 } };

#[cfg(test)]
impl Registry {
    /// Returns the events that are requested from the kernel.
    pub(super) fn requested(&self, id: usize) -> Option<EventFlags> {
        self.registrations.get(id).map(Registration::requested)
    }

    /// Returns the instant for which the kernel's timer is set.
    pub(super) fn timer_set_for(&self) -> Option<Instant> {
        self.timer_set_for
    }

    /// Returns whether nothing is left of any socket.
    pub(super) fn is_empty(&self) -> bool {
        self.registrations.is_empty() && self.deadlines.is_empty() && self.run_queue.is_empty()
    }
}
