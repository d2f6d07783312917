//! Systems whose own kernel upgrades their disk.

use crate::{
    BTRFS_MODULES, Disk, DiskConfig, FileSystem, NbdServer, OwnerMachine, Tree, boot_kernel, grub, initrd, noise,
};

/// The size of a kernel in bytes.
const KERNEL_SIZE: usize = 1_500_000;

/// What systems differ in.
#[derive(Debug)]
struct Layout {
    /// The versions of the first kernel and of its upgrade.
    versions: [&'static str; 2],
    /// Kernel modules.
    modules: &'static [&'static str],
    /// Creates the directories.
    create: &'static str,
    /// Mounts the file systems below `/mnt`.
    mount: &'static str,
    /// `/boot` for GRUB.
    grub_path: &'static str,
    /// The name of the initramfs before and after the version.
    initramfs: [&'static str; 2],
    /// Links to kernel and initramfs of the newest version.
    links: &'static [&'static str],
    /// The start of the names of boot entries; empty if there are none.
    machine_id: &'static str,
}

/// `/boot` and `/` are XFS; a boot entry for each kernel, and the default one in `grubenv`.
const ROCKY: Layout = Layout {
    versions: ["5.14.0-70.el9.x86_64", "5.14.0-70.13.1.el9.x86_64"],
    modules: &["xfs"],
    create: "mount -t xfs /dev/vda3 /mnt; mkdir -p /mnt/boot /mnt/etc; mount -t xfs /dev/vda2 /mnt/boot
        mkdir -p /mnt/boot/loader/entries /mnt/boot/grub2
        echo 'set default=\"${saved_entry}\"; insmod blscfg; blscfg' >/mnt/boot/grub2/grub.cfg",
    mount: "mount -t xfs /dev/vda3 /mnt && mount -t xfs /dev/vda2 /mnt/boot",
    grub_path: "(loop0,gpt2)",
    initramfs: ["initramfs-", ".img"],
    links: &[],
    machine_id: "5fc9d5bb2e2a4e4c8b7f0d9b0a5d3c11",
};

/// One btrfs, of which the default subvolume is the first snapshot. Its kernels are in `/boot`, without boot entries.
const OPENSUSE: Layout = Layout {
    versions: ["6.4.0-150600.9-default", "6.4.0-150600.21-default"],
    modules: &BTRFS_MODULES,
    create: "mount -t btrfs /dev/vda2 /mnt
        for name in @ @/.snapshots @/home; do btrfs subvolume create /mnt/$name; done
        mkdir -p /mnt/@/.snapshots/1 /mnt/@/.snapshots/2
        btrfs subvolume create /mnt/@/.snapshots/1/snapshot
        btrfs subvolume set-default /mnt/@/.snapshots/1/snapshot
        umount /mnt; mount -t btrfs /dev/vda2 /mnt; cd /mnt
        mkdir -p boot/grub2 etc/default .snapshots
        mount -t btrfs -o subvol=@/.snapshots /dev/vda2 .snapshots
        echo 'search --fs-uuid --set=root 1; configfile /boot/grub2/menu.cfg' >boot/grub2/grub.cfg
        echo 'UUID=2d7b9a3c / btrfs defaults 0 0' >etc/fstab
        echo 'GRUB_CMDLINE_LINUX_DEFAULT=\"splash=silent quiet\"' >etc/default/grub",
    mount: "mount -t btrfs /dev/vda2 /mnt && mount -t btrfs -o subvol=@/.snapshots /dev/vda2 /mnt/.snapshots",
    grub_path: "(loop0,gpt2)/@/.snapshots/1/snapshot/boot",
    initramfs: ["initrd-", ""],
    links: &["vmlinuz", "initrd"],
    machine_id: "",
};

/// A system on a disk, which an [`OwnerMachine`] has mounted.
#[derive(Debug)]
pub struct OwnerSystem {
    layout: &'static Layout,
    image: Disk,
    server: NbdServer,
    owner: OwnerMachine,
}

impl OwnerSystem {
    /// Creates a system like Rocky Linux: an EFI system partition, `/boot` on XFS with entries of the Boot Loader Specification, and `/`
    /// on XFS.
    #[track_caller]
    pub fn rocky() -> Self {
        Self::create(&ROCKY, &[(2, 128, FileSystem::Xfs(&[])), (3, 64, FileSystem::Xfs(&[]))])
    }

    /// Creates a system like openSUSE: an EFI system partition, and `/` with `/boot` on btrfs, in the snapshot that is the default
    /// subvolume.
    #[track_caller]
    pub fn opensuse() -> Self {
        Self::create(&OPENSUSE, &[(2, 256, FileSystem::Btrfs(&[]))])
    }

    #[track_caller]
    fn create(layout: &'static Layout, partitions: &[(u32, u64, FileSystem<'_>)]) -> Self {
        let efi = Tree::new().file("EFI/BOOT/BOOTX64.EFI", noise(100_000, 1));
        let image = Disk::gpt(&[&[(1, 16, FileSystem::Vfat(&efi))], partitions].concat());
        let server = NbdServer::qemu(&image);
        let owner = OwnerMachine::boot_with_modules(&server, layout.modules);
        let mut system = Self { layout, image, server, owner };
        system.owner.run(&format!("set -e\n{}", layout.create));
        system.install(layout.versions[0]);
        system.owner.run("sync");
        system
    }

    /// Returns the versions of the first kernel and of its upgrade.
    pub fn versions(&self) -> [&'static str; 2] {
        self.layout.versions
    }

    /// Returns the description of the disk.
    pub fn config(&self) -> DiskConfig {
        let config = DiskConfig::new(self.server.url()).partition(2, "/");
        if self.layout.machine_id.is_empty() { config.tftp_root("/boot") } else { config }
    }

    /// Installs another kernel, as package managers do, and cuts the power: it is only in the log of the file system.
    #[track_caller]
    pub fn upgrade_and_cut_power(&mut self) {
        let [old, new] = self.layout.versions;
        if self.layout.modules == BTRFS_MODULES {
            self.owner.run("btrfs subvolume snapshot -r /mnt /mnt/.snapshots/2/snapshot");
        }
        self.owner.run("sync");
        self.install(new);
        self.owner.power_cut();
        if grub::is_installed() {
            let path = |version| format!("{}/vmlinuz-{version}", self.layout.grub_path);
            let reads = |version| grub::cat(&self.image.path(), &path(version)).stdout == kernel(version);
            assert!(!reads(new), "GRUB, which ignores the log, reads the new kernel");
            println!("GRUB reads the old kernel from the disk itself: {}; the new one: false", reads(old));
        }
    }

    /// Starts the system again and removes the upgrade.
    #[track_caller]
    pub fn remove_upgrade(&mut self) {
        let Layout { versions: [old, new], modules, mount, machine_id, links, .. } = self.layout;
        self.owner = OwnerMachine::boot_with_modules(&self.server, modules);
        self.owner.run(mount);
        let entry = format!("loader/entries/{machine_id}-{new}.conf");
        self.owner.run(&format!("cd /mnt/boot && rm -f {entry} vmlinuz-{new} {}", self.initramfs(new)));
        self.link(links, old);
        self.owner.run("sync");
    }

    #[track_caller]
    fn install(&mut self, version: &str) {
        self.write(&format!("vmlinuz-{version}"), &kernel(version));
        self.write(&self.initramfs(version), &initrd(version));
        self.link(self.layout.links, version);
        let Layout { machine_id, .. } = self.layout;
        if machine_id.is_empty() {
            return;
        }
        let entry = format!(
            "title Rocky Linux ({version}) 9.0 (Blue Onyx)\nversion {version}\nlinux /vmlinuz-{version}\n\
             initrd /{} $tuned_initrd\noptions root=UUID=2d7b9a3c ro crashkernel=192M $tuned_params\n\
             grub_users $grub_users\ngrub_arg --unrestricted\ngrub_class rocky\n",
            self.initramfs(version)
        );
        self.write(&format!("loader/entries/{machine_id}-{version}.conf"), entry.as_bytes());
        let env = format!("# GRUB Environment Block\nsaved_entry={machine_id}-{version}\nboot_success=0\n");
        self.write("grub2/grubenv", format!("{env:#<1024}").as_bytes());
    }

    fn initramfs(&self, version: &str) -> String {
        let [before, after] = self.layout.initramfs;
        format!("{before}{version}{after}")
    }

    /// Writes a file of `/boot` as package managers do: a temporary name, a flush, a rename.
    #[track_caller]
    fn write(&mut self, name: &str, bytes: &[u8]) {
        let path = format!("/mnt/boot/{name}");
        self.owner.write(&format!("{path}.new"), bytes);
        self.owner.run(&format!("sync {path}.new && mv {path}.new {path} && sync {path}"));
    }

    /// Points the links of `/boot` to the files of a version, without a flush.
    #[track_caller]
    fn link(&mut self, links: &[&str], version: &str) {
        for name in links {
            self.owner.run(&format!("cd /mnt/boot && ln -s {name}-{version} new && mv new {name}"));
        }
    }
}

fn kernel(version: &str) -> Vec<u8> {
    boot_kernel(version, KERNEL_SIZE)
}
