//! PCs boot over HTTP and HTTPS from their own disks, with the DHCP configuration of the guide `first-boot.md`; after an upgrade on
//! the disk, the next boot starts the new kernel.
//!
//! Two boots take 5 to 45 s. So all but those of iPXE in a ROM are ignored by default; tests/long.sh runs them.

use std::fs;

use rtftp_tests::{
    BootNetwork, DebianDisk, Firmware,
    boot_guide::{HTTP_BOOT_FILE, dhcp, grub, installed},
    not_tested, run,
};

/// Changes the URLs in a configuration of DHCP.
fn https(dhcp: &str) -> String {
    dhcp.replace("http://", "https://")
}

/// Boots a PC from a disk, upgrades its kernel, boots it again, and asserts that both kernels came from the disk over HTTP.
fn boot_twice(network: &BootNetwork, firmware: Firmware, client: &str, disk: &DebianDisk, names: &[&str]) {
    network.daemon().put_disk(client, &disk.config());
    for version in [DebianDisk::OLD, DebianDisk::NEW] {
        if version == DebianDisk::NEW {
            disk.upgrade();
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
    BootNetwork::test(&dhcp(""), |network| boot_with_ipxe(network, Firmware::BiosIpxe));
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
        network.daemon().put(&format!("default/{HTTP_BOOT_FILE}"), &ipxe);
        boot_with_ipxe(network, Firmware::UefiHttp4);
    });
}

fn boot_with_ipxe(network: &BootNetwork, firmware: Firmware) {
    let script = "#!ipxe\nkernel vmlinuz initrd=initrd.img ro\ninitrd initrd.img\nboot\n";
    let disk = DebianDisk::new(|tree| tree.file("boot/boot.ipxe", script));
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
        let disk = DebianDisk::new(|tree| tree.file("boot/pxelinux.cfg/default", config));
        let names = ["/pxelinux.cfg/default", "/vmlinuz", "/initrd.img"];
        boot_twice(network, Firmware::BiosIpxe, "10.0.0.6", &disk, &names);
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
        let disk = DebianDisk::new(|tree| tree.link(&format!("boot/{HTTP_BOOT_FILE}"), "vmlinuz"));
        boot_twice(network, Firmware::UefiHttp4, "10.0.0.6", &disk, &[HTTP_BOOT_FILE]);
    });
}

#[test]
#[ignore = "takes 20 s"]
fn grub_boots_the_upgraded_kernel() {
    boot_with_grub(Firmware::UefiHttp4, "10.0.0.6");
}

#[test]
#[ignore = "takes 45 s"]
fn grub_boots_the_upgraded_kernel_over_ipv6() {
    boot_with_grub(Firmware::UefiHttp6, "52-54-00-aa-bb-06");
}

fn boot_with_grub(firmware: Firmware, client: &str) {
    BootNetwork::test(&dhcp(""), |network| {
        network.daemon().put(&format!("default/{HTTP_BOOT_FILE}"), grub(HTTP_BOOT_FILE));
        // The menu is generated.
        let disk = DebianDisk::new(|tree| tree.file("boot/grub/grub.cfg", "of a local disk"));
        boot_twice(network, firmware, client, &disk, &["/grub.cfg", "/vmlinuz-6.1.0-"]);
    });
}
