//! From the path that a client asks for to the file that it means, symbolic links included.
//!
//! Every name is looked up by itself, so that no link is ever followed by somebody else (the kernel of the machine that looks):
//! whatever the links on a disk say, nothing outside of the directory that is served can be named.

use rtftp_core::path::RequestPath;

use crate::error::OpenError;

/// The greatest number of links that one path may go through, as in Linux.
const MAX_LINKS: usize = 40;

/// The questions that a mounted disk answers. A path is absolute and its directories are real ones, never links.
pub trait Lookup {
    /// Tells what `path` is, without following it if it is a link.
    ///
    /// # Errors
    ///
    /// [`OpenError::NotFound`] if nothing is there.
    fn lstat(&mut self, path: &[u8]) -> Result<Node, OpenError>;

    /// Reads where the link at `path` points.
    ///
    /// # Errors
    ///
    /// [`OpenError::NotFound`] if the link leads to a name that the backend cannot handle.
    fn readlink(&mut self, path: &[u8]) -> Result<Vec<u8>, OpenError>;
}

/// What a path is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Node {
    /// A regular file.
    File {
        /// Its length in bytes.
        size: u64,
    },
    /// A directory.
    Directory,
    /// A symbolic link.
    Link,
    /// A device, a FIFO, a socket.
    Other,
}

/// A directory of the disk that is served.
#[derive(Debug, Clone)]
pub struct Root {
    /// Where it is, links followed; empty for the top of the disk.
    real: Vec<u8>,
    /// How the description of the disk calls it; empty for the top of the disk.
    configured: Vec<u8>,
}

impl Root {
    /// Finds the directory at `path`, an absolute one.
    ///
    /// # Errors
    ///
    /// [`OpenError::NotFound`], [`OpenError::Forbidden`] if it is not a directory.
    pub fn find(disk: &mut impl Lookup, path: &str) -> Result<Self, OpenError> {
        Ok(Self { real: directory(disk, path)?, configured: path.trim_end_matches('/').into() })
    }

    /// Finds a regular file for a client, and gives its real path and its size.
    ///
    /// A link is relative to its directory. An absolute one that begins with the name of this root means what it means on the
    /// machine that boots from the disk; any other absolute one is read as if this root were `/`. `..` stops at the root.
    ///
    /// # Errors
    ///
    /// [`OpenError::Forbidden`] for what is not a regular file, and for a path of too many links.
    pub fn file(&self, disk: &mut impl Lookup, path: &RequestPath) -> Result<(Vec<u8>, u64), OpenError> {
        match walk(disk, &self.real, &[&self.configured, &self.real], path.as_bytes())? {
            (path, Node::File { size }) => Ok((path, size)),
            _ => Err(OpenError::Forbidden("not a regular file".into())),
        }
    }
}

/// Finds the directory at `path`, an absolute one, and gives its path with all links followed; empty for the top of the disk.
///
/// # Errors
///
/// [`OpenError::NotFound`], [`OpenError::Forbidden`] if it is not a directory.
pub fn directory(disk: &mut impl Lookup, path: &str) -> Result<Vec<u8>, OpenError> {
    match walk(disk, b"", &[], path.as_bytes())? {
        (path, Node::Directory) => Ok(path),
        _ => Err(OpenError::Forbidden("not a directory".into())),
    }
}

/// Goes from the directory `top` down `path`, name by name. An absolute link starts again at `top`, after one of the names that
/// `top` is known by is taken off it.
fn walk(disk: &mut impl Lookup, top: &[u8], known_as: &[&[u8]], path: &[u8]) -> Result<(Vec<u8>, Node), OpenError> {
    let mut here = top.to_vec();
    let mut node = Node::Directory;
    // The names to come, the next one last.
    let mut names: Vec<Vec<u8>> = names(path);
    let mut links = 0;
    while let Some(name) = names.pop() {
        if node != Node::Directory {
            return Err(OpenError::NotFound);
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
        node = disk.lstat(&here)?;
        if node == Node::Link {
            links += 1;
            if links > MAX_LINKS {
                return Err(OpenError::Forbidden("too many symbolic links".into()));
            }
            let target = disk.readlink(&here)?;
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
    use std::collections::HashMap;

    use super::*;

    /// A disk in memory: what is where, and where links point.
    struct Disk(HashMap<&'static str, &'static str>);

    const DIRECTORY: &str = "/";
    const FILE: &str = "";
    const FIFO: &str = "|";

    impl Disk {
        fn entry(&self, path: &[u8]) -> Result<&'static str, OpenError> {
            assert!(path.starts_with(b"/"), "an absolute path");
            let path = std::str::from_utf8(path).map_err(|_| OpenError::NotFound)?;
            let parent = &path[..path.rfind('/').unwrap_or(0)];
            assert!(parent.is_empty() || self.0[parent] == DIRECTORY, "{path} goes through something else");
            self.0.get(path).copied().ok_or(OpenError::NotFound)
        }
    }

    impl Lookup for Disk {
        fn lstat(&mut self, path: &[u8]) -> Result<Node, OpenError> {
            Ok(match self.entry(path)? {
                DIRECTORY => Node::Directory,
                FILE => Node::File { size: 7 },
                FIFO => Node::Other,
                _ => Node::Link,
            })
        }

        fn readlink(&mut self, path: &[u8]) -> Result<Vec<u8>, OpenError> {
            Ok(self.entry(path)?.strip_prefix("->").expect("a link").into())
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
    fn check(root: &str, path: &str, expected: Result<&str, OpenError>) {
        let mut disk = disk();
        let root = Root::find(&mut disk, root).expect("a directory");
        let path = RequestPath::parse(path.as_bytes()).expect("a path");
        assert_eq!(root.file(&mut disk, &path), expected.map(|path| (path.into(), 7)));
    }

    fn not_regular() -> OpenError {
        OpenError::Forbidden("not a regular file".into())
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
        check("/srv/tftp", "as-configured", Err(OpenError::NotFound));
        check("/tftp", "as-other", Err(OpenError::NotFound));
    }

    #[test]
    fn no_link_leaves_the_root() {
        for path in ["escape", "escape-absolute", "escape-dots"] {
            check("/srv/tftp", path, Err(OpenError::NotFound));
        }
        check("/", "srv/tftp/escape-absolute", Ok("/etc/shadow"));
        check("/", "tftp/escape", Ok("/etc/shadow"));
        check("/", "tftp/clamped", Err(OpenError::NotFound));
    }

    #[test]
    fn what_is_not_there_is_not_found() {
        for path in ["nothing", "kernel/x", "dangling", "through-file", "above-file", "file-slash", "deep/nothing/x"] {
            check("/tftp", path, Err(OpenError::NotFound));
        }
    }

    #[test]
    fn only_regular_files_are_opened() {
        for path in ["fifo", "deep", "to-directory", "slash", "to-root", "empty"] {
            check("/tftp", path, Err(not_regular()));
        }
        check("/tftp", "fifo/x", Err(OpenError::NotFound));
    }

    #[test]
    fn a_circle_of_links_ends() {
        for path in ["loop", "ping", "loop/x"] {
            check("/tftp", path, Err(OpenError::Forbidden("too many symbolic links".into())));
        }
    }

    #[test]
    fn forty_links_are_followed_and_no_more() {
        let chain: Vec<(String, String)> = (0..=40).map(|i| (format!("/{i}"), format!("->{}", i + 1))).collect();
        let mut disk = Disk(chain.leak().iter().map(|(path, target)| (path.as_str(), target.as_str())).collect());
        disk.0.insert("/41", FILE);
        let root = Root::find(&mut disk, "/").expect("the top");
        let mut file = |path: &[u8]| root.file(&mut disk, &RequestPath::parse(path).expect("a path"));
        assert_eq!(file(b"1"), Ok((b"/41".to_vec(), 7)));
        assert_eq!(file(b"0"), Err(OpenError::Forbidden("too many symbolic links".into())));
    }

    #[test]
    fn a_root_is_a_directory() {
        let mut disk = disk();
        assert_eq!(directory(&mut disk, "/"), Ok(b"".to_vec()));
        assert_eq!(directory(&mut disk, "/tftp/to-directory"), Ok(b"/srv/tftp/deep/er".to_vec()));
        assert_eq!(directory(&mut disk, "/nothing"), Err(OpenError::NotFound));
        assert_eq!(directory(&mut disk, "/vmlinuz"), Err(OpenError::Forbidden("not a directory".into())));
    }
}
