//! Collects the changes of the committed transactions.

use std::collections::BTreeSet;

use super::{
    buffer_item,
    buffer_item::BufferItem,
    changes::Changes,
    head::Head,
    icreate_item, inode_item,
    position::{Position, corrupt},
    record::{MAX_LEN, Record},
    ring::Ring,
    transaction::{Item, OpenTransactions, Transaction},
};
use crate::fs::{Error, bytes::le, xfs::superblock::Superblock};

/// The maximum number of unfinished intents. Linux has a few at most.
const MAX_INTENTS: usize = 4096;

// Types of items. An intent says what the next transactions do, a done item that they have.
/// Changes of the tables of free space, owners and shared blocks, of lists of deleted inodes, of quotas, and of extended
/// attributes: a reader needs none of them.
const IGNORED: [u16; 21] = [
    0x1236, 0x1237, 0x1238, 0x123d, 0x123e, 0x1240, 0x1241, 0x1242, 0x1243, 0x1246, 0x1247, 0x124a, 0x124b, 0x124c,
    0x124d, 0x124e, 0x124f, 0x1250, 0x1251, 0x1252, 0x1253,
];
const BUI: u16 = 0x1244;
const BUD: u16 = 0x1245;
const XMI: u16 = 0x1248;
const XMD: u16 = 0x1249;

/// Reads the records from the tail to the head. Returns the changes, and the LSN of the newest state that they complete.
///
/// # Errors
///
/// [`Error::Unsupported`] if the log contains an unknown change, or an unfinished one that only Linux can complete;
/// [`Error::Corrupt`], [`Error::TooMuchWork`], [`Error::OutOfMemory`], [`Error::Io`].
pub(super) async fn replay(ring: &Ring<'_>, superblock: &Superblock, head: &Head) -> Result<(Changes, u64), Error> {
    let memory = ring.volume.memory();
    // A record, its data, and what is read ahead.
    let _record_memory = memory.reserve(4 * MAX_LEN)?;
    let ring = &ring.ahead();
    let mut replayer = Replayer { superblock, changes: Changes::new(memory.reserve(0)?), intents: BTreeSet::new() };
    let mut open = OpenTransactions::default();
    let Position { cycle, block } = head.tail;
    let is_in_range = block < ring.blocks && head.tail < head.end;
    if !is_in_range || !(cycle == head.end.cycle || cycle + 1 == head.end.cycle && block >= head.end.block) {
        return Err(corrupt("invalid tail"));
    }
    let mut position = head.tail;
    while position < head.end {
        let record = Record::read(ring, position, superblock).await?;
        let record = record.ok_or_else(|| corrupt("a record between its tail and its head is damaged"))?;
        open.add(&record, memory, |transaction| replayer.commit(transaction))?;
        position = record.end;
    }
    if let Some((kind, _)) = replayer.intents.first() {
        let name = if *kind == BUI { "BUI" } else { "XMI" };
        let what =
            format!("contains an unfinished change of the map of a file ({name}), which a mount by Linux completes");
        return Err(Error::unsupported("log", what));
    }
    // Linux may have written structures of transactions that are not committed here: it has committed them meanwhile.
    let newest_lsn = open.oldest_lsn().map_or(head.end.lsn(), |lsn| lsn - 1);
    Ok((replayer.changes, newest_lsn))
}

#[derive(Debug)]
struct Replayer<'a> {
    superblock: &'a Superblock,
    changes: Changes,
    /// The unfinished intents: type and number.
    intents: BTreeSet<(u16, u64)>,
}

impl Replayer<'_> {
    /// Adds the changes of a transaction. Its items are not in order: inodes may be in buffers that it creates, and what it frees
    /// it has changed before.
    fn commit(&mut self, transaction: &Transaction) -> Result<(), Error> {
        transaction.for_each_item(|item_type, item| match item_type {
            buffer_item::TYPE => BufferItem::parse(item)?.add_to(&mut self.changes),
            icreate_item::TYPE => icreate_item::add_to(&mut self.changes, item, self.superblock),
            _ => Ok(()),
        })?;
        transaction.for_each_item(|item_type, item| match item_type {
            inode_item::TYPE => inode_item::add_to(&mut self.changes, item, self.superblock),
            buffer_item::TYPE | icreate_item::TYPE => Ok(()),
            _ => self.intent(item_type, item),
        })?;
        transaction.for_each_item(|item_type, item| {
            if item_type == buffer_item::TYPE
                && let Some(buffer) = BufferItem::parse(item)?.cancelled()
            {
                self.changes.cancel(buffer);
            }
            Ok(())
        })
    }

    fn intent(&mut self, item_type: u16, item: &Item<'_>) -> Result<(), Error> {
        let number = le::u64_at(item.region(0), 8);
        match item_type {
            BUI | XMI if self.intents.len() == MAX_INTENTS => return Err(corrupt("too many unfinished changes")),
            BUI | XMI => drop(self.intents.insert((item_type, number))),
            BUD | XMD => drop(self.intents.remove(&(item_type - 1, number))),
            _ if IGNORED.contains(&item_type) => {}
            _ => {
                return Err(Error::unsupported("log", format!("contains a change of the unknown type {item_type:#x}")));
            }
        }
        Ok(())
    }
}
