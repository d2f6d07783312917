//! What the record tells: plain data, for JSON and for whoever shows it.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{SystemTime, UNIX_EPOCH},
};

use rtftp_core::Instant;
use serde::{Deserialize, Serialize};

use crate::clock;

/// The record at one moment. Times are in seconds since 1970, UTC.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// When it was taken.
    pub now: f64,
    /// The daemon's version.
    pub version: String,
    /// When the daemon started.
    pub started: f64,
    /// What there was since then.
    pub totals: Totals,
    /// The clients, the one heard last first.
    pub clients: Vec<Client>,
}

/// Numbers since the start of the daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// All requests but the copies.
    pub requests: u64,
    /// Files that were delivered to their last byte.
    pub complete: u64,
    /// Files whose size or being there was all that was wanted.
    pub probes: u64,
    /// Files that are in none of the roots.
    pub missing: u64,
    /// Requests that are not served.
    pub refused: u64,
    /// Transfers that broke off, and files that could not be read.
    pub failed: u64,
    /// Acknowledged bytes of the files that have ended.
    pub bytes: u64,
    /// Packets of the files that have ended which were sent once more.
    pub retransmitted: u64,
    /// Requests that repeated one which was being answered.
    pub copies: u64,
    /// Requests that are being answered now.
    pub running: u64,
}

/// A client and its last boots.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Client {
    /// Its address.
    pub client: String,
    /// Where its last boot stands, or stopped, in words.
    #[serde(rename = "where")]
    pub place: String,
    /// The newest first.
    pub boots: Vec<Boot>,
}

/// The files that a client asked for in one go.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Boot {
    /// When the first request came.
    pub began: f64,
    /// When the client was last heard.
    pub last: f64,
    /// How many requests there were besides those below.
    pub more: u64,
    /// In the order they were asked for.
    pub files: Vec<File>,
}

/// One request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct File {
    /// The name that was asked for: printable ASCII, everything else escaped, and of a very long one the beginning.
    pub name: String,
    /// The root that the file is from, or could not be read from.
    pub origin: Option<String>,
    /// What came of it.
    pub state: State,
    /// Why it was refused, or failed.
    pub why: Option<String>,
    /// When the request came.
    pub began: f64,
    /// How long it took, or takes up to now.
    pub seconds: f64,
    /// In bytes, if it is known.
    pub size: Option<u64>,
    /// How many bytes the client has acknowledged.
    pub acknowledged: u64,
    /// How many packets were sent once more.
    pub retransmitted: u64,
    /// How many times the client repeated the request before it had the first answer.
    pub copies: u64,
    /// The size of a block that was granted, in bytes; 0 if nothing was sent.
    pub blksize: u16,
    /// The size of a window that was granted, in blocks; 0 if nothing was sent.
    pub windowsize: u16,
    /// How old the view of the disk was when the file was opened, in seconds; for files of disks.
    pub view_age: Option<f64>,
}

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It is being answered.
    Running,
    /// The client has all of the file.
    Complete,
    /// The client only wanted to know whether the file is there and how large it is.
    Probe,
    /// The file is in none of the client's roots.
    Missing,
    /// The client may not have it.
    Refused,
    /// The file could not be read, or the transfer broke off.
    Failed,
}

/// A request that is over, as followers of the record are told of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// The client's address.
    pub client: String,
    /// The request.
    #[serde(flatten)]
    pub file: File,
}

/// A moment of the daemon's clock, and what the clock on the wall has to do with it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wall {
    instant: Instant,
    /// The time on the wall when the daemon's clock began, in microseconds since 1970.
    began: u64,
}

/// [`Wall::began`] as it was found last; 0 for not yet.
static BEGAN: AtomicU64 = AtomicU64::new(0);

impl Wall {
    /// When the clock on the wall has gone this far from the daemon's, it was set. By less the two differ from one look to the
    /// next, and a request must not seem to have come at different times.
    const SET: u64 = 1_000_000;

    /// Now.
    pub(super) fn now() -> Self {
        Self::at(clock::now())
    }

    /// This moment of the daemon's clock, as if it were now.
    pub(super) fn at(instant: Instant) -> Self {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let found = u64::try_from(unix.as_micros()).unwrap_or(u64::MAX).saturating_sub(clock::now().as_micros());
        let known = BEGAN.load(Relaxed);
        if known.abs_diff(found) < Self::SET {
            return Self { instant, began: known };
        }
        BEGAN.store(found, Relaxed);
        Self { instant, began: found }
    }

    /// The moment on the daemon's clock.
    pub(super) fn instant(self) -> Instant {
        self.instant
    }

    /// Any moment, in seconds since 1970; a double holds the microseconds.
    pub(super) fn of(self, instant: Instant) -> f64 {
        self.began.saturating_add(instant.as_micros()) as f64 / 1e6
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_the_same_whenever_it_is_looked_at() {
        let instant = clock::now();
        let (first, unix) =
            (Wall::now().of(instant), SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970"));
        assert!((first - unix.as_secs_f64()).abs() < 5.0, "{first}");
        for _ in 0..1000 {
            assert_eq!(Wall::now().of(instant), first);
        }
    }
}
