//! Calls that may wait for a network or another process: on threads that may block, within limits.
//!
//! A call that hangs cannot be cancelled. It keeps its thread and its place until it returns, so each directory has few places: a
//! file system that does not answer delays requests to its own directory only.

use std::{
    collections::HashMap,
    fs::File,
    io, mem,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use smol::{
    Timer,
    future::or,
    lock::{Semaphore, SemaphoreGuardArc},
};

/// The number of calls at a time for one directory.
const PLACES: usize = 8;
/// The number of calls at a time to all file systems that are not local. Half of the threads stay free for other work.
const TOTAL_PLACES: usize = 256;
/// The number of directories above which unused ones are forgotten.
const MAX_UNUSED: usize = 64;

/// The places of all directories.
#[derive(Debug)]
pub(crate) struct Calls {
    limit: Duration,
    total: Arc<Semaphore>,
    directories: Mutex<HashMap<Box<str>, Arc<Places>>>,
}

/// The places for calls of one directory.
#[derive(Debug)]
pub(crate) struct Places {
    name: Box<str>,
    /// The time limit of a call.
    limit: Duration,
    free: Arc<Semaphore>,
    total: Arc<Semaphore>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The start times of the calls that have not returned.
    running: Vec<Instant>,
    /// Whether the log says that the file system does not answer.
    is_reported: bool,
    /// Files to be closed by the next call that returns.
    unclosed: Vec<File>,
}

/// Whether a call can leave the local file system of the root directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    Local,
    Any,
}

impl Calls {
    /// Creates places for calls that are waited for `limit` at most.
    pub(super) fn new(limit: Duration) -> Self {
        Self { limit, total: Arc::new(Semaphore::new(TOTAL_PLACES)), directories: Mutex::default() }
    }

    /// Returns the places of a directory. Its name appears in log messages.
    pub(super) fn places(&self, name: &str) -> Arc<Places> {
        let mut directories = self.directories.lock();
        if directories.len() > MAX_UNUSED {
            directories.retain(|_, places| Arc::strong_count(places) > 1);
        }
        if let Some(places) = directories.get(name) {
            return places.clone();
        }
        let places = Arc::new(Places {
            name: name.into(),
            limit: self.limit,
            free: Arc::new(Semaphore::new(PLACES)),
            total: self.total.clone(),
            state: Mutex::default(),
        });
        directories.insert(name.into(), places.clone());
        places
    }
}

impl Places {
    /// Runs a call on a thread that may block.
    ///
    /// # Errors
    ///
    /// Those of the call; [`io::ErrorKind::TimedOut`] if the file system does not answer.
    pub(super) async fn run<T: Send + 'static>(
        self: &Arc<Self>,
        scope: Scope,
        call: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        if self.late_calls() >= PLACES {
            return Err(self.no_answer());
        }
        let answered = async {
            let place = self.free.acquire_arc().await;
            let total = if scope == Scope::Any { Some(self.total.acquire_arc().await) } else { None };
            let running = Running::start(self.clone(), place, total);
            smol::unblock(move || {
                let result = call();
                drop(running);
                result
            })
            .await
        };
        let timed_out = async {
            Timer::after(self.limit).await;
            self.late_calls();
            Err(self.no_answer())
        };
        or(answered, timed_out).await
    }

    /// Closes a file on a thread that may block: file systems in user space are told, and waited for.
    pub(super) fn close(self: &Arc<Self>, file: File) {
        self.state.lock().unclosed.push(file);
        self.close_files();
    }

    /// Starts a call that closes files, unless one is running that will close them at its end.
    fn close_files(self: &Arc<Self>) {
        if let Some(place) = self.free.try_acquire_arc()
            && let Some(total) = self.total.try_acquire_arc()
        {
            let running = Running::start(self.clone(), place, Some(total));
            smol::unblock(move || drop(running)).detach();
        }
    }

    /// Returns the number of calls that have not returned within the time limit, and logs the first one.
    fn late_calls(&self) -> usize {
        let mut state = self.state.lock();
        let late = state.running.iter().filter(|start| start.elapsed() >= self.limit).count();
        if late > 0 && !mem::replace(&mut state.is_reported, true) {
            log::error!("{}: {}; its requests fail until it answers", self.name, self.no_answer());
        }
        late
    }

    fn no_answer(&self) -> io::Error {
        let message = format!("its file system has not answered for {} s", self.limit.as_secs_f64());
        io::Error::new(io::ErrorKind::TimedOut, message)
    }
}

/// A call that has not returned.
#[derive(Debug)]
struct Running {
    places: Arc<Places>,
    start: Instant,
    /// Released when the call returns.
    held: Option<(SemaphoreGuardArc, Option<SemaphoreGuardArc>)>,
}

impl Running {
    fn start(places: Arc<Places>, place: SemaphoreGuardArc, total: Option<SemaphoreGuardArc>) -> Self {
        let start = Instant::now();
        places.state.lock().running.push(start);
        Self { places, start, held: Some((place, total)) }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        loop {
            let file = self.places.state.lock().unclosed.pop();
            if file.is_none() {
                break;
            }
            // Closes it, without the lock.
        }
        let mut state = self.places.state.lock();
        if let Some(at) = state.running.iter().position(|start| *start == self.start) {
            state.running.swap_remove(at);
        }
        let is_late = |start: &Instant| start.elapsed() >= self.places.limit;
        if state.is_reported && !state.running.iter().any(is_late) {
            state.is_reported = false;
            log::info!("{}: its file system answers again", self.places.name);
        }
        let has_unclosed = !state.unclosed.is_empty();
        drop(state);
        self.held = None;
        // Added after the loop, while this call still held its place.
        if has_unclosed {
            self.places.close_files();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use smol::block_on;

    use super::*;

    const LIMIT: Duration = Duration::from_millis(50);

    /// A call that hangs until the sender is dropped.
    fn hanging() -> (mpsc::Sender<()>, impl FnOnce() -> io::Result<()> + Send + 'static) {
        let (sender, receiver) = mpsc::channel::<()>();
        (sender, move || {
            _ = receiver.recv();
            Ok(())
        })
    }

    /// Starts a call that hangs until the sender is dropped, and no longer waits for it.
    fn abandoned(places: &Arc<Places>) -> mpsc::Sender<()> {
        let (sender, call) = hanging();
        let (started, start) = smol::channel::bounded(1);
        let call = move || {
            _ = started.try_send(());
            call()
        };
        let waiting = async { _ = places.run(Scope::Any, call).await };
        block_on(or(waiting, async { _ = start.recv().await }));
        sender
    }

    #[test]
    fn hanging_calls_keep_their_places_and_others_fail_at_once() {
        let calls = Calls::new(LIMIT);
        let places = calls.places("default");
        let hung: Vec<_> = (0..PLACES)
            .map(|_| {
                let (sender, call) = hanging();
                let error = block_on(places.run(Scope::Any, call)).expect_err("it hangs");
                assert_eq!(error.kind(), io::ErrorKind::TimedOut);
                assert_eq!(error.to_string(), "its file system has not answered for 0.05 s");
                sender
            })
            .collect();
        let start = Instant::now();
        block_on(places.run(Scope::Any, || Ok(()))).expect_err("no place");
        println!("refused after {:?}", start.elapsed());
        assert!(start.elapsed() < LIMIT);
        block_on(calls.places("10.0.0.5").run(Scope::Any, || Ok(()))).expect("another directory has other places");
        drop(hung);
        while !places.state.lock().running.is_empty() {
            std::thread::yield_now();
        }
        block_on(places.run(Scope::Any, || Ok(()))).expect("the calls have returned");
        assert!(!places.state.lock().is_reported);
    }

    #[test]
    fn abandoned_calls_count_as_late() {
        let calls = Calls::new(LIMIT);
        let places = calls.places("default");
        let hung: Vec<_> = (0..PLACES).map(|_| abandoned(&places)).collect();
        while places.late_calls() < PLACES {
            std::thread::yield_now();
        }
        block_on(places.run(Scope::Any, || Ok(()))).expect_err("no place");
        drop(hung);
    }

    #[test]
    fn closes_files_even_if_all_places_are_taken() {
        let calls = Calls::new(LIMIT);
        let places = calls.places("default");
        let (read, write) = io::pipe().expect("a pipe");
        let hung: Vec<_> = (0..PLACES).map(|_| abandoned(&places)).collect();
        places.close(File::from(std::os::fd::OwnedFd::from(write)));
        assert_eq!(places.state.lock().unclosed.len(), 1);
        drop(hung);
        assert_eq!(io::read_to_string(read).expect("closed"), "");
    }

    #[test]
    fn forgets_unused_directories() {
        let calls = Calls::new(LIMIT);
        let used = calls.places("used");
        for number in 0..10 * MAX_UNUSED {
            calls.places(&number.to_string());
        }
        assert!(Arc::ptr_eq(&used, &calls.places("used")));
        assert!(calls.directories.lock().len() <= MAX_UNUSED + 2);
    }
}
