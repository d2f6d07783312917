//! The order in which due handlers are polled.

use std::{collections::VecDeque, iter, time::Duration};

use rtftp_core::Instant;

/// The number of handlers in a batch, if there are several. Their memory, and the kernel's for their sockets, stays in the processor's
/// caches from one poll to the next; that of a thousand does not.
const BATCH_SIZE: usize = 64;
/// The number of sockets for which there is only one batch: a few hundred are as fast in one, and small files wait for no other.
const ONE_BATCH: usize = 256;
/// The longest time slice of a batch: many polls of each handler.
const TIME_SLICE: Duration = Duration::from_millis(5);
/// The longest scheduling round, in which every batch gets a time slice. No client retransmits that soon.
const ROUND: Duration = Duration::from_millis(100);

/// The due handlers, by number, in batches. One batch is polled until none of its handlers is due or its time slice has ended, then
/// the next.
///
/// Under overload, a thousand handlers are therefore served as fast as some dozens. Without overload, batches change all the time,
/// and no handler waits for the end of another batch's time slice.
#[derive(Debug)]
pub(super) struct RunQueue {
    /// At least one.
    batches: Vec<VecDeque<usize>>,
    /// The index of the current batch.
    current: usize,
    /// The end of its time slice.
    slice_end: Instant,
    len: usize,
}

impl Default for RunQueue {
    fn default() -> Self {
        Self { batches: vec![VecDeque::new()], current: 0, slice_end: Instant::from_micros(0), len: 0 }
    }
}

impl RunQueue {
    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds a handler that is not in the queue; `count` is the number of sockets, which determines the number of batches.
    pub(super) fn push(&mut self, id: usize, count: usize) {
        let batch = if count <= ONE_BATCH { 0 } else { id % count.div_ceil(BATCH_SIZE) };
        if batch >= self.batches.len() {
            self.batches.resize_with(batch + 1, VecDeque::new);
        }
        self.batches[batch].push_back(id);
        self.len += 1;
    }

    /// Removes the handlers to poll now, as far as the iterator is consumed. The clock is read only if there is a choice of batches.
    pub(super) fn next(&mut self, now: impl FnOnce() -> Instant) -> impl Iterator<Item = usize> {
        if self.len > self.batches[self.current].len() {
            self.select_batch(now());
        }
        let batch = &mut self.batches[self.current];
        iter::from_fn(|| batch.pop_front().inspect(|_| self.len -= 1))
    }

    /// Starts the time slice of the next batch with due handlers, if the current batch has none or its time slice has ended.
    fn select_batch(&mut self, now: Instant) {
        if !self.batches[self.current].is_empty() && now < self.slice_end {
            return;
        }
        let count = self.batches.len();
        let mut others = (1..count).map(|step| (self.current + step) % count);
        self.current = others.find(|batch| !self.batches[*batch].is_empty()).unwrap_or(self.current);
        self.slice_end = now.after(TIME_SLICE.min(ROUND / u32::try_from(count).unwrap_or(u32::MAX)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn never() -> Instant {
        panic!("the clock was read without a choice of batches")
    }

    #[test]
    fn polls_one_batch_in_fifo_order() {
        let mut queue = RunQueue::default();
        for id in [5, 3, 4] {
            queue.push(id, ONE_BATCH);
        }
        assert_eq!(queue.next(never).take(2).collect::<Vec<_>>(), [5, 3]);
        queue.push(5, ONE_BATCH);
        assert!(!queue.is_empty());
        assert_eq!(queue.next(never).collect::<Vec<_>>(), [4, 5]);
        assert!(queue.is_empty());
        assert_eq!(queue.next(never).count(), 0);
    }

    #[test]
    fn switches_batches_as_soon_as_one_is_empty() {
        const BATCHES: usize = 5;
        const COUNT: usize = BATCHES * BATCH_SIZE;
        const { assert!(COUNT > ONE_BATCH) };
        let mut queue = RunQueue::default();
        let now = || Instant::from_micros(1);
        for id in 0..COUNT {
            queue.push(id, COUNT);
        }
        let mut batches = [(); BATCHES].map(|()| queue.next(now).collect::<Vec<_>>());
        batches.sort();
        assert!(batches.iter().all(|batch| batch.len() == BATCH_SIZE));
        assert!((batches.concat()).is_sorted_by_key(|id| (id % BATCHES, id / BATCHES)));
        assert!(queue.is_empty());
        // After a batch that no socket belongs to any more.
        queue.push(0, COUNT);
        queue.next(now).for_each(drop);
        queue.push(1, 1);
        assert_eq!(queue.next(never).collect::<Vec<_>>(), [1]);
    }

    /// Every handler is always due, and a poll takes 10 microseconds.
    #[test]
    fn polls_every_handler_within_one_scheduling_round() {
        for handlers in [65, 100, 257, 500, 1000, 5000] {
            let mut queue = RunQueue::default();
            (0..handlers).for_each(|id| queue.push(id, handlers));
            let mut now = Instant::from_micros(0);
            let mut polled = vec![(0, now); handlers];
            let mut switches = 0;
            let mut last = 0;
            let rounds = 10;
            while now < Instant::from_micros(0).after(rounds * ROUND) {
                let due: Vec<usize> = queue.next(|| now).take(32).collect();
                switches += u128::from(queue.current != last);
                last = queue.current;
                for id in due {
                    let (polls, at) = &mut polled[id];
                    assert!(now.since(*at) <= ROUND + ROUND / 10, "{id} of {handlers} at {now:?}, last at {at:?}");
                    (*polls, *at) = (*polls + 1, now);
                    now = now.after(Duration::from_micros(10));
                    queue.push(id, handlers);
                }
            }
            let batches = handlers.div_ceil(BATCH_SIZE) as u128;
            let limit = u128::from(rounds) * batches.max(ROUND.as_millis() / TIME_SLICE.as_millis());
            assert!(switches <= limit, "{handlers} handlers: {switches} switches, limit {limit}");
            let polls = || polled.iter().map(|(polls, _)| *polls);
            let (least, most) = (polls().min().expect("handlers"), polls().max().expect("handlers"));
            assert!(least * 3 >= most * 2, "{handlers} handlers: {least} to {most} polls");
        }
    }
}
