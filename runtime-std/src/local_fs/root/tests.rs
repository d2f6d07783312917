use std::{fs, os::unix::fs::symlink};

use smol::block_on;

use super::*;

/// A root directory on a disk and one in memory, where the kernel does not cache missing names.
fn roots() -> [(tempfile::TempDir, Arc<RootDirectory>); 2] {
    [tempfile::tempdir(), tempfile::tempdir_in("/dev/shm")].map(|directory| {
        let directory = directory.expect("a directory");
        let root = RootDirectory::new(directory.path().to_owned(), Duration::from_secs(10));
        (directory, root)
    })
}

fn open_in(root: &Arc<RootDirectory>, directory: &str, path: &str) -> io::Result<String> {
    let root = block_on(root.open())?;
    io::read_to_string(block_on(root.open_in(directory, Path::new(path)))?.file())
}

fn open_named(root: &Arc<RootDirectory>, name: &str) -> io::Result<String> {
    io::read_to_string(block_on(block_on(root.open())?.open_named(name))?.file())
}

#[test]
fn opens_cached_and_uncached_files() {
    for (top, root) in roots() {
        fs::create_dir(top.path().join("default")).expect("created");
        fs::write(top.path().join("default/new"), "new").expect("written");
        fs::write(top.path().join("named"), "named").expect("written");
        for _ in 0..2 {
            assert_eq!(open_in(&root, "default", "new").expect("it exists"), "new");
            assert_eq!(open_named(&root, "named").expect("it exists"), "named");
            for error in [open_in(&root, "default", "missing"), open_in(&root, "no", "new"), open_named(&root, "no")] {
                assert_eq!(error.expect_err("missing").kind(), io::ErrorKind::NotFound);
            }
        }
    }
}

#[test]
fn explains_names_that_cannot_be_opened() {
    for (top, root) in roots() {
        symlink("nowhere", top.path().join("dangling")).expect("linked");
        fs::write(top.path().join("file"), "").expect("written");
        let dangling = open_in(&root, "dangling", "f").expect_err("dangling");
        assert_eq!(dangling.to_string(), "it is a symbolic link to a directory that does not exist");
        let file = open_in(&root, "file", "f").expect_err("a file");
        assert_eq!(file.to_string(), "it is a file: expected a directory");
        let dangling = open_named(&root, "dangling").expect_err("dangling");
        assert_eq!(dangling.to_string(), "it is a symbolic link to a file that does not exist");
    }
}

#[test]
fn opens_unchanged_local_directory_at_once() {
    for (top, root) in roots() {
        assert!(root.open_at_once().is_none(), "nothing is known about the file system");
        block_on(root.open()).expect("opened");
        assert!(root.open_at_once().is_some_and(|root| root.kind.is_local && !root.is_replaced));
        // A changed directory may be another one that was mounted over it.
        for number in 0.. {
            fs::write(top.path().join(number.to_string()), "").expect("written");
            if root.open_at_once().is_none() {
                break;
            }
        }
    }
}

#[test]
fn notices_a_replaced_directory() {
    for (top, _) in roots() {
        let path = top.path().join("root");
        fs::create_dir(&path).expect("created");
        let root = RootDirectory::new(path.clone(), Duration::from_secs(10));
        assert!(!block_on(root.open()).expect("opened").is_replaced);
        fs::rename(&path, top.path().join("old")).expect("renamed");
        fs::create_dir(&path).expect("created");
        let replaced = block_on(root.open()).expect("opened");
        assert!(replaced.is_replaced);
        let error = replaced.explain(io::ErrorKind::PermissionDenied.into());
        assert_eq!(error.to_string(), "it is another directory than at the start: restart rtftp");
    }
}
