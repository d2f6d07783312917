//! The boards seen before the clients whose boots are kept in detail. Each has its last boot with one request.
//!
//! Only boards that the owner has described are kept here, so that others cannot displace them: those with a directory or a description
//! of their address, and those that have answered and were served from a root of their own or of their group.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    fmt,
    net::IpAddr,
    sync::Arc,
};

use rtftp_core::Instant;

use super::{boot::Client, boot_metrics::BootMetrics};

/// The maximum number of boards.
pub(super) const MAX_BOARDS: usize = 65_536;
/// The number of boards that are removed at a time.
const EVICTED: usize = MAX_BOARDS / 16;
/// The number of boots that are examined at a time for whether they have ended.
const MAX_EXAMINED: usize = 1024;

/// Whether a directory or a description is named after an address.
#[derive(Clone, Default)]
pub(super) struct Described(Option<Arc<dyn Fn(IpAddr) -> bool + Send + Sync>>);

impl Described {
    pub(super) fn new(is_described: impl Fn(IpAddr) -> bool + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(is_described)))
    }

    /// Returns whether the owner has described the board.
    pub(super) fn contains(&self, ip: IpAddr, client: &Client) -> bool {
        client.is_known()
            || self.0.as_ref().is_some_and(|is_described| is_described(ip))
            || client.is_verified() && client.own_root().is_some()
    }
}

impl fmt::Debug for Described {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Described")
    }
}

/// The boards, each in as little memory as possible.
#[derive(Debug, Default)]
pub(super) struct EarlierBoards {
    boards: BTreeMap<IpAddr, Client>,
    /// The addresses of boards whose roots are named after something else: the last one of each.
    addresses: HashMap<Box<str>, IpAddr>,
    /// The boards whose boots had not ended.
    uncounted: VecDeque<IpAddr>,
}

impl EarlierBoards {
    /// Adds a board. Returns whether another one had to be removed.
    pub(super) fn add(&mut self, ip: IpAddr, mut client: Client, now: Instant, metrics: &BootMetrics) -> bool {
        match client.last_boot_mut() {
            Some(boot) if boot.has_ended(now) => boot.count(metrics),
            _ => self.uncounted.push_back(ip),
        }
        // A board with another address than before is the same board.
        if let Some(root) = client.own_root().filter(|root| !root.contains('_') && *root != ip.to_string())
            && let Some(before) = self.addresses.insert(root.into(), ip).filter(|before| *before != ip)
        {
            self.boards.remove(&before);
        }
        client.compact();
        self.boards.insert(ip, client);
        let is_full = self.boards.len() > MAX_BOARDS;
        if is_full {
            self.evict();
        }
        is_full
    }

    /// Removes a board, which is seen again.
    pub(super) fn take(&mut self, ip: IpAddr) -> Option<Client> {
        self.boards.remove(&ip)
    }

    pub(super) fn get(&self, ip: IpAddr) -> Option<&Client> {
        self.boards.get(&ip)
    }

    pub(super) fn get_mut(&mut self, ip: IpAddr) -> Option<&mut Client> {
        self.boards.get_mut(&ip)
    }

    /// Returns the number of boards.
    pub(super) fn len(&self) -> usize {
        self.boards.len()
    }

    /// Returns the addresses in their order.
    pub(super) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.boards.keys().copied()
    }

    /// Counts boots that have ended meanwhile.
    pub(super) fn count_ended_boots(&mut self, now: Instant, metrics: &BootMetrics) {
        for _ in 0..self.uncounted.len().min(MAX_EXAMINED) {
            let Some(ip) = self.uncounted.pop_front() else { return };
            match self.get_mut(ip).and_then(Client::last_boot_mut) {
                Some(boot) if boot.has_ended(now) => boot.count(metrics),
                Some(_) => self.uncounted.push_back(ip),
                None => {}
            }
        }
    }

    /// Removes the boards seen longest ago.
    fn evict(&mut self) {
        let mut boards: Vec<_> = self.boards.iter().map(|(ip, client)| (client.last_seen(), *ip)).collect();
        boards.sort_unstable();
        for (_, ip) in boards.into_iter().take(EVICTED) {
            self.boards.remove(&ip);
        }
        let Self { boards, addresses, uncounted } = self;
        addresses.retain(|_, ip| boards.contains_key(ip));
        uncounted.retain(|ip| boards.contains_key(ip));
    }
}
