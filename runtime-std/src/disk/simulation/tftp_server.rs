//! A TFTP server in virtual time: the admission of requests, the lookup, the files and the sender are those of the server.

use std::{future::poll_fn, net::SocketAddr, sync::Arc, task::Poll, time::Duration};

use parking_lot::Mutex;
use rtftp_core::{
    Output, Packet, RequestPath, Sender,
    wire::{
        options::{Limits, negotiate},
        packet::ErrorCode,
    },
};
use smol::{Executor, future::or};

use super::{
    super::{BoardDisk, DiskError, Disks, RemoteFile},
    SERVER_IP,
    datagrams::{Network, Socket, TFTP_PORT},
    power_cut::Random,
};
use crate::{
    clock::{self, Timer, within},
    server::admission::{Admission, Admitted, Capacity, Sessions},
};

/// The limits on sessions: what a board needs, and little more.
const CAPACITY: Capacity = Capacity { transfers: 32, per_client: 16 };
/// The time for which a session waits for a client that never answers.
const UNANSWERED_LIMIT: Duration = Duration::from_secs(30);

/// The server, for boards with the same disk.
pub(super) struct TftpServer {
    pub(super) disks: Disks,
    pub(super) disk: BoardDisk,
    pub(super) network: Arc<Network>,
    /// Receives the requests.
    socket: Socket,
    executor: Arc<Executor<'static>>,
    sessions: Mutex<Sessions>,
}

enum Event {
    Datagram(SocketAddr, Vec<u8>),
    /// The table has ended the session, with the reason for the client, if it is told.
    Stopped(Option<&'static str>),
    /// Data was loaded, or it is time to send.
    Ready,
}

impl TftpServer {
    pub(super) fn new(
        disks: Disks,
        disk: BoardDisk,
        network: Arc<Network>,
        executor: Arc<Executor<'static>>,
    ) -> Arc<Self> {
        let sessions = Mutex::new(Sessions::new(CAPACITY, false));
        let socket = network.bind(SERVER_IP, Some(TFTP_PORT));
        Arc::new(Self { disks, disk, network, socket, executor, sessions })
    }

    /// Returns the number of sessions.
    pub(super) fn session_count(&self) -> usize {
        self.sessions.lock().len()
    }

    /// Answers requests until this is dropped.
    pub(super) async fn run(self: Arc<Self>) {
        while let Some((board, datagram)) = self.socket.receive(None).await {
            match self.admit(board, &datagram) {
                Some(Admission::Start(admitted)) => self.executor.spawn(self.clone().serve(board, admitted)).detach(),
                Some(Admission::Full(limit)) => {
                    send_error(&self.socket, board, ErrorCode::NOT_DEFINED, limit.to_client());
                }
                Some(Admission::Duplicate | Admission::Ignored) | None => {}
            }
        }
    }

    fn admit(&self, board: SocketAddr, datagram: &[u8]) -> Option<Admission> {
        let Ok(Packet::ReadRequest(request)) = Packet::parse(datagram) else { return None };
        Some(self.sessions.lock().admit(board, datagram, &request))
    }

    /// Receives forged requests in the name of hosts that never answer: more than there are places.
    pub(super) async fn receive_forged(self: Arc<Self>, mut random: Random) {
        for number in 0..3 * CAPACITY.transfers as u16 {
            Timer::after(Duration::from_millis(random.below(60) as u64)).await;
            let [high, low] = number.to_be_bytes();
            let client = ([10, 1, high, low], 2000).into();
            if let Some(Admission::Start(admitted)) = self.admit(client, b"\x00\x01vmlinuz\0octet\0") {
                let server = self.clone();
                let session = async move {
                    within(UNANSWERED_LIMIT, admitted.stop.recv()).await;
                    server.sessions.lock().finish(&admitted.handle);
                };
                self.executor.spawn(session).detach();
            }
        }
    }

    /// Answers an admitted request.
    async fn serve(self: Arc<Self>, board: SocketAddr, admitted: Admitted) {
        let socket = self.network.bind(SERVER_IP, None);
        let path = RequestPath::parse(admitted.request.file()).expect("a path");
        let abandoned = async {
            let _ = admitted.stop.recv().await;
            None
        };
        match or(abandoned, async { Some(Box::pin(self.disks.open(&self.disk, &path)).await) }).await {
            Some(Ok(file)) => send(&socket, board, &admitted, file).await,
            Some(Err(DiskError::NotFound)) => send_error(&socket, board, ErrorCode::FILE_NOT_FOUND, "not found"),
            Some(Err(error)) => send_error(&socket, board, ErrorCode::NOT_DEFINED, &error.to_string()),
            None => {}
        }
        self.sessions.lock().finish(&admitted.handle);
    }
}

/// Sends a file.
async fn send(socket: &Socket, board: SocketAddr, admitted: &Admitted, mut file: RemoteFile) {
    let size = Some(file.size());
    let (settings, granted) = negotiate(admitted.request.options(), &Limits::default(), size);
    let mut sender = Sender::new(clock::now(), settings, granted, size);
    let mut buf = vec![0; 65536];
    loop {
        let next = loop {
            match sender.poll(clock::now(), &mut file, &mut buf) {
                Output::Transmit(transmit) => socket.send(board, &buf[..transmit.len], transmit.segment),
                Output::Wait(until) => break Some(until),
                Output::NeedData => break None,
                Output::Finished(_) => return,
            }
        };
        let datagram = async {
            let datagram = socket.receive(next).await;
            datagram.map_or(Event::Ready, |(from, datagram)| Event::Datagram(from, datagram))
        };
        let loaded = poll_fn(|context| match next {
            Some(_) => Poll::Pending,
            None => file.poll_ready(context).map(|()| Event::Ready),
        });
        let stopped = async { Event::Stopped(admitted.stop.recv().await.ok()) };
        match or(stopped, or(datagram, loaded)).await {
            Event::Datagram(from, datagram) if from == board => {
                sender.handle(clock::now(), &datagram);
                admitted.handle.note(clock::now(), sender.acknowledged());
            }
            Event::Stopped(Some(reason)) => sender.abort(reason),
            Event::Stopped(None) => return,
            Event::Datagram(..) | Event::Ready => {}
        }
    }
}

fn send_error(socket: &Socket, board: SocketAddr, code: ErrorCode, reason: &str) {
    let mut packet = [0; 512];
    let message = &reason.as_bytes()[..reason.len().min(400)];
    let len = Packet::Error { code, message }.write(&mut packet).expect("it fits");
    socket.send(board, &packet[..len], len);
}
