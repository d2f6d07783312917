//! Walks through a file system.

use rtftp_runtime::fs::{BlockDevice, Error, FileSystem, FileType, Node};

/// The maximum number of nodes that are visited.
const MAX_NODES: usize = 200;

/// The maximum number of subvolumes that are visited.
const MAX_SUBVOLUMES: usize = 2;

/// Reads everything in a file system, and asserts that it lies on the disk.
pub async fn walk(filesystem: &dyn FileSystem, disk: &dyn BlockDevice) {
    let mut nodes: Vec<Node> = vec![filesystem.root()];
    for path in filesystem.subvolumes().await.unwrap_or_default().iter().take(MAX_SUBVOLUMES) {
        if let Ok(Some(root)) = filesystem.subvolume(&String::from_utf8_lossy(path)).await {
            if !nodes.contains(&root) {
                nodes.push(root);
            }
        }
    }
    for seen in 0..MAX_NODES {
        let Some(node) = nodes.get(seen).copied() else { break };
        match node.file_type {
            FileType::Directory => {
                let names = filesystem.read_directory(node).await.unwrap_or_default();
                if let Some(first) = names.first() {
                    let _ = filesystem.lookup(node, &first.name).await;
                }
                nodes.extend(names.into_iter().take(MAX_NODES).map(|entry| entry.node));
            }
            FileType::Link => {
                let target = filesystem.read_link(node).await.unwrap_or_default();
                assert!(target.len() <= 4096, "a target of {} bytes", target.len());
            }
            FileType::File => {
                if let Ok(file) = filesystem.map(node).await {
                    let mut end = 0;
                    for extent in &file.extents {
                        assert!(extent.file_offset >= end && extent.len > 0, "{extent:?} is out of order");
                        assert!(extent.disk_offset + extent.len <= disk.size(), "{extent:?} exceeds the disk");
                        end = extent.file_offset + extent.len;
                    }
                    end = 0;
                    for run in &file.compressed {
                        assert!(run.file_offset >= end && run.len > 0, "{run:?} is out of order");
                        assert!(run.disk_offset + run.form.len as u64 <= disk.size(), "{run:?} exceeds the disk");
                        end = run.file_offset + run.len;
                    }
                    let last = file.size.saturating_sub(1000);
                    for (at, len) in [(0, 1000), (last, 2000)] {
                        match file.read(disk, at, len).await {
                            Ok(bytes) => assert_eq!(bytes.len() as u64, (file.size - at).min(len as u64)),
                            Err(Error::Corrupt(_)) => {}
                            Err(error) => panic!("all of it is on the disk: {error}"),
                        }
                    }
                }
            }
            FileType::Other => {}
        }
    }
}
