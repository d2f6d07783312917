//! Options: what a client asks, what this server grants (RFC 2347, 2348, 2349, 7440).

use core::{fmt::Write, time::Duration};

use heapless::{String, Vec};

use crate::packet::Options;

/// The largest block that RFC 2348 allows, in bytes.
pub const MAX_BLKSIZE: u16 = 65_464;

/// The block size of a transfer without options, in bytes (RFC 1350).
pub const DEFAULT_BLKSIZE: u16 = 512;

/// What the server grants at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Limits {
    /// The largest block, in bytes, 8 to [`MAX_BLKSIZE`].
    pub blksize: u16,
    /// The largest window, in blocks, from 1.
    pub windowsize: u16,
}

impl Default for Limits {
    /// All that the RFCs allow: a window costs no memory here, whatever its size.
    fn default() -> Self {
        Self { blksize: MAX_BLKSIZE, windowsize: u16::MAX }
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
}

impl Default for Settings {
    /// RFC 1350, without any option.
    fn default() -> Self {
        Self { blksize: DEFAULT_BLKSIZE, windowsize: 1, timeout: None }
    }
}

/// The longest list of granted options, in bytes: each of the four once, with the longest value it can have.
const MAX_GRANTED: usize = "blksize.65464.tsize.18446744073709551615.timeout.255.windowsize.65535.".len();

/// The options granted, in the client's order and spelling, as they stand in an OACK. Empty: there is no OACK to send.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Granted(Vec<u8, MAX_GRANTED>);

impl Granted {
    /// The options as an OACK carries them.
    pub fn options(&self) -> Options<'_> {
        Options::new(&self.0)
    }

    /// Whether nothing was granted, so that the first answer is DATA 1 (RFC 2347).
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Notes one more granted option.
    fn push(&mut self, name: &[u8], value: u64) -> Option<()> {
        let mut digits = String::<20>::new();
        write!(digits, "{value}").ok()?;
        [name, b"\0", digits.as_bytes(), b"\0"].iter().try_for_each(|part| self.0.extend_from_slice(part)).ok()
    }
}

/// Answers the options of a read request for a file of `size` bytes.
///
/// Names count in any case. An option that is unknown, asked a second time or has a value that its RFC does not allow is left
/// out of the answer, as if it had not been asked (RFC 2347); a block or window larger than `limits` is granted smaller.
pub fn negotiate(asked: Options<'_>, limits: &Limits, size: u64) -> (Settings, Granted) {
    let mut settings = Settings::default();
    let mut granted = Granted::default();
    for (name, value) in asked {
        let already = granted.options().any(|(other, _)| other.eq_ignore_ascii_case(name));
        let Some(asked) = number(value).filter(|_| !already) else { continue };
        let is = |known: &[u8]| name.eq_ignore_ascii_case(known);
        let grant = if is(b"blksize") && asked >= 8 {
            settings.blksize = at_most(asked, limits.blksize);
            u64::from(settings.blksize)
        } else if is(b"windowsize") && asked >= 1 {
            settings.windowsize = at_most(asked, limits.windowsize);
            u64::from(settings.windowsize)
        } else if is(b"timeout") && (1..=255).contains(&asked) {
            // The answer must be the same value (RFC 2349); it bounds the retransmission time, which stays adaptive.
            settings.timeout = Some(Duration::from_secs(asked));
            asked
        } else if is(b"tsize") {
            size
        } else {
            continue;
        };
        // Cannot fail: each option is granted once, and there is room for all of them.
        let _ = granted.push(name, grant);
    }
    (settings, granted)
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
    use super::*;

    const SIZE: u64 = 123_456;

    #[track_caller]
    fn grants(asked: &[u8], granted: &[u8]) -> Settings {
        let (settings, answer) = negotiate(Options::new(asked), &Limits::default(), SIZE);
        assert_eq!(answer.0.escape_ascii().to_string(), granted.escape_ascii().to_string());
        settings
    }

    use std::string::ToString;

    #[test]
    fn each_option_is_granted_in_order_and_spelling() {
        let settings = grants(
            b"tsize\x000\0BlkSize\x001468\0windowsize\x004\0TIMEOUT\x005\0",
            b"tsize\x00123456\0BlkSize\x001468\0windowsize\x004\0TIMEOUT\x005\0",
        );
        assert_eq!(settings, Settings { blksize: 1468, windowsize: 4, timeout: Some(Duration::from_secs(5)) });
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
        assert_eq!(grants(b"windowsize\x00100000\0", b"windowsize\x0065535\0").windowsize, 65_535);
        let limits = Limits { blksize: 1468, windowsize: 16 };
        let asked = Options::new(b"blksize\x008192\0windowsize\x0064\0");
        let (settings, granted) = negotiate(asked, &limits, SIZE);
        assert_eq!(settings, Settings { blksize: 1468, windowsize: 16, timeout: None });
        assert_eq!(&granted.0[..], b"blksize\x001468\0windowsize\x0016\0");
    }

    #[test]
    fn the_longest_answer_fits() {
        let asked = Options::new(b"blksize\x0065464\0tsize\x000\0timeout\x00255\0windowsize\x0065535\0");
        let (_, granted) = negotiate(asked, &Limits::default(), u64::MAX);
        assert_eq!(granted.0.len(), MAX_GRANTED);
        assert_eq!(granted.options().count(), 4);
    }
}
