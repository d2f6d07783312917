//! The contents of a partition as rtftp reads them over NBD, to compare with those that others read.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use rtftp_core::config::uri::NbdUri;
use rtftp_runtime::{
    fs::{self, BlockDevice, DirectoryEntry, FileSystem, FileType, Node, Volume, partition::partitions},
    nbd::NbdClient,
};
use smol::Executor;

use crate::NbdServer;

/// The maximum time for a reply of the NBD server.
const NBD_LIMIT: Duration = Duration::from_secs(60);

/// The contents of a directory entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// A regular file with these bytes.
    File(Vec<u8>),
    /// A directory.
    Directory,
    /// A symbolic link with this target.
    Link(String),
    /// A device, FIFO or socket.
    Other,
}

/// Returns everything in a partition by path, relative to its root directory.
#[track_caller]
pub fn read_natively(server: &NbdServer, number: u32) -> BTreeMap<String, Content> {
    let url = NbdUri::parse(server.url()).expect("a URI");
    let executor = Executor::new();
    smol::block_on(executor.run(async {
        let disk = Arc::new(NbdClient::connect(&url, NBD_LIMIT, &executor).await.expect("a server"));
        let whole = Volume::new(disk.clone());
        let table = partitions(&whole).await.expect("a partition table");
        let partition = table.iter().find(|partition| partition.number == number).expect("the partition");
        let volume = whole.slice(partition.start, partition.len);
        let filesystem = fs::open(volume).await.expect("a file system");
        read_all(&*filesystem, &*disk).await.unwrap_or_else(|error| panic!("{error}"))
    }))
}

/// Returns everything in the file system of an image by path, relative to its root directory.
#[track_caller]
pub fn read_image(image: impl Into<Arc<Vec<u8>>>) -> BTreeMap<String, Content> {
    try_read_image(image).unwrap_or_else(|error| panic!("{error}"))
}

/// Does the same with a file system that may be damaged.
///
/// # Errors
///
/// The path that is not readable, and the reason.
pub fn try_read_image(image: impl Into<Arc<Vec<u8>>>) -> Result<BTreeMap<String, Content>, String> {
    let disk: Arc<dyn BlockDevice> = image.into();
    smol::block_on(async {
        let filesystem = fs::open(Volume::new(disk.clone())).await.map_err(|error| error.to_string())?;
        read_all(&*filesystem, &*disk).await
    })
}

async fn read_all(filesystem: &dyn FileSystem, disk: &dyn BlockDevice) -> Result<BTreeMap<String, Content>, String> {
    let mut contents = BTreeMap::new();
    let mut directories: Vec<(String, Node)> = vec![(String::new(), filesystem.root())];
    while let Some((directory, node)) = directories.pop() {
        let failed = |path: &str, error: fs::Error| format!("{path}: {error}");
        for DirectoryEntry { name, node } in
            filesystem.read_directory(node).await.map_err(|error| failed(&directory, error))?
        {
            let path = format!("{directory}{}", String::from_utf8_lossy(&name));
            let content = match node.file_type {
                FileType::Directory => {
                    directories.push((format!("{path}/"), node));
                    Content::Directory
                }
                FileType::Link => {
                    let target = filesystem.read_link(node).await.map_err(|error| failed(&path, error))?;
                    Content::Link(String::from_utf8_lossy(&target).into_owned())
                }
                FileType::File => {
                    let file = filesystem.map(node).await.map_err(|error| failed(&path, error))?;
                    Content::File(file.read(disk, 0, file.size as usize).await.expect("its bytes").into_vec())
                }
                FileType::Other => Content::Other,
            };
            contents.insert(path, content);
        }
    }
    Ok(contents)
}
