//! The file systems of the disk, mounted in the virtual machine.

use guestfs::{Handle, StatNS};
use rtftp_core::config::disk::{Mount, MountSource};
use rtftp_runtime::{
    fs::{
        FileType,
        resolve::{self, Namespace},
    },
    guestfs::wire::DirectoryEntry,
};
use smol::block_on;

use crate::call_error::CallError;

/// The directory tree of a launched virtual machine.
pub(crate) struct Mounted {
    pub(crate) guestfs: Handle,
    /// The reason why a RAID was not started.
    pub(crate) raid_problem: Option<String>,
}

impl Mounted {
    /// Starts RAID arrays (md) that lack members. The virtual machine starts only those that udev has not found before.
    ///
    /// The disk has an overlay, so nothing is written to it.
    pub(crate) fn start_arrays(&mut self) {
        const SCRIPT: &str = "for array in $(sed -n 's/^\\(md[^ ]*\\) : inactive .*/\\1/p' /proc/mdstat); \
             do mdadm --run /dev/$array || exit; echo $array; done";
        let started = self
            .guestfs
            .debug("sh", &[SCRIPT])
            .and_then(|started| if started.is_empty() { Ok(()) } else { self.guestfs.vg_activate_all(true) });
        self.raid_problem = started.err().map(|error| CallError::from(error).message);
    }

    /// Mounts a file system. The error is for the administrator.
    pub(crate) fn mount(&mut self, mount: &Mount) -> Result<(), String> {
        let device = match &mount.source {
            MountSource::Disk => "/dev/sda".into(),
            MountSource::Partition(number) => self.partition(*number)?,
            MountSource::Device(device) => device.as_str().to_owned(),
        };
        let (options, device) = match mount.subvolume.as_deref() {
            None => ("ro", device),
            // The subvolume that contains all others, which `btrfsvol:` cannot name.
            Some("/") => ("ro,subvolid=5", device),
            Some(path) => ("ro", format!("btrfsvol:{device}{path}")),
        };
        // The first mountpoint is always `/`, which exists without a file system.
        let mut mountpoint = String::from("/");
        if mount.mountpoint.as_str() != "/" {
            let real = block_on(resolve::directory(self, &mount.mountpoint))
                .map_err(|error| format!("mountpoint {}: {error}", mount.mountpoint))?;
            mountpoint = String::from_utf8(real).map_err(|_| format!("mountpoint {}: not UTF-8", mount.mountpoint))?;
        }
        self.guestfs.mount_options(options, &device, &mountpoint).map_err(|error| {
            let message = CallError::from(error).message;
            let raid = self.raid_problem.iter().map(|problem| format!("; a RAID does not start: {problem}"));
            format!(
                "cannot mount {device} on {}: {message}; {}{}",
                mount.mountpoint,
                self.contents(),
                raid.collect::<String>()
            )
        })
    }

    /// Returns the device of a partition by its number, which is not its index in the list of partitions.
    fn partition(&self, number: u32) -> Result<String, String> {
        let mut numbers = Vec::new();
        for device in self.guestfs.list_partitions().map_err(|error| CallError::from(error).message)? {
            let found = self.guestfs.part_to_partnum(&device).map_err(|error| CallError::from(error).message)?;
            if u32::try_from(found) == Ok(number) {
                return Ok(device);
            }
            numbers.push(found);
        }
        numbers.sort_unstable();
        let numbers: Vec<String> = numbers.iter().map(i32::to_string).collect();
        let found =
            if numbers.is_empty() { "no partitions".into() } else { format!("partitions {}", numbers.join(", ")) };
        Err(format!("partition {number}: not found; the disk has {found}"))
    }

    /// Lists the directory at a real path.
    pub(crate) fn list(&self, path: &[u8]) -> Result<Vec<DirectoryEntry>, String> {
        let path =
            str::from_utf8(path).map_err(|_| "the path is not UTF-8, which libguestfs does not support".to_owned())?;
        let failed = |error| CallError::from(error).message;
        let names = self.guestfs.ls(path).map_err(failed)?;
        let refs: Vec<&str> = names.iter().map(String::as_str).collect();
        let stats = self.guestfs.lstatnslist(path, &refs).map_err(failed)?;
        let entries = names.iter().zip(stats).map(|(name, stat)| {
            let file_type = file_type(&stat);
            let size = if file_type == FileType::File { size(&stat) } else { 0 };
            DirectoryEntry { name: name.clone().into_bytes(), file_type, size }
        });
        Ok(entries.collect())
    }

    /// Describes the file systems that could be mounted, for a message.
    fn contents(&self) -> String {
        let mut list: Vec<String> = match self.guestfs.list_filesystems() {
            Ok(list) => list.iter().map(|(device, kind)| format!("{device} ({kind})")).collect(),
            Err(_) => return "the file systems of the disk cannot be listed".into(),
        };
        list.sort_unstable();
        format!("the disk has {}", list.join(", "))
    }
}

/// The methods block, as the calls of libguestfs do.
impl Namespace for Mounted {
    /// The size in bytes.
    type Node = u64;
    type Error = String;

    async fn lstat(&mut self, path: &[u8]) -> Result<Option<(FileType, u64)>, String> {
        // The guestfs crate only supports names in UTF-8.
        let Ok(path) = str::from_utf8(path) else { return Ok(None) };
        match self.guestfs.lstatns(path).map_err(CallError::from) {
            Ok(stat) => Ok(Some((file_type(&stat), size(&stat)))),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error.message),
        }
    }

    async fn readlink(&mut self, path: &[u8]) -> Result<Option<Vec<u8>>, String> {
        let Ok(path) = str::from_utf8(path) else { return Ok(None) };
        match self.guestfs.readlink(path) {
            Ok(target) => Ok(Some(target.into_bytes())),
            Err(guestfs::Error::Utf8Error(_)) => Ok(None),
            Err(error) => match CallError::from(error) {
                error if error.is_not_found() => Ok(None),
                error => Err(error.message),
            },
        }
    }
}

/// Returns the file type in the mode of stat(2).
fn file_type(stat: &StatNS) -> FileType {
    match stat.st_mode & 0o170_000 {
        0o100_000 => FileType::File,
        0o040_000 => FileType::Directory,
        0o120_000 => FileType::Link,
        _ => FileType::Other,
    }
}

/// Returns the size in bytes.
fn size(stat: &StatNS) -> u64 {
    u64::try_from(stat.st_size).unwrap_or(0)
}
