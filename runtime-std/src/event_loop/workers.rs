//! A reactor for every processor that would be idle otherwise.

use std::{
    io, iter, process,
    sync::{Arc, Mutex, OnceLock},
    thread,
};

use smol::channel::{Receiver, Sender, bounded};

use super::{Reactor, lock, processors::Processors};

/// More threads would only wait for the network.
const MOST: usize = 8;
/// Up to so many sockets are looked after by one thread in any case.
const ENOUGH: usize = 32;

/// Reactors that share the sockets among them: the first is run by whoever made it, each of the others by a thread of its own, as
/// soon as there is work for it and until the crew ends.
///
/// One thread receives what comes to many sockets together and answers it together, which two do less well, and these two take the
/// processor from each other if clients or NBD servers on this machine need it as well. So there is another one at work only as
/// long as those before it do not get along and a processor is idle.
#[derive(Debug)]
pub(crate) struct Crew {
    first: Arc<Reactor>,
    others: OnceLock<Vec<Arc<Reactor>>>,
    /// How many there are to be with the first at most.
    count: usize,
    processors: Mutex<Processors>,
    /// Closed when the threads are to end.
    alive: (Sender<()>, Receiver<()>),
}

impl Crew {
    /// Has one for each processor that this process may use, up to a number.
    pub(crate) fn new(first: Arc<Reactor>) -> Self {
        Self::of(thread::available_parallelism().map_or(1, usize::from).min(MOST), first)
    }

    fn of(count: usize, first: Arc<Reactor>) -> Self {
        Self { first, others: OnceLock::new(), count, processors: Mutex::new(Processors::new()), alive: bounded(1) }
    }

    /// The one that has no thread of its own.
    pub(crate) fn first(&self) -> &Arc<Reactor> {
        &self.first
    }

    /// The one to look after the next socket.
    pub(crate) fn next(&self) -> &Arc<Reactor> {
        let first = &self.first;
        if self.count == 1 || first.lock().len() < ENOUGH {
            first
        } else {
            self.least(lock(&self.processors).worth(self.count))
        }
    }

    /// The one of the first few that has the fewest sockets.
    fn least(&self, at_work: usize) -> &Arc<Reactor> {
        let others = if at_work > 1 { self.others.get_or_init(|| self.start()).iter() } else { [].iter() };
        let few = iter::once(&self.first).chain(others).take(at_work);
        few.min_by_key(|reactor| reactor.lock().len()).unwrap_or(&self.first)
    }

    /// Starts the threads, or as many as the machine gives.
    fn start(&self) -> Vec<Arc<Reactor>> {
        let one = |number| {
            let told = |error: &io::Error| log::warn!("{number} threads serve instead of {}: {error}", self.count);
            run_on_thread(number, self.alive.1.clone()).inspect_err(told).ok()
        };
        (1..self.count).map_while(one).collect()
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.alive.0.close();
    }
}

/// Makes a reactor that a thread runs until the channel is closed.
fn run_on_thread(number: usize, end: Receiver<()>) -> io::Result<Arc<Reactor>> {
    let reactor = Reactor::new()?;
    let running = reactor.clone();
    let run = move || {
        let _together = Together;
        running.block_on(end.recv())
    };
    thread::Builder::new().name(format!("reactor-{number}")).spawn(run)?;
    Ok(reactor)
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

    fn crew() -> Crew {
        Crew::of(3, Reactor::new().expect("a reactor"))
    }

    fn others(crew: &Crew) -> &[Arc<Reactor>] {
        crew.others.get_or_init(|| crew.start())
    }

    #[test]
    fn sockets_are_shared_evenly_by_those_at_work() {
        let crew = crew();
        let mut sockets: Vec<_> = (0..9).map(|_| socket(crew.least(1))).collect();
        assert!(crew.others.get().is_none(), "one needs no other thread");
        sockets.extend((0..9).map(|_| socket(crew.least(2))));
        let loads = || others(&crew).iter().map(|reactor| reactor.lock().len()).collect::<Vec<_>>();
        assert_eq!((crew.first.lock().len(), loads()), (9, vec![9, 0]));
        sockets.extend((0..9).map(|_| socket(crew.least(3))));
        assert_eq!((crew.first.lock().len(), loads()), (9, vec![9; 2]));
        sockets.remove(9);
        assert!(Arc::ptr_eq(crew.least(3), &others(&crew)[0]));
    }

    #[test]
    fn few_sockets_need_no_other_thread() {
        let crew = crew();
        let sockets: Vec<_> = (0..ENOUGH).map(|_| socket(crew.next())).collect();
        assert_eq!(crew.first.lock().len(), sockets.len());
        assert!(crew.others.get().is_none());
    }

    #[test]
    fn one_processor_has_one_thread() {
        let crew = Crew::of(1, Reactor::new().expect("a reactor"));
        let sockets: Vec<_> = (0..=ENOUGH).map(|_| socket(crew.next())).collect();
        assert_eq!(crew.first.lock().len(), sockets.len());
    }

    #[test]
    fn a_sleeping_thread_learns_of_a_wait_that_begins_on_another_one() {
        let crew = crew();
        for _ in 0..100 {
            let [socket, other] = [0, 1].map(|number| socket(&others(&crew)[number]));
            crew.first().block_on(async {
                assert!(!socket.readable(Some(clock::now())).await, "the deadline");
                send_to(&other);
                assert!(other.readable(None).await, "the datagram");
            });
        }
    }

    #[test]
    fn a_guest_has_its_turns_on_another_thread_and_comes_back() {
        let crew = crew();
        let socket = socket(&others(&crew)[0]);
        let guest = Told::new(&socket, vec![Turn::Leave, Turn::Again]);
        send_to(&socket);
        crew.first().block_on(socket.host(guest.clone(), far()));
        assert_eq!(lock(&guest).seen, ["received", "turn", "turn"]);
    }

    #[test]
    fn the_threads_end_with_the_crew() {
        let crew = crew();
        let reactors: Vec<_> = others(&crew).iter().map(Arc::downgrade).collect();
        drop(crew);
        while reactors.iter().any(|reactor| reactor.strong_count() > 0) {
            thread::yield_now();
        }
    }
}
