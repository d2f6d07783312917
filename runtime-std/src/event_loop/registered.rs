//! A socket registered with an event loop.

use std::{
    future::poll_fn,
    net::UdpSocket,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
};

use parking_lot::Mutex;
use rustix::event::epoll::EventFlags;

use super::{EventLoop, Handler, registry::Source};

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

    /// Returns the event loop.
    pub(super) fn event_loop(&self) -> &Arc<EventLoop> {
        &self.event_loop
    }

    /// Returns the socket's number in the registry.
    #[cfg(test)]
    pub(super) fn id(&self) -> usize {
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
