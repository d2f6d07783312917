//! The deadlines of handlers.

use std::collections::BTreeSet;

use rtftp_core::Instant;

/// The deadlines of handlers, at most one each.
///
/// A deadline usually moves to a later time before it expires. Its entry stays where it is then, and is corrected once it is the first.
#[derive(Debug, Default)]
pub(super) struct Deadlines {
    /// The deadlines, by the number of the handler.
    handlers: Vec<Deadline>,
    /// The entries of handlers, the earliest first.
    entries: BTreeSet<(Instant, usize)>,
}

#[derive(Debug, Clone, Default)]
struct Deadline {
    at: Option<Instant>,
    /// The time of its entry: earlier than the deadline if that was moved or removed, never later.
    entry: Option<Instant>,
}

impl Deadlines {
    /// Sets the deadline of a handler.
    pub(super) fn set(&mut self, id: usize, at: Instant) {
        if id >= self.handlers.len() {
            self.handlers.resize(id + 1, Deadline::default());
        }
        let deadline = &mut self.handlers[id];
        deadline.at = Some(at);
        if deadline.entry.is_none_or(|entry| at < entry) {
            if let Some(later) = deadline.entry.replace(at) {
                self.entries.remove(&(later, id));
            }
            self.entries.insert((at, id));
        }
    }

    /// Removes the deadline of a handler, which may soon have another one.
    pub(super) fn clear(&mut self, id: usize) {
        if let Some(deadline) = self.handlers.get_mut(id) {
            deadline.at = None;
        }
    }

    /// Removes everything about a handler.
    pub(super) fn remove(&mut self, id: usize) {
        if let Some(deadline) = self.handlers.get_mut(id)
            && let Some(entry) = std::mem::take(deadline).entry
        {
            self.entries.remove(&(entry, id));
        }
    }

    /// Returns the first deadline, if it is before `limit`.
    pub(super) fn first_before(&mut self, limit: Option<Instant>) -> Option<Instant> {
        self.first_if(|at| limit.is_none_or(|limit| at < limit)).map(|(at, _)| at)
    }

    /// Removes the first deadline if it has expired, and returns its handler.
    pub(super) fn pop_expired(&mut self, now: Instant) -> Option<usize> {
        let (_, id) = self.first_if(|at| at <= now)?;
        self.remove(id);
        Some(id)
    }

    /// Returns the first deadline and its handler if it is early enough. Corrects the entries before it.
    fn first_if(&mut self, is_early: impl Fn(Instant) -> bool) -> Option<(Instant, usize)> {
        while let Some(&(entry, id)) = self.entries.first().filter(|(entry, _)| is_early(*entry)) {
            let deadline = &mut self.handlers[id];
            if deadline.at == Some(entry) {
                return Some((entry, id));
            }
            self.entries.pop_first();
            deadline.entry = deadline.at;
            self.entries.extend(deadline.at.map(|at| (at, id)));
        }
        None
    }

    /// Returns whether no handler has an entry.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(micros: u64) -> Instant {
        Instant::from_micros(micros)
    }

    fn deadlines(set: impl IntoIterator<Item = (usize, u64)>) -> Deadlines {
        let mut deadlines = Deadlines::default();
        set.into_iter().for_each(|(id, micros)| deadlines.set(id, at(micros)));
        deadlines
    }

    #[test]
    fn returns_the_first_deadline_before_a_limit() {
        let mut deadlines = deadlines([(7, 30), (2, 20)]);
        assert_eq!(deadlines.first_before(None), Some(at(20)));
        assert_eq!(deadlines.first_before(Some(at(21))), Some(at(20)));
        assert_eq!(deadlines.first_before(Some(at(20))), None);
        deadlines.remove(2);
        assert_eq!(deadlines.first_before(None), Some(at(30)));
        deadlines.remove(7);
        deadlines.remove(100);
        assert_eq!(deadlines.first_before(None), None);
        assert!(deadlines.is_empty());
    }

    #[test]
    fn follows_deadlines_that_move() {
        let mut deadlines = deadlines([(0, 10), (1, 20), (0, 30)]);
        assert_eq!(deadlines.first_before(None), Some(at(20)));
        deadlines.set(0, at(5));
        assert_eq!(deadlines.first_before(None), Some(at(5)));
        deadlines.clear(0);
        assert_eq!(deadlines.first_before(None), Some(at(20)));
        deadlines.set(0, at(15));
        assert_eq!(deadlines.first_before(None), Some(at(15)));
    }

    #[test]
    fn corrects_only_entries_before_the_limit() {
        let mut deadlines = deadlines([(0, 10), (0, 40), (1, 20), (1, 50)]);
        assert_eq!(deadlines.first_before(Some(at(20))), None);
        assert_eq!(deadlines.entries, BTreeSet::from([(at(20), 1), (at(40), 0)]));
    }

    #[test]
    fn removes_expired_deadlines_in_order() {
        let mut deadlines = deadlines([(0, 10), (1, 30), (2, 20), (3, 5), (3, 25), (4, 8), (4, 99)]);
        deadlines.set(5, at(1));
        deadlines.clear(5);
        let expired: Vec<usize> = std::iter::from_fn(|| deadlines.pop_expired(at(30))).collect();
        assert_eq!(expired, [0, 2, 3, 1]);
        assert_eq!(deadlines.first_before(None), Some(at(99)));
        deadlines.set(0, at(40));
        assert_eq!(deadlines.pop_expired(at(40)), Some(0));
    }
}
