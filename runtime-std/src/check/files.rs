//! All files of a tree of directories, counted; whatever is in it, that ends.

use std::{
    collections::VecDeque,
    fmt,
    time::{Duration, Instant},
};

use smol::{Timer, future::or};

use super::{
    Limits,
    kernel::{Kernel, rank},
};
use crate::text::printable;

/// How many names are looked at.
pub(super) const MOST_NAMES: usize = 20_000;
/// How many directories below each other are looked into.
const DEEPEST: usize = 16;
/// How long looking may take, if nothing else was asked for.
const LONGEST: Duration = Duration::from_secs(30);
/// How many unreadable files are told by name.
const MOST_TOLD: usize = 10;

/// What is in a directory and all those below it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Files {
    /// How many regular files there are.
    pub count: u64,
    /// How long they are together, in bytes.
    pub bytes: u64,
    /// What is probably booted from here.
    pub kernel: Option<Kernel>,
    /// Why there may be more; `None` if this is all.
    pub cut: Option<Cut>,
    /// The first of what cannot be read: its path, and why.
    pub unreadable: Vec<(String, String)>,
    /// How many more cannot be read.
    pub untold: u64,
}

/// Why not all of a tree was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// It has too many names.
    Names,
    /// Some of its directories are too deep.
    Depth,
    /// It took too long.
    Time,
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Names => write!(f, "only the first {MOST_NAMES} names were looked at"),
            Self::Depth => write!(f, "what is more than {DEEPEST} directories deep was not looked at"),
            Self::Time => f.write_str("there was no time to look at all"),
        }
    }
}

/// A tree of directories.
pub(super) trait Tree {
    /// A directory of it.
    type Directory;

    /// The directory at its top.
    async fn top(&self) -> Result<Self::Directory, String>;

    /// Everything in a directory, by name; of more than [`MOST_NAMES`], it need not be all.
    async fn list(&self, directory: &Self::Directory) -> Result<Listing<Self::Directory>, String>;
}

/// The names in a directory, and what they stand for.
pub(super) type Listing<D> = Vec<(Vec<u8>, Item<D>)>;

/// Something in a directory.
#[derive(Debug)]
pub(super) enum Item<D> {
    /// A regular file that clients can get, and its length in bytes.
    File(u64),
    /// A directory.
    Directory(D),
    /// What is neither.
    Other,
    /// A file that clients cannot get, and why.
    Unreadable(String),
}

/// Looks at all of a tree, from the top down.
pub(super) async fn find<T: Tree>(tree: &T, limits: Limits) -> Files {
    let limit = LONGEST.min(limits.open);
    let until = Instant::now() + limit;
    let mut search = Search::default();
    let top = match tree.top().await {
        Ok(top) => top,
        Err(why) => {
            search.unreadable(b"", why);
            return search.files;
        }
    };
    let mut directories = VecDeque::from([(Vec::new(), 0, top)]);
    while let Some((path, depth, directory)) = directories.pop_front() {
        let late = async {
            Timer::at(until).await;
            None
        };
        match or(async { Some(tree.list(&directory).await) }, late).await {
            Some(Ok(list)) => {
                let below = search.add(&path, depth, list);
                directories.extend(below.into_iter().map(|(path, directory)| (path, depth + 1, directory)));
            }
            Some(Err(why)) => search.unreadable(&path, why),
            None => search.files.cut = Some(Cut::Time),
        }
        if matches!(search.files.cut, Some(Cut::Time | Cut::Names)) {
            break;
        }
    }
    search.files
}

/// What was found so far.
#[derive(Debug, Default)]
struct Search {
    files: Files,
    names: usize,
    /// How likely the kernel is one, less for more likely: its name's rank, its depth.
    likelihood: Option<(usize, usize)>,
}

impl Search {
    /// Takes in what a directory has, and gives the directories that are to be looked into.
    fn add<D>(&mut self, directory: &[u8], depth: usize, list: Listing<D>) -> Vec<(Vec<u8>, D)> {
        let mut below = Vec::new();
        for (name, item) in list {
            if self.names == MOST_NAMES {
                self.files.cut = Some(Cut::Names);
                break;
            }
            self.names += 1;
            let path = if directory.is_empty() { name.clone() } else { [directory, b"/", &name].concat() };
            match item {
                Item::File(size) => self.file(&path, depth, &name, size),
                Item::Directory(_) if depth == DEEPEST => self.files.cut = Some(Cut::Depth),
                Item::Directory(found) => below.push((path, found)),
                Item::Other => {}
                Item::Unreadable(why) => self.unreadable(&path, why),
            }
        }
        below
    }

    fn file(&mut self, path: &[u8], depth: usize, name: &[u8], size: u64) {
        self.files.count += 1;
        self.files.bytes = self.files.bytes.saturating_add(size);
        if let Some(rank) = rank(name)
            && self.likelihood.is_none_or(|known| (rank, depth) < known)
        {
            self.likelihood = Some((rank, depth));
            self.files.kernel = Some(Kernel { path: printable(path), size });
        }
    }

    fn unreadable(&mut self, path: &[u8], why: String) {
        if self.files.unreadable.len() < MOST_TOLD {
            let path = if path.is_empty() { "its top".into() } else { printable(path) };
            self.files.unreadable.push((path, why));
        } else {
            self.files.untold += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use smol::{block_on, future::pending};

    use super::*;

    const LIMITS: Limits = Limits { open: Duration::from_secs(60), answer: Duration::from_secs(60) };

    /// A tree whose directories are made up by a function, which gets the depth.
    struct Made<F>(F);

    impl<F: Fn(usize) -> Listing<usize>> Tree for Made<F> {
        type Directory = usize;

        async fn top(&self) -> Result<usize, String> {
            Ok(0)
        }

        async fn list(&self, depth: &usize) -> Result<Listing<usize>, String> {
            if *depth == usize::MAX {
                pending::<()>().await;
            }
            Ok((self.0)(*depth))
        }
    }

    fn named<D>(name: &str, item: Item<D>) -> (Vec<u8>, Item<D>) {
        (name.into(), item)
    }

    #[test]
    fn files_are_counted_and_the_likeliest_kernel_is_found() {
        let tree = Made(|depth| match depth {
            0 => vec![
                named("EFI", Item::Directory(2)),
                named("boot", Item::Directory(1)),
                named("config.txt", Item::File(10)),
                named("fifo", Item::Other),
            ],
            1 => vec![named("vmlinuz-1", Item::File(1000)), named("vmlinuz", Item::File(2000))],
            _ => vec![named("bootx64.efi", Item::File(7)), named("a\x1b[", Item::Unreadable("why".into()))],
        });
        let files = block_on(find(&tree, LIMITS));
        assert_eq!((files.count, files.bytes, files.cut), (4, 3017, None));
        assert_eq!(files.kernel, Some(Kernel { path: "boot/vmlinuz".into(), size: 2000 }));
        assert_eq!(files.unreadable, [("EFI/a\\u{1b}[".to_owned(), "why".to_owned())]);
    }

    #[test]
    fn a_tree_without_end_is_left() {
        let deep = Made(|depth| vec![named("file", Item::File(1)), named("deeper", Item::Directory(depth + 1))]);
        let files = block_on(find(&deep, LIMITS));
        assert_eq!((files.count, files.cut), (DEEPEST as u64 + 1, Some(Cut::Depth)));

        let wide = Made(|_| (0..1000).map(|_| named("directory", Item::Directory(0))).collect());
        assert_eq!(block_on(find(&wide, LIMITS)).cut, Some(Cut::Names));

        let stuck = Made(|_| vec![named("file", Item::File(1)), named("stuck", Item::Directory(usize::MAX))]);
        let files = block_on(find(&stuck, Limits { open: Duration::from_millis(100), ..LIMITS }));
        assert_eq!((files.count, files.cut), (1, Some(Cut::Time)));
    }

    #[test]
    fn of_many_unreadable_files_the_first_are_told() {
        let tree = Made(|_| (0..25).map(|_| named("file", Item::Unreadable("why".into()))).collect());
        let files = block_on(find(&tree, LIMITS));
        assert_eq!((files.unreadable.len(), files.untold), (MOST_TOLD, 15));
    }
}
