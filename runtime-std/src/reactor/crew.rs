//! A reactor for every processor.

use std::{
    io, iter, process,
    sync::{Arc, OnceLock},
    thread,
};

use smol::channel::{Receiver, Sender, bounded};

use super::Reactor;

/// More threads would only wait for the network.
const MOST: usize = 8;
/// Up to so many sockets one thread is as fast as two, and takes less processor time: what comes to many of them is received
/// together and answered together.
const ENOUGH: usize = 32;

/// Reactors that share the sockets among them: the first is run by whoever made it, each of the others by a thread of its own, as
/// soon as there is work for it and until the crew ends.
#[derive(Debug)]
pub(crate) struct Crew {
    first: Arc<Reactor>,
    others: OnceLock<Vec<Arc<Reactor>>>,
    /// How many there are to be with the first.
    count: usize,
    /// Closed when the threads are to end.
    alive: (Sender<()>, Receiver<()>),
}

impl Crew {
    /// Has one for each processor that this process may use, up to a number.
    pub(crate) fn new(first: Arc<Reactor>) -> Self {
        Self::of(thread::available_parallelism().map_or(1, usize::from).min(MOST), first)
    }

    fn of(count: usize, first: Arc<Reactor>) -> Self {
        Self { first, others: OnceLock::new(), count, alive: bounded(1) }
    }

    /// The one that has no thread of its own.
    pub(crate) fn first(&self) -> &Arc<Reactor> {
        &self.first
    }

    /// The one to look after the next socket: the first that has not enough yet, or that with the fewest.
    pub(crate) fn next(&self) -> &Arc<Reactor> {
        let sockets = |reactor: &&Arc<Reactor>| reactor.lock().len();
        if sockets(&&self.first) < ENOUGH {
            return &self.first;
        }
        let others = self.others.get_or_init(|| self.start());
        let next = others.iter().find(|reactor| sockets(reactor) < ENOUGH);
        next.or_else(|| iter::once(&self.first).chain(others).min_by_key(sockets)).unwrap_or(&self.first)
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
    fn few_sockets_need_no_other_thread_and_many_are_shared_evenly() {
        let crew = crew();
        let loads = || others(&crew).iter().map(|reactor| reactor.lock().len()).collect::<Vec<_>>();
        let mut sockets: Vec<_> = (0..ENOUGH).map(|_| socket(crew.next())).collect();
        assert!(crew.others.get().is_none());
        sockets.push(socket(crew.next()));
        assert_eq!(loads(), [1, 0]);
        sockets.extend((0..2 * ENOUGH + 2).map(|_| socket(crew.next())));
        assert_eq!((crew.first.lock().len(), loads()), (ENOUGH + 1, vec![ENOUGH + 1; 2]));
        sockets.remove(ENOUGH);
        assert!(Arc::ptr_eq(crew.next(), &others(&crew)[0]));
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
