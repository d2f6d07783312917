//! The disk of a Debian system that boots with Secure Boot from the network: shim, GRUB and the kernel are those that Debian signs.

use std::fs;

use crate::{
    Disk, DiskConfig, FileSystem, NbdServer, Tree,
    boot_guide::installed,
    kernel::{Initramfs, Kernel},
};

/// The first MiB of the EFI system partition, and of the boot partition.
const EFI: u64 = 1;
const BOOT: u64 = 65;

/// The signed boot loaders, of the packages shim-signed and grub-efi-amd64-signed.
const SIGNED_SHIM: &str = "/usr/lib/shim/shimx64.efi.signed";
const SIGNED_GRUB: &str = "/usr/lib/grub/x86_64-efi-signed/grubnetx64.efi.signed";

/// The init program: prints what was loaded and turns the machine off.
const INIT: &str = r#"#!/bin/busybox sh
export PATH=/bin
/bin/busybox --install -s /bin
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t securityfs security /sys/kernel/security
{
    echo "kernel $(uname -r) has started"
    echo "initrd: initramfs VERSION"
    echo "command line: $(cat /proc/cmdline)"
    echo "lockdown: $(cat /sys/kernel/security/lockdown)"
} >/dev/ttyS0
poweroff -f
"#;

/// A disk with a GPT, an EFI system partition, in which an administrator has put shim and GRUB for the network, and a boot partition.
#[derive(Debug)]
pub struct SecureDebianDisk {
    image: Disk,
    server: NbdServer,
    release: String,
    kernel: Vec<u8>,
}

impl SecureDebianDisk {
    /// The path of shim, the boot file.
    pub const SHIM: &str = "EFI/netboot/shimx64.efi";
    /// The path of GRUB, for which shim asks.
    pub const GRUB: &str = "EFI/netboot/grubx64.efi";

    /// Creates a disk with one kernel, and exports it.
    #[track_caller]
    pub fn create() -> Self {
        let found = Kernel::installed();
        let (release, path) = (found.release().to_owned(), found.image());
        let kernel = fs::read(&path).unwrap_or_else(|error| panic!("this test needs {}: {error}", path.display()));
        let efi = Tree::new()
            .file(Self::SHIM, installed(SIGNED_SHIM))
            .file(Self::GRUB, installed(SIGNED_GRUB))
            .directory("boot");
        let boot = Tree::new()
            .file(&format!("vmlinuz-{release}"), &kernel)
            .file(&format!("initrd.img-{release}"), initramfs(&release))
            .file("grub/grub.cfg", "search --no-floppy --fs-uuid --set=root 2d7b9a3c\n");
        let image = Disk::gpt(&[(1, BOOT - EFI, FileSystem::Vfat(&efi)), (2, 96, FileSystem::Ext4(&boot))]);
        let server = NbdServer::qemu(&image);
        Self { image, server, release, kernel }
    }

    /// Returns the description of the disk.
    pub fn config(&self) -> DiskConfig {
        let changes = r#"{"append": "root=/dev/mapper/board-root ro console=ttyS0 quiet", "timeout": 1}"#;
        DiskConfig::new(self.server.url()).partition(1, "/").partition(2, "/boot").boot(changes)
    }

    /// Returns the version that the kernel itself has, which is that of the first one.
    pub fn release(&self) -> &str {
        &self.release
    }

    /// Returns the version of the upgrade.
    pub fn upgrade_version(&self) -> String {
        format!("{}-2", self.release)
    }

    /// Installs the kernel under the version of the upgrade, with one byte changed if `is_changed`.
    #[track_caller]
    pub fn upgrade(&self, is_changed: bool) {
        let version = self.upgrade_version();
        let kernel = if is_changed { &changed(&self.kernel) } else { &self.kernel };
        self.image.write_to_ext4(BOOT, &format!("/vmlinuz-{version}"), kernel);
        self.image.write_to_ext4(BOOT, &format!("/initrd.img-{version}"), &initramfs(&version));
    }

    /// Removes the upgrade.
    #[track_caller]
    pub fn remove_upgrade(&self) {
        let version = self.upgrade_version();
        self.image.change_ext4(BOOT, &format!("rm /vmlinuz-{version}\nrm /initrd.img-{version}\n"));
    }

    /// Changes one byte of GRUB.
    #[track_caller]
    pub fn change_grub(&self) {
        self.image.write_to_fat(EFI, Self::GRUB, &changed(&installed(SIGNED_GRUB)));
    }
}

/// Returns a file with one byte changed.
fn changed(file: &[u8]) -> Vec<u8> {
    let mut changed = file.to_vec();
    changed[file.len() / 2] ^= 1;
    changed
}

/// Returns an initramfs that prints `initrd: initramfs VERSION` and what the kernel says about itself.
fn initramfs(version: &str) -> Vec<u8> {
    let directories = ["bin", "dev", "proc", "sys"].into_iter().fold(Initramfs::default(), Initramfs::directory);
    directories.program("/bin/busybox").init(&INIT.replace("VERSION", version)).finish()
}
