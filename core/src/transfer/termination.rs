//! How either end of a transfer ends it.

use crate::{
    transfer::output::{Outcome, Output, Transmit},
    wire::packet::{ErrorCode, Packet},
};

/// The end of a transfer, once it has come, and the ERROR that the peer is still to be told.
#[derive(Debug, Clone, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub(crate) struct Ending {
    outcome: Option<Outcome>,
    farewell: Option<(ErrorCode, &'static str)>,
}

impl Ending {
    /// Whether the transfer is over.
    pub(crate) fn has_come(&self) -> bool {
        self.outcome.is_some()
    }

    /// Ends the transfer without a word: an ERROR is answered by nothing, and success needs none.
    pub(crate) fn end(&mut self, outcome: Outcome) {
        self.outcome = Some(outcome);
    }

    /// Ends the transfer and has the peer told why.
    pub(crate) fn fail(&mut self, outcome: Outcome, code: ErrorCode, message: &'static str) {
        self.outcome = Some(outcome);
        self.farewell = Some((code, message));
    }

    /// What is left to do when the transfer is over: the ERROR, once, if it fits `buf`, and then nothing for ever.
    pub(crate) fn poll(&mut self, buf: &mut [u8]) -> Option<Output> {
        if let Some((code, message)) = self.farewell.take() {
            let error = Packet::Error { code, message: message.as_bytes() };
            if let Some(len) = error.write(buf) {
                return Some(Output::Transmit(Transmit { len, segment: len }));
            }
        }
        self.outcome.map(Output::Finished)
    }
}
