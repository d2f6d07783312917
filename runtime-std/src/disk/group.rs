//! The disks of the boards that share an `.nbd` file.

use std::{collections::HashMap, sync::Arc, time::Instant};

use parking_lot::Mutex;
use rtftp_core::config::disk::{Board, DiskConfig, Placeholder, Placeholders, Problem};

use super::{
    DiskError,
    board_disk::BoardDisk,
    connector::{Backend, Connector},
    description::{Description, NbdFile},
    error_log::DiskState,
    handle::Disk,
};
use crate::clock;

/// The number of boards whose disks are kept. When it is reached, those not used for the longest time are dropped: forged addresses
/// must not occupy the memory.
const MAX_DISKS: usize = 12_288;

/// Disks by their URLs, and the times of their last uses.
type BoardDisks = HashMap<String, (Disk, Instant)>;

/// A description for many boards. Boards whose `url` is the same share a disk, which is created at the first request.
#[derive(Debug)]
pub(crate) struct Group {
    file: NbdFile,
    json: Arc<[u8]>,
    /// The placeholders of the URL.
    placeholders: Placeholders,
    /// The placeholders of what differs from the boot entries.
    boot_placeholders: Placeholders,
    disks: Mutex<BoardDisks>,
}

impl Group {
    /// Creates the group of a file with this description, which was parsed for any board.
    pub(super) fn new(file: NbdFile, json: Arc<[u8]>, config: &DiskConfig) -> Self {
        let (placeholders, boot_placeholders) = (config.placeholders.clone(), config.boot.placeholders.clone());
        Self { file, json, placeholders, boot_placeholders, disks: Mutex::default() }
    }

    /// Returns whether the description of a board depends on this value of the board.
    pub(crate) fn uses(&self, placeholder: Placeholder) -> bool {
        self.placeholders.contains(&placeholder) || self.boot_placeholders.contains(&placeholder)
    }

    /// Returns the disk of a board.
    pub(super) fn disk(&self, board: &Board<'_>, backend: &Arc<Backend>) -> Result<BoardDisk, DiskError> {
        let description = Description::of_board(self.json.clone(), board);
        let config = description.config().map_err(|error| match error.problem {
            Problem::NoValue(placeholder) => DiskError::NoValue(placeholder),
            _ => DiskError::InvalidDescription(error.to_string()),
        })?;
        let url = config.url.to_string();
        let mut disks = self.disks.lock();
        if let Some((disk, last_used)) = disks.get_mut(&url) {
            *last_used = clock::instant();
            return Ok(BoardDisk::new(disk.clone(), &config));
        }
        if disks.len() >= MAX_DISKS {
            drop_half(&mut disks);
        }
        let disk = Disk::new(Connector::new(self.name(board), description, backend.clone()));
        disks.insert(url, (disk.clone(), clock::instant()));
        Ok(BoardDisk::new(disk, &config))
    }

    /// Calls a function with the state of each disk.
    pub(super) fn states(&self, call: impl FnMut(DiskState)) {
        self.disks.lock().values().map(|(disk, _)| disk.log().state()).for_each(call);
    }

    /// Returns the name of a board's disk for the log: the file and the values of the board.
    fn name(&self, board: &Board<'_>) -> String {
        let values = self.placeholders.iter().filter_map(|placeholder| Some(board.value(*placeholder)?.to_string()));
        let values: Vec<String> = values.collect();
        if values.is_empty() { self.file.to_string() } else { format!("{} ({})", self.file, values.join(", ")) }
    }
}

/// Drops the half that was not used for the longest time.
fn drop_half(disks: &mut BoardDisks) {
    let mut times: Vec<Instant> = disks.values().map(|(_, last_used)| *last_used).collect();
    let middle = times.len() / 2;
    let median = *times.select_nth_unstable(middle).1;
    disks.retain(|_, (_, last_used)| *last_used > median);
}
