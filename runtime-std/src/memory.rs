//! The memory that disks may use: a limit for all of them, and a share for each.
//!
//! A [`Reservation`] counts until it is dropped. It does not allocate: whoever holds it accounts for what he allocates. What is only
//! needed for speed is reserved within a part of the limits, so that every disk finds room for what it needs to make progress.

use std::{
    error, fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use crate::{clock, rate_limit::OncePerMinute};

/// The part of the memory for disks that one of them may use: a quarter.
const SHARES: usize = 4;

/// A part of the memory, in sixteenths of each limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part {
    /// Of the memory for all disks.
    pub(crate) all: usize,
    /// Of the share of the disk.
    pub(crate) disk: usize,
}

/// The whole of a limit in sixteenths.
const WHOLE: usize = 16;
/// All of the memory.
const ALL: Part = Part { all: WHOLE, disk: WHOLE };
/// The part above which memory is short: what is not in use is freed.
const SHORT: Part = Part { all: 12, disk: 12 };

/// The memory for all disks. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Memory(Arc<Total>);

#[derive(Debug)]
struct Total {
    limit: Limit,
    /// The log lines about a shortage.
    shortage_log: OncePerMinute,
}

/// The memory for one disk: its share, and the memory for all disks. Cheap to clone.
#[derive(Debug, Clone)]
pub struct DiskMemory {
    total: Memory,
    disk: Arc<Limit>,
}

/// A number of bytes that are in use.
#[derive(Debug)]
pub struct Reservation {
    memory: DiskMemory,
    bytes: usize,
}

/// A limit in bytes.
#[derive(Debug)]
struct Limit {
    max: usize,
    used: AtomicUsize,
}

/// The reason why memory could not be reserved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum OutOfMemory {
    /// All disks together use the memory for disks.
    AllDisks,
    /// The disk uses its share.
    ThisDisk,
}

impl Memory {
    /// Creates the memory for all disks, in bytes.
    pub(crate) fn new(max: usize) -> Self {
        Self(Arc::new(Total { limit: Limit::new(max), shortage_log: OncePerMinute::default() }))
    }

    /// Creates memory without a limit.
    pub(crate) fn unlimited() -> Self {
        Self::new(usize::MAX)
    }

    /// Returns the number of bytes in use, and their limit.
    pub(crate) fn usage(&self) -> (usize, usize) {
        (self.0.limit.used.load(Relaxed), self.0.limit.max)
    }

    /// Creates the memory for one more disk.
    pub(crate) fn disk(&self) -> DiskMemory {
        DiskMemory { total: self.clone(), disk: Arc::new(Limit::new(self.0.limit.max / SHARES)) }
    }
}

impl DiskMemory {
    /// Creates the memory for a disk without limits.
    pub fn unlimited() -> Self {
        Memory::unlimited().disk()
    }

    /// Reserves memory that is needed.
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`].
    pub(crate) fn reserve(&self, bytes: usize) -> Result<Reservation, OutOfMemory> {
        self.reserve_within(bytes, ALL)
    }

    /// Reserves memory, but only within a part of the limits.
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`].
    pub(crate) fn reserve_within(&self, bytes: usize, part: Part) -> Result<Reservation, OutOfMemory> {
        self.take(bytes, part)?;
        Ok(Reservation { memory: self.clone(), bytes })
    }

    /// Returns whether memory is short: what is not in use should be freed.
    pub(crate) fn is_short(&self) -> bool {
        self.exceeds(SHORT)
    }

    /// Returns whether more than a part of the limits is in use.
    pub(crate) fn exceeds(&self, part: Part) -> bool {
        !self.disk.has_room(0, part.disk) || !self.total.0.limit.has_room(0, part.all)
    }

    /// Returns the number of bytes that the disk uses.
    #[cfg(test)]
    pub(crate) fn used(&self) -> usize {
        self.disk.used.load(Relaxed)
    }

    /// Returns whether a shortage should be logged now: at most once a minute for all disks.
    pub(crate) fn should_log(&self) -> bool {
        self.total.0.shortage_log.allows(clock::now())
    }

    fn take(&self, bytes: usize, part: Part) -> Result<(), OutOfMemory> {
        if !self.disk.take(bytes, part.disk) {
            return Err(OutOfMemory::ThisDisk);
        }
        if !self.total.0.limit.take(bytes, part.all) {
            self.disk.give_back(bytes);
            return Err(OutOfMemory::AllDisks);
        }
        Ok(())
    }

    fn give_back(&self, bytes: usize) {
        self.disk.give_back(bytes);
        self.total.0.limit.give_back(bytes);
    }
}

impl Reservation {
    /// Returns the number of bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Changes the number of bytes. On an error, the reservation stays as it was.
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`].
    pub(crate) fn resize(&mut self, bytes: usize) -> Result<(), OutOfMemory> {
        self.resize_within(bytes, ALL)
    }

    /// Changes the number of bytes; to more of them only within a part of the limits. On an error, the reservation stays as it was.
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`].
    pub(crate) fn resize_within(&mut self, bytes: usize, part: Part) -> Result<(), OutOfMemory> {
        if bytes > self.bytes {
            self.memory.take(bytes - self.bytes, part)?;
        } else {
            self.memory.give_back(self.bytes - bytes);
        }
        self.bytes = bytes;
        Ok(())
    }

    /// Makes room for one more element in a vector that this reservation accounts for.
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`].
    pub(crate) fn make_room<T>(&mut self, vec: &mut Vec<T>) -> Result<(), OutOfMemory> {
        const MIN_CAPACITY: usize = 16;
        if vec.len() == vec.capacity() {
            let capacity = (vec.len() + vec.len() / 2).max(MIN_CAPACITY);
            self.resize(self.bytes + (capacity - vec.capacity()) * size_of::<T>())?;
            vec.reserve_exact(capacity - vec.len());
        }
        Ok(())
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.memory.give_back(self.bytes);
    }
}

impl Limit {
    fn new(max: usize) -> Self {
        Self { max, used: AtomicUsize::new(0) }
    }

    /// Returns the number of bytes in use after adding `bytes`, if that is within a part of the limit.
    fn sum(&self, used: usize, bytes: usize, sixteenths: usize) -> Option<usize> {
        used.checked_add(bytes).filter(|sum| *sum <= self.max / WHOLE * sixteenths)
    }

    fn has_room(&self, bytes: usize, sixteenths: usize) -> bool {
        self.sum(self.used.load(Relaxed), bytes, sixteenths).is_some()
    }

    fn take(&self, bytes: usize, sixteenths: usize) -> bool {
        self.used.fetch_update(Relaxed, Relaxed, |used| self.sum(used, bytes, sixteenths)).is_ok()
    }

    fn give_back(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Relaxed);
    }
}

impl fmt::Display for OutOfMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AllDisks => f.write_str("the memory for disks is used up: --disk-memory"),
            Self::ThisDisk => f.write_str("the disk has used up its share of the memory for disks: --disk-memory"),
        }
    }
}

impl error::Error for OutOfMemory {}

#[cfg(test)]
mod tests {
    use super::*;

    const HALF: Part = Part { all: 8, disk: 8 };

    /// Returns the number of bytes in use by all disks and by this one.
    fn used(disk: &DiskMemory) -> (usize, usize) {
        (disk.total.0.limit.used.load(Relaxed), disk.disk.used.load(Relaxed))
    }

    #[test]
    fn one_disk_can_only_spend_its_share() {
        let memory = Memory::new(6400);
        let disks: Vec<_> = (0..5).map(|_| memory.disk()).collect();
        let greedy = disks[0].reserve(1600).expect("the whole share");
        assert_eq!(disks[0].reserve(1).err(), Some(OutOfMemory::ThisDisk));
        let others: Vec<_> = disks[1..4].iter().map(|disk| disk.reserve(1600).expect("a share each")).collect();
        assert_eq!(disks[4].reserve(1).err(), Some(OutOfMemory::AllDisks));
        assert_eq!(used(&disks[4]), (6400, 0), "a failure reserves nothing");
        drop(greedy);
        drop(disks[4].reserve(1600).expect("free again"));
        drop(others);
        assert_eq!(used(&disks[4]), (0, 0));
    }

    #[test]
    fn memory_for_speed_leaves_room_for_what_is_needed() {
        let disk = Memory::new(3200).disk();
        let fast = disk.reserve_within(400, HALF).expect("half of the share");
        assert_eq!(disk.reserve_within(1, HALF).err(), Some(OutOfMemory::ThisDisk));
        assert!(!disk.is_short());
        let needed = disk.reserve(400).expect("the other half");
        assert!(disk.is_short());
        drop(needed);
        assert!(!disk.is_short());
        drop(fast);
        let memory = Memory::new(6400);
        let disks: Vec<_> = (0..4).map(|_| (memory.disk(), memory.disk())).collect();
        let _used: Vec<_> = disks.iter().map(|(disk, _)| disk.reserve(1600).expect("a share each")).collect();
        assert!(disks.iter().all(|(_, idle)| idle.is_short()), "all disks have to save");
    }

    #[test]
    fn vector_grows_within_its_reservation() {
        let disk = Memory::new(4 * 1000).disk();
        let mut reservation = disk.reserve(0).expect("nothing");
        let mut numbers: Vec<u64> = Vec::new();
        while reservation.make_room(&mut numbers).is_ok() {
            numbers.push(1);
            assert_eq!(reservation.bytes(), numbers.capacity() * 8);
        }
        assert!((64..=125).contains(&numbers.len()), "{} numbers in 1,000 bytes", numbers.len());
        drop(reservation);
        assert_eq!(used(&disk), (0, 0));
    }

    #[test]
    fn everything_returns_whatever_the_order() {
        let memory = Memory::new(1 << 20);
        let disks: Vec<_> = (0..7).map(|_| memory.disk()).collect();
        let (mut state, mut held) = (1u64, Vec::new());
        for _ in 0..100_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let random = (state >> 33) as usize;
            let disk = &disks[random % 7];
            match random / 7 % 4 {
                0 | 1 => held
                    .extend(disk.reserve_within(random % 30_000, Part { all: 1 + random % 16, disk: 1 + random % 11 })),
                2 if !held.is_empty() => drop(held.swap_remove(random % held.len())),
                _ => {
                    let count = held.len().max(1);
                    if let Some(reservation) = held.get_mut(random % count) {
                        let _ = reservation.resize(random % 50_000);
                    }
                }
            }
            let (total, share) = used(disk);
            assert!(total <= 1 << 20 && share <= 1 << 18, "{total} bytes, {share} of one disk");
            assert_eq!(total, held.iter().map(Reservation::bytes).sum::<usize>());
        }
        drop(held);
        assert!(disks.iter().all(|disk| used(disk) == (0, 0)));
    }

    #[test]
    fn logs_a_shortage_once_a_minute() {
        let memory = Memory::new(1);
        assert!(memory.disk().should_log() && !memory.disk().should_log());
    }
}
