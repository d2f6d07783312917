//! A body in memory.

use rtftp_core::{BlockSink, WriteFailed};

/// Receives a body into memory, up to a limit. A larger body fails with [`HttpError::Sink`](super::HttpError::Sink).
#[derive(Debug)]
pub struct BodyBuffer {
    bytes: Vec<u8>,
    limit: usize,
}

impl BodyBuffer {
    /// Creates a buffer for a body of at most `limit` bytes. It occupies only what is received.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { bytes: vec![], limit }
    }

    /// Returns the received bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl BlockSink for BodyBuffer {
    fn write(&mut self, _offset: u64, bytes: &[u8]) -> Result<(), WriteFailed> {
        if bytes.len() > self.limit - self.bytes.len() {
            return Err(WriteFailed("the body is too large"));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_exceeds_the_limit() {
        let mut buffer = BodyBuffer::new(5);
        assert!(buffer.write(0, b"abc").is_ok());
        assert!(buffer.write(3, b"def").is_err());
        assert!(buffer.write(3, b"de").is_ok());
        assert!(buffer.write(5, b"").is_ok());
        assert!(buffer.write(5, b"f").is_err());
        assert_eq!(buffer.bytes(), b"abcde");
    }
}
