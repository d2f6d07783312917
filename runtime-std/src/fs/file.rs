//! A regular file: where its bytes are on the disk.

use super::{Error, Source};

/// A regular file as it was at one moment. Two that are equal are the same state of the same file, as far as can be told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct File {
    /// How long it is, in bytes.
    pub size: u64,
    /// What tells this state of the file from others: its file system, its inode and generation, its times.
    pub identity: Vec<u64>,
    /// Its first bytes if they are kept beside its inode, and on no block of their own.
    pub inline: Vec<u8>,
    /// Where its other bytes are, in order and without overlap. What none of them has is zeros.
    pub extents: Vec<Extent>,
}

/// A piece of a file that is in one piece on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Where it begins in the file, in bytes.
    pub start: u64,
    /// How long it is, in bytes; the last one may be longer than the file.
    pub len: u64,
    /// Where it is on the disk, in bytes from the start of the disk (not of the volume).
    pub place: u64,
    /// The bytes that the first four of it stand for, if they do not stand for themselves: a journal keeps zeros in their place.
    pub escaped: Option<[u8; 4]>,
}

impl File {
    /// Adds a piece at the end; it becomes one with the last if they are neighbours on the disk.
    pub(super) fn push(&mut self, next: Extent) {
        match self.extents.last_mut() {
            Some(last)
                if next.escaped.is_none()
                    && last.start + last.len == next.start
                    && last.place + last.len == next.place =>
            {
                last.len += next.len;
            }
            _ => self.extents.push(next),
        }
    }

    /// Reads up to `len` bytes from `offset` on, fewer only at the end of the file; all pieces are asked for at once.
    ///
    /// # Errors
    ///
    /// What reading from `disk` ends in.
    pub async fn read(&self, disk: &dyn Source, offset: u64, len: usize) -> Result<Vec<u8>, Error> {
        self.read_into(vec![], disk, offset, len).await
    }

    /// Reads as [`read`](Self::read) does, into memory that nobody uses any more if it can.
    ///
    /// # Errors
    ///
    /// What reading from `disk` ends in.
    pub async fn read_into(
        &self,
        spare: Vec<u8>,
        disk: &dyn Source,
        offset: u64,
        len: usize,
    ) -> Result<Vec<u8>, Error> {
        let len = len.min(usize::try_from(self.size.saturating_sub(offset)).unwrap_or(usize::MAX));
        let end = offset + len as u64;
        let first = self.extents.partition_point(|extent| extent.start + extent.len <= offset);
        if let Some(extent) = self.extents.get(first)
            && self.inline.is_empty()
            && extent.escaped.is_none()
            && extent.start <= offset
            && end <= extent.start + extent.len
        {
            // Nothing to put together, as nearly always.
            return disk.read_into(spare, extent.place + (offset - extent.start), len).await;
        }
        let mut bytes = spare;
        bytes.clear();
        bytes.resize(len, 0);
        if let Some(inline) = usize::try_from(offset).ok().and_then(|offset| self.inline.get(offset..)) {
            let inline = inline.get(..len).unwrap_or(inline);
            bytes[..inline.len()].copy_from_slice(inline);
        }
        let pieces = self.extents[first..].iter().take_while(|extent| extent.start < end);
        let readings: Vec<_> = pieces
            .map(|extent| {
                let from = extent.start.max(offset);
                let to = (extent.start + extent.len).min(end);
                (extent, from, disk.read(extent.place + (from - extent.start), (to - from) as usize))
            })
            .collect();
        for (extent, from, reading) in readings {
            let mut piece = reading.await?;
            if let Some(escaped) = extent.escaped {
                let before = (from - extent.start) as usize;
                for (byte, real) in piece.iter_mut().zip(escaped.iter().skip(before)) {
                    *byte = *real;
                }
            }
            let at = (from - offset) as usize;
            let room = bytes.get_mut(at..at + piece.len());
            room.ok_or_else(|| Error::Io("the disk gave more than was asked for".into()))?.copy_from_slice(&piece);
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use smol::block_on;

    use super::*;

    #[test]
    fn pieces_holes_and_escapes_come_together() {
        let disk: Vec<u8> = (0..=255).collect();
        let mut file = File { size: 50, ..File::default() };
        let extent = |start, len, place| Extent { start, len, place, escaped: None };
        file.push(extent(0, 4, 100));
        file.push(extent(4, 4, 104));
        file.push(extent(16, 8, 0));
        file.push(Extent { escaped: Some(*b"abcd"), ..extent(24, 8, 8) });
        file.push(extent(40, 16, 200));
        assert_eq!(file.extents.len(), 4, "neighbours are one");
        let mut whole = [0; 50];
        whole[..8].copy_from_slice(&disk[100..108]);
        whole[16..32].copy_from_slice(&disk[..16]);
        whole[24..28].copy_from_slice(b"abcd");
        whole[40..].copy_from_slice(&disk[200..210]);
        for offset in 0..=52 {
            for len in 0..=52 {
                let expected = &whole[offset.min(50)..(offset + len).min(50)];
                assert_eq!(block_on(file.read(&disk, offset as u64, len)).as_deref(), Ok(expected), "{offset}+{len}");
                let again = block_on(file.read_into(vec![0xaa; 20], &disk, offset as u64, len));
                assert_eq!(again.as_deref(), Ok(expected), "{offset}+{len} into used memory");
            }
        }
    }

    #[test]
    fn bytes_beside_the_inode_come_first() {
        let file = File { size: 6, inline: b"inline".to_vec(), ..File::default() };
        assert_eq!(block_on(file.read(&vec![], 2, 100)).as_deref(), Ok(&b"line"[..]));
        let longer = File { size: 8, ..file };
        assert_eq!(block_on(longer.read(&vec![], 0, 100)).as_deref(), Ok(&b"inline\0\0"[..]));
    }

    #[test]
    fn what_the_disk_does_not_give_is_an_error() {
        let mut file = File { size: 10, ..File::default() };
        file.push(Extent { start: 0, len: 10, place: 95, escaped: None });
        assert!(matches!(block_on(file.read(&vec![0; 100], 0, 10)), Err(Error::Io(_))));
    }
}
