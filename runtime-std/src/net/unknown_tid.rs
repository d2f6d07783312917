//! Replies to unknown sources: senders other than the transfer's client (RFC 1350 section 4).
//!
//! A transfer's socket is connected, so that the kernel looks up the route to the client once, which saves a tenth of the cost of a
//! block, and accepts datagrams from the client only. A second socket on the same port receives everything else. It takes ten system
//! calls, so a transfer has one only if it lasts longer than that of a small file.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    os::fd::OwnedFd,
    sync::Arc,
    time::Duration,
};

use nix::sys::socket::{setsockopt, sockopt};
use parking_lot::Mutex;
use rtftp_core::{Instant, Packet, wire::packet::ErrorCode};
use rustix::{
    buffer::spare_capacity,
    event::epoll::{self, CreateFlags, Event, EventData, EventFlags},
    time::Timespec,
};
use slab::Slab;
use smol::{Async, Timer};

use super::{bind_to, open_unbound};
use crate::clock;

/// The pause between two batches of replies: a flood of unknown sources gets little processor time.
const BATCH_INTERVAL: Duration = Duration::from_millis(10);
/// The number of sockets in a batch, and of datagrams received from each.
const MAX_SOCKETS: usize = 64;
const MAX_DATAGRAMS: usize = 16;
/// The size of each receive buffer in bytes, as the kernel counts them.
const RECEIVE_BUFFER: usize = 4096;
/// The minimum time between two replies from the same port.
const REPLY_INTERVAL: Duration = Duration::from_millis(100);

/// Replies with ERROR 5 to unknown sources, at a limited rate.
#[derive(Debug, Default)]
pub(crate) struct UnknownTidReplies {
    last: Option<Instant>,
}

impl UnknownTidReplies {
    /// Replies to a datagram, unless it is an ERROR, the last reply is recent, or the socket has no space.
    pub(crate) fn reply(&mut self, socket: &UdpSocket, source: SocketAddr, datagram: &[u8]) {
        let now = clock::now();
        // An ERROR, even a truncated one, is never answered: two programs could reply to each other forever.
        if datagram.starts_with(&[0, 5]) || self.last.is_some_and(|last| now.since(last) < REPLY_INTERVAL) {
            return;
        }
        self.last = Some(now);
        let mut buf = [0; 64];
        let error = Packet::Error { code: ErrorCode::UNKNOWN_TRANSFER_ID, message: b"Unknown transfer ID" };
        if let Some(len) = error.write(&mut buf) {
            let _ = socket.send_to(&buf[..len], source);
        }
    }
}

/// The sockets that receive from unknown sources, one per transfer.
#[derive(Debug)]
pub(crate) struct UnknownTidSockets {
    epoll: OwnedFd,
    sockets: Mutex<Slab<Entry>>,
}

/// Replies to unknown sources at one port until it is dropped.
#[derive(Debug)]
pub(crate) struct UnknownTidSocket {
    sockets: Arc<UnknownTidSockets>,
    id: usize,
}

#[derive(Debug)]
struct Entry {
    socket: UdpSocket,
    replies: UnknownTidReplies,
}

impl UnknownTidSockets {
    pub(crate) fn new() -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self { epoll: epoll::create(CreateFlags::CLOEXEC)?, sockets: Mutex::default() }))
    }

    /// Opens a socket on the port of a transfer's connected socket.
    pub(super) fn open(self: &Arc<Self>, transfer: &UdpSocket) -> io::Result<UnknownTidSocket> {
        let address = transfer.local_addr()?;
        let socket = open_unbound(address)?;
        setsockopt(&socket, sockopt::RcvBuf, &RECEIVE_BUFFER)?;
        share_port(transfer, &socket, || bind_to(&socket, address))??;
        let mut sockets = self.sockets.lock();
        let id = sockets.vacant_key();
        epoll::add(&self.epoll, &socket, EventData::new_u64(id as u64), EventFlags::IN)?;
        sockets.insert(Entry { socket, replies: UnknownTidReplies::default() });
        Ok(UnknownTidSocket { sockets: self.clone(), id })
    }

    /// Replies to unknown sources. Returns only on an error.
    pub(crate) async fn run(&self) -> io::Result<()> {
        let ready = Async::new(self.epoll.try_clone()?)?;
        loop {
            ready.readable().await?;
            self.reply_to_batch();
            Timer::after(BATCH_INTERVAL).await;
        }
    }

    fn reply_to_batch(&self) {
        let mut events: Vec<Event> = Vec::with_capacity(MAX_SOCKETS);
        // Fails if interrupted by a signal; the next batch follows.
        let _ = epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&Timespec::default()));
        let mut sockets = self.sockets.lock();
        for event in events {
            if let Some(entry) = sockets.get_mut(event.data.u64() as usize) {
                entry.receive();
            }
        }
    }
}

/// Allows two sockets to have the same port while `bind` runs, and returns its result.
///
/// This is limited to sockets of the same user: with `SO_REUSEADDR`, any user could bind the port meanwhile, and answer in place of
/// the transfer. Afterwards the kernel again gives the datagrams of the client to the connected socket.
fn share_port<T>(transfer: &UdpSocket, other: &UdpSocket, bind: impl FnOnce() -> T) -> io::Result<T> {
    let allow = |allow| {
        setsockopt(transfer, sockopt::ReusePort, &allow)?;
        setsockopt(other, sockopt::ReusePort, &allow)
    };
    allow(true)?;
    let bound = bind();
    allow(false)?;
    Ok(bound)
}

impl Drop for UnknownTidSocket {
    fn drop(&mut self) {
        // Closing the only descriptor removes the socket from epoll.
        self.sockets.sockets.lock().try_remove(self.id);
    }
}

impl Entry {
    fn receive(&mut self) {
        let mut buf = [0; 64];
        for _ in 0..MAX_DATAGRAMS {
            let Ok((len, source)) = self.socket.recv_from(&mut buf) else { return };
            self.replies.reply(&self.socket, source, &buf[..len]);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{net::Ipv6Addr, thread};

    use nix::{
        errno::Errno,
        unistd::{geteuid, setfsuid},
    };
    use smol::future::or;

    use super::{
        super::{TransferSocket, open, tests::*},
        *,
    };
    use crate::net::ports::Ports;

    #[test]
    fn replies_to_unknown_source_without_disturbing_the_transfer() {
        let event_loop = event_loop();
        let sockets = UnknownTidSockets::new().expect("an epoll instance");
        for (ip, other_ip) in [(loopback(1), loopback(8)), (Ipv6Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into())] {
            let (client, route) = request(&event_loop, None, ip, ip);
            let mut socket = TransferSocket::open(&Ports::default(), route).expect("a port");
            let port = socket.local_addr().expect("bound");
            socket.reply_to_unknown_sources(&sockets);
            client.send_to(b"\x00\x04\x00\x01", port).expect("sent");
            assert_eq!(socket.recv(&mut [0; 64]), Some(4));
            let unknown = UdpSocket::bind((other_ip, 0)).expect("a socket");
            unknown.send_to(b"\x00\x05\x00\x00an error\0", port).expect("sent");
            unknown.send_to(b"\x00\x04\x00\x01", port).expect("sent");
            unknown.send_to(b"\x00\x04\x00\x01", port).expect("sent");
            client.send_to(b"\x00\x04\x00\x02", port).expect("sent");
            let mut buf = [0; 64];
            let len = socket.recv(&mut buf).expect("received");
            assert_eq!(&buf[..len], b"\x00\x04\x00\x02");
            assert_eq!(socket.recv(&mut buf), None);
            let unknown = Async::new(unknown).expect("a socket");
            let reply = async { unknown.recv(&mut buf).await };
            let run = async { Err(sockets.run().await.expect_err("an error")) };
            let len = smol::block_on(or(reply, run)).expect("a reply");
            assert_eq!(&buf[..len], b"\x00\x05\x00\x05Unknown transfer ID\0");
            sockets.reply_to_batch();
            assert!(unknown.get_ref().recv(&mut buf).is_err(), "more than one reply");
            drop(socket);
            assert!(sockets.sockets.lock().is_empty());
        }
    }

    #[test]
    fn keeps_port_exclusive() {
        let event_loop = event_loop();
        let (_client, route) = request(&event_loop, None, loopback(7), loopback(1));
        let mut socket = TransferSocket::open(&Ports::default(), route).expect("a port");
        let port = socket.local_addr().expect("bound");
        assert_eq!(bind_again(port), Err(Errno::EADDRINUSE), "without a second socket");
        socket.reply_to_unknown_sources(&UnknownTidSockets::new().expect("an epoll instance"));
        assert_eq!(bind_again(port), Err(Errno::EADDRINUSE));
    }

    /// Binds a port that may be in use, with all options that allow that.
    fn bind_again(port: SocketAddr) -> Result<(), Errno> {
        let socket = open_unbound(port).expect("a socket");
        setsockopt(&socket, sockopt::ReuseAddr, &true).expect("set");
        setsockopt(&socket, sockopt::ReusePort, &true).expect("set");
        bind_to(&socket, port)
    }

    #[test]
    fn other_user_cannot_bind_port_of_transfer() {
        const NOBODY: u32 = 65_534;

        if !geteuid().is_root() {
            println!("not tested: only root can act as another user");
            return;
        }
        let event_loop = event_loop();
        let (_client, route) = request(&event_loop, None, loopback(7), loopback(1));
        let transfer = open((loopback(1), 0).into()).expect("a port");
        transfer.connect(route.client).expect("a route");
        let port = transfer.local_addr().expect("bound");
        let bind_as = |user: u32| {
            // The user of one thread: the kernel remembers it as the owner of new sockets.
            let attempt = move || {
                setfsuid(user.into());
                bind_again(port)
            };
            thread::spawn(attempt).join().expect("an attempt")
        };
        let other = open_unbound(port).expect("a socket");
        let bound = share_port(&transfer, &other, || (bind_as(NOBODY), bind_as(0))).expect("shared");
        assert_eq!(bound, (Err(Errno::EADDRINUSE), Ok(())));
        assert_eq!(bind_as(0), Err(Errno::EADDRINUSE), "afterwards");
    }
}
