//! What a state machine asks of its driver.

use crate::{
    time::Instant,
    transfer::io::{ReadFailed, WriteFailed},
    wire::packet::ErrorCode,
};

/// The one answer of a state machine: what to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Output {
    /// Send what is in the buffer, then poll again.
    Transmit(Transmit),
    /// The reader said "not loaded yet": make its bytes ready, then poll again.
    NeedData,
    /// There is nothing to do before this instant, which lies in the future, unless a datagram arrives.
    Wait(Instant),
    /// The transfer is over; the answer stays the same however often it is asked for.
    Finished(Outcome),
}

/// Datagrams in the caller's buffer, one after the other: `segment` bytes each, only the last may be shorter.
///
/// That is the rule of the kernel's UDP segmentation offload, which takes such a buffer in one system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Transmit {
    /// How many bytes of the buffer are to be sent; never 0.
    pub len: usize,
    /// The length of every datagram but the last, in bytes; never 0.
    pub segment: usize,
}

/// How a transfer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Outcome {
    /// Every block is delivered and acknowledged.
    Complete,
    /// The client only wanted to know whether the file is there and how large it is: normal traffic.
    Probed,
    /// The peer ended the transfer with an ERROR of this code.
    PeerError(ErrorCode),
    /// The peer fell silent.
    TimedOut,
    /// The file could not be read to its end.
    ReadFailed(ReadFailed),
    /// The sink did not take the file.
    WriteFailed(WriteFailed),
    /// The peer broke the rules and was told so with an ERROR of this code.
    Refused(ErrorCode),
    /// The driver ended the transfer.
    Aborted,
}
