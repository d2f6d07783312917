//! From the path that a client asks for to the file that it means, symbolic links included.
//!
//! Every name is looked up by itself, so that no link is ever followed by somebody else (the kernel of the machine that looks):
//! whatever the links on a disk say, nothing outside of the directory that is served can be named.

use std::fmt;

use rtftp_core::wire::path::RequestPath;

/// The greatest number of links that one path may go through, as in Linux.
const MAX_LINKS: usize = 40;

/// The questions that a mounted disk answers. A path is absolute and its directories are real ones, never links.
pub(crate) trait Lookup {
    /// What the disk knows of a regular file.
    type File;
    /// Why the disk cannot answer.
    type Error;

    /// Tells what `path` is, without following it if it is a link; `None` if nothing is there.
    async fn lstat(&mut self, path: &[u8]) -> Result<Option<Node<Self::File>>, Self::Error>;

    /// Reads where the link at `path` points; `None` if that is a name which the backend cannot handle.
    async fn readlink(&mut self, path: &[u8]) -> Result<Option<Vec<u8>>, Self::Error>;
}

/// What a path is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Node<F> {
    /// A regular file.
    File(F),
    /// A directory.
    Directory,
    /// A symbolic link.
    Link,
    /// A device, a FIFO, a socket.
    Other,
}

/// Why a path leads to nothing that can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Missed<E> {
    /// Nothing is there.
    NotFound,
    /// It is not what it should be.
    Forbidden(&'static str),
    /// The disk cannot tell.
    Failed(E),
}

impl<E> From<E> for Missed<E> {
    fn from(error: E) -> Self {
        Self::Failed(error)
    }
}

impl<E: fmt::Display> fmt::Display for Missed<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound => f.write_str("not found"),
            Self::Forbidden(reason) => f.write_str(reason),
            Self::Failed(error) => error.fmt(f),
        }
    }
}

/// A directory of the disk that is served.
#[derive(Debug, Clone)]
pub(crate) struct Root {
    /// Where it is, links followed; empty for the top of the disk.
    real: Vec<u8>,
    /// How the description of the disk calls it; empty for the top of the disk.
    configured: Vec<u8>,
}

impl Root {
    /// Finds the directory at `path`, an absolute one.
    pub(crate) async fn find<L: Lookup>(disk: &mut L, path: &str) -> Result<Self, Missed<L::Error>> {
        Ok(Self { real: directory(disk, path).await?, configured: path.trim_end_matches('/').into() })
    }

    /// Its path with all links followed; empty for the top of the disk.
    pub(crate) fn path(&self) -> &[u8] {
        &self.real
    }

    /// Finds a regular file for a client, and gives its real path and what the disk knows of it.
    ///
    /// A link is relative to its directory. An absolute one that begins with the name of this root means what it means on the
    /// machine that boots from the disk; any other absolute one is read as if this root were `/`. `..` stops at the root.
    pub(crate) async fn file<L: Lookup>(
        &self,
        disk: &mut L,
        path: &RequestPath,
    ) -> Result<(Vec<u8>, L::File), Missed<L::Error>> {
        match walk(disk, &self.real, &[&self.configured, &self.real], path.as_bytes()).await? {
            (path, Node::File(file)) => Ok((path, file)),
            _ => Err(Missed::Forbidden("not a regular file")),
        }
    }
}

/// Finds the directory at `path`, an absolute one, and gives its path with all links followed; empty for the top of the disk.
pub(crate) async fn directory<L: Lookup>(disk: &mut L, path: &str) -> Result<Vec<u8>, Missed<L::Error>> {
    match walk(disk, b"", &[], path.as_bytes()).await? {
        (path, Node::Directory) => Ok(path),
        _ => Err(Missed::Forbidden("not a directory")),
    }
}

/// Goes from the directory `top` down `path`, name by name. An absolute link starts again at `top`, after one of the names that
/// `top` is known by is taken off it.
async fn walk<L: Lookup>(
    disk: &mut L,
    top: &[u8],
    known_as: &[&[u8]],
    path: &[u8],
) -> Result<(Vec<u8>, Node<L::File>), Missed<L::Error>> {
    let mut here = top.to_vec();
    let mut node = Node::Directory;
    // The names to come, the next one last.
    let mut names: Vec<Vec<u8>> = names(path);
    let mut links = 0;
    while let Some(name) = names.pop() {
        if !matches!(node, Node::Directory) {
            return Err(Missed::NotFound);
        }
        match name.as_slice() {
            b"" | b"." => continue,
            b".." => {
                if here.len() > top.len() {
                    here.truncate(here.iter().rposition(|&byte| byte == b'/').unwrap_or(0));
                }
                continue;
            }
            _ => {}
        }
        let parent = here.len();
        here.push(b'/');
        here.extend_from_slice(&name);
        node = disk.lstat(&here).await?.ok_or(Missed::NotFound)?;
        if matches!(node, Node::Link) {
            links += 1;
            if links > MAX_LINKS {
                return Err(Missed::Forbidden("too many symbolic links"));
            }
            let target = disk.readlink(&here).await?.ok_or(Missed::NotFound)?;
            here.truncate(parent);
            let mut target = target.as_slice();
            if target.starts_with(b"/") {
                here.truncate(top.len());
                target = known_as.iter().find_map(|prefix| below(target, prefix)).unwrap_or(target);
            }
            names.append(&mut self::names(target));
            node = Node::Directory;
        }
    }
    Ok((here, node))
}

/// The names in a path, the first one last.
fn names(path: &[u8]) -> Vec<Vec<u8>> {
    path.rsplit(|&byte| byte == b'/').map(<[u8]>::to_vec).collect()
}

/// What is left of `path` below the directory `prefix`.
fn below<'a>(path: &'a [u8], prefix: &[u8]) -> Option<&'a [u8]> {
    path.strip_prefix(prefix).filter(|rest| rest.is_empty() || rest.starts_with(b"/"))
}

#[cfg(test)]
mod tests {
    use std::{collections::HashMap, convert::Infallible};

    use smol::block_on;

    use super::*;

    /// A disk in memory: what is where, and where links point.
    struct Disk(HashMap<&'static str, &'static str>);

    const DIRECTORY: &str = "/";
    const FILE: &str = "";
    const FIFO: &str = "|";

    impl Disk {
        fn entry(&self, path: &[u8]) -> Option<&'static str> {
            assert!(path.starts_with(b"/"), "an absolute path");
            let path = std::str::from_utf8(path).ok()?;
            let parent = &path[..path.rfind('/').unwrap_or(0)];
            assert!(parent.is_empty() || self.0[parent] == DIRECTORY, "{path} goes through something else");
            self.0.get(path).copied()
        }
    }

    impl Lookup for Disk {
        type File = ();
        type Error = Infallible;

        async fn lstat(&mut self, path: &[u8]) -> Result<Option<Node<()>>, Infallible> {
            Ok(self.entry(path).map(|entry| match entry {
                DIRECTORY => Node::Directory,
                FILE => Node::File(()),
                FIFO => Node::Other,
                _ => Node::Link,
            }))
        }

        async fn readlink(&mut self, path: &[u8]) -> Result<Option<Vec<u8>>, Infallible> {
            Ok(self.entry(path).map(|entry| entry.strip_prefix("->").expect("a link").into()))
        }
    }

    fn disk() -> Disk {
        Disk(HashMap::from([
            ("/vmlinuz", FILE),
            ("/etc", DIRECTORY),
            ("/etc/shadow", FILE),
            ("/tftp", "->srv/tftp"),
            ("/srv", DIRECTORY),
            ("/srv/tftp", DIRECTORY),
            ("/srv/tftp/kernel", FILE),
            ("/srv/tftp/fifo", FIFO),
            ("/srv/tftp/deep", DIRECTORY),
            ("/srv/tftp/deep/er", DIRECTORY),
            ("/srv/tftp/deep/er/file", FILE),
            ("/srv/tftp/relative", "->deep/er/file"),
            ("/srv/tftp/deep/up", "->../kernel"),
            ("/srv/tftp/chain", "->relative"),
            ("/srv/tftp/here", "->./deep//er/../er/./file"),
            ("/srv/tftp/to-directory", "->deep/er"),
            ("/srv/tftp/slash", "->deep/er/"),
            ("/srv/tftp/file-slash", "->kernel/"),
            ("/srv/tftp/through-file", "->kernel/x"),
            ("/srv/tftp/above-file", "->kernel/../kernel"),
            ("/srv/tftp/dangling", "->nothing"),
            ("/srv/tftp/loop", "->loop"),
            ("/srv/tftp/ping", "->pong"),
            ("/srv/tftp/pong", "->ping"),
            ("/srv/tftp/escape", "->../../etc/shadow"),
            ("/srv/tftp/escape-absolute", "->/etc/shadow"),
            ("/srv/tftp/escape-dots", "->/srv/tftp/../../etc/shadow"),
            ("/srv/tftp/clamped", "->../../../kernel"),
            ("/srv/tftp/as-real", "->/srv/tftp/kernel"),
            ("/srv/tftp/as-configured", "->/tftp/deep/er/file"),
            ("/srv/tftp/as-chroot", "->/deep/er/file"),
            ("/srv/tftp/as-other", "->/srv/tftpd/kernel"),
            ("/srv/tftp/to-root", "->/"),
            ("/srv/tftp/empty", "->"),
        ]))
    }

    #[track_caller]
    fn check(root: &str, path: &str, expected: Result<&str, Missed<Infallible>>) {
        let mut disk = disk();
        let root = block_on(Root::find(&mut disk, root)).expect("a directory");
        let path = RequestPath::parse(path.as_bytes()).expect("a path");
        assert_eq!(block_on(root.file(&mut disk, &path)), expected.map(|path| (path.into(), ())));
    }

    fn not_regular() -> Missed<Infallible> {
        Missed::Forbidden("not a regular file")
    }

    #[test]
    fn links_lead_to_files() {
        for root in ["/srv/tftp", "/tftp", "/srv/../tftp/deep/.."] {
            for (path, file) in [
                ("kernel", "/srv/tftp/kernel"),
                ("relative", "/srv/tftp/deep/er/file"),
                ("deep/up", "/srv/tftp/kernel"),
                ("chain", "/srv/tftp/deep/er/file"),
                ("here", "/srv/tftp/deep/er/file"),
                ("to-directory/file", "/srv/tftp/deep/er/file"),
                ("slash/file", "/srv/tftp/deep/er/file"),
                ("clamped", "/srv/tftp/kernel"),
                ("as-real", "/srv/tftp/kernel"),
                ("as-chroot", "/srv/tftp/deep/er/file"),
                ("to-root/kernel", "/srv/tftp/kernel"),
            ] {
                check(root, path, Ok(file));
            }
        }
    }

    #[test]
    fn an_absolute_link_may_call_the_root_as_the_description_does() {
        check("/tftp", "as-configured", Ok("/srv/tftp/deep/er/file"));
        check("/srv/tftp", "as-configured", Err(Missed::NotFound));
        check("/tftp", "as-other", Err(Missed::NotFound));
    }

    #[test]
    fn no_link_leaves_the_root() {
        for path in ["escape", "escape-absolute", "escape-dots"] {
            check("/srv/tftp", path, Err(Missed::NotFound));
        }
        check("/", "srv/tftp/escape-absolute", Ok("/etc/shadow"));
        check("/", "tftp/escape", Ok("/etc/shadow"));
        check("/", "tftp/clamped", Err(Missed::NotFound));
    }

    #[test]
    fn what_is_not_there_is_not_found() {
        for path in ["nothing", "kernel/x", "dangling", "through-file", "above-file", "file-slash", "deep/nothing/x"] {
            check("/tftp", path, Err(Missed::NotFound));
        }
    }

    #[test]
    fn only_regular_files_are_opened() {
        for path in ["fifo", "deep", "to-directory", "slash", "to-root", "empty"] {
            check("/tftp", path, Err(not_regular()));
        }
        check("/tftp", "fifo/x", Err(Missed::NotFound));
    }

    #[test]
    fn a_circle_of_links_ends() {
        for path in ["loop", "ping", "loop/x"] {
            check("/tftp", path, Err(Missed::Forbidden("too many symbolic links")));
        }
    }

    #[test]
    fn forty_links_are_followed_and_no_more() {
        let chain: Vec<(String, String)> = (0..=40).map(|i| (format!("/{i}"), format!("->{}", i + 1))).collect();
        let mut disk = Disk(chain.leak().iter().map(|(path, target)| (path.as_str(), target.as_str())).collect());
        disk.0.insert("/41", FILE);
        let root = block_on(Root::find(&mut disk, "/")).expect("the top");
        let mut file = |path: &[u8]| block_on(root.file(&mut disk, &RequestPath::parse(path).expect("a path")));
        assert_eq!(file(b"1"), Ok((b"/41".to_vec(), ())));
        assert_eq!(file(b"0"), Err(Missed::Forbidden("too many symbolic links")));
    }

    #[test]
    fn a_root_is_a_directory() {
        let mut disk = disk();
        assert_eq!(block_on(directory(&mut disk, "/")), Ok(b"".to_vec()));
        assert_eq!(block_on(directory(&mut disk, "/tftp/to-directory")), Ok(b"/srv/tftp/deep/er".to_vec()));
        assert_eq!(block_on(directory(&mut disk, "/nothing")), Err(Missed::NotFound));
        assert_eq!(block_on(directory(&mut disk, "/vmlinuz")), Err(Missed::Forbidden("not a directory")));
    }
}
