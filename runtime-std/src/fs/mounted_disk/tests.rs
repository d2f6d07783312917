use std::sync::atomic::{AtomicUsize, Ordering};

use smol::block_on;

use super::*;
use crate::fs::{DirectoryEntry, FsFuture};

/// A file system in memory: the paths and types of its nodes. The first one is the root directory.
#[derive(Debug)]
struct Memory {
    nodes: &'static [(&'static str, FileType)],
    lookups: Arc<AtomicUsize>,
}

impl Memory {
    fn find(&self, path: &str) -> Option<Node> {
        let id = self.nodes.iter().position(|(node, _)| *node == path)?;
        Some(Node { id: id as u64, file_type: self.nodes[id].1 })
    }

    fn path(&self, node: Node) -> &'static str {
        self.nodes[node.id as usize].0
    }
}

impl FileSystem for Memory {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn is_in_use(&self) -> bool {
        self.nodes.len() > 3
    }

    fn root(&self) -> Node {
        Node { id: 0, file_type: FileType::Directory }
    }

    fn lookup<'a>(&'a self, directory: Node, name: &'a [u8]) -> FsFuture<'a, Option<Node>> {
        self.lookups.fetch_add(1, Ordering::Relaxed);
        let path = format!("{}/{}", self.path(directory), str::from_utf8(name).expect("UTF-8"));
        Box::pin(async move { Ok(self.find(&path)) })
    }

    fn read_directory(&self, directory: Node) -> FsFuture<'_, Vec<DirectoryEntry>> {
        let prefix = format!("{}/", self.path(directory));
        let entries = self.nodes.iter().filter_map(|(path, _)| {
            let name = path.strip_prefix(&prefix).filter(|name| !name.contains('/'))?;
            Some(DirectoryEntry { name: name.into(), node: self.find(path)? })
        });
        let entries = entries.collect();
        Box::pin(async { Ok(entries) })
    }

    fn read_link(&self, _: Node) -> FsFuture<'_, Vec<u8>> {
        Box::pin(async { Ok(b"/boot/kernel".to_vec()) })
    }

    fn map(&self, file: Node) -> FsFuture<'_, FileMap> {
        let size = self.path(file).len() as u64;
        Box::pin(async move { Ok(FileMap { size, ..FileMap::default() }) })
    }
}

const ROOT: &[(&str, FileType)] = &[
    ("", FileType::Directory),
    ("/boot", FileType::Directory),
    ("/boot/hidden", FileType::File),
    ("/link", FileType::Link),
];
const BOOT: &[(&str, FileType)] = &[("", FileType::Directory), ("/kernel", FileType::File)];

/// Returns a disk with `BOOT` mounted on `/boot` of `ROOT`, and the number of lookups.
fn disk() -> (MountedDisk, Arc<AtomicUsize>) {
    let lookups = Arc::new(AtomicUsize::new(0));
    let mount = |mountpoint: &str, source, nodes| {
        let filesystem = Memory { nodes, lookups: lookups.clone() };
        let (root, driver) = (filesystem.root(), "memory");
        Mount { mountpoint: mountpoint.into(), source, driver, root, filesystem: Box::new(filesystem) }
    };
    let mounts = vec![mount("", MountSource::Partition(2), ROOT), mount("/boot", MountSource::Disk, BOOT)];
    let root = block_on(Root::find(&mut Walk::new(&mounts), "/")).expect("a root");
    let (memory, maps) = (DiskMemory::unlimited(), Mutex::default());
    (
        MountedDisk { device: Arc::new(vec![]), mounts, root, memory, work: DiskWork::new(&Turns::default()), maps },
        lookups,
    )
}

fn size(disk: &MountedDisk, path: &str) -> Result<u64, ResolveError> {
    let path = RequestPath::parse(path.as_bytes()).expect("a path");
    block_on(disk.find_file(&path)).map(|file| file.size)
}

#[test]
fn mounted_file_system_hides_its_mountpoint() {
    let (disk, _) = disk();
    assert_eq!(size(&disk, "boot/kernel"), Ok("/kernel".len() as u64));
    assert_eq!(size(&disk, "link"), size(&disk, "boot/kernel"), "a link into the other file system");
    assert_eq!(size(&disk, "boot/hidden"), Err(ResolveError::NotFound));
    assert_eq!(size(&disk, "boot"), Err(ResolveError::NotRegularFile));

    let root = block_on(disk.root_directory()).expect("the root directory");
    let entries = block_on(disk.read_directory(&root)).expect("its entries");
    assert_eq!(entries.iter().map(MountedEntry::name).collect::<Vec<_>>(), [&b"boot"[..], b"link"]);
    let boot = block_on(disk.read_directory(&entries[0])).expect("its entries");
    assert_eq!(boot.iter().map(MountedEntry::name).collect::<Vec<_>>(), [&b"kernel"[..]]);
}

#[test]
fn lookup_continues_at_the_last_directory() {
    let (disk, lookups) = disk();
    let mut walk = Walk::new(&disk.mounts);
    lookups.store(0, Ordering::Relaxed);
    for path in [&b"/boot"[..], b"/boot/kernel", b"/boot/missing"] {
        block_on(walk.find(path)).expect("a lookup");
    }
    assert_eq!(lookups.load(Ordering::Relaxed), 2);
}

#[test]
fn file_systems_are_described() {
    let (disk, _) = disk();
    assert_eq!(disk.contents(), "memory on partition 2, memory on the whole disk");
    assert_eq!(disk.in_use(), "memory on partition 2");
}

#[test]
fn device_names_denote_partitions_and_subvolumes() {
    let device = |name: &str| MountSource::Device(name.try_into().expect("a short name"));
    for (source, expected) in [
        (MountSource::Disk, (None, None)),
        (MountSource::Partition(3), (Some(3), None)),
        (device("/dev/sda"), (None, None)),
        (device("/dev/sda7"), (Some(7), None)),
        (device("btrfsvol:/dev/sda2/@/.snapshots/1/snapshot"), (Some(2), Some("@/.snapshots/1/snapshot"))),
        (device("btrfsvol:/dev/sda/@"), (None, Some("@"))),
    ] {
        assert_eq!(parse_source(&source), Ok(expected), "{source}");
    }
    for name in ["/dev/sda0", "/dev/sdb1", "/dev/vg/root", "btrfsvol:/dev/sda2", "btrfsvol:/dev/vg/root/@"] {
        assert!(matches!(parse_source(&device(name)), Err(Error::Unsupported(_))), "{name}");
    }
}

#[test]
fn missing_partition_lists_those_that_exist() {
    let table =
        [1, 15].map(|number| Partition { number, start: 0, len: 512, contents: Contents::Unknown, sector: SECTOR });
    let error = |table: &[Partition]| find_partition(table, 2).expect_err("it is missing").to_string();
    assert_eq!(error(&table), "partition 2: not found; the disk has partitions 1, 15");
    assert_eq!(error(&[]), "partition 2: not found; the disk has no partitions");
}
