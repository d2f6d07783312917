//! Runs work on threads outside of the sandbox, for the few tasks that need files other than those served.
//!
//! Landlock confines a thread and all threads and processes that it starts. One thread is started before the sandbox; it starts a
//! new thread for each task. There are six kinds of tasks: resolving host names, because the C library reads the files that
//! `/etc/nsswitch.conf` names; starting and ending the helper processes of libguestfs; reading the server's certificate and key,
//! and the files with host names again; reading the certificates and keys for connections to NBD servers; and removing the status
//! socket at the end. Client requests cannot choose what runs here.

use std::{
    io,
    sync::{LazyLock, mpsc},
    thread,
};

use smol::channel::{Receiver, bounded};

/// The name of the threads.
const THREAD_NAME: &str = "unsandboxed";

type Task = Box<dyn FnOnce() + Send>;

/// The queue of the thread that starts a thread for each task.
static TASKS: LazyLock<mpsc::Sender<Task>> = LazyLock::new(|| {
    let (sender, tasks) = mpsc::channel::<Task>();
    start_thread(move || tasks.into_iter().for_each(start_thread));
    sender
});

fn start_thread(work: impl FnOnce() + Send + 'static) {
    if let Err(error) = thread::Builder::new().name(THREAD_NAME.into()).spawn(work) {
        log::error!("cannot start a thread: {error}");
    }
}

/// Starts the first thread. Call it before the calling thread is confined.
pub(crate) fn start() {
    LazyLock::force(&TASKS);
}

/// Runs a task that may block, and returns a channel for its result. The channel is closed if no thread could be started.
pub(crate) fn spawn<T: Send + 'static>(task: impl FnOnce() -> T + Send + 'static) -> Receiver<T> {
    let (sender, result) = bounded(1);
    let task = move || {
        // Fails if the caller has dropped the channel.
        let _ = sender.try_send(task());
    };
    // Fails if the first thread did not start, which was logged.
    let _ = TASKS.send(Box::new(task));
    result
}

/// Runs a task that may block, and waits for its result.
///
/// # Errors
///
/// Returns the error of the task, or an error if no thread could be started.
pub(crate) async fn unblock<T: Send + 'static>(task: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    spawn(task).recv().await.unwrap_or_else(|_| Err(io::Error::other("cannot start a thread")))
}
