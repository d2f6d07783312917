//! The files that can be generated.

use rtftp_core::RequestPath;

use super::{entry::Entry, grub, ipxe, menu::Menu, syslinux};

/// A file that can be generated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BootFile {
    /// `grub/grub.cfg`, and the names that packaged GRUBs ask for.
    Grub,
    /// `pxelinux.cfg/default`, in a directory of this depth.
    Pxelinux {
        /// The number of names before `pxelinux.cfg`.
        depth: usize,
    },
    /// `boot.ipxe`.
    Ipxe,
    /// `extlinux/extlinux.conf`.
    Extlinux,
    /// `boot.efi`: the unified kernel image of the default entry, unchanged.
    Image,
}

impl BootFile {
    /// Returns the kind of file with this path; `None` if it cannot be generated.
    pub fn of(path: &RequestPath) -> Option<Self> {
        let names: Vec<&[u8]> = path.names().collect();
        match names.as_slice() {
            [b"grub.cfg"] | [.., b"grub" | b"grub2", b"grub.cfg"] | [b"EFI" | b"efi", _, b"grub.cfg"] => {
                Some(Self::Grub)
            }
            [before @ .., b"pxelinux.cfg", b"default"] => Some(Self::Pxelinux { depth: before.len() }),
            [b"boot.ipxe"] => Some(Self::Ipxe),
            [b"extlinux", b"extlinux.conf"] | [b"boot", b"extlinux", b"extlinux.conf"] => Some(Self::Extlinux),
            [b"boot.efi"] => Some(Self::Image),
            _ => None,
        }
    }

    /// Writes the file; `None` if the menu has no entry, or if the file is an image.
    pub fn write(self, menu: &Menu) -> Option<String> {
        let default = menu.default_entry()?;
        Some(match self {
            Self::Grub => grub::write(menu, default),
            Self::Pxelinux { depth } => syslinux::write(menu, default, &"../".repeat(depth)),
            Self::Ipxe => ipxe::write(menu, default),
            Self::Extlinux => syslinux::write(menu, default, "/"),
            Self::Image => return None,
        })
    }

    /// Returns the reason why the boot loader that reads the file cannot load an entry; `None` if it can.
    pub(super) fn obstacle(self, entry: &Entry) -> Option<&'static str> {
        match self {
            Self::Grub => None,
            Self::Pxelinux { .. } | Self::Extlinux => syslinux::obstacle(entry),
            Self::Ipxe => ipxe::obstacle(entry),
            Self::Image => (!entry.has_own_options).then_some("firmware loads only unified kernel images"),
        }
    }
}
