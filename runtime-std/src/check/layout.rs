//! Checks the names in a root directory: which of them the server looks for, and which are misspelled.

use std::{fs, io, path::Path};

use super::{Problem, ProblemKind};
use crate::{client_name::ClientName, disk::NbdFile, prefix::Prefix, text::printable};

/// The names in a root directory.
#[derive(Debug, Default)]
pub(super) struct Layout {
    /// The `.nbd` files, sorted: those of clients first.
    pub(super) files: Vec<NbdFile>,
    /// The directories that files are served from, sorted.
    pub(super) directories: Vec<String>,
    /// The problems with names.
    pub(super) problems: Vec<Problem>,
}

/// Reads the names in a root directory. Blocks the thread.
///
/// # Errors
///
/// Fails if the directory cannot be read.
pub(super) fn read(root: &Path) -> io::Result<Layout> {
    let mut names = fs::read_dir(root)?.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>()?;
    names.sort();
    let mut layout = Layout::default();
    for name in names {
        let is_directory = fs::metadata(root.join(&name)).map(|file| file.is_dir());
        layout.add(&printable(name.as_encoded_bytes()), is_directory);
    }
    if fs::symlink_metadata(root.join("default")).is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
        layout.add_problem("default/", ProblemKind::NoDefault);
    }
    layout.files.sort_unstable();
    Ok(layout)
}

impl Layout {
    /// Adds a name. `is_directory` follows symbolic links, and is an error if the type cannot be determined.
    fn add(&mut self, name: &str, is_directory: io::Result<bool>) {
        if let Ok(file) = NbdFile::parse(name) {
            // Problems with the contents are found when the file is read.
            return self.files.push(file);
        }
        // Names of editors, version control and file systems.
        if name.starts_with('.') || name.ends_with('~') || name == "lost+found" {
            return;
        }
        match is_directory {
            Err(error) => self.add_problem(name, ProblemKind::Unreadable(error.to_string())),
            Ok(true) => match directory_problem(name) {
                None => self.directories.push(name.to_owned()),
                Some(problem) => self.add_problem(&format!("{name}/"), problem),
            },
            Ok(false) => {
                if let Some(problem) = file_problem(name) {
                    self.add_problem(name, problem);
                }
            }
        }
    }

    fn add_problem(&mut self, name: &str, kind: ProblemKind) {
        self.problems.push(Problem { name: name.into(), kind });
    }
}

/// Returns whether files are served from `default` or from the directory of a client with this name.
fn is_served_directory(name: &str) -> bool {
    name == "default" || ClientName::parse(name).is_ok()
}

/// Returns the problem with the name of a directory; `None` if files are served from it.
fn directory_problem(name: &str) -> Option<ProblemKind> {
    if is_served_directory(name) {
        return None;
    }
    if name.to_ascii_lowercase().ends_with(".nbd") {
        return Some(ProblemKind::DirectoryForDescription);
    }
    Some(match intended_client(name) {
        Some(client) => ProblemKind::Misspelled { expected: client.to_string() },
        None => ProblemKind::UnknownDirectory,
    })
}

/// Returns the problem with the name of a file that is not an `.nbd` file of a client; `None` for a file of another purpose.
fn file_problem(name: &str) -> Option<ProblemKind> {
    if is_served_directory(name) {
        return Some(ProblemKind::FileForDirectory);
    }
    // Some editors append `.txt` or `.json`.
    let lower = name.to_ascii_lowercase();
    let stem = lower.trim_end_matches(".txt").trim_end_matches(".json").strip_suffix(".nbd")?;
    let intended = match Prefix::parse(stem) {
        Ok(prefix) | Err(Some(prefix)) => Some(NbdFile::Group(prefix)),
        Err(None) if stem == "default" => Some(NbdFile::Default),
        Err(None) => intended_client(stem).map(NbdFile::Client),
    };
    Some(match intended {
        Some(file) => ProblemKind::Misspelled { expected: file.to_string() },
        None => ProblemKind::UnknownClientFile,
    })
}

/// Returns the client that a misspelled name probably stands for.
fn intended_client(name: &str) -> Option<ClientName> {
    let decimal = |part: &str| {
        let digits = part.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| part.parse::<u8>().ok()).flatten().map(|number| number.to_string())
    };
    let parts: Option<Vec<String>> = name.trim().split('.').map(decimal).collect();
    let plain = parts.map(|parts| parts.join("."));
    ClientName::parse(plain.as_deref().unwrap_or(name.trim())).map_or_else(|intended| intended, Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the problems with a name.
    fn problems(name: &str, is_directory: bool) -> Vec<String> {
        let mut layout = Layout::default();
        layout.add(name, Ok(is_directory));
        layout.problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn accepts_names_that_the_server_looks_for() {
        let mut layout = Layout::default();
        for (name, is_directory) in [
            ("10.0.0.5.nbd", false),
            ("fe80::1.nbd", false),
            ("10.0.0.0_24.nbd", false),
            ("fd00::_64.nbd", false),
            ("default.nbd", false),
            ("10.0.0.5", true),
            ("::1", true),
            ("default", true),
        ] {
            layout.add(name, Ok(is_directory));
        }
        assert_eq!(layout.problems, []);
        assert_eq!(layout.files.len(), 5);
        assert_eq!(layout.directories, ["10.0.0.5", "::1", "default"]);
    }

    #[test]
    fn reports_misspelled_names_with_the_expected_spelling() {
        let rename = "ignored: rename to";
        for (name, expected) in [
            ("010.0.0.5.nbd", "10.0.0.5.nbd"),
            ("10.0.0.05.nbd", "10.0.0.5.nbd"),
            ("10.0.0.5.NBD", "10.0.0.5.nbd"),
            ("10.0.0.5.nbd.txt", "10.0.0.5.nbd"),
            ("10.0.0.5 .nbd", "10.0.0.5.nbd"),
            ("FE80::1.nbd", "fe80::1.nbd"),
            ("::ffff:10.0.0.5.nbd", "10.0.0.5.nbd"),
            ("DC:A6:32:01:36:C2.nbd", "dc-a6-32-01-36-c2.nbd"),
            ("10.0.0.5_24.nbd", "10.0.0.0_24.nbd"),
            ("Default.nbd", "default.nbd"),
        ] {
            assert_eq!(problems(name, false), [format!("{name}: {rename} {expected}")]);
        }
        for name in ["board.nbd", "10.0.0.nbd", "10.0.0.256.nbd"] {
            assert_eq!(
                problems(name, false),
                [format!("{name}: ignored: expected a client name before .nbd, as in 10.0.0.5.nbd")]
            );
        }
        assert_eq!(problems("010.0.0.5", true), [format!("010.0.0.5/: {rename} 10.0.0.5")]);
        assert_eq!(problems("FE80::1", true), [format!("FE80::1/: {rename} fe80::1")]);
        assert_eq!(
            problems("boards", true),
            ["boards/: ignored: expected a client name, such as 10.0.0.5, or default"]
        );
        assert_eq!(problems("x.nbd", true), ["x.nbd/: is a directory: expected a file that describes a disk"]);
        assert_eq!(problems("default", false), ["default: is a file: expected a directory"]);
        assert_eq!(problems("10.0.0.5", false), ["10.0.0.5: is a file: expected a directory"]);
    }

    #[test]
    fn ignores_files_of_other_purposes() {
        for (name, is_directory) in [
            ("README", false),
            ("notes.txt", false),
            (".git", true),
            (".10.0.0.5.nbd.swp", false),
            ("10.0.0.5.nbd~", false),
            ("lost+found", true),
        ] {
            assert_eq!(problems(name, is_directory), [] as [String; 0], "{name}");
        }
    }
}
