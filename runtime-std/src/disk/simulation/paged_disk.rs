//! A disk of which most is shared with its other states.

use std::{ops::Range, sync::Arc};

use super::power_cut::Operation;

/// The size of a page in bytes.
const PAGE: usize = 16 << 10;

/// The contents of a disk. A clone shares all pages until they are written.
#[derive(Debug, Clone)]
pub(super) struct PagedDisk {
    pages: Vec<Arc<[u8]>>,
    len: usize,
}

impl PagedDisk {
    pub(super) fn new(bytes: &[u8]) -> Self {
        Self { pages: bytes.chunks(PAGE).map(Arc::from).collect(), len: bytes.len() }
    }

    /// Returns the size in bytes.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Appends a range to `bytes`. Returns `false` if it is not on the disk.
    pub(super) fn read(&self, mut offset: usize, mut len: usize, bytes: &mut Vec<u8>) -> bool {
        while len > 0 {
            let Some(page) = self.pages.get(offset / PAGE).and_then(|page| page.get(offset % PAGE..)) else {
                return false;
            };
            let part = &page[..len.min(page.len())];
            bytes.extend_from_slice(part);
            (offset, len) = (offset + part.len(), len - part.len());
        }
        true
    }

    /// Changes the disk as an operation did.
    pub(super) fn apply(&mut self, operation: &Operation) {
        if let Operation::Write { bytes, .. } = operation {
            self.apply_part(operation, 0..bytes.len());
        }
    }

    /// Changes the disk as a part of a write did.
    pub(super) fn apply_part(&mut self, operation: &Operation, part: Range<usize>) {
        let Operation::Write { offset, bytes, .. } = operation else { return };
        let (mut at, mut rest) = (*offset as usize + part.start, &bytes[part]);
        while !rest.is_empty() {
            let page = Arc::make_mut(&mut self.pages[at / PAGE]);
            let page = &mut page[at % PAGE..];
            let (part, after) = rest.split_at(rest.len().min(page.len()));
            page[..part.len()].copy_from_slice(part);
            (at, rest) = (at + part.len(), after);
        }
    }
}
