//! The worker pool: one event loop per processor.

use std::{
    io, iter,
    sync::{Arc, OnceLock},
    thread,
};

use parking_lot::Mutex;
use smol::channel::{Receiver, Sender, bounded};

use super::{epoll::EventLoop, processors::Processors};

/// The largest number of workers. More would only wait for the network.
const MAX_WORKERS: usize = 8;
/// The number of sockets up to which the main worker serves all of them.
const MAIN_WORKER_SOCKETS: usize = 32;

/// A pool of workers. The creator's thread runs the main worker's event loop. Each other worker has a thread of its own, started
/// when it is first needed and ended with the pool.
///
/// A single thread receives the datagrams of many sockets together and answers them together; two threads do so less well, and
/// compete for processors with clients and NBD servers on this machine. So another worker is used only while the present ones are
/// overloaded and a processor is idle.
#[derive(Debug)]
pub(crate) struct Workers {
    main: Arc<EventLoop>,
    others: OnceLock<Vec<Arc<EventLoop>>>,
    /// The largest number of workers, including the main worker.
    count: usize,
    processors: Mutex<Processors>,
    /// A channel that is closed to end the threads.
    alive: (Sender<()>, Receiver<()>),
}

impl Workers {
    /// Creates a pool with a worker for each processor available to this process, up to [`MAX_WORKERS`].
    pub(crate) fn new(main: Arc<EventLoop>) -> Self {
        Self::with_count(thread::available_parallelism().map_or(1, usize::from).min(MAX_WORKERS), main)
    }

    fn with_count(count: usize, main: Arc<EventLoop>) -> Self {
        Self { main, others: OnceLock::new(), count, processors: Mutex::new(Processors::new()), alive: bounded(1) }
    }

    /// Returns the event loop of the main worker.
    pub(crate) fn main(&self) -> &Arc<EventLoop> {
        &self.main
    }

    /// Returns the event loop for the next socket.
    pub(crate) fn pick(&self) -> &Arc<EventLoop> {
        if self.count == 1 || self.main.socket_count() < MAIN_WORKER_SOCKETS {
            return &self.main;
        }
        let useful = self.processors.lock().useful_workers(self.count);
        self.least_loaded(useful)
    }

    /// Returns the event loop with the fewest sockets among the first `count`.
    fn least_loaded(&self, count: usize) -> &Arc<EventLoop> {
        let others = if count > 1 { self.others.get_or_init(|| self.start()).iter() } else { [].iter() };
        let candidates = iter::once(&self.main).chain(others).take(count);
        candidates.min_by_key(|event_loop| event_loop.socket_count()).unwrap_or(&self.main)
    }

    /// Starts the threads of the other workers, or as many as the system allows.
    fn start(&self) -> Vec<Arc<EventLoop>> {
        let start = |number| {
            let report = |error: &io::Error| {
                log::warn!("cannot start worker {number} of {}: {error}; using {number}", self.count);
            };
            start_worker(number, self.alive.1.clone()).inspect_err(report).ok()
        };
        (1..self.count).map_while(start).collect()
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.alive.0.close();
    }
}

/// Starts a worker, which runs until the channel is closed.
fn start_worker(number: usize, end: Receiver<()>) -> io::Result<Arc<EventLoop>> {
    let event_loop = EventLoop::new()?;
    let ended = async move {
        let _ = end.recv().await;
    };
    start_thread(format!("worker-{number}"), &event_loop, ended)?;
    Ok(event_loop)
}

/// Starts a thread that runs an event loop until `end` completes.
pub(super) fn start_thread(
    name: String,
    event_loop: &Arc<EventLoop>,
    end: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let event_loop = event_loop.clone();
    crate::thread::spawn(name, move || event_loop.block_on(end))
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            epoll::tests::{Script, register, send_to, sleep},
            handler::Next,
        },
        *,
    };

    fn workers() -> Workers {
        Workers::with_count(3, EventLoop::new().expect("an event loop"))
    }

    fn others(workers: &Workers) -> &[Arc<EventLoop>] {
        workers.others.get_or_init(|| workers.start())
    }

    fn load(event_loop: &EventLoop) -> usize {
        event_loop.socket_count()
    }

    #[test]
    fn shares_sockets_evenly_among_useful_workers() {
        let workers = workers();
        let mut sockets: Vec<_> = (0..9).map(|_| register(workers.least_loaded(1))).collect();
        assert!(workers.others.get().is_none(), "a single worker needs no thread");
        sockets.extend((0..9).map(|_| register(workers.least_loaded(2))));
        let loads = || others(&workers).iter().map(|event_loop| load(event_loop)).collect::<Vec<_>>();
        assert_eq!((load(&workers.main), loads()), (9, vec![9, 0]));
        sockets.extend((0..9).map(|_| register(workers.least_loaded(3))));
        assert_eq!((load(&workers.main), loads()), (9, vec![9; 2]));
        sockets.remove(9);
        assert!(Arc::ptr_eq(workers.least_loaded(3), &others(&workers)[0]));
    }

    #[test]
    fn serves_few_sockets_on_the_main_worker() {
        let workers = workers();
        let sockets: Vec<_> = (0..MAIN_WORKER_SOCKETS).map(|_| register(workers.pick())).collect();
        assert_eq!(load(&workers.main), sockets.len());
        assert!(workers.others.get().is_none());
    }

    #[test]
    fn uses_one_worker_on_one_processor() {
        let workers = Workers::with_count(1, EventLoop::new().expect("an event loop"));
        let sockets: Vec<_> = (0..=MAIN_WORKER_SOCKETS).map(|_| register(workers.pick())).collect();
        assert_eq!(load(&workers.main), sockets.len());
    }

    #[test]
    fn wakes_sleeping_worker_for_new_wait() {
        let workers = workers();
        for _ in 0..100 {
            let [first, second] = [0, 1].map(|number| &others(&workers)[number]);
            let socket = register(second);
            workers.main().block_on(async {
                sleep(first, std::time::Duration::from_micros(1)).await;
                send_to(&socket);
                socket.readable().await;
            });
        }
    }

    #[test]
    fn polls_handler_on_another_thread_until_it_detaches() {
        let workers = workers();
        let socket = register(&others(&workers)[0]);
        let handler = Script::new(&socket, vec![Next::Detach, Next::Yield]);
        send_to(&socket);
        workers.main().block_on(socket.run_handler(handler.clone()));
        assert_eq!(handler.lock().polls(), 2);
    }

    #[test]
    fn ends_threads_with_the_pool() {
        let workers = workers();
        let event_loops: Vec<_> = others(&workers).iter().map(Arc::downgrade).collect();
        drop(workers);
        while event_loops.iter().any(|event_loop| event_loop.strong_count() > 0) {
            thread::yield_now();
        }
    }
}
