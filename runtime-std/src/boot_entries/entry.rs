//! An entry of a boot menu.

/// The maximum length of a command line in bytes (`COMMAND_LINE_SIZE` of Linux is at most this).
pub(super) const MAX_OPTIONS: usize = 4096;
/// The maximum number of initial RAM disks, and of overlays of the device tree, of an entry.
pub(super) const MAX_FILES: usize = 16;

/// An entry of a boot menu.
///
/// Paths are those on the disk at first, then those below the directory that is served, without a leading slash.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Entry {
    /// The identifier, unique in its menu.
    pub id: String,
    /// The title for people.
    pub title: String,
    /// The files of the disk that the entry comes from.
    pub source: String,
    /// The path of the kernel.
    pub kernel: String,
    /// Whether the kernel is an EFI program.
    pub is_efi: bool,
    /// Whether the kernel contains its command line.
    pub has_own_options: bool,
    /// The paths of the initial RAM disks.
    pub initrds: Vec<String>,
    /// The path of the device tree.
    pub devicetree: Option<String>,
    /// The path of a directory of device trees, of which U-Boot selects one.
    pub devicetree_directory: Option<String>,
    /// The paths of the overlays of the device tree.
    pub overlays: Vec<String>,
    /// The command line of the kernel.
    pub options: String,
}

impl Entry {
    /// Returns the paths of all files.
    pub(super) fn files_mut(&mut self) -> impl Iterator<Item = &mut String> {
        let Self { kernel, initrds, devicetree, overlays, .. } = self;
        [kernel].into_iter().chain(initrds).chain(devicetree).chain(overlays)
    }

    /// Returns the number of bytes that the entry contributes to a menu, without quotes.
    pub(super) fn len(&self) -> usize {
        let Self { id, title, source, kernel, initrds, devicetree, devicetree_directory, overlays, options, .. } = self;
        let texts = [id, title, source, kernel, options].into_iter();
        texts.chain(initrds).chain(devicetree).chain(devicetree_directory).chain(overlays).map(String::len).sum()
    }

    /// Restricts identifier and title to characters without a meaning in any boot loader, and the command line to single blanks.
    ///
    /// # Errors
    ///
    /// Returns the reason if the command line cannot be passed on unchanged.
    pub(super) fn normalise(&mut self) -> Result<(), &'static str> {
        self.id = plain(&self.id, "._+-~");
        self.title = plain(&self.title, "._+-~ ()/:,");
        for text in [&mut self.id, &mut self.title] {
            // Boot loaders take these for options of their commands.
            if text.starts_with('-') {
                text.insert(0, '_');
            }
        }
        let options = self.options.trim().replace('\t', " ");
        if !options.chars().all(|character| matches!(character, ' '..='~')) {
            return Err("its command line has characters other than printable ASCII");
        }
        if options.len() > MAX_OPTIONS {
            return Err("its command line is longer than 4096 bytes");
        }
        if options.bytes().filter(|&byte| byte == b'"').count() % 2 != 0 {
            return Err("its command line has a quotation mark without a second one");
        }
        // The boot loaders that act on `initrd=` get the paths of this server.
        let words = words(&options).into_iter().filter(|word| !word.starts_with("initrd="));
        self.options = words.collect::<Vec<_>>().join(" ");
        Ok(())
    }
}

/// Splits a command line into words as the kernel does: blanks between double quotes do not separate.
pub(super) fn words(options: &str) -> Vec<&str> {
    let mut is_quoted = false;
    let words = options.split(|character| {
        is_quoted ^= character == '"';
        character == ' ' && !is_quoted
    });
    words.filter(|word| !word.is_empty()).collect()
}

/// Replaces all characters except ASCII letters, digits and `others` by `_`.
pub(super) fn plain(text: &str, others: &str) -> String {
    let is_plain = |character: char| character.is_ascii_alphanumeric() || others.contains(character);
    text.chars().take(200).map(|character| if is_plain(character) { character } else { '_' }).collect()
}

/// Returns whether a path has no character with a meaning in any boot loader.
pub(super) fn is_plain_path(path: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._+-~@=".contains(&byte);
    path.len() < 400 && !path.starts_with('-') && path.bytes().all(is_plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_keep_quoted_blanks() {
        assert_eq!(words(r#"a  b="c d" "e f"g "#), ["a", r#"b="c d""#, r#""e f"g"#]);
    }

    #[test]
    fn rejects_command_lines_that_end_a_line() {
        for options in ["a\nb", "a\rb", "a\0", "caf\u{e9}", "\"a", &"a".repeat(4097)] {
            assert!(Entry { options: options.to_owned(), ..Entry::default() }.normalise().is_err(), "{options:?}");
        }
        let mut entry = Entry {
            id: "a'{b\n".into(),
            title: "--x'; reboot #".into(),
            options: " a\tb initrd=/x ".into(),
            ..Entry::default()
        };
        entry.normalise().expect("a command line");
        assert_eq!((&*entry.id, &*entry.title, &*entry.options), ("a__b_", "_--x__ reboot _", "a b"));
    }
}
