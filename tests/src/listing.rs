//! The contents of a directory as the kernel that wrote it reads them, to compare with those that others read.

use std::{collections::BTreeMap, fs};

use tempfile::TempDir;

use crate::{Content, OwnerMachine, run};

/// A directory entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A regular file.
    File {
        /// The size in bytes.
        size: u64,
        /// The SHA-256 digest of the contents in hexadecimal.
        sha256: String,
    },
    /// A directory.
    Directory,
    /// A symbolic link with this target.
    Link(String),
}

/// Everything below a directory by relative path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing(pub BTreeMap<String, Entry>);

impl Listing {
    /// Lists a directory of a running machine, as its kernel reads it.
    ///
    /// The file system should be mounted with `noatime`: otherwise, reading 5,000 files fills the journal with access times.
    #[track_caller]
    pub fn of(owner: &mut OwnerMachine, directory: &str) -> Self {
        let mut find = |expression: &str| owner.run(&format!("cd '{directory}'; find . -mindepth 1 {expression}"));
        let (sizes, digests) = (find("-type f -exec stat -c '%s %n' {} +"), find("-type f -exec sha256sum {} +"));
        let links = find(r#"-type l | while read -r link; do echo "$(readlink "$link") $link"; done"#);
        let directories = find("-type d | sed 's/^/- /'");
        // Every line is `VALUE ./PATH`.
        let pairs = |lines: &str| -> BTreeMap<String, String> {
            let lines = lines.lines().map(|line| line.split_once(" ./").expect("a path"));
            lines.map(|(value, path)| (path.to_owned(), value.to_owned())).collect()
        };
        let sizes = pairs(&sizes);
        let file = |(path, sha256): (String, String)| {
            let size = sizes[&path].parse().expect("a size");
            (path, Entry::File { size, sha256: sha256.trim_end().to_owned() })
        };
        let mut entries: BTreeMap<_, _> = pairs(&digests).into_iter().map(file).collect();
        assert_eq!(entries.len(), sizes.len(), "every file can be read");
        entries.extend(pairs(&links).into_iter().map(|(path, target)| (path, Entry::Link(target))));
        entries.extend(pairs(&directories).into_keys().map(|path| (path, Entry::Directory)));
        Self(entries)
    }

    /// Asserts that another reader has found the same names and contents.
    #[track_caller]
    pub fn assert_equals(&self, contents: &BTreeMap<String, Content>) {
        for (path, content) in contents {
            match (content, self.0.get(path)) {
                (Content::File(_), Some(Entry::File { .. })) | (Content::Directory, Some(Entry::Directory)) => {}
                (Content::Link(target), Some(Entry::Link(expected))) if target == expected => {}
                (_, other) => panic!("{path} is {other:?} for the kernel"),
            }
        }
        assert_eq!(contents.len(), self.0.len(), "number of names");
        self.assert_files(|path| match contents.get(path) {
            Some(Content::File(bytes)) => bytes.clone(),
            other => panic!("{path}: {other:?}"),
        });
    }

    /// Asserts that `read` returns the same contents for every regular file.
    #[track_caller]
    pub fn assert_files(&self, mut read: impl FnMut(&str) -> Vec<u8>) {
        let copies = TempDir::new().expect("a temporary directory");
        let files = self.0.iter().filter_map(|(path, entry)| match entry {
            Entry::File { size, sha256 } => Some((path, *size, sha256)),
            _ => None,
        });
        let mut expected = Vec::new();
        for (path, size, sha256) in files {
            let bytes = read(path);
            assert_eq!(bytes.len() as u64, size, "the size of {path}");
            let copy = copies.path().join(format!("{:06}", expected.len()));
            fs::write(&copy, bytes).expect("write a file");
            expected.push((path, sha256, copy));
        }
        assert!(!expected.is_empty(), "there are files to compare");
        for chunk in expected.chunks(1000) {
            let output = run("sha256sum", chunk.iter().map(|(_, _, copy)| copy)).stdout;
            let digests = String::from_utf8(output).expect("hex");
            assert_eq!(digests.lines().count(), chunk.len());
            for (line, (path, sha256, _)) in digests.lines().zip(chunk) {
                assert_eq!(line.split(' ').next(), Some(sha256.as_str()), "the bytes of {path}");
            }
        }
    }
}

/// Fills a directory with difficult cases for readers of ext file systems and flushes them: fragments, holes of every kind, an indexed
/// directory with gaps, and a block that starts like a block of the journal.
///
/// From here on, the machine delays writes that are not required: the last metadata, and with `data=journal` the last files, are only in
/// the journal.
#[track_caller]
pub fn write_awkward_files(owner: &mut OwnerMachine, directory: &str) {
    const SCRIPT: &str = r#"
set -e
random() { dd if=/dev/urandom conv=notrunc,fsync "$@" 2>&1; }

mkdir many
for i in $(seq 5000); do echo "file $i" >many/a-name-that-is-not-short-$i; done
seq 97 97 5000 | sed 's|^|many/a-name-that-is-not-short-|' | xargs rm
sync

# Two files with interleaved fragments, and one written from its end to its start.
for i in $(seq 0 23); do
    random of=first bs=12k count=1 seek=$i
    random of=second bs=12k count=1 seek=$i
    random of=backwards bs=12k count=1 seek=$((23 - i))
done

# Holes: between blocks, at the end, longer than the range of an indirect block, and punched afterwards.
printf start >sparse
random of=sparse bs=1k seek=5001 count=3
truncate -s 9000000 sparse
truncate -s 300000 nothing-but-a-hole
random of=punched bs=1k count=1000
fallocate --punch-hole --offset 100k --length 333k punched

# Blocks that are allocated but not written, in the file and beyond its end. ext2 and ext3 do not support them.
if fallocate --length 1M unwritten 2>/dev/null; then
    random of=unwritten bs=1k seek=300 count=5
    random of=long-tail bs=1k count=5
    fallocate --keep-size --offset 64k --length 256k long-tail
fi

: >empty
mkdir -p deep/er
ln -s ../first deep/link
ln -s "$(printf '%0200d' 0)" long-link
ln -s nowhere deep/er/broken
ln first deep/er/hard-link

# The magic number of the journal, at the start of a block.
printf '\300\073\071\230' >/tmp/magic
dd if=/dev/urandom bs=5000 count=1 >>/tmp/magic 2>/dev/null
dd if=/tmp/magic of=magic bs=8k conv=fsync 2>&1
sync .
"#;
    owner.disable_writeback();
    owner.run(&format!("cd '{directory}'\n{SCRIPT}"));
}
