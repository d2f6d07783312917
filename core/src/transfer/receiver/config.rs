//! The configuration of a receiver.

use core::time::Duration;

use crate::{transfer::rto::Bounds, wire::options::RequestedOptions};

/// The options that a [`Receiver`](super::Receiver) requests, and its timeouts.
///
/// ```
/// use core::time::Duration;
/// use rtftp_core::{ReceiverConfig, wire::options::RequestedOptions};
///
/// let config = ReceiverConfig {
///     options: RequestedOptions { blksize: Some(1428), windowsize: Some(4), ..RequestedOptions::default() },
///     patience: Duration::from_secs(10),
///     ..ReceiverConfig::default()
/// };
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct ReceiverConfig {
    /// The options of the request. Default: none.
    pub options: RequestedOptions,
    /// The time without a new block after which the receiver gives up. Default: 60 s.
    pub patience: Duration,
    /// The time to stay after the last block, in retransmission timeouts, to repeat the last ACK if it was lost (RFC 1350
    /// section 6). 0 ends the transfer with the last ACK.
    ///
    /// Default: 8. A server that doubles its timeout sends the block again after one, three and seven of them.
    pub dally: u32,
    /// The retransmission timeout before a round trip is measured. Default: 1 s.
    pub initial_timeout: Duration,
    /// The lower bound of the retransmission timeout. Default: 50 ms.
    pub min_timeout: Duration,
    /// The upper bound of the retransmission timeout; a granted option `timeout` can lower it. Default: 5 s.
    pub max_timeout: Duration,
}

impl Default for ReceiverConfig {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl ReceiverConfig {
    /// The default configuration, for constants.
    pub const DEFAULT: Self = Self {
        options: RequestedOptions { blksize: None, windowsize: None, timeout: None, tsize: false },
        patience: Duration::from_secs(60),
        dally: 8,
        initial_timeout: Duration::from_secs(1),
        min_timeout: Duration::from_millis(50),
        max_timeout: Duration::from_secs(5),
    };

    /// Returns the bounds of the retransmission timeout.
    pub(super) fn bounds(&self) -> Bounds {
        Bounds::new(self.initial_timeout, self.min_timeout, self.max_timeout)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_agree_with_the_other_modules() {
        let config = ReceiverConfig::default();
        assert_eq!(config.bounds(), Bounds::DEFAULT);
        assert_eq!(config.options, RequestedOptions::default());
        assert_eq!(config.patience, crate::transfer::sender::PATIENCE);
    }
}
