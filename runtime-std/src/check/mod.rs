//! Checks everything that a server would serve from a root directory: names, descriptions, disks and files.
//!
//! Names, descriptions and disks are read by the same code as in the server, so a check without problems is valid for it.

mod boot;
mod disk;
mod files;
mod kernel;
mod layout;
mod limits;
mod problem;
mod report;
mod trees;

use std::{io, path::Path, sync::Arc, time::Duration};

pub use rtftp_core::config::disk::Backend;
use smol::{Executor, Task, lock::Semaphore};

pub use self::{
    boot::{Boot, BootEntry, Program},
    files::{Files, Incomplete},
    kernel::Kernel,
    limits::Limits,
    problem::{Problem, ProblemKind},
    report::{Client, Directory, Disk, Group, HttpUrls, Mount, Partition, Report},
};
use self::{layout::Layout, trees::LocalTree};
use crate::{
    disk::{DiskTimeouts, NbdFile, read_description},
    guestfs::{HelperTimeouts, Launcher},
    local_fs::RootDirectory,
    memory::Memory,
};

/// The number of disks that are checked at the same time: each may need a virtual machine of up to 580 MB.
const MAX_CONCURRENT_DISKS: usize = 4;

/// The time limit for connecting to an NBD server; a running server needs milliseconds.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Checks a root directory and all disks that are described in it. Blocks the thread for a bounded time.
///
/// # Errors
///
/// Fails if the root directory cannot be read.
pub fn check(root: &Path, limits: Limits) -> io::Result<Report> {
    let layout = layout::read(root)?;
    let executor = Arc::new(Executor::new());
    let disks = Disks::new(root, limits, executor.clone());
    Ok(smol::block_on(executor.run(check_layout(layout, limits, &disks))))
}

async fn check_layout(layout: Layout, limits: Limits, disks: &Disks) -> Report {
    let mut report = Report { problems: layout.problems, ..Report::default() };
    let mut checks = vec![];
    for file in layout.files {
        checks.push((file, disks.start(file).await));
    }
    for name in layout.directories {
        let files = files::scan(&LocalTree::new(disks.root.clone(), name.clone()), limits).await;
        report.add_unreadable(&format!("{name}/"), &files);
        report.directories.push(Directory { name, files });
    }
    for (file, check) in checks {
        let name = file.to_string();
        let (disk, problems) = match check {
            Ok(Check::Group(group)) => {
                report.groups.push(group);
                continue;
            }
            Ok(Check::Disk(check)) => {
                let (disk, problems) = check.await;
                (Some(disk), problems)
            }
            Err(reason) => (None, vec![ProblemKind::InvalidDescription(reason)]),
        };
        report.problems.extend(problems.into_iter().map(|kind| Problem { name: name.clone(), kind }));
        if let Some(files) = disk.as_ref().and_then(|disk| disk.files.as_ref()) {
            report.add_unreadable(&name, files);
        }
        report.clients.push(Client { name: name.trim_end_matches(".nbd").to_owned(), disk });
    }
    disks.backend.helpers_ended().await;
    report
}

/// The check of an `.nbd` file.
enum Check {
    /// The task that checks the disk.
    Disk(Task<(Disk, Vec<ProblemKind>)>),
    /// Boards with a disk each, which are not connected.
    Group(Group),
}

/// Starts the checks of disks.
struct Disks {
    root: Arc<RootDirectory>,
    limits: Limits,
    executor: Arc<Executor<'static>>,
    backend: Arc<crate::disk::Backend>,
    permits: Arc<Semaphore>,
}

impl Disks {
    fn new(root: &Path, limits: Limits, executor: Arc<Executor<'static>>) -> Self {
        let Limits { open, answer } = limits;
        let launcher = Launcher::new(HelperTimeouts { start: open, reply: answer, ..HelperTimeouts::default() });
        // Each disk is read once, so it is never idle.
        let connect = CONNECT_TIMEOUT.min(open);
        let times = DiskTimeouts { idle: Duration::MAX, view_gap: Duration::ZERO, open, connect, reply: answer };
        let backend = Arc::new(crate::disk::Backend::new(
            root.to_owned(),
            launcher,
            times,
            executor.clone(),
            None,
            Memory::unlimited(),
        ));
        let root = RootDirectory::new(root.to_owned(), answer);
        Self { root, limits, executor, backend, permits: Arc::new(Semaphore::new(MAX_CONCURRENT_DISKS)) }
    }

    /// Reads a description.
    async fn read(&self, file: NbdFile) -> io::Result<Vec<u8>> {
        read_description(&self.root.open().await?, file).await
    }

    /// Starts the check of a file. The error is the reason why the description is not valid.
    async fn start(&self, file: NbdFile) -> Result<Check, String> {
        let name = file.to_string();
        let json = self.read(file).await.map_err(|error| error.to_string())?;
        let description = file.description(json.into());
        let config = description.config().map_err(|error| error.to_string())?;
        if !config.placeholders.is_empty() {
            let board = file.sample_board();
            let values = config
                .placeholders
                .iter()
                .filter_map(|placeholder| Some(format!("{} {}", placeholder.name(), board.value(*placeholder)?)));
            return Ok(Check::Group(Group {
                name,
                board: values.collect::<Vec<_>>().join(", "),
                url: config.url.to_string(),
            }));
        }
        let (backend, permits, limits) = (self.backend.clone(), self.permits.clone(), self.limits);
        Ok(Check::Disk(self.executor.spawn(async move {
            let _permit = permits.acquire().await;
            disk::check(name, description, &config, backend, limits).await
        })))
    }
}
