//! The requests of a state machine to its driver.

use core::fmt;

use crate::{
    time::Instant,
    transfer::io::{ReadFailed, WriteFailed},
    wire::packet::ErrorCode,
};

/// The next action of a driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[must_use]
pub enum Output {
    /// Send the datagrams in the buffer, then poll again.
    Transmit(Transmit),
    /// The reader has not loaded the next bytes: load them, then poll again.
    NeedData,
    /// Nothing to do before this instant, which lies in the future, unless a datagram arrives.
    Wait(Instant),
    /// The transfer is over. Every later poll returns the same.
    Finished(Outcome),
}

/// Datagrams in the caller's buffer, one after the other: `segment` bytes each, only the last may be shorter.
///
/// The kernel's UDP segmentation offload takes such a buffer in one system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Transmit {
    /// The number of bytes to send from the start of the buffer; never 0.
    pub len: usize,
    /// The length of every datagram but the last, in bytes; never 0.
    pub segment: usize,
}

/// The end of a transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Outcome {
    /// Every block is delivered and acknowledged.
    Complete,
    /// The client asked only for the size of the file: normal traffic.
    Probed,
    /// The peer ended the transfer with an ERROR of this code.
    PeerError(ErrorCode),
    /// The client gave up after block 1 was sent again this many times: the block does not reach it.
    FirstBlockLost {
        /// The number of repetitions of block 1.
        repetitions: u32,
    },
    /// The network reported that nobody receives at the peer's port.
    PortClosed,
    /// The peer stopped answering.
    TimedOut,
    /// The file could not be read to its end.
    ReadFailed(ReadFailed),
    /// The sink could not store the file.
    WriteFailed(WriteFailed),
    /// The peer violated the protocol; it was sent an ERROR of this code.
    Refused(ErrorCode),
    /// The driver ended the transfer.
    Aborted,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Complete => f.write_str("complete"),
            Self::Probed => f.write_str("probed for the size of the file"),
            Self::PeerError(code) => write!(f, "ended by the peer with ERROR {code}"),
            Self::FirstBlockLost { repetitions } => write!(f, "block 1 never acknowledged, {repetitions} repetitions"),
            Self::PortClosed => f.write_str("the peer has closed its port"),
            Self::TimedOut => f.write_str("timed out"),
            Self::ReadFailed(failed) => write!(f, "cannot read the file: {failed}"),
            Self::WriteFailed(failed) => write!(f, "cannot store the file: {failed}"),
            Self::Refused(code) => write!(f, "protocol violation by the peer, answered with ERROR {code}"),
            Self::Aborted => f.write_str("aborted"),
        }
    }
}
