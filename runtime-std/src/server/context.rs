//! The state that all sessions of a server share.

use std::{io, net::UdpSocket, sync::Arc};

use parking_lot::Mutex;
use rtftp_core::wire::options::Limits;

use super::{
    admission::{Capacity, Sessions},
    config::Config,
    limit_warnings::LimitWarning,
};
use crate::{
    descriptors,
    event_loop::{EventLoop, Workers},
    files::FileStore,
    history::History,
    net::{Listener, UnknownTidSockets, ports::Ports},
    rate_limit::UnverifiedLog,
};

/// The state that all sessions of a server share.
#[derive(Debug)]
pub(crate) struct ServerContext {
    pub(crate) workers: Workers,
    pub(crate) ports: Ports,
    pub(crate) unknown_tids: Arc<UnknownTidSockets>,
    pub(crate) files: Arc<FileStore>,
    pub(crate) limits: Limits,
    /// Whether blocks are limited to what reaches the client in one packet.
    pub(crate) mtu_clamp: bool,
    pub(crate) sessions: Mutex<Sessions>,
    /// The listening socket, for replies without a transfer.
    pub(crate) replies: UdpSocket,
    pub(crate) history: History,
    /// The log of clients that have not answered.
    pub(crate) unverified_log: UnverifiedLog,
    /// The warnings about the limits of places and descriptors.
    pub(super) transfers_warning: LimitWarning,
    pub(super) per_client_warning: LimitWarning,
    pub(super) requests_warning: LimitWarning,
    descriptors_warning: LimitWarning,
}

impl ServerContext {
    /// Creates the context of a server whose main worker runs `event_loop`.
    ///
    /// # Errors
    ///
    /// A socket cannot be created or configured.
    pub(crate) fn new(
        config: &Config,
        event_loop: Arc<EventLoop>,
        listener: &Listener,
        files: FileStore,
    ) -> io::Result<Self> {
        let ports =
            if config.single_port { Ports::shared(listener.share()?) } else { Ports::new(config.port_range.clone()) };
        // If all ports are in use, too, a newcomer evicts an unverified client.
        let transfers = config.capacity.transfers.min(ports.count().unwrap_or(usize::MAX));
        let transfers = limit_by_descriptors(transfers, descriptors::limit());
        let capacity = Capacity { transfers, ..config.capacity };
        let files = Arc::new(files);
        Ok(Self {
            workers: Workers::new(event_loop),
            ports,
            unknown_tids: UnknownTidSockets::new()?,
            history: History::of_boards({
                let files = files.clone();
                move |ip| files.describes(ip)
            }),
            files,
            limits: config.limits,
            mtu_clamp: config.mtu_clamp,
            sessions: Mutex::new(Sessions::new(capacity, config.single_port)),
            replies: listener.duplicate()?,
            unverified_log: UnverifiedLog::new(),
            transfers_warning: LimitWarning::default(),
            per_client_warning: LimitWarning::default(),
            requests_warning: LimitWarning::default(),
            descriptors_warning: LimitWarning::default(),
        })
    }

    /// Makes place after a lack of descriptors, and reports it: the client gets no reply, and repeats its request.
    pub(super) fn handle_exhaustion(&self, client: std::net::SocketAddr, error: &io::Error) {
        self.sessions.lock().evict_for(client);
        self.descriptors_warning.log(format_args!(
            "{client}: request not answered: {error}; the limit of open files is {}: raise it (LimitNOFILE= in the unit, ulimit -n)",
            descriptors::limit()
        ));
    }
}

/// The number of descriptors of a transfer: its socket, the socket for unknown sources, and its file.
const DESCRIPTORS_PER_TRANSFER: u64 = 3;
/// The descriptors that are kept for disks, status and the program itself: an eighth of all, at least this many.
const MIN_RESERVE: u64 = 64;

/// Returns the number of transfers that the descriptors suffice for, and reports it if that is less than `transfers`.
fn limit_by_descriptors(transfers: usize, descriptors: u64) -> usize {
    let reserve = MIN_RESERVE.max(descriptors / 8);
    let possible = (descriptors.saturating_sub(reserve) / DESCRIPTORS_PER_TRANSFER).max(1);
    let limit = transfers.min(usize::try_from(possible).unwrap_or(usize::MAX));
    if limit < transfers {
        log::warn!(
            "at most {limit} transfers instead of {transfers} at the same time: the limit of open files is {descriptors}: \
             raise it (LimitNOFILE= in the unit, ulimit -n)"
        );
    }
    limit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_limit_transfers() {
        for (transfers, descriptors, expected) in
            [(4096, 65_536, 4096), (4096, 1024, 298), (100, 1024, 100), (9, 0, 1), (4096, u64::MAX, 4096)]
        {
            assert_eq!(limit_by_descriptors(transfers, descriptors), expected, "{descriptors} descriptors");
        }
    }
}
