//! File systems whose newest changes are only in the log.

use std::{collections::BTreeMap, sync::Arc};

use smol::block_on;

use super::{
    image::Image,
    log_builder::{BUD, BUI, DirtyImage},
    tree,
};
use crate::fs::{
    Error, FileSystem, FileType, Volume,
    testing::mutations,
    xfs::{DRIVER, Xfs, log::Log, superblock::Superblock},
};

/// The images of `fuzz/images`: the directory of an installed system is replaced, then the power fails. In the second one, the log
/// continues at its start.
pub(super) const IMAGES: [(&str, &[u8], &str); 2] = [
    ("xfs-log", include_bytes!("../../../../../fuzz/images/xfs-log"), include_str!("truth/xfs-log.txt")),
    (
        "xfs-log-wrapped",
        include_bytes!("../../../../../fuzz/images/xfs-log-wrapped"),
        include_str!("truth/xfs-log-wrapped.txt"),
    ),
];

/// The number of mutated disks of each image.
const MUTATIONS: u64 = 150;

/// The type, the length and the CRC-32C of everything, by path.
type Listing = BTreeMap<String, String>;

fn open(disk: &Arc<Vec<u8>>) -> Result<Xfs, Error> {
    block_on(Xfs::open(Volume::new(disk.clone()))).map(|filesystem| filesystem.expect("XFS"))
}

/// Returns the error of opening a file system.
fn error_of(bytes: &[u8]) -> Error {
    open(&Arc::new(bytes.to_vec())).map(|_| ()).expect_err("it cannot be opened")
}

/// Opens a file system as it is without the changes in its log.
fn open_without_log(disk: &Arc<Vec<u8>>) -> Xfs {
    let volume = Volume::new(disk.clone());
    let superblock = block_on(Superblock::read(&volume)).expect("a superblock").expect("XFS");
    let empty = Log::empty(&volume).expect("memory is unlimited");
    block_on(Xfs::with_log(volume, superblock, empty)).expect("the same superblock")
}

/// Lists a file system. What cannot be read has an error in place of its contents.
fn list(filesystem: &Xfs, disk: &Arc<Vec<u8>>) -> Listing {
    let mut listing = Listing::new();
    let mut pending = vec![(filesystem.root(), String::new())];
    while let Some((directory, path)) = pending.pop() {
        let entries = match block_on(filesystem.read_directory(directory)) {
            Ok(entries) => entries,
            Err(error) => {
                listing.insert(path, error.to_string());
                continue;
            }
        };
        for entry in entries {
            let path = format!("{path}/{}", String::from_utf8_lossy(&entry.name));
            let read = match entry.node.file_type {
                FileType::Directory => {
                    pending.push((entry.node, path.clone()));
                    Ok(("d", vec![]))
                }
                FileType::Link => block_on(filesystem.read_link(entry.node)).map(|target| ("l", target)),
                _ => block_on(async {
                    let file = filesystem.map(entry.node).await?;
                    Ok(("f", file.read(disk.as_ref(), 0, file.size as usize).await?.into_vec()))
                }),
            };
            let text = read.map_or_else(
                |error| error.to_string(),
                |(kind, bytes)| format!("{kind} {} {:08x}", bytes.len(), crc32c::crc32c(&bytes)),
            );
            listing.insert(path, text);
        }
    }
    listing
}

/// Parses the list that Linux has made after it has replayed the log.
fn truth(text: &str) -> Listing {
    let lines = text.lines().map(|line| line.rsplit_once(' ').expect("a path"));
    lines.map(|(value, path)| (path.to_owned(), value.to_owned())).collect()
}

#[test]
fn reads_disk_after_power_cut_as_linux_does() {
    for (name, image, expected) in IMAGES {
        let disk = Arc::new(DirtyImage::new(image).bytes);
        let filesystem = open(&disk).expect("a readable file system");
        assert!(filesystem.is_in_use());
        let found = list(&filesystem, &disk);
        let expected = truth(expected);
        for (path, value) in &expected {
            assert_eq!(found.get(path), Some(value), "{name}: {path}");
            assert!(tree::resolve(&filesystem, path).id > 0, "{name}: {path}");
        }
        assert_eq!(found.len(), expected.len(), "{name}");
        // The comparison detects a reader that ignores the log.
        let stale = list(&open_without_log(&disk), &disk);
        let wrong = expected.iter().filter(|(path, value)| stale.get(*path) != Some(*value)).count();
        assert!(wrong > 100, "{name}: {wrong} names differ without the log");
    }
}

#[test]
fn incomplete_record_at_the_end_is_ignored() {
    for (name, image, expected) in IMAGES {
        let mut dirty = DirtyImage::new(image);
        let record = *dirty.records().last().expect("a record");
        dirty.bytes[record.data + 5] ^= 1;
        let disk = Arc::new(dirty.bytes);
        let found = list(&open(&disk).expect("a readable file system"), &disk);
        assert!(found.values().all(|value| "dfl".contains(&value[..1])), "{name}: everything is readable");
        assert_ne!(found, truth(expected), "{name}: the record contains the newest change");
    }
}

#[test]
fn damaged_record_before_others_is_an_error() {
    for (name, image, _) in IMAGES {
        let mut dirty = DirtyImage::new(image);
        let record = dirty.records()[3];
        dirty.bytes[record.data + 5] ^= 1;
        let error = error_of(&dirty.bytes);
        assert!(matches!(&error, Error::Corrupt(text) if text.to_string().starts_with("log: ")), "{name}: {error}");
    }
}

#[test]
fn unfinished_change_of_a_map_is_not_supported() {
    let format = |item_type: u16| [&item_type.to_le_bytes()[..], &[1, 0, 0, 0, 0, 0], &77u64.to_le_bytes()].concat();
    let mut dirty = DirtyImage::new(IMAGES[0].1);
    dirty.append(&[&format(BUI)]);
    let error = error_of(&dirty.bytes);
    assert!(matches!(&error, Error::Unsupported(text) if text.to_string().contains("(BUI)")), "{error}");
    dirty.append(&[&format(BUD)]);
    let disk = Arc::new(dirty.bytes.clone());
    assert_eq!(list(&open(&disk).expect("it is finished"), &disk), truth(IMAGES[0].2));
    dirty.append(&[&format(0x12ff)]);
    let error = error_of(&dirty.bytes);
    assert!(matches!(&error, Error::Unsupported(text) if text.to_string().contains("unknown type 0x12ff")), "{error}");
}

#[test]
fn freed_buffer_is_not_replayed() {
    let mut dirty = DirtyImage::new(IMAGES[0].1);
    // A block in the middle of the disk, without a known structure.
    let (offset, contents) = (16 << 20, [7; 128]);
    let format = |flags: u16| {
        let mut format = [&0x123cu16.to_le_bytes()[..], &[2, 0], &flags.to_le_bytes(), &[8, 0]].concat();
        format.extend((offset / 512u64).to_le_bytes());
        format.extend([1, 0, 0, 0, 1, 0, 0, 0]);
        format
    };
    let read = |dirty: &DirtyImage| {
        let filesystem = open(&Arc::new(dirty.bytes.clone())).expect("a readable file system");
        block_on(filesystem.blocks.read(offset, 128)).expect("on the disk").bytes
    };
    let before = read(&dirty);
    dirty.append(&[&format(0), &contents]);
    assert_eq!(read(&dirty), contents);
    // A cancelled buffer has no contents, only its format.
    let mut cancelled = format(1 << 1);
    cancelled[2] = 1;
    dirty.append(&[&cancelled]);
    assert_eq!(read(&dirty), before, "the buffer was freed");
    dirty.append(&[&format(0), &[8; 128]]);
    assert_eq!(read(&dirty), [8; 128], "the buffer was used again");
}

#[test]
fn buffer_of_an_impossible_size_is_an_error() {
    let mut dirty = DirtyImage::new(IMAGES[0].1);
    // Many of these, freed again and again, would take hours.
    dirty.append(&[&[&0x123cu16.to_le_bytes()[..], &[1, 0, 2, 0, 129, 0], &[0; 12]].concat()]);
    let error = error_of(&dirty.bytes);
    assert!(matches!(&error, Error::Corrupt(text) if text.to_string().contains("64 KiB")), "{error}");
}

#[test]
fn structure_newer_than_the_log_is_an_error() {
    let root = tempfile::tempdir().expect("a temporary directory");
    tree::create_boot_disk(root.path());
    let image = Image::new("", root.path());
    let number = tree::resolve(&image.open(), "boot/vmlinuz-6.1").id;
    image.xfs_db(&[&format!("inode {number}"), "write -d v3.lsn 0x700000001"]);
    let filesystem = image.open();
    let error = block_on(filesystem.map(tree::resolve(&filesystem, "boot/vmlinuz-6.1"))).expect_err("too new");
    assert!(matches!(&error, Error::Corrupt(text) if text.to_string().contains("is being written")), "{error}");
}

#[test]
fn reads_mutated_logs_within_limits() {
    for (name, image, expected) in IMAGES {
        let dirty = DirtyImage::new(image);
        let readable = truth(expected).values().filter(|value| !value.starts_with('d')).count();
        let disk = dirty.bytes.clone();
        mutations::check_repaired(&DRIVER, name, disk, MUTATIONS, readable, |_, changed| dirty.with_checksums(changed));
    }
}
