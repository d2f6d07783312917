//! Counts the files of a directory tree, within limits of names, depth and time.

use std::{
    collections::VecDeque,
    fmt,
    time::{Duration, Instant},
};

use rtftp_core::RequestPath;
use serde::{Serialize, Serializer};

use super::{
    Limits,
    kernel::{Kernel, rank},
    problem::ProblemKind,
};
use crate::{clock, http, text::printable};

/// The number of names that are read.
pub(super) const MAX_NAMES: usize = 20_000;
/// The depth of directories that are read.
const MAX_DEPTH: usize = 16;
/// The time limit of a scan.
const MAX_DURATION: Duration = Duration::from_secs(30);
/// The number of unreadable files that are reported by name.
const MAX_REPORTED: usize = 10;

/// The files in a directory and all its subdirectories.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Files {
    /// The number of regular files.
    pub count: u64,
    /// Their total size in bytes.
    pub bytes: u64,
    /// The most likely kernel or boot loader.
    pub kernel: Option<Kernel>,
    /// The reason why files are missing here; `None` if these are all.
    #[serde(serialize_with = "incomplete_text")]
    pub incomplete: Option<Incomplete>,
    /// The first unreadable files: path and reason.
    #[serde(skip)]
    pub unreadable: Vec<(String, String)>,
    /// The number of further unreadable files.
    #[serde(skip)]
    pub more_unreadable: u64,
}

/// The reason why a scan did not read the whole tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Incomplete {
    /// The tree has too many names.
    Names,
    /// Some directories are too deep.
    Depth,
    /// The time limit was reached.
    Time,
}

impl fmt::Display for Incomplete {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Names => write!(f, "only the first {MAX_NAMES} names were checked"),
            Self::Depth => write!(f, "directories more than {MAX_DEPTH} levels deep were not checked"),
            Self::Time => f.write_str("the time limit was reached before all files were checked"),
        }
    }
}

fn incomplete_text<S: Serializer>(incomplete: &Option<Incomplete>, serializer: S) -> Result<S::Ok, S::Error> {
    incomplete.map(|reason| reason.to_string()).serialize(serializer)
}

impl Files {
    /// Returns a problem for each unreadable file.
    pub(super) fn problems(&self) -> impl Iterator<Item = ProblemKind> {
        let reported = self.unreadable.iter().cloned();
        let reported = reported.map(|(path, reason)| ProblemKind::UnreadableFile { path, reason });
        reported.chain((self.more_unreadable > 0).then_some(ProblemKind::MoreUnreadableFiles(self.more_unreadable)))
    }
}

/// A directory tree.
pub(super) trait Tree {
    /// A directory of the tree.
    type Directory;

    /// Returns the root directory of the tree.
    async fn root(&self) -> Result<Self::Directory, String>;

    /// Lists a directory; of more than [`MAX_NAMES`] names, it may leave some out.
    async fn list(&self, directory: &Self::Directory) -> Result<Listing<Self::Directory>, String>;

    /// Returns up to `len` bytes from the start of a file; `None` if it cannot be read.
    async fn read_start(&self, path: &RequestPath, len: u32) -> Option<Vec<u8>>;
}

/// The names in a directory and their types.
pub(super) type Listing<D> = Vec<(Vec<u8>, Entry<D>)>;

/// The type of a directory entry.
#[derive(Debug)]
pub(super) enum Entry<D> {
    /// A regular file that clients can read, and its size in bytes.
    File(u64),
    /// A directory.
    Directory(D),
    /// Neither a file nor a directory.
    Other,
    /// A file that clients cannot read, and the reason.
    Unreadable(String),
}

/// Scans a tree, breadth first.
pub(super) async fn scan<T: Tree>(tree: &T, limits: Limits) -> Files {
    let deadline = Instant::now() + MAX_DURATION.min(limits.open);
    let mut scan = Scan::default();
    let root = match tree.root().await {
        Ok(root) => root,
        Err(reason) => {
            scan.add_unreadable(b"", reason);
            return scan.files;
        }
    };
    let mut directories = VecDeque::from([(Vec::new(), 0, root)]);
    while let Some((path, depth, directory)) = directories.pop_front() {
        match clock::until(deadline, tree.list(&directory)).await {
            Some(Ok(listing)) => {
                let subdirectories = scan.add(&path, depth, listing);
                directories.extend(subdirectories.into_iter().map(|(path, directory)| (path, depth + 1, directory)));
            }
            Some(Err(reason)) => scan.add_unreadable(&path, reason),
            None => scan.files.incomplete = Some(Incomplete::Time),
        }
        if matches!(scan.files.incomplete, Some(Incomplete::Time | Incomplete::Names)) {
            break;
        }
    }
    let Scan { mut files, kernel_path, .. } = scan;
    if let (Some(kernel), Ok(path)) = (&mut files.kernel, RequestPath::parse(&kernel_path)) {
        let content_type =
            async { Some(http::content_type(path.as_bytes(), &tree.read_start(&path, http::TYPE_BYTES).await?)) };
        kernel.content_type = clock::until(deadline, content_type).await.flatten();
    }
    files
}

/// The result of a scan so far.
#[derive(Debug, Default)]
struct Scan {
    files: Files,
    names: usize,
    /// The rank of the kernel's name and its depth; the smallest wins.
    kernel_rank: Option<(usize, usize)>,
    kernel_path: Vec<u8>,
}

impl Scan {
    /// Adds a directory's entries; returns its subdirectories.
    fn add<D>(&mut self, directory: &[u8], depth: usize, listing: Listing<D>) -> Vec<(Vec<u8>, D)> {
        let mut subdirectories = Vec::new();
        for (name, entry) in listing {
            if self.names == MAX_NAMES {
                self.files.incomplete = Some(Incomplete::Names);
                break;
            }
            self.names += 1;
            let path = if directory.is_empty() { name.clone() } else { [directory, b"/", &name].concat() };
            match entry {
                Entry::File(size) => self.add_file(&path, depth, &name, size),
                Entry::Directory(_) if depth == MAX_DEPTH => self.files.incomplete = Some(Incomplete::Depth),
                Entry::Directory(directory) => subdirectories.push((path, directory)),
                Entry::Other => {}
                Entry::Unreadable(reason) => self.add_unreadable(&path, reason),
            }
        }
        subdirectories
    }

    fn add_file(&mut self, path: &[u8], depth: usize, name: &[u8], size: u64) {
        self.files.count += 1;
        self.files.bytes = self.files.bytes.saturating_add(size);
        if let Some(rank) = rank(name)
            && self.kernel_rank.is_none_or(|known| (rank, depth) < known)
        {
            self.kernel_rank = Some((rank, depth));
            self.kernel_path = path.to_vec();
            self.files.kernel = Some(Kernel::new(path, size));
        }
    }

    fn add_unreadable(&mut self, path: &[u8], reason: String) {
        if self.files.unreadable.len() < MAX_REPORTED {
            self.files.unreadable.push((printable(path), reason));
        } else {
            self.files.more_unreadable += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use smol::{block_on, future::pending};

    use super::*;

    const LIMITS: Limits = Limits { open: Duration::from_secs(60), answer: Duration::from_secs(60) };

    /// A tree whose directories are generated by a function of the depth.
    struct GeneratedTree<F>(F);

    impl<F: Fn(usize) -> Listing<usize>> Tree for GeneratedTree<F> {
        type Directory = usize;

        async fn root(&self) -> Result<usize, String> {
            Ok(0)
        }

        async fn read_start(&self, _: &RequestPath, _: u32) -> Option<Vec<u8>> {
            Some(vec![])
        }

        async fn list(&self, depth: &usize) -> Result<Listing<usize>, String> {
            if *depth == usize::MAX {
                pending::<()>().await;
            }
            Ok((self.0)(*depth))
        }
    }

    fn entry<D>(name: &str, entry: Entry<D>) -> (Vec<u8>, Entry<D>) {
        (name.into(), entry)
    }

    #[test]
    fn counts_files_and_finds_the_most_likely_kernel() {
        let tree = GeneratedTree(|depth| match depth {
            0 => vec![
                entry("EFI", Entry::Directory(2)),
                entry("boot", Entry::Directory(1)),
                entry("config.txt", Entry::File(10)),
                entry("fifo", Entry::Other),
            ],
            1 => vec![entry("vmlinuz-1", Entry::File(1000)), entry("vmlinuz", Entry::File(2000))],
            _ => vec![entry("bootx64.efi", Entry::File(7)), entry("a\x1b[", Entry::Unreadable("reason".into()))],
        });
        let files = block_on(scan(&tree, LIMITS));
        assert_eq!((files.count, files.bytes, files.incomplete), (4, 3017, None));
        let content_type = Some("application/octet-stream");
        assert_eq!(files.kernel, Some(Kernel { content_type, ..Kernel::new(b"boot/vmlinuz", 2000) }));
        assert_eq!(files.unreadable, [("EFI/a\\u{1b}[".to_owned(), "reason".to_owned())]);
    }

    #[test]
    fn stops_at_the_limits_of_depth_names_and_time() {
        let deep =
            GeneratedTree(|depth| vec![entry("file", Entry::File(1)), entry("deeper", Entry::Directory(depth + 1))]);
        let files = block_on(scan(&deep, LIMITS));
        assert_eq!((files.count, files.incomplete), (MAX_DEPTH as u64 + 1, Some(Incomplete::Depth)));

        let wide = GeneratedTree(|_| (0..1000).map(|_| entry("directory", Entry::Directory(0))).collect());
        assert_eq!(block_on(scan(&wide, LIMITS)).incomplete, Some(Incomplete::Names));

        let stuck =
            GeneratedTree(|_| vec![entry("file", Entry::File(1)), entry("stuck", Entry::Directory(usize::MAX))]);
        let files = block_on(scan(&stuck, Limits { open: Duration::from_millis(100), ..LIMITS }));
        assert_eq!((files.count, files.incomplete), (1, Some(Incomplete::Time)));
    }

    #[test]
    fn reports_the_first_unreadable_files_and_counts_the_others() {
        let tree = GeneratedTree(|_| (0..25).map(|_| entry("file", Entry::Unreadable("reason".into()))).collect());
        let files = block_on(scan(&tree, LIMITS));
        assert_eq!((files.unreadable.len(), files.more_unreadable), (MAX_REPORTED, 15));
    }
}
