//! The check of one disk: connects to it, lists its partitions, opens and reads it as the server does.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use rtftp_core::config::disk::{Backend, DiskConfig};
use smol::Timer;

use super::{Boot, Disk, Files, Limits, Mount, Partition, ProblemKind, boot, files::scan};
use crate::{
    clock,
    disk::{Connector, Contents, Description, DiskError, RETRY_INTERVAL, RETRY_LIMIT},
    fs,
    fs::{BlockDevice, Error, Volume, partition::partitions},
    text::printable,
};

/// Added to the time limit of the helper, whose own timeout gives a better error message.
const HELPER_MARGIN: Duration = Duration::from_secs(2);

/// Checks the disk of the description `name`; returns the disk and its problems.
pub(super) async fn check(
    name: String,
    description: Description,
    config: &DiskConfig,
    backend: Arc<crate::disk::Backend>,
    limits: Limits,
) -> (Disk, Vec<ProblemKind>) {
    let mut disk = disk_of(config);
    let mut connector = Connector::new(name, description, backend);
    let nbd = match connector.connect().await {
        Ok(nbd) => nbd,
        Err(error) => {
            let reason = match error {
                DiskError::Connect { error, .. } => error.to_string(),
                error => error.to_string(),
            };
            disk.unreachable = Some(reason.clone());
            let problem = ProblemKind::Unreachable { url: disk.url.clone(), reason };
            return (disk, vec![problem]);
        }
    };
    // With its own connection open, as the daemon has it when the board connects.
    let second = connector.new_connection().await.map(drop);
    let partitions = within(limits.open, async { Ok(list_partitions(nbd).await?) }).await;
    let opened = open(&mut connector, config, limits).await;
    let problem = match (&partitions, &opened) {
        (Ok(_), Ok(_)) => None,
        (Err(error), Ok(_)) => Some(ProblemKind::UnreadablePartitions(error.to_string())),
        // An unreadable partition table makes the file systems unreadable too: one problem is enough.
        (_, Err(error)) => Some(ProblemKind::UnreadableDisk(error.to_string())),
    };
    let single =
        (second.is_err() && partitions.is_ok()).then(|| ProblemKind::SingleConnection { url: disk.url.clone() });
    let any_server = config.accepts_any_server().then(|| ProblemKind::AnyServer { url: disk.url.clone() });
    let mut problems: Vec<ProblemKind> = any_server.into_iter().chain(single).chain(problem).collect();
    disk.partitions = partitions.unwrap_or_default();
    if let Ok((backend, files, boot)) = opened {
        let missing_default = boot.as_ref().and_then(|boot| boot.missing_default.clone());
        problems.extend(missing_default.map(ProblemKind::MissingBootEntry));
        (disk.backend, disk.files, disk.boot) = (Some(backend), Some(files), boot);
    }
    (disk, problems)
}

/// Returns a disk with the facts of its description only.
fn disk_of(config: &DiskConfig) -> Disk {
    let mounts = config.mounts.iter().map(|mount| Mount {
        source: mount.source.to_string(),
        subvolume: mount.subvolume.as_ref().map(|path| path.as_str().to_owned()),
        mountpoint: mount.mountpoint.as_str().to_owned(),
    });
    Disk {
        url: config.url.to_string(),
        unreachable: None,
        partitions: Vec::new(),
        mounts: mounts.collect(),
        tftp_root: config.tftp_root.as_str().to_owned(),
        backend: None,
        files: None,
        boot: None,
    }
}

/// Lists the partitions of a disk and their contents.
async fn list_partitions(disk: Arc<dyn BlockDevice>) -> Result<Vec<Partition>, Error> {
    let whole = Volume::new(disk);
    let table = partitions(&whole).await?;
    if table.is_empty() {
        return Ok(vec![partition(0, &whole).await?]);
    }
    let mut found = Vec::with_capacity(table.len());
    for entry in table {
        found.push(partition(entry.number, &whole.slice(entry.start, entry.len)).await?);
    }
    Ok(found)
}

/// Probes the contents of a partition. Only an error that concerns the whole disk is returned as an error.
async fn partition(number: u32, volume: &Volume) -> Result<Partition, Error> {
    let (contents, in_use) = match fs::probe(volume).await {
        Ok(Some(found)) => (Some(found.name.to_owned()), found.in_use),
        Ok(None) => (None, None),
        Err(Error::Corrupt(problem) | Error::Unsupported(problem)) => (Some(problem.to_string()), None),
        Err(error) => return Err(error),
    };
    let subvolumes = if contents.is_some() { list_subvolumes(volume.clone()).await } else { Vec::new() };
    Ok(Partition { number, size: volume.size(), contents, in_use, subvolumes })
}

/// Lists the subvolumes in a volume. Errors are reported when the disk is opened.
async fn list_subvolumes(volume: Volume) -> Vec<String> {
    let Ok(filesystem) = fs::open(volume).await else { return Vec::new() };
    let paths = filesystem.subvolumes().await.unwrap_or_default();
    paths.iter().map(|path| printable(path)).collect()
}

/// Opens a disk and scans its files. Retries for a while if the contents are inconsistent, since the owner may be writing.
async fn open(
    connector: &mut Connector,
    config: &DiskConfig,
    limits: Limits,
) -> Result<(Backend, Files, Option<Boot>), DiskError> {
    let deadline = Instant::now() + RETRY_LIMIT;
    loop {
        let result = match within(limits.open + HELPER_MARGIN, connector.mount(false)).await {
            Ok(Contents::Native(disk)) => {
                let files = scan(&&disk, limits).await;
                let boot = clock::within(limits.open, boot::check(&disk, config)).await;
                Ok((Backend::Native, files, boot))
            }
            Ok(Contents::Guestfs(appliance)) => Ok((Backend::Guestfs, scan(&&appliance, limits).await, None)),
            Err(error) => Err(error),
        };
        let is_transient = match &result {
            Ok((_, files, _)) => !files.unreadable.is_empty(),
            Err(error) => error.is_transient(),
        };
        if !is_transient || Instant::now() >= deadline {
            return result;
        }
        Timer::after(RETRY_INTERVAL).await;
    }
}

/// Runs work on a disk with a time limit.
async fn within<T>(limit: Duration, work: impl Future<Output = Result<T, DiskError>>) -> Result<T, DiskError> {
    clock::within(limit, work).await.unwrap_or(Err(DiskError::Timeout(limit)))
}
