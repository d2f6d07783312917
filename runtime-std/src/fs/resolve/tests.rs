use std::{collections::HashMap, convert::Infallible};

use smol::block_on;

use super::*;

/// A directory tree in memory: the type of each path, or the target of a link.
struct Disk(HashMap<&'static str, &'static str>);

const DIRECTORY: &str = "/";
const FILE: &str = "";
const FIFO: &str = "|";

impl Disk {
    fn entry(&self, path: &[u8]) -> Option<&'static str> {
        assert!(path.starts_with(b"/"), "the path is absolute");
        let path = std::str::from_utf8(path).ok()?;
        let parent = &path[..path.rfind('/').unwrap_or(0)];
        assert!(parent.is_empty() || self.0[parent] == DIRECTORY, "a parent of {path} is not a directory");
        self.0.get(path).copied()
    }
}

impl Namespace for Disk {
    type Node = ();
    type Error = Infallible;

    async fn lstat(&mut self, path: &[u8]) -> Result<Option<(FileType, ())>, Infallible> {
        let file_type = |entry| match entry {
            DIRECTORY => FileType::Directory,
            FILE => FileType::File,
            FIFO => FileType::Other,
            _ => FileType::Link,
        };
        Ok(self.entry(path).map(|entry| (file_type(entry), ())))
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
fn check(root: &str, path: &str, expected: Result<&str, ResolveError<Infallible>>) {
    let mut disk = disk();
    let root = block_on(Root::find(&mut disk, root)).expect("a directory");
    let path = RequestPath::parse(path.as_bytes()).expect("a path");
    assert_eq!(block_on(root.file(&mut disk, &path)), expected.map(|path| (path.into(), ())));
}

#[test]
fn resolves_links_to_files() {
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
fn absolute_link_may_start_with_the_configured_root() {
    check("/tftp", "as-configured", Ok("/srv/tftp/deep/er/file"));
    check("/srv/tftp", "as-configured", Err(ResolveError::NotFound));
    check("/tftp", "as-other", Err(ResolveError::NotFound));
}

#[test]
fn links_cannot_leave_the_root() {
    for path in ["escape", "escape-absolute", "escape-dots"] {
        check("/srv/tftp", path, Err(ResolveError::NotFound));
    }
    check("/", "srv/tftp/escape-absolute", Ok("/etc/shadow"));
    check("/", "tftp/escape", Ok("/etc/shadow"));
    check("/", "tftp/clamped", Err(ResolveError::NotFound));
}

#[test]
fn missing_paths_are_not_found() {
    for path in ["nothing", "kernel/x", "dangling", "through-file", "above-file", "file-slash", "deep/nothing/x"] {
        check("/tftp", path, Err(ResolveError::NotFound));
    }
}

#[test]
fn other_types_are_not_regular_files() {
    for path in ["fifo", "deep", "to-directory", "slash", "to-root", "empty"] {
        check("/tftp", path, Err(ResolveError::NotRegularFile));
    }
    check("/tftp", "fifo/x", Err(ResolveError::NotFound));
}

#[test]
fn link_loop_is_an_error() {
    for path in ["loop", "ping", "loop/x"] {
        check("/tftp", path, Err(ResolveError::TooManyLinks));
    }
}

#[test]
fn follows_at_most_forty_links() {
    let chain: Vec<(String, String)> = (0..=40).map(|i| (format!("/{i}"), format!("->{}", i + 1))).collect();
    let mut disk = Disk(chain.leak().iter().map(|(path, target)| (path.as_str(), target.as_str())).collect());
    disk.0.insert("/41", FILE);
    let root = block_on(Root::find(&mut disk, "/")).expect("the top");
    let mut file = |path: &[u8]| block_on(root.file(&mut disk, &RequestPath::parse(path).expect("a path")));
    assert_eq!(file(b"1"), Ok((b"/41".to_vec(), ())));
    assert_eq!(file(b"0"), Err(ResolveError::TooManyLinks));
}

#[test]
fn root_must_be_a_directory() {
    let mut disk = disk();
    assert_eq!(block_on(directory(&mut disk, "/")), Ok(b"".to_vec()));
    assert_eq!(block_on(directory(&mut disk, "/tftp/to-directory")), Ok(b"/srv/tftp/deep/er".to_vec()));
    assert_eq!(block_on(directory(&mut disk, "/nothing")), Err(ResolveError::NotFound));
    assert_eq!(block_on(directory(&mut disk, "/vmlinuz")), Err(ResolveError::NotDirectory));
}
