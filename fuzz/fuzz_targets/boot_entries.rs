//! Hostile boot entries of a disk: every line of a generated menu is one that its writer means, and no text leaves its word.
#![no_main]

use std::{collections::BTreeMap, convert::Infallible};

use libfuzzer_sys::fuzz_target;
use rtftp_core::config::disk::DiskConfig;
use rtftp_runtime::boot_entries::{BootFile, DiskTree, Served, Settings, collect, signers};
use smol::block_on;

/// The byte between the files of an input.
const SEPARATOR: u8 = 0xff;
/// The paths of the files of an input, in this order.
const PATHS: [&str; 11] = [
    "/boot/loader/entries/a.conf",
    "/boot/loader/entries/b+1-2.conf",
    "/boot/grub2/grubenv",
    "/efi/loader/loader.conf",
    "/efi/EFI/Linux/a.efi",
    "/boot/extlinux/extlinux.conf",
    "/boot/vmlinuz-1",
    "/etc/default/grub",
    "/etc/default/grub.d/a.cfg",
    "/etc/kernel/cmdline",
    "/etc/fstab",
];
const SETTINGS: &[u8] = br#"{"url": "nbd://h/x", "mounts": [{"mountpoint": "/"}],
    "boot": {"append": "nbdroot=h,x a=\"b c\"", "remove": ["quiet"], "default": "a*"}}"#;

/// A disk with the files of an input. Clients can get every file.
struct Disk<'i>(BTreeMap<String, &'i [u8]>);

impl DiskTree for Disk<'_> {
    type Error = Infallible;

    async fn list(&self, directory: &str) -> Result<Vec<String>, Infallible> {
        let prefix = format!("{}/", directory.trim_end_matches('/'));
        let names = self.0.keys().filter_map(|path| path.strip_prefix(&prefix));
        Ok(names.filter(|name| !name.contains('/')).map(str::to_owned).collect())
    }

    async fn read(&self, path: &str) -> Result<Option<String>, Infallible> {
        Ok(self.0.get(path).map(|bytes| String::from_utf8_lossy(bytes).into_owned()))
    }

    async fn read_part(&self, path: &str, offset: u64, len: usize) -> Result<Vec<u8>, Infallible> {
        let bytes = self.0.get(path).and_then(|bytes| bytes.get(usize::try_from(offset).ok()?..)).unwrap_or_default();
        Ok(bytes[..bytes.len().min(len)].to_vec())
    }

    async fn served_file(&self, path: &str) -> Result<Served, Infallible> {
        Ok(path.strip_prefix("/").map_or(Served::Elsewhere, |path| Served::At(path.to_owned())))
    }

    async fn served_directory(&self, path: &str) -> Result<Served, Infallible> {
        self.served_file(path).await
    }

    async fn mountpoint(&self, path: &str) -> Result<String, Infallible> {
        Ok(if path.starts_with("/boot/") { "/boot".into() } else { String::new() })
    }
}

/// Checks that a line of GRUB is one command: outside of single quotes there are only characters without a meaning.
fn check_grub(line: &str) {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b" /._+-~@=,:%".contains(&byte);
    let (mut is_quoted, mut bytes) = (false, line.bytes());
    while let Some(byte) = bytes.next() {
        match byte {
            b'\'' => is_quoted = !is_quoted,
            _ if is_quoted => {}
            b'\\' => assert_eq!(bytes.next(), Some(b'\''), "{line}"),
            b'{' => assert!(line.starts_with("menuentry ") && bytes.len() == 0, "{line}"),
            b'}' => assert_eq!(line, "}"),
            _ => assert!(is_plain(byte), "{line}"),
        }
    }
    assert!(!is_quoted, "{line}");
}

/// Checks that a line of iPXE is one command, or one with an alternative.
fn check_ipxe(line: &str) {
    if line.starts_with("choose ") {
        return assert!(line.ends_with(" target && goto ${target} || goto /failed"), "{line}");
    }
    let line = line.strip_suffix(" || goto /failed").unwrap_or(line);
    assert!(!line.contains("${") && !line.split(' ').any(|word| matches!(word, "&&" | "||" | ";")), "{line}");
}

fn check_line(file: BootFile, line: &str) {
    assert!(line.bytes().all(|byte| matches!(byte, b' '..=b'~')), "{line:?}");
    let command = line.trim_start();
    if command.starts_with("# ") || command == "#!ipxe" {
        return;
    }
    let word = command.split(' ').next().unwrap_or_default();
    let is_known = match file {
        BootFile::Grub => {
            check_grub(command);
            ["set", "menuentry", "linux", "initrd", "chainloader", "devicetree", "}"].contains(&word)
        }
        BootFile::Ipxe => {
            check_ipxe(command);
            word.starts_with(':')
                || ["menu", "item", "choose", "imgfree", "kernel", "initrd", "boot", "shell"].contains(&word)
        }
        BootFile::Pxelinux { .. } | BootFile::Extlinux => {
            let words = ["default", "prompt", "timeout", "label", "menu", "linux", "initrd", "append"];
            words.contains(&word) || ["fdt", "fdtdir", "fdtoverlays"].contains(&word)
        }
        // It has no lines.
        BootFile::Image => false,
    };
    assert!(is_known, "{line}");
}

fuzz_target!(|input: &[u8]| {
    let files = PATHS.iter().zip(input.split(|&byte| byte == SEPARATOR)).filter(|(_, content)| !content.is_empty());
    let mut disk = Disk(files.map(|(path, content)| ((*path).to_owned(), content)).collect());
    // Names are as hostile as contents.
    if let (Some(name), Some(content)) = (input.split(|&byte| byte == SEPARATOR).nth(PATHS.len()), disk.0.get(PATHS[0]))
    {
        let name = String::from_utf8_lossy(name).replace('/', "");
        let content = *content;
        disk.0.insert(format!("/boot/loader/entries/{name}.conf"), content);
        disk.0.insert(format!("/boot/vmlinuz-{name}"), content);
    }
    let boot = DiskConfig::parse(SETTINGS).expect("a description").boot;
    for settings in [Settings::default(), Settings::from(&boot)] {
        for file in [BootFile::Grub, BootFile::Ipxe, BootFile::Pxelinux { depth: 1 }, BootFile::Extlinux] {
            let Ok(menu) = block_on(collect(&disk, file, &settings));
            let Some(text) = file.write(&menu) else { continue };
            text.split('\n').filter(|line| !line.is_empty()).for_each(|line| check_line(file, line));
            let count = |word: &str| text.lines().filter(|line| line.trim_start().starts_with(word)).count();
            let starts = match file {
                BootFile::Grub => count("menuentry "),
                BootFile::Ipxe => count("item "),
                _ => count("label "),
            };
            assert_eq!(starts, menu.entries.len(), "{text}");
        }
    }
    let Ok(_) = block_on(signers(&disk, PATHS[4]));
});
