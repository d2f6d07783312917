//! A `ConfigMap` of Kubernetes as the root directory, exchanged as the kubelet does it.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    time::Duration,
};

use rtftp_tests::{NbdServer, Rtftp, board_config, board_disk, not_tested, poll_until, raw_client::rrq};

const BOARD: &str = "127.0.0.7";
const SOON: Duration = Duration::from_secs(20);

/// A mounted `ConfigMap`: the files are in a directory of their version, to which the link `..data` leads, and each name in the mount
/// is a link through `..data`.
struct ConfigMap {
    mount: PathBuf,
    versions: u32,
}

impl ConfigMap {
    fn mounted_at(mount: &Path) -> Self {
        Self { mount: mount.to_owned(), versions: 0 }
    }

    /// Exchanges all files: writes the new version, swaps `..data`, and then adds and removes links. A path with directories comes
    /// from `items:` in the volume.
    fn update(&mut self, files: &[(&str, &str)]) {
        let old = self.versions.to_string();
        self.versions += 1;
        let version = format!("..2026_11_29_12_00_00.{}", self.versions);
        for (path, content) in files {
            let path = self.mount.join(&version).join(path);
            fs::create_dir_all(path.parent().expect("a directory")).expect("created");
            fs::write(path, content).expect("written");
        }
        symlink(&version, self.mount.join("..data_tmp")).expect("linked");
        fs::rename(self.mount.join("..data_tmp"), self.mount.join("..data")).expect("renamed");
        let names: BTreeSet<_> = files.iter().filter_map(|(path, _)| path.split('/').next()).collect();
        for name in &names {
            if !self.mount.join(name).is_symlink() {
                symlink(format!("..data/{name}"), self.mount.join(name)).expect("linked");
            }
        }
        for entry in fs::read_dir(&self.mount).expect("a directory").map(|entry| entry.expect("an entry")) {
            let name = entry.file_name().into_string().expect("UTF-8");
            if !name.starts_with("..") && !names.contains(&*name) {
                fs::remove_file(entry.path()).expect("removed");
            }
            if name.starts_with("..2026") && name.ends_with(&format!(".{old}")) {
                fs::remove_dir_all(entry.path()).expect("removed");
            }
        }
    }
}

/// Starts a daemon in a sandbox on a mounted `ConfigMap`.
fn start() -> (Rtftp, ConfigMap) {
    let daemon = Rtftp::start();
    if daemon.log_lines(&["sandbox enabled"]).is_empty() {
        not_tested("the sandbox: this kernel has no Landlock");
    }
    let map = ConfigMap::mounted_at(&daemon.path(""));
    (daemon, map)
}

#[test]
fn serves_the_files_of_the_present_version_at_once() {
    let (daemon, mut map) = start();
    for version in ["1", "2", "3", "4"] {
        let own = format!("{BOARD}/file");
        let mut files = vec![("default/file", version), ("default/a/b/file", version)];
        if version != "3" {
            files.push((&own, "own"));
        }
        map.update(&files);
        assert_eq!(daemon.fetch("127.0.0.8", "file").as_deref(), Ok(version));
        assert_eq!(daemon.fetch("127.0.0.8", "a/b/file").as_deref(), Ok(version));
        let expected = if version == "3" { version } else { "own" };
        assert_eq!(daemon.fetch(BOARD, "file").as_deref(), Ok(expected), "a name that comes and goes");
    }
    map.update(&[("default/other", "5")]);
    assert_eq!(daemon.fetch("127.0.0.8", "file"), Err(1), "a removed key");
}

#[test]
fn transfer_completes_after_its_version_was_removed() {
    let (daemon, mut map) = start();
    let content = "x".repeat(100_000);
    map.update(&[("default/file", &content)]);
    let mut client = daemon.client(BOARD);
    let first = client.exchange(&rrq("file", &[]));
    map.update(&[("default/file", "new")]);
    assert_eq!(client.finish(first).as_deref(), Ok(content.as_bytes()));
    assert_eq!(daemon.fetch(BOARD, "file").as_deref(), Ok("new"));
}

#[test]
fn connects_the_disks_of_the_present_version_ahead() {
    let disks = [board_disk(1), board_disk(2)];
    let servers = [NbdServer::nbdkit(&disks[0]), NbdServer::nbdkit(&disks[1])];
    let [first, second] = [0, 1].map(|index| board_config(&servers[index]).tftp_root("/boot").to_string());
    let (daemon, mut map) = start();
    let description = format!("{BOARD}.nbd");
    let connected = |count: usize| {
        poll_until("a connected disk", SOON, || {
            (daemon.log_lines(&[&description, " connected"]).len() >= count).then_some(())
        });
    };
    map.update(&[(&description, &first)]);
    connected(1);
    assert_eq!(daemon.fetch(BOARD, "dir/name").as_deref(), Ok("board 1"));
    // Without a request.
    map.update(&[(&description, &second)]);
    connected(2);
    assert_eq!(daemon.fetch(BOARD, "dir/name").as_deref(), Ok("board 2"));
    map.update(&[("default/file", "default")]);
    daemon.logged(&[&description, "removed"]);
    assert_eq!(daemon.fetch(BOARD, "file").as_deref(), Ok("default"));
    assert_eq!(daemon.fetch(BOARD, "dir/name"), Err(1), "the disk is not described any more");
}

#[test]
fn serves_the_disk_of_the_description_at_the_time_of_the_request() {
    let disks = [board_disk(1), board_disk(2)];
    let servers = [NbdServer::nbdkit(&disks[0]), NbdServer::nbdkit(&disks[1])];
    let (daemon, mut map) = start();
    for board in [0, 1, 0] {
        let description = board_config(&servers[board]).tftp_root("/boot").to_string();
        map.update(&[("default.nbd", &description)]);
        let expected = format!("board {}", board + 1);
        assert_eq!(daemon.fetch(BOARD, "dir/name").as_deref(), Ok(&*expected));
    }
}
