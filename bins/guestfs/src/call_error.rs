//! The error of a call of libguestfs.

use nix::errno::Errno;

/// The error of a call. The fields of the guestfs crate's own type are private, but are part of its debug text.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct CallError {
    /// The message, which begins with the name of the call.
    pub(crate) message: String,
    /// The error number of the system call in the appliance; 0 if there was none.
    errno: i32,
}

impl CallError {
    /// Returns whether the requested path cannot exist.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(Errno::from_raw(self.errno), Errno::ENOENT | Errno::ENOTDIR | Errno::ENAMETOOLONG)
    }

    /// Parses `API(APIError { operation: "pread", message: "pread: /x: No such file", errno: 2 })`. Any other text becomes the
    /// message.
    fn parse(debug: &str) -> Self {
        let fields =
            debug.strip_suffix(" })").and_then(|text| text.split_once(", message: \"")).and_then(|(_, text)| {
                let (message, errno) = text.rsplit_once("\", errno: ")?;
                // Removes references to other messages, which are in the same log, and general advice.
                let message = message.split(", see ").next().unwrap_or(message);
                let message = message.split("\\nThis usually means").next().unwrap_or(message);
                Some(Self { message: unescape(message), errno: errno.parse().ok()? })
            });
        fields.unwrap_or_else(|| Self { message: debug.into(), errno: 0 })
    }
}

impl From<guestfs::Error> for CallError {
    fn from(error: guestfs::Error) -> Self {
        Self::parse(&format!("{error:?}"))
    }
}

/// Reverts the escapes of `{:?}` in a string, except `\u{..}`, which stands for a character that is not printable.
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

    /// Looks like the type of the guestfs crate.
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
    fn parses(message: &str, errno: i32, expected: &str) {
        let error = Error::Api(ApiError { operation: "mount_ro", message: message.into(), errno });
        assert_eq!(CallError::parse(&format!("{error:?}")), CallError { message: expected.into(), errno });
    }

    #[test]
    fn parses_message_and_errno() {
        parses("mount_ro: /dev/sda9: No such file or directory", 2, "mount_ro: /dev/sda9: No such file or directory");
        parses("", 0, "");
        parses("guestfs_launch failed, see earlier error messages", 0, "guestfs_launch failed");
        parses("connection closed.\nThis usually means a crash.\nDo:", 0, "connection closed.");
        parses("a \"b\" 'c' \\d", -1, "a \"b\" 'c' \\d");
        parses("two\nlines\there", 5, "two lines here");
        parses("a\", errno: 7 })", 5, "a\", errno: 7 })");
        parses("größe \u{1b}[0m", 0, "größe \\u{1b}[0m");
    }

    #[test]
    fn keeps_the_text_of_other_errors() {
        for text in [format!("{:?}", Error::Create), "Utf8Error(Utf8Error { valid_up_to: 0 })".into(), " })".into()] {
            assert_eq!(CallError::parse(&text), CallError { message: text, errno: 0 });
        }
    }

    #[test]
    fn not_found_means_a_missing_name() {
        for (errno, not_found) in [(2, true), (20, true), (36, true), (0, false), (5, false), (117, false), (-7, false)]
        {
            assert_eq!(CallError { message: String::new(), errno }.is_not_found(), not_found, "{errno}");
        }
    }
}
