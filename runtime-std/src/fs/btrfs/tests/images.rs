//! The images of `fuzz/images`, compared with what Linux reads from them.

use std::{collections::BTreeMap, sync::Arc};

use rtftp_core::config::disk::DiskConfig;
use smol::block_on;

use super::Btrfs;
use crate::fs::{
    Error, FileSystem, MountedDisk, Volume,
    testing::{
        sparse_image,
        tree::{self, Content},
    },
};

const CLEAN: &[u8] = include_bytes!("../../../../../fuzz/images/btrfs");
const LOG: &[u8] = include_bytes!("../../../../../fuzz/images/btrfs-log");
const MIRROR: &[u8] = include_bytes!("../../../../../fuzz/images/btrfs-raid1");
/// What Linux reads from the default subvolume of the first two: the type, the length, the CRC-32C and the path of each name.
const CLEAN_TRUTH: &str = include_str!("truth/btrfs.txt");
const LOG_TRUTH: &str = include_str!("truth/btrfs-log.txt");

fn disk(image: &[u8]) -> Vec<u8> {
    sparse_image::expand_to(image, if image == MIRROR { 128 << 20 } else { 32 << 20 })
}

fn open(disk: &[u8]) -> (Arc<Vec<u8>>, Btrfs) {
    let disk = Arc::new(disk.to_vec());
    let filesystem = block_on(Btrfs::open(Volume::new(disk.clone()))).expect("a readable file system").expect("btrfs");
    (disk, filesystem)
}

/// Lists the default subvolume in the form of the truth.
fn list(disk: &[u8]) -> BTreeMap<String, String> {
    let (disk, filesystem) = open(disk);
    let line = |content: &Content| {
        let (kind, bytes) = match content {
            Content::File { bytes, .. } => ("f", &bytes[..]),
            Content::Link(target) => ("l", &target[..]),
            _ => ("d", &[][..]),
        };
        format!("{kind} {} {:08x}", bytes.len(), crc32c::crc32c(bytes))
    };
    let found = tree::read_all(&filesystem, disk.as_ref());
    found.iter().map(|(path, content)| (String::from_utf8_lossy(path).into_owned(), line(content))).collect()
}

fn truth(text: &str) -> BTreeMap<String, String> {
    let lines = text.lines().filter_map(|line| line.rsplit_once(' '));
    lines.map(|(content, path)| (path.to_owned(), content.to_owned())).collect()
}

#[test]
fn reads_what_linux_reads_with_and_without_a_log_tree() {
    for (image, expected, in_use) in [(CLEAN, CLEAN_TRUTH, false), (LOG, LOG_TRUTH, true)] {
        let disk = disk(image);
        assert_eq!(open(&disk).1.is_in_use(), in_use);
        let (found, expected) = (list(&disk), truth(expected));
        for (path, content) in &expected {
            assert_eq!(found.get(path), Some(content), "{path}");
        }
        assert_eq!(found.len(), expected.len());
    }
    assert_ne!(truth(CLEAN_TRUTH), truth(LOG_TRUTH));
}

/// Reads a file whose first byte on the disk is changed.
fn read_damaged(image: &[u8], path: &str) -> Result<(), Error> {
    let mut bytes = disk(image);
    let map = {
        let (_, filesystem) = open(&bytes);
        block_on(filesystem.map(tree::resolve(&filesystem, path))).expect("a readable file")
    };
    let on_disk = map.extents.iter().map(|extent| extent.disk_offset);
    let at = on_disk.chain(map.compressed.iter().map(|extent| extent.disk_offset)).next().expect("an extent");
    bytes[at as usize] ^= 1;
    let (disk, filesystem) = open(&bytes);
    let map = block_on(filesystem.map(tree::resolve(&filesystem, path))).expect("a readable file");
    block_on(map.read(disk.as_ref(), 0, map.size as usize)).map(|_| ())
}

#[test]
fn damaged_contents_are_errors_unless_they_have_no_checksums() {
    for (image, path) in [
        (CLEAN, "boot/vmlinuz-6.1"),
        (CLEAN, "boot/sparse"),
        (CLEAN, "boot/prealloc"),
        (CLEAN, "boot/zlib"),
        (CLEAN, "boot/lzo"),
        (CLEAN, "boot/zstd"),
        (MIRROR, "boot/vmlinuz"),
        // The checksums are only in the log.
        (LOG, "boot/vmlinuz-6.2"),
    ] {
        let error = read_damaged(image, path).expect_err(path).to_string();
        assert_eq!(error, "file: checksum mismatch: damaged, or being written", "{path}");
    }
    assert_eq!(read_damaged(CLEAN, "boot/nosum"), Ok(()));
}

#[test]
fn one_device_of_a_mirror_suffices() {
    let (disk, filesystem) = open(&disk(MIRROR));
    assert!(filesystem.warning().is_some_and(|text| text.starts_with("btrfs on 2 devices")));
    let found = tree::read_all(&filesystem, disk.as_ref());
    assert_eq!(found[&b"/boot/small"[..]], tree::file_with(b"hi\n"));
    assert!(matches!(found[&b"/boot/vmlinuz"[..]], Content::File { size: 32768, .. }));
}

#[test]
fn subvolumes_are_found_and_listed_by_their_paths() {
    let (_, filesystem) = open(&disk(CLEAN));
    let expected = ["@", "@/nested", "snapshot"].map(|path| path.as_bytes().to_vec());
    assert_eq!(block_on(filesystem.subvolumes()).as_deref(), Ok(&expected[..]));
    for (path, name) in [("@", "boot"), ("/@/", "boot"), ("@/nested", "file"), ("snapshot", "boot"), ("/", "snapshot")]
    {
        let root = block_on(filesystem.subvolume(path)).expect("a readable file system").expect(path);
        assert!(block_on(filesystem.lookup(root, name.as_bytes())).expect("a readable directory").is_some(), "{path}");
    }
    for path in ["@home", "@/boot", "boot", "@/boot/vmlinuz-6.1"] {
        assert_eq!(block_on(filesystem.subvolume(path)), Ok(None), "{path}");
    }
}

#[test]
fn description_selects_a_subvolume_or_hears_which_there_are() {
    let mount = |mount: &str| {
        let json = format!(r#"{{"url": "nbd://h/", "mounts": [{{{mount}, "mountpoint": "/"}}]}}"#);
        let config = DiskConfig::parse(json.as_bytes()).expect("a description");
        block_on(MountedDisk::open(Arc::new(disk(CLEAN)), &config)).map(|disk| disk.contents())
    };
    assert_eq!(mount(r#""subvol": "@/nested""#).as_deref(), Ok("btrfs on the whole disk"));
    let device = r#""device": "/dev/sda", "subvol": "/@/nested""#;
    assert_eq!(mount(device).as_deref(), Ok("btrfs on /dev/sda"));
    let error = mount(r#""subvol": "@home""#).expect_err("no such subvolume").to_string();
    assert!(error.ends_with("subvolume @home: not found; the file system has @, @/nested, snapshot"), "{error}");
}
