//! Limits on the work that reading a disk costs, so that no disk delays the others.
//!
//! All disks are read by one thread. An operation on a disk, such as the lookup of a path, runs in [`metered`]: it has a budget, and
//! lets other tasks run after each [`SLICE`]. A disk also has a credit of time. Once that is spent, its operations take turns with
//! those of other such disks, one slice and one operation of each disk at a time; so a disk that needs little work waits for one
//! slice at most, and one that needs more does not wait for all requests of another.
//!
//! [`Volume::read`](super::Volume::read) counts the work: everything that a driver does is proportional to what it reads.

use std::{
    cell::RefCell,
    future::{Future, poll_fn},
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use smol::{
    future::yield_now,
    lock::{Semaphore, SemaphoreGuard, SemaphoreGuardArc},
};

use super::Error;

/// The time after which an operation lets other tasks run.
const SLICE: Duration = Duration::from_millis(1);
/// The longest time that a disk can use before it takes turns: the credit of one that was not used for some time.
const MAX_CREDIT: Duration = Duration::from_millis(20);
/// The part of a processor that a disk can use all the time without taking turns: one in this number.
const CREDIT_SHARE: u32 = 10;
/// The work of a read besides its bytes.
const READ_WORK: u64 = 128;

/// The turn of the disks without credit.
static TURN: Semaphore = Semaphore::new(1);

thread_local! {
    /// The operation that is being polled.
    static CURRENT: RefCell<Option<Arc<Meter>>> = const { RefCell::new(None) };
}

/// The time that the operations of one disk have used. A clone refers to the same disk.
#[derive(Debug, Clone)]
pub struct DiskWork {
    credit: Arc<Mutex<Credit>>,
    /// Taken by the operation that waits for the turn of the disk, or has it.
    in_turn: Arc<Semaphore>,
}

/// The turn of an operation: that of its disk, and that within the disk.
type Turn = (SemaphoreGuard<'static>, SemaphoreGuardArc);

#[derive(Debug)]
struct Credit {
    left: Duration,
    updated: Instant,
}

impl Default for DiskWork {
    fn default() -> Self {
        let credit = Credit { left: MAX_CREDIT, updated: Instant::now() };
        Self { credit: Arc::new(Mutex::new(credit)), in_turn: Arc::new(Semaphore::new(1)) }
    }
}

impl DiskWork {
    /// Takes time from the credit. Returns whether some is left.
    fn spend(&self, time: Duration, now: Instant) -> bool {
        let mut credit = self.credit.lock();
        let earned = now.saturating_duration_since(credit.updated) / CREDIT_SHARE;
        credit.left = credit.left.saturating_add(earned).min(MAX_CREDIT).saturating_sub(time);
        credit.updated = now;
        !credit.left.is_zero()
    }

    /// Waits for a turn. Of the operations of one disk, one waits with those of other disks, and the others wait for that one.
    async fn turn(&self) -> Turn {
        let in_turn = self.in_turn.acquire_arc().await;
        (TURN.acquire().await, in_turn)
    }
}

/// The work of one operation.
#[derive(Debug)]
struct Meter {
    disk: DiskWork,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// The rest of the budget, in bytes read.
    left: u64,
    /// The beginning of the present poll.
    polled: Instant,
    /// Kept until the operation waits for the disk, or other tasks have run after its slice.
    turn: Option<Turn>,
    /// Whether the operation only waits for other tasks to run.
    is_yielding: bool,
}

/// Runs an operation on a disk with a budget of work in bytes: its reads fail with [`Error::TooMuchWork`] once that is spent.
pub(super) async fn metered<T>(disk: &DiskWork, budget: u64, operation: impl Future<Output = T>) -> T {
    let state = Mutex::new(State { left: budget, polled: Instant::now(), turn: None, is_yielding: false });
    let meter = Arc::new(Meter { disk: disk.clone(), state });
    let mut operation = pin!(operation);
    poll_fn(|context| {
        meter.state.lock().polled = Instant::now();
        let _poll = CurrentMeter::set(meter.clone());
        operation.as_mut().poll(context)
    })
    .await
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
        CURRENT.set(self.outer.take());
        let mut state = self.meter.state.lock();
        let turn = if state.is_yielding { None } else { state.turn.take() };
        // Wakes the next operation, while nothing is locked.
        drop(state);
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
    let now = Instant::now();
    let used = {
        let mut state = meter.state.lock();
        let left = state.left.checked_sub(len as u64 + READ_WORK);
        state.left = left.unwrap_or(0);
        left.ok_or(Error::TooMuchWork)?;
        now.saturating_duration_since(state.polled)
    };
    if used < SLICE {
        return Ok(());
    }
    let has_credit = meter.disk.spend(used, now);
    meter.state.lock().is_yielding = true;
    yield_now().await;
    let turn = {
        let mut state = meter.state.lock();
        state.is_yielding = false;
        state.turn.take()
    };
    if turn.is_some() {
        drop(turn);
        // The next operation that waits for its turn takes it.
        yield_now().await;
    }
    if !has_credit {
        let turn = meter.disk.turn().await;
        meter.state.lock().turn = Some(turn);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, rc::Rc};

    use smol::{LocalExecutor, Task, block_on, future::poll_once};

    use super::*;

    /// Uses a processor.
    fn burn(time: Duration) {
        let started = Instant::now();
        while started.elapsed() < time {}
    }

    #[test]
    fn operations_fail_once_their_budget_is_spent() {
        let disk = DiskWork::default();
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
        let disk = DiskWork::default();
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
        let busy: Vec<Task<()>> = (0..4)
            .map(|_| {
                let read = read_for_ever(reads.clone());
                executor.spawn(async { metered(&DiskWork::default(), u64::MAX, read).await })
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
        // Without credit, one of them has a slice of four reads, or of a few more: the others wait for their turn.
        assert!(median <= 10, "{median} reads of four busy disks before another task ran");
        drop(busy);
    }

    #[test]
    fn disks_without_credit_take_turns() {
        let disk = DiskWork::default();
        let now = Instant::now();
        assert!(disk.spend(MAX_CREDIT / 2, now));
        assert!(!disk.spend(MAX_CREDIT, now), "the credit is spent");
        assert!(disk.spend(SLICE, now + MAX_CREDIT * CREDIT_SHARE), "credit is earned with time");
        let [first, second] = [(); 2].map(|()| DiskWork::default());
        for disk in [&first, &second] {
            assert!(!disk.spend(2 * MAX_CREDIT, Instant::now() + Duration::from_secs(60)));
        }
        let turns = RefCell::new(vec![]);
        let work = |number: u32, disk: DiskWork| {
            let turns = &turns;
            async move {
                metered(&disk, u64::MAX, async move {
                    for _ in 0..5 {
                        burn(2 * SLICE);
                        let _ = count_read(1).await;
                        turns.borrow_mut().push(number);
                    }
                })
                .await;
            }
        };
        let executor = LocalExecutor::new();
        let tasks = [executor.spawn(work(1, first)), executor.spawn(work(2, second))];
        block_on(executor.run(async {
            for task in tasks {
                task.await;
            }
        }));
        assert_eq!(turns.borrow().iter().filter(|number| **number == 1).count(), 5);
        let longest = turns.borrow().chunk_by(|one, other| one == other).map(<[u32]>::len).max();
        assert!(longest <= Some(3), "one of them ran several slices in a row: {:?}", turns.borrow());
    }

    #[test]
    fn many_operations_of_a_disk_get_no_more_turns_than_one_of_another() {
        let slices = RefCell::new(vec![]);
        let work = |number: u32, disk: DiskWork| {
            let slices = &slices;
            async move {
                metered(&disk, u64::MAX, async move {
                    for _ in 0..10 {
                        burn(SLICE);
                        let _ = count_read(1).await;
                        slices.borrow_mut().push(number);
                    }
                })
                .await;
            }
        };
        let disks = [(); 2].map(|()| DiskWork::default());
        for disk in &disks {
            disk.spend(2 * MAX_CREDIT, Instant::now() + Duration::from_secs(60));
        }
        let executor = LocalExecutor::new();
        let many: Vec<_> = (0..20).map(|_| executor.spawn(work(1, disks[0].clone()))).collect();
        let one = executor.spawn(work(2, disks[1].clone()));
        block_on(executor.run(one));
        let others = slices.borrow().iter().filter(|number| **number == 1).count();
        println!("20 operations of one disk had {others} slices while another disk had 10");
        assert!(others <= 60, "{others} slices: the other disk waited for all of them");
        drop(many);
    }

    /// An operation that waits for the disk does not keep the others from their turn.
    #[test]
    fn turn_ends_with_the_poll() {
        let disk = DiskWork::default();
        disk.spend(2 * MAX_CREDIT, Instant::now());
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
            assert!(poll_once(TURN.acquire()).await.is_some() || TURN.try_acquire().is_none());
        });
    }
}
