//! The disk's file systems, mounted in an appliance.

use guestfs::{Handle, StatNS};
use rtftp_core::config::disk::{Mount, MountSource};
use smol::block_on;

use super::{failure::Failure, wire::DirectoryEntry};
use crate::fs::{
    FileType,
    resolve::{self, Namespace},
};

/// A launched appliance and the file systems mounted in it.
pub(super) struct Mounted {
    pub(super) guestfs: Handle,
}

impl Mounted {
    /// Mounts one file system more; the error is for the administrator.
    pub(super) fn mount(&mut self, mount: &Mount) -> Result<(), String> {
        let device = match &mount.source {
            MountSource::Disk => "/dev/sda".into(),
            MountSource::Partition(number) => self.partition(*number)?,
            MountSource::Device(device) => device.as_str().to_owned(),
        };
        // The top has to be there first, and is always a directory.
        let mut mountpoint = String::from("/");
        if mount.mountpoint.as_str() != "/" {
            let real = block_on(resolve::directory(self, &mount.mountpoint))
                .map_err(|error| format!("mountpoint {}: {error}", mount.mountpoint))?;
            mountpoint = String::from_utf8(real).map_err(|_| format!("mountpoint {}: not UTF-8", mount.mountpoint))?;
        }
        self.guestfs.mount_ro(&device, &mountpoint).map_err(|error| {
            format!(
                "cannot mount {device} on {}: {}; {}",
                mount.mountpoint,
                Failure::from(error).message,
                self.contents()
            )
        })
    }

    /// The device of the partition with this number, which is not its place in the list.
    fn partition(&self, number: u32) -> Result<String, String> {
        let mut there = Vec::new();
        for device in self.guestfs.list_partitions().map_err(|error| Failure::from(error).message)? {
            let found = self.guestfs.part_to_partnum(&device).map_err(|error| Failure::from(error).message)?;
            if u32::try_from(found) == Ok(number) {
                return Ok(device);
            }
            there.push(found);
        }
        there.sort_unstable();
        let there: Vec<String> = there.iter().map(i32::to_string).collect();
        let there = if there.is_empty() { "no partitions".into() } else { format!("partitions {}", there.join(", ")) };
        Err(format!("partition {number}: not found; the disk has {there}"))
    }

    /// Everything in the directory with this real path.
    pub(super) fn list(&self, path: &[u8]) -> Result<Vec<DirectoryEntry>, String> {
        let path =
            str::from_utf8(path).map_err(|_| "its path is not UTF-8, which libguestfs cannot handle".to_owned())?;
        let failed = |error| Failure::from(error).message;
        let names = self.guestfs.ls(path).map_err(failed)?;
        let refs: Vec<&str> = names.iter().map(String::as_str).collect();
        let stats = self.guestfs.lstatnslist(path, &refs).map_err(failed)?;
        let listed = names.iter().zip(stats).map(|(name, stat)| {
            let (kind, size) = type_and_size(&stat);
            DirectoryEntry { name: name.clone().into_bytes(), kind, size }
        });
        Ok(listed.collect())
    }

    /// What could be mounted, for a message.
    fn contents(&self) -> String {
        let mut list: Vec<String> = match self.guestfs.list_filesystems() {
            Ok(list) => list.iter().map(|(device, kind)| format!("{device} ({kind})")).collect(),
            Err(_) => return "nothing on the disk can be listed".into(),
        };
        list.sort_unstable();
        format!("the disk has {}", list.join(", "))
    }
}

/// Nothing here waits: libguestfs holds up the thread.
impl Namespace for Mounted {
    /// The length in bytes.
    type Node = u64;
    type Error = String;

    async fn lstat(&mut self, path: &[u8]) -> Result<Option<(FileType, u64)>, String> {
        // The guestfs crate takes no other names.
        let Ok(path) = std::str::from_utf8(path) else { return Ok(None) };
        let stat = match self.guestfs.lstatns(path).map_err(Failure::from) {
            Ok(stat) => stat,
            Err(failure) if failure.is_not_found() => return Ok(None),
            Err(failure) => return Err(failure.message),
        };
        Ok(Some(type_and_size(&stat)))
    }

    async fn readlink(&mut self, path: &[u8]) -> Result<Option<Vec<u8>>, String> {
        let Ok(path) = std::str::from_utf8(path) else { return Ok(None) };
        match self.guestfs.readlink(path) {
            Ok(target) => Ok(Some(target.into_bytes())),
            Err(guestfs::Error::Utf8Error(_)) => Ok(None),
            Err(error) => match Failure::from(error) {
                failure if failure.is_not_found() => Ok(None),
                failure => Err(failure.message),
            },
        }
    }
}

/// Returns the type that lstat(2) reports, and the size of a regular file in bytes (otherwise 0).
fn type_and_size(stat: &StatNS) -> (FileType, u64) {
    match stat.st_mode & 0o170_000 {
        0o100_000 => (FileType::File, u64::try_from(stat.st_size).unwrap_or(0)),
        0o040_000 => (FileType::Directory, 0),
        0o120_000 => (FileType::Link, 0),
        _ => (FileType::Other, 0),
    }
}
