//! Recognises kernels and boot loaders by their file names.

use serde::Serialize;

use crate::text::{percent_encoded, printable};

/// A file that is probably a kernel or a boot loader.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Kernel {
    /// The path below the served directory.
    pub path: String,
    /// The size in bytes.
    #[serde(rename = "bytes")]
    pub size: u64,
    /// The media type over HTTP; `None` if the file cannot be read.
    pub content_type: Option<&'static str>,
    /// The URL; `None` if the server does not serve HTTP.
    pub url: Option<String>,
    /// The path as URLs contain it.
    #[serde(skip)]
    pub target: String,
}

impl Kernel {
    /// Creates a kernel from its path below the served directory and its size.
    #[must_use]
    pub fn new(path: &[u8], size: u64) -> Self {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte);
        let target = percent_encoded(path, is_plain);
        Self { path: printable(path), size, content_type: None, url: None, target }
    }
}

/// The names of kernels in lower case, the most likely first; `*` matches any text. Boot loaders come last, since they load a kernel
/// that is more interesting.
const PATTERNS: [&str; 25] = [
    // The firmware of the Raspberry Pi looks for these in about this order.
    "kernel_2712.img",
    "kernel8.img",
    "kernel7l.img",
    "kernel7.img",
    "kernel.img",
    "kernel*.img",
    "vmlinuz",
    "vmlinuz*",
    "vmlinux*",
    "bzimage*",
    "image",
    "image.gz",
    "image-*",
    "zimage*",
    "uimage*",
    "linux",
    "*.itb",
    "*.fit",
    "bootx64.efi",
    "bootaa64.efi",
    "grub*.efi",
    "*.efi",
    "pxelinux.0",
    "lpxelinux.0",
    "*.kpxe",
];

/// The suffixes of backup copies and of files that accompany a kernel.
const EXCLUDED_SUFFIXES: [&str; 5] = [".old", ".bak", ".sig", ".sha256", ".txt"];

/// Returns the rank of a kernel's name, 0 for the most likely; `None` if the name matches no pattern.
pub(super) fn rank(name: &[u8]) -> Option<usize> {
    let name = str::from_utf8(name).ok()?.to_ascii_lowercase();
    if EXCLUDED_SUFFIXES.iter().any(|suffix| name.ends_with(suffix)) {
        return None;
    }
    PATTERNS.iter().position(|pattern| match pattern.split_once('*') {
        Some((start, end)) => name.strip_prefix(start).is_some_and(|rest| rest.ends_with(end)),
        None => name == *pattern,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recognises_kernels_by_their_names() {
        for name in [
            "vmlinuz",
            "vmlinuz-6.1.0-18-arm64",
            "VMLINUZ",
            "Image",
            "Image.gz",
            "Image-6.6",
            "zImage",
            "bzImage",
            "uImage",
            "kernel8.img",
            "KERNEL8.IMG",
            "kernel-custom.img",
            "kernel_2712.img",
            "fitImage.itb",
            "BOOTX64.EFI",
            "linux",
            "pxelinux.0",
            "ipxe.efi",
            "undionly.kpxe",
        ] {
            assert!(rank(name.as_bytes()).is_some(), "{name}");
        }
        for name in [
            "",
            "initrd.img",
            "config.txt",
            "imagery",
            "vmlinuz.old",
            "kernel8.img.bak",
            "start4.elf",
            "linux.txt",
            "kernel",
            "images",
            "\u{fffd}",
        ] {
            assert_eq!(rank(name.as_bytes()), None, "{name}");
        }
        assert_eq!(rank(b"vmlinuz\xff"), None);
    }

    #[test]
    fn ranks_likelier_names_first() {
        for (likely, less) in [
            ("kernel8.img", "kernel.img"),
            ("kernel.img", "kernel-custom.img"),
            ("vmlinuz", "vmlinuz-6.1.0"),
            ("vmlinuz-6.1.0", "Image"),
            ("Image", "Image-6.6"),
            ("vmlinuz-6.1.0", "grubx64.efi"),
            ("grubx64.efi", "shim.efi"),
        ] {
            assert!(rank(likely.as_bytes()) < rank(less.as_bytes()), "{likely} {less}");
        }
    }
}
