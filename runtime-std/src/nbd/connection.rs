//! The handle of a connection in the transmission phase.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use smol::{
    Executor,
    channel::{Receiver, Sender, bounded, unbounded},
    io::{AsyncRead, AsyncWrite, BufReader},
};

use super::{
    NbdError,
    in_flight::Request,
    transmission::{Transmission, run},
};
use crate::buffer::{Buffer, BufferPool};

/// A handle to the task. The task disconnects when the handle is dropped.
#[derive(Debug)]
pub(super) struct Connection {
    requests: Sender<Request>,
    lost: Arc<OnceLock<Arc<NbdError>>>,
    pool: BufferPool,
}

impl Connection {
    /// Starts the task after the handshake.
    pub(super) fn start(
        stream: BufReader<impl AsyncRead + AsyncWrite + Unpin + Send + 'static>,
        structured: bool,
        timeout: Duration,
        executor: &Executor<'static>,
    ) -> Self {
        let (requests, queue) = unbounded();
        let lost = Arc::new(OnceLock::new());
        let pool = BufferPool::default();
        let transmission = Transmission::new(stream, structured, timeout, pool.clone());
        executor.spawn(run(transmission, queue, lost.clone())).detach();
        Self { requests, lost, pool }
    }

    /// Requests a read. The returned channel receives the result; it is closed without one if the connection is lost.
    pub(super) fn read(&self, offset: u64, len: u32) -> Receiver<Result<Buffer, NbdError>> {
        let (reply, receiver) = bounded(1);
        // If this fails, the receiver is closed.
        let _ = self.requests.try_send(Request { offset, len, reply });
        receiver
    }

    /// Returns `false` once the connection is known to be lost.
    pub(super) fn is_alive(&self) -> bool {
        !self.requests.is_closed()
    }

    /// Frees the buffers that are kept for later reads.
    pub(super) fn free_buffers(&self) {
        self.pool.clear();
    }

    /// Returns why the connection was lost.
    pub(super) fn error(&self) -> NbdError {
        NbdError::ConnectionLost(self.lost.get().cloned().unwrap_or_else(|| NbdError::ShuttingDown.into()))
    }
}
