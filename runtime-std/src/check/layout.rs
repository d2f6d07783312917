//! The names in a root directory: those that the server looks for, and those that only look like it.

use std::{fs, io, path::Path};

use super::Mistake;
use crate::{client_name::ClientName, disk, disk::parse_file_name, text::printable};

/// What a root directory has.
#[derive(Debug, Default)]
pub(super) struct Layout {
    /// The clients with an `.nbd` file, sorted.
    pub(super) clients: Vec<ClientName>,
    /// The directories that files are served from, sorted.
    pub(super) directories: Vec<String>,
    /// What is wrong with the names.
    pub(super) mistakes: Vec<Mistake>,
}

/// Reads the names in a root directory. Blocks.
///
/// # Errors
///
/// It cannot be read.
pub(super) fn read(root: &Path) -> io::Result<Layout> {
    let mut names = fs::read_dir(root)?.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>()?;
    names.sort();
    let mut layout = Layout::default();
    for name in names {
        let is_directory = fs::metadata(root.join(&name)).map(|file| file.is_dir());
        layout.add(&printable(name.as_encoded_bytes()), is_directory);
    }
    if fs::symlink_metadata(root.join("default")).is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
        layout.wrong("default/", "is not there: files for everybody are looked for in it".into());
    }
    layout.clients.sort_unstable();
    Ok(layout)
}

impl Layout {
    /// Adds a name; whether it is a directory's, links followed, may be an error.
    fn add(&mut self, name: &str, is_directory: io::Result<bool>) {
        if let Ok(client) = parse_file_name(name) {
            // What is wrong with the file shows itself when it is read.
            return self.clients.push(client);
        }
        // Editors and version control leave such names behind, and file systems the other.
        if name.starts_with('.') || name.ends_with('~') || name == "lost+found" {
            return;
        }
        match is_directory {
            Err(error) => self.wrong(name, format!("cannot be read: {error}")),
            Ok(true) => match meant_directory(name) {
                Ok(()) => self.directories.push(name.to_owned()),
                Err(mistake) => self.wrong(&format!("{name}/"), mistake),
            },
            Ok(false) => {
                if let Some(mistake) = mistaken_file(name) {
                    self.wrong(name, mistake);
                }
            }
        }
    }

    fn wrong(&mut self, name: &str, what: String) {
        self.mistakes.push(Mistake { name: name.into(), what });
    }
}

/// Whether files are served from a directory of this name; the error says what it should be called.
fn meant_directory(name: &str) -> Result<(), String> {
    // A client's directory is called like its file without `.nbd`.
    match parse_file_name(&format!("{name}.nbd")) {
        Ok(_) => return Ok(()),
        Err(_) if name == "default" => return Ok(()),
        Err(_) => {}
    }
    if name.to_ascii_lowercase().ends_with(".nbd") {
        return Err("is a directory: expected a file that describes a disk".into());
    }
    Err(match meant(name) {
        Some(client) => format!("is not looked at, the name must be written {client}"),
        None => "is no client's: expected the name of a client, such as 10.0.0.5, or default".into(),
    })
}

/// What is wrong with the name of a file that is no client's `.nbd` file; `None` if it is there for another reason.
fn mistaken_file(name: &str) -> Option<String> {
    let lower = name.to_ascii_lowercase();
    if name == "default" || parse_file_name(&format!("{name}.nbd")).is_ok() {
        return Some("is a file: expected a directory".into());
    }
    // Windows editors like to add the first, others the second.
    let stem = lower.trim_end_matches(".txt").trim_end_matches(".json").strip_suffix(".nbd")?;
    Some(match meant(stem) {
        Some(client) => format!("is not looked at, the name must be written {}", disk::file_name(client)),
        None => "is not looked at: expected the name of a client before .nbd, as in 10.0.0.5.nbd".into(),
    })
}

/// The client's name that is probably meant by one that is none, or is one in another spelling.
fn meant(name: &str) -> Option<ClientName> {
    let decimal = |part: &str| {
        let digits = part.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| part.parse::<u8>().ok()).flatten().map(|number| number.to_string())
    };
    let parts: Option<Vec<String>> = name.trim().split('.').map(decimal).collect();
    let plain = parts.map(|parts| parts.join("."));
    ClientName::parse(plain.as_deref().unwrap_or(name.trim())).map_or_else(|meant| meant, Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is said of a name.
    fn said(name: &str, is_directory: bool) -> Vec<String> {
        let mut layout = Layout::default();
        layout.add(name, Ok(is_directory));
        layout.mistakes.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn names_that_are_looked_for_are_right() {
        let mut layout = Layout::default();
        for (name, is_directory) in
            [("10.0.0.5.nbd", false), ("fe80::1.nbd", false), ("10.0.0.5", true), ("::1", true), ("default", true)]
        {
            layout.add(name, Ok(is_directory));
        }
        assert_eq!(layout.mistakes, []);
        assert_eq!(layout.clients.len(), 2);
        assert_eq!(layout.directories, ["10.0.0.5", "::1", "default"]);
    }

    #[test]
    fn names_that_only_look_right_are_mistakes() {
        let written = "is not looked at, the name must be written";
        for (name, right) in [
            ("010.0.0.5.nbd", "10.0.0.5.nbd"),
            ("10.0.0.05.nbd", "10.0.0.5.nbd"),
            ("10.0.0.5.NBD", "10.0.0.5.nbd"),
            ("10.0.0.5.nbd.txt", "10.0.0.5.nbd"),
            ("10.0.0.5 .nbd", "10.0.0.5.nbd"),
            ("FE80::1.nbd", "fe80::1.nbd"),
            ("::ffff:10.0.0.5.nbd", "10.0.0.5.nbd"),
            ("DC:A6:32:01:36:C2.nbd", "dc-a6-32-01-36-c2.nbd"),
        ] {
            assert_eq!(said(name, false), [format!("{name}: {written} {right}")]);
        }
        for name in ["board.nbd", "10.0.0.nbd", "10.0.0.256.nbd"] {
            assert_eq!(
                said(name, false),
                [format!("{name}: is not looked at: expected the name of a client before .nbd, as in 10.0.0.5.nbd")]
            );
        }
        assert_eq!(said("010.0.0.5", true), [format!("010.0.0.5/: {written} 10.0.0.5")]);
        assert_eq!(said("FE80::1", true), [format!("FE80::1/: {written} fe80::1")]);
        assert_eq!(
            said("boards", true),
            ["boards/: is no client's: expected the name of a client, such as 10.0.0.5, or default"]
        );
        assert_eq!(said("x.nbd", true), ["x.nbd/: is a directory: expected a file that describes a disk"]);
        assert_eq!(said("default", false), ["default: is a file: expected a directory"]);
        assert_eq!(said("10.0.0.5", false), ["10.0.0.5: is a file: expected a directory"]);
    }

    #[test]
    fn what_is_there_for_another_reason_is_left_alone() {
        for (name, is_directory) in [
            ("README", false),
            ("notes.txt", false),
            (".git", true),
            (".10.0.0.5.nbd.swp", false),
            ("10.0.0.5.nbd~", false),
            ("lost+found", true),
        ] {
            assert_eq!(said(name, is_directory), [] as [String; 0], "{name}");
        }
    }
}
