//! The root directory, watched: `.nbd` files that come, change and go.

use std::{fs, io, net::IpAddr, os::fd::AsFd, path::Path, time::Duration};

use inotify::{EventMask, Inotify, WatchMask};
use smol::{Async, Timer};

use crate::remote::{self, Disks};

/// How often a root directory that is not there is looked for.
const LOST_ROOT: Duration = Duration::from_secs(1);

/// Connects the disks described in `root`, and goes on doing so as descriptions come and change. Never returns.
///
/// Nothing depends on it but the time a client waits: a request looks at its `.nbd` file itself.
pub(crate) async fn watch(root: &Path, disks: &Disks) {
    let mut lost = false;
    loop {
        match follow(root, disks, &mut lost).await {
            Ok(()) => {}
            Err(error) if lost => log::debug!("{}: {error}", root.display()),
            Err(error) => {
                log::warn!("{}: cannot be watched: {error}; looking for it every second", root.display());
                lost = true;
            }
        }
        Timer::after(LOST_ROOT).await;
    }
}

/// Watches the directory until it is another one or none.
async fn follow(root: &Path, disks: &Disks, lost: &mut bool) -> io::Result<()> {
    let mut inotify = Inotify::init()?;
    let files = WatchMask::CLOSE_WRITE | WatchMask::MOVED_TO | WatchMask::MOVED_FROM | WatchMask::DELETE;
    let directory = WatchMask::DELETE_SELF | WatchMask::MOVE_SELF | WatchMask::ONLYDIR;
    inotify.watches().add(root, files | directory)?;
    let ready = Async::new(inotify.as_fd().try_clone_to_owned()?)?;
    // Only what happens from here on is told; what is there already must be looked at now.
    scan(root, disks).await?;
    if std::mem::take(lost) {
        log::info!("{}: watched again", root.display());
    }
    let mut buf = [0; 4096];
    loop {
        let events = match inotify.read_events(&mut buf) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                ready.readable().await?;
                continue;
            }
            events => events?,
        };
        for event in events {
            if event.mask.contains(EventMask::Q_OVERFLOW) {
                log::warn!("{}: changes come faster than they are looked at: looking at all files", root.display());
                scan(root, disks).await?;
            } else if event.mask.intersects(EventMask::DELETE_SELF | EventMask::MOVE_SELF | EventMask::IGNORED) {
                return Err(io::Error::other("the directory was removed or renamed"));
            } else if let Some(client) = event.name.and_then(|name| client_of(name.to_str()?)) {
                // Also for a file that is gone: there may be another one of its name by now.
                disks.prepare(client).await;
            }
        }
    }
}

/// Looks at all files of the directory.
async fn scan(root: &Path, disks: &Disks) -> io::Result<()> {
    let root = root.to_owned();
    let names =
        smol::unblock(move || fs::read_dir(root)?.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>())
            .await?;
    let clients: Vec<IpAddr> = names.iter().filter_map(|name| client_of(name.to_str()?)).collect();
    disks.retain(&clients);
    for client in clients {
        disks.prepare(client).await;
    }
    Ok(())
}

/// The client that a file is for, and a word about a name that looks right and is not.
fn client_of(name: &str) -> Option<IpAddr> {
    match remote::client_of(name) {
        Ok(client) => Some(client),
        Err(Some(right)) => {
            log::warn!("{name}: is not looked at, the name must be written {right}");
            None
        }
        Err(None) => None,
    }
}
