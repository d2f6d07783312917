//! A line of the journal: a finished request as JSON, and the boot that it belongs to.

use std::net::IpAddr;

use rtftp_core::Instant;
use serde::{Deserialize, Serialize};

use super::super::{
    request::Record,
    snapshot::{Event, Mount, State},
    store::Store,
    wall_clock::WallClock,
};
use crate::text::printable_within;

/// Longer texts are cut off, in characters: more than those that are written.
const MAX_TEXT: usize = 600;

/// A line of any kind.
#[derive(Debug, PartialEq)]
pub(super) enum AnyLine {
    Finished(Line),
    Mount(MountLine),
}

impl AnyLine {
    /// Parses a line and makes its texts printable. Returns `None` if it is torn or of an unknown kind.
    pub(super) fn parse(json: &[u8]) -> Option<Self> {
        Line::parse(json).map(Self::Finished).or_else(|| MountLine::parse(json).map(Self::Mount))
    }

    /// Returns whether it is that of a finished request.
    pub(super) fn is_request(&self) -> bool {
        matches!(self, Self::Finished(_))
    }

    /// Adds what it records to a store. Returns `None` if its time is too long ago or in the future.
    pub(super) fn restore(self, store: &mut Store, now: WallClock) -> Option<()> {
        match self {
            Self::Finished(line) => line.restore(store, now),
            Self::Mount(line) => {
                store.set_mount(line.client.parse().ok()?, now.past(line.boot)?, line.mount).then_some(())
            }
        }
    }
}

/// What the disk of a client has shown after a boot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct MountLine {
    /// The time of the first request of the boot.
    pub(super) boot: f64,
    pub(super) client: String,
    pub(super) mount: Mount,
}

impl MountLine {
    pub(super) fn new(client: IpAddr, began: Instant, mount: Mount, now: WallClock) -> Self {
        Self { boot: now.to_unix(began), client: client.to_string(), mount }
    }

    fn parse(json: &[u8]) -> Option<Self> {
        let mut line: Self = serde_json::from_slice(json).ok()?;
        line.client.parse::<IpAddr>().ok()?;
        line.mount.text = printable_within(&line.mount.text, MAX_TEXT);
        Some(line)
    }
}

/// A finished request. Fields of later versions are ignored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Line {
    /// The time of the first request of the boot, the same for all its requests.
    pub(super) boot: f64,
    /// The time of the client's last packet after the request, or `None` if it never answered.
    #[serde(default)]
    pub(super) seen: Option<f64>,
    #[serde(flatten)]
    pub(super) event: Event,
}

impl Line {
    pub(super) fn new(client: IpAddr, record: &Record, now: WallClock) -> Self {
        let seen = record.last_seen().map(|seen| now.to_unix(seen));
        Self { boot: now.to_unix(record.boot_began()), seen, event: record.event(client, now) }
    }

    /// Parses a line and makes its texts printable. Returns `None` if it is torn or not that of a finished request.
    pub(super) fn parse(json: &[u8]) -> Option<Self> {
        let mut line: Self = serde_json::from_slice(json).ok()?;
        line.client()?;
        let file = &mut line.event.file;
        let texts = [&mut file.origin, &mut file.boot_entry, &mut file.why, &mut file.server].into_iter().flatten();
        for text in texts.chain([&mut file.name]) {
            *text = printable_within(text, MAX_TEXT);
        }
        (file.state != State::Running).then_some(line)
    }

    /// Returns the address of the client.
    fn client(&self) -> Option<IpAddr> {
        self.event.client.parse().ok()
    }

    /// Adds the request to a store. Returns `None` if its time is too long ago or in the future.
    pub(super) fn restore(self, store: &mut Store, now: WallClock) -> Option<()> {
        let (client, boot) = (self.client()?, now.past(self.boot)?);
        let received = now.past(self.event.file.began)?;
        let seen = self.seen.and_then(|seen| now.past(seen));
        store.restore(client, boot, |client_seen| Record::restored(self.event.file, received, seen, client_seen));
        Some(())
    }
}
