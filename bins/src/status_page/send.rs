//! Sending within a time limit.

use std::{io, time::Duration};

use rtftp_runtime::clock::within;
use smol::{future::yield_now, io::AsyncWriteExt, net::TcpStream};

/// The time limit for creating a response, and for sending it or an event: a full history has several megabytes.
pub(super) const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);
/// The number of bytes to send before other tasks of the executor are polled.
const CHUNK_SIZE: usize = 64 << 10;

/// Sends a text in chunks, so that a fast client does not delay others.
pub(super) async fn send_chunks(stream: &mut TcpStream, text: &[u8]) -> io::Result<()> {
    for chunk in text.chunks(CHUNK_SIZE) {
        stream.write_all(chunk).await?;
        yield_now().await;
    }
    Ok(())
}

/// Adds a time limit to an operation.
pub(super) async fn with_timeout<T>(limit: Duration, operation: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    within(limit, operation).await.unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()))
}
