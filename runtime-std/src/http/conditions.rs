//! Conditional requests: the version of the file that a request depends on (RFC 9110 section 13).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The conditions of a request: the values of its header fields.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Conditions<'a> {
    /// The values of `If-Match`.
    pub if_match: Vec<&'a [u8]>,
    /// The values of `If-None-Match`.
    pub if_none_match: Vec<&'a [u8]>,
    /// The value of `If-Modified-Since`.
    pub if_modified_since: Option<&'a [u8]>,
    /// The value of `If-Unmodified-Since`.
    pub if_unmodified_since: Option<&'a [u8]>,
    /// The value of `If-Range`.
    pub if_range: Option<&'a [u8]>,
}

/// The version of a file, as far as it is known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Version {
    /// The entity tag, with its quotes. It is a strong one.
    pub tag: Option<String>,
    /// The modification time in whole seconds, not in the future.
    pub modified: Option<SystemTime>,
}

/// The result of the conditions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The request is answered as if it had none.
    Proceed,
    /// The client has the present version.
    NotModified,
    /// The file is not the version that the client depends on.
    Failed,
}

impl Version {
    /// Rounds the modification time down to a second, as a header field shows it; one in the future becomes `now` (section 8.8.2.1).
    /// One before 1970, or after 9999, cannot be shown.
    #[must_use]
    pub fn new(tag: Option<String>, modified: Option<SystemTime>, now: SystemTime) -> Self {
        let since_epoch = modified.and_then(|time| time.min(now).duration_since(UNIX_EPOCH).ok());
        Self { tag, modified: since_epoch.map(|time| UNIX_EPOCH + Duration::from_secs(time.as_secs())) }
    }

    /// Returns whether a list contains this version's tag. A weak tag counts only if `weak`.
    fn is_in(&self, lists: &[&[u8]], weak: bool) -> bool {
        let mut tags = lists.iter().flat_map(|list| list.split(|byte| *byte == b',')).map(<[u8]>::trim_ascii);
        tags.any(|tag| tag == b"*" || self.has_tag(tag.strip_prefix(b"W/").filter(|_| weak).unwrap_or(tag)))
    }

    fn has_tag(&self, tag: &[u8]) -> bool {
        self.tag.as_ref().is_some_and(|own| own.as_bytes() == tag)
    }

    /// Returns whether the file was modified after a date. `None` if either is not known.
    fn is_newer_than(&self, date: &[u8]) -> Option<bool> {
        Some(self.modified? > parse_date(date)?)
    }
}

impl Conditions<'_> {
    /// Evaluates the conditions for this version, in the order of section 13.2.2.
    #[must_use]
    pub fn evaluate(&self, version: &Version) -> Outcome {
        let failed = if self.if_match.is_empty() {
            self.if_unmodified_since.and_then(|date| version.is_newer_than(date)) == Some(true)
        } else {
            !version.is_in(&self.if_match, false)
        };
        let is_known = if self.if_none_match.is_empty() {
            self.if_modified_since.and_then(|date| version.is_newer_than(date)) == Some(false)
        } else {
            version.is_in(&self.if_none_match, true)
        };
        match (failed, is_known) {
            (true, _) => Outcome::Failed,
            (false, true) => Outcome::NotModified,
            (false, false) => Outcome::Proceed,
        }
    }

    /// Returns whether a requested range applies to this version. The rest of another one would not fit to what the client has.
    ///
    /// A date must be the exact one, and older than the last second: the file may have changed again within it (section 13.1.5).
    #[must_use]
    pub fn allows_range(&self, version: &Version, now: SystemTime) -> bool {
        let Some(validator) = self.if_range else { return true };
        let has_date = || {
            let modified = version.modified.filter(|time| *time + Duration::from_secs(1) < now);
            modified.is_some() && modified == parse_date(validator)
        };
        version.has_tag(validator) || has_date()
    }
}

/// Parses a date of any format of section 5.6.7.
fn parse_date(text: &[u8]) -> Option<SystemTime> {
    httpdate::parse_http_date(str::from_utf8(text).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODIFIED: u64 = 784_111_777;
    const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const EARLIER: &str = "Sunday, 06-Nov-94 08:49:36 GMT";
    const LATER: &str = "Sun Nov  6 08:49:38 1994";

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn version() -> Version {
        Version::new(Some("\"a\"".into()), Some(at(MODIFIED) + Duration::from_millis(900)), at(MODIFIED + 100))
    }

    fn evaluate(fields: &[(&str, &'static str)], version: &Version) -> Outcome {
        let mut conditions = Conditions::default();
        for (name, value) in fields {
            let value = value.as_bytes();
            match *name {
                "If-Match" => conditions.if_match.push(value),
                "If-None-Match" => conditions.if_none_match.push(value),
                "If-Modified-Since" => conditions.if_modified_since = Some(value),
                "If-Unmodified-Since" => conditions.if_unmodified_since = Some(value),
                name => panic!("{name}"),
            }
        }
        conditions.evaluate(version)
    }

    #[test]
    fn evaluates_conditions_in_their_order() {
        use Outcome::{Failed, NotModified, Proceed};
        for (fields, expected) in [
            (&[][..], Proceed),
            (&[("If-None-Match", "\"a\"")], NotModified),
            (&[("If-None-Match", "\"b\", W/\"a\"")], NotModified),
            (&[("If-None-Match", "\"b\""), ("If-None-Match", "\"a\"")], NotModified),
            (&[("If-None-Match", "*")], NotModified),
            (&[("If-None-Match", "a")], Proceed),
            (&[("If-None-Match", "\"b\""), ("If-Modified-Since", LATER)], Proceed),
            (&[("If-Modified-Since", EARLIER)], Proceed),
            (&[("If-Modified-Since", DATE)], NotModified),
            (&[("If-Modified-Since", LATER)], NotModified),
            (&[("If-Modified-Since", "yesterday")], Proceed),
            (&[("If-Match", "\"a\"")], Proceed),
            (&[("If-Match", "*")], Proceed),
            (&[("If-Match", "W/\"a\"")], Failed),
            (&[("If-Match", "\"b\"")], Failed),
            (&[("If-Match", "\"b\""), ("If-None-Match", "\"a\"")], Failed),
            (&[("If-Match", "\"a\""), ("If-Unmodified-Since", EARLIER)], Proceed),
            (&[("If-Unmodified-Since", EARLIER)], Failed),
            (&[("If-Unmodified-Since", DATE)], Proceed),
            (&[("If-Unmodified-Since", "")], Proceed),
        ] {
            assert_eq!(evaluate(fields, &version()), expected, "{fields:?}");
        }
    }

    #[test]
    fn an_unknown_version_matches_nothing_but_a_star() {
        let unknown = Version::default();
        for (field, value, expected) in [
            ("If-None-Match", "\"a\"", Outcome::Proceed),
            ("If-None-Match", "*", Outcome::NotModified),
            ("If-Match", "\"a\"", Outcome::Failed),
            ("If-Match", "*", Outcome::Proceed),
            ("If-Modified-Since", LATER, Outcome::Proceed),
            ("If-Unmodified-Since", EARLIER, Outcome::Proceed),
        ] {
            assert_eq!(evaluate(&[(field, value)], &unknown), expected, "{field}: {value}");
        }
    }

    #[test]
    fn ranges_apply_to_the_same_version_only() {
        for (validator, now, expected) in [
            (None, MODIFIED, true),
            (Some("\"a\""), MODIFIED, true),
            (Some("W/\"a\""), MODIFIED, false),
            (Some("\"b\""), MODIFIED, false),
            (Some(DATE), MODIFIED + 2, true),
            (Some(DATE), MODIFIED + 1, false),
            (Some(EARLIER), MODIFIED + 2, false),
            (Some(LATER), MODIFIED + 2, false),
            (Some("a"), MODIFIED + 2, false),
        ] {
            let conditions = Conditions { if_range: validator.map(str::as_bytes), ..Conditions::default() };
            assert_eq!(conditions.allows_range(&version(), at(now)), expected, "{validator:?} {now}");
        }
    }

    #[test]
    fn shows_no_time_that_a_header_field_cannot() {
        let modified = |time| Version::new(None, time, at(MODIFIED)).modified;
        assert_eq!(modified(Some(at(MODIFIED - 1) + Duration::from_millis(900))), Some(at(MODIFIED - 1)));
        assert_eq!(modified(Some(at(1 << 40))), Some(at(MODIFIED)), "the future");
        assert_eq!(modified(Some(UNIX_EPOCH - Duration::from_secs(1))), None);
        assert_eq!(modified(None), None);
    }
}
