//! An event loop for every processor that would be idle otherwise.

use std::{
    io, iter, process,
    sync::{Arc, Mutex, OnceLock},
    thread,
};

use smol::channel::{Receiver, Sender, bounded};

use super::{EventLoop, lock, processors::Processors};

/// More threads would only wait for the network.
const MOST: usize = 8;
/// Up to so many sockets are looked after by one thread in any case.
const ENOUGH: usize = 32;

/// Reactors that share the sockets among them: the first is run by whoever made it, each of the others by a thread of its own, as
/// soon as there is work for it and until the workers ends.
///
/// One thread receives what comes to many sockets together and answers it together, which two do less well, and these two take the
/// processor from each other if clients or NBD servers on this machine need it as well. So there is another one at work only as
/// long as those before it do not get along and a processor is idle.
#[derive(Debug)]
pub(crate) struct Workers {
    first: Arc<EventLoop>,
    others: OnceLock<Vec<Arc<EventLoop>>>,
    /// How many there are to be with the first at most.
    count: usize,
    processors: Mutex<Processors>,
    /// Closed when the threads are to end.
    alive: (Sender<()>, Receiver<()>),
}

impl Workers {
    /// Has one for each processor that this process may use, up to a number.
    pub(crate) fn new(first: Arc<EventLoop>) -> Self {
        Self::of(thread::available_parallelism().map_or(1, usize::from).min(MOST), first)
    }

    fn of(count: usize, first: Arc<EventLoop>) -> Self {
        Self { first, others: OnceLock::new(), count, processors: Mutex::new(Processors::new()), alive: bounded(1) }
    }

    /// The one that has no thread of its own.
    pub(crate) fn first(&self) -> &Arc<EventLoop> {
        &self.first
    }

    /// The one to look after the next socket.
    pub(crate) fn next(&self) -> &Arc<EventLoop> {
        let first = &self.first;
        if self.count == 1 || first.lock().len() < ENOUGH {
            first
        } else {
            self.least(lock(&self.processors).worth(self.count))
        }
    }

    /// The one of the first few that has the fewest sockets.
    fn least(&self, at_work: usize) -> &Arc<EventLoop> {
        let others = if at_work > 1 { self.others.get_or_init(|| self.start()).iter() } else { [].iter() };
        let few = iter::once(&self.first).chain(others).take(at_work);
        few.min_by_key(|event_loop| event_loop.lock().len()).unwrap_or(&self.first)
    }

    /// Starts the threads, or as many as the machine gives.
    fn start(&self) -> Vec<Arc<EventLoop>> {
        let one = |number| {
            let told = |error: &io::Error| log::warn!("{number} threads serve instead of {}: {error}", self.count);
            run_on_thread(number, self.alive.1.clone()).inspect_err(told).ok()
        };
        (1..self.count).map_while(one).collect()
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.alive.0.close();
    }
}

/// Makes an event loop that a thread runs until the channel is closed.
fn run_on_thread(number: usize, end: Receiver<()>) -> io::Result<Arc<EventLoop>> {
    let event_loop = EventLoop::new()?;
    let running = event_loop.clone();
    let run = move || {
        let _together = Together;
        running.block_on(end.recv())
    };
    thread::Builder::new().name(format!("worker-{number}")).spawn(run)?;
    Ok(event_loop)
}

/// Has a fault on a thread end the process, as one on the first's thread does: its clients would wait for ever, and nobody know.
struct Together;

impl Drop for Together {
    fn drop(&mut self) {
        if thread::panicking() {
            process::abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            Turn, lock,
            tests::{Told, far, send_to, socket},
        },
        *,
    };
    use crate::clock;

    fn workers() -> Workers {
        Workers::of(3, EventLoop::new().expect("a event_loop"))
    }

    fn others(workers: &Workers) -> &[Arc<EventLoop>] {
        workers.others.get_or_init(|| workers.start())
    }

    #[test]
    fn sockets_are_shared_evenly_by_those_at_work() {
        let workers = workers();
        let mut sockets: Vec<_> = (0..9).map(|_| socket(workers.least(1))).collect();
        assert!(workers.others.get().is_none(), "one needs no other thread");
        sockets.extend((0..9).map(|_| socket(workers.least(2))));
        let loads = || others(&workers).iter().map(|event_loop| event_loop.lock().len()).collect::<Vec<_>>();
        assert_eq!((workers.first.lock().len(), loads()), (9, vec![9, 0]));
        sockets.extend((0..9).map(|_| socket(workers.least(3))));
        assert_eq!((workers.first.lock().len(), loads()), (9, vec![9; 2]));
        sockets.remove(9);
        assert!(Arc::ptr_eq(workers.least(3), &others(&workers)[0]));
    }

    #[test]
    fn few_sockets_need_no_other_thread() {
        let workers = workers();
        let sockets: Vec<_> = (0..ENOUGH).map(|_| socket(workers.next())).collect();
        assert_eq!(workers.first.lock().len(), sockets.len());
        assert!(workers.others.get().is_none());
    }

    #[test]
    fn one_processor_has_one_thread() {
        let workers = Workers::of(1, EventLoop::new().expect("a event_loop"));
        let sockets: Vec<_> = (0..=ENOUGH).map(|_| socket(workers.next())).collect();
        assert_eq!(workers.first.lock().len(), sockets.len());
    }

    #[test]
    fn a_sleeping_thread_learns_of_a_wait_that_begins_on_another_one() {
        let workers = workers();
        for _ in 0..100 {
            let [socket, other] = [0, 1].map(|number| socket(&others(&workers)[number]));
            workers.first().block_on(async {
                assert!(!socket.readable(Some(clock::now())).await, "the deadline");
                send_to(&other);
                assert!(other.readable(None).await, "the datagram");
            });
        }
    }

    #[test]
    fn a_guest_has_its_turns_on_another_thread_and_comes_back() {
        let workers = workers();
        let socket = socket(&others(&workers)[0]);
        let guest = Told::new(&socket, vec![Turn::Leave, Turn::Again]);
        send_to(&socket);
        workers.first().block_on(socket.host(guest.clone(), far()));
        assert_eq!(lock(&guest).seen, ["received", "turn", "turn"]);
    }

    #[test]
    fn the_threads_end_with_the_crew() {
        let workers = workers();
        let event_loops: Vec<_> = others(&workers).iter().map(Arc::downgrade).collect();
        drop(workers);
        while event_loops.iter().any(|event_loop| event_loop.strong_count() > 0) {
            thread::yield_now();
        }
    }
}
