//! A thread for tasks that must not delay the transfers.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use smol::{
    Executor,
    channel::{Receiver, Sender, bounded},
    future::{or, yield_now},
};

use super::{epoll::EventLoop, workers::start_thread};

/// The time for which tasks run before the kernel is asked for events again.
const MAX_TASK_TIME: Duration = Duration::from_millis(1);

/// A thread with an executor and an event loop for the sockets of its tasks. Dropping this ends the thread.
#[derive(Debug)]
pub(crate) struct TaskThread {
    name: &'static str,
    executor: Arc<Executor<'static>>,
    event_loop: Arc<EventLoop>,
    /// A channel that is closed to end the thread.
    alive: Sender<()>,
    /// The other end of it, until the thread is started.
    end: Mutex<Option<Receiver<()>>>,
}

impl TaskThread {
    /// Creates the executor. Its tasks run once the thread is started.
    ///
    /// # Errors
    ///
    /// The event loop cannot be created.
    pub(crate) fn new(name: &'static str) -> io::Result<Self> {
        let (alive, end) = bounded(1);
        let (executor, event_loop) = (Arc::new(Executor::new()), EventLoop::new()?);
        Ok(Self { name, executor, event_loop, alive, end: Mutex::new(Some(end)) })
    }

    /// Returns the executor.
    pub(crate) fn executor(&self) -> &Arc<Executor<'static>> {
        &self.executor
    }

    /// Returns the event loop.
    pub(crate) fn event_loop(&self) -> &Arc<EventLoop> {
        &self.event_loop
    }

    /// Starts the thread, unless it was started before.
    ///
    /// # Errors
    ///
    /// The system allows no further thread.
    pub(crate) fn start(&self) -> io::Result<()> {
        let Some(end) = self.end.lock().take() else { return Ok(()) };
        let executor = self.executor.clone();
        start_thread(self.name.to_owned(), &self.event_loop, async move {
            let ended = async {
                let _ = end.recv().await;
            };
            or(ended, run_tasks(&executor)).await;
        })
    }
}

impl Drop for TaskThread {
    fn drop(&mut self) {
        self.alive.close();
    }
}

/// Runs the tasks of an executor. Never returns.
///
/// `Executor::run` would run 200 tasks before it yields to the event loop, whose sockets would wait for all of them.
async fn run_tasks(executor: &Executor<'static>) {
    loop {
        executor.tick().await;
        let started = Instant::now();
        while executor.try_tick() {
            if started.elapsed() >= MAX_TASK_TIME {
                yield_now().await;
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Write, os::unix::net::UnixStream, thread};

    use smol::{block_on, io::AsyncReadExt};

    use super::{super::stream::Stream, *};

    #[test]
    fn tasks_wait_for_the_start_and_end_with_the_thread() {
        let tasks = TaskThread::new("tasks").expect("an event loop");
        let task = tasks.executor().spawn(async { thread::current().name().map(str::to_owned) });
        assert!(!task.is_finished());
        for _ in 0..2 {
            tasks.start().expect("a thread");
        }
        assert_eq!(block_on(task).as_deref(), Some("tasks"));
        let event_loop = Arc::downgrade(tasks.event_loop());
        drop(tasks);
        while event_loop.strong_count() > 0 {
            thread::yield_now();
        }
    }

    #[test]
    fn busy_tasks_do_not_delay_sockets() {
        let tasks = TaskThread::new("tasks").expect("an event loop");
        tasks.start().expect("a thread");
        let slice = Duration::from_micros(500);
        let busy = tasks.executor().spawn(async move {
            loop {
                let started = Instant::now();
                while started.elapsed() < slice {}
                yield_now().await;
            }
        });
        let (near, mut far) = UnixStream::pair().expect("a socket pair");
        near.set_nonblocking(true).expect("set");
        let mut stream = Stream::new(tasks.event_loop(), near.into());
        let (sent, received) = bounded(1);
        let echo = tasks.executor().spawn(async move {
            let mut byte = [0];
            while stream.read_exact(&mut byte).await.is_ok() {
                let _ = sent.try_send(Instant::now());
            }
        });
        let worst = (0..20).map(|_| {
            let written = Instant::now();
            far.write_all(b"x").expect("sent");
            block_on(received.recv()).expect("received") - written
        });
        let worst = worst.max().unwrap_or_default();
        println!("worst delay of a socket beside a busy task: {worst:?}");
        assert!(worst < Duration::from_millis(90), "as if 200 tasks ran between two looks at the sockets: {worst:?}");
        drop((busy, echo));
    }
}
