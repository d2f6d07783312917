//! Limits on the work that reading a disk costs, so that no disk delays the others.
//!
//! All disks are read by one thread. An operation on a disk, such as the lookup of a path, runs in [`metered`]: it has a budget, and
//! after each [`SLICE`] of the processor that its disk has used, it lets other tasks run and waits for the next turn. The turn goes to
//! the disk that has used the processor least recently, for one of its operations. So a disk that needs little work hardly waits, and
//! one that needs more does not wait for all requests of another.
//!
//! [`Volume::read`](super::Volume::read) counts the work: everything that a driver does is proportional to what it reads.

use std::{
    cell::RefCell,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use pin_project_lite::pin_project;
use smol::future::yield_now;

use super::{
    Error,
    turns::{DiskTurn, DiskWork},
};
use crate::clock;

/// The time of the processor that a disk uses until its operations wait for the next turn.
const SLICE: Duration = Duration::from_micros(500);
/// The work of a read besides its bytes.
const READ_WORK: u64 = 128;

thread_local! {
    /// The operation that is being polled.
    static CURRENT: RefCell<Option<Arc<Meter>>> = const { RefCell::new(None) };
}

/// The work of one operation.
#[derive(Debug)]
struct Meter {
    disk: DiskWork,
    progress: Mutex<Progress>,
}

#[derive(Debug)]
struct Progress {
    /// The rest of the budget, in bytes read.
    left: u64,
    /// The beginning of the present poll.
    polled: Instant,
    /// Kept until the operation waits for the disk, or other tasks have run after its slice.
    turn: Option<DiskTurn>,
    /// Whether the operation only waits for other tasks to run.
    is_yielding: bool,
}

/// Runs an operation on a disk with a budget of work in bytes: its reads fail with [`Error::TooMuchWork`] once that is spent.
pub(super) fn metered<T>(disk: &DiskWork, budget: u64, operation: impl Future<Output = T>) -> impl Future<Output = T> {
    let progress = Mutex::new(Progress { left: budget, polled: clock::instant(), turn: None, is_yielding: false });
    Metered { operation, meter: Arc::new(Meter { disk: disk.clone(), progress }) }
}

pin_project! {
    /// An operation and its work.
    struct Metered<F> {
        #[pin]
        operation: F,
        meter: Arc<Meter>,
    }
}

impl<F: Future> Future for Metered<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        this.meter.progress.lock().polled = clock::instant();
        let _poll = CurrentMeter::set(this.meter.clone());
        this.operation.poll(context)
    }
}

/// The time of a poll, in which the meter is the current one.
struct CurrentMeter {
    meter: Arc<Meter>,
    outer: Option<Arc<Meter>>,
}

impl CurrentMeter {
    fn set(meter: Arc<Meter>) -> Self {
        Self { outer: CURRENT.replace(Some(meter.clone())), meter }
    }
}

impl Drop for CurrentMeter {
    fn drop(&mut self) {
        let outer = self.outer.take();
        let mut progress = self.meter.progress.lock();
        if outer.is_none() {
            let now = clock::instant();
            self.meter.disk.add(now.saturating_duration_since(progress.polled), now);
        }
        CURRENT.set(outer);
        let turn = if progress.is_yielding { None } else { progress.turn.take() };
        // Wakes the next operation, while nothing is locked.
        drop(progress);
        drop(turn);
    }
}

/// Counts a read of `len` bytes by the current operation, and lets other tasks run if its slice is over. Without an operation, does
/// nothing.
///
/// # Errors
///
/// [`Error::TooMuchWork`] if the budget of the operation is spent.
pub(super) async fn count_read(len: usize) -> Result<(), Error> {
    let Some(meter) = CURRENT.with_borrow(Clone::clone) else { return Ok(()) };
    let used = {
        let mut progress = meter.progress.lock();
        let left = progress.left.checked_sub(len as u64 + READ_WORK);
        progress.left = left.unwrap_or(0);
        left.ok_or(Error::TooMuchWork)?;
        clock::elapsed(progress.polled)
    };
    if used + meter.disk.slice() < SLICE {
        return Ok(());
    }
    meter.progress.lock().is_yielding = true;
    yield_now().await;
    let turn = {
        let mut progress = meter.progress.lock();
        progress.is_yielding = false;
        progress.turn.take()
    };
    if turn.is_some() {
        drop(turn);
        // The next operation that waits for its turn takes it.
        yield_now().await;
    }
    let turn = meter.disk.turn().await;
    meter.progress.lock().turn = Some(turn);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, pin::pin, rc::Rc};

    use smol::{LocalExecutor, Task, block_on, future::poll_once};

    use super::{super::turns::Turns, *};

    /// Returns disks that take turns.
    fn disks() -> impl Iterator<Item = DiskWork> {
        let turns = Turns::default();
        std::iter::repeat_with(move || DiskWork::new(&turns))
    }

    /// Uses a processor.
    fn burn(time: Duration) {
        let started = Instant::now();
        while started.elapsed() < time {}
    }

    #[test]
    fn operations_fail_once_their_budget_is_spent() {
        let disk = DiskWork::new(&Turns::default());
        let reads = |budget, count: u64| {
            block_on(metered(&disk, budget, async move {
                for _ in 0..count {
                    count_read(1000).await?;
                }
                Ok::<(), Error>(())
            }))
        };
        assert_eq!(reads(10 * (1000 + READ_WORK), 10), Ok(()));
        assert_eq!(reads(10 * (1000 + READ_WORK), 11), Err(Error::TooMuchWork));
        assert_eq!(reads(0, 1), Err(Error::TooMuchWork), "each operation has a budget of its own");
        assert_eq!(block_on(count_read(usize::MAX)), Ok(()), "without an operation, there is no limit");
    }

    #[test]
    fn budget_of_an_inner_operation_ends_with_it() {
        let disk = DiskWork::new(&Turns::default());
        let outer = metered(&disk, 2000, async {
            let inner = metered(&disk, 1 << 20, async { count_read(1 << 19).await }).await;
            (inner, count_read(1000).await, count_read(1000).await)
        });
        assert_eq!(block_on(outer), (Ok(()), Ok(()), Err(Error::TooMuchWork)));
    }

    #[test]
    fn other_tasks_run_after_each_slice() {
        let executor = LocalExecutor::new();
        let reads = Rc::new(Cell::new(0));
        let read_for_ever = |reads: Rc<Cell<u32>>| async move {
            loop {
                burn(SLICE / 4);
                reads.set(reads.get() + 1);
                count_read(4096).await.expect("within the budget");
            }
        };
        let busy: Vec<Task<()>> = disks()
            .take(4)
            .map(|disk| {
                let read = read_for_ever(reads.clone());
                executor.spawn(async move { metered(&disk, u64::MAX, read).await })
            })
            .collect();
        let counter = reads.clone();
        let other = executor.spawn(async move {
            let mut waits = vec![];
            for _ in 0..100 {
                let before = counter.get();
                yield_now().await;
                waits.push(counter.get() - before);
            }
            waits.sort();
            waits[waits.len() / 2]
        });
        let median = block_on(executor.run(other));
        // One of them has a slice of four reads, or of a few more: the others wait for their turn.
        assert!(median <= 10, "{median} reads of four busy disks before another task ran");
        drop(busy);
    }

    /// Runs operations of some disks until the last one is complete. Each burns the processor for some slices. Returns the numbers of
    /// the disks in the order of their slices.
    fn order_of_slices(operations: impl IntoIterator<Item = (u32, DiskWork, u32)>) -> Vec<u32> {
        let slices = Rc::new(RefCell::new(vec![]));
        let executor = LocalExecutor::new();
        let mut tasks: Vec<Task<()>> = operations
            .into_iter()
            .map(|(number, disk, count)| {
                let slices = slices.clone();
                executor.spawn(async move {
                    metered(&disk, u64::MAX, async move {
                        for _ in 0..count {
                            burn(SLICE);
                            count_read(1).await.expect("within the budget");
                            slices.borrow_mut().push(number);
                        }
                    })
                    .await;
                })
            })
            .collect();
        block_on(executor.run(tasks.pop().expect("an operation")));
        slices.take()
    }

    #[test]
    fn disks_take_turns() {
        let order = order_of_slices(disks().take(2).zip(1..).map(|(disk, number)| (number, disk, 10)));
        let longest = order.chunk_by(|one, other| one == other).map(<[u32]>::len).max();
        assert!(longest <= Some(3), "one of them ran several slices in a row: {order:?}");
    }

    #[test]
    fn disk_with_the_least_recent_use_goes_first() {
        let disks: Vec<_> = disks().take(21).collect();
        let busy = disks[..20].iter().map(|disk| {
            disk.add(Duration::from_secs(1), Instant::now());
            (0, disk.clone(), 1000)
        });
        let order = order_of_slices(busy.chain([(99, disks[20].clone(), 5)]));
        let others = order.iter().rposition(|number| *number == 99).map_or(0, |last| last - 4);
        println!("20 busy disks had {others} slices while another one had 5");
        assert!(others <= 10, "{others} slices");
    }

    #[test]
    fn many_operations_of_a_disk_get_no_more_turns_than_one_of_another() {
        let disks: Vec<_> = disks().take(2).collect();
        let many = (0..20).map(|_| (1, disks[0].clone(), 10));
        let order = order_of_slices(many.chain([(2, disks[1].clone(), 10)]));
        let others = order.iter().filter(|number| **number == 1).count();
        println!("20 operations of one disk had {others} slices while another disk had 10");
        assert!(others <= 60, "{others} slices: the other disk waited for all of them");
    }

    /// An operation that waits for the disk does not keep the others from their turn.
    #[test]
    fn turn_ends_with_the_poll() {
        let disk = DiskWork::new(&Turns::default());
        let mut operation = pin!(metered(&disk, u64::MAX, async {
            burn(2 * SLICE);
            count_read(1).await.expect("within the budget");
            smol::future::pending::<()>().await;
        }));
        block_on(async {
            for _ in 0..5 {
                assert!(poll_once(operation.as_mut()).await.is_none());
                yield_now().await;
            }
        });
        assert!(!disk.has_turn());
    }
}
