//! A look at a disk: its file systems, mounted as its description says, as they are at one moment.

mod listing;

use std::{fmt::Write as _, sync::Arc};

use rtftp_core::{
    RequestPath,
    config::disk::{DiskConfig, MountSource},
};

pub(crate) use self::listing::Entry;
use super::{
    Cache, Error, File, FileSystem, Kind, Node, Source, Volume,
    partition::{Partition, partitions},
};
use crate::fs::{
    resolve,
    resolve::{Lookup, Missed, Root},
};

/// A disk with its file systems mounted. What it has read is not read again: it shows the disk as it was when it was looked at.
#[derive(Debug)]
pub struct View {
    disk: Arc<dyn Source>,
    mounts: Vec<Mounted>,
    root: Option<Root>,
}

/// A file system and where it is mounted.
#[derive(Debug)]
struct Mounted {
    /// The real path of the directory; empty for the top.
    mountpoint: Vec<u8>,
    /// How the description calls the partition.
    source: MountSource,
    filesystem: FileSystem,
}

/// Why a [`View`] has no file for a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoFile {
    /// It is not there.
    NotFound,
    /// It is there, but is not for clients.
    Forbidden(&'static str),
    /// The disk cannot tell.
    Failed(Error),
}

impl View {
    /// Looks at a disk.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] if something that is to be mounted is of another kind, [`Error::Corrupt`] also if a partition or a
    /// mountpoint is not there.
    pub async fn open(disk: Arc<dyn Source>, config: &DiskConfig) -> Result<Self, Error> {
        let whole = Volume::whole(&Cache::new(disk.clone()));
        let mut table = None;
        let mut view = Self { disk, mounts: vec![], root: None };
        for mount in &config.mounts {
            let volume = match place(&mount.source)? {
                None => whole.clone(),
                Some(number) => {
                    let table = match &table {
                        Some(table) => table,
                        None => table.insert(partitions(&whole).await?),
                    };
                    let Partition { start, len, .. } = find(table, number)?;
                    whole.part(start, len)
                }
            };
            let named = |error| at(&mount.source, error);
            let filesystem = FileSystem::open(volume).await.map_err(named)?;
            // The top has to be there first, and is always a directory.
            let mountpoint = if view.mounts.is_empty() {
                vec![]
            } else {
                let found = resolve::directory(&mut Walk::of(&view), &mount.mountpoint).await;
                found.map_err(|missed| missed.at(&format!("mountpoint {}", mount.mountpoint)))?
            };
            view.mounts.push(Mounted { mountpoint, source: mount.source.clone(), filesystem });
        }
        let root = Root::find(&mut Walk::of(&view), &config.tftp_root).await;
        view.root = Some(root.map_err(|missed| missed.at(&format!("tftp_root {}", config.tftp_root)))?);
        Ok(view)
    }

    /// Finds a file below the description's `tftp_root`.
    ///
    /// # Errors
    ///
    /// [`NoFile`].
    pub async fn file(&self, path: &RequestPath) -> Result<File, NoFile> {
        let root = self.root.as_ref().ok_or(NoFile::NotFound)?;
        let found = root.file(&mut Walk::of(self), path).await;
        let (_, (filesystem, node)) = found.map_err(|missed| match missed {
            Missed::NotFound => NoFile::NotFound,
            Missed::Forbidden(reason) => NoFile::Forbidden(reason),
            Missed::Failed(error) => NoFile::Failed(error),
        })?;
        filesystem.file(node).await.map_err(NoFile::Failed)
    }

    /// The disk itself, to read files from.
    pub fn disk(&self) -> &Arc<dyn Source> {
        &self.disk
    }

    /// What is mounted, for a message: `ext4 on partition 2, FAT32 on partition 1`.
    pub fn contents(&self) -> String {
        list(self.mounts.iter())
    }

    /// What of it has an owner that writes to it, or that never unmounted it; empty if that is nothing.
    pub fn in_use(&self) -> String {
        list(self.mounts.iter().filter(|mounted| mounted.filesystem.is_in_use()))
    }
}

fn list<'a>(mounts: impl Iterator<Item = &'a Mounted>) -> String {
    let mut text = String::new();
    for Mounted { source, filesystem, .. } in mounts {
        let separator = if text.is_empty() { "" } else { ", " };
        // Writing to a string cannot fail.
        let _ = write!(text, "{separator}{} on {}", filesystem.name(), name(source));
    }
    text
}

/// The partition that a mount is of; `None` for the whole disk. Some names of libguestfs are those of a partition.
fn place(source: &MountSource) -> Result<Option<u32>, Error> {
    match source {
        MountSource::Disk => Ok(None),
        MountSource::Partition(number) => Ok(Some(*number)),
        MountSource::Device(device) => match device.strip_prefix("/dev/sda").map(|number| (number, number.parse())) {
            Some(("", _)) => Ok(None),
            Some((_, Ok(number @ 1..))) => Ok(Some(number)),
            _ => Err(Error::Unsupported(format!("the device {device} is not one that is read natively"))),
        },
    }
}

fn find(table: &[Partition], number: u32) -> Result<Partition, Error> {
    let found = table.iter().find(|partition| partition.number == number).copied();
    found.ok_or_else(|| {
        let numbers: Vec<String> = table.iter().map(|partition| partition.number.to_string()).collect();
        let there = if numbers.is_empty() { "no partitions".into() } else { numbers.join(", ") };
        Error::Corrupt(format!("partition {number} is not there; the disk has {there}"))
    })
}

/// What a mount is of, for a message.
pub(crate) fn name(source: &MountSource) -> String {
    match source {
        MountSource::Disk => "the whole disk".into(),
        MountSource::Partition(number) => format!("partition {number}"),
        MountSource::Device(device) => device.as_str().into(),
    }
}

/// Says where an error is.
fn at(source: &MountSource, error: Error) -> Error {
    let say = |reason| format!("{}: {reason}", name(source));
    match error {
        Error::Io(reason) => Error::Io(say(reason)),
        Error::Corrupt(reason) => Error::Corrupt(say(reason)),
        Error::Unsupported(reason) => Error::Unsupported(say(reason)),
    }
}

impl Missed<Error> {
    /// Makes an error of a directory that is described and not there.
    fn at(self, what: &str) -> Error {
        match self {
            Self::Failed(error) => error,
            missed => Error::Corrupt(format!("{what}: {missed}")),
        }
    }
}

/// A walk along paths of a view, name by name.
struct Walk<'v> {
    mounts: &'v [Mounted],
    /// The directory that was come to last, and what it is.
    here: Option<(Vec<u8>, Place<'v>)>,
}

/// Something in one of the mounted file systems.
type Place<'v> = (&'v FileSystem, Node);

impl<'v> Walk<'v> {
    fn of(view: &'v View) -> Self {
        Self { mounts: &view.mounts, here: None }
    }

    /// What is mounted on a directory; the latest hides the earlier ones.
    fn mounted_on(&self, path: &[u8]) -> Option<Place<'v>> {
        let mounted = self.mounts.iter().rfind(|mounted| mounted.mountpoint == path)?;
        Some((&mounted.filesystem, mounted.filesystem.root()))
    }

    /// Finds what a path is, whose directories are real ones.
    async fn find(&mut self, path: &[u8]) -> Result<Option<Place<'v>>, Error> {
        // From the nearest directory above that is known: the last one, or what something is mounted on.
        let mut end = path.len();
        let mut place = loop {
            let above = &path[..end];
            match &self.here {
                Some((here, place)) if here == above => break *place,
                _ => {}
            }
            if let Some(place) = self.mounted_on(above) {
                break place;
            }
            match above.iter().rposition(|&byte| byte == b'/') {
                Some(slash) => end = slash,
                None => return Ok(None),
            }
        };
        while end < path.len() {
            let name = path[end + 1..].split(|&byte| byte == b'/').next().unwrap_or_default();
            let (filesystem, directory) = place;
            let Some(node) = filesystem.lookup(directory, name).await? else { return Ok(None) };
            end += 1 + name.len();
            place = self.mounted_on(&path[..end]).unwrap_or((filesystem, node));
        }
        if place.1.kind == Kind::Directory {
            self.here = Some((path.to_vec(), place));
        }
        Ok(Some(place))
    }
}

impl<'v> Lookup for Walk<'v> {
    type File = Place<'v>;
    type Error = Error;

    async fn lstat(&mut self, path: &[u8]) -> Result<Option<resolve::Node<Place<'v>>>, Error> {
        Ok(self.find(path).await?.map(|place| match place.1.kind {
            Kind::File => resolve::Node::File(place),
            Kind::Directory => resolve::Node::Directory,
            Kind::Link => resolve::Node::Link,
            Kind::Other => resolve::Node::Other,
        }))
    }

    async fn readlink(&mut self, path: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        match self.find(path).await? {
            Some((filesystem, link)) => filesystem.link(link).await.map(Some),
            None => Ok(None),
        }
    }
}
