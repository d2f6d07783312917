//! The connection to the daemon: receives requests on stdin and sends replies on stdout.
//!
//! No call of libguestfs has a time limit. The main thread makes them; a second thread owns stdin and ends the helper when the
//! daemon does, even if libguestfs hangs. Everything that libguestfs starts is in the helper's process group and ends with it.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::fd::AsFd,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{OnceLock, mpsc},
    thread,
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::{Pid, dup2_stdin, dup2_stdout, getpgrp, setpgid},
};
use rtftp_runtime::guestfs::wire::{self, Reply, Request};

use crate::appliance::Appliance;

/// The length in bytes after which a text in a reply is truncated.
const MAX_TEXT_LEN: usize = 4096;

/// The directory for temporary files of this process, set by the first request.
static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();

/// Serves requests until stdin ends. Does not return unless setting up the process fails: it kills its process group at the end.
pub(crate) fn serve() -> ExitCode {
    let (requests, replies) = match take_channel() {
        Ok(files) => files,
        Err(error) => {
            eprintln!("rtftp-guestfs: cannot set up the process: {error}");
            return ExitCode::FAILURE;
        }
    };
    // The guestfs crate panics at messages that are not UTF-8. Unwinding would close the handle, which can block forever.
    std::panic::set_hook(Box::new(|panic| {
        eprintln!("rtftp-guestfs: {}", panic.to_string().replace('\n', " "));
        end_group();
    }));
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        while let Ok(request) = wire::read(&requests) {
            if sender.send(request).is_err() {
                break;
            }
        }
        end_group();
    });
    let mut daemon = Daemon { replies };
    let ended = daemon.greet().and_then(|()| process(&mut daemon, &receiver));
    if let Err(error) = ended {
        eprintln!("rtftp-guestfs: {error}");
    }
    end_group();
    ExitCode::FAILURE
}

/// Takes over stdin and stdout, so that programs started by libguestfs cannot use them, and becomes a process group leader.
fn take_channel() -> io::Result<(File, File)> {
    // Fails for the leader of a session, which is the leader of its process group as well.
    let _ = setpgid(Pid::from_raw(0), Pid::from_raw(0));
    let requests = io::stdin().as_fd().try_clone_to_owned()?;
    let replies = io::stdout().as_fd().try_clone_to_owned()?;
    dup2_stdin(File::open("/dev/null")?)?;
    dup2_stdout(io::stderr())?;
    Ok((requests.into(), replies.into()))
}

/// Deletes the temporary files and kills the process group.
fn end_group() {
    for directory in DIRECTORY.get().into_iter().cloned().chain(socket_directories()) {
        let _ = fs::remove_dir_all(directory);
    }
    let _ = killpg(getpgrp(), Signal::SIGKILL);
}

/// Returns the directories of this process's Unix sockets. For root, libguestfs creates one in `/tmp` regardless of its settings.
fn socket_directories() -> Vec<PathBuf> {
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
        let directory = Path::new(path).parent()?;
        directory.file_name()?.to_str()?.starts_with("libguestfs").then(|| directory.to_owned())
    })
    .collect()
}

/// The sender of replies.
struct Daemon {
    replies: File,
}

impl Daemon {
    fn greet(&mut self) -> io::Result<()> {
        self.replies.write_all(&wire::greeting(wire::VERSION))
    }

    /// Sends a reply. One that is too long for a frame is replaced by an error.
    fn send(&mut self, mut reply: Reply) -> io::Result<()> {
        if let Reply::Forbidden(text) | Reply::Failed(text) | Reply::Lost(text) = &mut reply {
            let end = text.char_indices().map(|(index, _)| index).find(|index| *index >= MAX_TEXT_LEN);
            text.truncate(end.unwrap_or(text.len()));
        }
        let frame = match (wire::encode(&reply), &reply) {
            (Err(_), Reply::Listed(entries)) => {
                wire::encode(&Reply::Failed(format!("too many entries in the directory: {}", entries.len())))
            }
            (frame, _) => frame,
        };
        self.replies.write_all(&frame?)
    }
}

/// Processes requests until the disk is lost or stdin ends.
fn process(daemon: &mut Daemon, requests: &mpsc::Receiver<Request>) -> io::Result<()> {
    let mut disk = None;
    while let Ok(request) = requests.recv() {
        let reply = match (request, &mut disk) {
            (Request::Start { emulate, directory, description }, None) => {
                let directory = DIRECTORY.get_or_init(|| directory.into());
                match Appliance::start(&description, directory, emulate, |step| daemon.send(Reply::Reached(step))) {
                    Ok(appliance) => {
                        disk = Some(appliance);
                        Reply::Ready
                    }
                    Err(reason) => Reply::Lost(reason),
                }
            }
            (Request::Open { path }, Some(disk)) => disk.open(&path),
            (Request::Read { id, offset, len }, Some(disk)) => disk.read(id, offset, len),
            (Request::Close { id }, Some(disk)) => disk.close(id),
            (Request::List { path }, Some(disk)) => disk.list(&path),
            (_, _) => Reply::Lost("invalid order of requests".into()),
        };
        let is_lost = matches!(reply, Reply::Lost(_));
        daemon.send(reply)?;
        if is_lost {
            break;
        }
    }
    Ok(())
}
