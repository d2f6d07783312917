//! A FUSE file system that stops answering at a call of the test's choice.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use parking_lot::Mutex;

/// The call to which a file system does not reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hang {
    /// None: the file system works.
    Never,
    /// Looking up a name.
    Lookup,
    /// Opening a file.
    Open,
    /// Reading the attributes of a file.
    Attributes,
    /// Reading a file.
    Read,
    /// Closing a file.
    Flush,
}

/// A mounted file system with one file, `file`. Dropping it unmounts it, which ends all calls that hang.
#[derive(Debug)]
pub struct HangingFileSystem {
    mount_point: PathBuf,
    hang: Arc<Mutex<Hang>>,
}

/// The size of the file in bytes: more than the server reads at a time.
const FILE_SIZE: u64 = 300_000;

const ROOT: u64 = 1;
const FILE: u64 = 2;
/// The sizes of the kernel's structures `fuse_in_header` and `fuse_out_header` in bytes.
const IN_HEADER: usize = 40;
const OUT_HEADER: usize = 16;
const ENOENT: i32 = 2;
const ENOSYS: i32 = 38;

impl HangingFileSystem {
    /// Mounts a file system on a directory.
    ///
    /// # Errors
    ///
    /// Mounting needs root and `/dev/fuse`.
    pub fn mount(mount_point: &Path) -> io::Result<Self> {
        let device = OpenOptions::new().read(true).write(true).open("/dev/fuse")?;
        let options = format!("fd={},rootmode=40755,user_id=0,group_id=0,allow_other", device.as_raw_fd());
        mount(Some("hanging"), mount_point, Some("fuse"), MsFlags::MS_RDONLY, Some(options.as_str()))?;
        let hang = Arc::new(Mutex::new(Hang::Never));
        let shared = hang.clone();
        thread::spawn(move || serve(&device, &shared));
        Ok(Self { mount_point: mount_point.to_owned(), hang })
    }

    /// Leaves all further calls of this kind without a reply.
    pub fn hang(&self, at: Hang) {
        *self.hang.lock() = at;
    }

    /// Returns the contents of the file.
    pub fn content() -> Vec<u8> {
        (0..FILE_SIZE).map(|at| (at / 7) as u8).collect()
    }
}

impl Drop for HangingFileSystem {
    fn drop(&mut self) {
        // Fails if the mount namespace is gone.
        let _ = umount2(&self.mount_point, MntFlags::MNT_FORCE | MntFlags::MNT_DETACH);
    }
}

/// Replies to the kernel until the file system is unmounted.
fn serve(mut device: &File, hang: &Mutex<Hang>) {
    let mut request = vec![0; 1 << 20];
    while let Ok(len) = device.read(&mut request) {
        if let Some((error, body)) = reply(&request[..len], *hang.lock()) {
            let reply_len = u32::try_from(OUT_HEADER + body.len()).expect("a short reply");
            let mut reply = reply_len.to_le_bytes().to_vec();
            reply.extend_from_slice(&(-error).to_le_bytes());
            reply.extend_from_slice(&request[8..16]);
            reply.extend_from_slice(&body);
            // Fails if the call was interrupted.
            let _ = device.write(&reply);
        }
    }
}

/// Returns the error number and the body of the reply to a request, or `None` if there is none.
fn reply(request: &[u8], hang: Hang) -> Option<(i32, Vec<u8>)> {
    let number = |at: usize| u32::from_le_bytes(request[at..at + 4].try_into().expect("4 bytes"));
    let long = |at: usize| u64::from_le_bytes(request[at..at + 8].try_into().expect("8 bytes"));
    let (opcode, node) = (number(4), long(16));
    let ok = |body: Vec<u8>| Some((0, body));
    match opcode {
        // LOOKUP
        1 if hang == Hang::Lookup => None,
        1 if &request[IN_HEADER..] == b"file\0" => {
            // Neither the name nor the attributes may be cached.
            let entry = [numbers(&[FILE, 0, 0, 0, 0]), attributes(FILE)].concat();
            ok(entry)
        }
        1 => Some((ENOENT, vec![])),
        // GETATTR
        3 if hang == Hang::Attributes && node == FILE => None,
        3 => ok([numbers(&[0, 0]), attributes(node)].concat()),
        // OPEN, OPENDIR
        14 if hang == Hang::Open => None,
        14 | 27 => ok(numbers(&[1, 0])),
        // READ
        15 if hang == Hang::Read => None,
        15 => {
            let content = HangingFileSystem::content();
            let from = usize::try_from(long(IN_HEADER + 8)).map_or(content.len(), |from| from.min(content.len()));
            let len = (content.len() - from).min(number(IN_HEADER + 16) as usize);
            ok(content[from..from + len].to_vec())
        }
        // STATFS
        17 => ok(vec![0; 80]),
        // RELEASE, RELEASEDIR
        18 | 29 => ok(vec![]),
        // FLUSH
        25 if hang == Hang::Flush => None,
        25 => ok(vec![]),
        // INIT: version 7.31, reading ahead up to 128 KiB.
        26 => {
            let mut body = vec![0; 64];
            for (at, value) in [(0, 7), (4, 31), (8, 128 << 10), (20, 4096)] {
                body[at..at + 4].copy_from_slice(&u32::to_le_bytes(value));
            }
            ok(body)
        }
        // FORGET, INTERRUPT, BATCH_FORGET have no reply.
        2 | 36 | 42 => None,
        _ => Some((ENOSYS, vec![])),
    }
}

fn numbers(numbers: &[u64]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

/// Returns the kernel's structure `fuse_attr`.
fn attributes(node: u64) -> Vec<u8> {
    let (mode, size) = if node == ROOT { (0o040_755_u32, 0) } else { (0o100_644, FILE_SIZE) };
    let mut attributes = numbers(&[node, size, size.div_ceil(512), 1, 1, 1]);
    for number in [0, 0, 0, mode, 1, 0, 0, 0, 4096, 0] {
        attributes.extend_from_slice(&u32::to_le_bytes(number));
    }
    attributes
}
