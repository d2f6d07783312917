//! Who waits for what.

use std::{
    collections::BTreeSet,
    fmt::Debug,
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, Mutex},
    task::{Poll, Waker},
    time::Duration,
};

use rtftp_core::Instant;
use rustix::{
    event::epoll::{self, EventData, EventFlags},
    time::{Itimerspec, TimerfdTimerFlags, Timespec, timerfd_settime},
};
use slab::Slab;

use super::{Handler, Turn, run_queue::Queue};
use crate::clock;

/// What the kernel's names for sockets begin with; lower ones are the event loop's own.
pub(super) const FIRST: u64 = 2;

/// The sockets, and what to do next.
#[derive(Debug, Default)]
pub(super) struct Table {
    sources: Slab<Source>,
    /// When to look at which source, each at most once.
    timers: BTreeSet<(Instant, usize)>,
    /// When the kernel's timer fires.
    fires: Option<Instant>,
    /// Those whose guests are due.
    queue: Queue,
}

/// What the kernel knows a socket by.
pub(super) trait Descriptor: AsFd + Debug + Send + Sync {}

impl<T: AsFd + Debug + Send + Sync> Descriptor for T {}

/// A socket in the table.
#[derive(Debug)]
struct Source {
    socket: Arc<dyn Descriptor>,
    /// What the kernel may be asked to tell of.
    concerns: EventFlags,
    /// What the kernel is asked to tell of; nothing if it does not know of the socket.
    interest: EventFlags,
    state: State,
    deadline: Option<Instant>,
    /// Its place in `timers`, which may be earlier than the deadline is by now, never later.
    timer: Option<Instant>,
    /// Whether it is in the queue.
    is_due: bool,
}

/// Whether somebody waits.
#[derive(Debug)]
enum State {
    /// Nobody.
    Idle,
    /// This task.
    Waiting(Waker),
    /// A guest, and a task for the guest to leave.
    Hosting(Shared, Waker),
    /// The wait is over: there is something to receive, or the deadline has come, or the guest has left.
    Over { ready: bool },
}

/// What a wait is for.
pub(super) enum Wait {
    /// Something that the socket is ready for.
    Ready(EventFlags, Option<Instant>),
    /// The guest's leaving; its first turn is at this instant, if nothing comes before.
    Handler(Shared, Instant),
}

/// A guest, which its task sees as well.
pub(super) type Shared = Arc<Mutex<dyn Handler>>;

/// What is to be done before the kernel is looked at again.
#[derive(Debug, Default)]
pub(super) struct Work {
    /// Tasks to wake.
    pub(super) woken: Vec<Waker>,
    /// Guests that have a turn.
    pub(super) guests: Vec<Due>,
}

/// A guest that has a turn.
#[derive(Debug)]
pub(super) struct Due {
    pub(super) id: usize,
    pub(super) guest: Shared,
}

impl Table {
    pub(super) fn insert(&mut self, socket: Arc<dyn Descriptor>, concerns: EventFlags) -> usize {
        let (interest, state) = (EventFlags::empty(), State::Idle);
        self.sources.insert(Source { socket, concerns, interest, state, deadline: None, timer: None, is_due: false })
    }

    /// How many sockets there are.
    pub(super) fn len(&self) -> usize {
        self.sources.len()
    }

    pub(super) fn remove(&mut self, epoll: &OwnedFd, id: usize) {
        if let Some(mut source) = self.sources.try_remove(id) {
            source.tell(epoll, id, EventFlags::empty());
            if let Some(timer) = source.timer {
                self.timers.remove(&(timer, id));
            }
        }
    }

    /// Begins a wait, which takes the place of one that was given up.
    pub(super) fn begin(&mut self, epoll: &OwnedFd, id: usize, wait: Wait, waker: &Waker) {
        let Some(source) = self.sources.get_mut(id) else { return };
        let (interest, deadline, state) = match wait {
            Wait::Ready(interest, deadline) => (interest, deadline, State::Waiting(waker.clone())),
            // Told of once: the kernel need not look again whether the guest has taken what has come.
            Wait::Handler(guest, at) => {
                (EventFlags::IN | EventFlags::ET, Some(at), State::Hosting(guest, waker.clone()))
            }
        };
        source.state = state;
        source.tell(epoll, id, interest);
        self.set_deadline(id, deadline);
    }

    /// Whether the wait is over, and how it ended.
    pub(super) fn poll(&mut self, id: usize, waker: &Waker) -> Poll<bool> {
        let Some(source) = self.sources.get_mut(id) else { return Poll::Pending };
        match &mut source.state {
            State::Over { ready } => Poll::Ready(*ready),
            State::Waiting(known) | State::Hosting(_, known) => {
                known.clone_from(waker);
                Poll::Pending
            }
            // Another wait has taken the place of this one.
            State::Idle => Poll::Pending,
        }
    }

    /// Notes that a socket is ready.
    ///
    /// A name that comes late, for a socket that is gone, may be another one's by now: which then finds nothing to receive.
    pub(super) fn ready(&mut self, epoll: &OwnedFd, id: usize, work: &mut Work) {
        if !self.due(id, true, work)
            && let Some(source) = self.sources.get_mut(id)
        {
            // Nobody takes what has come: until somebody waits again the kernel must not tell of it again and again.
            source.tell(epoll, id, EventFlags::empty());
        }
    }

    /// Notes that time has passed.
    pub(super) fn expire(&mut self, now: Instant, work: &mut Work) {
        self.fires = None;
        while let Some(&(at, id)) = self.timers.first().filter(|(at, _)| *at <= now) {
            self.timers.remove(&(at, id));
            let Some(source) = self.sources.get_mut(id) else { continue };
            source.timer = None;
            match source.deadline {
                Some(deadline) if deadline <= now => _ = self.due(id, false, work),
                // It was moved in the meantime.
                Some(deadline) => {
                    source.timer = Some(deadline);
                    self.timers.insert((deadline, id));
                }
                None => {}
            }
        }
    }

    /// Has a task woken, whose wait is over, or a guest have its turn; whether there is one.
    fn due(&mut self, id: usize, ready: bool, work: &mut Work) -> bool {
        let Some(source) = self.sources.get_mut(id) else { return false };
        match &source.state {
            State::Hosting(..) => self.nudge(id),
            State::Waiting(_) => {
                if let State::Waiting(waker) = std::mem::replace(&mut source.state, State::Over { ready }) {
                    work.woken.push(waker);
                }
                source.deadline = None;
            }
            State::Idle | State::Over { .. } => return false,
        }
        true
    }

    /// Has a guest have a turn, if it is still there then: one, however often this is asked for.
    pub(super) fn nudge(&mut self, id: usize) {
        let guests = self.sources.len();
        if let Some(source) = self.sources.get_mut(id)
            && !std::mem::replace(&mut source.is_due, true)
        {
            self.queue.push(id, guests);
        }
    }

    /// Whether a guest is due.
    pub(super) fn is_busy(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Has the next few guests have their turns.
    pub(super) fn begin_turns(&mut self, most: usize, work: &mut Work) {
        for id in self.queue.next(clock::now).take(most) {
            let Some(source) = self.sources.get_mut(id) else { continue };
            source.is_due = false;
            if let State::Hosting(guest, _) = &source.state {
                work.guests.push(Due { id, guest: guest.clone() });
            }
        }
    }

    /// Does what a guest wants after its turn, if it is there still: meanwhile another thread may have taken it back, and its place
    /// may be another one's by now.
    pub(super) fn settle(&mut self, due: &Due, turn: Turn, work: &mut Work) {
        let Some(source) = self.sources.get_mut(due.id) else { return };
        if !matches!(&source.state, State::Hosting(guest, _) if Arc::ptr_eq(guest, &due.guest)) {
            return;
        }
        match turn {
            Turn::Wait(until) => self.set_deadline(due.id, Some(until)),
            Turn::Again => self.nudge(due.id),
            Turn::Leave => {
                if let State::Hosting(_, waker) = std::mem::replace(&mut source.state, State::Over { ready: true }) {
                    work.woken.push(waker);
                }
            }
        }
    }

    fn set_deadline(&mut self, id: usize, deadline: Option<Instant>) {
        let Some(source) = self.sources.get_mut(id) else { return };
        source.deadline = deadline;
        let Some(deadline) = deadline else { return };
        if source.timer.is_none_or(|timer| deadline < timer) {
            if let Some(later) = source.timer.replace(deadline) {
                self.timers.remove(&(later, id));
            }
            self.timers.insert((deadline, id));
        }
    }

    /// Has the kernel's timer fire in time for the first deadline.
    pub(super) fn set_timer(&mut self, timer: &OwnedFd) {
        let Some(&(first, _)) = self.timers.first() else { return };
        if self.fires.is_some_and(|fires| fires <= first) {
            return;
        }
        // Zero would be never.
        let time = first.since(clock::now()).max(Duration::from_nanos(1));
        let it_value = Timespec::try_from(time).unwrap_or_default();
        match timerfd_settime(timer, TimerfdTimerFlags::empty(), &Itimerspec { it_value, ..NO_REPEAT }) {
            Ok(_) => self.fires = Some(first),
            Err(error) => log::error!("setting a timer: {error}"),
        }
    }
}

const NO_REPEAT: Itimerspec =
    Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: Timespec { tv_sec: 0, tv_nsec: 0 } };

impl Source {
    /// Tells the kernel what it is to tell of.
    fn tell(&mut self, epoll: &OwnedFd, id: usize, interest: EventFlags) {
        let interest = interest & self.concerns;
        if self.interest == interest {
            return;
        }
        let data = EventData::new_u64(FIRST + id as u64);
        let told = if interest.is_empty() {
            epoll::delete(epoll, &self.socket)
        } else if self.interest.is_empty() {
            epoll::add(epoll, &self.socket, data, interest)
        } else {
            epoll::modify(epoll, &self.socket, data, interest)
        };
        match told {
            Ok(()) => self.interest = interest,
            Err(error) => log::error!("waiting on a socket: {error}"),
        }
    }
}

#[cfg(test)]
impl Table {
    /// What the kernel is asked to tell of.
    pub(super) fn interest(&self, id: usize) -> Option<EventFlags> {
        self.sources.get(id).map(|source| source.interest)
    }

    /// Whether nothing is left of any socket.
    pub(super) fn is_empty(&self) -> bool {
        self.sources.is_empty() && self.timers.is_empty() && self.queue.is_empty()
    }
}
