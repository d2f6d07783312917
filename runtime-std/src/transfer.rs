//! One transfer: the core's sender, driven by a socket, a file and the clock.

use std::{
    cell::Cell,
    ops::{Deref, DerefMut},
    pin::{Pin, pin},
};

use rtftp_core::{Instant, Outcome, Output, Sender};
use smol::{
    channel::{Receiver, Recv},
    future::{or, pending, yield_now},
};

use crate::{clock, file::OpenFile, udp::Peer};

/// How much of a window goes out at once at most, in bytes; the largest packet fits.
const SEND_BUFFER: usize = 65_536;

/// What the transfer waited for.
enum Event {
    /// A datagram of the client, this long.
    Datagram(usize),
    /// The file's bytes, or the end of a wait.
    Ready,
    /// Word from the server: end the transfer and say why, or, when the channel is closed, without a word.
    Stop(Option<&'static str>),
}

/// Sends the file to its end. `heard` is called for every datagram of the client.
///
/// Returns `None` when the server gave the transfer up because its client asked for something else.
pub(crate) async fn run(
    sender: &mut Sender,
    file: &mut OpenFile,
    peer: &mut Peer,
    stop: &Receiver<&'static str>,
    heard: impl Fn(Instant),
) -> Option<Outcome> {
    let mut received = [0; 1024];
    let mut stop = pin!(stop.recv());
    let mut stopped = false;
    loop {
        let mut buf = SendBuffer::take();
        let event = match sender.poll(clock::now(), file, &mut buf) {
            Output::Transmit(transmit) => {
                peer.send(&buf[..transmit.len], transmit.segment).await;
                drop(buf);
                // A window may be larger than any buffer: between its parts the other sessions have their turn.
                if transmit.len > SEND_BUFFER / 2 {
                    yield_now().await;
                }
                continue;
            }
            Output::Finished(outcome) => return Some(outcome),
            Output::NeedData => {
                drop(buf);
                let ready = async {
                    file.ready().await;
                    Event::Ready
                };
                or(next(peer, &mut received, None, stop.as_mut(), stopped), ready).await
            }
            Output::Wait(until) => {
                drop(buf);
                next(peer, &mut received, Some(until), stop.as_mut(), stopped).await
            }
        };
        match event {
            Event::Datagram(len) => {
                let now = clock::now();
                heard(now);
                sender.handle(now, &received[..len]);
            }
            Event::Ready => {}
            Event::Stop(None) => return None,
            Event::Stop(Some(reason)) => {
                stopped = true;
                sender.abort(reason);
            }
        }
    }
}

/// The next datagram of the client, the end of the wait for it, or word from the server, which is listened to once.
async fn next(
    peer: &mut Peer,
    buf: &mut [u8],
    until: Option<Instant>,
    stop: Pin<&mut Recv<'_, &'static str>>,
    stopped: bool,
) -> Event {
    let datagram = async { peer.recv(buf, until).await.map_or(Event::Ready, Event::Datagram) };
    let stop = async { if stopped { pending().await } else { Event::Stop(stop.await.ok()) } };
    or(datagram, stop).await
}

/// Memory for what is sent now. All transfers of a thread share it: what has been sent is read again if it must be sent again.
struct SendBuffer(Vec<u8>);

thread_local! {
    /// The buffer that nobody uses. One that waits for room in its socket is with its transfer, and the next one makes another.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(vec![]) };
}

impl SendBuffer {
    fn take() -> Self {
        let mut buf = SPARE.take();
        buf.resize(SEND_BUFFER, 0);
        Self(buf)
    }
}

impl Drop for SendBuffer {
    fn drop(&mut self) {
        // A thread that ends has no use for it.
        let _ = SPARE.try_with(|spare| spare.set(std::mem::take(&mut self.0)));
    }
}

impl Deref for SendBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for SendBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}
