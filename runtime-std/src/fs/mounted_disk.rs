//! The file systems of a disk, mounted as its description says.

mod listing;
mod whole;

use std::{
    collections::HashMap,
    fmt::Write as _,
    ops::Deref,
    sync::{Arc, Weak},
};

use rtftp_core::{
    RequestPath,
    config::disk::{DiskConfig, MountSource},
};
use smol::lock::Mutex;

pub(crate) use self::listing::MountedEntry;
use super::{
    BlockDevice, BoxedFileSystem, DiskWork, Error, FileMap, FileSystem, FileType, Node, Problem, Volume, driver,
    limits::{OPEN_WORK, PATH_WORK},
    partition::{Contents, Partition, SECTOR, describe_missing, partitions},
    resolve::{self, Namespace, ResolveError, Root},
    turns::Turns,
    work::metered,
};
use crate::memory::{DiskMemory, Reservation};

/// The maximum number of subvolumes that a message names.
const MAX_SUBVOLUMES_NAMED: usize = 16;

/// A disk whose file systems are mounted as its description says.
///
/// It caches what it has read and so shows the disk as it was when it was opened.
#[derive(Debug)]
pub struct MountedDisk {
    device: Arc<dyn BlockDevice>,
    mounts: Vec<Mount>,
    /// The `tftp_root` of the description.
    root: Root,
    memory: DiskMemory,
    work: DiskWork,
    /// The maps of open files. Locked while a file is mapped: all who open it at the same time share one map.
    maps: Mutex<HashMap<FileKey, Weak<SharedFileMap>>>,
}

/// The address of a mounted file system, and the node of a file in it.
type FileKey = (usize, u64);

/// The map of a file, shared by all who have opened the file in the same [`MountedDisk`].
#[derive(Debug)]
pub struct SharedFileMap {
    map: FileMap,
    _memory: Reservation,
}

impl Deref for SharedFileMap {
    type Target = FileMap;

    fn deref(&self) -> &FileMap {
        &self.map
    }
}

/// A mounted file system.
#[derive(Debug)]
struct Mount {
    /// The real path of the mountpoint; empty for the top directory.
    mountpoint: Vec<u8>,
    /// The partition, as the description names it.
    source: MountSource,
    /// The name of its driver.
    driver: &'static str,
    filesystem: BoxedFileSystem,
    /// The root directory of the file system, or of one of its subvolumes.
    root: Node,
}

impl MountedDisk {
    /// Opens and mounts the file systems of a disk, without a limit on memory.
    ///
    /// # Errors
    ///
    /// As [`open_within`](Self::open_within).
    pub async fn open(device: Arc<dyn BlockDevice>, config: &DiskConfig) -> Result<Self, Error> {
        Self::open_within(device, config, DiskMemory::unlimited(), &DiskWork::new(&Turns::default()), &[]).await
    }

    /// Opens and mounts the file systems of a disk. What is read from them uses this memory, and the time of this disk. `known` are
    /// the drivers of its file systems if a boot that uses the disk has opened it before.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] if one of them is not supported, [`Error::Corrupt`] also if a partition, a mountpoint or the
    /// `tftp_root` does not exist, [`Error::TooMuchWork`], [`Error::OutOfMemory`], [`Error::Io`].
    pub async fn open_within(
        device: Arc<dyn BlockDevice>,
        config: &DiskConfig,
        memory: DiskMemory,
        work: &DiskWork,
        known: &[&'static str],
    ) -> Result<Self, Error> {
        metered(work, OPEN_WORK, Self::mount(device, config, memory, work, known)).await
    }

    async fn mount(
        device: Arc<dyn BlockDevice>,
        config: &DiskConfig,
        memory: DiskMemory,
        work: &DiskWork,
        known: &[&'static str],
    ) -> Result<Self, Error> {
        let whole = Volume::with_memory(device.clone(), memory.clone());
        let mut table = None;
        let mut mounts = Vec::<Mount>::new();
        for mount in &config.mounts {
            let (number, subvolume) = parse_source(&mount.source)?;
            let subvolume = mount.subvolume.as_deref().or(subvolume);
            let (volume, contents, sector) = match number {
                None => (whole.clone(), Contents::Unknown, SECTOR),
                Some(number) => {
                    let table = match &table {
                        Some(table) => table,
                        None => table.insert(partitions(&whole).await?),
                    };
                    let Partition { start, len, contents, sector, .. } = match find_partition(table, number) {
                        Err(error) if table.is_empty() => {
                            let found = describe_missing(&whole).await?;
                            return Err(found.map_or(error, |found| missing(number, found)));
                        }
                        found => found?,
                    };
                    (whole.slice(start, len), contents, sector)
                }
            };
            let known = known.get(mounts.len()).copied();
            let opened = driver::open_known(driver::DRIVERS, volume, contents, known).await;
            let opened =
                opened.map_err(|error| if sector == SECTOR { error } else { not_for_libguestfs(error, sector) });
            let (driver, filesystem) = opened.map_err(|error| error.in_volume(&mount.source))?;
            let root = match subvolume {
                None => filesystem.root(),
                Some(path) => {
                    let found = metered(work, PATH_WORK, find_subvolume(&*filesystem, path)).await;
                    found.map_err(|error| error.in_volume(&mount.source))?
                }
            };
            // The first mountpoint is always `/`, which exists without a file system.
            let mountpoint = if mounts.is_empty() {
                vec![]
            } else {
                let mut walk = Walk::new(&mounts);
                let found = metered(work, PATH_WORK, resolve::directory(&mut walk, &mount.mountpoint)).await;
                found.map_err(|error| {
                    error.into_error(format!("mountpoint {}", mount.mountpoint), &config.mounts[..mounts.len()])
                })?
            };
            mounts.push(Mount { mountpoint, source: mount.source.clone(), driver, filesystem, root });
        }
        let root = metered(work, PATH_WORK, Root::find(&mut Walk::new(&mounts), &config.tftp_root)).await;
        let root = root.map_err(|error| error.into_error(format!("tftp_root {}", config.tftp_root), &config.mounts))?;
        Ok(Self { device, mounts, root, memory, work: work.clone(), maps: Mutex::default() })
    }

    /// Resolves a path below the `tftp_root` of the description and maps the file.
    ///
    /// # Errors
    ///
    /// [`ResolveError`].
    pub async fn find_file(&self, path: &RequestPath) -> Result<Arc<SharedFileMap>, ResolveError> {
        metered(&self.work, PATH_WORK, self.map_file(path)).await
    }

    async fn map_file(&self, path: &RequestPath) -> Result<Arc<SharedFileMap>, ResolveError> {
        let (_, (filesystem, node)) = self.root.file(&mut Walk::new(&self.mounts), path).await?;
        let mut maps = self.maps.lock().await;
        let key = (std::ptr::from_ref(filesystem).addr(), node.id);
        if let Some(map) = maps.get(&key).and_then(Weak::upgrade) {
            return Ok(map);
        }
        maps.retain(|_, map| map.strong_count() > 0);
        let mut map = filesystem.map(node).await?;
        map.extents.shrink_to_fit();
        map.compressed.shrink_to_fit();
        let memory = match self.memory.reserve(map.memory()) {
            // Better not verified than not served.
            Err(_) if map.checksums.take().is_some() => self.memory.reserve(map.memory()),
            reserved => reserved,
        };
        let memory = memory.map_err(Error::OutOfMemory)?;
        let map = Arc::new(SharedFileMap { map, _memory: memory });
        maps.insert(key, Arc::downgrade(&map));
        Ok(map)
    }

    /// Returns the disk, from which the contents of files are read.
    pub fn device(&self) -> &Arc<dyn BlockDevice> {
        &self.device
    }

    /// Returns the names of the drivers of the mounted file systems, in the order of the description.
    pub(crate) fn drivers(&self) -> Vec<&'static str> {
        self.mounts.iter().map(|mount| mount.driver).collect()
    }

    /// Describes the mounted file systems, for a message: `ext4 on partition 2, FAT32 on partition 1`.
    pub fn contents(&self) -> String {
        list(self.mounts.iter())
    }

    /// Describes the file systems that are mounted read-write elsewhere or were not unmounted cleanly; empty if there are none.
    pub fn in_use(&self) -> String {
        list(self.mounts.iter().filter(|mount| mount.filesystem.is_in_use()))
    }

    /// Returns what the administrator must know although the file systems are readable, one message each; empty in general.
    pub fn warnings(&self) -> Vec<String> {
        let warning = |mount: &Mount| Some(format!("{}: {}", mount.source, mount.filesystem.warning()?));
        self.mounts.iter().filter_map(warning).collect()
    }
}

/// Returns the root directory of a subvolume, which must exist.
async fn find_subvolume(filesystem: &dyn FileSystem, path: &str) -> Result<Node, Error> {
    if let Some(root) = filesystem.subvolume(path).await? {
        return Ok(root);
    }
    let known = filesystem.subvolumes().await?;
    let mut names = known.iter().map(|path| String::from_utf8_lossy(path).escape_debug().to_string());
    let mut text: Vec<String> = names.by_ref().take(MAX_SUBVOLUMES_NAMED).collect();
    match names.count() {
        0 => {}
        more => text.push(format!("{more} more")),
    }
    let found = if text.is_empty() { "no subvolumes".into() } else { text.join(", ") };
    let path = path.trim_matches('/');
    Err(Error::corrupt(format!("subvolume {path}"), format!("not found; the file system has {found}")))
}

fn list<'a>(mounts: impl Iterator<Item = &'a Mount>) -> String {
    let mut text = String::new();
    for Mount { source, filesystem, .. } in mounts {
        let separator = if text.is_empty() { "" } else { ", " };
        // Writing to a string cannot fail.
        let _ = write!(text, "{separator}{} on {source}", filesystem.name());
    }
    text
}

/// Returns the number of the partition to mount, `None` for the whole disk, and the path of a subvolume. Some device names of
/// libguestfs denote these: `/dev/sda2`, `btrfsvol:/dev/sda2/@`.
fn parse_source(source: &MountSource) -> Result<(Option<u32>, Option<&str>), Error> {
    let device = match source {
        MountSource::Disk => return Ok((None, None)),
        MountSource::Partition(number) => return Ok((Some(*number), None)),
        MountSource::Device(device) => device,
    };
    let parse = || {
        let (device, subvolume) = match device.strip_prefix("btrfsvol:/dev/") {
            Some(rest) => rest.split_once('/').map(|(device, subvolume)| (device, Some(subvolume)))?,
            None => (device.strip_prefix("/dev/")?, None),
        };
        let number = device.strip_prefix("sda")?;
        if number.is_empty() {
            return Some((None, subvolume));
        }
        number.parse().ok().filter(|number| *number > 0).map(|number| (Some(number), subvolume))
    };
    parse().ok_or_else(|| Error::Unsupported(Problem::new(format!("device {device} is not supported natively"))))
}

/// Converts an error for which libguestfs would be started in vain: its virtual machine has sectors of 512 bytes.
fn not_for_libguestfs(error: Error, sector: u64) -> Error {
    match error {
        Error::Unsupported(problem) => Error::Corrupt(Problem {
            what: format!(
                "{}, and libguestfs cannot read a partition table for sectors of {sector} bytes",
                problem.what
            )
            .into(),
            ..problem
        }),
        error => error,
    }
}

fn missing(number: u32, found: impl std::fmt::Display) -> Error {
    Error::corrupt(("partition", number), format!("not found; the disk has {found}"))
}

/// Finds the partition with this number.
fn find_partition(table: &[Partition], number: u32) -> Result<Partition, Error> {
    let found = table.iter().find(|partition| partition.number == number).copied();
    found.ok_or_else(|| {
        let numbers: Vec<String> = table.iter().map(|partition| partition.number.to_string()).collect();
        let present =
            if numbers.is_empty() { "no partitions".into() } else { format!("partitions {}", numbers.join(", ")) };
        missing(number, present)
    })
}

impl ResolveError {
    /// Converts to the error for a directory that the description names as `object`, and that was looked up in these mounts.
    fn into_error(self, object: String, mounts: &[rtftp_core::config::disk::Mount]) -> Error {
        match self {
            Self::FileSystem(error) => error,
            Self::NotFound => {
                let mounts = mounts.iter().map(|mount| format!("{} on {}", mount.source, mount.mountpoint));
                Error::corrupt(object, format!("not found in {}", mounts.collect::<Vec<_>>().join(", ")))
            }
            error => Error::corrupt(object, error.to_string()),
        }
    }
}

/// A lookup of paths, component by component.
struct Walk<'v> {
    mounts: &'v [Mount],
    /// The path and node of the directory that was looked up last.
    last: Option<(Vec<u8>, MountedNode<'v>)>,
}

/// A node of one of the mounted file systems.
type MountedNode<'v> = (&'v dyn FileSystem, Node);

impl<'v> Walk<'v> {
    fn new(mounts: &'v [Mount]) -> Self {
        Self { mounts, last: None }
    }

    /// Returns the root of the file system mounted on a directory; the latest mount hides earlier ones.
    fn mounted_on(&self, path: &[u8]) -> Option<MountedNode<'v>> {
        let mount = self.mounts.iter().rfind(|mount| mount.mountpoint == path)?;
        Some((&*mount.filesystem, mount.root))
    }

    /// Looks up a path whose directories are real ones.
    async fn find(&mut self, path: &[u8]) -> Result<Option<MountedNode<'v>>, Error> {
        // Start at the nearest known directory above: the last one that was looked up, or a mountpoint.
        let mut end = path.len();
        let mut found = loop {
            let above = &path[..end];
            match &self.last {
                Some((last, node)) if last == above => break *node,
                _ => {}
            }
            if let Some(root) = self.mounted_on(above) {
                break root;
            }
            match above.iter().rposition(|&byte| byte == b'/') {
                Some(slash) => end = slash,
                None => return Ok(None),
            }
        };
        while end < path.len() {
            let name = path[end + 1..].split(|&byte| byte == b'/').next().unwrap_or_default();
            let (filesystem, directory) = found;
            let Some(node) = filesystem.lookup(directory, name).await? else { return Ok(None) };
            end += 1 + name.len();
            found = self.mounted_on(&path[..end]).unwrap_or((filesystem, node));
        }
        if found.1.file_type == FileType::Directory {
            self.last = Some((path.to_vec(), found));
        }
        Ok(Some(found))
    }
}

impl<'v> Namespace for Walk<'v> {
    type Node = MountedNode<'v>;
    type Error = Error;

    async fn lstat(&mut self, path: &[u8]) -> Result<Option<(FileType, MountedNode<'v>)>, Error> {
        Ok(self.find(path).await?.map(|found| (found.1.file_type, found)))
    }

    async fn readlink(&mut self, path: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        match self.find(path).await? {
            Some((filesystem, link)) => filesystem.read_link(link).await.map(Some),
            None => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests;
