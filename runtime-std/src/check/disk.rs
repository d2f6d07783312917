//! One disk: reached, its partitions listed, opened and read as the server does it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use rtftp_core::config::disk::{Backend, DiskConfig};
use smol::Timer;

use super::{Disk, Files, Limits, Mount, Partition, files::find};
use crate::{
    clock,
    disk::{Contents, DiskActor, DiskError, RETRY_INTERVAL, RETRY_LIMIT},
    error::Unavailable,
    fs,
    fs::{BlockDevice, Error, Volume, partition::partitions},
};

/// How long a server may take to be connected to: one that is there needs milliseconds.
const CONNECT: Duration = Duration::from_secs(5);

/// How much later than a helper's own limit, which knows more to say, ours is.
const LEEWAY: Duration = Duration::from_secs(2);

/// Looks at the disk of the description `name`; also gives what is wrong with it.
pub(super) async fn check(
    name: String,
    json: Vec<u8>,
    config: DiskConfig,
    backend: Arc<crate::disk::Backend>,
    limits: Limits,
) -> (Disk, Vec<String>) {
    let mut disk = described(&config);
    let mut actor = DiskActor::standalone(name, json, config, backend);
    let nbd = match within(CONNECT.min(limits.open), actor.connect()).await {
        Ok((nbd, _)) => nbd,
        Err(failure) => {
            let why = failure.to_string();
            let why = why.strip_prefix(&format!("{}: ", disk.url)).unwrap_or(&why);
            disk.unreachable = Some(why.to_owned());
            let mistake = format!("{}: {why}", disk.url);
            return (disk, vec![mistake]);
        }
    };
    let listed = within(limits.open, async { Ok(inventory(nbd).await?) }).await;
    let opened = open(&mut actor, limits).await;
    let mistakes = match (&listed, &opened) {
        (Ok(_), Ok(_)) => vec![],
        (Err(failure), Ok(_)) => vec![format!("its partitions cannot be listed: {failure}")],
        // What spoils the partition table spoils the rest as well.
        (_, Err(failure)) => vec![failure.to_string()],
    };
    disk.partitions = listed.unwrap_or_default();
    (disk.backend, disk.files) = opened.ok().unzip();
    (disk, mistakes)
}

/// A disk of which only the description is known.
fn described(config: &DiskConfig) -> Disk {
    let mounts = config
        .mounts
        .iter()
        .map(|mount| Mount { source: mount.source.to_string(), mountpoint: mount.mountpoint.as_str().to_owned() });
    Disk {
        url: config.url.to_string(),
        unreachable: None,
        partitions: Vec::new(),
        mounts: mounts.collect(),
        tftp_root: config.tftp_root.as_str().to_owned(),
        backend: None,
        files: None,
    }
}

/// Lists the partitions of a disk and what they hold.
async fn inventory(disk: Arc<dyn BlockDevice>) -> Result<Vec<Partition>, Error> {
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

/// Tells what a part of a disk holds. Only what makes all of the disk unreadable is an error.
async fn partition(number: u32, volume: &Volume) -> Result<Partition, Error> {
    let (contents, in_use) = match fs::probe(volume).await {
        Ok(Some(found)) => (Some(found.name.to_owned()), found.in_use),
        Ok(None) => (None, None),
        Err(Error::Corrupt(problem) | Error::Unsupported(problem)) => (Some(problem.to_string()), None),
        Err(error) => return Err(error),
    };
    Ok(Partition { number, size: volume.size(), contents, in_use })
}

/// Opens a disk and looks through it, again and again for a while if it contradicts itself: its owner may be writing.
async fn open(actor: &mut DiskActor, limits: Limits) -> Result<(Backend, Files), DiskError> {
    let until = Instant::now() + RETRY_LIMIT;
    loop {
        let found = match within(limits.open + LEEWAY, actor.mount()).await {
            Ok(Contents::Native(view)) => Ok((Backend::Native, find(&&view, limits).await)),
            Ok(Contents::Guestfs(appliance)) => Ok((Backend::Guestfs, find(&&appliance, limits).await)),
            Err(failure) => Err(failure),
        };
        let may_pass = match &found {
            Ok((_, files)) => !files.unreadable.is_empty(),
            Err(failure) => matches!(failure, DiskError::Transient(_)),
        };
        if !may_pass || Instant::now() >= until {
            return found;
        }
        Timer::after(RETRY_INTERVAL).await;
    }
}

/// The result of work on a disk, or that it did not come in time.
async fn within<T>(limit: Duration, work: impl Future<Output = Result<T, DiskError>>) -> Result<T, DiskError> {
    clock::within(limit, async { Ok(work.await) }).await.unwrap_or_else(|late| {
        let reason = late.to_string();
        Err(DiskError::Permanent(Unavailable { to_client: "the disk of this client is too slow", reason }.into()))
    })
}
