//! The data path's waiting: sockets and the deadlines of their owners, in few system calls.
//!
//! A socket is made known to the kernel at its first wait and stays known, level-triggered: whoever waits is woken when there
//! is something to receive, receives it and waits again, without another call to say so and without a receive that only
//! finds the socket empty. A deadline usually moves away before it comes, so the kernel's timer is set only when it must fire
//! earlier than it would. What is not the data path (disks, signals, the watched directory) waits with smol as elsewhere, and
//! wakes this thread through an eventfd when it sleeps.

use std::{
    collections::{BTreeSet, HashMap},
    future::{Future, poll_fn},
    io,
    net::UdpSocket,
    os::fd::OwnedFd,
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use rtftp_core::Instant;
use rustix::{
    buffer::spare_capacity,
    event::{
        EventfdFlags,
        epoll::{self, CreateFlags, Event, EventData, EventFlags},
        eventfd,
    },
    time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime},
};

use crate::clock;

/// How many sockets are looked after between two looks at the kernel; less than an executor runs in one go.
const EVENTS: usize = 128;
/// What epoll calls the eventfd and the timer; sockets have higher numbers.
const ALARM: u64 = 0;
const TIMER: u64 = 1;

/// The sockets of one thread and what is waited for on them.
#[derive(Debug)]
pub(crate) struct Reactor {
    epoll: OwnedFd,
    timer: OwnedFd,
    alarm: Arc<Alarm>,
    table: Mutex<Table>,
}

/// A socket that a task can wait on, one at a time.
#[derive(Debug)]
pub(crate) struct Socket {
    reactor: Arc<Reactor>,
    id: u64,
    socket: Arc<UdpSocket>,
}

impl Reactor {
    /// Makes one, with nothing to wait for yet.
    pub(crate) fn new() -> io::Result<Arc<Self>> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
        let eventfd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        // Edge-triggered: each is told of once and needs no reading.
        let once = EventFlags::IN | EventFlags::ET;
        epoll::add(&epoll, &timer, EventData::new_u64(TIMER), once)?;
        epoll::add(&epoll, &eventfd, EventData::new_u64(ALARM), once)?;
        let alarm = Arc::new(Alarm { eventfd, state: AtomicU8::new(AWAKE) });
        Ok(Arc::new(Self { epoll, timer, alarm, table: Mutex::default() }))
    }

    /// Runs a future to its end on this thread, with all that it waits for here. One thread at a time may do so.
    pub(crate) fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        let mut future = pin!(future);
        let waker = Waker::from(self.alarm.clone());
        let mut context = Context::from_waker(&waker);
        let mut events = Vec::with_capacity(EVENTS);
        let mut woken = Vec::with_capacity(EVENTS);
        loop {
            self.alarm.stay_awake();
            if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
                return value;
            }
            self.turn(&mut events, &mut woken);
        }
    }

    /// Looks at the kernel, or sleeps until there is something to see, and wakes who waited for it.
    fn turn(&self, events: &mut Vec<Event>, woken: &mut Vec<Waker>) {
        self.lock().set_timer(&self.timer);
        let at_once = Timespec::default();
        let timeout = if self.alarm.may_sleep() { None } else { Some(&at_once) };
        if let Err(error) = epoll::wait(&self.epoll, spare_capacity(events), timeout) {
            // A signal; everything else would be an error in here.
            log::trace!("epoll: {error}");
        }
        self.alarm.stay_awake();
        let mut table = self.lock();
        for event in events.drain(..) {
            match event.data.u64() {
                ALARM => {}
                TIMER => table.expire(clock::now(), woken),
                id => woken.extend(table.ready(&self.epoll, id)),
            }
        }
        drop(table);
        woken.drain(..).for_each(Waker::wake);
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Socket {
    /// Takes a socket over, which must be non-blocking.
    pub(crate) fn new(reactor: &Arc<Reactor>, socket: UdpSocket) -> Self {
        let socket = Arc::new(socket);
        let id = reactor.lock().insert(socket.clone());
        Self { reactor: reactor.clone(), id, socket }
    }

    /// The socket itself.
    pub(crate) fn get(&self) -> &UdpSocket {
        &self.socket
    }

    /// Waits until there is something to receive, which is `true`, or until `deadline`, which is `false`.
    pub(crate) async fn readable(&self, deadline: Option<Instant>) -> bool {
        self.wait(EventFlags::IN, deadline).await
    }

    /// Waits until there is room to send.
    pub(crate) async fn writable(&self) {
        self.wait(EventFlags::OUT, None).await;
    }

    async fn wait(&self, interest: EventFlags, deadline: Option<Instant>) -> bool {
        let mut begun = false;
        poll_fn(|context| {
            let mut table = self.reactor.lock();
            if std::mem::replace(&mut begun, true) {
                return table.poll(self.id, context.waker());
            }
            table.begin(&self.reactor.epoll, self.id, interest, deadline, context.waker());
            Poll::Pending
        })
        .await
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.reactor.lock().remove(&self.reactor.epoll, self.id);
    }
}

/// Who waits for what.
#[derive(Debug, Default)]
struct Table {
    /// By numbers that are given once only: an event that comes late for a socket that is gone finds nobody.
    sources: HashMap<u64, Source>,
    /// How many there have been.
    count: u64,
    /// When to look at which source, each at most once.
    timers: BTreeSet<(Instant, u64)>,
    /// When the kernel's timer fires.
    fires: Option<Instant>,
}

/// A socket in the table.
#[derive(Debug)]
struct Source {
    socket: Arc<UdpSocket>,
    /// What the kernel is asked to tell of; nothing if it does not know of the socket.
    interest: EventFlags,
    state: State,
    deadline: Option<Instant>,
    /// Its place in `timers`, which may be earlier than the deadline is by now, never later.
    timer: Option<Instant>,
}

/// Whether somebody waits.
#[derive(Debug)]
enum State {
    /// Nobody.
    Idle,
    /// This task.
    Waiting(Waker),
    /// The wait is over: there is something to receive, or the deadline has come.
    Over { ready: bool },
}

impl Table {
    fn insert(&mut self, socket: Arc<UdpSocket>) -> u64 {
        self.count += 1;
        let id = TIMER + self.count;
        let source = Source { socket, interest: EventFlags::empty(), state: State::Idle, deadline: None, timer: None };
        self.sources.insert(id, source);
        id
    }

    fn remove(&mut self, epoll: &OwnedFd, id: u64) {
        if let Some(mut source) = self.sources.remove(&id) {
            source.tell(epoll, id, EventFlags::empty());
            if let Some(timer) = source.timer {
                self.timers.remove(&(timer, id));
            }
        }
    }

    /// Begins a wait, which takes the place of one that was given up.
    fn begin(&mut self, epoll: &OwnedFd, id: u64, interest: EventFlags, deadline: Option<Instant>, waker: &Waker) {
        let Some(source) = self.sources.get_mut(&id) else { return };
        source.state = State::Waiting(waker.clone());
        source.tell(epoll, id, interest);
        source.deadline = deadline;
        let Some(deadline) = deadline else { return };
        if source.timer.is_none_or(|timer| deadline < timer) {
            if let Some(later) = source.timer.replace(deadline) {
                self.timers.remove(&(later, id));
            }
            self.timers.insert((deadline, id));
        }
    }

    /// Whether the wait is over, and how it ended.
    fn poll(&mut self, id: u64, waker: &Waker) -> Poll<bool> {
        let Some(source) = self.sources.get_mut(&id) else { return Poll::Pending };
        match &mut source.state {
            State::Over { ready } => Poll::Ready(*ready),
            State::Waiting(known) => {
                known.clone_from(waker);
                Poll::Pending
            }
            // Another wait has taken the place of this one.
            State::Idle => Poll::Pending,
        }
    }

    /// Ends the wait for a socket that is ready.
    fn ready(&mut self, epoll: &OwnedFd, id: u64) -> Option<Waker> {
        let source = self.sources.get_mut(&id)?;
        let waker = source.end(true);
        if waker.is_none() {
            // Nobody takes what has come: until somebody waits again the kernel must not tell of it again and again.
            source.tell(epoll, id, EventFlags::empty());
        }
        waker
    }

    /// Ends the waits whose deadlines have come.
    fn expire(&mut self, now: Instant, woken: &mut Vec<Waker>) {
        self.fires = None;
        while let Some(&(at, id)) = self.timers.first().filter(|(at, _)| *at <= now) {
            self.timers.remove(&(at, id));
            let Some(source) = self.sources.get_mut(&id) else { continue };
            source.timer = None;
            match source.deadline {
                Some(deadline) if deadline <= now => woken.extend(source.end(false)),
                // It was moved in the meantime.
                Some(deadline) => {
                    source.timer = Some(deadline);
                    self.timers.insert((deadline, id));
                }
                None => {}
            }
        }
    }

    /// Has the kernel's timer fire in time for the first deadline.
    fn set_timer(&mut self, timer: &OwnedFd) {
        let Some(&(first, _)) = self.timers.first() else { return };
        if self.fires.is_some_and(|fires| fires <= first) {
            return;
        }
        // Zero would be never.
        let time = first.since(clock::now()).max(Duration::from_nanos(1));
        let it_value = Timespec::try_from(time).unwrap_or_default();
        match timerfd_settime(timer, TimerfdTimerFlags::empty(), &Itimerspec { it_value, ..NO_REPEAT }) {
            Ok(_) => self.fires = Some(first),
            Err(error) => log::error!("setting a timer: {error}"),
        }
    }
}

const NO_REPEAT: Itimerspec =
    Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: Timespec { tv_sec: 0, tv_nsec: 0 } };

impl Source {
    /// Ends the wait, if there is one, and returns whom to wake.
    fn end(&mut self, ready: bool) -> Option<Waker> {
        match std::mem::replace(&mut self.state, State::Idle) {
            State::Waiting(waker) => {
                self.state = State::Over { ready };
                self.deadline = None;
                Some(waker)
            }
            state => {
                self.state = state;
                None
            }
        }
    }

    /// Tells the kernel what it is to tell of.
    fn tell(&mut self, epoll: &OwnedFd, id: u64, interest: EventFlags) {
        if self.interest == interest {
            return;
        }
        let data = EventData::new_u64(id);
        let told = if interest.is_empty() {
            epoll::delete(epoll, &self.socket)
        } else if self.interest.is_empty() {
            epoll::add(epoll, &self.socket, data, interest)
        } else {
            epoll::modify(epoll, &self.socket, data, interest)
        };
        match told {
            Ok(()) => self.interest = interest,
            Err(error) => log::error!("waiting on a socket: {error}"),
        }
    }
}

/// Wakes the thread that runs [`Reactor::block_on`], with a system call only if it sleeps.
#[derive(Debug)]
struct Alarm {
    eventfd: OwnedFd,
    state: AtomicU8,
}

/// The thread is at work and will look whether it was woken before it sleeps.
const AWAKE: u8 = 0;
/// It was woken since.
const WOKEN: u8 = 1;
/// It sleeps, or is about to: only the eventfd wakes it.
const ASLEEP: u8 = 2;

impl Alarm {
    fn stay_awake(&self) {
        self.state.swap(AWAKE, Ordering::AcqRel);
    }

    fn may_sleep(&self) -> bool {
        self.state.compare_exchange(AWAKE, ASLEEP, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.state.swap(WOKEN, Ordering::AcqRel) == ASLEEP {
            // Fails only when the counter is full, and then the thread has been woken often enough.
            let _ = rustix::io::write(&self.eventfd, &1u64.to_ne_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use smol::{
        channel::bounded,
        future::{or, poll_once, zip},
    };

    use super::*;

    const SOON: Duration = Duration::from_millis(20);

    fn reactor() -> Arc<Reactor> {
        Reactor::new().expect("a reactor")
    }

    fn socket(reactor: &Arc<Reactor>) -> Socket {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
        socket.set_nonblocking(true).expect("set");
        Socket::new(reactor, socket)
    }

    fn send_to(socket: &Socket) {
        let sender = UdpSocket::bind("127.0.0.1:0").expect("a port");
        sender.send_to(b"x", socket.get().local_addr().expect("bound")).expect("sent");
    }

    fn soon() -> Option<Instant> {
        Some(clock::now().after(SOON))
    }

    #[test]
    fn a_wait_ends_with_a_datagram_or_at_its_deadline() {
        let reactor = reactor();
        let socket = socket(&reactor);
        let deadline = soon();
        assert!(!reactor.block_on(socket.readable(deadline)));
        assert!(Some(clock::now()) >= deadline);
        send_to(&socket);
        assert!(reactor.block_on(socket.readable(None)));
        assert!(reactor.block_on(socket.readable(soon())), "as long as nobody takes it");
        socket.get().recv(&mut [0; 8]).expect("received");
        assert!(!reactor.block_on(socket.readable(soon())));
        reactor.block_on(socket.writable());
    }

    #[test]
    fn deadlines_that_move_are_kept() {
        let reactor = reactor();
        let (socket, other) = (socket(&reactor), socket(&reactor));
        let far = Some(clock::now().after(Duration::from_secs(3600)));
        let now = clock::now();
        reactor.block_on(async {
            // Later than it was at first, then earlier.
            assert!(poll_once(socket.readable(soon())).await.is_none());
            let late = clock::now().after(3 * SOON);
            let both = zip(socket.readable(Some(late)), other.readable(soon())).await;
            assert!(both == (false, false) && clock::now() >= late);
            assert!(poll_once(socket.readable(far)).await.is_none());
            assert!(!socket.readable(soon()).await);
            // None at all is never, whatever was before.
            assert!(poll_once(socket.readable(soon())).await.is_none());
            let never = async { panic!("nothing came, but {}", socket.readable(None).await) };
            let later = async { assert!(!other.readable(Some(clock::now().after(2 * SOON))).await) };
            or(never, later).await;
        });
        assert!(clock::now().since(now) < Duration::from_secs(60));
    }

    #[test]
    fn what_nobody_waits_for_is_told_once() {
        let reactor = reactor();
        let (socket, other) = (socket(&reactor), socket(&reactor));
        let interest = || reactor.lock().sources.get(&socket.id).map(|source| source.interest);
        reactor.block_on(async {
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
        let reactor = reactor();
        reactor.block_on(async {
            let first = socket(&reactor);
            assert!(poll_once(first.readable(soon())).await.is_none());
            send_to(&first);
            drop(first);
            // The kernel gives it the same descriptor.
            let second = socket(&reactor);
            assert!(!second.readable(soon()).await);
        });
        let table = reactor.lock();
        assert!(table.sources.is_empty() && table.timers.is_empty(), "{table:?}");
    }

    #[test]
    fn no_wake_of_another_thread_is_lost() {
        const ROUNDS: u32 = 20_000;
        let reactor = reactor();
        let ((there, arrived), (back, returned)) = (bounded(1), bounded(1));
        let echo = thread::spawn(move || {
            while let Ok(number) = arrived.recv_blocking() {
                back.send_blocking(number).expect("taken");
            }
        });
        reactor.block_on(async {
            for number in 0..ROUNDS {
                there.send(number).await.expect("taken");
                assert_eq!(returned.recv().await, Ok(number));
            }
        });
        drop(there);
        echo.join().expect("ended");
    }
}
