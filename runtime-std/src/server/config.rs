//! The server's configuration.

use std::{net::IpAddr, ops::RangeInclusive, path::PathBuf, time::Duration};

pub use rtftp_core::wire::options::{Limits, MAX_BLKSIZE, MAX_WINDOWSIZE};

pub use super::admission::Capacity;
use crate::{hostnames::HostnameFiles, http::HttpConfig, status::StatusSocket};

/// The configuration of a [`Server`](super::Server).
#[derive(Debug)]
pub struct Config {
    /// The address to listen on; `None` for all IPv4 and IPv6 addresses.
    pub listen_ip: Option<IpAddr>,
    /// The UDP port to listen on; 0 for any free port.
    pub listen_port: u16,
    /// The directory that contains the clients' directories, their `.nbd` files and `default/`.
    pub root_dir: PathBuf,
    /// The time after which a disk without a request is disconnected.
    pub idle_timeout: Duration,
    /// The time without a request or transfer that ends a client's boot. Its next request sees a new snapshot of its disk.
    pub view_gap: Duration,
    /// Whether to connect disks as soon as their `.nbd` files appear.
    pub monitor_configs: bool,
    /// The largest options to grant.
    pub limits: Limits,
    /// Whether to limit blocks to what reaches the client in one packet.
    pub mtu_clamp: bool,
    /// The ports to serve transfers from, which also limit their number; `None` for any free ports.
    pub port_range: Option<RangeInclusive<u16>>,
    /// Whether to serve transfers from the listening port, ignoring `port_range`.
    ///
    /// This deviates from RFC 1350 section 4, for networks that lose replies from other ports: a late packet for a transfer cannot
    /// be distinguished from one for the next transfer to the same client port.
    pub single_port: bool,
    /// The limits on the number of transfers.
    pub capacity: Capacity,
    /// The time limit for connecting a disk.
    pub open_limit: Duration,
    /// The time limit for each reply of a connected disk.
    pub read_limit: Duration,
    /// The memory in bytes for what is read from all disks. One disk can use a quarter of it.
    pub disk_memory: usize,
    /// The files with the host names of boards.
    pub hostname_files: HostnameFiles,
    /// The HTTP server, if there is one.
    pub http: Option<HttpConfig>,
    /// The directory in which boots are recorded, if there is one.
    pub history_dir: Option<PathBuf>,
    /// The socket that reports the server's status.
    pub status_socket: StatusSocket,
}
