//! Options: what a client asks, what a server grants (RFC 2347, 2348, 2349, 7440).
//!
//! Beside those of the RFCs, `utimeout` and `rollover` are understood as tftpd-hpa does.

use core::{fmt::Write, mem, time::Duration};

use heapless::{String, Vec};

use crate::wire::{block::Rollover, packet::Options};

/// The largest block that RFC 2348 allows, in bytes.
pub const MAX_BLKSIZE: u16 = 65_464;

/// The largest window that is granted, in blocks. RFC 7440 allows 65535, but in a window of more than half the numbers there are
/// an old ACK looks like one of a block to come.
pub const MAX_WINDOWSIZE: u16 = 32_767;

/// The block size of a transfer without options, in bytes (RFC 1350).
pub const DEFAULT_BLKSIZE: u16 = 512;

/// The smallest block that RFC 2348 allows, in bytes.
const MIN_BLKSIZE: u16 = 8;

/// What the server grants at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Limits {
    /// The largest block, in bytes, 8 to [`MAX_BLKSIZE`].
    pub blksize: u16,
    /// The largest window, in blocks, 1 to [`MAX_WINDOWSIZE`].
    pub windowsize: u16,
    /// The most bytes of a file in a window; a window of one block is always granted.
    pub window_bytes: u32,
}

impl Default for Limits {
    /// As large as can be, but no more in flight than a client's NIC and socket can be thought to hold: 4 MiB.
    fn default() -> Self {
        Self { blksize: MAX_BLKSIZE, windowsize: MAX_WINDOWSIZE, window_bytes: 4 << 20 }
    }
}

/// How a file is sent, once the options are agreed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Settings {
    /// The size of every block but the last, in bytes.
    pub blksize: u16,
    /// How many blocks are sent before an ACK is waited for.
    pub windowsize: u16,
    /// The longest time before a packet is sent again, if the client named one.
    pub timeout: Option<Duration>,
    /// The number that follows block 65535.
    pub rollover: Rollover,
}

impl Default for Settings {
    /// RFC 1350, without any option.
    fn default() -> Self {
        Self { blksize: DEFAULT_BLKSIZE, windowsize: 1, timeout: None, rollover: Rollover::ToZero }
    }
}

/// The longest list of options, in bytes: each of them once, with the longest value it can have.
const MAX_OPTIONS: usize =
    "blksize.65464.tsize.18446744073709551615.timeout.255.windowsize.32767.utimeout.255000000.rollover.1.".len();

/// The options granted, in the client's order and spelling, as they stand in an OACK. Empty: there is no OACK to send.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Granted(Vec<u8, MAX_OPTIONS>);

impl Granted {
    /// The options as an OACK carries them.
    pub fn options(&self) -> Options<'_> {
        Options::new(&self.0)
    }

    /// Whether nothing was granted, so that the first answer is DATA 1 (RFC 2347).
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Notes one more option.
fn push(options: &mut Vec<u8, MAX_OPTIONS>, name: &[u8], value: u64) -> Option<()> {
    let mut digits = String::<20>::new();
    write!(digits, "{value}").ok()?;
    [name, b"\0", digits.as_bytes(), b"\0"].iter().try_for_each(|part| options.extend_from_slice(part)).ok()
}

/// Answers the options of a read request for a file of `size` bytes; `None` if that is not known before it is sent.
///
/// Names count in any case. An option that is unknown, asked a second time or has a value that its RFC does not allow is left
/// out of the answer, as if it had not been asked (RFC 2347); a block or window larger than `limits` is granted smaller.
pub fn negotiate(asked: Options<'_>, limits: &Limits, size: Option<u64>) -> (Settings, Granted) {
    let mut settings = Settings::default();
    let mut granted = Granted::default();
    if let Some(blksize) = first(asked, b"blksize").filter(|&blksize| blksize >= u64::from(MIN_BLKSIZE)) {
        settings.blksize = at_most(blksize, limits.blksize);
    }
    for (name, value) in asked {
        let already = granted.options().any(|(other, _)| other.eq_ignore_ascii_case(name));
        let Some(asked) = number(value).filter(|_| !already) else { continue };
        let is = |known: &[u8]| name.eq_ignore_ascii_case(known);
        let grant = if is(b"blksize") && asked >= u64::from(MIN_BLKSIZE) {
            Some(u64::from(settings.blksize))
        } else if is(b"windowsize") && asked >= 1 {
            settings.windowsize = at_most(asked, limits.windowsize_of(settings.blksize));
            Some(u64::from(settings.windowsize))
        } else if is(b"timeout") && (1..=255).contains(&asked) {
            // The answer must be the same value (RFC 2349); it bounds the retransmission time, which stays adaptive.
            settings.timeout = Some(Duration::from_secs(asked));
            Some(asked)
        } else if is(b"utimeout") && (10_000..=255_000_000).contains(&asked) {
            settings.timeout = Some(Duration::from_micros(asked));
            Some(asked)
        } else if is(b"rollover") && asked <= 1 {
            settings.rollover = if asked == 1 { Rollover::ToOne } else { Rollover::ToZero };
            Some(asked)
        } else if is(b"tsize") {
            size
        } else {
            None
        };
        // There is room: each option is granted once.
        grant.and_then(|grant| push(&mut granted.0, name, grant));
    }
    (settings, granted)
}

/// The first value of an option that is a number at all.
fn first(mut asked: Options<'_>, name: &[u8]) -> Option<u64> {
    asked.find_map(|(other, value)| if other.eq_ignore_ascii_case(name) { number(value) } else { None })
}

impl Limits {
    /// The largest window of blocks of this size.
    fn windowsize_of(&self, blksize: u16) -> u16 {
        let blocks = self.window_bytes.checked_div(u32::from(blksize)).unwrap_or(1).max(1);
        at_most(u64::from(blocks), self.windowsize.min(MAX_WINDOWSIZE))
    }
}

/// What a read request asks for besides the file. By default nothing, as in RFC 1350.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct RequestedOptions {
    /// The largest block, in bytes, 8 to [`MAX_BLKSIZE`].
    pub blksize: Option<u16>,
    /// The largest window, in blocks, from 1.
    pub windowsize: Option<u16>,
    /// The longest time before a packet is sent again, in seconds, from 1.
    pub timeout: Option<u8>,
    /// Whether the server is to tell the size of the file.
    pub tsize: bool,
}

impl RequestedOptions {
    /// The options as a read request carries them.
    pub(crate) fn options(&self) -> Vec<u8, MAX_OPTIONS> {
        let mut options = Vec::new();
        let asked: [(&[u8], Option<u64>); 4] = [
            (b"tsize", self.tsize.then_some(0)),
            (b"blksize", self.blksize.map(u64::from)),
            (b"windowsize", self.windowsize.map(u64::from)),
            (b"timeout", self.timeout.map(u64::from)),
        ];
        for (name, value) in asked {
            // Cannot fail: there is room for each of them once.
            let _ = value.and_then(|value| push(&mut options, name, value));
        }
        options
    }

    /// Reads the options of an OACK: how the file comes, and its size if the server tells it.
    ///
    /// `None` when a server may not answer so: with an option that was not asked, one named twice, a block or window larger
    /// than asked or a different `timeout` (RFC 2347, 2348, 2349, 7440).
    pub fn accept_oack(&self, granted: Options<'_>) -> Option<(Settings, Option<u64>)> {
        let mut settings = Settings::default();
        let mut size = None;
        // What is still to be answered.
        let mut asked = *self;
        for (name, value) in granted {
            let value = number(value)?;
            let is = |known: &[u8]| name.eq_ignore_ascii_case(known);
            if is(b"blksize") {
                settings.blksize = within(MIN_BLKSIZE, value, asked.blksize.take()?)?;
            } else if is(b"windowsize") {
                settings.windowsize = within(1, value, asked.windowsize.take()?)?;
            } else if is(b"timeout") && asked.timeout.take().is_some_and(|asked| u64::from(asked) == value) {
                settings.timeout = Some(Duration::from_secs(value));
            } else if is(b"tsize") && mem::take(&mut asked.tsize) {
                size = Some(value);
            } else {
                return None;
            }
        }
        Some((settings, size))
    }
}

/// The value granted, if it is from `least` to what was asked.
fn within(least: u16, granted: u64, asked: u16) -> Option<u16> {
    u16::try_from(granted).ok().filter(|granted| (least..=asked).contains(granted))
}

/// The value asked for, or the limit if that is less.
fn at_most(asked: u64, limit: u16) -> u16 {
    u16::try_from(asked).map_or(limit, |asked| asked.min(limit))
}

/// A value: plain decimal digits that fit 64 bits.
fn number(value: &[u8]) -> Option<u64> {
    let digits = core::str::from_utf8(value).ok()?;
    if digits.bytes().all(|byte| byte.is_ascii_digit()) { digits.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use std::string::ToString;

    use super::*;

    const SIZE: u64 = 123_456;

    #[track_caller]
    fn grants(asked: &[u8], granted: &[u8]) -> Settings {
        let (settings, answer) = negotiate(Options::new(asked), &Limits::default(), Some(SIZE));
        assert_eq!(answer.0.escape_ascii().to_string(), granted.escape_ascii().to_string());
        settings
    }

    #[test]
    fn each_option_is_granted_in_order_and_spelling() {
        let settings = grants(
            b"tsize\x000\0BlkSize\x001468\0windowsize\x004\0TIMEOUT\x005\0",
            b"tsize\x00123456\0BlkSize\x001468\0windowsize\x004\0TIMEOUT\x005\0",
        );
        assert_eq!(
            settings,
            Settings {
                blksize: 1468,
                windowsize: 4,
                timeout: Some(Duration::from_secs(5)),
                rollover: Rollover::ToZero
            }
        );
    }

    #[test]
    fn what_is_unknown_or_wrong_is_left_out() {
        for asked in [
            &b"multicast\0\0"[..],
            b"blksize\0\0",
            b"blksize\x007\0",
            b"blksize\x00-512\0",
            b"blksize\x00+512\0",
            b"blksize\x00 512\0",
            b"blksize\x00512x\0",
            b"blksize\x0099999999999999999999\0",
            b"windowsize\x000\0",
            b"timeout\x000\0",
            b"timeout\x00256\0",
            b"tsize\0\xff\0",
            b"blksize\x00512",
        ] {
            assert_eq!(grants(asked, b""), Settings::default(), "{}", asked.escape_ascii());
        }
    }

    #[test]
    fn an_option_counts_once() {
        assert_eq!(grants(b"blksize\x00600\0BLKSIZE\x00700\0", b"blksize\x00600\0").blksize, 600);
    }

    #[test]
    fn nothing_larger_than_the_limits_is_granted() {
        assert_eq!(grants(b"blksize\x0065535\0", b"blksize\x0065464\0").blksize, 65_464);
        assert_eq!(grants(b"windowsize\x00100000\0", b"windowsize\x008192\0").windowsize, 8192, "4 MiB of 512 bytes");
        assert_eq!(
            grants(b"windowsize\x009\0blksize\x0065464\0", b"windowsize\x009\0blksize\x0065464\0").windowsize,
            9
        );
        assert_eq!(
            grants(b"windowsize\x0099\0blksize\x0065464\0", b"windowsize\x0064\0blksize\x0065464\0").windowsize,
            64
        );
        let limits = Limits { blksize: 1468, windowsize: 16, window_bytes: 1 << 20 };
        let asked = Options::new(b"blksize\x008192\0windowsize\x0064\0");
        let (settings, granted) = negotiate(asked, &limits, Some(SIZE));
        assert_eq!((settings.blksize, settings.windowsize), (1468, 16));
        assert_eq!(&granted.0[..], b"blksize\x001468\0windowsize\x0016\0");
    }

    #[test]
    fn the_options_of_tftpd_hpa_are_understood() {
        let settings = grants(b"utimeout\x00300000\0rollover\x001\0", b"utimeout\x00300000\0rollover\x001\0");
        assert_eq!((settings.timeout, settings.rollover), (Some(Duration::from_millis(300)), Rollover::ToOne));
        assert_eq!(grants(b"rollover\x000\0", b"rollover\x000\0").rollover, Rollover::ToZero);
        assert_eq!(grants(b"rollover\x002\0utimeout\x009999\0", b""), Settings::default());
    }

    #[test]
    fn a_size_that_is_not_known_is_left_out() {
        let (_, granted) = negotiate(Options::new(b"tsize\x000\0blksize\x00600\0"), &Limits::default(), None);
        assert_eq!(&granted.0[..], b"blksize\x00600\0");
    }

    #[test]
    fn the_longest_answer_fits() {
        let asked = Options::new(
            b"blksize\x0065464\0tsize\x000\0timeout\x00255\0windowsize\x0065535\0utimeout\x00255000000\0rollover\x001\0",
        );
        let limits = Limits { window_bytes: u32::MAX, ..Limits::default() };
        let (_, granted) = negotiate(asked, &limits, Some(u64::MAX));
        assert_eq!(granted.0.len(), MAX_OPTIONS);
        assert_eq!(granted.options().count(), 6);
    }

    const OPTIONS: RequestedOptions =
        RequestedOptions { blksize: Some(1468), windowsize: Some(16), timeout: Some(3), tsize: true };

    #[test]
    fn a_request_names_what_is_wanted() {
        assert_eq!(&OPTIONS.options()[..], b"tsize\x000\0blksize\x001468\0windowsize\x0016\0timeout\x003\0");
        assert_eq!(&RequestedOptions::default().options()[..], b"");
    }

    #[test]
    fn a_server_may_grant_less_than_asked() {
        let agreed = |granted| OPTIONS.accept_oack(Options::new(granted));
        assert_eq!(agreed(b""), Some((Settings::default(), None)));
        assert_eq!(
            agreed(b"BLKSIZE\x008\0windowsize\x001\0timeout\x003\0tsize\x0018446744073709551615\0"),
            Some((
                Settings { blksize: 8, timeout: Some(Duration::from_secs(3)), ..Settings::default() },
                Some(u64::MAX)
            ))
        );
        let (settings, _) = agreed(b"windowsize\x0016\0blksize\x001468\0").expect("what was asked");
        assert_eq!(settings, Settings { blksize: 1468, windowsize: 16, ..Settings::default() });
    }

    #[test]
    fn an_answer_that_was_not_asked_for_is_refused() {
        for granted in [
            &b"blksize\x001469\0"[..],
            b"blksize\x007\0",
            b"blksize\x0066004\0",
            b"blksize\x00\0",
            b"blksize\x00512\0blksize\x00512\0",
            b"windowsize\x0017\0",
            b"windowsize\x000\0",
            b"timeout\x002\0",
            b"timeout\x003\0timeout\x003\0",
            b"tsize\x001k\0",
            b"tsize\x001\0tsize\x001\0",
            b"multicast\0\0",
        ] {
            assert_eq!(OPTIONS.accept_oack(Options::new(granted)), None, "{}", granted.escape_ascii());
        }
        for granted in [&b"blksize\x008\0"[..], b"windowsize\x001\0", b"timeout\x003\0", b"tsize\x001\0"] {
            assert_eq!(
                RequestedOptions::default().accept_oack(Options::new(granted)),
                None,
                "{}",
                granted.escape_ascii()
            );
        }
    }
}
