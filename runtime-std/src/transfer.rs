//! One transfer: the core's sender, driven by a socket, a file and the clock.

use rtftp_core::{Outcome, Output, Sender};
use smol::{
    Timer,
    channel::Receiver,
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
    heard: impl Fn(),
) -> Option<Outcome> {
    let mut buf = vec![0; sender.window_len().min(SEND_BUFFER)];
    let mut received = [0; 1024];
    let mut stopped = false;
    loop {
        let event = match sender.poll(clock::now(), file, &mut buf) {
            Output::Transmit(transmit) => {
                peer.send(&buf[..transmit.len], transmit.segment).await;
                // A window may be larger than any buffer: between its parts the other sessions have their turn.
                if transmit.len > SEND_BUFFER / 2 {
                    yield_now().await;
                }
                continue;
            }
            Output::Finished(outcome) => return Some(outcome),
            Output::NeedData => {
                let ready = async {
                    file.ready().await;
                    Event::Ready
                };
                or(next(peer, &mut received, stop, stopped), ready).await
            }
            Output::Wait(until) => {
                let expired = async {
                    Timer::at(clock::to_std(until)).await;
                    Event::Ready
                };
                or(next(peer, &mut received, stop, stopped), expired).await
            }
        };
        match event {
            Event::Datagram(len) => {
                heard();
                sender.handle(clock::now(), &received[..len]);
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

/// The next datagram of the client, or word from the server, which is listened to once.
async fn next(peer: &mut Peer, buf: &mut [u8], stop: &Receiver<&'static str>, stopped: bool) -> Event {
    let datagram = async { Event::Datagram(peer.recv(buf).await) };
    let stop = async { if stopped { pending().await } else { Event::Stop(stop.recv().await.ok()) } };
    or(datagram, stop).await
}
