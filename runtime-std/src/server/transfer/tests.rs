//! Transfers of a virtual file to a client on the loopback.

use std::{
    io::ErrorKind,
    net::{SocketAddr, UdpSocket},
    thread::{self, JoinHandle},
};

use rtftp_core::{
    Packet, ReadFailed,
    wire::{
        options::{Limits, negotiate},
        packet::{ErrorCode, Options},
    },
};
use smol::channel;

use super::*;
use crate::{
    event_loop::EventLoop,
    history::History,
    net::ports::Ports,
    server::admission::{Admission, Admitted, Capacity, Sessions},
};

/// A file of bytes 7, whose data may have to be loaded.
#[derive(Debug, Clone)]
struct VirtualFile {
    len: u64,
    loading: Arc<Mutex<Loading>>,
}

#[derive(Debug, Default)]
struct Loading {
    is_loaded: bool,
    waker: Option<Waker>,
}

impl VirtualFile {
    fn new(len: u64, is_loaded: bool) -> Self {
        Self { len, loading: Arc::new(Mutex::new(Loading { is_loaded, waker: None })) }
    }

    /// Waits until a transfer waits for the data.
    fn wait_until_requested(&self) {
        while self.loading.lock().waker.is_none() {
            thread::yield_now();
        }
    }

    fn finish_loading(&self) {
        let mut loading = self.loading.lock();
        loading.is_loaded = true;
        let waker = loading.waker.take();
        drop(loading);
        waker.expect("a waiting transfer").wake();
    }
}

impl BlockReader for VirtualFile {
    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<Option<usize>, ReadFailed> {
        let len = usize::try_from(self.len.saturating_sub(offset)).expect("a small file").min(buf.len());
        buf[..len].fill(7);
        Ok(self.loading.lock().is_loaded.then_some(len))
    }
}

impl TransferFile for VirtualFile {
    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let mut loading = self.loading.lock();
        if loading.is_loaded {
            return Poll::Ready(());
        }
        loading.waker = Some(context.waker().clone());
        Poll::Pending
    }
}

/// A transfer that runs on a thread of its own.
struct Running {
    client: UdpSocket,
    route: Route,
    handle: Arc<SessionHandle>,
    history: History,
    stop: channel::Sender<&'static str>,
    thread: JoinHandle<Finished>,
}

fn run(file: VirtualFile, options: &[u8], ports: Ports) -> Running {
    let client = UdpSocket::bind("127.0.0.1:0").expect("a port");
    client.set_read_timeout(Some(Duration::from_secs(10))).expect("set");
    let route = Route { client: client.local_addr().expect("bound"), local: [127, 0, 0, 1].into() };
    let datagram = b"\x00\x01f\0octet\0";
    let Ok(Packet::ReadRequest(request)) = Packet::parse(datagram) else { panic!("not a read request") };
    let mut sessions = Sessions::new(Capacity { transfers: 1, per_client: 1 }, false);
    let Admission::Start(Admitted { handle, .. }) = sessions.admit(route.client, datagram, &request) else {
        panic!("not admitted")
    };
    let history = History::new();
    let record = Arc::new(history.record_request(route.client.ip(), b"f"));
    let size = Some(file.len);
    let (settings, granted) = negotiate(Options::new(options), &Limits::default(), size);
    let sender = Sender::new(clock::now(), settings, granted, size);
    let socket = TransferSocket::open(&ports, route).expect("a port");
    let unknown_tids = UnknownTidSockets::new().expect("an epoll instance");
    let transfer = Transfer::new(sender, file, socket, unknown_tids, handle.clone(), record);
    let (stop, stopped) = channel::bounded(1);
    let thread = thread::spawn(move || {
        let event_loop = EventLoop::new().expect("an event loop");
        let workers = Workers::new(event_loop.clone());
        event_loop.block_on(Transfer::run(Arc::new(Mutex::new(transfer)), &workers, &stopped))
    });
    Running { client, route, handle, history, stop, thread }
}

impl Running {
    fn receive(&self) -> (Vec<u8>, SocketAddr) {
        let mut buf = [0; 2000];
        let (len, from) = self.client.recv_from(&mut buf).expect("a datagram");
        (buf[..len].to_vec(), from)
    }

    /// Receives a DATA packet and sends its ACK. Returns the block number and the number of bytes.
    fn acknowledge(&self) -> (u16, usize) {
        let (datagram, from) = self.receive();
        let Ok(Packet::Data { block, payload }) = Packet::parse(&datagram) else { panic!("not DATA: {datagram:?}") };
        assert!(payload.iter().all(|byte| *byte == 7));
        self.client.send_to(&ack(block), from).expect("sent");
        (block, payload.len())
    }

    /// Waits for the end of the transfer, after which nothing must have arrived at the client.
    fn finish(self) -> Finished {
        let finished = self.thread.join().expect("finished");
        self.client.set_nonblocking(true).expect("set");
        assert_eq!(self.client.recv(&mut [0; 4]).expect_err("a datagram").kind(), ErrorKind::WouldBlock);
        finished
    }
}

fn ack(block: u16) -> Vec<u8> {
    [[0, 4], block.to_be_bytes()].concat()
}

#[test]
fn sends_file_and_reports_progress() {
    let running = run(VirtualFile::new(1000, true), b"", Ports::default());
    assert_eq!(running.acknowledge(), (1, 512));
    assert_eq!(running.acknowledge(), (2, 488));
    let (handle, history) = (running.handle.clone(), running.history.clone());
    let finished = running.finish();
    assert_eq!((finished.outcome, finished.acknowledged, finished.retransmitted), (Some(Outcome::Complete), 1000, 0));
    assert!(handle.is_verified());
    assert!(history.snapshot().clients[0].boots[0].files[0].acknowledged >= 512);
}

/// The window is larger than the send buffer, but fits the client's receive buffer.
#[test]
fn sends_window_in_several_polls() {
    let running = run(VirtualFile::new(80_000, true), b"blksize\x008192\0windowsize\x0010\0", Ports::default());
    let (oack, from) = running.receive();
    assert_eq!(oack, b"\x00\x06blksize\x008192\0windowsize\x0010\0");
    running.client.send_to(&ack(0), from).expect("sent");
    let mut buf = [0; 9000];
    for block in 1..=10 {
        let len = running.client.recv(&mut buf).expect("a datagram");
        let expected = if block == 10 { 80_000 - 9 * 8192 } else { 8192 };
        assert_eq!((u16::from_be_bytes([buf[2], buf[3]]), len), (block, 4 + expected));
    }
    running.client.send_to(&ack(10), from).expect("sent");
    let finished = running.finish();
    assert_eq!((finished.outcome, finished.acknowledged), (Some(Outcome::Complete), 80_000));
}

#[test]
fn waits_for_file_data() {
    let file = VirtualFile::new(100, false);
    let running = run(file.clone(), b"", Ports::default());
    file.wait_until_requested();
    file.finish_loading();
    assert_eq!(running.acknowledge(), (1, 100));
    assert_eq!(running.finish().outcome, Some(Outcome::Complete));
}

#[test]
fn aborts_while_file_data_is_loading() {
    let file = VirtualFile::new(100, false);
    let running = run(file.clone(), b"", Ports::default());
    file.wait_until_requested();
    running.stop.send_blocking("shutdown").expect("sent");
    assert_eq!(running.receive().0, b"\x00\x05\x00\x00shutdown\0");
    assert_eq!(running.finish().outcome, Some(Outcome::Aborted));
}

#[test]
fn handles_client_error_while_file_data_is_loading() {
    let file = VirtualFile::new(1000, true);
    let running = run(file.clone(), b"", Ports::default());
    let (_, from) = running.receive();
    file.loading.lock().is_loaded = false;
    running.client.send_to(&ack(1), from).expect("sent");
    file.wait_until_requested();
    running.client.send_to(b"\x00\x05\x00\x03disk full\0", from).expect("sent");
    assert_eq!(running.finish().outcome, Some(Outcome::PeerError(ErrorCode::DISK_FULL)));
}

#[test]
fn ends_without_error_when_replaced() {
    let running = run(VirtualFile::new(1000, true), b"", Ports::default());
    running.receive();
    running.stop.close();
    assert!(running.finish().outcome.is_none());
}

#[test]
fn receives_from_shared_port_by_delivery() {
    let listener = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("bound");
    let running = run(VirtualFile::new(1000, true), b"", Ports::shared(listener.try_clone().expect("a descriptor")));
    let (handle, route) = (running.handle.clone(), running.route);
    let delivery = || handle.delivery.get().expect("a running transfer");
    for block in [1, 2] {
        assert_eq!(running.receive().1, port);
        let other = Route { local: [127, 0, 0, 2].into(), ..route };
        assert!(!delivery().deliver(&ack(block), other), "delivered from another route");
        assert!(delivery().deliver(&ack(block), route));
    }
    assert_eq!(running.finish().outcome, Some(Outcome::Complete));
    assert!(!delivery().deliver(&ack(2), route), "delivered to a finished transfer");
}
