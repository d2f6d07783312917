//! A reactor for every processor.

use std::{io, process, sync::Arc, thread};

use smol::channel::{Receiver, Sender, bounded};

use super::Reactor;

/// More would only wait for the network.
const MOST: usize = 8;

/// Reactors that share the sockets among them: the first is run by whoever made it, each of the others by a thread of its own,
/// which ends with the crew.
#[derive(Debug)]
pub(crate) struct Crew {
    reactors: Vec<Arc<Reactor>>,
    /// Closed when the threads are to end.
    _alive: Sender<()>,
}

impl Crew {
    /// Has one for each processor that this process may use, up to a number; if the machine does not give as many threads, fewer.
    pub(crate) fn new(first: Arc<Reactor>) -> Self {
        Self::of(thread::available_parallelism().map_or(1, usize::from).min(MOST), first)
    }

    fn of(count: usize, first: Arc<Reactor>) -> Self {
        let (alive, end) = bounded(1);
        let mut reactors = vec![first];
        while reactors.len() < count {
            match start(reactors.len(), end.clone()) {
                Ok(reactor) => reactors.push(reactor),
                Err(error) => {
                    log::warn!("transfers share {} threads instead of {count}: {error}", reactors.len());
                    break;
                }
            }
        }
        Self { reactors, _alive: alive }
    }

    /// The one that has no thread of its own.
    pub(crate) fn first(&self) -> &Arc<Reactor> {
        &self.reactors[0]
    }

    /// The one with the fewest sockets.
    pub(crate) fn least_busy(&self) -> &Arc<Reactor> {
        self.reactors.iter().min_by_key(|reactor| reactor.lock().len()).unwrap_or(self.first())
    }
}

/// Starts a thread with a reactor, until the channel is closed.
fn start(number: usize, end: Receiver<()>) -> io::Result<Arc<Reactor>> {
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

    #[test]
    fn sockets_are_shared_evenly() {
        let crew = crew();
        let mut sockets: Vec<_> = (0..9).map(|_| socket(crew.least_busy())).collect();
        assert!(crew.reactors.iter().all(|reactor| reactor.lock().len() == 3));
        sockets.drain(1..2);
        assert_eq!(crew.least_busy().lock().len(), 2);
    }

    #[test]
    fn a_sleeping_thread_learns_of_a_wait_that_begins_on_another_one() {
        let crew = crew();
        for _ in 0..100 {
            let (socket, other) = (socket(&crew.reactors[1]), socket(&crew.reactors[2]));
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
        let socket = socket(&crew.reactors[1]);
        let guest = Told::new(&socket, vec![Turn::Leave, Turn::Again]);
        send_to(&socket);
        crew.first().block_on(socket.host(guest.clone(), far()));
        assert_eq!(lock(&guest).seen, ["received", "turn", "turn"]);
    }

    #[test]
    fn the_threads_end_with_the_crew() {
        let crew = crew();
        let reactors: Vec<_> = crew.reactors.iter().map(Arc::downgrade).collect();
        drop(crew);
        while reactors.iter().any(|reactor| reactor.upgrade().is_some()) {
            thread::yield_now();
        }
    }
}
