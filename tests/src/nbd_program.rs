//! The NBD servers that can export the disks of the boards.

use std::{fs, path::Path};

use crate::NbdServer;

/// A way to export each file of a directory under its name, on a Unix socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NbdProgram {
    /// nbdkit with a thread for each connection.
    Nbdkit,
    /// nbdkit with its usual 16 threads for each connection.
    NbdkitThreads,
    /// One process with one thread for all sockets.
    StorageDaemon,
}

impl NbdProgram {
    /// All of them, with their names in arguments and tables. The first is the usual one.
    const ALL: [(&str, Self); 3] =
        [("nbdkit-t1", Self::Nbdkit), ("nbdkit", Self::NbdkitThreads), ("qemu-storage-daemon", Self::StorageDaemon)];

    /// Returns the programs with these names; the usual one without any.
    ///
    /// # Panics
    ///
    /// Panics if there is no such program.
    pub fn named(names: &[String]) -> Vec<Self> {
        let find = |name: &String| Self::ALL.iter().find(|(known, _)| known == name).expect("--nbd PROGRAM").1;
        if names.is_empty() { vec![Self::ALL[0].1] } else { names.iter().map(find).collect() }
    }

    /// Returns the name.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, program)| *program == self).map_or("", |(name, _)| name)
    }

    /// Exports each file of a directory under its name.
    pub fn start(self, directory: &Path, socket: &Path) -> NbdServer {
        let _ = fs::remove_file(socket);
        let files = format!("dir={}", directory.display());
        match self {
            Self::Nbdkit => {
                NbdServer::unix_with(socket, &["nbdkit", "-f", "-t", "1", "-U", path(socket), "file", &files])
            }
            Self::NbdkitThreads => NbdServer::unix_with(socket, &["nbdkit", "-f", "-U", path(socket), "file", &files]),
            Self::StorageDaemon => {
                let server = format!("addr.type=unix,addr.path={},max-connections=0", path(socket));
                let mut arguments = vec!["qemu-storage-daemon".to_owned(), "--nbd-server".into(), server];
                for (index, name) in names(directory).iter().enumerate() {
                    let file = directory.join(name).display().to_string();
                    arguments.extend([
                        "--blockdev".into(),
                        format!("driver=file,node-name=disk{index},filename={file},read-only=on"),
                        "--export".into(),
                        format!("type=nbd,id=disk{index},node-name=disk{index},name={name}"),
                    ]);
                }
                NbdServer::unix_with(socket, &arguments.iter().map(String::as_str).collect::<Vec<_>>())
            }
        }
    }
}

fn path(path: &Path) -> &str {
    path.to_str().expect("a path without odd bytes")
}

/// Returns the names of the files of a directory.
fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).expect("a directory");
    entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("a name")).collect()
}
