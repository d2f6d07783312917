//! Which file is probably what a machine boots: names that boot loaders ask for and distributions use.

/// A file that is probably a kernel, or what loads one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel {
    /// Its path below the directory that is served.
    pub path: String,
    /// How long it is, in bytes.
    pub size: u64,
}

/// Names of kernels in small letters, the likelier first; `*` stands for anything. Boot loaders come last: they are there for a
/// kernel's sake.
const NAMES: [&str; 25] = [
    // Raspberry Pi: its firmware looks for these in about this order.
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

/// What the names of files end with that are kernels no more, or only belong to one.
const NOT: [&str; 5] = [".old", ".bak", ".sig", ".sha256", ".txt"];

/// Tells how likely a file of this name is a kernel, less for more likely; `None` if it is none.
pub(super) fn rank(name: &[u8]) -> Option<usize> {
    let name = str::from_utf8(name).ok()?.to_ascii_lowercase();
    if NOT.iter().any(|end| name.ends_with(end)) {
        return None;
    }
    NAMES.iter().position(|pattern| match pattern.split_once('*') {
        Some((start, end)) => name.strip_prefix(start).is_some_and(|rest| rest.ends_with(end)),
        None => name == *pattern,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_known_by_their_names() {
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
    fn the_likelier_comes_first() {
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
