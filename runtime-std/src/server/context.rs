//! The state that all sessions of a server share.

use std::{io, sync::Arc};

use parking_lot::Mutex;
use rtftp_core::wire::options::Limits;

use super::{
    admission::{Capacity, Sessions},
    config::Config,
};
use crate::{
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
    pub(crate) history: History,
    /// The log of clients that have not answered.
    pub(crate) unverified_log: UnverifiedLog,
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
        Ok(Self {
            workers: Workers::new(event_loop),
            ports,
            unknown_tids: UnknownTidSockets::new()?,
            files: Arc::new(files),
            limits: config.limits,
            mtu_clamp: config.mtu_clamp,
            sessions: Mutex::new(Sessions::new(Capacity { transfers, ..config.capacity })),
            history: History::new(),
            unverified_log: UnverifiedLog::new(),
        })
    }
}
