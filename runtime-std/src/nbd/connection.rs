//! The task that a connection belongs to: it sends requests, takes the answers in any order, and looks at the clock.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use smol::{
    Executor, Timer,
    channel::{Receiver, Sender, bounded, unbounded},
    future::{or, poll_once, yield_now},
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, split},
};

use super::{
    inflight::{InFlight, Request},
    wire::{
        CMD_DISC, CMD_READ, REPLY_TYPE_ERROR, REPLY_TYPE_NONE, REPLY_TYPE_OFFSET_DATA, REPLY_TYPE_OFFSET_HOLE, Reply,
        not_nbd, read, read_error, read_u32, read_u64, request,
    },
};
use crate::fs::Error;

/// The near end of a connection; when it is dropped, the connection ends.
#[derive(Debug)]
pub(super) struct Connection {
    requests: Sender<Request>,
    /// Why the connection is lost.
    lost: Arc<OnceLock<String>>,
    /// Its closing tells the task to end, whatever that waits for.
    _held: Sender<()>,
}

impl Connection {
    /// Starts the task for an export that the handshake has opened.
    pub(super) fn start(
        server: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        structured: bool,
        limit: Duration,
        executor: &Executor<'static>,
    ) -> Self {
        let (requests, waiting) = unbounded();
        let (held, let_go) = bounded(1);
        let lost = Arc::new(OnceLock::new());
        let transmission =
            Transmission { structured, limit, in_flight: Mutex::default(), room: bounded(1), lost: lost.clone() };
        executor.spawn(transmission.run(server, waiting, let_go)).detach();
        Self { requests, lost, _held: held }
    }

    /// Has bytes read; the answer comes through the channel, which closes without one if the connection is lost.
    pub(super) fn read(&self, spare: Vec<u8>, offset: u64, len: u32) -> Receiver<Result<Vec<u8>, Error>> {
        let (answer, receiver) = bounded(1);
        // If it fails, so does the receiver.
        let _ = self.requests.try_send(Request { spare, offset, len, answer });
        receiver
    }

    /// Whether the connection works, as far as is known; once `false`, it stays so.
    pub(super) fn is_alive(&self) -> bool {
        !self.requests.is_closed()
    }

    /// Why the connection is lost.
    pub(super) fn lost(&self) -> Error {
        let reason = self.lost.get().map_or("rtftp is stopping", String::as_str);
        Error::Io(format!("the connection to the NBD server is lost: {reason}"))
    }
}

/// The state of the task.
struct Transmission {
    structured: bool,
    /// How long the server may take for an answer.
    limit: Duration,
    in_flight: Mutex<InFlight>,
    /// Holds a token when an answer has made room for other requests.
    room: (Sender<()>, Receiver<()>),
    lost: Arc<OnceLock<String>>,
}

impl Transmission {
    async fn run(self, server: impl AsyncRead + AsyncWrite + Unpin, waiting: Receiver<Request>, let_go: Receiver<()>) {
        let (mut reader, mut writer) = split(server);
        let let_go = async {
            let _ = let_go.recv().await;
            Ok(())
        };
        let transmit = or(self.send(&mut writer, &waiting), or(self.receive(&mut reader), self.watch()));
        match or(let_go, transmit).await {
            // Said if it can be said at once: the server notices the end of the connection anyway.
            Ok(()) => drop(poll_once(writer.write_all(&request(CMD_DISC, 0, 0, 0))).await),
            Err(error) => drop(self.lost.set(error.to_string())),
        }
        waiting.close();
        while waiting.try_recv().is_ok() {}
    }

    /// Sends requests as long as there are any; those beyond what may be under way wait their turn.
    async fn send(&self, server: &mut (impl AsyncWrite + Unpin), waiting: &Receiver<Request>) -> io::Result<()> {
        while let Ok(next) = waiting.recv().await {
            while !self.in_flight().has_room(next.len) {
                let _ = self.room.1.recv().await;
            }
            if next.answer.is_closed() {
                // Nobody waits for it any more.
                continue;
            }
            let (offset, len) = (next.offset, next.len);
            let cookie = self.in_flight().add(next, Instant::now() + self.limit);
            server.write_all(&request(CMD_READ, cookie, offset, len)).await?;
        }
        Ok(())
    }

    /// Takes answers until one is wrong.
    async fn receive(&self, server: &mut (impl AsyncRead + Unpin)) -> io::Result<()> {
        loop {
            match Reply::read(server).await? {
                Reply::Simple { error: 0, cookie } => {
                    let (offset, len) = self.in_flight().asked(cookie)?;
                    self.receive_data(server, cookie, offset, len).await?;
                    self.finish(cookie)?;
                }
                Reply::Simple { error, cookie } => {
                    self.in_flight().fail(cookie, error, "")?;
                    self.finish(cookie)?;
                }
                Reply::Chunk { .. } if !self.structured => {
                    return Err(io::Error::other("the server sent a structured reply, which was not agreed on"));
                }
                Reply::Chunk { done, kind, cookie, len } => {
                    self.receive_chunk(server, done, kind, cookie, len).await?;
                    if done {
                        self.finish(cookie)?;
                    }
                }
            }
            // Were the next reply always there already, nobody would look at the clock, and nobody else would run.
            yield_now().await;
        }
    }

    async fn receive_chunk(
        &self,
        server: &mut (impl AsyncRead + Unpin),
        done: bool,
        kind: u16,
        cookie: u64,
        len: u32,
    ) -> io::Result<()> {
        match (kind, len) {
            (REPLY_TYPE_NONE, 0) if done => {}
            (REPLY_TYPE_OFFSET_DATA, 9..) => {
                let offset = read_u64(server).await?;
                self.receive_data(server, cookie, offset, len - 8).await?;
            }
            (REPLY_TYPE_OFFSET_HOLE, 12) => {
                let offset = read_u64(server).await?;
                let len = read_u32(server).await?;
                let place = self.in_flight().fill(cookie, offset, len)?;
                let mut buffer = self.in_flight().take_buffer(cookie)?;
                buffer.get_mut(place).unwrap_or_default().fill(0);
                self.in_flight().put_buffer(cookie, buffer)?;
            }
            (REPLY_TYPE_ERROR.., _) => {
                let (error, text) = read_error(server, len).await?;
                self.in_flight().fail(cookie, error, &text)?;
            }
            _ => return Err(not_nbd()),
        }
        Ok(())
    }

    /// Reads a piece of an answer straight to its place.
    async fn receive_data(
        &self,
        server: &mut (impl AsyncRead + Unpin),
        cookie: u64,
        offset: u64,
        len: u32,
    ) -> io::Result<()> {
        let place = self.in_flight().fill(cookie, offset, len)?;
        let mut buffer = self.in_flight().take_buffer(cookie)?;
        read(server, buffer.get_mut(place).unwrap_or_default()).await?;
        self.in_flight().put_buffer(cookie, buffer)
    }

    fn finish(&self, cookie: u64) -> io::Result<()> {
        self.in_flight().finish(cookie)?;
        // Fails when there is a token already.
        let _ = self.room.0.try_send(());
        Ok(())
    }

    /// Waits until the server is late.
    async fn watch(&self) -> io::Result<()> {
        loop {
            let now = Instant::now();
            // What has not been sent yet cannot be late before that.
            let deadline = self.in_flight().deadline().unwrap_or(now + self.limit);
            if deadline <= now {
                let limit = self.limit.as_secs_f64();
                return Err(io::Error::other(format!("the server did not answer within {limit} s")));
            }
            Timer::at(deadline).await;
        }
    }

    fn in_flight(&self) -> MutexGuard<'_, InFlight> {
        self.in_flight.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
