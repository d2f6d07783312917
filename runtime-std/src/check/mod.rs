//! A look at everything that a server would serve from a root directory: is it named right, can it be read, what is there.
//!
//! Names, descriptions and disks are read by the same code as when they are served, so what is well here is well there.

mod disk;
mod files;
mod kernel;
mod layout;
mod trees;

use std::{fmt, io, path::Path, sync::Arc, time::Duration};

pub use rtftp_core::config::disk::Backend;
use rtftp_core::config::disk::DiskConfig;
use smol::{Executor, Task, lock::Semaphore};

pub use self::{
    files::{Cut, Files},
    kernel::Kernel,
};
use self::{layout::Layout, trees::Local};
use crate::{
    client_name::ClientName,
    disk::{DiskTimeouts, file_name, read_description},
    guestfs::client::{HelperTimeouts, Launcher},
};

/// How many disks are looked at together: each may need a virtual machine, of up to 580 MB.
const TOGETHER: usize = 4;

/// How long things may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Opening a disk in all.
    pub open: Duration,
    /// One answer of a disk.
    pub answer: Duration,
}

/// What is in a root directory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// The clients that have a description of a disk, sorted by name.
    pub clients: Vec<Client>,
    /// The directories of clients, and the one for all of them.
    pub directories: Vec<Directory>,
    /// All that is wrong; a root directory without any is well.
    pub mistakes: Vec<Mistake>,
}

/// A client with a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// What it is called: its address, that of its network card, or the end of its serial number.
    pub name: String,
    /// What its description says; `None` if there is a mistake in it.
    pub disk: Option<Disk>,
}

/// A disk, and what was found on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// The NBD URI.
    pub url: String,
    /// Why its server cannot be reached; `None` if it can.
    pub unreachable: Option<String>,
    /// Its partitions, or what is on the whole disk if it has none.
    pub partitions: Vec<Partition>,
    /// What is to be mounted.
    pub mounts: Vec<Mount>,
    /// The directory that is served.
    pub tftp_root: String,
    /// Who reads it; `None` if nobody can.
    pub backend: Option<Backend>,
    /// What is below `tftp_root`; `None` if that is not to be known.
    pub files: Option<Files>,
}

/// A part of a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// The number that Linux gives it; 0 for the whole disk.
    pub number: u32,
    /// How long it is, in bytes.
    pub size: u64,
    /// What it holds, or what is wrong with that; `None` if nothing known.
    pub contents: Option<String>,
    /// Whether its owner has it mounted or never unmounted it; `None` if that cannot be told.
    pub in_use: Option<bool>,
}

/// A file system and the directory it is to be mounted on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// `partition 2`, `the whole disk`, or the name of a device.
    pub source: String,
    /// The directory.
    pub mountpoint: String,
}

/// A directory of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directory {
    /// Its name in the root directory.
    pub name: String,
    /// What is in it.
    pub files: Files,
}

/// Something that is wrong. Its `Display` is a line for people, in which nothing does anything to a terminal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// The name in the root directory that it is about.
    pub name: String,
    /// What is wrong with it.
    pub what: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.what)
    }
}

impl Report {
    fn wrong(&mut self, name: &str, what: impl Into<String>) {
        self.mistakes.push(Mistake { name: name.into(), what: what.into() });
    }

    fn unreadable(&mut self, name: &str, files: &Files) {
        for (path, why) in &files.unreadable {
            self.wrong(name, format!("{path}: {why}"));
        }
        if files.untold > 0 {
            self.wrong(name, format!("{} more of its files cannot be read", files.untold));
        }
    }
}

/// Looks at a root directory and at all disks that are described in it. Blocks until that is done, for a bounded time.
///
/// # Errors
///
/// The root directory cannot be read.
pub fn check(root: &Path, limits: Limits) -> io::Result<Report> {
    let layout = layout::read(root)?;
    let executor = Arc::new(Executor::new());
    let disks = Disks::new(root, limits, executor.clone());
    Ok(smol::block_on(executor.run(look(root, layout, limits, &disks))))
}

async fn look(root: &Path, layout: Layout, limits: Limits, disks: &Disks<'_>) -> Report {
    let mut report = Report { mistakes: layout.mistakes, ..Report::default() };
    let mut looks = vec![];
    for client in layout.clients {
        looks.push((client, disks.start(client).await));
    }
    for name in layout.directories {
        let files = files::find(&Local::new(root.join(&name)), limits).await;
        report.unreadable(&format!("{name}/"), &files);
        report.directories.push(Directory { name, files });
    }
    for (client, look) in looks {
        let name = file_name(client);
        let disk = match look {
            Ok(look) => {
                let (disk, mistakes) = look.await;
                mistakes.into_iter().for_each(|mistake| report.wrong(&name, mistake));
                disk.files.iter().for_each(|files| report.unreadable(&name, files));
                Some(disk)
            }
            Err(mistake) => {
                report.wrong(&name, mistake);
                None
            }
        };
        report.clients.push(Client { name: client.to_string(), disk });
    }
    disks.backend.all_ended().await;
    report
}

/// What it takes to look at disks.
struct Disks<'r> {
    root: &'r Path,
    limits: Limits,
    executor: Arc<Executor<'static>>,
    backend: Arc<crate::disk::Backend>,
    /// Has a permit for each disk that is being looked at.
    turns: Arc<Semaphore>,
}

impl<'r> Disks<'r> {
    fn new(root: &'r Path, limits: Limits, executor: Arc<Executor<'static>>) -> Self {
        let Limits { open, answer } = limits;
        let launcher = Launcher::new(HelperTimeouts { start: open, reply: answer, ..HelperTimeouts::default() });
        // A disk that is looked at once is never idle.
        let times = DiskTimeouts { idle: Duration::MAX, view_gap: Duration::ZERO, reply: answer };
        let backend = Arc::new(crate::disk::Backend::new(launcher, times, executor.clone(), None));
        Self { root, limits, executor, backend, turns: Arc::new(Semaphore::new(TOGETHER)) }
    }

    /// Starts to look at the disk of a client; the error is what is wrong with its description.
    async fn start(&self, client: ClientName) -> Result<Task<(Disk, Vec<String>)>, String> {
        let name = file_name(client);
        let json = read_description(&self.root.join(&name)).await.map_err(|error| error.to_string())?;
        let config = DiskConfig::parse(&json).map_err(|error| error.to_string())?;
        let (backend, turns, limits) = (self.backend.clone(), self.turns.clone(), self.limits);
        Ok(self.executor.spawn(async move {
            let _turn = turns.acquire().await;
            disk::check(name, json, config, backend, limits).await
        }))
    }
}
