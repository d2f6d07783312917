//! What file systems record about being mounted: read twice, it shows whether a board came up in between.
//!
//! Nothing depends on the clock of the board, which may have none: a mark only differs or not. Measured with Linux 6.1, which had the
//! disks mounted in QEMU, from the mount to the write at the server:
//!
//! | file system | mounted read-only | mounted or remounted read-write | later | unmounted | after a reset |
//! |---|---|---|---|---|---|
//! | ext2, ext3, ext4 | nothing | at once: `s_mtime`, `s_mnt_count`; "needs recovery" (without a journal: `s_state` not clean) | with files, after 5 to 10 s | the flag is reset | the flag is set |
//! | FAT16, FAT32 | nothing | at once: the dirty bit in the boot sector, unless it is set already | with files, after 5 s | the bit is reset | the bit is set, and stays |
//! | XFS | nothing, or the superblock and an unmount record in the log | the same | with files, after up to 30 s: the log | an unmount record in the log | no mark |
//! | btrfs | nothing | nothing, or after 30 s: the generation | with files, after 30 s: the generation | the generation | no mark |
//!
//! `tests/long.sh board-disks` repeats the mounts.

/// The marks of a file system at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MountMarks {
    /// The name, such as `ext4` or `FAT32`.
    pub name: &'static str,
    /// The time and the number of the last read-write mount, as the file system records them; 0 if it does not.
    pub last_mount: [u64; 2],
    /// Whether it is mounted read-write, or was not unmounted cleanly; `false` if it does not record that.
    pub is_in_use: bool,
    /// Differs after a change of its superblock or of the end of its log.
    pub state: u64,
    /// What these marks can show.
    pub shows: Shows,
}

/// What the marks of a file system show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shows {
    /// Every read-write mount, at once.
    Mounts,
    /// Writes, some time later.
    Writes,
    /// Nothing, as they are now.
    Nothing,
}

/// What happened to a file system between two readings of its marks. The later variants say more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// Nothing that it shows.
    None,
    /// It was written.
    Written,
    /// It was mounted read-write.
    Mounted,
}

impl MountMarks {
    /// Returns what happened since the marks were read before.
    pub fn since(&self, before: &Self) -> Change {
        let [[time, count], [time_before, count_before]] = [self.last_mount, before.last_mount];
        // A check of the file system resets the number.
        if time != time_before || count > count_before || self.is_in_use && !before.is_in_use {
            Change::Mounted
        } else if self.state != before.state {
            Change::Written
        } else {
            Change::None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marks(last_mount: [u64; 2], is_in_use: bool, state: u64) -> MountMarks {
        MountMarks { name: "ext4", last_mount, is_in_use, state, shows: Shows::Mounts }
    }

    #[test]
    fn changes_between_two_looks() {
        let before = marks([1000, 5], false, 1);
        for (after, change) in [
            (before, Change::None),
            // A later or an earlier time: a board without a clock starts with any.
            (marks([2000, 6], true, 2), Change::Mounted),
            (marks([500, 6], true, 2), Change::Mounted),
            // The time of the last boot again.
            (marks([1000, 6], true, 2), Change::Mounted),
            // Mounted and unmounted.
            (marks([1000, 6], false, 2), Change::Mounted),
            // Checked.
            (marks([1000, 0], false, 2), Change::Written),
        ] {
            assert_eq!(after.since(&before), change, "{after:?}");
        }
        // After a reset, only the number shows a mount.
        assert_eq!(marks([1000, 5], true, 2).since(&marks([1000, 5], true, 1)), Change::Written);
        assert_eq!(marks([1000, 6], true, 2).since(&marks([1000, 5], true, 1)), Change::Mounted);
    }
}
