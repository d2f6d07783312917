//! Machines boot from their own disks. The server has nothing but the description of the disk and a boot loader: the boot menu is
//! generated from the files on the disk. After an upgrade on the disk the next boot starts the new kernel, even if the power was cut
//! right after it, and after its removal the old one.
//!
//! A boot takes 5 to 40 s, so all tests are ignored by default; `tests/long.sh disk-boot` runs them.

mod efi;

use std::path::Path;

use rtftp_tests::{
    BootNetwork, DebianDisk, DiskConfig, Firmware, OwnerSystem, U_BOOT, board_kernel,
    boot_guide::{HTTP_BOOT_FILE, TFTP_BOOT_FILE, dhcp, grub, installed, u_boot_commands},
    not_tested,
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
