//! PCs boot over HTTP and HTTPS from their own disks, with the DHCP configuration of the guide `first-boot.md`; after an upgrade on
//! the disk, the next boot starts the new kernel.
//!
//! Two boots take 5 to 45 s. So all but those of iPXE in a ROM are ignored by default; tests/long.sh runs them.

use std::fs;

use rtftp_tests::{
    BootNetwork, Disk, DiskConfig, FileSystem, NbdServer, PcFirmware, Tree, boot_kernel, not_tested, run,
};
use tempfile::TempDir;

const GUIDE: &str = include_str!("../../bins/docs/first-boot.md");

/// The file name of the boot file that the guide configures for UEFI HTTP boot.
const UEFI_BOOT_FILE: &str = "grubx64-http.efi";

/// Returns the indented block of the guide that contains this line.
fn guide_block(line: &str) -> String {
    let blocks = GUIDE.lines().collect::<Vec<_>>();
    let mut blocks = blocks.split(|line| !line.is_empty() && !line.starts_with("    "));
    let found = blocks.find(|block| block.iter().any(|text| text.trim() == line));
    let lines = found.unwrap_or_else(|| panic!("the guide has no block with `{line}`"));
    lines.iter().map(|line| format!("{}\n", line.trim())).collect()
}

/// The DHCP server of the guide, for both address families, with further lines.
fn dhcp(further: &str) -> String {
    [&guide_block("port=0"), &guide_block("enable-ra"), further].concat()
}

/// Changes the URLs in a configuration of DHCP.
fn https(dhcp: &str) -> String {
    dhcp.replace("http://", "https://")
}

/// The disk of the PC: its kernel is `/boot/vmlinuz`, a link as Debian maintains it.
struct OwnDisk {
    image: Disk,
    server: NbdServer,
}

impl OwnDisk {
    /// Creates a disk with the kernel 6.1.0-1, and exports it. `add` adds files.
    fn new(add: impl FnOnce(Tree) -> Tree) -> Self {
        let tree = Tree::new()
            .file("boot/vmlinuz-6.1.0-1", kernel("6.1.0-1"))
            .link("boot/vmlinuz", "vmlinuz-6.1.0-1")
            .file("boot/initrd.img", "initramfs");
        let image = Disk::whole(64, FileSystem::Ext4(&add(tree)));
        let server = NbdServer::qemu(&image);
        Self { image, server }
    }

    /// Installs another kernel.
    fn upgrade(&self, version: &str) {
        let directory = TempDir::new().expect("a temporary directory");
        let (file, script) = (directory.path().join("kernel"), directory.path().join("commands"));
        fs::write(&file, kernel(version)).expect("written");
        let commands = format!(
            "write {} /boot/vmlinuz-{version}\nrm /boot/vmlinuz\nsymlink /boot/vmlinuz vmlinuz-{version}\n",
            file.display()
        );
        fs::write(&script, commands).expect("written");
        run("debugfs", ["-w", "-f", &script.display().to_string(), &self.image.path().display().to_string()]);
    }
}

fn kernel(version: &str) -> Vec<u8> {
    boot_kernel(version, 3_000_000)
}

/// Boots a PC from a disk, upgrades its kernel, boots it again, and asserts that both kernels came from the disk over HTTP.
fn boot_twice(network: &BootNetwork, firmware: PcFirmware, client: &str, disk: &OwnDisk, names: &[&str]) {
    let config = DiskConfig::new(disk.server.url()).device("/dev/sda", "/").tftp_root("/boot");
    network.daemon().put_disk(client, &config);
    for version in ["6.1.0-1", "6.1.0-2"] {
        if version != "6.1.0-1" {
            disk.upgrade(version);
        }
        let printed = network.boot(firmware);
        assert!(printed.contains(&format!("kernel {version} has started")), "{version}:\n{printed}");
    }
    let origin = format!("over HTTP: from {client}.nbd");
    for name in names {
        let lines = network.daemon().log_lines(&[name, &origin, "complete"]);
        assert_eq!(lines.len(), 2, "{name}: {lines:?}");
    }
}

#[test]
fn ipxe_boots_the_upgraded_kernel() {
    BootNetwork::test(&dhcp(""), |network| boot_with_ipxe(network, PcFirmware::BiosIpxe));
}

/// The firmware loads iPXE, which trusts the same authorities as the firmware.
#[test]
#[ignore = "takes 35 s"]
fn ipxe_boots_the_upgraded_kernel_over_https() {
    let ipxe = fs::read("/usr/lib/ipxe/ipxe.efi").unwrap_or_default();
    let variable: Vec<u8> = "TlsCaCertificate".encode_utf16().flat_map(u16::to_le_bytes).collect();
    if !ipxe.windows(variable.len()).any(|bytes| bytes == variable) {
        return not_tested("no iPXE with HTTPS that trusts the authorities of the firmware: Debian 13 has it (ipxe)");
    }
    BootNetwork::test(&https(&dhcp("")), |network| {
        network.daemon().put(&format!("default/{UEFI_BOOT_FILE}"), &ipxe);
        boot_with_ipxe(network, PcFirmware::UefiHttp4);
    });
}

fn boot_with_ipxe(network: &BootNetwork, firmware: PcFirmware) {
    let script = "#!ipxe\nkernel vmlinuz initrd=initrd.img ro\ninitrd initrd.img\nboot\n";
    let disk = OwnDisk::new(|tree| tree.file("boot/boot.ipxe", script));
    boot_twice(network, firmware, "10.0.0.6", &disk, &["/boot.ipxe", "/vmlinuz", "/initrd.img"]);
}

#[test]
#[ignore = "takes 15 s"]
fn pxelinux_boots_the_upgraded_kernel() {
    let config = "DEFAULT linux\nLABEL linux\n  KERNEL vmlinuz\n  APPEND initrd=initrd.img ro\n";
    BootNetwork::test(&dhcp("dhcp-option-force=210,http://10.0.0.1/"), |network| {
        for path in ["/usr/lib/PXELINUX/lpxelinux.0", "/usr/lib/syslinux/modules/bios/ldlinux.c32"] {
            let name = path.rsplit('/').next().expect("a name");
            network.daemon().put(&format!("default/{name}"), installed(path));
        }
        network.daemon().put("default/boot.ipxe", "#!ipxe\nchain lpxelinux.0\n");
        let disk = OwnDisk::new(|tree| tree.file("boot/pxelinux.cfg/default", config));
        let names = ["/pxelinux.cfg/default", "/vmlinuz", "/initrd.img"];
        boot_twice(network, PcFirmware::BiosIpxe, "10.0.0.6", &disk, &names);
        // It uses the same ports at each boot, and waits for those in TIME-WAIT: ldlinux.c32 and the files of the disk, but not those of
        // the files that it has not found.
        let waiting = run("ss", ["-Htn", "state", "time-wait", "sport = :80"]).stdout;
        let waiting = String::from_utf8_lossy(&waiting);
        assert!(waiting.lines().count() <= 1 + names.len(), "sockets in TIME-WAIT:\n{waiting}");
    });
}

#[test]
#[ignore = "takes 25 s"]
fn uefi_firmware_boots_the_upgraded_kernel() {
    boot_with_firmware(&dhcp(""));
}

#[test]
#[ignore = "takes 25 s"]
fn uefi_firmware_boots_the_upgraded_kernel_over_https() {
    boot_with_firmware(&https(&dhcp("")));
}

fn boot_with_firmware(dhcp: &str) {
    BootNetwork::test(dhcp, |network| {
        let disk = OwnDisk::new(|tree| tree.link(&format!("boot/{UEFI_BOOT_FILE}"), "vmlinuz"));
        boot_twice(network, PcFirmware::UefiHttp4, "10.0.0.6", &disk, &[UEFI_BOOT_FILE]);
    });
}

#[test]
#[ignore = "takes 20 s"]
fn grub_boots_the_upgraded_kernel() {
    boot_with_grub(PcFirmware::UefiHttp4, "10.0.0.6");
}

#[test]
#[ignore = "takes 45 s"]
fn grub_boots_the_upgraded_kernel_over_ipv6() {
    boot_with_grub(PcFirmware::UefiHttp6, "52-54-00-aa-bb-06");
}

fn boot_with_grub(firmware: PcFirmware, client: &str) {
    BootNetwork::test(&dhcp(""), |network| {
        network.daemon().put(&format!("default/{UEFI_BOOT_FILE}"), grub());
        // The menu is generated.
        let disk = OwnDisk::new(|tree| tree.file("boot/grub/grub.cfg", "of a local disk"));
        boot_twice(network, firmware, client, &disk, &["/grub.cfg", "/vmlinuz-6.1.0-"]);
    });
}

/// Builds GRUB with the command of the guide.
fn grub() -> Vec<u8> {
    let directory = TempDir::new().expect("a temporary directory");
    let file = directory.path().join("grub.efi").display().to_string();
    let line = GUIDE.lines().find(|line| line.contains("grub-mkimage") && line.contains(UEFI_BOOT_FILE));
    let words = line.expect("the command").strip_prefix("sudo grub-mkimage ").expect("the program").split(' ');
    run("grub-mkimage", words.map(|word| if word.contains(UEFI_BOOT_FILE) { &file } else { word }));
    installed(&file)
}

fn installed(path: &str) -> Vec<u8> {
    fs::read(path).unwrap_or_else(|error| panic!("this test needs {path}: {error}"))
}
