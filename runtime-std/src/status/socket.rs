//! The socket: its path, binding, accepting connections, and removing its file.

use std::{
    fs::{self, Metadata, Permissions},
    io,
    os::{
        fd::AsRawFd,
        unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    },
    path::{Path, PathBuf},
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, getsockopt, socket, sockopt::PeerCredentials},
    unistd::{AccessFlags, access},
};
use smol::{Executor, Timer, future::or, net::unix::UnixListener};

use super::connection::serve_connection;
use crate::{connections::Connections, monitor::Monitor, unsandboxed};

/// The default path of the status socket.
pub const DEFAULT_SOCKET: &str = "/run/rtftp/status.sock";

/// The number of connections served at a time, for all users and for each.
const MAX_CONNECTIONS: usize = 32;
/// The pause after a connection could not be accepted.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(200);
/// Owner and group may connect: nobody else needs to know which clients boot.
pub(super) const MODE: u32 = 0o660;

/// The path of the status socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StatusSocket {
    /// [`DEFAULT_SOCKET`] if its directory is writable, otherwise none.
    Default,
    /// This path. The server does not start without the socket.
    At(PathBuf),
    /// No status socket.
    Disabled,
}

/// A listening status socket. Dropping it removes its file.
#[derive(Debug)]
pub(crate) struct Socket {
    listener: UnixListener,
    path: PathBuf,
    file: Metadata,
}

impl Socket {
    /// Opens the configured socket.
    ///
    /// # Errors
    ///
    /// Returns an error if another program listens at the path, or the socket cannot be created there.
    pub(crate) fn open(configured: &StatusSocket) -> io::Result<Option<Self>> {
        match configured {
            StatusSocket::Disabled => Ok(None),
            StatusSocket::At(path) => Self::bind(path).map(Some),
            StatusSocket::Default => Ok(Self::bind_if_writable(Path::new(DEFAULT_SOCKET))),
        }
    }

    /// Binds to the path if its directory is writable. Logs errors.
    pub(super) fn bind_if_writable(path: &Path) -> Option<Self> {
        let directory = path.parent()?;
        access(directory, AccessFlags::W_OK | AccessFlags::X_OK).ok()?;
        Self::bind(path).inspect_err(|error| log::warn!("{error}; continuing without it")).ok()
    }

    pub(super) fn bind(path: &Path) -> io::Result<Self> {
        let with_path =
            |error: io::Error| io::Error::new(error.kind(), format!("status socket {}: {error}", path.display()));
        let listener = match UnixListener::bind(path) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                remove_stale(path).and_then(|()| UnixListener::bind(path))
            }
            bound => bound,
        };
        let listener = listener.map_err(with_path)?;
        fs::set_permissions(path, Permissions::from_mode(MODE)).map_err(with_path)?;
        let file = fs::symlink_metadata(path).map_err(with_path)?;
        log::debug!("status socket {}: listening", path.display());
        Ok(Self { listener, path: path.to_owned(), file })
    }

    /// Accepts and serves connections forever. A user who opens too many loses the oldest, and so cannot keep others out.
    pub(crate) async fn serve(&self, monitor: &Monitor, executor: &Executor<'static>) {
        let connections = Connections::new(MAX_CONNECTIONS, MAX_CONNECTIONS);
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let user = getsockopt(&stream, PeerCredentials).map(|peer| peer.uid()).ok();
                    let (Some(place), _) = connections.add(user) else { continue };
                    let monitor = monitor.clone();
                    let serve = async move {
                        let serve = async {
                            // Fails if the peer disconnects or reads too slowly.
                            let _ = serve_connection(stream, monitor).await;
                        };
                        or(serve, place.stopped()).await;
                    };
                    executor.spawn(serve).detach();
                }
                Err(error) => {
                    log::debug!("status socket: cannot accept a connection: {error}");
                    Timer::after(ACCEPT_RETRY_DELAY).await;
                }
            }
        }
    }

    /// Removes the file, so that further connections fail at once. Keeps a file that another server has created there since.
    pub(crate) fn remove(&self) {
        let (path, id) = (self.path.clone(), (self.file.dev(), self.file.ino()));
        let removed = unsandboxed::spawn(move || {
            if fs::symlink_metadata(&path).is_ok_and(|file| (file.dev(), file.ino()) == id) {
                let _ = fs::remove_file(&path);
            }
        });
        let _ = removed.recv_blocking();
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.remove();
    }
}

/// Removes the socket of a server that was killed.
fn remove_stale(path: &Path) -> io::Result<()> {
    if !fs::symlink_metadata(path)?.file_type().is_socket() {
        return Err(io::Error::other("the file exists and is not a socket"));
    }
    // Non-blocking, because connecting to a server that hangs could block.
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let probe = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    match connect(probe.as_raw_fd(), &UnixAddr::new(path)?) {
        Err(Errno::ECONNREFUSED) => fs::remove_file(path),
        Err(Errno::ENOENT) => Ok(()),
        _ => Err(io::Error::other("another program is listening there; is rtftp already running?")),
    }
}
