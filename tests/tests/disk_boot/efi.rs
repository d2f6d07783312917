//! Disks with an EFI system partition: unified kernel images, and Secure Boot.

use rtftp_tests::{
    BootNetwork, Disk, DiskConfig, FileSystem, Firmware, NbdServer, SecureDebianDisk, Tree,
    boot_guide::{HTTP_BOOT_FILE, TFTP_BOOT_FILE, dhcp},
    boot_kernel, initrd,
    rtftp_check::CheckResult,
    signed_unified_kernel,
};

use super::{CLIENT, System, boot_old_new_and_old, install_grub};

/// The place on the EFI system partition from which firmware boots by default.
const BOOT_FILE: &str = "EFI/BOOT/BOOTX64.EFI";

/// A disk with unified kernel images on its EFI system partition.
struct EfiDisk {
    image: Disk,
    server: NbdServer,
}

impl EfiDisk {
    const VERSIONS: [&str; 2] = ["6.1.0-9", "6.1.0-10"];

    /// Creates a disk with the image of the first version at this path.
    fn new(path: &str) -> Self {
        let tree = Tree::new().file(path, unified_kernel(Self::VERSIONS[0]));
        let image = Disk::gpt(&[(1, 64, FileSystem::Vfat(&tree)), (2, 8, FileSystem::Nothing)]);
        let server = NbdServer::qemu(&image);
        Self { image, server }
    }

    fn config(&self) -> DiskConfig {
        DiskConfig::new(self.server.url()).partition(1, "/")
    }

    fn install(&self, path: &str, unified_kernel: &[u8]) {
        self.image.write_to_fat(1, path, unified_kernel);
    }

    /// Returns the path of an image as `kernel-install` names it.
    fn path(version: &str) -> String {
        format!("EFI/Linux/debian-{version}.efi")
    }
}

impl System for EfiDisk {
    fn versions(&self) -> [&'static str; 2] {
        Self::VERSIONS
    }

    fn config(&self) -> DiskConfig {
        self.config()
    }

    fn upgrade(&mut self) {
        let [_, new] = Self::VERSIONS;
        self.install(&Self::path(new), &unified_kernel(new));
    }

    fn remove_upgrade(&mut self) {
        self.image.remove_from_fat(1, &Self::path(Self::VERSIONS[1]));
    }
}

fn unified_kernel(version: &str) -> Vec<u8> {
    let options = format!("root=UUID=2d7b9a3c ro version={version}");
    signed_unified_kernel(&boot_kernel(version, 1_000_000), &initrd(version), &options)
}

#[test]
#[ignore = "takes 45 s"]
fn unified_kernel_images_boot_with_grub_over_http() {
    BootNetwork::test(&dhcp(""), |network| {
        install_grub(network, HTTP_BOOT_FILE);
        let disk = EfiDisk::new(&EfiDisk::path(EfiDisk::VERSIONS[0]));
        let options = "command line: root=UUID=2d7b9a3c ro version=6.1.0-";
        boot_old_new_and_old(network, Firmware::UefiHttp4, "over HTTP", options, disk);
    });
}

/// A disk whose default image firmware boots without a boot loader.
struct DirectDisk(EfiDisk);

impl System for DirectDisk {
    fn versions(&self) -> [&'static str; 2] {
        self.0.versions()
    }

    fn requested(&self, _: &'static str) -> &'static str {
        DEFAULT_IMAGE
    }

    fn config(&self) -> DiskConfig {
        self.0.config()
    }

    fn upgrade(&mut self) {
        self.0.upgrade();
    }

    fn remove_upgrade(&mut self) {
        self.0.remove_upgrade();
    }
}

/// The name under which firmware gets the unified kernel image of the default entry.
const DEFAULT_IMAGE: &str = "boot.efi";

/// Boots the default image of a disk with Secure Boot. The server has no file but the description of the disk.
fn boot_default_image(firmware: Firmware, way: &str) {
    let names = [HTTP_BOOT_FILE, TFTP_BOOT_FILE];
    let dhcp = names.iter().fold(dhcp(""), |dhcp, name| dhcp.replace(name, DEFAULT_IMAGE));
    BootNetwork::test(&dhcp, |network| {
        let disk = DirectDisk(EfiDisk::new(&EfiDisk::path(EfiDisk::VERSIONS[0])));
        let options = "command line: root=UUID=2d7b9a3c ro version=6.1.0-";
        boot_old_new_and_old(network, firmware, way, options, disk);
    });
}

#[test]
#[ignore = "takes 45 s"]
fn firmware_boots_the_default_unified_kernel_image_over_http() {
    boot_default_image(Firmware::SecureHttp4, "over HTTP");
}

#[test]
#[ignore = "takes 90 s"]
fn firmware_boots_the_default_unified_kernel_image_over_tftp() {
    boot_default_image(Firmware::SecureTftp4, "over TFTP");
}

/// Boots signed images on the disk with Secure Boot. The server has no file but the description of the disk.
fn boot_signed_images(firmware: Firmware) {
    let dhcp = [HTTP_BOOT_FILE, TFTP_BOOT_FILE].iter().fold(dhcp(""), |dhcp, name| dhcp.replace(name, BOOT_FILE));
    BootNetwork::test(&dhcp, |network| {
        let [old, new] = EfiDisk::VERSIONS;
        let disk = EfiDisk::new(BOOT_FILE);
        network.daemon().put_disk(CLIENT, &disk.config());
        let assert_starts = |version| {
            let printed = network.boot(firmware);
            let options = format!("command line: root=UUID=2d7b9a3c ro version={version}");
            for text in [format!("kernel {version} has started"), options, format!("initrd: initramfs {version}")] {
                assert!(printed.contains(&text), "`{text}`:\n{printed}");
            }
        };
        assert_starts(old);

        let mut changed = unified_kernel(old);
        let middle = changed.len() / 2;
        changed[middle] ^= 1;
        disk.install(BOOT_FILE, &changed);
        let printed = network.boot_until(firmware, &["Access Denied", "Security Violation"]);
        assert!(!printed.contains("has started"), "{printed}");

        disk.install(BOOT_FILE, &unified_kernel(new));
        assert_starts(new);
    });
}

#[test]
#[ignore = "takes 60 s"]
fn secure_boot_accepts_only_signed_images_on_the_disk_over_http() {
    boot_signed_images(Firmware::SecureHttp4);
}

#[test]
#[ignore = "takes 90 s"]
fn secure_boot_accepts_only_signed_images_on_the_disk_over_tftp() {
    boot_signed_images(Firmware::SecureTftp4);
}

#[test]
#[ignore = "takes 5 min"]
fn secure_boot_accepts_only_what_debian_has_signed_on_the_disk() {
    let dhcp = dhcp("dhcp-no-override\n").replace(TFTP_BOOT_FILE, SecureDebianDisk::SHIM);
    BootNetwork::test(&dhcp, |network| {
        let (disk, firmware) = (SecureDebianDisk::create(), Firmware::MicrosoftTftp4);
        network.daemon().put_disk(CLIENT, &disk.config());
        let assert_starts = |version: &str| {
            let printed = network.boot(firmware);
            for text in [
                format!("kernel {} has started", disk.release()),
                format!("initrd: initramfs {version}"),
                format!(
                    "command line: BOOT_IMAGE=/boot/vmlinuz-{version} root=/dev/mapper/board-root ro console=ttyS0 quiet"
                ),
                "lockdown: none [integrity] confidentiality".to_owned(),
            ] {
                assert!(printed.contains(&text), "`{text}`:\n{printed}");
            }
            let kernel = format!("boot/vmlinuz-{version}");
            for name in [SecureDebianDisk::SHIM, SecureDebianDisk::GRUB, "grub/grub.cfg", &kernel] {
                network.daemon().logged(&[name, &format!("from {CLIENT}.nbd"), "complete"]);
            }
        };
        let (old, new) = (disk.release(), disk.upgrade_version());
        let checked = CheckResult::of(&Tree::new().file("10.0.0.6.nbd", disk.config().to_string()), &[]);
        for (path, signer, end) in [
            (SecureDebianDisk::SHIM, "Microsoft Windows UEFI Driver Publisher", ""),
            (SecureDebianDisk::GRUB, "Debian Secure Boot Signer", " - grub2"),
            (&*format!("boot/vmlinuz-{old}"), "Debian Secure Boot Signer", " - linux"),
        ] {
            let start = format!("  {path}: signed by {signer}");
            let is_named = |line: &str| line.starts_with(&start) && line.ends_with(end);
            assert!(checked.stdout.lines().any(is_named), "{path}: {signer}\n{}", checked.stdout);
        }

        assert_starts(old);
        disk.upgrade(true);
        let printed = network.boot_until(firmware, &["bad shim signature"]);
        assert!(!printed.contains("has started"), "{printed}");
        disk.upgrade(false);
        assert_starts(&new);
        disk.remove_upgrade();
        assert_starts(old);
        disk.change_grub();
        let printed = network.boot_until(firmware, &["Security Violation", "Access Denied"]);
        assert!(!printed.contains("has started"), "{printed}");
    });
}
