//! The root directory: files appear as a whole, and only those that this program has made are removed.

use std::{
    collections::BTreeMap,
    fmt,
    fs::{self, File, Metadata, Permissions},
    io::{self, ErrorKind, Write},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    thread,
};

use rustix::fs::{FlockOperation, flock};

use crate::{
    key::{Refusal, parents},
    record::Record,
};

/// The directory of this program in the root directory. Clients cannot reach it, nor can a key.
const OWN_DIRECTORY: &str = ".rtftp-etcd";
/// The maximum number of files, and of their bytes.
const MAX_FILES: usize = 200_000;
const MAX_BYTES: u64 = 1 << 30;
/// The number of files that one thread writes to the disk. The file system does that for several threads at once.
const FILES_PER_THREAD: usize = 32;
/// The maximum number of files under temporary names, which are open.
const MAX_STAGED: usize = 256;

/// A change of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    Put(Vec<u8>),
    Delete,
}

/// An error of the root directory.
#[derive(Debug)]
pub(crate) struct RootError {
    path: PathBuf,
    error: io::Error,
}

impl fmt::Display for RootError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let remedy = match self.error.kind() {
            ErrorKind::WouldBlock => {
                return write!(f, "{}: another rtftp-etcd uses this directory", self.path.display());
            }
            ErrorKind::PermissionDenied => ": the user of rtftp-etcd must be able to write there",
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => ": make space",
            ErrorKind::NotFound => ": does the directory exist?",
            _ => "",
        };
        write!(f, "cannot write {}: {}{remedy}", self.path.display(), self.error)
    }
}

/// Returns a function that adds a path to an error.
fn at(path: &Path) -> impl FnOnce(io::Error) -> RootError {
    |error| RootError { path: path.to_owned(), error }
}

/// The result of changes.
#[derive(Debug, Default)]
pub(crate) struct Applied {
    /// The files that were written or removed.
    pub(crate) written: Vec<String>,
    pub(crate) removed: Vec<String>,
    /// The keys that did not become files.
    pub(crate) refused: Vec<(String, Refusal)>,
    /// The first error.
    pub(crate) error: Option<RootError>,
}

/// The root directory.
#[derive(Debug)]
pub(crate) struct Root {
    path: PathBuf,
    /// Open, and so locked, while this program uses the directory.
    _lock: File,
    record: Record,
    /// The sizes of the files that this program has made.
    sizes: BTreeMap<String, u64>,
    bytes: u64,
    next_temporary: u64,
}

impl Root {
    /// Opens a directory, which no other process may use, and removes temporary files of an earlier run.
    pub(crate) fn open(path: &Path) -> Result<Self, RootError> {
        let lock = File::open(path).map_err(at(path))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|error| at(path)(error.into()))?;
        let own = path.join(OWN_DIRECTORY);
        match fs::create_dir(&own) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(at(&own)(error)),
            _ => fs::set_permissions(&own, Permissions::from_mode(0o700)).map_err(at(&own))?,
        }
        for entry in fs::read_dir(&own).map_err(at(&own))?.filter_map(Result::ok) {
            if entry.file_name().to_str().is_some_and(|name| name.starts_with("new-")) {
                fs::remove_file(entry.path()).map_err(at(&entry.path()))?;
            }
        }
        let files = own.join("files");
        let record = Record::open(&files).map_err(at(&files))?;
        let size = |name: &str| Some((name.to_owned(), fs::symlink_metadata(path.join(name)).ok()?.len()));
        let sizes: BTreeMap<_, _> = record.files().filter_map(size).collect();
        let bytes = sizes.values().sum();
        Ok(Self { path: path.to_owned(), _lock: lock, record, sizes, bytes, next_temporary: 0 })
    }

    /// Returns the path of the directory.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the files that this program has made.
    pub(crate) fn files(&self) -> impl Iterator<Item = &str> {
        self.record.files()
    }

    /// Applies changes: first removes files, then writes files, which appear as a whole once they are on the disk. Goes on after errors.
    pub(crate) fn apply(&mut self, changes: BTreeMap<String, Change>) -> Applied {
        let mut applied = Applied::default();
        for (path, change) in &changes {
            if *change == Change::Delete && self.record.contains(path) {
                match self.remove(path) {
                    Ok(()) => applied.removed.push(path.clone()),
                    Err(error) => drop(applied.error.get_or_insert(error)),
                }
            }
        }
        let mut staged = vec![];
        for (path, change) in changes {
            let Change::Put(contents) = change else { continue };
            match self.prepare(&path, &contents).and_then(|plan| self.stage(plan, path, &contents, &mut applied)) {
                Ok(file) => staged.extend(file),
                Err(error) => drop(applied.error.get_or_insert(error)),
            }
            if staged.len() == MAX_STAGED {
                self.publish(std::mem::take(&mut staged), &mut applied);
            }
        }
        self.publish(staged, &mut applied);
        applied
    }

    /// Removes a file, and the directories that become empty and that this program has made.
    fn remove(&mut self, path: &str) -> Result<(), RootError> {
        let file = self.path.join(path);
        match fs::remove_file(&file) {
            // A person may have removed it.
            Err(error) if !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::IsADirectory) => {
                return Err(at(&file)(error));
            }
            _ => {}
        }
        self.bytes -= self.sizes.remove(path).unwrap_or(0);
        self.record.remove(path).map_err(at(&self.path))?;
        for directory in parents(path).rev() {
            let recorded = format!("{directory}/");
            if !self.record.contains(&recorded) || fs::remove_dir(self.path.join(directory)).is_err() {
                break;
            }
            self.record.remove(&recorded).map_err(at(&self.path))?;
        }
        Ok(())
    }

    /// Decides what to do with a value, and makes the directories of its file.
    fn prepare(&mut self, path: &str, contents: &[u8]) -> Result<Plan, RootError> {
        let file = self.path.join(path);
        for directory in parents(path) {
            let above = self.path.join(directory);
            if self.sizes.contains_key(directory) {
                return Ok(Plan::Refuse(Refusal::Conflict));
            }
            match metadata(&above)? {
                Some(found) if found.is_dir() => {}
                Some(_) => return Ok(Plan::Refuse(Refusal::Exists)),
                None => {
                    self.record.add([&*format!("{directory}/")]).map_err(at(&above))?;
                    make_directory(&above).map_err(at(&above))?;
                }
            }
        }
        match metadata(&file)? {
            Some(found) if found.is_dir() && self.record.contains(&format!("{path}/")) => {
                return Ok(Plan::Refuse(Refusal::Conflict));
            }
            Some(found) if found.is_dir() || !self.record.contains(path) => return Ok(Plan::Refuse(Refusal::Exists)),
            Some(found)
                if found.is_file()
                    && found.len() == contents.len() as u64
                    && fs::read(&file).map_err(at(&file))? == contents =>
            {
                return Ok(Plan::Keep);
            }
            _ => {}
        }
        let size = self.sizes.get(path).copied();
        let is_full = size.is_none() && self.sizes.len() >= MAX_FILES;
        let bytes = self.bytes - size.unwrap_or(0) + contents.len() as u64;
        Ok(if is_full || bytes > MAX_BYTES { Plan::Refuse(Refusal::Limit) } else { Plan::Write })
    }

    /// Writes a file under a temporary name, if that is the plan.
    fn stage(
        &mut self,
        plan: Plan,
        path: String,
        contents: &[u8],
        applied: &mut Applied,
    ) -> Result<Option<Staged>, RootError> {
        match plan {
            Plan::Keep => return Ok(None),
            Plan::Refuse(refusal) => {
                applied.refused.push((path, refusal));
                return Ok(None);
            }
            Plan::Write => {}
        }
        let temporary = self.path.join(OWN_DIRECTORY).join(format!("new-{}", self.next_temporary));
        self.next_temporary += 1;
        let file = File::create_new(&temporary).map_err(at(&temporary))?;
        let staged = Staged { path, temporary, file };
        write(&staged.file, contents).map_err(at(&self.path.join(&staged.path)))?;
        self.count(&staged.path, contents.len() as u64);
        Ok(Some(staged))
    }

    /// Counts a file of this size.
    fn count(&mut self, path: &str, size: u64) {
        self.bytes += size;
        self.bytes -= self.sizes.insert(path.to_owned(), size).unwrap_or(0);
    }

    /// Writes temporary files to the disk, and gives them their names.
    fn publish(&mut self, staged: Vec<Staged>, applied: &mut Applied) {
        let recorded = self.record.add(staged.iter().map(|staged| &*staged.path));
        let synced = recorded.and_then(|()| sync(&staged));
        if let Err(error) = synced {
            applied.error.get_or_insert(at(&self.path)(error));
            return;
        }
        for staged in staged {
            let file = self.path.join(&staged.path);
            match fs::rename(&staged.temporary, &file) {
                Ok(()) => applied.written.push(staged.path.clone()),
                Err(error) => drop(applied.error.get_or_insert(at(&file)(error))),
            }
        }
    }
}

/// What to do with a value.
#[derive(Debug, PartialEq, Eq)]
enum Plan {
    Write,
    /// The file has these contents already.
    Keep,
    Refuse(Refusal),
}

/// A new file under a temporary name; removed when dropped, unless it has got its own.
struct Staged {
    path: String,
    temporary: PathBuf,
    file: File,
}

impl Drop for Staged {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.temporary);
    }
}

/// Writes files to the disk.
fn sync(staged: &[Staged]) -> io::Result<()> {
    let sync = |staged: &[Staged]| staged.iter().try_for_each(|staged| staged.file.sync_all());
    if staged.len() <= FILES_PER_THREAD {
        return sync(staged);
    }
    thread::scope(|scope| {
        let threads: Vec<_> = staged.chunks(FILES_PER_THREAD).map(|part| scope.spawn(move || sync(part))).collect();
        threads.into_iter().try_for_each(|thread| thread.join().unwrap_or_else(|_| Err(io::Error::other("a panic"))))
    })
}

/// Returns the metadata of a path, without following a link at its end.
fn metadata(path: &Path) -> Result<Option<Metadata>, RootError> {
    match fs::symlink_metadata(path) {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(at(path)(error)),
    }
}

/// Makes a directory that every user can read.
fn make_directory(path: &Path) -> io::Result<()> {
    fs::create_dir(path)?;
    fs::set_permissions(path, Permissions::from_mode(0o755))
}

/// Writes a file, and lets every user read it.
fn write(mut file: &File, contents: &[u8]) -> io::Result<()> {
    file.write_all(contents)?;
    file.set_permissions(Permissions::from_mode(0o644))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn put(contents: &str) -> Change {
        Change::Put(contents.into())
    }

    fn apply<const N: usize>(root: &mut Root, changes: [(&str, Change); N]) -> Applied {
        let applied = root.apply(changes.into_iter().map(|(path, change)| (path.to_owned(), change)).collect());
        assert!(applied.error.is_none(), "{applied:?}");
        applied
    }

    #[test]
    fn writes_replaces_and_removes_its_own_files_only() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = |name: &str| directory.path().join(name);
        fs::create_dir(path("default")).expect("created");
        fs::write(path("default/own"), "a person's").expect("written");
        symlink("/", path("link")).expect("linked");
        let mut root = Root::open(directory.path()).expect("a root");
        let values = [("10.0.0.5.nbd", put("1")), ("default/a", put("2")), ("10.0.0.5/b/c", put("3"))];
        assert_eq!(apply(&mut root, values.clone()).written.len(), 3);
        assert_eq!(apply(&mut root, values).written, Vec::<String>::new(), "unchanged");
        let applied = apply(&mut root, [("default/own", put("x")), ("link/x", put("x")), ("default", put("x"))]);
        assert_eq!(applied.refused.iter().map(|(_, refusal)| *refusal).collect::<Vec<_>>(), [Refusal::Exists; 3]);
        for change in [Change::Delete, put("4")] {
            drop(root);
            root = Root::open(directory.path()).expect("a root");
            let applied = apply(&mut root, [("10.0.0.5/b/c", change), ("default/own", Change::Delete)]);
            assert_eq!(applied.removed.len() + applied.written.len(), 1);
            let exists = ["10.0.0.5", "10.0.0.5/b/c", "default/own"].map(|name| path(name).exists());
            assert_eq!(exists, [!applied.written.is_empty(), !applied.written.is_empty(), true]);
        }
        let applied = apply(&mut root, [("default/a", Change::Delete)]);
        assert_eq!((applied.removed, path("default").exists()), (vec!["default/a".to_owned()], true));
    }

    #[test]
    fn refuses_a_key_that_is_the_directory_of_another_one() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut root = Root::open(directory.path()).expect("a root");
        let conflict = |path: &str| vec![(path.to_owned(), Refusal::Conflict)];
        assert_eq!(apply(&mut root, [("a", put("1")), ("a/b", put("2"))]).refused, conflict("a/b"));
        assert_eq!(apply(&mut root, [("a/b", put("2"))]).refused, conflict("a/b"));
        assert_eq!(apply(&mut root, [("a", Change::Delete), ("a/b", put("2"))]).written, ["a/b"]);
        assert_eq!(apply(&mut root, [("a", put("1"))]).refused, conflict("a"));
    }

    #[test]
    fn is_used_by_one_process_only() {
        let directory = tempfile::tempdir().expect("a directory");
        let root = Root::open(directory.path()).expect("a root");
        let error = Root::open(directory.path()).expect_err("in use").to_string();
        assert!(error.ends_with("another rtftp-etcd uses this directory"), "{error}");
        drop(root);
        fs::write(directory.path().join(OWN_DIRECTORY).join("new-7"), "left").expect("written");
        Root::open(directory.path()).expect("a root");
        assert!(!directory.path().join(OWN_DIRECTORY).join("new-7").exists());
    }

    #[test]
    fn writes_many_files_in_parts() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut root = Root::open(directory.path()).expect("a root");
        let values = (0..600).map(|number| (format!("d/{number}"), put("x"))).collect();
        let applied = root.apply(values);
        assert!(applied.error.is_none(), "{:?}", applied.error);
        assert_eq!((applied.written.len(), fs::read_dir(directory.path().join("d")).expect("d").count()), (600, 600));
    }
}
