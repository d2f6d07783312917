//! What a description changes about the boot entries of its disk.

use rtftp_core::config::disk::{BootConfig, BootDefault};

use super::{
    entry::{Entry, words},
    sources::DefaultEntry,
};

/// The time in seconds that a menu is shown.
const TIMEOUT: u16 = 3;

/// What a description changes about the boot entries of its disk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    append: Box<str>,
    remove: Vec<Box<str>>,
    default: BootDefault,
    timeout: Option<u16>,
}

impl From<&BootConfig> for Settings {
    fn from(config: &BootConfig) -> Self {
        Self {
            append: config.append.as_str().into(),
            remove: config.remove.iter().map(|word| word.as_str().into()).collect(),
            default: config.default.clone(),
            timeout: config.timeout,
        }
    }
}

impl Settings {
    /// Returns the time in seconds that the menu is shown.
    pub(super) fn timeout(&self) -> u16 {
        self.timeout.unwrap_or(TIMEOUT)
    }

    /// Returns the default entry, where the disk names this one.
    pub(super) fn default_entry(&self, of_disk: Option<DefaultEntry>) -> Option<DefaultEntry> {
        match &self.default {
            BootDefault::Saved => of_disk,
            BootDefault::Newest => None,
            BootDefault::Id(id) => Some(DefaultEntry {
                name: id.as_str().to_owned(),
                source: "boot.default of the description".to_owned(),
                by_number: false,
            }),
        }
    }

    /// Changes the command line of an entry.
    pub(super) fn apply(&self, entry: &mut Entry) {
        let is_removed = |word: &str| {
            self.remove.iter().any(|removed| {
                word.strip_prefix(&**removed).is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
            })
        };
        let kept: Vec<&str> = words(&entry.options).into_iter().filter(|word| !is_removed(word)).collect();
        let options = format!("{} {}", kept.join(" "), self.append).trim().to_owned();
        if options != entry.options {
            // The boot loader must pass it to a kernel that contains another one.
            entry.has_own_options = false;
            entry.options = options;
        }
    }

    /// Describes the changes of the command line for a comment; `None` if there are none.
    pub(super) fn note(&self) -> Option<String> {
        let appended = (!self.append.is_empty()).then(|| format!("with {}", self.append));
        let removed = (!self.remove.is_empty()).then(|| format!("without {}", self.remove.join(" ")));
        let changes: Vec<String> = removed.into_iter().chain(appended).collect();
        (!changes.is_empty()).then(|| format!("command lines: {}, as boot in the description says", changes.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn removes_words_and_appends_a_text() {
        for (options, expected) in [
            ("root=UUID=1 ro quiet splash", "ro splash nbdroot=h,x"),
            ("root quiet=1 rootwait a=\"root quiet\"", "rootwait a=\"root quiet\" nbdroot=h,x"),
            ("", "nbdroot=h,x"),
        ] {
            let settings = Settings {
                append: "nbdroot=h,x".into(),
                remove: vec!["quiet".into(), "root".into()],
                ..Settings::default()
            };
            let mut entry = Entry { options: options.to_owned(), has_own_options: true, ..Entry::default() };
            settings.apply(&mut entry);
            assert_eq!((&*entry.options, entry.has_own_options), (expected, false));
        }
        let mut entry = Entry { options: "a".to_owned(), has_own_options: true, ..Entry::default() };
        Settings::default().apply(&mut entry);
        assert!(entry.has_own_options);
        assert_eq!(Settings::default().note(), None);
    }
}
