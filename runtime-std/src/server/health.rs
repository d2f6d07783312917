//! The health of a server: whether its threads run tasks, and whether it can serve requests.

use std::{
    error, fmt, io,
    path::PathBuf,
    sync::atomic::AtomicBool,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use smol::{
    Executor,
    channel::{Receiver, bounded},
};

use crate::clock::until;

/// The reason why a server is not alive or not ready.
#[derive(Debug)]
#[non_exhaustive]
pub enum HealthError {
    /// The main worker has run no task for this time.
    Requests(Duration),
    /// The thread that runs the tasks of disks has run none for this time.
    Disks(Duration),
    /// The server has not started to receive requests, or has stopped.
    NotServing,
    /// The root directory cannot be read.
    Root {
        /// The path of the directory.
        path: PathBuf,
        /// The error.
        error: io::Error,
    },
}

/// The state that all probes of a server share.
#[derive(Debug, Default)]
pub(super) struct Health {
    requests: Pulse,
    disks: Pulse,
    /// Whether the server receives requests.
    pub(super) is_serving: AtomicBool,
}

impl Health {
    /// Checks that the threads of both executors run a task within `limit`.
    pub(super) async fn check_alive(
        &self,
        requests: &Executor<'static>,
        disks: &Executor<'static>,
        limit: Duration,
    ) -> Result<(), HealthError> {
        let deadline = Instant::now() + limit;
        let (requests, disks) = (self.requests.ask(requests), self.disks.ask(disks));
        // The channels are closed, without a message.
        _ = until(deadline, requests.recv()).await.ok_or(HealthError::Requests(limit))?;
        _ = until(deadline, disks.recv()).await.ok_or(HealthError::Disks(limit))?;
        Ok(())
    }
}

/// Asks a thread to run a task. At most one task is queued, however many ask.
#[derive(Debug, Default)]
struct Pulse(Mutex<Option<Receiver<()>>>);

impl Pulse {
    /// Returns a channel that is closed when the thread has run the task.
    fn ask(&self, executor: &Executor<'static>) -> Receiver<()> {
        let mut asked = self.0.lock();
        if let Some(answer) = &*asked
            && !answer.is_closed()
        {
            return answer.clone();
        }
        let (sender, answer) = bounded(1);
        executor.spawn(async move { drop(sender) }).detach();
        *asked = Some(answer.clone());
        answer
    }
}

impl fmt::Display for HealthError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Requests(limit) => {
                write!(f, "the thread that serves requests has not answered for {} s", limit.as_secs_f32())
            }
            Self::Disks(limit) => {
                write!(f, "the thread that reads disks has not answered for {} s", limit.as_secs_f32())
            }
            Self::NotServing => f.write_str("no requests are received: the server is starting or stopping"),
            Self::Root { path, error } => write!(f, "{}: {error}", path.display()),
        }
    }
}

impl error::Error for HealthError {}

#[cfg(test)]
mod tests {
    use smol::block_on;

    use super::*;

    #[test]
    fn queues_one_task_however_many_ask() {
        let (pulse, executor) = (Pulse::default(), Executor::new());
        let answers: Vec<_> = (0..1000).map(|_| pulse.ask(&executor)).collect();
        assert!(answers.iter().all(|answer| !answer.is_closed()), "the thread has not answered");
        assert!(executor.try_tick(), "one task");
        assert!(!executor.try_tick(), "only one task");
        for answer in answers {
            assert!(block_on(answer.recv()).is_err(), "answered");
        }
        assert!(!pulse.ask(&executor).is_closed(), "a new question");
    }
}
