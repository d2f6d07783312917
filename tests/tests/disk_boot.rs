//! Machines boot from their own disks. The server has nothing but the description of the disk and a boot loader: the boot menu is
//! generated from the files on the disk. After an upgrade on the disk the next boot starts the new kernel, even if the power was cut
//! right after it, and after its removal the old one.
//!
//! A boot takes 5 to 40 s, so all tests are ignored by default; `tests/long.sh disk-boot` runs them.

use std::path::Path;

use rtftp_tests::{
    BootNetwork, DebianDisk, Disk, DiskConfig, FileSystem, Firmware, NbdServer, OwnerSystem, SecureDebianDisk, Tree,
    U_BOOT, board_kernel,
    boot_guide::{HTTP_BOOT_FILE, TFTP_BOOT_FILE, dhcp, grub, installed, u_boot_commands},
    boot_kernel, initrd, not_tested,
    rtftp_check::CheckResult,
    signed_unified_kernel,
};

/// The address of the machine.
const CLIENT: &str = "10.0.0.6";

/// A system with a kernel that is upgraded.
trait System {
    /// The versions of the first kernel and of its upgrade.
    fn versions(&self) -> [&'static str; 2];
    /// A part of the name under which a kernel is requested.
    fn requested(&self, version: &'static str) -> &'static str {
        version
    }
    /// The description of the disk.
    fn config(&self) -> DiskConfig;
    fn upgrade(&mut self);
    fn remove_upgrade(&mut self);
}

impl System for DebianDisk {
    fn versions(&self) -> [&'static str; 2] {
        [Self::OLD, Self::NEW]
    }

    fn config(&self) -> DiskConfig {
        let changes = r#"{"append": "nbdroot=10.0.0.1,board6", "remove": ["quiet"], "timeout": 1}"#;
        self.config().boot(changes)
    }

    fn upgrade(&mut self) {
        Self::upgrade(self);
    }

    fn remove_upgrade(&mut self) {
        Self::remove_upgrade(self);
    }
}

impl System for OwnerSystem {
    fn versions(&self) -> [&'static str; 2] {
        self.versions()
    }

    fn config(&self) -> DiskConfig {
        self.config()
    }

    fn upgrade(&mut self) {
        self.upgrade_and_cut_power();
    }

    fn remove_upgrade(&mut self) {
        Self::remove_upgrade(self);
    }
}

/// Boots a machine, upgrades its system, boots it, removes the upgrade, and boots it again. `way` is `over HTTP` or `over TFTP`, and
/// `options` a part of the command line.
fn boot_old_new_and_old(network: &BootNetwork, firmware: Firmware, way: &str, options: &str, mut system: impl System) {
    let [old, new] = system.versions();
    network.daemon().put_disk(CLIENT, &system.config());
    let names = [old, new].map(|version| (version, system.requested(version)));
    assert_boots(network, firmware, way, options, names[0]);
    system.upgrade();
    assert_boots(network, firmware, way, options, names[1]);
    system.remove_upgrade();
    assert_boots(network, firmware, way, options, names[0]);
}

/// Boots a machine, and asserts that it starts the kernel with this version and name, with its initrd and command line, from its disk.
fn assert_boots(network: &BootNetwork, firmware: Firmware, way: &str, options: &str, (version, name): (&str, &str)) {
    let delivered = || {
        let lines = network.daemon().log_lines(&[name, &format!("from {CLIENT}.nbd"), "complete"]);
        lines.iter().filter(|line| line.contains("over HTTP") == (way == "over HTTP")).count()
    };
    let before = delivered();
    let printed = network.boot(firmware);
    let mut expected = vec![format!("kernel {version} has started")];
    // The kernel for ARM prints only its version.
    if !matches!(firmware, Firmware::UBoot(_)) {
        expected.extend([format!("initrd: initramfs {version}"), options.to_owned()]);
    }
    for text in expected {
        assert!(printed.contains(&text), "`{text}`:\n{printed}");
    }
    assert!(delivered() > before, "{version} {way}");
}

/// Installs a boot loader on the server, which is the only other file there.
fn install_grub(network: &BootNetwork, boot_file: &str) {
    network.daemon().put(&format!("default/{boot_file}"), grub(boot_file));
}

#[test]
#[ignore = "takes 90 s"]
fn rocky_boots_from_xfs_over_tftp_after_a_power_cut() {
    BootNetwork::test(&dhcp(""), |network| {
        install_grub(network, TFTP_BOOT_FILE);
        let options = "root=UUID=2d7b9a3c ro crashkernel=192M";
        boot_old_new_and_old(network, Firmware::UefiTftp4, "over TFTP", options, OwnerSystem::rocky());
    });
}

#[test]
#[ignore = "takes 90 s"]
fn opensuse_boots_from_btrfs_over_http_after_a_power_cut() {
    BootNetwork::test(&dhcp(""), |network| {
        install_grub(network, HTTP_BOOT_FILE);
        let options = "root=UUID=2d7b9a3c ro splash=silent quiet";
        boot_old_new_and_old(network, Firmware::UefiHttp4, "over HTTP", options, OwnerSystem::opensuse());
    });
}

/// A Debian system with the command line of all and of the default entry, and the menu of its own GRUB, which needs a local disk.
fn debian() -> DebianDisk {
    let menu = "search --no-floppy --fs-uuid --set=root 2d7b9a3c\nset root='hd0,gpt2'\n\
                menuentry 'Debian' { linux /boot/vmlinuz-6.1.0-9-amd64 root=UUID=2d7b9a3c ro quiet }\n";
    DebianDisk::new(|tree| {
        tree.file("boot/grub/grub.cfg", menu)
            .file("etc/fstab", "UUID=2d7b9a3c / ext4 errors=remount-ro 0 1\n")
            .file("etc/default/grub", "GRUB_CMDLINE_LINUX_DEFAULT=\"quiet\"\nGRUB_CMDLINE_LINUX=\"console=ttyS0\"\n")
    })
}

/// The command line with the changes in the description.
const DEBIAN_OPTIONS: &str = "root=UUID=2d7b9a3c ro console=ttyS0 nbdroot=10.0.0.1,board6";

#[test]
#[ignore = "takes 45 s"]
fn debian_boots_with_grub_over_tftp() {
    BootNetwork::test(&dhcp(""), |network| {
        install_grub(network, TFTP_BOOT_FILE);
        boot_old_new_and_old(network, Firmware::UefiTftp4, "over TFTP", DEBIAN_OPTIONS, debian());
    });
}

#[test]
#[ignore = "takes 45 s"]
fn debian_boots_with_grub_over_http() {
    BootNetwork::test(&dhcp(""), |network| {
        install_grub(network, HTTP_BOOT_FILE);
        boot_old_new_and_old(network, Firmware::UefiHttp4, "over HTTP", DEBIAN_OPTIONS, debian());
    });
}

#[test]
#[ignore = "takes 25 s"]
fn debian_boots_with_ipxe() {
    BootNetwork::test(&dhcp(""), |network| {
        boot_old_new_and_old(network, Firmware::BiosIpxe, "over HTTP", DEBIAN_OPTIONS, debian());
    });
}

#[test]
#[ignore = "takes 25 s"]
fn debian_boots_with_pxelinux() {
    // iPXE in the ROM is the firmware here: it gets the boot file of PCs with BIOS.
    let dhcp = dhcp("dhcp-match=set:bios,option:client-arch,0\ndhcp-boot=tag:bios,pxelinux.0,,10.0.0.1\n");
    let dhcp = dhcp.replace("dhcp-boot=tag:ipxe,http://10.0.0.1/boot.ipxe\n", "");
    BootNetwork::test(&dhcp, |network| {
        for path in ["/usr/lib/PXELINUX/pxelinux.0", "/usr/lib/syslinux/modules/bios/ldlinux.c32"] {
            let name = path.rsplit('/').next().expect("a name");
            network.daemon().put(&format!("default/{name}"), installed(path));
        }
        boot_old_new_and_old(network, Firmware::BiosIpxe, "over TFTP", DEBIAN_OPTIONS, debian());
    });
}

/// A board whose system has a menu for U-Boot, as `u-boot-menu` writes it.
struct Board(DebianDisk);

impl Board {
    const MENU: &str = "boot/extlinux/extlinux.conf";

    fn menu(versions: &[&str]) -> String {
        let entry = |(number, version): (usize, &&str)| {
            format!(
                "label l{number}\n\tmenu label Armbian {version}\n\tlinux /boot/vmlinuz-{version}\n\
                 \tinitrd /boot/initrd.img-{version}\n\tfdtdir /usr/lib/linux-image-{version}/\n\n\
                 \tappend root=UUID=2d7b9a3c ro quiet\n\n"
            )
        };
        let entries: String = versions.iter().enumerate().map(entry).collect();
        format!(
            "## /boot/extlinux/extlinux.conf\n\ndefault l0\nmenu title U-Boot menu\nprompt 0\ntimeout 50\n\n{entries}"
        )
    }
}

impl System for Board {
    fn versions(&self) -> [&'static str; 2] {
        self.0.versions()
    }

    fn config(&self) -> DiskConfig {
        self.0.config().tftp_root("/")
    }

    fn upgrade(&mut self) {
        self.0.upgrade();
        self.0.write(Self::MENU, Self::menu(&[DebianDisk::NEW, DebianDisk::OLD]).as_bytes());
    }

    fn remove_upgrade(&mut self) {
        self.0.remove_upgrade();
        self.0.write(Self::MENU, Self::menu(&[DebianDisk::OLD]).as_bytes());
    }
}

#[test]
#[ignore = "takes 30 s"]
fn board_boots_with_u_boot() {
    if !Path::new(U_BOOT).exists() {
        return not_tested(format_args!("no {U_BOOT}: install u-boot-qemu"));
    }
    BootNetwork::test(&dhcp(""), |network| {
        let menu = Board::menu(&[DebianDisk::OLD]);
        let disk = DebianDisk::with_kernel(board_kernel, |tree| tree.file(Board::MENU, menu));
        boot_old_new_and_old(network, Firmware::UBoot(u_boot_commands()), "over TFTP", "", Board(disk));
    });
}

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
