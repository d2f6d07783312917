//! Boot menus that the daemon generates from the disks of clients.

use rtftp_tests::{Disk, DiskConfig, FileSystem, NbdServer, Rtftp, Tree, efi_program};

/// Returns the files of a Debian system without a boot partition.
fn debian() -> Tree {
    Tree::new()
        .file("boot/vmlinuz-6.1.0-9-amd64", "old kernel")
        .file("boot/initrd.img-6.1.0-9-amd64", "old initrd")
        .file("boot/vmlinuz-6.1.0-10-amd64", "new kernel")
        .file("boot/initrd.img-6.1.0-10-amd64", "new initrd")
        .file("etc/default/grub", "GRUB_CMDLINE_LINUX=console=ttyS0\nGRUB_CMDLINE_LINUX_DEFAULT=\"quiet\"\n")
        .file("etc/fstab", "UUID=7 / ext4 defaults 0 1\n")
}

/// Starts a daemon that treats every request as a new boot.
fn daemon() -> Rtftp {
    Rtftp::start_with("127.0.0.1", 3600, &["--view-gap", "0"])
}

/// Fetches all paths in a `grub.cfg` as a client; returns the texts.
fn fetch_files(daemon: &Rtftp, client: &str, menu: &str) -> Vec<String> {
    let commands = menu.lines().map(str::trim).filter(|line| line.starts_with("linux ") || line.starts_with("initrd "));
    let paths = commands.filter_map(|line| line.split(' ').nth(1));
    paths.map(|path| daemon.fetch(client, path).unwrap_or_else(|code| panic!("ERROR {code}: {path}\n{menu}"))).collect()
}

#[test]
fn generates_menus_from_the_kernels_of_debian() {
    let disk = Disk::whole(32, FileSystem::Ext4(&debian()));
    let server = NbdServer::nbdkit(&disk);
    let daemon = daemon();
    daemon.put_disk("127.0.0.1", &DiskConfig::new(server.url()).partition(0, "/"));
    let menu = daemon.fetch("127.0.0.1", "/grub/grub.cfg").expect("a menu");
    assert_eq!(fetch_files(&daemon, "127.0.0.1", &menu), ["new kernel", "new initrd", "old kernel", "old initrd"]);
    for line in [
        "set default='6.1.0-10-amd64'",
        "  # boot/vmlinuz-6.1.0-10-amd64, etc/default/grub, root= of etc/fstab",
        "  linux /boot/vmlinuz-6.1.0-10-amd64 root=UUID=7 ro console=ttyS0 quiet",
    ] {
        assert!(menu.lines().any(|found| found == line), "{line}\n{menu}");
    }
    for (name, start) in
        [("pxelinux.cfg/default", "# Generated"), ("extlinux/extlinux.conf", "# Generated"), ("boot.ipxe", "#!ipxe\n")]
    {
        let menu = daemon.fetch("127.0.0.1", name).expect("a menu");
        assert!(menu.starts_with(start) && menu.contains("boot/initrd.img-6.1.0-10-amd64"), "{menu}");
    }
    assert_eq!(daemon.fetch("127.0.0.1", "pxelinux.cfg/01-52-54-00-00-00-01"), Err(1));

    daemon.put_disk("127.0.0.2", &DiskConfig::new(server.url()).partition(0, "/").tftp_root("/boot"));
    let menu = daemon.fetch("127.0.0.2", "/grub/grub.cfg").expect("a menu");
    assert!(menu.contains("linux /vmlinuz-6.1.0-10-amd64 root=UUID=7"), "{menu}");
    assert_eq!(fetch_files(&daemon, "127.0.0.2", &menu).len(), 4);
    daemon.put_disk("127.0.0.3", &DiskConfig::new(server.url()).partition(0, "/").tftp_root("/etc"));
    assert_eq!(daemon.fetch("127.0.0.3", "/grub/grub.cfg"), Err(1), "no kernel is below the tftp_root");
}

#[test]
fn generates_menus_from_entries_on_a_boot_partition() {
    let boot = Tree::new()
        .file(
            "loader/entries/id-6.9.conf",
            "title Fedora 6.9\nlinux /vmlinuz-6.9\ninitrd /initramfs-6.9.img\noptions $kernelopts\n",
        )
        .file(
            "loader/entries/id-6.10.conf",
            "title Fedora 6.10\nlinux /vmlinuz-6.10\noptions $kernelopts $tuned_params\n",
        )
        .file("grub2/grubenv", "# GRUB Environment Block\nsaved_entry=id-6.9\nkernelopts=root=UUID=7 ro\n")
        .file("vmlinuz-6.9", "old kernel")
        .file("initramfs-6.9.img", "old initrd")
        .file("vmlinuz-6.10", "new kernel");
    let disk =
        Disk::gpt(&[(1, 32, FileSystem::Ext4(&boot)), (2, 32, FileSystem::Ext4(&Tree::new().directory("boot")))]);
    let server = NbdServer::nbdkit(&disk);
    let daemon = daemon();
    let config = DiskConfig::new(server.url()).partition(2, "/").partition(1, "/boot");
    for (client, config) in [
        ("127.0.0.1", config),
        ("127.0.0.2", DiskConfig::new(server.url()).partition(2, "/").partition(1, "/boot").tftp_root("/boot")),
        ("127.0.0.3", DiskConfig::new(server.url()).partition(1, "/")),
    ] {
        daemon.put_disk(client, &config);
        let menu = daemon.fetch(client, "/grub/grub.cfg").expect("a menu");
        assert_eq!(fetch_files(&daemon, client, &menu), ["new kernel", "old kernel", "old initrd"], "{client}");
        assert!(menu.contains("set default='id-6.9'\n") && menu.contains("vmlinuz-6.10 root=UUID=7 ro\n"), "{menu}");
    }
}

#[test]
fn files_of_disks_and_directories_go_before_generated_ones() {
    let disk = Disk::whole(32, FileSystem::Ext4(&debian().file("boot/grub/grub.cfg", "of the disk")));
    let server = NbdServer::nbdkit(&disk);
    let daemon = daemon();
    daemon.put_disk("127.0.0.1", &DiskConfig::new(server.url()).partition(0, "/"));
    assert_eq!(daemon.fetch("127.0.0.1", "/boot/grub/grub.cfg").as_deref(), Ok("of the disk"));
    daemon.put("default/boot.ipxe", "of the server");
    assert_eq!(daemon.fetch("127.0.0.1", "boot.ipxe").as_deref(), Ok("of the server"));
    assert!(daemon.fetch("127.0.0.1", "/grub/grub.cfg").is_ok());
    assert_eq!(daemon.fetch("127.0.0.9", "/grub/grub.cfg"), Err(1), "a client without a disk");
}

#[test]
fn description_changes_command_lines_and_default() {
    let disk = Disk::whole(32, FileSystem::Ext4(&debian()));
    let server = NbdServer::nbdkit(&disk);
    let daemon = daemon();
    let config = || DiskConfig::new(server.url()).partition(0, "/");
    let boot = r#"{"append": "nbdroot=nas,5", "remove": ["quiet", "root"], "default": "6.1.0-9*", "timeout": 0}"#;
    daemon.put_disk("127.0.0.1", &config().boot(boot));
    daemon.put("127.0.0.0_24.nbd", config().boot(r#"{"append": "nbdroot=nas,{ip}"}"#).to_string());
    let menu = daemon.fetch("127.0.0.1", "/grub/grub.cfg").expect("a menu");
    for line in [
        "# default: boot.default of the description",
        "set default='6.1.0-9-amd64'",
        "set timeout=0",
        "  linux /boot/vmlinuz-6.1.0-9-amd64 ro console=ttyS0 nbdroot=nas,5",
    ] {
        assert!(menu.lines().any(|found| found == line), "{line}\n{menu}");
    }
    for client in ["127.0.0.2", "127.0.0.3"] {
        let menu = daemon.fetch(client, "/grub/grub.cfg").expect("a menu");
        let end = format!(" root=UUID=7 ro console=ttyS0 quiet nbdroot=nas,{client}");
        assert_eq!(menu.lines().filter(|line| line.ends_with(&end)).count(), 2, "{menu}");
        assert_eq!(fetch_files(&daemon, client, &menu).len(), 4);
    }
}

#[test]
fn chains_unified_kernel_images_of_the_efi_system_partition() {
    let image = |version: &str| {
        let (os, uname) = ("ID=debian\nPRETTY_NAME=\"Debian 12\"\n", format!("{version}\0"));
        let sections: [(&str, &[u8]); 4] = [
            (".osrel", os.as_bytes()),
            (".cmdline", b"root=UUID=7 ro"),
            (".uname", uname.as_bytes()),
            (".linux", version.as_bytes()),
        ];
        efi_program(&sections, b"")
    };
    let esp = Tree::new()
        .file("EFI/Linux/debian-6.9.efi", image("6.9"))
        .file("EFI/Linux/debian-6.10.efi", image("6.10"))
        .file("EFI/Linux/broken.efi", "MZ");
    let root = Tree::new().directory("boot/efi");
    let disk = Disk::gpt(&[(1, 40, FileSystem::Vfat(&esp)), (2, 32, FileSystem::Ext4(&root))]);
    let server = NbdServer::nbdkit(&disk);
    let daemon = daemon();
    daemon.put_disk("127.0.0.1", &DiskConfig::new(server.url()).partition(2, "/").partition(1, "/boot/efi"));
    let menu = daemon.fetch("127.0.0.1", "/grub/grub.cfg").expect("a menu");
    let entries: Vec<&str> = menu.lines().filter(|line| line.starts_with("menuentry")).collect();
    assert_eq!(
        entries,
        ["menuentry 'Debian 12 (6.10)' --id 'debian-6.10' {", "menuentry 'Debian 12 (6.9)' --id 'debian-6.9' {"]
    );
    let path = "/boot/efi/EFI/Linux/debian-6.10.efi";
    assert!(menu.contains(&format!("\n  chainloader {path}\n")), "{menu}");
    assert!(daemon.fetch("127.0.0.1", path).is_ok_and(|file| file.starts_with("MZ")));
    let script = daemon.fetch("127.0.0.1", "boot.ipxe").expect("a script");
    assert!(script.contains(&format!("\nkernel {} root=UUID=7 ro || goto /failed\n", &path[1..])), "{script}");
    assert_eq!(daemon.fetch("127.0.0.1", "pxelinux.cfg/default"), Err(1), "PXELINUX loads no EFI program");
    assert_eq!(daemon.fetch("127.0.0.1", "boot.efi"), daemon.fetch("127.0.0.1", path), "the image itself");

    let appended =
        DiskConfig::new(server.url()).partition(2, "/").partition(1, "/boot/efi").boot(r#"{"append": "x=1"}"#);
    daemon.put_disk("127.0.0.1", &appended);
    let menu = daemon.fetch("127.0.0.1", "/grub/grub.cfg").expect("a menu");
    assert!(menu.contains(&format!("\n  chainloader {path} root=UUID=7 ro x=1\n")), "{menu}");
}

#[test]
fn passes_entries_of_extlinux_to_u_boot_over_the_network() {
    let configuration = "default l0\nmenu title U-Boot menu\nlabel l0\n\tmenu label Debian 6.1.0-10\n\
                         \tlinux /boot/vmlinuz-6.1.0-10\n\tinitrd /boot/initrd.img-6.1.0-10\n\
                         \tfdtdir /usr/lib/linux-image-6.1.0-10/\n\tappend root=UUID=7 ro\n\
                         label l1\n\tlinux ../vmlinuz-6.1.0-9\n\tappend root=UUID=7 ro\n\
                         label gone\n\tlinux /boot/gone\n";
    let tree = Tree::new()
        .file("boot/extlinux/extlinux.conf", configuration)
        .file("boot/vmlinuz-6.1.0-10", "new kernel")
        .file("boot/initrd.img-6.1.0-10", "new initrd")
        .file("boot/vmlinuz-6.1.0-9", "old kernel")
        .file("usr/lib/linux-image-6.1.0-10/board.dtb", "device tree");
    let disk = Disk::whole(32, FileSystem::Ext4(&tree));
    let server = NbdServer::nbdkit(&disk);
    let daemon = daemon();
    daemon.put_disk("127.0.0.1", &DiskConfig::new(server.url()).partition(0, "/"));
    let menu = daemon.fetch("127.0.0.1", "pxelinux.cfg/default").expect("a menu");
    for line in [
        "default l0",
        "# boot/extlinux/extlinux.conf, label gone left out: /boot/gone not found",
        "  menu label Debian 6.1.0-10",
        "  fdtdir usr/lib/linux-image-6.1.0-10",
        "  linux boot/vmlinuz-6.1.0-9",
    ] {
        assert!(menu.lines().any(|found| found == line), "{line}\n{menu}");
    }
    assert_eq!(fetch_files(&daemon, "127.0.0.1", &menu), ["new kernel", "new initrd", "old kernel"]);
}
