//! Virtual time for tests: the clock of a thread stands still while its tasks run, and jumps to the next timer when all of them wait.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    future::Future,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, Wake, Waker},
    time::Instant,
};

use smol::Executor;

/// The number of polls without a step of the clock after which tasks count as never waiting.
const MAX_POLLS: u32 = 10_000_000;

thread_local! {
    static CLOCK: RefCell<Option<Clock>> = const { RefCell::new(None) };
}

/// The clock of this thread.
#[derive(Debug)]
struct Clock {
    now: Instant,
    /// The wakers of timers by their time and number.
    timers: BTreeMap<(Instant, u64), Waker>,
    /// The number of timers until now.
    count: u64,
}

/// Returns the time of this thread; `None` unless it is virtual.
pub(super) fn now() -> Option<Instant> {
    CLOCK.with_borrow(|clock| clock.as_ref().map(|clock| clock.now))
}

/// The time of this thread is virtual until this is dropped.
#[derive(Debug)]
pub(crate) struct VirtualTime(());

impl VirtualTime {
    /// Starts the clock.
    pub(crate) fn start() -> Self {
        CLOCK.set(Some(Clock { now: *super::START, timers: BTreeMap::new(), count: 0 }));
        Self(())
    }

    /// Runs an operation, and the tasks of an executor, until it is complete. Returns `None` if it never will be: nothing can wake it.
    pub(crate) fn run<T>(&self, executor: &Executor<'_>, operation: impl Future<Output = T>) -> Option<T> {
        let mut operation = pin!(operation);
        let woken = Arc::new(Woken(AtomicBool::new(true)));
        let waker = Waker::from(woken.clone());
        let mut polls = 0;
        loop {
            if woken.0.swap(false, Relaxed)
                && let Poll::Ready(result) = operation.as_mut().poll(&mut Context::from_waker(&waker))
            {
                return Some(result);
            }
            polls += 1;
            assert!(polls < MAX_POLLS, "a task never waits");
            if !executor.try_tick() && !woken.0.load(Relaxed) {
                if !advance() {
                    return None;
                }
                polls = 0;
            }
        }
    }

    /// Runs tasks until all of them wait, without a step of the clock.
    pub(crate) fn run_tasks(&self, executor: &Executor<'_>) {
        while executor.try_tick() {}
    }

    /// Returns the number of timers that somebody waits for.
    pub(crate) fn timer_count(&self) -> usize {
        CLOCK.with_borrow(|clock| clock.as_ref().map_or(0, |clock| clock.timers.len()))
    }
}

impl Drop for VirtualTime {
    fn drop(&mut self) {
        // Wakers may drop tasks with timers.
        let clock = CLOCK.take();
        drop(clock);
    }
}

/// Sets the clock to the time of the next timer. Returns `false` if there is none.
fn advance() -> bool {
    let due = CLOCK.with_borrow_mut(|clock| {
        let clock = clock.as_mut()?;
        let ((time, _), _) = clock.timers.first_key_value()?;
        clock.now = clock.now.max(*time);
        let later = clock.timers.split_off(&(clock.now, u64::MAX));
        Some(std::mem::replace(&mut clock.timers, later))
    });
    let Some(due) = due else { return false };
    due.into_values().for_each(Waker::wake);
    true
}

/// Records whether an operation was woken.
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Relaxed);
    }
}

/// A timer in the time of its thread.
#[derive(Debug)]
pub(crate) enum Timer {
    /// In real time.
    Real(super::timer::Timer),
    /// In virtual time; with its number once somebody has waited for it.
    Virtual(Instant, Option<u64>),
}

impl Timer {
    /// Creates a timer that is ready after `duration`.
    pub(crate) fn after(duration: std::time::Duration) -> Self {
        Self::at(super::instant() + duration)
    }

    /// Creates a timer that is ready at an instant.
    pub(crate) fn at(instant: Instant) -> Self {
        match now() {
            Some(_) => Self::Virtual(instant, None),
            None => Self::Real(super::timer::Timer::at(instant)),
        }
    }

    /// Sets the time.
    pub(crate) fn set_at(&mut self, instant: Instant) {
        *self = Self::at(instant);
    }

    fn remove(&mut self) {
        if let Self::Virtual(at, number) = self
            && let Some(number) = number.take()
        {
            let waker =
                CLOCK.with_borrow_mut(|clock| clock.as_mut().and_then(|clock| clock.timers.remove(&(*at, number))));
            drop(waker);
        }
    }
}

impl Future for Timer {
    type Output = Instant;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Instant> {
        let (at, number) = match &mut *self {
            Self::Real(timer) => return Pin::new(timer).poll(context),
            Self::Virtual(at, number) => (*at, number),
        };
        let is_waiting = CLOCK.with_borrow_mut(|clock| {
            let Some(clock) = clock.as_mut().filter(|clock| clock.now < at) else { return false };
            let number = *number.get_or_insert_with(|| {
                clock.count += 1;
                clock.count
            });
            clock.timers.insert((at, number), context.waker().clone());
            true
        });
        if is_waiting {
            return Poll::Pending;
        }
        self.remove();
        Poll::Ready(at)
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.remove();
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, rc::Rc, time::Duration};

    use smol::LocalExecutor;

    use super::{super::within, *};

    #[test]
    fn hours_pass_at_once_and_in_order() {
        let time = VirtualTime::start();
        let (executor, order) = (Executor::new(), Rc::new(RefCell::new(vec![])));
        let start = super::super::instant();
        let local = LocalExecutor::new();
        let tasks: Vec<_> = [3, 1, 2]
            .into_iter()
            .map(|hours| {
                let order = order.clone();
                local.spawn(async move {
                    Timer::after(Duration::from_secs(3600 * hours)).await;
                    order.borrow_mut().push(hours);
                })
            })
            .collect();
        let all = async {
            for task in tasks {
                task.await;
            }
        };
        assert_eq!(time.run(&executor, local.run(all)), Some(()));
        assert_eq!((order.take(), super::super::elapsed(start)), (vec![1, 2, 3], Duration::from_secs(3 * 3600)));
        assert_eq!(time.timer_count(), 0);
    }

    #[test]
    fn time_limits_end_what_waits_for_ever() {
        let time = VirtualTime::start();
        let executor = Executor::new();
        let limited = within(Duration::from_secs(600), std::future::pending::<()>());
        assert_eq!(time.run(&executor, limited), Some(None));
        assert_eq!(time.run(&executor, std::future::pending::<()>()), None);
    }
}
