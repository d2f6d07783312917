//! The root directory, opened once for requests that have arrived together.

use std::{io, sync::Arc};

use smol::lock::OnceCell;

use super::root::{OpenRoot, RootDirectory};

/// The root directory for requests that have arrived together. The first of them that needs it opens it, after all have arrived: so
/// each finds the files as they are at its arrival or later. A request that arrives afterwards needs another `SharedRoot`.
#[derive(Debug)]
pub(crate) struct SharedRoot {
    root: Arc<RootDirectory>,
    opened: OnceCell<OpenRoot>,
}

impl SharedRoot {
    pub(crate) fn new(root: Arc<RootDirectory>) -> Self {
        Self { root, opened: OnceCell::new() }
    }

    /// Returns the directory, opened now or by another of the requests.
    ///
    /// # Errors
    ///
    /// Those of [`RootDirectory::open`]. The next request tries again.
    pub(crate) async fn open(&self) -> io::Result<&OpenRoot> {
        self.opened.get_or_try_init(|| self.root.open()).await
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path, time::Duration};

    use smol::block_on;

    use super::*;

    fn read(root: &SharedRoot) -> io::Result<String> {
        let opened = block_on(root.open())?;
        io::read_to_string(block_on(opened.open_in("default", Path::new("f")))?.file())
    }

    #[test]
    fn is_opened_once_after_its_requests_have_arrived() {
        let top = tempfile::tempdir().expect("a directory");
        let [path, old] = ["root", "old"].map(|name| top.path().join(name));
        let root = RootDirectory::new(path.clone(), Duration::from_secs(10));
        let shared = SharedRoot::new(root.clone());
        assert_eq!(read(&shared).expect_err("no directory").kind(), io::ErrorKind::NotFound);
        let create = |content: &str| {
            fs::create_dir_all(path.join("default")).expect("created");
            fs::write(path.join("default/f"), content).expect("written");
        };
        create("old");
        assert_eq!(read(&shared).expect("opened now"), "old");
        fs::rename(&path, old).expect("renamed");
        create("new");
        assert_eq!(read(&shared).expect("still open"), "old");
        assert_eq!(read(&SharedRoot::new(root)).expect("a request that arrives later"), "new");
    }

    /// On a tmpfs, whose calls never wait.
    #[test]
    fn directory_of_the_first_request_is_opened_once() {
        let top = tempfile::tempdir_in("/dev/shm").expect("a directory");
        let at = |name: &str| top.path().join(name);
        let create = |directory: &str, content: &str| {
            fs::create_dir(at(directory)).expect("created");
            fs::write(at(directory).join("f"), content).expect("written");
        };
        create("default", "old");
        create("10.0.0.5", "another directory");
        let root = RootDirectory::new(top.path().to_owned(), Duration::from_secs(10));
        block_on(root.open()).expect("a local file system from now on");
        let shared = SharedRoot::new(root.clone());
        assert_eq!(read(&shared).expect("the first request"), "old");
        fs::rename(at("default"), at("unused")).expect("renamed");
        create("default", "new");
        assert_eq!(read(&shared).expect("still open"), "old");
        let opened = block_on(shared.open()).expect("open");
        let other = block_on(opened.open_in("10.0.0.5", Path::new("f"))).expect("a file");
        assert_eq!(io::read_to_string(other.file()).expect("read"), "another directory");
        assert_eq!(read(&SharedRoot::new(root)).expect("a request that arrives later"), "new");
    }
}
