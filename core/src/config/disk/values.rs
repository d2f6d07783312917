//! Parses the strings in a description.

use heapless::String;

use super::{
    error::Problem,
    expand::{has_placeholder, replace_in_append, replace_in_url},
    model::{
        Backend, BootDefault, DiskPath, MAX_APPEND, MAX_DISK_PATH, MAX_LABEL, MAX_URL, MAX_WORD, Mount, TlsPath, Word,
    },
    placeholder::{Board, Placeholders},
};
use crate::config::uri::{MAX_TLS_PATH, NbdUri};

/// Parses an absolute path.
pub(super) fn parse_path(text: &str) -> Result<DiskPath, Problem> {
    if !text.starts_with('/') {
        return Err(Problem::Expected("an absolute path"));
    }
    parse_names(text)
}

/// Parses the path of a subvolume: `@`, or `/@` as in fstab.
pub(super) fn parse_subvolume(text: &str) -> Result<DiskPath, Problem> {
    if text.is_empty() {
        return Err(Problem::Expected("the path of a subvolume such as \"@\""));
    }
    parse_names(text)
}

/// Parses the names of a path, from the top.
fn parse_names(text: &str) -> Result<DiskPath, Problem> {
    if text.contains(char::is_control) {
        return Err(Problem::Expected("a path without control characters"));
    }
    let mut path = DiskPath::new();
    for name in text.split('/').filter(|name| !name.is_empty()) {
        if matches!(name, "." | "..") {
            return Err(Problem::Expected("a path without . and .."));
        }
        path.push('/').and_then(|()| path.push_str(name)).map_err(|_| Problem::TooLong(MAX_DISK_PATH))?;
    }
    if path.is_empty() {
        path.push('/').map_err(|_| Problem::TooLong(MAX_DISK_PATH))?;
    }
    Ok(path)
}

/// Parses a mountpoint that follows the `earlier` mounts.
pub(super) fn parse_mountpoint(text: &str, earlier: &[Mount]) -> Result<DiskPath, Problem> {
    let path = parse_path(text)?;
    if let Some(index) = earlier.iter().position(|mount| mount.mountpoint == path) {
        return Err(Problem::MountedTwice(index));
    }
    // The first mountpoint is `/`, so every later one lies below it.
    if earlier.is_empty() && path != "/" {
        return Err(Problem::ParentNotMounted);
    }
    Ok(path)
}

/// Returns whether a device is a subvolume of btrfs, in the notation of libguestfs.
pub(super) fn is_subvolume(device: &str) -> bool {
    device.starts_with("btrfsvol:")
}

pub(super) fn parse_device(text: &str) -> Result<String<MAX_DISK_PATH>, Problem> {
    if text.is_empty() {
        return Err(Problem::Expected("a device such as \"/dev/sda\""));
    }
    if text.contains(char::is_control) {
        return Err(Problem::Expected("a device without control characters"));
    }
    text.try_into().map_err(|_| Problem::TooLong(MAX_DISK_PATH))
}

pub(super) fn parse_backend(text: &str) -> Result<Backend, Problem> {
    match text {
        "native" => Ok(Backend::Native),
        "guestfs" => Ok(Backend::Guestfs),
        _ => Err(Problem::Expected("\"native\" or \"guestfs\"")),
    }
}

/// Parses the name of a board for people.
pub(super) fn parse_label(text: &str) -> Result<String<MAX_LABEL>, Problem> {
    if text.trim().is_empty() || text.contains(char::is_control) {
        return Err(Problem::Expected("a name without control characters"));
    }
    text.try_into().map_err(|_| Problem::TooLong(MAX_LABEL))
}

/// Parses the path of a file on the server.
pub(super) fn parse_tls_file(text: &str) -> Result<TlsPath, Problem> {
    if text.is_empty() || text.contains(char::is_control) {
        return Err(Problem::Expected("the path of a file in the PEM format"));
    }
    text.try_into().map_err(|_| Problem::TooLong(MAX_TLS_PATH))
}

/// Parses `sha256:` and 64 hexadecimal digits, with or without colons between the bytes.
pub(super) fn parse_fingerprint(text: &str) -> Result<[u8; 32], Problem> {
    let parse = || {
        let mut fingerprint = [0; 32];
        let mut digits = text.strip_prefix("sha256:")?.split(':').flat_map(str::chars).map(|digit| digit.to_digit(16));
        for byte in &mut fingerprint {
            *byte = u8::try_from((digits.next()?? << 4) | digits.next()??).ok()?;
        }
        digits.next().is_none().then_some(fingerprint)
    };
    parse().ok_or(Problem::Expected(
        "sha256: and 64 hexadecimal digits, as `openssl x509 -fingerprint -sha256` prints them",
    ))
}

/// Parses the URL; for a board, replaces the placeholders and adds them to `used`.
pub(super) fn parse_url(text: &str, board: Option<&Board<'_>>, used: &mut Placeholders) -> Result<NbdUri, Problem> {
    if text.len() > MAX_URL {
        return Err(Problem::TooLong(MAX_URL));
    }
    match board {
        Some(board) => NbdUri::parse(&replace_in_url(text, board, used)?).map_err(Problem::Url),
        None if has_placeholder(text) => Err(Problem::PlaceholderForOne),
        None => NbdUri::parse(text).map_err(Problem::Url),
    }
}

/// Parses a text for command lines; for a board, replaces the placeholders and adds them to `used`.
pub(super) fn parse_append(
    text: &str,
    board: Option<&Board<'_>>,
    used: &mut Placeholders,
) -> Result<String<MAX_APPEND>, Problem> {
    if !text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return Err(Problem::Expected("printable ASCII characters"));
    }
    if text.bytes().filter(|&byte| byte == b'"').count() % 2 != 0 {
        return Err(Problem::Expected("an even number of quotation marks"));
    }
    match board {
        Some(board) => replace_in_append(text, board, used),
        None if has_placeholder(text) => Err(Problem::PlaceholderForOne),
        None => text.try_into().map_err(|_| Problem::TooLong(MAX_APPEND)),
    }
}

/// Parses a word of a command line.
pub(super) fn parse_word(text: &str) -> Result<Word, Problem> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Problem::Expected("a word of a command line such as \"quiet\""));
    }
    text.try_into().map_err(|_| Problem::TooLong(MAX_WORD))
}

/// Parses the default entry of a boot menu.
pub(super) fn parse_default(text: &str) -> Result<BootDefault, Problem> {
    match text {
        "saved" => Ok(BootDefault::Saved),
        "newest" => Ok(BootDefault::Newest),
        _ if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) => {
            Err(Problem::Expected("\"saved\", \"newest\" or the identifier of an entry"))
        }
        _ => text.try_into().map(BootDefault::Id).map_err(|_| Problem::TooLong(MAX_WORD)),
    }
}
