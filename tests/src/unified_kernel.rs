//! Unified kernel images: EFI programs with kernel, initrd and command line inside.

use std::fs;

use tempfile::TempDir;

use crate::{SNAKEOIL_KEY, boot_guide::installed, run};

/// The program that starts the kernel, of the package systemd-boot-efi.
const STUB: &str = "/usr/lib/systemd/boot/efi/linuxx64.efi.stub";

/// The alignment of sections in bytes.
const ALIGNMENT: u64 = 0x1000;

/// Builds a unified kernel image and signs it with [`SNAKEOIL_KEY`].
#[track_caller]
pub fn signed_unified_kernel(kernel: &[u8], initrd: &[u8], command_line: &str) -> Vec<u8> {
    let directory = TempDir::new().expect("a temporary directory");
    let path = |name: &str| directory.path().join(name).display().to_string();
    let mut arguments = vec![];
    let mut address = end_of_sections(&installed(STUB));
    let os_release = b"ID=debian\nPRETTY_NAME=\"Debian\"\n";
    let command_line = command_line.as_bytes();
    for (name, contents) in
        [("osrel", &os_release[..]), ("cmdline", command_line), ("initrd", initrd), ("linux", kernel)]
    {
        fs::write(path(name), contents).expect("written");
        arguments.extend(["--add-section".into(), format!(".{name}={}", path(name))]);
        arguments.extend(["--change-section-vma".into(), format!(".{name}={address:#x}")]);
        address = (address + contents.len() as u64).next_multiple_of(ALIGNMENT);
    }
    run("objcopy", arguments.into_iter().chain([STUB.into(), path("image")]));
    let (key, certificate) = (format!("{SNAKEOIL_KEY}.key"), format!("{SNAKEOIL_KEY}.pem"));
    run("openssl", ["rsa", "-passin", "pass:snakeoil", "-in", &key, "-out", &path("key")]);
    run("sbsign", ["--key", &path("key"), "--cert", &certificate, "--output", &path("signed"), &path("image")]);
    installed(&path("signed"))
}

/// Returns the first free address behind the sections of a portable executable for 64 bits (PE/COFF specification, section 3).
fn end_of_sections(program: &[u8]) -> u64 {
    let number =
        |at: usize, len: usize| program[at..at + len].iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte));
    let header = number(0x3c, 4) as usize;
    let (sections, options_len) = (number(header + 6, 2) as usize, number(header + 20, 2) as usize);
    let options = header + 24;
    let image_base = number(options + 24, 8);
    let table = options + options_len;
    let ends = (0..sections).map(|section| table + 40 * section).map(|at| number(at + 8, 4) + number(at + 12, 4));
    (image_base + ends.max().expect("a section")).next_multiple_of(ALIGNMENT)
}
