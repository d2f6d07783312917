//! The result of a check. It serialises to the JSON of `rtftp check --json`.

use rtftp_core::config::disk::Backend;
use serde::{Serialize, Serializer};

use super::{boot::Boot, files::Files, problem::Problem};

/// The contents of a root directory, and the problems found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The clients that have a description of a disk, sorted by name.
    pub clients: Vec<Client>,
    /// The descriptions with a disk for each board.
    pub groups: Vec<Group>,
    /// The directories of clients, and `default`.
    pub directories: Vec<Directory>,
    /// How the files are served over HTTP; `None` if they are not.
    pub http: Option<HttpUrls>,
    /// All problems found; empty if there are none.
    #[serde(rename = "mistakes")]
    pub problems: Vec<Problem>,
}

/// The URLs of files over HTTP. Each client gets the same files as over TFTP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HttpUrls {
    /// The URL of a file is this one and the file's path.
    pub url: String,
    /// What is removed from the start of paths, such as `/boot`; empty for nothing.
    pub prefix: String,
}

/// A client with a disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Client {
    /// The client's name: an IP address, a MAC address or a serial number.
    #[serde(rename = "client")]
    pub name: String,
    /// The disk; `None` if its description is not valid.
    pub disk: Option<Disk>,
}

/// A description with a disk for each board. The disks are not checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Group {
    /// The name of the `.nbd` file.
    #[serde(rename = "file")]
    pub name: String,
    /// An example of a board: its values for the placeholders.
    pub board: String,
    /// The NBD URI of the example.
    pub url: String,
}

/// A disk and its contents.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Disk {
    /// The NBD URI.
    pub url: String,
    /// The reason why the NBD server cannot be reached; `None` if it can.
    #[serde(flatten, serialize_with = "reachability")]
    pub unreachable: Option<String>,
    /// The partitions; a disk without partition table has one with the number 0.
    pub partitions: Vec<Partition>,
    /// The mounts of the description, in order.
    pub mounts: Vec<Mount>,
    /// The directory that is served.
    pub tftp_root: String,
    /// The backend that can read the disk; `None` if neither can.
    #[serde(serialize_with = "backend_name")]
    pub backend: Option<Backend>,
    /// The files below `tftp_root`; `None` if the disk cannot be read.
    pub files: Option<Files>,
    /// What boots from the disk; `None` if it cannot be read natively.
    pub boot: Option<Boot>,
}

/// A part of a disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Partition {
    /// The number that Linux assigns; 0 for the whole disk.
    pub number: u32,
    /// The size in bytes.
    #[serde(rename = "bytes")]
    pub size: u64,
    /// The name of the file system, or the reason why it cannot be read; `None` if it is unknown.
    pub contents: Option<String>,
    /// Whether the file system is mounted elsewhere or was not unmounted cleanly; `None` if that is unknown.
    pub in_use: Option<bool>,
    /// The paths of the subvolumes of a btrfs, for `subvol` in a description.
    pub subvolumes: Vec<String>,
}

/// A file system and its mountpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Mount {
    /// `partition 2`, `the whole disk`, or the name of a device.
    pub source: String,
    /// The path of the subvolume in the description; `None` if it has none.
    pub subvolume: Option<String>,
    /// The directory that it is mounted on.
    pub mountpoint: String,
}

/// A directory below the root directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Directory {
    /// The directory's name.
    pub name: String,
    /// The files in it.
    pub files: Files,
}

impl Report {
    /// Adds the URLs of a server at `address`, such as `http://10.0.0.1`, that removes `prefix` from the start of paths.
    pub fn add_urls(&mut self, address: &str, prefix: &str) {
        let prefix = match prefix.trim_matches('/') {
            "" => String::new(),
            prefix => format!("/{prefix}"),
        };
        let url = format!("{address}{prefix}/");
        let disks = self.clients.iter_mut().filter_map(|client| client.disk.as_mut()?.files.as_mut());
        let directories = self.directories.iter_mut().map(|directory| &mut directory.files);
        for kernel in disks.chain(directories).filter_map(|files| files.kernel.as_mut()) {
            kernel.url = Some(format!("{url}{}", kernel.target));
        }
        self.http = Some(HttpUrls { url, prefix });
    }

    /// Adds the unreadable files of the tree `name` to the problems.
    pub(super) fn add_unreadable(&mut self, name: &str, files: &Files) {
        self.problems.extend(files.problems().map(|kind| Problem { name: name.into(), kind }));
    }
}

fn reachability<S: Serializer>(unreachable: &Option<String>, serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Reachability<'a> {
        reachable: bool,
        unreachable: &'a Option<String>,
    }
    Reachability { reachable: unreachable.is_none(), unreachable }.serialize(serializer)
}

fn backend_name<S: Serializer>(backend: &Option<Backend>, serializer: S) -> Result<S::Ok, S::Error> {
    let name = backend.map(|backend| match backend {
        Backend::Guestfs => "guestfs",
        _ => "native",
    });
    name.serialize(serializer)
}
