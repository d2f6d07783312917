//! The data path's waiting: sockets and the deadlines of their owners, in few system calls.
//!
//! A socket is made known to the kernel at its first wait and stays known: whoever waits is told when there is something to
//! receive, receives it and waits again, without another call to say so and without a receive that only finds the socket empty.
//! A task is told as long as there is something (level-triggered), a guest once (edge-triggered), which saves the kernel a second
//! look at the socket. A deadline usually moves away before it comes, so the kernel's timer is set only when it must fire
//! earlier than it would.
//!
//! Who waits is a task, or a [`Handler`], which the event loop steps by itself: that takes a quarter of the instructions and touches
//! a fraction of the memory, which is what counts with a thousand of them. The connections of disks, which a transfer gets its
//! bytes from, are waited for here as well ([`Stream`]): with smol that takes another thread and several system calls each time.
//! What is not the data path (signals, the watched directory) does wait with smol as elsewhere, and wakes this thread through an
//! eventfd when it sleeps.
//!
//! Of many guests that are due only some have their turns for a while ([`queue`]), and what they need in memory stays at hand.
//!
//! There may be one for every processor ([`Workers`]): tasks run on the thread of the first, guests on that of any.

mod processors;
mod registry;
mod run_queue;
mod stream;
mod waker;
mod workers;

use std::{
    fmt::Debug,
    future::{Future, poll_fn},
    io,
    net::UdpSocket,
    os::fd::OwnedFd,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use rtftp_core::Instant;
use rustix::{
    buffer::spare_capacity,
    event::epoll::{self, CreateFlags, Event, EventData, EventFlags},
    time::{TimerfdClockId, TimerfdFlags, Timespec, timerfd_create},
};

use self::{
    registry::{FIRST, Table, Wait, Work},
    waker::Alarm,
};
pub(crate) use self::{stream::Stream, workers::Workers};
use crate::clock;

/// How many guests have a turn between two looks at the kernel. Of more, the memory would not stay in the innermost caches from the
/// receiving to the answers.
const TURNS: usize = 32;
/// How many sockets the kernel tells of at once. More than have turns, or those who wait for theirs would keep it from telling who
/// has answered already.
const EVENTS: usize = 2 * TURNS;
/// What epoll calls the eventfd and the timer.
const ALARM: u64 = 0;
const TIMER: u64 = 1;

/// The sockets of one thread and what is waited for on them.
#[derive(Debug)]
pub(crate) struct EventLoop {
    epoll: OwnedFd,
    timer: OwnedFd,
    alarm: Arc<Alarm>,
    table: Mutex<Table>,
}

/// A socket that a task can wait on, one at a time.
#[derive(Debug)]
pub(crate) struct Socket {
    event_loop: Arc<EventLoop>,
    id: usize,
    socket: Arc<UdpSocket>,
}

/// What the event loop steps by itself whenever its socket is ready or its deadline comes. It must not block.
pub(crate) trait Handler: Debug + Send {
    /// Takes in what has come, if something has, and answers nothing yet: all that are due do this before any of them has its turn.
    ///
    /// What it leaves there it is not told of again: it sees that when more has come, or in the next turn for another reason.
    fn receive(&mut self);

    /// Does what is to be done now; not more than the others can wait for.
    fn turn(&mut self) -> Turn;
}

/// What a guest wants after its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// The next turn at this instant, unless something comes before.
    Wait(Instant),
    /// Another turn when the others had theirs.
    Again,
    /// To go back to its task.
    Leave,
}

impl EventLoop {
    /// Makes one, with nothing to wait for yet.
    pub(crate) fn new() -> io::Result<Arc<Self>> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
        let alarm = Arc::new(Alarm::new()?);
        // Edge-triggered: each is told of once and needs no reading.
        let once = EventFlags::IN | EventFlags::ET;
        epoll::add(&epoll, &timer, EventData::new_u64(TIMER), once)?;
        epoll::add(&epoll, alarm.eventfd(), EventData::new_u64(ALARM), once)?;
        Ok(Arc::new(Self { epoll, timer, alarm, table: Mutex::default() }))
    }

    /// Runs a future to its end on this thread, with all that it waits for here. One thread at a time may do so.
    pub(crate) fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        let mut future = pin!(future);
        let waker = Waker::from(self.alarm.clone());
        let mut context = Context::from_waker(&waker);
        let mut events = Vec::with_capacity(EVENTS);
        let mut work = Work::default();
        loop {
            self.alarm.stay_awake();
            if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
                return value;
            }
            self.look(&mut events, &mut work);
            self.work(&mut work);
        }
    }

    /// Looks at the kernel, or sleeps until there is something to see, and notes what is to be done.
    fn look(&self, events: &mut Vec<Event>, work: &mut Work) {
        let mut table = self.lock();
        table.set_timer(&self.timer);
        let is_busy = table.is_busy();
        drop(table);
        let at_once = Timespec::default();
        let timeout = if !is_busy && self.alarm.may_sleep() { None } else { Some(&at_once) };
        if let Err(error) = epoll::wait(&self.epoll, spare_capacity(events), timeout) {
            // A signal; everything else would be an error in here.
            log::trace!("epoll: {error}");
        }
        self.alarm.stay_awake();
        let mut table = self.lock();
        for event in events.drain(..) {
            match event.data.u64() {
                ALARM => {}
                TIMER => table.expire(clock::now(), work),
                name => table.ready(&self.epoll, (name - FIRST) as usize, work),
            }
        }
        table.begin_turns(TURNS, work);
    }

    /// Gives all guests that are due their turns and wakes the tasks whose waits are over.
    ///
    /// What was received all together is answered all together: a client on this machine is then woken once, not once a block.
    fn work(&self, work: &mut Work) {
        for due in &work.guests {
            lock(&due.guest).receive();
        }
        let mut guests = std::mem::take(&mut work.guests);
        for due in guests.drain(..) {
            let turn = lock(&due.guest).turn();
            self.lock().settle(&due, turn, work);
        }
        work.guests = guests;
        work.woken.drain(..).for_each(Waker::wake);
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        lock(&self.table)
    }
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Socket {
    /// Has a socket looked after, which must be non-blocking.
    pub(crate) fn new(event_loop: &Arc<EventLoop>, socket: Arc<UdpSocket>) -> Self {
        Self::concerning(EventFlags::all(), event_loop, socket)
    }

    /// Has a descriptor of its own of a socket looked after that somebody else receives from: it is never ready to receive, and
    /// its guest is nudged.
    pub(crate) fn to_send(event_loop: &Arc<EventLoop>, socket: Arc<UdpSocket>) -> Self {
        Self::concerning(EventFlags::OUT, event_loop, socket)
    }

    fn concerning(events: EventFlags, event_loop: &Arc<EventLoop>, socket: Arc<UdpSocket>) -> Self {
        let id = event_loop.lock().insert(socket.clone(), events);
        Self { event_loop: event_loop.clone(), id, socket }
    }

    /// The socket itself.
    pub(crate) fn get(&self) -> &UdpSocket {
        &self.socket
    }

    /// Waits until there is something to receive, which is `true`, or until `deadline`, which is `false`.
    pub(crate) async fn readable(&self, deadline: Option<Instant>) -> bool {
        self.wait(Wait::Ready(EventFlags::IN, deadline)).await
    }

    /// Waits until there is room to send.
    pub(crate) async fn writable(&self) {
        self.wait(Wait::Ready(EventFlags::OUT, None)).await;
    }

    /// Leaves a guest to the event loop until it wants to leave; its first turn is at `until`, or when something has come.
    pub(crate) async fn host(&self, guest: Arc<Mutex<impl Handler + 'static>>, until: Instant) {
        self.wait(Wait::Handler(guest, until)).await;
    }

    /// Has its guest, if it has one now, have a turn before the event loop sleeps. To be called on the event loop's thread.
    pub(crate) fn nudge(&self) {
        self.event_loop.lock().nudge(self.id);
    }

    async fn wait(&self, wait: Wait) -> bool {
        let mut wait = Some(wait);
        poll_fn(|context| {
            let mut table = self.event_loop.lock();
            let Some(wait) = wait.take() else { return table.poll(self.id, context.waker()) };
            table.begin(&self.event_loop.epoll, self.id, wait, context.waker());
            // The event_loop may be asleep, if it is not this thread's.
            table.set_timer(&self.event_loop.timer);
            Poll::Pending
        })
        .await
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.event_loop.lock().remove(&self.event_loop.epoll, self.id);
    }
}

#[cfg(test)]
mod tests {
    use std::{thread, time::Duration};

    use smol::{
        channel::bounded,
        future::{or, poll_once, zip},
    };

    use super::*;

    const SOON: Duration = Duration::from_millis(20);

    fn event_loop() -> Arc<EventLoop> {
        EventLoop::new().expect("a event_loop")
    }

    pub(super) fn socket(event_loop: &Arc<EventLoop>) -> Socket {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
        socket.set_nonblocking(true).expect("set");
        Socket::new(event_loop, Arc::new(socket))
    }

    pub(super) fn send_to(socket: &Socket) {
        let sender = UdpSocket::bind("127.0.0.1:0").expect("a port");
        sender.send_to(b"x", socket.get().local_addr().expect("bound")).expect("sent");
    }

    pub(super) fn far() -> Instant {
        clock::now().after(Duration::from_secs(3600))
    }

    fn soon() -> Option<Instant> {
        Some(clock::now().after(SOON))
    }

    #[test]
    fn a_wait_ends_with_a_datagram_or_at_its_deadline() {
        let event_loop = event_loop();
        let socket = socket(&event_loop);
        let deadline = soon();
        assert!(!event_loop.block_on(socket.readable(deadline)));
        assert!(Some(clock::now()) >= deadline);
        send_to(&socket);
        assert!(event_loop.block_on(socket.readable(None)));
        assert!(event_loop.block_on(socket.readable(soon())), "as long as nobody takes it");
        socket.get().recv(&mut [0; 8]).expect("received");
        assert!(!event_loop.block_on(socket.readable(soon())));
        event_loop.block_on(socket.writable());
    }

    #[test]
    fn deadlines_that_move_are_kept() {
        let event_loop = event_loop();
        let (socket, other) = (socket(&event_loop), socket(&event_loop));
        let now = clock::now();
        event_loop.block_on(async {
            // Later than it was at first, then earlier.
            assert!(poll_once(socket.readable(soon())).await.is_none());
            let late = clock::now().after(3 * SOON);
            let both = zip(socket.readable(Some(late)), other.readable(soon())).await;
            assert!(both == (false, false) && clock::now() >= late);
            assert!(poll_once(socket.readable(Some(far()))).await.is_none());
            assert!(!socket.readable(soon()).await);
            // None at all is never, whatever was before.
            assert!(poll_once(socket.readable(soon())).await.is_none());
            let never = async { panic!("nothing came, but {}", socket.readable(None).await) };
            let later = async { assert!(!other.readable(Some(clock::now().after(2 * SOON))).await) };
            or(never, later).await;
        });
        assert!(clock::now().since(now) < Duration::from_secs(60));
    }

    /// Says what it is told to say, and notes what happens to it.
    #[derive(Debug)]
    pub(super) struct Told {
        socket: Arc<UdpSocket>,
        /// The last one first.
        says: Vec<Turn>,
        pub(super) seen: Vec<&'static str>,
    }

    impl Told {
        pub(super) fn new(socket: &Socket, says: Vec<Turn>) -> Arc<Mutex<Self>> {
            Arc::new(Mutex::new(Self { socket: socket.socket.clone(), says, seen: vec![] }))
        }
    }

    impl Handler for Told {
        fn receive(&mut self) {
            if self.socket.recv(&mut [0; 8]).is_ok() {
                self.seen.push("received");
            }
        }

        fn turn(&mut self) -> Turn {
            self.seen.push("turn");
            self.says.pop().expect("no more turns than that")
        }
    }

    #[test]
    fn a_guest_has_its_turns_until_it_leaves() {
        let event_loop = event_loop();
        let socket = socket(&event_loop);
        let near = clock::now().after(SOON);
        let guest = Told::new(&socket, vec![Turn::Leave, Turn::Wait(near), Turn::Again]);
        event_loop.block_on(async {
            assert!(poll_once(socket.host(guest.clone(), clock::now())).await.is_none());
            send_to(&socket);
            socket.host(guest.clone(), far()).await;
        });
        assert!(clock::now() >= near);
        assert_eq!(lock(&guest).seen, ["received", "turn", "turn", "turn"]);
        assert_eq!(lock(&guest).says, []);
        send_to(&socket);
        event_loop.block_on(async { assert!(socket.readable(None).await) });
        assert_eq!(lock(&guest).seen.len(), 4, "it has left");
    }

    #[test]
    fn who_only_sends_is_nudged_and_never_told_of_what_comes() {
        let event_loop = event_loop();
        let listener = socket(&event_loop);
        let sender = Socket::to_send(&event_loop, Arc::new(listener.get().try_clone().expect("a descriptor")));
        // Somebody else receives.
        let guest = Told::new(&socket(&event_loop), vec![Turn::Leave, Turn::Wait(far())]);
        send_to(&listener);
        event_loop.block_on(async {
            assert!(!sender.readable(soon()).await);
            sender.writable().await;
            assert!(poll_once(sender.host(guest.clone(), far())).await.is_none());
            assert!(listener.readable(None).await, "the other one is");
            assert_eq!(lock(&guest).seen.len(), 0);
            // Twice is as good as once.
            sender.nudge();
            sender.nudge();
            assert!(listener.readable(None).await);
            assert!(listener.get().recv(&mut [0; 8]).is_ok());
            assert!(!listener.readable(soon()).await);
            assert_eq!(lock(&guest).seen, ["turn"]);
            let leaving = sender.host(guest.clone(), far());
            sender.nudge();
            leaving.await;
        });
        assert_eq!(lock(&guest).seen, ["turn", "turn"]);
    }

    /// A datagram and its deadline came together, it left in the first of two turns, and in the second it was its task's already.
    #[test]
    fn a_guest_has_one_turn_a_round() {
        let event_loop = event_loop();
        let mut work = Work::default();
        let socket = socket(&event_loop);
        let guest = Told::new(&socket, vec![Turn::Leave]);
        event_loop.block_on(async { assert!(poll_once(socket.host(guest.clone(), far())).await.is_none()) });
        send_to(&socket);
        event_loop.lock().ready(&event_loop.epoll, socket.id, &mut work);
        event_loop.lock().expire(far(), &mut work);
        event_loop.lock().begin_turns(TURNS, &mut work);
        event_loop.work(&mut work);
        assert_eq!(lock(&guest).seen, ["received", "turn"]);
    }

    /// What it left there, it sees with the next datagram or at its deadline; what came while it was away, as soon as it is back.
    #[test]
    fn a_guest_is_told_of_every_datagram_once() {
        let event_loop = event_loop();
        let socket = socket(&event_loop);
        let soon = || Turn::Wait(clock::now().after(SOON));
        let guest = Told::new(&socket, vec![Turn::Leave, soon(), soon(), Turn::Leave]);
        send_to(&socket);
        event_loop.block_on(socket.host(guest.clone(), far()));
        assert_eq!(lock(&guest).seen, ["received", "turn"]);
        (0..3).for_each(|_| send_to(&socket));
        lock(&guest).seen.clear();
        event_loop.block_on(socket.host(guest.clone(), far()));
        assert_eq!(lock(&guest).seen, ["received", "turn"].repeat(3));
    }

    #[test]
    fn a_guest_that_was_taken_back_during_its_turn_has_no_say_any_more() {
        let event_loop = event_loop();
        let mut work = Work::default();
        let hosting = || {
            let socket = socket(&event_loop);
            let guest = Told::new(&socket, vec![]);
            event_loop.block_on(async { assert!(poll_once(socket.host(guest, far())).await.is_none()) });
            socket
        };
        let first = hosting();
        event_loop.lock().expire(far(), &mut work);
        event_loop.lock().begin_turns(TURNS, &mut work);
        let due = work.guests.pop().expect("the first one");
        drop(first);
        let second = hosting();
        assert_eq!(second.id, due.id, "its place is taken");
        event_loop.lock().settle(&due, Turn::Leave, &mut work);
        assert!(work.woken.is_empty());
        event_loop.lock().nudge(second.id);
        event_loop.lock().begin_turns(TURNS, &mut work);
        assert_eq!(work.guests.len(), 1, "it is there still");
    }

    #[test]
    fn what_nobody_waits_for_is_told_once() {
        let event_loop = event_loop();
        let (socket, other) = (socket(&event_loop), socket(&event_loop));
        let interest = || event_loop.lock().interest(socket.id);
        event_loop.block_on(async {
            assert!(poll_once(socket.readable(None)).await.is_none());
            send_to(&socket);
            assert_eq!(interest(), Some(EventFlags::IN));
            assert!(!other.readable(soon()).await);
            assert_eq!(interest(), Some(EventFlags::empty()));
            assert!(socket.readable(None).await, "it is still there");
        });
    }

    #[test]
    fn a_socket_that_is_gone_leaves_nothing_behind() {
        let event_loop = event_loop();
        event_loop.block_on(async {
            let first = socket(&event_loop);
            assert!(poll_once(first.readable(soon())).await.is_none());
            send_to(&first);
            drop(first);
            // The kernel gives it the same descriptor.
            let second = socket(&event_loop);
            assert!(!second.readable(soon()).await);
        });
        let table = event_loop.lock();
        assert!(table.is_empty(), "{table:?}");
    }

    #[test]
    fn no_wake_of_another_thread_is_lost() {
        const ROUNDS: u32 = 20_000;
        let event_loop = event_loop();
        let ((there, arrived), (back, returned)) = (bounded(1), bounded(1));
        let echo = thread::spawn(move || {
            while let Ok(number) = arrived.recv_blocking() {
                back.send_blocking(number).expect("taken");
            }
        });
        event_loop.block_on(async {
            for number in 0..ROUNDS {
                there.send(number).await.expect("taken");
                assert_eq!(returned.recv().await, Ok(number));
            }
        });
        drop(there);
        echo.join().expect("ended");
    }
}
