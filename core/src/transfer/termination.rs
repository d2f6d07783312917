//! The termination of a transfer by either end.

use crate::{
    transfer::output::{Outcome, Output, Transmit},
    wire::packet::{ErrorCode, Packet},
};

/// The outcome of a transfer, once it is over, and the ERROR that is still to be sent.
#[derive(Debug, Clone, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub(crate) struct Termination {
    outcome: Option<Outcome>,
    pending_error: Option<(ErrorCode, &'static str)>,
}

impl Termination {
    /// Returns whether the transfer is over.
    pub(crate) fn is_terminated(&self) -> bool {
        self.outcome.is_some()
    }

    /// Returns the outcome, once the transfer is over.
    pub(crate) fn outcome(&self) -> Option<Outcome> {
        self.outcome
    }

    /// Terminates the transfer without a packet: after success, and after an ERROR of the peer, which gets no answer.
    pub(crate) fn finish(&mut self, outcome: Outcome) {
        self.outcome = Some(outcome);
    }

    /// Terminates the transfer with an ERROR packet.
    pub(crate) fn fail(&mut self, outcome: Outcome, code: ErrorCode, message: &'static str) {
        self.outcome = Some(outcome);
        self.pending_error = Some((code, message));
    }

    /// Returns what is left to do when the transfer is over, or `None` while it runs: sends the ERROR once, if it fits `buf`,
    /// then stays finished.
    pub(crate) fn poll(&mut self, buf: &mut [u8]) -> Option<Output> {
        if let Some((code, message)) = self.pending_error.take() {
            let error = Packet::Error { code, message: message.as_bytes() };
            if let Some(len) = error.write(buf) {
                return Some(Output::Transmit(Transmit { len, segment: len }));
            }
        }
        self.outcome.map(Output::Finished)
    }
}
