//! Whose turn it is.

use std::{collections::VecDeque, iter, time::Duration};

use rtftp_core::Instant;

/// How many guests there are in a group at most. What they and the kernel have in memory for so many stays in the caches of a
/// processor from one turn to the next; for a thousand it does not.
const GROUP: usize = 64;
/// How long a group has its time at most: for many turns of each.
const SLICE: Duration = Duration::from_millis(5);
/// How long it takes at most until every group had its time. No client asks again that soon.
const ROUND: Duration = Duration::from_millis(100);

/// The numbers of guests that are due, in groups: one has all the turns until there is nothing more to do for it or its time is up,
/// then the next.
///
/// So a thousand guests are served as fast as some dozens, if there is more to do than can be done. If there is not, groups change
/// all the time, and nobody waits for another one's time to be up.
#[derive(Debug)]
pub(super) struct Queue {
    /// One at least.
    groups: Vec<VecDeque<usize>>,
    /// Which one has its time, and until when.
    current: usize,
    until: Instant,
    len: usize,
}

impl Default for Queue {
    fn default() -> Self {
        Self { groups: vec![VecDeque::new()], current: 0, until: Instant::from_micros(0), len: 0 }
    }
}

impl Queue {
    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds a guest, which is not in here, of so many that there are now.
    pub(super) fn push(&mut self, id: usize, guests: usize) {
        let group = id % guests.div_ceil(GROUP).max(1);
        if group >= self.groups.len() {
            self.groups.resize_with(group + 1, VecDeque::new);
        }
        self.groups[group].push_back(id);
        self.len += 1;
    }

    /// Those whose turn it is now, each of which is in here no more. What time it is, is asked only if that decides.
    pub(super) fn next(&mut self, now: impl FnOnce() -> Instant) -> impl Iterator<Item = usize> {
        if self.len > self.groups[self.current].len() {
            self.choose(now());
        }
        let group = &mut self.groups[self.current];
        iter::from_fn(|| group.pop_front().inspect(|_| self.len -= 1))
    }

    /// Gives another group its time, if that of the current one is up or not needed. There is one that has something to do.
    fn choose(&mut self, now: Instant) {
        if !self.groups[self.current].is_empty() && now < self.until {
            return;
        }
        let count = self.groups.len();
        let mut others = (1..count).map(|step| (self.current + step) % count);
        self.current = others.find(|group| !self.groups[*group].is_empty()).unwrap_or(self.current);
        self.until = now.after(SLICE.min(ROUND / u32::try_from(count).unwrap_or(u32::MAX)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn never() -> Instant {
        panic!("there is no choice")
    }

    #[test]
    fn few_have_their_turns_in_order() {
        let mut queue = Queue::default();
        for id in [5, 3, 4] {
            queue.push(id, GROUP);
        }
        assert_eq!(queue.next(never).take(2).collect::<Vec<_>>(), [5, 3]);
        queue.push(5, GROUP);
        assert!(!queue.is_empty());
        assert_eq!(queue.next(never).collect::<Vec<_>>(), [4, 5]);
        assert!(queue.is_empty());
        assert_eq!(queue.next(never).count(), 0);
    }

    #[test]
    fn a_group_has_nobody_wait_when_it_has_nothing_to_do() {
        let mut queue = Queue::default();
        let now = || Instant::from_micros(1);
        for id in 0..2 * GROUP {
            queue.push(id, 2 * GROUP);
        }
        let mut groups = [queue.next(now).collect::<Vec<_>>(), queue.next(now).collect()];
        groups.sort();
        assert!(groups.iter().all(|group| group.len() == GROUP));
        assert!((groups.concat()).is_sorted_by_key(|id| (id % 2, id / 2)));
        assert!(queue.is_empty());
        // One that is not there any more.
        queue.push(0, 2 * GROUP);
        queue.next(now).for_each(drop);
        queue.push(1, 1);
        assert_eq!(queue.next(never).collect::<Vec<_>>(), [1]);
    }

    /// Everybody always has something to do, and a turn takes 10 microseconds.
    #[test]
    fn everybody_is_served_for_a_while_and_waits_no_longer_than_a_round() {
        for guests in [65, 100, 500, 1000, 5000] {
            let mut queue = Queue::default();
            (0..guests).for_each(|id| queue.push(id, guests));
            let mut now = Instant::from_micros(0);
            let mut served = vec![(0, now); guests];
            let mut changes = 0;
            let mut last = 0;
            let rounds = 10;
            while now < Instant::from_micros(0).after(rounds * ROUND) {
                let turns: Vec<usize> = queue.next(|| now).take(32).collect();
                changes += u128::from(queue.current != last);
                last = queue.current;
                for id in turns {
                    let (turns, at) = &mut served[id];
                    assert!(now.since(*at) <= ROUND + ROUND / 10, "{id} of {guests} at {now:?}, last at {at:?}");
                    (*turns, *at) = (*turns + 1, now);
                    now = now.after(Duration::from_micros(10));
                    queue.push(id, guests);
                }
            }
            let groups = guests.div_ceil(GROUP) as u128;
            let most = u128::from(rounds) * groups.max(ROUND.as_millis() / SLICE.as_millis());
            assert!(changes <= most, "{guests}: {changes} changes, {most} at most");
            let turns = || served.iter().map(|(turns, _)| *turns);
            let (least, most) = (turns().min().expect("guests"), turns().max().expect("guests"));
            assert!(least * 3 >= most * 2, "{guests}: {least} to {most} turns");
        }
    }
}
