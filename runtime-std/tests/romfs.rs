//! A driver for romfs, written against the public interface only: what a further file system needs.
//!
//! The format is described in Documentation/filesystems/romfs.rst of Linux; romfs.img was made by `genromfs`.

use std::sync::Arc;

use rtftp_runtime::fs::{
    self, BoxedFileSystem, Detected, DirectoryEntry, Driver, Error, Extent, FileIdentity, FileMap, FileSystem,
    FileType, FsFuture, Node, Volume,
};
use smol::block_on;

/// The driver, as it would be listed in `DRIVERS`.
const DRIVER: Driver = Driver {
    name: "romfs",
    superblock: 0,
    probe: |volume| {
        Box::pin(async {
            Ok(Romfs::open(volume.clone()).await?.map(|romfs| Detected { name: romfs.name(), in_use: Some(false) }))
        })
    },
    open: |volume| Box::pin(async { Ok(Romfs::open(volume).await?.map(|romfs| Box::new(romfs) as BoxedFileSystem)) }),
    // It is never written.
    marks: |_| Box::pin(async { Ok(None) }),
};

const SIGNATURE: &[u8] = b"-rom1fs-";
/// The maximum number of entries in a directory.
const MAX_ENTRIES: usize = 10_000;
/// The maximum length of a name or of the target of a link in bytes.
const MAX_NAME: usize = 4096;

#[derive(Debug)]
struct Romfs {
    volume: Volume,
    /// The offset of the first header, which is the root directory.
    root: u64,
}

/// A file header. Its node is its offset.
struct Header {
    /// The offset of the next header in the directory; 0 at the end.
    next: u64,
    file_type: u64,
    /// The first header of a directory, or the destination of a hard link.
    target: u64,
    size: u64,
    name: Vec<u8>,
    /// The offset of the contents.
    contents: u64,
}

impl Romfs {
    async fn open(volume: Volume) -> Result<Option<Self>, Error> {
        if volume.size() < 32 || volume.read(0, SIGNATURE.len()).await? != SIGNATURE {
            return Ok(None);
        }
        let (_, root) = name_at(&volume, 16).await?;
        Ok(Some(Self { volume, root }))
    }

    async fn header(&self, offset: u64) -> Result<Header, Error> {
        let bytes = self.volume.read(offset, 16).await?;
        let field = |at: usize| u64::from(u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes")));
        let (name, contents) = name_at(&self.volume, offset + 16).await?;
        Ok(Header { next: field(0) & !0xF, file_type: field(0) & 7, target: field(4), size: field(8), name, contents })
    }

    /// Reads the header of a node, which must have the same type as before.
    async fn node(&self, node: Node) -> Result<Header, Error> {
        let header = self.header(node.id).await?;
        if file_type(&header) != node.file_type {
            return Err(Error::corrupt(("header at", node.id), "its type has changed"));
        }
        Ok(header)
    }
}

/// Reads the name at an offset, and returns it with the offset of what follows it.
async fn name_at(volume: &Volume, offset: u64) -> Result<(Vec<u8>, u64), Error> {
    let mut name = Vec::new();
    while name.len() < MAX_NAME {
        let part = volume.read(offset + name.len() as u64, 16).await?;
        let len = part.iter().position(|byte| *byte == 0);
        name.extend(&part[..len.unwrap_or(16)]);
        if len.is_some() {
            let end = offset + (name.len() as u64 + 1).next_multiple_of(16);
            return Ok((name, end));
        }
    }
    Err(Error::corrupt(("name at", offset), "too long"))
}

fn file_type(header: &Header) -> FileType {
    match header.file_type {
        1 => FileType::Directory,
        2 => FileType::File,
        3 => FileType::Link,
        _ => FileType::Other,
    }
}

impl FileSystem for Romfs {
    fn name(&self) -> &'static str {
        "romfs"
    }

    fn is_in_use(&self) -> bool {
        false
    }

    fn root(&self) -> Node {
        Node { id: self.root, file_type: FileType::Directory }
    }

    fn lookup<'a>(&'a self, directory: Node, name: &'a [u8]) -> FsFuture<'a, Option<Node>> {
        Box::pin(async move {
            let entries = self.read_directory(directory).await?;
            Ok(entries.into_iter().find(|entry| entry.name == name).map(|entry| entry.node))
        })
    }

    fn read_directory(&self, directory: Node) -> FsFuture<'_, Vec<DirectoryEntry>> {
        Box::pin(async move {
            let mut entries = Vec::new();
            let mut offset = self.node(directory).await?.target;
            for _ in 0..MAX_ENTRIES {
                if offset == 0 {
                    return Ok(entries);
                }
                let Header { next, name, file_type: kind, target, .. } = self.header(offset).await?;
                if name != b"." && name != b".." {
                    let id = if kind == 0 { target } else { offset };
                    let node = Node { id, file_type: file_type(&self.header(id).await?) };
                    entries.push(DirectoryEntry { name, node });
                }
                offset = next;
            }
            Err(Error::corrupt(("directory at", directory.id), format!("more than {MAX_ENTRIES} entries")))
        })
    }

    fn read_link(&self, link: Node) -> FsFuture<'_, Vec<u8>> {
        Box::pin(async move {
            let Header { contents, size, .. } = self.node(link).await?;
            self.volume.read(contents, (size as usize).min(MAX_NAME)).await
        })
    }

    fn map(&self, file: Node) -> FsFuture<'_, FileMap> {
        Box::pin(async move {
            let Header { contents, size, .. } = self.node(file).await?;
            let identity = FileIdentity { node: file.id, ..FileIdentity::default() };
            let mut map = FileMap { size, identity, ..FileMap::default() };
            map.push(Extent { file_offset: 0, len: size, disk_offset: self.volume.disk_offset(contents, size)? });
            Ok(map)
        })
    }
}

/// Opens romfs.img at an offset on a disk.
fn volume() -> Volume {
    let disk = [vec![0; 512], include_bytes!("romfs.img").to_vec()].concat();
    Volume::new(Arc::new(disk)).slice(512, u64::MAX)
}

#[test]
fn a_driver_needs_only_the_public_interface() {
    let drivers: Vec<Driver> = fs::DRIVERS.iter().copied().chain([DRIVER]).collect();
    let volume = volume();
    assert!(block_on(fs::open(volume.clone())).is_err(), "romfs is not in the table");
    let detected = block_on((DRIVER.probe)(&volume)).expect("a valid image");
    assert_eq!(detected, Some(Detected { name: "romfs", in_use: Some(false) }));

    let romfs = block_on(fs::open_with(&drivers, volume.clone(), fs::partition::Contents::Unknown)).expect("a romfs");
    let find = |path: &str| {
        path.split('/').fold(romfs.root(), |directory, name| {
            block_on(romfs.lookup(directory, name.as_bytes())).expect("a directory").expect("an entry")
        })
    };
    let read = |path: &str| {
        let map = block_on(romfs.map(find(path))).expect("a file");
        block_on(map.read(&**volume.device(), 0, 1000)).expect("its contents")
    };
    let kernel: String = (0..20).map(|line| format!("line {line}\n")).collect();
    assert_eq!(read("kernel"), kernel.as_bytes());
    assert_eq!(find("kernel.old"), find("kernel"), "a hard link");
    assert_eq!(read("boot/cmdline"), b"console=ttyS0\n");
    assert_eq!(read("empty"), b"");
    assert_eq!(block_on(romfs.read_link(find("cmdline"))).as_deref(), Ok(&b"boot/cmdline"[..]));
    assert_eq!(block_on(romfs.lookup(romfs.root(), b"initrd")), Ok(None));
}
