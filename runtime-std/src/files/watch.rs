//! The root directory, watched: `.nbd` files that come, change and go.

use std::{
    fs, io,
    os::{fd::AsFd, unix::fs::MetadataExt},
    path::Path,
    time::Duration,
};

use inotify::{EventMask, Inotify, WatchMask};
use smol::{Async, Timer};

use crate::{client_name::ClientName, disk, disk::Disks};

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
                let hint = if error.kind() == io::ErrorKind::PermissionDenied {
                    " (a directory that takes the place of the root is outside of the sandbox: restart)"
                } else {
                    ""
                };
                log::warn!("{}: cannot be watched: {error}{hint}; looking for it every second", root.display());
                lost = true;
            }
        }
        Timer::after(LOST_ROOT).await;
    }
}

/// Looks at all files of the directory because somebody asks for it.
pub(crate) async fn look_again(root: &Path, disks: &Disks) {
    match scan(root, disks).await {
        Ok(count) => log::info!("reloaded: looked at {count} .nbd files"),
        Err(error) => log::warn!("{}: cannot be read: {error}; nothing is reloaded", root.display()),
    }
}

/// Watches the directory until it is another one or none.
async fn follow(root: &Path, disks: &Disks, lost: &mut bool) -> io::Result<()> {
    let mut inotify = Inotify::init()?;
    let files = WatchMask::CLOSE_WRITE | WatchMask::CREATE | WatchMask::MOVED_TO;
    let gone = WatchMask::MOVED_FROM | WatchMask::DELETE;
    let directory = WatchMask::DELETE_SELF | WatchMask::MOVE_SELF | WatchMask::ONLYDIR;
    inotify.watches().add(root, files | gone | directory)?;
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
            } else if let Some(name) = event.name
                && let Some(client) = name.to_str().and_then(parse_file_name)
            {
                // A file that is being written comes with its closing; only a link is complete when it is made.
                if !event.mask.contains(EventMask::CREATE) || is_link(&root.join(name)) {
                    // Also when it is gone: there may be another one of its name by now.
                    disks.prepare(client).await;
                }
            }
        }
    }
}

/// Looks at all files of the directory, and returns how many there are.
async fn scan(root: &Path, disks: &Disks) -> io::Result<usize> {
    let root = root.to_owned();
    let names =
        smol::unblock(move || fs::read_dir(root)?.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>())
            .await?;
    let clients: Vec<ClientName> = names.iter().filter_map(|name| parse_file_name(name.to_str()?)).collect();
    disks.retain(&clients);
    for client in &clients {
        disks.prepare(*client).await;
    }
    Ok(clients.len())
}

/// Whether a name is a link, symbolic or hard, to a file that was there before.
fn is_link(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|file| file.is_symlink() || file.nlink() > 1)
}

/// The client that a file is for, and a word about a name that looks right and is not, also of a client's directory.
fn parse_file_name(name: &str) -> Option<ClientName> {
    let right = match disk::parse_file_name(name) {
        Ok(client) => return Some(client),
        Err(Some(right)) => right,
        Err(None) => ClientName::parse(name).err().flatten()?.to_string(),
    };
    log::warn!("{name}: is not looked at, the name must be written {right}");
    None
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::symlink, pin::pin, sync::Arc, time::Instant};

    use smol::{
        Executor, block_on,
        future::{or, poll_once},
    };

    use super::*;
    use crate::{
        disk::DiskTimeouts,
        guestfs::client::{HelperTimeouts, Launcher},
    };

    const A: ClientName = ClientName::Ip(std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1)));
    const B: ClientName = ClientName::Ip(std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2)));

    /// The disks of a directory; nothing is connected, as the descriptions in here are all wrong.
    fn disks(root: &Path) -> Disks {
        let launcher = Launcher::new(HelperTimeouts::default());
        let minute = Duration::from_secs(60);
        let times = DiskTimeouts { idle: minute, view_gap: minute, reply: minute };
        Disks::new(root.to_owned(), times, launcher, Arc::new(Executor::new()), None)
    }

    /// Watches until the disks of exactly these clients have been looked at.
    fn sees(watching: &mut (impl Future<Output = ()> + Unpin), disks: &Disks, clients: &[ClientName]) {
        let deadline = Instant::now() + Duration::from_secs(10);
        let seen = async {
            while disks.clients() != clients {
                assert!(Instant::now() < deadline, "expected {clients:?}, found {:?}", disks.clients());
                Timer::after(Duration::from_millis(1)).await;
            }
        };
        block_on(or(seen, watching));
    }

    #[test]
    fn descriptions_come_and_go_in_every_way() {
        let top = tempfile::tempdir().expect("a directory");
        let root = top.path().join("root");
        let (a, b) = (root.join("10.0.0.1.nbd"), root.join("10.0.0.2.nbd"));
        fs::create_dir(&root).expect("made");
        fs::write(&a, "there before").expect("written");
        let disks = disks(&root);
        let mut watching = pin!(watch(&root, &disks));
        let mut sees = |clients: &[ClientName]| sees(&mut watching, &disks, clients);
        sees(&[A]);
        fs::write(&b, "written in place").expect("written");
        sees(&[A, B]);
        fs::remove_file(&a).expect("removed");
        sees(&[B]);
        fs::rename(&b, &a).expect("renamed");
        sees(&[A]);
        fs::write(root.join(".10.0.0.2.nbd.tmp"), "as editors do it").expect("written");
        fs::rename(root.join(".10.0.0.2.nbd.tmp"), &b).expect("renamed");
        sees(&[A, B]);
        fs::rename(&b, root.join("10.0.0.2.nbd~")).expect("renamed");
        sees(&[A]);
        symlink("10.0.0.2.nbd~", &b).expect("linked");
        sees(&[A, B]);
        fs::remove_dir_all(&root).expect("removed");
        sees(&[]);
        fs::create_dir(&root).expect("made again");
        fs::write(&b, "in a new directory").expect("written");
        sees(&[B]);
        fs::rename(&root, top.path().join("moved")).expect("renamed");
        fs::create_dir(&root).expect("made again");
        fs::write(&a, "in a third one").expect("written");
        sees(&[A]);
    }

    #[test]
    fn nothing_is_missed_when_the_queue_overflows() {
        let root = tempfile::tempdir().expect("a directory");
        let (a, b) = (root.path().join("10.0.0.1.nbd"), root.path().join("10.0.0.2.nbd"));
        fs::write(&a, "goes").expect("written");
        let disks = disks(root.path());
        let mut watching = pin!(watch(root.path(), &disks));
        sees(&mut watching, &disks, &[A]);
        let limit = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").expect("a limit");
        let limit: usize = limit.trim().parse().expect("a number");
        let (here, there) = (root.path().join("x"), root.path().join("y"));
        fs::write(&here, "").expect("written");
        for _ in 0..limit / 4 + 1 {
            fs::rename(&here, &there).expect("renamed");
            fs::rename(&there, &here).expect("renamed");
        }
        fs::remove_file(&a).expect("removed");
        fs::write(&b, "comes").expect("written");
        assert!(block_on(poll_once(&mut watching)).is_none(), "it goes on watching");
        sees(&mut watching, &disks, &[B]);
    }
}
