//! What went wrong in a call of libguestfs.

use nix::errno::Errno;

/// The error of a call: the guestfs crate keeps both fields to itself, but shows them in its debug text.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Failure {
    /// What libguestfs says, the name of the call in front.
    pub(super) message: String,
    /// The error number of the system call in the appliance, 0 if there was none.
    errno: i32,
}

impl Failure {
    /// Whether the path that was asked for cannot exist.
    pub(super) fn is_not_found(&self) -> bool {
        matches!(Errno::from_raw(self.errno), Errno::ENOENT | Errno::ENOTDIR | Errno::ENAMETOOLONG)
    }

    /// Reads `API(APIError { operation: "pread", message: "pread: /x: No such file", errno: 2 })`; other text is the message.
    fn read(debug: &str) -> Self {
        let fields =
            debug.strip_suffix(" })").and_then(|text| text.split_once(", message: \"")).and_then(|(_, text)| {
                let (message, errno) = text.rsplit_once("\", errno: ")?;
                // What "see above" means is in our log, as this message will be; nor is general advice of use there.
                let message = message.split(", see ").next().unwrap_or(message);
                let message = message.split("\\nThis usually means").next().unwrap_or(message);
                Some(Self { message: unescape(message), errno: errno.parse().ok()? })
            });
        fields.unwrap_or_else(|| Self { message: debug.into(), errno: 0 })
    }
}

impl From<guestfs::Error> for Failure {
    fn from(error: guestfs::Error) -> Self {
        Self::read(&format!("{error:?}"))
    }
}

/// Undoes what `{:?}` does to a string, as far as a message for people needs it: `\u{..}` stays, it is not printable anyway.
fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        if char != '\\' {
            out.push(char);
            continue;
        }
        match chars.next() {
            Some('n' | 'r' | 't') => out.push(' '),
            Some(quoted @ ('"' | '\'' | '\\')) => out.push(quoted),
            Some(other) => out.extend(['\\', other]),
            None => out.push('\\'),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the crate's own type looks like; its fields are private.
    #[derive(Debug)]
    #[expect(dead_code, reason = "for its debug text")]
    enum Error {
        Api(ApiError),
        Create,
    }

    #[derive(Debug)]
    #[expect(dead_code, reason = "for its debug text")]
    struct ApiError {
        operation: &'static str,
        message: String,
        errno: i32,
    }

    #[track_caller]
    fn reads(message: &str, errno: i32, expected: &str) {
        let error = Error::Api(ApiError { operation: "mount_ro", message: message.into(), errno });
        assert_eq!(Failure::read(&format!("{error:?}")), Failure { message: expected.into(), errno });
    }

    #[test]
    fn message_and_errno_are_read() {
        reads("mount_ro: /dev/sda9: No such file or directory", 2, "mount_ro: /dev/sda9: No such file or directory");
        reads("", 0, "");
        reads("guestfs_launch failed, see earlier error messages", 0, "guestfs_launch failed");
        reads("connection closed.\nThis usually means a crash.\nDo:", 0, "connection closed.");
        reads("a \"b\" 'c' \\d", -1, "a \"b\" 'c' \\d");
        reads("two\nlines\there", 5, "two lines here");
        reads("a\", errno: 7 })", 5, "a\", errno: 7 })");
        reads("größe \u{1b}[0m", 0, "größe \\u{1b}[0m");
    }

    #[test]
    fn an_error_of_another_kind_is_shown_as_it_is() {
        for text in [format!("{:?}", Error::Create), "Utf8Error(Utf8Error { valid_up_to: 0 })".into(), " })".into()] {
            assert_eq!(Failure::read(&text), Failure { message: text, errno: 0 });
        }
    }

    #[test]
    fn only_missing_names_are_not_found() {
        for (errno, not_found) in [(2, true), (20, true), (36, true), (0, false), (5, false), (117, false), (-7, false)]
        {
            assert_eq!(Failure { message: String::new(), errno }.is_not_found(), not_found, "{errno}");
        }
    }
}
