//! What the helper program runs: one disk, opened and mounted through libguestfs, and its files read on request.
//!
//! No call of libguestfs has a time limit. The main thread makes them; a second thread owns stdin, so that the helper ends when
//! the daemon does, whatever libguestfs is stuck in. All that libguestfs starts is in the helper's process group and dies with it.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, Read, Write},
    os::fd::AsFd,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{OnceLock, mpsc},
    thread,
};

use guestfs::{AddDriveOptArgs, Handle};
use nix::{
    sys::signal::{Signal, killpg},
    unistd::{Pid, dup2_stdin, dup2_stdout, getpgrp, setpgid},
};
use rtftp_core::{
    config::{disk::DiskConfig, uri::NbdServer},
    wire::path::RequestPath,
};
use smol::block_on;

use super::{
    failure::Failure,
    mounted::Mounted,
    wire::{self, Reply, Request, Step},
};
use crate::fs::resolve::{ResolveError, Root};

/// The memory of the virtual machine, in MiB. What the host spends on it hardly depends on this number.
const MEMORY: i32 = 512;

/// Where this process's temporary files are; set by the daemon's first request.
static FOLDER: OnceLock<PathBuf> = OnceLock::new();

/// The helper's whole life: takes requests from stdin and answers on stdout until stdin ends.
///
/// It never returns by itself: its end is that of its process group.
pub fn run() -> ExitCode {
    // Nobody but the two of us may read requests or write among the answers, least of all the programs that libguestfs runs.
    let (requests, replies) = match channel_to_daemon() {
        Ok(files) => files,
        Err(error) => {
            eprintln!("rtftp-guestfs: cannot set up its process: {error}");
            return ExitCode::FAILURE;
        }
    };
    // The guestfs crate panics at messages that are not UTF-8. To unwind would close the handle, which can block for ever.
    std::panic::set_hook(Box::new(|panic| {
        eprintln!("rtftp-guestfs: {}", panic.to_string().replace('\n', " "));
        end_group();
    }));
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        forward(requests, &sender);
        end_group();
    });
    let mut daemon = Daemon { replies };
    let ended = daemon.tell(&Reply::Hello { version: wire::VERSION }).and_then(|()| serve(&mut daemon, &receiver));
    if let Err(error) = ended {
        eprintln!("rtftp-guestfs: {error}");
    }
    end_group();
    ExitCode::FAILURE
}

/// Takes stdin and stdout away from everybody else, and makes this process the leader of its group.
fn channel_to_daemon() -> io::Result<(File, File)> {
    // Fails for who leads a session, and does lead its group then.
    let _ = setpgid(Pid::from_raw(0), Pid::from_raw(0));
    let requests = io::stdin().as_fd().try_clone_to_owned()?;
    let replies = io::stdout().as_fd().try_clone_to_owned()?;
    dup2_stdin(File::open("/dev/null")?)?;
    dup2_stdout(io::stderr())?;
    Ok((requests.into(), replies.into()))
}

/// Hands requests on until there are no more.
fn forward(mut from: File, to: &mpsc::Sender<Request>) {
    loop {
        let mut header = [0; wire::HEADER];
        if from.read_exact(&mut header).is_err() {
            return;
        }
        let Ok((kind, len)) = wire::header(header) else { return };
        let mut body = vec![0; len];
        if from.read_exact(&mut body).is_err() {
            return;
        }
        let Ok(request) = Request::decode(kind, body) else { return };
        if to.send(request).is_err() {
            return;
        }
    }
}

/// Ends this process and all it started, and leaves no temporary files.
fn end_group() {
    for folder in FOLDER.get().into_iter().cloned().chain(socket_folders()) {
        let _ = fs::remove_dir_all(folder);
    }
    let _ = killpg(getpgrp(), Signal::SIGKILL);
}

/// The directories of this process's Unix sockets: for root, libguestfs makes one in `/tmp`, whatever it is told.
fn socket_folders() -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/self/net/unix").unwrap_or_default();
    let open = fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    open.filter_map(|fd| {
        let link = fs::read_link(fd.path()).ok()?;
        let inode = link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned();
        // Num RefCount Protocol Flags Type St Inode Path
        let path = table.lines().find_map(|line| {
            let mut fields = line.split_ascii_whitespace().skip(6);
            (fields.next()? == inode).then(|| fields.next()).flatten()
        })?;
        let folder = Path::new(path).parent()?;
        folder.file_name()?.to_str()?.starts_with("libguestfs").then(|| folder.to_owned())
    })
    .collect()
}

/// Where answers go.
struct Daemon {
    replies: File,
}

impl Daemon {
    fn tell(&mut self, reply: &Reply) -> io::Result<()> {
        self.replies.write_all(&reply.encode())
    }
}

/// Answers requests; returns when there is nothing left to do.
fn serve(daemon: &mut Daemon, requests: &mpsc::Receiver<Request>) -> io::Result<()> {
    let mut disk = None;
    while let Ok(request) = requests.recv() {
        let reply = match (request, &mut disk) {
            (Request::Start { emulate, folder, description }, None) => {
                match Disk::start(daemon, &description, FOLDER.get_or_init(|| folder), emulate) {
                    Ok(started) => {
                        disk = Some(started);
                        Reply::Ready
                    }
                    Err(reason) => Reply::Lost(reason),
                }
            }
            (Request::Open { path }, Some(disk)) => disk.open(&path),
            (Request::Read { id, offset, len }, Some(disk)) => disk.read(id, offset, len),
            (Request::Close { id }, Some(disk)) => {
                disk.files.remove(&id);
                Reply::Closed
            }
            (Request::List { path }, Some(disk)) => disk.list(&path),
            (_, _) => Reply::Lost("asked in the wrong order".into()),
        };
        daemon.tell(&reply)?;
        if matches!(reply, Reply::Lost(_)) {
            break;
        }
    }
    Ok(())
}

/// The disk, mounted.
struct Disk {
    mounted: Mounted,
    root: Root,
    /// The open files: libguestfs knows them by their paths only.
    files: HashMap<u32, String>,
    next_id: u32,
}

impl Disk {
    /// Connects, launches and mounts. The error says what is wrong, for the administrator.
    fn start(daemon: &mut Daemon, description: &[u8], folder: &Path, emulate: bool) -> Result<Self, String> {
        let config = DiskConfig::parse(description).map_err(|error| error.to_string())?;
        let guestfs = Handle::create().map_err(|_| "libguestfs gives no handle".to_owned())?;
        configure(&guestfs, folder, emulate).map_err(|error| Failure::from(error).message)?;
        add_drive(&guestfs, &config).map_err(|error| match Failure::from(error).message {
            // It has a file of ours in its message, and its reason on stderr.
            message if message.starts_with("qemu-img: ") => "cannot connect to the NBD server".to_owned(),
            message => format!("cannot connect to the NBD server: {message}"),
        })?;
        daemon.tell(&Reply::Reached(Step::Connected)).map_err(|error| error.to_string())?;
        guestfs.launch().map_err(|error| format!("the appliance does not start: {}", Failure::from(error).message))?;
        daemon.tell(&Reply::Reached(Step::Launched)).map_err(|error| error.to_string())?;

        let mut mounted = Mounted { guestfs };
        for mount in &config.mounts {
            mounted.mount(mount)?;
        }
        let root = block_on(Root::find(&mut mounted, &config.tftp_root))
            .map_err(|error| format!("tftp_root {}: {error}", config.tftp_root))?;
        // From now on an error comes with its own message; a line for every call would only cost time.
        let _ = mounted.guestfs.set_verbose(false);
        Ok(Self { mounted, root, files: HashMap::new(), next_id: 0 })
    }

    fn open(&mut self, path: &[u8]) -> Reply {
        let Ok(path) = RequestPath::parse(path) else { return Reply::NotFound };
        let (path, size) = match block_on(self.root.file(&mut self.mounted, &path)) {
            Ok(found) => found,
            Err(ResolveError::NotFound) => return Reply::NotFound,
            Err(ResolveError::FileSystem(reason)) => return self.failed(reason),
            Err(error) => return Reply::Forbidden(error.to_string()),
        };
        let Ok(path) = String::from_utf8(path) else { return Reply::NotFound };
        let id = self.next_id;
        self.next_id = id.wrapping_add(1);
        self.files.insert(id, path);
        Reply::Opened { id, size }
    }

    fn read(&mut self, id: u32, offset: u64, len: u32) -> Reply {
        let Some(path) = self.files.get(&id) else { return Reply::Failed(format!("no file {id} is open")) };
        // No file ends beyond what an i64 can say.
        let Ok(offset) = i64::try_from(offset) else { return Reply::Data(Vec::new()) };
        let Ok(len) = i32::try_from(len.min(wire::MAX_READ)) else { return Reply::Data(Vec::new()) };
        match self.mounted.guestfs.pread(path, len, offset) {
            Ok(data) => Reply::Data(data),
            Err(error) => self.failed(Failure::from(error).message),
        }
    }

    fn list(&self, path: &[u8]) -> Reply {
        match self.mounted.list(&[self.root.path(), b"/", path].concat()) {
            Ok(list) if Reply::has_room_for(&list) => Reply::Listed(list),
            Ok(list) => Reply::Failed(format!("a directory with {} names, which are too many", list.len())),
            Err(reason) => self.failed(reason),
        }
    }

    /// Tells a failure of one request from the end of the appliance.
    fn failed(&self, reason: String) -> Reply {
        if self.mounted.guestfs.is_ready().unwrap_or(false) { Reply::Failed(reason) } else { Reply::Lost(reason) }
    }
}

fn configure(guestfs: &Handle, folder: &Path, emulate: bool) -> Result<(), guestfs::Error> {
    // What libguestfs writes to stderr is the sign of life that the daemon waits for, and explains failures.
    guestfs.set_verbose(true)?;
    // Overlays and the like go there. The prepared appliance stays where all others look for it.
    guestfs.set_tmpdir(folder.to_str())?;
    // Only a child of ours dies with us: not a machine that libvirt would start.
    if std::env::var_os("LIBGUESTFS_BACKEND").is_none() {
        guestfs.set_backend("direct")?;
    }
    if emulate {
        guestfs.set_backend_setting("force_tcg", "1")?;
    }
    // It would end qemu when we die, as the end of our process group does.
    guestfs.set_recovery_proc(false)?;
    guestfs.set_network(false)?;
    guestfs.set_memsize(MEMORY)
}

fn add_drive(guestfs: &Handle, config: &DiskConfig) -> Result<(), guestfs::Error> {
    let server = match &config.url.server {
        NbdServer::Tcp { host, port } if host.contains(':') => format!("[{host}]:{port}"),
        NbdServer::Tcp { host, port } => format!("{host}:{port}"),
        NbdServer::Unix(path) => format!("unix:{path}"),
    };
    let servers = [server.as_str()];
    let options = AddDriveOptArgs {
        // A layer of our own takes writes, so that a file system that was not unmounted can be mounted: its journal is replayed.
        readonly: Some(true),
        // Guessing the format would trust the first bytes of the disk.
        format: Some("raw"),
        protocol: Some("nbd"),
        server: Some(&servers),
        ..AddDriveOptArgs::default()
    };
    guestfs.add_drive(&config.url.export, options)
}
