//! Buffers that are reused: allocating a large one costs about as much as copying its contents.

use std::{
    mem,
    ops::{Deref, DerefMut, RangeInclusive},
    sync::{Arc, Weak},
};

use parking_lot::Mutex;

/// The maximum number of unused buffers in a pool. One transfer returns a buffer just before it takes one.
const MAX_UNUSED: usize = 1;
/// The capacities in bytes of unused buffers. Smaller ones are allocated faster than they are filled.
const CAPACITIES: RangeInclusive<usize> = 32 * 1024..=512 * 1024;

/// A source of buffers, which return to it when they are dropped. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct BufferPool {
    unused: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl BufferPool {
    /// Returns a buffer of `len` bytes with arbitrary contents.
    pub(crate) fn take(&self, len: usize) -> Buffer {
        // A small read must not occupy a large buffer.
        let unused = self.unused.lock().pop_if(|unused| unused.capacity() <= 2 * len);
        let mut bytes = unused.unwrap_or_default();
        bytes.resize(len, 0);
        Buffer { bytes, pool: Arc::downgrade(&self.unused) }
    }

    /// Frees the unused buffers.
    pub(crate) fn clear(&self) {
        self.unused.lock().clear();
    }
}

/// Bytes read from a disk.
#[derive(Debug, Default)]
pub struct Buffer {
    bytes: Vec<u8>,
    pool: Weak<Mutex<Vec<Vec<u8>>>>,
}

impl Buffer {
    /// Shortens the buffer to the bytes from `start` to `start + len`.
    pub(crate) fn crop(&mut self, start: usize, len: usize) {
        self.bytes.drain(..start);
        self.bytes.truncate(len);
    }

    /// Returns the bytes as a vector, which does not return to the pool.
    pub fn into_vec(mut self) -> Vec<u8> {
        mem::take(&mut self.bytes)
    }

    /// Makes room for `len` bytes in all.
    pub(crate) fn reserve(&mut self, len: usize) {
        self.bytes.reserve_exact(len.saturating_sub(self.bytes.len()));
    }

    /// Appends bytes.
    pub(crate) fn extend_from_slice(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }
}

impl From<Vec<u8>> for Buffer {
    fn from(bytes: Vec<u8>) -> Self {
        Self { bytes, pool: Weak::new() }
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

impl<T: AsRef<[u8]> + ?Sized> PartialEq<T> for Buffer {
    fn eq(&self, other: &T) -> bool {
        **self == *other.as_ref()
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let Some(pool) = self.pool.upgrade() else { return };
        let mut unused = pool.lock();
        if unused.len() < MAX_UNUSED && CAPACITIES.contains(&self.bytes.capacity()) {
            unused.push(mem::take(&mut self.bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reuses_a_dropped_buffer() {
        let pool = BufferPool::default();
        let (len, shorter) = (*CAPACITIES.end(), CAPACITIES.end() / 2);
        let buffer = pool.take(len);
        let address = buffer.as_ptr();
        drop(buffer);
        assert_ne!(pool.take(10).as_ptr(), address, "too large for ten bytes");
        let buffer = pool.take(shorter);
        assert_eq!((buffer.as_ptr(), buffer.len()), (address, shorter));
        assert_ne!(pool.take(shorter).as_ptr(), address, "a buffer in use is not handed out again");
    }

    #[test]
    fn keeps_one_buffer_of_the_usual_size() {
        let pool = BufferPool::default();
        drop([pool.take(CAPACITIES.end() + 1), pool.take(CAPACITIES.start() - 1)]);
        assert!(pool.unused.lock().is_empty());
        drop((0..5).map(|_| pool.take(*CAPACITIES.end())).collect::<Vec<_>>());
        assert_eq!(pool.unused.lock().len(), MAX_UNUSED);
        pool.clear();
        assert!(pool.unused.lock().is_empty());
    }

    #[test]
    fn buffers_outlive_their_pool() {
        let buffer = BufferPool::default().take(3);
        assert_eq!(buffer.len(), 3);
    }
}
