//! The event loop of one thread, and the sockets registered with it.

use std::{
    future::{Future, poll_fn},
    io,
    net::UdpSocket,
    os::fd::OwnedFd,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    time::Instant,
};

use parking_lot::Mutex;
use rustix::{
    buffer::spare_capacity,
    event::epoll::{self, CreateFlags, Event, EventData, EventFlags},
    time::{TimerfdClockId, TimerfdFlags, Timespec, timerfd_create},
};

use super::{
    handler::{Handler, Work},
    registration::{FIRST_TOKEN, Source},
    registry::Registry,
    waker::EventfdWaker,
};
use crate::clock::{self, Timers};

/// The number of handlers polled between two calls of `epoll_wait`. The memory of more would leave the innermost caches between
/// receiving and sending.
const MAX_POLLS: usize = 32;
/// The number of events read from the kernel at once. It exceeds `MAX_POLLS`, so that sockets of handlers in the run queue do not
/// hide those that became ready later.
const MAX_EVENTS: usize = 2 * MAX_POLLS;
/// The epoll tokens of the eventfd and the timer.
const WAKER_TOKEN: u64 = 0;
const TIMER_TOKEN: u64 = 1;

/// The epoll instance of one thread, with the sockets registered in it.
#[derive(Debug)]
pub(crate) struct EventLoop {
    epoll: OwnedFd,
    timer: OwnedFd,
    waker: Arc<EventfdWaker>,
    registry: Mutex<Registry>,
    /// The timers of tasks that run on this thread.
    timers: Arc<Timers>,
}

impl EventLoop {
    /// Creates an event loop without any sockets.
    pub(crate) fn new() -> io::Result<Arc<Self>> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
        let waker = Arc::new(EventfdWaker::new()?);
        // Edge-triggered: each of them raises one event and does not have to be read.
        let events = EventFlags::IN | EventFlags::ET;
        epoll::add(&epoll, &timer, EventData::new_u64(TIMER_TOKEN), events)?;
        epoll::add(&epoll, waker.eventfd(), EventData::new_u64(WAKER_TOKEN), events)?;
        Ok(Arc::new(Self { epoll, timer, waker, registry: Mutex::default(), timers: Arc::default() }))
    }

    /// Returns the number of registered sockets in use.
    pub(crate) fn socket_count(&self) -> usize {
        self.registry.lock().len()
    }

    /// Runs a future to completion on this thread, along with all handlers. Only one thread at a time may call this.
    pub(crate) fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        let mut future = pin!(future);
        let _entered = self.timers.enter();
        let waker = Waker::from(self.waker.clone());
        let mut context = Context::from_waker(&waker);
        let mut events = Vec::with_capacity(MAX_EVENTS);
        let mut work = Work::default();
        loop {
            self.waker.set_awake();
            if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
                return value;
            }
            self.poll_kernel(&mut events, &mut work);
            self.dispatch(&mut work);
        }
    }

    /// Reads the kernel's events, sleeping until there is one if no handler is due, and collects the work they cause.
    fn poll_kernel(&self, events: &mut Vec<Event>, work: &mut Work) {
        let mut registry = self.registry.lock();
        registry.set_timer(&self.timer, self.timers.first().map(clock::from_std));
        let is_busy = registry.has_due_handlers();
        drop(registry);
        let at_once = Timespec::default();
        let timeout = if !is_busy && self.waker.may_sleep() { None } else { Some(&at_once) };
        if let Err(error) = epoll::wait(&self.epoll, spare_capacity(events), timeout) {
            // Interrupted by a signal; any other error would be a defect of this module.
            log::trace!("epoll_wait: {error}");
        }
        self.waker.set_awake();
        let mut registry = self.registry.lock();
        let mut has_expired = false;
        for event in events.drain(..) {
            match event.data.u64() {
                WAKER_TOKEN => {}
                TIMER_TOKEN => {
                    registry.expire(clock::now());
                    has_expired = true;
                }
                token => {
                    registry.socket_ready(&self.epoll, (token - FIRST_TOKEN) as usize, event.flags, work);
                }
            }
        }
        registry.take_due(MAX_POLLS, work);
        drop(registry);
        if has_expired {
            self.timers.expire(Instant::now());
        }
    }

    /// Polls the due handlers and wakes the tasks whose sockets are ready.
    ///
    /// Datagrams received together are answered together: a client on this machine is then woken once, not once per block.
    fn dispatch(&self, work: &mut Work) {
        for due in work.due.iter().filter(|due| due.should_receive) {
            due.handler.lock().receive();
        }
        if !work.due.is_empty() {
            work.next.extend(work.due.iter().map(|due| due.handler.lock().poll()));
            let mut registry = self.registry.lock();
            for (due, next) in work.due.iter().zip(work.next.drain(..)) {
                registry.apply(&self.epoll, due, next, &mut work.woken);
            }
        }
        // Not while the registry is locked: dropping a handler may call its waker, which locks the registry.
        work.due.clear();
        work.woken.drain(..).for_each(Waker::wake);
    }
}

/// A socket registered with an event loop until this is dropped. One task waits for it at a time, or one handler.
#[derive(Debug)]
pub(crate) struct Registered<S = UdpSocket> {
    event_loop: Arc<EventLoop>,
    id: usize,
    socket: Arc<S>,
}

impl<S: Source + 'static> Registered<S> {
    /// Registers a non-blocking socket.
    pub(crate) fn new(event_loop: &Arc<EventLoop>, socket: Arc<S>) -> Self {
        Self::with_interest(EventFlags::all(), event_loop, socket)
    }

    /// Registers a descriptor that is used for sending only, because another one receives from the same socket: received datagrams
    /// raise no event here.
    pub(crate) fn for_sending(event_loop: &Arc<EventLoop>, socket: Arc<S>) -> Self {
        Self::with_interest(EventFlags::OUT, event_loop, socket)
    }

    /// Registers a socket for some of the events.
    pub(super) fn with_interest(interest: EventFlags, event_loop: &Arc<EventLoop>, socket: Arc<S>) -> Self {
        let id = event_loop.registry.lock().register(socket.clone(), interest);
        Self { event_loop: event_loop.clone(), id, socket }
    }
}

impl<S> Registered<S> {
    /// Returns the socket.
    pub(crate) fn get(&self) -> &S {
        &self.socket
    }

    /// Keeps the socket registered for another handler. Returns `false` if others than the event loop have it, too.
    pub(crate) fn set_idle(&self) -> bool {
        // Not while the registry is locked: dropping a handler may call its waker, which locks the registry.
        let before = self.event_loop.registry.lock().set_idle(self.id);
        drop(before);
        // This and the registry's.
        Arc::strong_count(&self.socket) == 2
    }

    /// Returns the socket, to be shared with its handler.
    pub(crate) fn share(&self) -> Arc<S> {
        self.socket.clone()
    }

    /// Returns the event loop.
    pub(crate) fn event_loop(&self) -> &Arc<EventLoop> {
        &self.event_loop
    }

    /// Returns the socket's number in the registry.
    #[cfg(test)]
    fn id(&self) -> usize {
        self.id
    }

    /// Waits until a datagram can be received.
    pub(crate) async fn readable(&self) {
        let mut is_waiting = false;
        poll_fn(|context| {
            if !std::mem::replace(&mut is_waiting, true) {
                self.wake_on(EventFlags::IN, context);
                return Poll::Pending;
            }
            self.event_loop.registry.lock().poll_wait(self.id, context.waker())
        })
        .await;
    }

    /// Wakes a task once the socket is ready, in place of the task that waited before.
    pub(super) fn wake_on(&self, events: EventFlags, context: &Context<'_>) {
        let Self { event_loop, id, .. } = self;
        event_loop.registry.lock().wait_ready(&event_loop.epoll, *id, events, context.waker());
    }

    /// Returns the events since the last call that returned some, or wakes a task at the next one. Edge-triggered: the caller has found
    /// the socket empty before.
    pub(super) fn poll_events(&self, events: EventFlags, context: &Context<'_>) -> Poll<EventFlags> {
        let Self { event_loop, id, .. } = self;
        event_loop.registry.lock().poll_events(&event_loop.epoll, *id, events, context.waker())
    }

    /// Polls a handler from now on, on the event loop's thread, and waits until it detaches.
    pub(crate) async fn run_handler(&self, handler: Arc<Mutex<impl Handler + 'static>>) {
        let mut handler = Some(handler);
        poll_fn(|context| {
            let Self { event_loop, id, .. } = self;
            if let Some(handler) = handler.take() {
                event_loop.registry.lock().attach(&event_loop.epoll, *id, handler, context.waker());
                // Another thread's event loop may be asleep.
                event_loop.waker.wake_by_ref();
                return Poll::Pending;
            }
            event_loop.registry.lock().poll_wait(*id, context.waker())
        })
        .await;
    }

    /// Returns a waker that makes the socket's handler due, on any thread.
    pub(crate) fn waker(&self) -> Waker {
        Waker::from(Arc::new(HandlerWaker { event_loop: self.event_loop.clone(), id: self.id }))
    }
}

impl<S> Drop for Registered<S> {
    fn drop(&mut self) {
        // Not while the registry is locked: dropping a handler may call its waker, which locks the registry.
        let deregistered = self.event_loop.registry.lock().deregister(&self.event_loop.epoll, self.id);
        drop(deregistered);
    }
}

/// Makes the handler of one socket due. If the socket is gone, another one with its number may be polled once for nothing.
struct HandlerWaker {
    event_loop: Arc<EventLoop>,
    id: usize,
}

impl Wake for HandlerWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.event_loop.registry.lock().schedule(self.id);
        self.event_loop.waker.wake_by_ref();
    }
}

#[cfg(test)]
pub(super) mod tests;
