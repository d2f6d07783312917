//! What the guides `first-boot.md` and `scaling.md` tell an administrator to configure and to build.

use std::fs;

use tempfile::TempDir;

use crate::run;

const GUIDE: &str = include_str!("../../bins/docs/first-boot.md");
const SCALING: &str = include_str!("../../bins/docs/scaling.md");

/// The file name of the boot file that the guide configures for UEFI HTTP boot.
pub const HTTP_BOOT_FILE: &str = "grubx64-http.efi";

/// The file name of the boot file that the guide configures for UEFI over TFTP (PXE).
pub const TFTP_BOOT_FILE: &str = "grubnetx64.efi";

/// Returns the indented block of a guide that contains this line.
fn block(guide: &str, line: &str) -> String {
    let blocks = guide.lines().collect::<Vec<_>>();
    let mut blocks = blocks.split(|line| !line.is_empty() && !line.starts_with("    "));
    let found = blocks.find(|block| block.iter().any(|text| text.trim() == line));
    let lines = found.unwrap_or_else(|| panic!("the guide has no block with `{line}`"));
    lines.iter().map(|line| format!("{}\n", line.trim())).collect()
}

/// Returns the configuration of dnsmasq in the guide, for both address families, with further lines.
pub fn dhcp(further: &str) -> String {
    [&block(GUIDE, "port=0"), &block(GUIDE, "enable-ra"), further].concat()
}

/// Returns the configuration of keepalived in the guide.
pub fn keepalived() -> String {
    block(SCALING, "vrrp_instance boot {")
}

/// Returns the commands of U-Boot that boot from the network.
pub fn u_boot_commands() -> &'static str {
    GUIDE.split('`').find(|code| code.starts_with("setenv autoload")).expect("the commands")
}

/// Builds GRUB with the command of the guide for the boot file with this name.
#[track_caller]
pub fn grub(boot_file: &str) -> Vec<u8> {
    let directory = TempDir::new().expect("a temporary directory");
    let file = directory.path().join("grub.efi").display().to_string();
    let line = GUIDE.lines().find(|line| line.contains("grub-mkimage") && line.contains(boot_file));
    let words = line.expect("the command").strip_prefix("sudo grub-mkimage ").expect("the program").split(' ');
    let words = words.map(|word| if word.contains(boot_file) { &file } else { word.trim_matches('\'') });
    run("grub-mkimage", words);
    installed(&file)
}

/// Reads a file of a Debian package.
#[track_caller]
pub fn installed(path: &str) -> Vec<u8> {
    fs::read(path).unwrap_or_else(|error| panic!("this test needs {path}: {error}"))
}
