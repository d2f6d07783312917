//! Timers for tasks. On the thread of an event loop they fire there; async-io would wake a thread of its own for each of them.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    future::Future,
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use parking_lot::Mutex;

thread_local! {
    /// The timers of the event loop that runs on this thread.
    static TIMERS: RefCell<Option<Arc<Timers>>> = const { RefCell::new(None) };
}

/// The timers that the tasks of an event loop wait for.
#[derive(Debug, Default)]
pub(crate) struct Timers(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// The tasks to wake, by the time and the number of their timers.
    wakers: BTreeMap<(Instant, u64), Waker>,
    last_number: u64,
}

impl Timers {
    /// Makes these the timers of this thread until the result is dropped.
    pub(crate) fn enter(self: &Arc<Self>) -> Entered {
        Entered(TIMERS.replace(Some(self.clone())))
    }

    /// Returns the time of the first timer.
    pub(crate) fn first(&self) -> Option<Instant> {
        self.0.lock().wakers.first_key_value().map(|((time, _), _)| *time)
    }

    /// Wakes the tasks whose timers have expired.
    pub(crate) fn expire(&self, now: Instant) {
        let due = {
            let mut state = self.0.lock();
            if state.wakers.first_key_value().is_none_or(|((time, _), _)| *time > now) {
                return;
            }
            let later = state.wakers.split_off(&(now, u64::MAX));
            mem::replace(&mut state.wakers, later)
        };
        due.into_values().for_each(Waker::wake);
    }

    /// Adds a timer and returns its number.
    fn add(&self, time: Instant, waker: Waker) -> u64 {
        let mut state = self.0.lock();
        state.last_number += 1;
        let number = state.last_number;
        state.wakers.insert((time, number), waker);
        number
    }

    fn remove(&self, time: Instant, number: u64) {
        let removed = self.0.lock().wakers.remove(&(time, number));
        // Not while this is locked: dropping a waker may drop a task with other timers.
        drop(removed);
    }
}

/// The time in which the timers of an event loop are those of this thread.
#[derive(Debug)]
pub(crate) struct Entered(Option<Arc<Timers>>);

impl Drop for Entered {
    fn drop(&mut self) {
        TIMERS.set(self.0.take());
    }
}

/// A timer. Ready at its time, with the present one.
#[derive(Debug)]
pub(crate) struct Timer {
    time: Instant,
    waiting: Waiting,
}

/// How a timer waits.
#[derive(Debug)]
enum Waiting {
    /// Not yet.
    Nowhere,
    /// With the event loop of the thread that has polled it, and this number there.
    EventLoop(Arc<Timers>, u64, Waker),
    /// With async-io, since its thread has no event loop.
    AsyncIo(smol::Timer),
}

impl Timer {
    /// Creates a timer that is ready after `duration`.
    pub(crate) fn after(duration: Duration) -> Self {
        Self::at(Instant::now() + duration)
    }

    /// Creates a timer that is ready at an instant.
    pub(crate) fn at(time: Instant) -> Self {
        Self { time, waiting: Waiting::Nowhere }
    }

    /// Sets the time.
    pub(crate) fn set_at(&mut self, time: Instant) {
        self.stop();
        self.time = time;
    }

    fn stop(&mut self) {
        if let Waiting::EventLoop(timers, number, _) = mem::replace(&mut self.waiting, Waiting::Nowhere) {
            timers.remove(self.time, number);
        }
    }
}

impl Future for Timer {
    type Output = Instant;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Instant> {
        let (now, time) = (Instant::now(), self.time);
        if time <= now {
            self.stop();
            return Poll::Ready(now);
        }
        match &mut self.waiting {
            Waiting::EventLoop(_, _, waker) if waker.will_wake(context.waker()) => return Poll::Pending,
            Waiting::AsyncIo(timer) => return Pin::new(timer).poll(context),
            Waiting::EventLoop(..) | Waiting::Nowhere => self.stop(),
        }
        let Some(timers) = TIMERS.with_borrow(Clone::clone) else {
            let mut timer = smol::Timer::at(time);
            let polled = Pin::new(&mut timer).poll(context);
            self.waiting = Waiting::AsyncIo(timer);
            return polled;
        };
        let number = timers.add(time, context.waker().clone());
        self.waiting = Waiting::EventLoop(timers, number, context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.stop();
    }
}

#[cfg(test)]
mod tests {
    use smol::{block_on, future::poll_once};

    use super::*;

    const SHORT: Duration = Duration::from_millis(20);

    #[test]
    fn fires_without_an_event_loop() {
        let started = Instant::now();
        block_on(Timer::after(SHORT));
        assert!(started.elapsed() >= SHORT);
    }

    #[test]
    fn event_loop_keeps_only_timers_that_are_waited_for() {
        let timers = Arc::new(Timers::default());
        let start = Instant::now();
        block_on(async {
            let _entered = timers.enter();
            let mut late = Timer::at(start + 2 * SHORT);
            let mut early = Timer::at(start + SHORT);
            assert_eq!(timers.first(), None);
            assert!(poll_once(&mut late).await.is_none() && poll_once(&mut early).await.is_none());
            assert!(poll_once(&mut late).await.is_none());
            assert_eq!((timers.first(), timers.0.lock().wakers.len()), (Some(start + SHORT), 2));
            drop(early);
            assert_eq!(timers.first(), Some(start + 2 * SHORT));
            late.set_at(start + 3 * SHORT);
            assert!(poll_once(&mut late).await.is_none());
            assert_eq!(timers.first(), Some(start + 3 * SHORT));
            timers.expire(start + 3 * SHORT);
            assert_eq!(timers.first(), None);
            late.set_at(Instant::now());
            assert!(poll_once(&mut late).await.is_some());
        });
        assert!(TIMERS.with_borrow(Option::is_none));
    }
}
