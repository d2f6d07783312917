//! Watches the root directory for `.nbd` files that are created, changed and removed.

use std::{
    collections::HashSet,
    ffi::OsString,
    fs, io, mem,
    os::{fd::AsFd, unix::fs::MetadataExt},
    path::Path,
    time::Duration,
};

use inotify::{EventMask, Inotify, WatchDescriptor, WatchMask};
use smol::{Async, Timer, future::or};

use crate::{
    client_name::ClientName,
    disk::{Disks, NbdFile},
};

/// The interval at which watching is retried after an error.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Connects the disks described in the root directory, and those described there later. Never returns.
pub(super) async fn watch(disks: &Disks) {
    let mut has_failed = false;
    loop {
        let Err(error) = watch_directory(disks, &mut has_failed).await else { continue };
        if error.kind() == io::ErrorKind::NotFound {
            // The directory was removed, with all descriptions.
            disks.retain(&HashSet::new());
        }
        let root = disks.root().path().display();
        if has_failed {
            log::debug!("{root}: {error}");
        } else {
            log::warn!("{root}: cannot watch for changes: {error}; retrying every second");
            has_failed = true;
        }
        Timer::after(RETRY_INTERVAL).await;
    }
}

/// Reads all descriptions again.
pub(super) async fn reload(disks: &Disks) {
    match read_all(disks).await {
        Ok(count) => log::info!("reloaded {count} .nbd files"),
        Err(error) => {
            let root = disks.root().path().display();
            log::warn!("{root}: cannot read the directory: {error}; nothing was reloaded");
        }
    }
}

/// Watches the directory. Returns when another one is mounted or linked at its path. Sets `has_failed` to `false` once that works.
///
/// # Errors
///
/// Fails if the directory cannot be watched or read, or was removed or renamed.
async fn watch_directory(disks: &Disks, has_failed: &mut bool) -> io::Result<()> {
    let root = disks.root();
    root.note_present().await?;
    let path = root.path().to_owned();
    let add = move || {
        let inotify = Inotify::init()?;
        // First: the descriptor of the directory itself is the same if the link is in it, and gets the mask below.
        let link = watch_link(&inotify, &path);
        let files = WatchMask::CLOSE_WRITE | WatchMask::CREATE | WatchMask::MOVED_TO;
        let removed = WatchMask::MOVED_FROM | WatchMask::DELETE;
        let directory = WatchMask::DELETE_SELF | WatchMask::MOVE_SELF | WatchMask::ONLYDIR;
        let watch = inotify.watches().add(path, files | removed | directory)?;
        Ok((inotify, link.filter(|(parent, _)| *parent != watch)))
    };
    let (mut inotify, link) = root.run(add).await?;
    let ready = Async::new(inotify.as_fd().try_clone_to_owned()?)?;
    // After the watch was added, so that no change between the two is missed.
    read_all(disks).await?;
    if mem::take(has_failed) {
        log::info!("{}: watching for changes again", root.path().display());
    }
    let mut buf = [0; 4096];
    loop {
        let events = match inotify.read_events(&mut buf) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let is_replaced = async {
                    root.replaced().await;
                    Ok(true)
                };
                let is_ready = async { ready.readable().await.map(|()| false) };
                if or(is_ready, is_replaced).await? {
                    log::info!("{}: another directory was mounted or linked there", root.path().display());
                    return Ok(());
                }
                continue;
            }
            events => events?,
        };
        for event in events {
            if event.mask.contains(EventMask::Q_OVERFLOW) {
                log::warn!("{}: too many changes at once; reading all .nbd files", root.path().display());
                read_all(disks).await?;
            } else if let Some((_, name)) = link.as_ref().filter(|(parent, _)| *parent == event.wd) {
                if event.name == Some(name.as_os_str()) {
                    // Notices another directory.
                    root.open().await?;
                }
            } else if event.mask.intersects(EventMask::DELETE_SELF | EventMask::MOVE_SELF | EventMask::IGNORED) {
                return Err(io::Error::other("the directory was removed or renamed"));
            } else if let Some(name) = event.name {
                let path = root.path().join(name);
                let check = |is_link: fn(&Path) -> bool| {
                    let path = path.clone();
                    root.run(move || Ok(is_link(&path)))
                };
                let is_new = event.mask.contains(EventMask::CREATE);
                match name.to_str().and_then(parse_file) {
                    // A new file is still empty and is read when its writer closes it. A new link is complete.
                    Some(file) if !is_new || check(is_link).await? => {
                        // Also for a removed file, since another one may have its name by now.
                        disks.prepare(&root.open().await?, file).await;
                    }
                    // Descriptions may be links that lead through this one, as in a volume of Kubernetes.
                    None if (is_new || event.mask.contains(EventMask::MOVED_TO))
                        && check(is_link_to_directory).await? =>
                    {
                        read_all(disks).await?;
                    }
                    _ => {}
                }
            }
        }
    }
}

/// Watches the directory that contains the link, if the path is a symbolic link, and returns the name of the link. If that directory
/// cannot be watched, the next request notices where the link leads. Blocks.
fn watch_link(inotify: &Inotify, path: &Path) -> Option<(WatchDescriptor, OsString)> {
    // Without a slash at the end, which would follow the link.
    let path = path.components().as_path();
    let name = path.file_name().filter(|_| path.is_symlink())?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let watch = inotify.watches().add(parent, WatchMask::CREATE | WatchMask::MOVED_TO).ok()?;
    Some((watch, name.to_owned()))
}

/// Reads all descriptions in the directory, and returns their number.
async fn read_all(disks: &Disks) -> io::Result<usize> {
    let root = disks.root().open().await?;
    let names = root.names().await?;
    let files: HashSet<NbdFile> = names.iter().filter_map(|name| parse_file(str::from_utf8(name).ok()?)).collect();
    disks.retain(&files);
    for file in &files {
        disks.prepare(&root, *file).await;
    }
    Ok(files.len())
}

/// Returns whether a path is a symbolic link or has further hard links. Blocks.
fn is_link(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|file| file.is_symlink() || file.nlink() > 1)
}

/// Returns whether a path is a symbolic link to a directory. Blocks.
fn is_link_to_directory(path: &Path) -> bool {
    path.is_symlink() && path.is_dir()
}

/// Parses the name of a description. Logs a warning if the name of a description, or of a client's directory, is
/// spelled incorrectly.
fn parse_file(file_name: &str) -> Option<NbdFile> {
    let intended = match NbdFile::parse(file_name) {
        Ok(file) => return Some(file),
        Err(Some(intended)) => intended.to_string(),
        Err(None) => ClientName::parse(file_name).err().flatten()?.to_string(),
    };
    log::warn!("{file_name}: ignored: rename to {intended}");
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
        guestfs::{HelperTimeouts, Launcher},
        memory::Memory,
    };

    const A: NbdFile = NbdFile::Client(ClientName::Ip(std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1))));
    const B: NbdFile = NbdFile::Client(ClientName::Ip(std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2))));

    /// The disks of a directory. None of them connects, since all descriptions in these tests are invalid.
    fn disks(root: &Path) -> Disks {
        let launcher = Launcher::new(HelperTimeouts::default());
        let minute = Duration::from_secs(60);
        let times = DiskTimeouts { idle: minute, view_gap: minute, open: minute, connect: minute, reply: minute };
        Disks::new(root.to_owned(), times, launcher, Arc::new(Executor::new()), None, Memory::unlimited())
    }

    /// Watches until exactly the descriptions in these files have been read.
    fn sees(watching: &mut (impl Future<Output = ()> + Unpin), disks: &Disks, files: &[NbdFile]) {
        let deadline = Instant::now() + Duration::from_secs(10);
        let seen = async {
            while disks.files() != files {
                assert!(Instant::now() < deadline, "expected {files:?}, found {:?}", disks.files());
                Timer::after(Duration::from_millis(1)).await;
            }
        };
        block_on(disks.executor().run(or(seen, watching)));
    }

    #[test]
    fn notices_descriptions_created_changed_and_removed_in_every_way() {
        let top = tempfile::tempdir().expect("a directory");
        let root = top.path().join("root");
        let (a, b) = (root.join("10.0.0.1.nbd"), root.join("10.0.0.2.nbd"));
        fs::create_dir(&root).expect("made");
        fs::write(&a, "there before").expect("written");
        let disks = disks(&root);
        let mut watching = pin!(watch(&disks));
        let mut sees = |files: &[NbdFile]| sees(&mut watching, &disks, files);
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

    /// A Kubernetes volume replaces the link `..data` to a directory, and leaves the links to its files as they are.
    #[test]
    fn notices_descriptions_changed_behind_a_link() {
        let root = tempfile::tempdir().expect("a directory");
        let in_root = |name: &str| root.path().join(name);
        for (version, content) in [("..1", "old"), ("..2", "new")] {
            fs::create_dir(in_root(version)).expect("made");
            fs::write(in_root(version).join("10.0.0.1.nbd"), content).expect("written");
        }
        symlink("..1", in_root("..data")).expect("linked");
        symlink("..data/10.0.0.1.nbd", in_root("10.0.0.1.nbd")).expect("linked");
        let disks = disks(root.path());
        let mut watching = pin!(watch(&disks));
        sees(&mut watching, &disks, &[A]);
        assert_eq!(disks.description(A), Some(Ok(b"old".to_vec())));
        symlink("..2", in_root("..data_tmp")).expect("linked");
        fs::rename(in_root("..data_tmp"), in_root("..data")).expect("renamed");
        let changed = async {
            while disks.description(A) != Some(Ok(b"new".to_vec())) {
                Timer::after(Duration::from_millis(1)).await;
            }
        };
        let timeout = async {
            Timer::after(Duration::from_secs(10)).await;
            panic!("the new description was not read");
        };
        block_on(or(changed, or(watching.as_mut(), timeout)));
    }

    #[test]
    fn notices_the_descriptions_of_another_directory_that_a_link_leads_to() {
        let top = tempfile::tempdir().expect("a directory");
        let at = |name: &str| top.path().join(name);
        for (release, file) in [("1", "10.0.0.1.nbd"), ("2", "10.0.0.2.nbd")] {
            fs::create_dir_all(at("releases").join(release)).expect("made");
            fs::write(at("releases").join(release).join(file), "").expect("written");
        }
        symlink("releases/1", at("current")).expect("linked");
        let disks = disks(&at("current/"));
        let mut watching = pin!(watch(&disks));
        sees(&mut watching, &disks, &[A]);
        for (release, file) in [("releases/2", B), ("releases/1", A)] {
            symlink(release, at("next")).expect("linked");
            fs::rename(at("next"), at("current")).expect("renamed");
            sees(&mut watching, &disks, &[file]);
        }
        // Not renamed, but made again.
        fs::remove_file(at("current")).expect("removed");
        symlink("releases/2", at("current")).expect("linked");
        sees(&mut watching, &disks, &[B]);
        fs::write(at("releases/2/10.0.0.1.nbd"), "").expect("written");
        sees(&mut watching, &disks, &[A, B]);
    }

    #[test]
    fn misses_no_change_when_the_queue_overflows() {
        let root = tempfile::tempdir().expect("a directory");
        let (a, b) = (root.path().join("10.0.0.1.nbd"), root.path().join("10.0.0.2.nbd"));
        fs::write(&a, "goes").expect("written");
        let disks = disks(root.path());
        let mut watching = pin!(watch(&disks));
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
        assert!(block_on(poll_once(&mut watching)).is_none(), "still watching");
        sees(&mut watching, &disks, &[B]);
    }
}
