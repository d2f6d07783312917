//! Puts the operations of records together to transactions (Linux, `xlog_recovery_process_trans`).

use std::collections::BTreeMap;

use super::{position::corrupt, record::Record};
use crate::{
    fs::{
        Error,
        bytes::{be, le},
    },
    memory::{DiskMemory, Reservation},
};

/// The size of the header of an operation in bytes (`struct xlog_op_header`).
const OPERATION_HEADER: usize = 12;
/// The size of the first region of a transaction in bytes, which starts with a magic number (`struct xfs_trans_header`).
const TRANSACTION_HEADER: usize = 16;
const TRANSACTION_MAGIC: &[u8] = b"NART";
/// The maximum number of transactions that are under way at the same time. Linux has a handful.
const MAX_OPEN: usize = 256;

// Flags of operations.
const START: u8 = 0x01;
const COMMIT: u8 = 0x02;
const WAS_CONTINUED: u8 = 0x08;
const UNMOUNT: u8 = 0x20;

/// A transaction: its regions, which form items.
#[derive(Debug)]
pub(super) struct Transaction {
    /// The LSN: the position of the record in which the transaction starts.
    pub(super) lsn: u64,
    /// The regions, one after the other.
    bytes: Vec<u8>,
    /// The end of each region in `bytes`.
    ends: Vec<u32>,
    memory: Reservation,
}

/// The transactions that have started and are not committed yet.
#[derive(Debug, Default)]
pub(super) struct OpenTransactions(BTreeMap<u32, Transaction>);

impl OpenTransactions {
    /// Adds the operations of a record, and calls `commit` with each transaction that they commit.
    ///
    /// # Errors
    ///
    /// Those of `commit`; [`Error::Corrupt`], [`Error::OutOfMemory`].
    pub(super) fn add(
        &mut self,
        record: &Record,
        memory: &DiskMemory,
        mut commit: impl FnMut(&Transaction) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut rest = record.data.as_slice();
        for _ in 0..record.operations {
            let exceeds = || corrupt("an operation exceeds its record");
            let (header, behind) = rest.split_at_checked(OPERATION_HEADER).ok_or_else(exceeds)?;
            let (id, len, flags) = (be::u32_at(header, 0), be::u32_at(header, 4) as usize, header[9]);
            let (data, behind) = behind.split_at_checked(len).ok_or_else(exceeds)?;
            rest = behind;
            if flags & START != 0 {
                if self.0.len() == MAX_OPEN {
                    return Err(corrupt("too many transactions under way"));
                }
                let memory = memory.reserve(0)?;
                let started = Transaction { lsn: record.start.lsn(), bytes: Vec::new(), ends: Vec::new(), memory };
                self.0.insert(id, started);
                continue;
            }
            // An operation of a transaction that has started before the tail is void.
            let Some(transaction) = self.0.get_mut(&id) else { continue };
            if flags & COMMIT != 0 {
                let transaction = self.0.remove(&id);
                transaction.iter().try_for_each(&mut commit)?;
            } else if flags & UNMOUNT != 0 {
                self.0.remove(&id);
            } else if !data.is_empty() {
                transaction.push(data, flags & WAS_CONTINUED != 0)?;
            }
        }
        Ok(())
    }

    /// Returns the LSN of the oldest transaction.
    pub(super) fn oldest_lsn(&self) -> Option<u64> {
        self.0.values().map(|transaction| transaction.lsn).min()
    }
}

impl Transaction {
    /// Adds a region, or continues the last one.
    fn push(&mut self, data: &[u8], continues: bool) -> Result<(), Error> {
        let missing = (self.bytes.len() + data.len()).saturating_sub(self.bytes.capacity());
        if missing > 0 {
            let more = missing.max(self.bytes.capacity() / 2);
            self.memory.resize(self.memory.bytes() + more)?;
            self.bytes.reserve_exact(self.bytes.capacity() - self.bytes.len() + more);
        }
        self.bytes.extend_from_slice(data);
        let end = self.bytes.len() as u32;
        match self.ends.last_mut() {
            Some(last) if continues => *last = end,
            _ => {
                self.memory.make_room(&mut self.ends)?;
                self.ends.push(end);
            }
        }
        Ok(())
    }

    /// Returns region `index`.
    fn region(&self, index: usize) -> Option<&[u8]> {
        let start = index.checked_sub(1).map_or(Some(0), |before| self.ends.get(before).map(|end| *end as usize))?;
        self.bytes.get(start..*self.ends.get(index)? as usize)
    }

    /// Calls `visit` with the type and the regions of each item.
    ///
    /// # Errors
    ///
    /// Those of `visit`; [`Error::Corrupt`].
    pub(super) fn for_each_item(
        &self,
        mut visit: impl FnMut(u16, &Item<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let Some(header) = self.region(0) else { return Ok(()) };
        if header.len() != TRANSACTION_HEADER || !header.starts_with(TRANSACTION_MAGIC) {
            return Err(corrupt("invalid header of a transaction"));
        }
        let mut first = 1;
        while let Some(format) = self.region(first) {
            let [item_type, count] = [0, 2].map(|at| le::u16_at(format, at));
            let item = Item { transaction: self, first, count: count.into() };
            if count == 0 || self.region(first + usize::from(count) - 1).is_none() {
                return Err(corrupt("incomplete item of a transaction"));
            }
            visit(item_type, &item)?;
            first += usize::from(count);
        }
        Ok(())
    }
}

/// An item of a transaction: the change of one structure.
#[derive(Debug)]
pub(super) struct Item<'a> {
    transaction: &'a Transaction,
    first: usize,
    count: usize,
}

impl Item<'_> {
    /// Returns region `index`; the first one describes the item. Empty if there are fewer.
    pub(super) fn region(&self, index: usize) -> &[u8] {
        (index < self.count).then(|| self.transaction.region(self.first + index)).flatten().unwrap_or_default()
    }

    /// Returns the LSN of the transaction.
    pub(super) fn lsn(&self) -> u64 {
        self.transaction.lsn
    }
}

/// Returns whether the only operation of a record says that the file system was unmounted.
pub(super) fn is_unmount(data: &[u8]) -> bool {
    data.get(9).is_some_and(|flags| flags & UNMOUNT != 0)
}
