//! Runs tasks on the thread of an event loop, in slices: its sockets and handlers must not wait for all of them.

use std::time::{Duration, Instant};

use smol::{
    Executor,
    future::{or, yield_now},
};

/// The time for which the tasks of an executor run before others have their turn.
const SLICE: Duration = Duration::from_micros(500);

/// Runs the tasks of two executors, and lets the event loop poll its sockets and handlers after a slice of each. So tasks of `first`
/// wait for one slice of `second` at most, however many tasks that has. Never returns.
///
/// `Executor::run` would run 200 tasks before it yields to the event loop.
pub(crate) async fn run_tasks(first: &Executor<'static>, second: &Executor<'static>) {
    loop {
        or(first.tick(), second.tick()).await;
        for executor in [first, second] {
            let started = Instant::now();
            while started.elapsed() < SLICE && executor.try_tick() {}
        }
        yield_now().await;
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Write, os::unix::net::UnixStream, sync::mpsc, thread};

    use smol::{channel::bounded, io::AsyncReadExt};

    use super::{
        super::{EventLoop, stream::Stream},
        *,
    };

    /// Uses the processor for half a slice, again and again.
    async fn burn() {
        loop {
            let started = Instant::now();
            while started.elapsed() < SLICE / 2 {}
            yield_now().await;
        }
    }

    /// A socket is ready 20 times beside 200 busy tasks of the second executor, and a task of the first one answers.
    #[test]
    fn many_tasks_delay_neither_sockets_nor_tasks_of_the_first_executor() {
        let event_loop = EventLoop::new().expect("an event loop");
        let (near, mut far) = UnixStream::pair().expect("a socket pair");
        near.set_nonblocking(true).expect("set");
        let mut stream = Stream::new(&event_loop, near.into());
        let (received, receive) = mpsc::channel();
        let (end, ended) = bounded::<()>(1);
        let running = thread::spawn(move || {
            let (first, second) = (Executor::new(), Executor::new());
            let busy: Vec<_> = (0..200).map(|_| second.spawn(burn())).collect();
            let answer = first.spawn(async move {
                let mut byte = [0];
                while stream.read_exact(&mut byte).await.is_ok() {
                    let _ = received.send(Instant::now());
                }
            });
            event_loop.block_on(or(async { _ = ended.recv().await }, run_tasks(&first, &second)));
            drop((busy, answer));
        });
        let worst = (0..20).map(|_| {
            let written = Instant::now();
            far.write_all(b"x").expect("sent");
            receive.recv().expect("received") - written
        });
        let worst = worst.max().unwrap_or_default();
        println!("worst delay of a socket beside 200 busy tasks: {worst:?}");
        end.close();
        running.join().expect("ended");
        assert!(worst < Duration::from_millis(40), "as if all tasks had run before it: {worst:?}");
    }
}
