//! The interface to a disk, independent of the protocol that it is read with.

use std::{fmt, future::Future, pin::Pin};

use super::Error;
use crate::buffer::Buffer;

/// The boxed future of a read from a [`BlockDevice`].
pub type ReadFuture<'a> = Pin<Box<dyn Future<Output = Result<Buffer, Error>> + Send + 'a>>;

/// A disk: bytes that can be read at any offset, with any number of concurrent reads.
pub trait BlockDevice: fmt::Debug + Send + Sync {
    /// Returns the size in bytes.
    fn size(&self) -> u64;

    /// Reads exactly `len` bytes at `offset`. The read starts with the call, before the future is polled, so that several can be
    /// in flight.
    ///
    /// # Errors
    ///
    /// [`Error::Io`], also if the range exceeds [`size`](Self::size).
    fn read(&self, offset: u64, len: usize) -> ReadFuture<'_>;

    /// Returns `false` once the device is known to be unreadable; this never reverts to `true`.
    fn is_alive(&self) -> bool {
        true
    }

    /// Frees buffers that are kept for later reads.
    fn free_buffers(&self) {}
}

/// A disk in memory.
impl BlockDevice for Vec<u8> {
    fn size(&self) -> u64 {
        self.len() as u64
    }

    fn read(&self, offset: u64, len: usize) -> ReadFuture<'_> {
        let bytes = usize::try_from(offset).ok().and_then(|offset| self.get(offset..)?.get(..len));
        let bytes =
            bytes.map(|bytes| bytes.to_vec().into()).ok_or_else(|| Error::Io("read beyond the end of the disk".into()));
        Box::pin(async { bytes })
    }
}
