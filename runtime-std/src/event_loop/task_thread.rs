//! A thread for tasks that must not delay the transfers.

use std::{io, sync::Arc};

use parking_lot::Mutex;
use smol::{
    Executor,
    channel::{Receiver, Sender, bounded},
    future::or,
};

use super::{epoll::EventLoop, tasks::run_tasks, workers::start_thread};

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
            or(ended, run_tasks(&executor, &Executor::new())).await;
        })
    }
}

impl Drop for TaskThread {
    fn drop(&mut self) {
        self.alive.close();
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use smol::block_on;

    use super::*;

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
}
