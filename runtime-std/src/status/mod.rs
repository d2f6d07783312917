//! The Unix socket that gives the boot timeline to programs of this machine.

use std::{
    fs::{self, Metadata, Permissions},
    io,
    os::{
        fd::AsRawFd,
        unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket},
    unistd::{AccessFlags, access},
};
use smol::{
    Executor, Timer,
    channel::Receiver,
    future::or,
    io::{AsyncReadExt, AsyncWriteExt},
    lock::Semaphore,
    net::unix::{UnixListener, UnixStream},
};

use crate::{clock::within, history::History, unsandboxed};

/// Where the socket is by default.
pub const SOCKET: &str = "/run/rtftp/status.sock";

/// The line that asks for events instead of a snapshot.
const FOLLOW: &[u8] = b"follow\n";
/// How long to wait for that line; who only wants the snapshot need not say or close anything.
const QUESTION: Duration = Duration::from_millis(200);
/// How long a snapshot, or a line of an event, may take to be read.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often to look whether a follower is still there.
const LOOK: Duration = Duration::from_secs(2);
/// How many may ask at a time.
const CONNECTIONS: usize = 32;
/// The owner and the group may ask: nobody else needs to know who history what.
const MODE: u32 = 0o660;

/// Where the record of history can be asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StatusSocket {
    /// At [`SOCKET`], if there can be one.
    IfPossible,
    /// At this path, or the server does not start.
    At(PathBuf),
    /// Nowhere.
    Nowhere,
}

/// The socket, listening; its file is removed when it is dropped.
#[derive(Debug)]
pub(crate) struct Socket {
    listener: UnixListener,
    path: PathBuf,
    file: Metadata,
}

impl Socket {
    /// Listens where it is said.
    ///
    /// # Errors
    ///
    /// Another program answers at the path, or there can be no socket.
    pub(crate) fn open(place: &StatusSocket) -> io::Result<Option<Self>> {
        match place {
            StatusSocket::Nowhere => Ok(None),
            StatusSocket::At(path) => Self::bind(path).map(Some),
            StatusSocket::IfPossible => Ok(Self::if_possible(Path::new(SOCKET))),
        }
    }

    /// Listens, if there is a directory for it, or says why it cannot.
    fn if_possible(path: &Path) -> Option<Self> {
        let directory = path.parent()?;
        access(directory, AccessFlags::W_OK | AccessFlags::X_OK).ok()?;
        Self::bind(path).inspect_err(|error| log::warn!("no status socket: {error}")).ok()
    }

    fn bind(path: &Path) -> io::Result<Self> {
        let told = |error: io::Error| io::Error::other(format!("status socket {}: {error}", path.display()));
        let listener = match UnixListener::bind(path) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                remove_stale(path).and_then(|()| UnixListener::bind(path))
            }
            bound => bound,
        };
        let listener = listener.map_err(told)?;
        fs::set_permissions(path, Permissions::from_mode(MODE)).map_err(told)?;
        let file = fs::symlink_metadata(path).map_err(told)?;
        log::debug!("status socket {}", path.display());
        Ok(Self { listener, path: path.to_owned(), file })
    }

    /// Answers everybody who connects, for ever.
    pub(crate) async fn serve(&self, history: &History, executor: &Executor<'static>) {
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    // Who comes when all places are taken sees an end without an answer.
                    let Some(place) = places.try_acquire_arc() else { continue };
                    let history = history.clone();
                    let answer = async move {
                        // It fails when nobody is there any more.
                        let _ = answer(stream, history).await;
                        drop(place);
                    };
                    executor.spawn(answer).detach();
                }
                Err(error) => {
                    log::debug!("status socket: {error}");
                    Timer::after(QUESTION).await;
                }
            }
        }
    }

    /// Removes the file, so that nobody waits for an answer any more, unless another server's is in its place.
    pub(crate) fn remove(&self) {
        let (path, id) = (self.path.clone(), (self.file.dev(), self.file.ino()));
        let removed = unsandboxed::begin(move || {
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

/// Removes a socket that a daemon has left which did not end properly.
fn remove_stale(path: &Path) -> io::Result<()> {
    if !fs::symlink_metadata(path)?.file_type().is_socket() {
        return Err(io::Error::other("there is a file of this name already, and it is no socket"));
    }
    // Not waiting: a server that hangs is there, too.
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let probe = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    match connect(probe.as_raw_fd(), &UnixAddr::new(path)?) {
        Err(Errno::ECONNREFUSED) => fs::remove_file(path),
        Err(Errno::ENOENT) => Ok(()),
        _ => Err(io::Error::other("another program answers there already: does rtftp run twice?")),
    }
}

/// Gives one who has connected what it asks for.
async fn answer(mut stream: UnixStream, history: History) -> io::Result<()> {
    if !wants_to_follow(&mut stream).await {
        let json = smol::unblock(move || history.json()).await;
        return within(PATIENCE, stream.write_all(&json)).await;
    }
    match history.subscribe() {
        Some(lines) => follow(stream, lines).await,
        None => Ok(()),
    }
}

/// Whether the line comes that asks for events.
async fn wants_to_follow(stream: &mut UnixStream) -> bool {
    let (mut question, mut len) = ([0; 1024], 0);
    let asked = async {
        // A socket that is closed with something unread in it breaks the connection: the reader would see an error at the end.
        while !question[..len].contains(&b'\n')
            && let Ok(more @ 1..) = stream.read(&mut question[len..]).await
        {
            len += more;
        }
    };
    let too_late = async {
        Timer::after(QUESTION).await;
    };
    or(asked, too_late).await;
    question[..len].starts_with(FOLLOW)
}

/// Tells of every event, until the follower has gone or is dropped because it is too slow.
async fn follow(mut stream: UnixStream, lines: Receiver<Arc<str>>) -> io::Result<()> {
    loop {
        let next = async { Some(lines.recv().await) };
        let look = async {
            Timer::after(LOOK).await;
            None
        };
        match or(next, look).await {
            Some(Ok(line)) => within(PATIENCE, stream.write_all(line.as_bytes())).await?,
            Some(Err(_)) => return Ok(()),
            // A write of nothing does nothing, but fails when nobody can read any more.
            None => drop(stream.write(&[]).await?),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead, BufReader, Read, Write},
        net::Shutdown,
        os::unix::net,
        thread,
        time::Instant,
    };

    use tempfile::TempDir;

    use super::*;
    use crate::{
        clock,
        history::snapshot::{Snapshot, State},
    };

    fn directory() -> (TempDir, PathBuf) {
        let directory = TempDir::new().expect("a directory");
        let path = directory.path().join("status.sock");
        (directory, path)
    }

    fn refused(path: &Path) -> String {
        Socket::bind(path).expect_err("no socket").to_string()
    }

    /// Serves a record while `test` runs.
    fn serving(test: impl FnOnce(&History, &Path) + Send) {
        let (_directory, path) = directory();
        let socket = Socket::bind(&path).expect("a socket");
        let (history, executor) = (History::new(), Executor::new());
        let (done, over) = smol::channel::bounded::<()>(1);
        let (history, executor, socket) = (&history, &executor, &socket);
        thread::scope(move |scope| {
            let server = scope.spawn(move || {
                let stop = async {
                    let _: Result<(), _> = over.recv().await;
                };
                smol::block_on(executor.run(or(socket.serve(history, executor), stop)));
            });
            // Also when the test fails, the server ends.
            let done = done;
            test(history, &path);
            drop(done);
            server.join().expect("a server");
        });
    }

    fn ask(history: &History, name: &str) {
        history.record_request([10, 0, 0, 5].into(), name.as_bytes()).finish(State::Missing, None);
    }

    #[test]
    fn only_a_socket_that_nobody_answers_at_is_replaced() {
        let (_directory, path) = directory();
        drop(net::UnixListener::bind(&path).expect("a stale socket"));
        let socket = Socket::bind(&path).expect("the stale one is replaced");
        assert_eq!(fs::metadata(&path).expect("a file").permissions().mode() & 0o777, MODE);
        assert!(refused(&path).contains("another program answers"), "{}", refused(&path));
        drop(socket);
        assert!(!path.exists());
        fs::write(&path, "precious").expect("a file");
        assert!(refused(&path).contains("no socket"), "{}", refused(&path));
        assert_eq!(fs::read(&path).expect("the file"), b"precious");
        assert!(refused(Path::new("/nowhere/at/all.sock")).contains("/nowhere/at/all.sock"));
    }

    #[test]
    fn a_socket_that_has_taken_its_place_is_left_alone() {
        let (_directory, path) = directory();
        let first = Socket::bind(&path).expect("a socket");
        fs::remove_file(&path).expect("remove");
        let _second = Socket::bind(&path).expect("a socket");
        drop(first);
        assert!(path.exists());
    }

    #[test]
    fn without_a_directory_for_it_there_is_none_by_default() {
        let (directory, path) = directory();
        assert!(Socket::if_possible(&path).is_some());
        drop(directory);
        assert!(Socket::if_possible(&path).is_none());
    }

    #[test]
    fn who_connects_gets_a_snapshot_whatever_it_says() {
        serving(|history, path| {
            ask(history, "start4.elf");
            for question in ["", "snapshot\n", "follow", "GET / HTTP/1.0\r\n\r\n"] {
                let mut stream = net::UnixStream::connect(path).expect("connected");
                stream.write_all(question.as_bytes()).expect("written");
                let mut answer = String::new();
                stream.read_to_string(&mut answer).expect("an answer");
                let snapshot: Snapshot = serde_json::from_str(&answer).expect("JSON");
                assert_eq!(snapshot.totals.missing, 1, "{question}");
            }
        });
    }

    /// Connects as a follower, and waits until there are so many.
    fn follower(history: &History, path: &Path, count: usize) -> net::UnixStream {
        let mut stream = net::UnixStream::connect(path).expect("connected");
        stream.write_all(FOLLOW).expect("written");
        poll_until("another follower", || history.subscriber_count() == count);
        stream
    }

    /// Waits for a condition.
    fn poll_until(what: &str, condition: impl Fn() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !condition() {
            assert!(Instant::now() < deadline, "waited in vain for {what}");
            thread::yield_now();
        }
    }

    #[test]
    fn followers_get_a_line_an_event_also_when_they_have_closed_their_half() {
        serving(|history, path| {
            let stream = follower(history, path, 1);
            stream.shutdown(Shutdown::Write).expect("half closed");
            ask(history, "kernel");
            let mut line = String::new();
            BufReader::new(stream).read_line(&mut line).expect("a line");
            assert!(line.starts_with(r#"{"client":"10.0.0.5","name":"kernel""#), "{line}");
        });
    }

    #[test]
    fn followers_that_have_gone_make_room_though_nothing_happens() {
        serving(|history, path| {
            let followers: Vec<_> = (1..=16).map(|count| follower(history, path, count)).collect();
            assert!(history.subscribe().is_none());
            drop(followers);
            poll_until("room", || history.subscribe().is_some());
        });
    }

    #[test]
    fn a_follower_that_does_not_read_is_dropped() {
        serving(|history, path| {
            let mut slow = follower(history, path, 1);
            let deadline = Instant::now() + PATIENCE;
            while history.subscriber_count() > 0 {
                assert!(Instant::now() < deadline, "it is still there");
                history.record_request([10, 0, 0, 5].into(), b"kernel").note_activity(clock::now(), 0, 0);
            }
            let mut rest = vec![];
            slow.read_to_end(&mut rest).expect("an end");
            assert!(rest.len() < 4 << 20, "{} bytes", rest.len());
        });
    }
}
