//! Work outside of the sandbox: for what needs more files than those that are served.
//!
//! Landlock confines a thread and all that it starts. One thread is there before, and starts another for each piece of work. There
//! are three kinds of it: to look names up, as the C library reads whatever `/etc/nsswitch.conf` names; to start and bury the
//! helper programs of libguestfs; and to remove the status socket at the end. A client's request decides on none.

use std::{
    io,
    sync::{LazyLock, mpsc},
    thread,
};

use smol::channel::{Receiver, bounded};

/// What the threads outside are called.
const NAME: &str = "outside";

type Work = Box<dyn FnOnce() + Send>;

/// The thread that starts the others.
static OUTSIDE: LazyLock<mpsc::Sender<Work>> = LazyLock::new(|| {
    let (sender, inbox) = mpsc::channel::<Work>();
    let start_each = move || {
        for work in inbox {
            if let Err(error) = thread::Builder::new().name(NAME.into()).spawn(work) {
                log::error!("cannot start a thread: {error}");
            }
        }
    };
    if let Err(error) = thread::Builder::new().name(NAME.into()).spawn(start_each) {
        log::error!("cannot start a thread: {error}");
    }
    sender
});

/// Makes sure that there is an outside. To be called before a thread is confined.
pub(crate) fn open() {
    LazyLock::force(&OUTSIDE);
}

/// Begins work that may block, whether or not anybody waits for its result.
pub(crate) fn begin<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Receiver<T> {
    let (sender, result) = bounded(1);
    let work = move || {
        // Nobody may want it any more.
        let _ = sender.try_send(work());
    };
    // Fails if the thread has not started, which is logged; then there is no result.
    let _ = OUTSIDE.send(Box::new(work));
    result
}

/// Does work that may block, and fail.
pub(crate) async fn unblock<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    begin(work).recv().await.unwrap_or_else(|_| Err(io::Error::other("no thread to do it")))
}
