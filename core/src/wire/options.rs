//! Options: their negotiation by a server and by a client (RFC 2347, 2348, 2349, 7440).
//!
//! The server also supports tftpd-hpa's options `utimeout` and `rollover`.

#[cfg(test)]
mod tests;

use core::{fmt::Write, mem, time::Duration};

use heapless::{String, Vec};

use crate::wire::{block::Rollover, packet::Options};

/// The largest block that RFC 2348 allows, in bytes.
pub const MAX_BLKSIZE: u16 = 65_464;

/// The largest window that is granted, in blocks. RFC 7440 allows 65535, but in a window of more than half of all block numbers
/// an old ACK looks like one of a later block.
pub const MAX_WINDOWSIZE: u16 = 32_767;

/// The block size of a transfer without options, in bytes (RFC 1350).
pub const DEFAULT_BLKSIZE: u16 = 512;

/// The smallest block that RFC 2348 allows, in bytes.
const MIN_BLKSIZE: u16 = 8;

/// The smallest `timeout` that a server grants, in seconds: more than the sender ever waits by itself.
///
/// A granted interval is kept, so a lost block costs that much. U-Boot and barebox always ask for 5 s, curl for 5 or 6 s; without
/// the option, which a server may leave out (RFC 2347), the sender repeats the block after a few round trips.
const MIN_TIMEOUT: u64 = 10;

/// The upper limits of what a server grants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Limits {
    /// The largest block, in bytes, 8 to [`MAX_BLKSIZE`].
    pub blksize: u16,
    /// The largest window, in blocks, 1 to [`MAX_WINDOWSIZE`].
    pub windowsize: u16,
    /// The most bytes of a file in a window. A window of one block is always granted.
    pub window_bytes: u32,
}

impl Default for Limits {
    /// The limits of the RFCs, and windows of 4 MiB, which a client's network card and socket can be expected to hold.
    fn default() -> Self {
        Self { blksize: MAX_BLKSIZE, windowsize: MAX_WINDOWSIZE, window_bytes: 4 << 20 }
    }
}

/// The settings of a transfer after the negotiation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Settings {
    /// The size of every block but the last, in bytes.
    pub blksize: u16,
    /// The number of blocks that are sent before an ACK is required.
    pub windowsize: u16,
    /// The granted interval, if any: the least time between two sendings of a block (RFC 2349).
    pub timeout: Option<Duration>,
    /// The number that follows block 65535.
    pub rollover: Rollover,
}

impl Default for Settings {
    /// The settings of RFC 1350, without any option.
    fn default() -> Self {
        Self { blksize: DEFAULT_BLKSIZE, windowsize: 1, timeout: None, rollover: Rollover::ToZero }
    }
}

/// The longest list of options, in bytes: every option once, with its longest value.
const MAX_OPTIONS: usize =
    "blksize.65464.tsize.18446744073709551615.timeout.255.windowsize.32767.utimeout.255000000.rollover.1.".len();

/// The granted options as an OACK carries them, in the client's order and spelling. If there are none, no OACK is sent.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Granted(Vec<u8, MAX_OPTIONS>);

impl Granted {
    /// Returns the options for an OACK.
    #[must_use]
    pub fn options(&self) -> Options<'_> {
        Options::new(&self.0)
    }

    /// Returns whether nothing was granted, so that DATA 1 is the first answer (RFC 2347).
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Appends an option.
fn push(options: &mut Vec<u8, MAX_OPTIONS>, name: &[u8], value: u64) -> Option<()> {
    let mut digits = String::<20>::new();
    write!(digits, "{value}").ok()?;
    [name, b"\0", digits.as_bytes(), b"\0"].iter().try_for_each(|part| options.extend_from_slice(part)).ok()
}

/// Negotiates the options of a read request for a file of `size` bytes, or of unknown size.
///
/// Names match in any case. The answer omits options that are unknown, repeated or have a value that their RFC does not allow
/// (RFC 2347). Blocks and windows larger than `limits` are granted smaller.
#[must_use]
pub fn negotiate(requested: Options<'_>, limits: &Limits, size: Option<u64>) -> (Settings, Granted) {
    let mut settings = Settings::default();
    let mut granted = Granted::default();
    if let Some(blksize) = first(requested, b"blksize").filter(|&blksize| blksize >= u64::from(MIN_BLKSIZE)) {
        settings.blksize = at_most(blksize, limits.blksize);
    }
    for (name, value) in requested {
        let already = granted.options().any(|(other, _)| other.eq_ignore_ascii_case(name));
        let Some(value) = number(value).filter(|_| !already) else { continue };
        let is = |known: &[u8]| name.eq_ignore_ascii_case(known);
        let grant = if is(b"blksize") && value >= u64::from(MIN_BLKSIZE) {
            Some(u64::from(settings.blksize))
        } else if is(b"windowsize") && value >= 1 {
            settings.windowsize = at_most(value, limits.windowsize_of(settings.blksize));
            Some(u64::from(settings.windowsize))
        } else if is(b"timeout") && (MIN_TIMEOUT..=255).contains(&value) {
            // RFC 2349 requires the same value in the answer.
            settings.timeout = Some(Duration::from_secs(value));
            Some(value)
        } else if is(b"utimeout") && (10_000..=255_000_000).contains(&value) {
            settings.timeout = Some(Duration::from_micros(value));
            Some(value)
        } else if is(b"rollover") && value <= 1 {
            settings.rollover = if value == 1 { Rollover::ToOne } else { Rollover::ToZero };
            Some(value)
        } else if is(b"tsize") {
            size
        } else {
            None
        };
        // There is room, because each option is granted once.
        grant.and_then(|grant| push(&mut granted.0, name, grant));
    }
    (settings, granted)
}

/// Returns the first value of an option that is a number.
fn first(mut requested: Options<'_>, name: &[u8]) -> Option<u64> {
    requested.find_map(|(other, value)| if other.eq_ignore_ascii_case(name) { number(value) } else { None })
}

impl Limits {
    /// Returns the largest window of blocks of `blksize` bytes.
    fn windowsize_of(&self, blksize: u16) -> u16 {
        let blocks = self.window_bytes.checked_div(u32::from(blksize)).unwrap_or(1).max(1);
        at_most(u64::from(blocks), self.windowsize.min(MAX_WINDOWSIZE))
    }
}

/// The options of a read request. By default none, as in RFC 1350.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct RequestedOptions {
    /// The largest block, in bytes, 8 to [`MAX_BLKSIZE`].
    pub blksize: Option<u16>,
    /// The largest window, in blocks, from 1.
    pub windowsize: Option<u16>,
    /// The upper bound of the retransmission timeout, in seconds, from 1.
    pub timeout: Option<u8>,
    /// Whether to request the size of the file.
    pub tsize: bool,
}

impl RequestedOptions {
    /// Returns the options for a read request.
    pub(crate) fn to_wire(self) -> Vec<u8, MAX_OPTIONS> {
        let mut options = Vec::new();
        let requested: [(&[u8], Option<u64>); 4] = [
            (b"tsize", self.tsize.then_some(0)),
            (b"blksize", self.blksize.map(u64::from)),
            (b"windowsize", self.windowsize.map(u64::from)),
            (b"timeout", self.timeout.map(u64::from)),
        ];
        for (name, value) in requested {
            // Cannot fail: there is room for each option once.
            let _ = value.and_then(|value| push(&mut options, name, value));
        }
        options
    }

    /// Checks the options of an OACK. Returns the settings of the transfer, and the size of the file if the OACK has it.
    ///
    /// Returns `None` if a server may not answer so: with an option that was not requested, an option twice, a larger block
    /// or window, or another `timeout` (RFC 2347, 2348, 2349, 7440).
    #[must_use]
    pub fn accept_oack(&self, granted: Options<'_>) -> Option<(Settings, Option<u64>)> {
        let mut settings = Settings::default();
        let mut size = None;
        // The options that the OACK has not answered yet.
        let mut open = *self;
        for (name, value) in granted {
            let value = number(value)?;
            let is = |known: &[u8]| name.eq_ignore_ascii_case(known);
            if is(b"blksize") {
                settings.blksize = within(MIN_BLKSIZE, value, open.blksize.take()?)?;
            } else if is(b"windowsize") {
                settings.windowsize = within(1, value, open.windowsize.take()?)?;
            } else if is(b"timeout") && open.timeout.take().is_some_and(|requested| u64::from(requested) == value) {
                settings.timeout = Some(Duration::from_secs(value));
            } else if is(b"tsize") && mem::take(&mut open.tsize) {
                size = Some(value);
            } else {
                return None;
            }
        }
        Some((settings, size))
    }
}

/// Returns the granted value if it is from `least` to the requested one.
fn within(least: u16, granted: u64, requested: u16) -> Option<u16> {
    u16::try_from(granted).ok().filter(|granted| (least..=requested).contains(granted))
}

/// Returns the smaller of the requested value and the limit.
fn at_most(requested: u64, limit: u16) -> u16 {
    u16::try_from(requested).map_or(limit, |requested| requested.min(limit))
}

/// Parses a value: decimal digits that fit 64 bits.
fn number(value: &[u8]) -> Option<u64> {
    let digits = core::str::from_utf8(value).ok()?;
    if digits.bytes().all(|byte| byte.is_ascii_digit()) { digits.parse().ok() } else { None }
}
