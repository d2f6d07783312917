//! What comes to the port of a transfer from others than its client.
//!
//! The socket of a transfer is connected: the kernel looks for the way to the client once, which makes a tenth of a block, and lets
//! in what the client sends. What others send to the port goes to a second socket there, and the transfer knows nothing of it.

use std::{
    io,
    net::UdpSocket,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use nix::sys::socket::{setsockopt, sockopt};
use rustix::{
    buffer::spare_capacity,
    event::epoll::{self, CreateFlags, Event, EventData, EventFlags},
    time::Timespec,
};
use slab::Slab;
use smol::{Async, Timer};

use super::{UnknownTidReplies, bind_to, open_unbound};

/// How long strangers wait while others have been looked after: a flood of them is not worth more time.
const PAUSE: Duration = Duration::from_millis(10);
/// How many ports are looked after at a time, and how many datagrams at each of them.
const PORTS: usize = 64;
const DATAGRAMS: usize = 16;
/// How much room there is for datagrams that wait at one port, in bytes as the kernel counts them.
const ROOM: usize = 4096;

/// The sockets that strangers are received at.
#[derive(Debug)]
pub(crate) struct UnknownTidSockets {
    epoll: OwnedFd,
    posts: Mutex<Slab<Post>>,
}

/// Has strangers at one port told that it is not theirs, until it is dropped.
#[derive(Debug)]
pub(crate) struct UnknownTidSocket {
    guards: Arc<UnknownTidSockets>,
    id: usize,
}

#[derive(Debug)]
struct Post {
    socket: UdpSocket,
    refusals: UnknownTidReplies,
}

impl UnknownTidSockets {
    pub(crate) fn new() -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self { epoll: epoll::create(CreateFlags::CLOEXEC)?, posts: Mutex::default() }))
    }

    /// Takes in what comes to the port of a socket, but not from where that is connected to.
    pub(super) fn at(self: &Arc<Self>, transfer: &UdpSocket) -> io::Result<UnknownTidSocket> {
        let address = transfer.local_addr()?;
        let socket = open_unbound(address)?;
        setsockopt(&socket, sockopt::RcvBuf, &ROOM)?;
        let share = |share| {
            setsockopt(transfer, sockopt::ReuseAddr, &share)?;
            setsockopt(&socket, sockopt::ReuseAddr, &share)
        };
        // For this moment only: nobody else is to have a third one there.
        share(true)?;
        let bound = bind_to(&socket, address);
        share(false)?;
        bound?;
        let mut posts = self.lock();
        let id = posts.vacant_key();
        epoll::add(&self.epoll, &socket, EventData::new_u64(id as u64), EventFlags::IN)?;
        posts.insert(Post { socket, refusals: UnknownTidReplies::default() });
        Ok(UnknownTidSocket { guards: self.clone(), id })
    }

    /// Answers strangers, for ever unless that is not possible.
    pub(crate) async fn run(&self) -> io::Result<()> {
        let ready = Async::new(self.epoll.try_clone()?)?;
        loop {
            ready.readable().await?;
            self.look();
            Timer::after(PAUSE).await;
        }
    }

    /// Answers some of those that are there.
    fn look(&self) {
        let mut events: Vec<Event> = Vec::with_capacity(PORTS);
        // Fails with a signal, and then there is another look.
        let _ = epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&Timespec::default()));
        let mut posts = self.lock();
        for event in events {
            if let Some(post) = posts.get_mut(event.data.u64() as usize) {
                post.look();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Slab<Post>> {
        self.posts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for UnknownTidSocket {
    fn drop(&mut self) {
        // With its only descriptor closed, the kernel forgets the socket.
        self.guards.lock().try_remove(self.id);
    }
}

impl Post {
    /// Answers some of those that are there.
    fn look(&mut self) {
        let mut buf = [0; 64];
        for _ in 0..DATAGRAMS {
            let Ok((len, stranger)) = self.socket.recv_from(&mut buf) else { return };
            self.refusals.refuse(&self.socket, stranger, &buf[..len]);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use smol::future::or;

    use super::{
        super::{TransferSocket, tests::*},
        *,
    };
    use crate::net::ports::Ports;

    #[test]
    fn a_stranger_is_told_and_changes_nothing() {
        let event_loop = event_loop();
        let guards = UnknownTidSockets::new().expect("no guards yet");
        for (home, abroad) in [(loopback(1), loopback(8)), (Ipv6Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into())] {
            let (client, route) = request(&event_loop, None, home, home);
            let mut peer = TransferSocket::new(&Ports::default(), route).expect("a port");
            let port = peer.local_addr().expect("bound");
            peer.guard(&guards);
            let stranger = UdpSocket::bind((abroad, 0)).expect("a stranger");
            stranger.send_to(b"\x00\x05\x00\x00an error\0", port).expect("sent");
            stranger.send_to(b"\x00\x04\x00\x01", port).expect("sent");
            stranger.send_to(b"\x00\x04\x00\x01", port).expect("sent");
            client.send_to(b"\x00\x04\x00\x02", port).expect("sent");
            let mut buf = [0; 64];
            let len = peer.recv(&mut buf).expect("received");
            assert_eq!(&buf[..len], b"\x00\x04\x00\x02");
            assert_eq!(peer.recv(&mut buf), None);
            let answer = Async::new(stranger).expect("a stranger");
            let told = async { answer.recv(&mut buf).await };
            let len = smol::block_on(or(told, async { Err(guards.run().await.expect_err("for ever")) })).expect("told");
            assert_eq!(&buf[..len], b"\x00\x05\x00\x05unknown transfer ID\0");
            guards.look();
            assert!(answer.get_ref().recv(&mut buf).is_err(), "one answer for all");
            drop(peer);
            assert!(guards.lock().is_empty());
        }
    }

    #[test]
    fn nobody_else_gets_the_port() {
        let event_loop = event_loop();
        let (_client, route) = request(&event_loop, None, loopback(7), loopback(1));
        let mut peer = TransferSocket::new(&Ports::default(), route).expect("a port");
        peer.guard(&UnknownTidSockets::new().expect("no guards yet"));
        let port = peer.local_addr().expect("bound");
        let third = open_unbound(port).expect("a socket");
        setsockopt(&third, sockopt::ReuseAddr, &true).expect("set");
        assert_eq!(bind_to(&third, port), Err(nix::errno::Errno::EADDRINUSE));
    }
}
