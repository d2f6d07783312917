use std::{cell::Cell, net::UdpSocket, thread, time::Duration};

use smol::{
    channel::bounded,
    future::{or, poll_once, zip},
};

use super::{super::handler::Next, *};

const SOON: Duration = Duration::from_millis(20);

fn event_loop() -> Arc<EventLoop> {
    EventLoop::new().expect("an event loop")
}

/// Registers a socket on a free port of the loopback.
pub(in crate::event_loop) fn register(event_loop: &Arc<EventLoop>) -> Registered {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    socket.set_nonblocking(true).expect("set");
    Registered::new(event_loop, Arc::new(socket))
}

pub(in crate::event_loop) fn send_to(socket: &Registered) {
    let sender = UdpSocket::bind("127.0.0.1:0").expect("a port");
    sender.send_to(b"x", socket.get().local_addr().expect("bound")).expect("sent");
}

/// Waits for the deadline of a handler.
pub(in crate::event_loop) async fn sleep(event_loop: &Arc<EventLoop>, duration: Duration) {
    let socket = register(event_loop);
    socket.run_handler(Script::new(&socket, vec![Next::Detach, Next::Wait(clock::now().after(duration))])).await;
}

fn far() -> Next {
    Next::Wait(clock::now().after(Duration::from_secs(3600)))
}

fn soon() -> Next {
    Next::Wait(clock::now().after(SOON))
}

/// A handler that returns the given results, the last one first, and records its calls.
#[derive(Debug)]
pub(in crate::event_loop) struct Script {
    socket: Arc<UdpSocket>,
    results: Vec<Next>,
    calls: Vec<&'static str>,
}

impl Script {
    pub(in crate::event_loop) fn new(socket: &Registered, results: Vec<Next>) -> Arc<Mutex<Self>> {
        let socket = socket.get().try_clone().expect("a descriptor");
        Arc::new(Mutex::new(Self { socket: Arc::new(socket), results, calls: vec![] }))
    }

    pub(in crate::event_loop) fn polls(&self) -> usize {
        self.calls.iter().filter(|call| **call == "poll").count()
    }
}

impl Handler for Script {
    fn receive(&mut self) {
        if self.socket.recv(&mut [0; 8]).is_ok() {
            self.calls.push("receive");
        }
    }

    fn poll(&mut self) -> Next {
        self.calls.push("poll");
        self.results.pop().expect("a result")
    }
}

/// Attaches a handler that keeps its socket until the returned value is dropped.
fn attach(event_loop: &Arc<EventLoop>, results: Vec<Next>) -> (Registered, Arc<Mutex<Script>>) {
    let socket = register(event_loop);
    let handler = Script::new(&socket, results);
    event_loop.block_on(async { assert!(poll_once(socket.run_handler(handler.clone())).await.is_none()) });
    (socket, handler)
}

#[test]
fn wakes_task_while_a_datagram_is_unread() {
    let event_loop = event_loop();
    let socket = register(&event_loop);
    send_to(&socket);
    event_loop.block_on(socket.readable());
    event_loop.block_on(socket.readable());
    socket.get().recv(&mut [0; 8]).expect("received");
    event_loop.block_on(or(async { panic!("readable: {:?}", socket.readable().await) }, sleep(&event_loop, SOON)));
}

#[test]
fn timers_of_tasks_fire_beside_those_of_handlers() {
    let limit = Duration::from_secs(10);
    let event_loop = event_loop();
    let fires = || {
        let started = Instant::now();
        let timer = async { _ = clock::Timer::after(SOON).await };
        // Another thread polls it again at the limit, so that the test ends.
        event_loop.block_on(or(timer, async { _ = smol::Timer::after(limit).await }));
        (SOON..limit).contains(&started.elapsed())
    };
    assert!(fires());
    let (_socket, handler) = attach(&event_loop, vec![far()]);
    assert!(fires());
    assert_eq!(handler.lock().polls(), 1);
}

#[test]
fn keeps_deadlines_that_move() {
    let event_loop = event_loop();
    let now = clock::now();
    let (late, ended) = (now.after(3 * SOON), Cell::new(None));
    event_loop.block_on(async {
        let socket = register(&event_loop);
        // First soon, then later, while an earlier deadline of another handler expires.
        let handler = Script::new(&socket, vec![Next::Detach, Next::Wait(late), Next::Yield, soon()]);
        let waker = socket.waker();
        let moved = async {
            sleep(&event_loop, SOON / 2).await;
            waker.wake();
            sleep(&event_loop, SOON / 2).await;
            assert!(ended.get().is_none_or(|ended| ended >= late));
        };
        let run = async {
            socket.run_handler(handler).await;
            ended.set(Some(clock::now()));
        };
        zip(run, moved).await;
        assert!(ended.get() >= Some(late));
        // First far, then soon.
        let handler = Script::new(&socket, vec![Next::Detach, soon(), Next::Yield, far()]);
        let waker = socket.waker();
        let wake = async {
            sleep(&event_loop, SOON / 2).await;
            waker.wake();
        };
        zip(socket.run_handler(handler), wake).await;
        // No deadline, after one that has been dropped.
        let handler = Script::new(&socket, vec![Next::Sleep, Next::Yield, soon()]);
        let waker = socket.waker();
        let never = async { panic!("detached: {:?}", socket.run_handler(handler).await) };
        let later = async {
            sleep(&event_loop, SOON / 2).await;
            waker.wake();
            sleep(&event_loop, 2 * SOON).await;
        };
        or(never, later).await;
    });
    assert!(clock::now().since(now) < Duration::from_secs(60));
}

#[test]
fn polls_handler_until_it_detaches() {
    let event_loop = event_loop();
    let socket = register(&event_loop);
    let deadline = clock::now().after(SOON);
    let handler = Script::new(&socket, vec![Next::Detach, Next::Wait(deadline), Next::Yield, far()]);
    event_loop.block_on(async {
        assert!(poll_once(socket.run_handler(handler.clone())).await.is_none());
        let send = async {
            sleep(&event_loop, SOON / 2).await;
            send_to(&socket);
        };
        zip(socket.run_handler(handler.clone()), send).await;
    });
    assert!(clock::now() >= deadline);
    assert_eq!(handler.lock().calls.iter().filter(|call| **call == "receive").count(), 1);
    assert_eq!(handler.lock().polls(), 4);
    send_to(&socket);
    event_loop.block_on(socket.readable());
    assert_eq!(handler.lock().calls.len(), 5, "a detached handler was called");
}

#[test]
fn wakes_sending_socket_without_receiving() {
    let event_loop = event_loop();
    let listener = register(&event_loop);
    let socket = Arc::new(listener.get().try_clone().expect("a descriptor"));
    let sending = Registered::for_sending(&event_loop, socket);
    // Receives from a socket of its own.
    let handler = Script::new(&register(&event_loop), vec![Next::Detach, far(), Next::Writable]);
    event_loop.block_on(async {
        let run = async { sending.run_handler(handler.clone()).await };
        let wake = async {
            sleep(&event_loop, SOON).await;
            assert_eq!(handler.lock().polls(), 2, "polled at first and when writable");
            send_to(&listener);
            listener.readable().await;
            sleep(&event_loop, SOON).await;
            assert_eq!(handler.lock().polls(), 2, "a datagram for the listener polled the sender");
            // Two wakes before a poll count once.
            sending.waker().wake();
            sending.waker().wake();
        };
        zip(run, wake).await;
    });
    assert_eq!(handler.lock().calls, ["poll"; 3]);
}

#[test]
fn polls_handler_when_its_waker_is_called_on_another_thread() {
    let event_loop = event_loop();
    let socket = register(&event_loop);
    let handler = Script::new(&socket, vec![Next::Detach, Next::Sleep]);
    let waker = socket.waker();
    let waking = thread::spawn({
        let handler = handler.clone();
        move || {
            while handler.lock().polls() == 0 {
                thread::yield_now();
            }
            waker.wake();
        }
    });
    event_loop.block_on(socket.run_handler(handler.clone()));
    waking.join().expect("woken");
    assert_eq!(handler.lock().polls(), 2);
}

/// A datagram and the deadline come together, and the handler detaches in its poll.
#[test]
fn polls_handler_once_per_iteration() {
    let event_loop = event_loop();
    let mut work = Work::default();
    let (socket, handler) = attach(&event_loop, vec![Next::Detach]);
    send_to(&socket);
    let id = socket.id();
    event_loop.registry.lock().socket_ready(&event_loop.epoll, id, EventFlags::IN, &mut work);
    event_loop.registry.lock().schedule(id);
    event_loop.registry.lock().take_due(MAX_POLLS, &mut work);
    event_loop.dispatch(&mut work);
    event_loop.registry.lock().take_due(MAX_POLLS, &mut work);
    assert!(work.due.is_empty());
    assert_eq!(handler.lock().calls, ["receive", "poll"]);
}

/// Datagrams left unread are read with the next event or at the deadline; those that came while detached, after attaching.
#[test]
fn raises_one_event_per_datagram() {
    let event_loop = event_loop();
    let socket = register(&event_loop);
    let handler = Script::new(&socket, vec![Next::Detach]);
    send_to(&socket);
    event_loop.block_on(socket.run_handler(handler.clone()));
    assert_eq!(handler.lock().calls, ["receive", "poll"]);
    (0..3).for_each(|_| send_to(&socket));
    let handler = Script::new(&socket, vec![Next::Detach, soon(), soon()]);
    event_loop.block_on(socket.run_handler(handler.clone()));
    assert_eq!(handler.lock().calls, ["receive", "poll"].repeat(3));
}

#[test]
fn sets_kernel_timer_only_for_earlier_instants() {
    let event_loop = event_loop();
    let mut work = Work::default();
    let (_socket, _) = attach(&event_loop, vec![]);
    let mut registry = event_loop.registry.lock();
    registry.take_due(MAX_POLLS, &mut work);
    let at = |seconds| clock::now().after(Duration::from_secs(seconds));
    let [first, second, third, fourth] = [1, 2, 3, 4].map(at);
    let mut set_for = |deadlines: &[rtftp_core::Instant], task| {
        for deadline in deadlines {
            registry.apply(&event_loop.epoll, &work.due[0], Next::Wait(*deadline), &mut work.woken);
        }
        registry.set_timer(&event_loop.timer, task);
        registry.timer_set_for()
    };
    assert_eq!(set_for(&[second, fourth], None), Some(fourth), "the deadline was moved before the timer was set");
    assert_eq!(set_for(&[], Some(third)), Some(third));
    assert_eq!(set_for(&[second], Some(third)), Some(second));
    assert_eq!(set_for(&[third], Some(fourth)), Some(second), "it fires early enough");
    assert_eq!(set_for(&[third, fourth], Some(first)), Some(first));
    registry.expire(fourth);
    registry.set_timer(&event_loop.timer, None);
    assert_eq!(registry.timer_set_for(), None, "no deadline is left");
}

#[test]
fn ignores_result_of_handler_removed_during_its_poll() {
    let event_loop = event_loop();
    let mut work = Work::default();
    let (first, _) = attach(&event_loop, vec![]);
    event_loop.registry.lock().take_due(MAX_POLLS, &mut work);
    let due = work.due.pop().expect("the first handler");
    drop(first);
    let (second, _) = attach(&event_loop, vec![]);
    assert_eq!(second.id(), due.id, "the number is not reused");
    event_loop.registry.lock().apply(&event_loop.epoll, &due, Next::Detach, &mut work.woken);
    assert!(work.woken.is_empty());
    event_loop.registry.lock().take_due(MAX_POLLS, &mut work);
    assert_eq!(work.due.len(), 1, "the second handler was detached");
}

#[test]
fn requests_no_events_while_no_task_waits() {
    let event_loop = event_loop();
    let socket = register(&event_loop);
    let requested = || event_loop.registry.lock().requested(socket.id());
    event_loop.block_on(async {
        assert!(poll_once(socket.readable()).await.is_none());
        send_to(&socket);
        assert_eq!(requested(), Some(EventFlags::IN));
        sleep(&event_loop, SOON).await;
        assert_eq!(requested(), Some(EventFlags::empty()));
        socket.readable().await;
    });
}

#[test]
fn keeps_idle_socket_in_epoll_for_the_next_handler() {
    let event_loop = event_loop();
    let socket = register(&event_loop);
    let requested = || event_loop.registry.lock().requested(socket.id());
    for _ in 0..3 {
        let handler = Script::new(&socket, vec![Next::Detach, Next::Sleep]);
        let sending = async {
            sleep(&event_loop, SOON).await;
            send_to(&socket);
        };
        event_loop.block_on(zip(socket.run_handler(handler.clone()), sending));
        assert_eq!(handler.lock().calls, ["poll", "receive", "poll"]);
        let transfer = socket.share();
        assert!(!socket.set_idle(), "a transfer has it");
        drop(transfer);
        assert!(socket.set_idle());
        assert_eq!((event_loop.socket_count(), requested()), (0, Some(EventFlags::IN | EventFlags::ET)));
    }
}

#[test]
fn forgets_dropped_sockets() {
    let event_loop = event_loop();
    let (first, _) = attach(&event_loop, vec![soon()]);
    send_to(&first);
    drop(first);
    // The kernel reuses its descriptor.
    let second = register(&event_loop);
    let unreadable = async { panic!("readable: {:?}", second.readable().await) };
    event_loop.block_on(or(unreadable, sleep(&event_loop, SOON)));
    drop(second);
    let registry = event_loop.registry.lock();
    assert!(registry.is_empty(), "{registry:?}");
}

#[test]
fn loses_no_wake_from_another_thread() {
    const EXCHANGES: u32 = 20_000;
    let event_loop = event_loop();
    let ((requests, received), (replies, replied)) = (bounded(1), bounded(1));
    let echo = thread::spawn(move || {
        while let Ok(number) = received.recv_blocking() {
            replies.send_blocking(number).expect("sent");
        }
    });
    event_loop.block_on(async {
        for number in 0..EXCHANGES {
            requests.send(number).await.expect("sent");
            assert_eq!(replied.recv().await, Ok(number));
        }
    });
    drop(requests);
    echo.join().expect("ended");
}
