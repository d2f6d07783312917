//! Directories: entries of 32 bytes. Each has a short name and may be preceded by entries with the parts of a long name (fatgen103,
//! "FAT directory structure" and "FAT long directory entries").

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{
    boot::Width,
    name::{LongName, is_same, short_name},
};
use crate::fs::{
    FileType, Node,
    bytes::{array_at, le},
};

/// The size of an entry in bytes.
pub(super) const RECORD: usize = 32;
/// The first byte of the entry after the last one.
const END: u8 = 0;
/// The first byte of an unused entry.
const FREE: u8 = 0xE5;
/// The attribute of the volume label.
const VOLUME: u8 = 0x08;
/// The attribute of a directory.
const DIRECTORY: u8 = 0x10;
/// The attributes of an entry with a part of a long name.
const LONG_NAME: u8 = 0x0F;

/// An entry as stored on the disk.
#[derive(Debug)]
pub(super) struct Record([u8; RECORD]);

impl Record {
    /// Copies the entry at the start of `bytes`.
    pub(super) fn new(bytes: &[u8]) -> Self {
        Self(array_at(bytes, 0))
    }

    /// Returns the type; `None` for unused entries, the volume label and parts of long names.
    pub(super) fn file_type(&self) -> Option<FileType> {
        match self.attributes() {
            _ if matches!(self.first(), END | FREE) => None,
            attributes if attributes & VOLUME != 0 => None,
            attributes if attributes & DIRECTORY != 0 => Some(FileType::Directory),
            _ => Some(FileType::File),
        }
    }

    /// Returns the size of a file in bytes. Directories do not record their size.
    pub(super) fn size(&self) -> u32 {
        le::u32_at(&self.0, 28)
    }

    /// Returns the first cluster; 0 if there is none. FAT12 and FAT16 use the high half for something else.
    pub(super) fn first_cluster(&self, width: Width) -> u32 {
        let high = if width == Width::Fat32 { le::u16_at(&self.0, 20) } else { 0 };
        u32::from(high) << 16 | u32::from(le::u16_at(&self.0, 26))
    }

    /// Returns the creation time (tenths, time, date) and the modification time (time, date). The date of the last access is
    /// left out.
    pub(super) fn times(&self) -> [u64; 2] {
        [le::u64_at(&self.0, 13) & 0xFF_FFFF_FFFF, le::u32_at(&self.0, 22).into()]
    }

    /// Returns the modification time. Its time zone is not recorded: it is taken for UTC.
    pub(super) fn modified(&self) -> Option<SystemTime> {
        time(le::u16_at(&self.0, 24), le::u16_at(&self.0, 22))
    }

    fn first(&self) -> u8 {
        let [first, ..] = self.0;
        first
    }

    fn attributes(&self) -> u8 {
        let [attributes] = array_at(&self.0, 11);
        attributes
    }

    /// Returns whether this is `.` or `..`.
    fn is_dots(&self) -> bool {
        matches!(&array_at::<11>(&self.0, 0), b".          " | b"..         ")
    }
}

/// Returns the time of a date and a time of day, which have two seconds as their unit.
fn time(date: u16, time: u16) -> Option<SystemTime> {
    let (date, time) = (u64::from(date), u64::from(time));
    let (year, month, day) = (1980 + (date >> 9), date >> 5 & 15, date & 31);
    if !(1..=12).contains(&month) || day == 0 {
        return None;
    }
    // Years that begin in March end with the leap day.
    let (year, month) = if month < 3 { (year - 1, month + 9) } else { (year, month - 3) };
    // From 1 March of year 0 on; 1 January 1970 is day 719,468.
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1 - 719_468;
    let seconds = (days * 24 + (time >> 11)) * 3600 + (time >> 5 & 63) * 60 + 2 * (time & 31);
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

/// A file or directory with its names.
#[derive(Debug)]
pub(super) struct Entry {
    /// The offset of the record in the volume.
    offset: u64,
    file_type: FileType,
    short: String,
    long: Option<String>,
}

impl Entry {
    pub(super) fn node(&self) -> Node {
        Node { id: self.offset, file_type: self.file_type }
    }

    /// Returns the name that Linux shows.
    pub(super) fn name(&self) -> &str {
        self.long.as_deref().unwrap_or(&self.short)
    }

    /// Returns whether the short or the long name is `name`.
    pub(super) fn is_called(&self, name: &str) -> bool {
        is_same(&self.short, name) || self.long.as_ref().is_some_and(|long| is_same(long, name))
    }
}

/// The entries of a directory that were read so far.
#[derive(Debug, Default)]
pub(super) struct Directory {
    pub(super) found: Vec<Entry>,
    /// The parts of the long name of the next entry.
    long: LongName,
}

impl Directory {
    /// Adds the entries in the next bytes of the directory, which are at `offset` in the volume. Returns whether more may follow.
    ///
    /// Entries after the end marker are ignored. Linux would read them, but no other implementation does.
    pub(super) fn add(&mut self, offset: u64, bytes: &[u8]) -> bool {
        let (records, _) = bytes.as_chunks::<RECORD>();
        for (offset, record) in (offset..).step_by(RECORD).zip(records) {
            let record = Record(*record);
            if record.first() == END {
                return false;
            }
            if record.attributes() == LONG_NAME && record.first() != FREE {
                self.long.add(&record.0);
                continue;
            }
            let long = std::mem::take(&mut self.long);
            let Some(file_type) = record.file_type().filter(|_| !record.is_dots()) else { continue };
            let short = short_name(&record.0);
            // Linux ignores entries whose short name is all spaces.
            if !short.is_empty() {
                self.found.push(Entry { offset, file_type, short, long: long.finish(&record.0) });
            }
        }
        true
    }
}

#[cfg(test)]
pub(super) mod tests;
