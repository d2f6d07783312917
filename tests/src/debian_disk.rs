//! The disk of a Debian system.

use crate::{Disk, DiskConfig, FileSystem, NbdServer, Tree, boot_kernel};

/// The size of a kernel in bytes.
const KERNEL_SIZE: usize = 3_000_000;

/// The first MiB of the partition with the system.
const START: u64 = 9;

/// A disk with a GPT, an EFI system partition and ext4. The kernels are in `/boot`, and `vmlinuz` and `initrd.img` there are links to the
/// newest one.
#[derive(Debug)]
pub struct DebianDisk {
    image: Disk,
    server: NbdServer,
    kernel: fn(&str, usize) -> Vec<u8>,
}

impl DebianDisk {
    /// The version of the first kernel.
    pub const OLD: &str = "6.1.0-9-amd64";
    /// The version of its upgrade.
    pub const NEW: &str = "6.1.0-10-amd64";

    /// Creates a disk with the kernel [`Self::OLD`], and exports it. `add` adds files.
    #[track_caller]
    pub fn new(add: impl FnOnce(Tree) -> Tree) -> Self {
        Self::with_kernel(boot_kernel, add)
    }

    /// Creates a disk with another kind of kernel, of which the function gets version and size.
    #[track_caller]
    pub fn with_kernel(kernel: fn(&str, usize) -> Vec<u8>, add: impl FnOnce(Tree) -> Tree) -> Self {
        let tree = Tree::new()
            .file(&format!("boot/vmlinuz-{}", Self::OLD), kernel(Self::OLD, KERNEL_SIZE))
            .file(&format!("boot/initrd.img-{}", Self::OLD), initrd(Self::OLD))
            .link("boot/vmlinuz", &format!("vmlinuz-{}", Self::OLD))
            .link("boot/initrd.img", &format!("initrd.img-{}", Self::OLD));
        let image = Disk::gpt(&[(1, 8, FileSystem::Nothing), (2, 64, FileSystem::Ext4(&add(tree)))]);
        let server = NbdServer::qemu(&image);
        Self { image, server, kernel }
    }

    /// Returns the description of the disk.
    pub fn config(&self) -> DiskConfig {
        DiskConfig::new(self.server.url()).partition(2, "/").tftp_root("/boot")
    }

    /// Installs the kernel [`Self::NEW`].
    #[track_caller]
    pub fn upgrade(&self) {
        self.write(&format!("/boot/vmlinuz-{}", Self::NEW), &(self.kernel)(Self::NEW, KERNEL_SIZE));
        self.write(&format!("/boot/initrd.img-{}", Self::NEW), &initrd(Self::NEW));
        self.change(&links(Self::NEW));
    }

    /// Removes the kernel [`Self::NEW`].
    #[track_caller]
    pub fn remove_upgrade(&self) {
        let remove = ["vmlinuz", "initrd.img"].map(|name| format!("rm /boot/{name}-{}\n", Self::NEW));
        self.change(&(remove.concat() + &links(Self::OLD)));
    }

    /// Writes or replaces a file.
    #[track_caller]
    pub fn write(&self, path: &str, bytes: &[u8]) {
        self.image.write_to_ext4(START, path, bytes);
    }

    /// Changes the file system with these commands of debugfs.
    #[track_caller]
    fn change(&self, commands: &str) {
        self.image.change_ext4(START, commands);
    }
}

/// Returns the commands that link to the files of this version.
fn links(version: &str) -> String {
    let link = |name| format!("rm /boot/{name}\nsymlink /boot/{name} {name}-{version}\n");
    ["vmlinuz", "initrd.img"].map(link).concat()
}

/// Returns an initrd for a [`boot_kernel`], which prints `initrd: initramfs VERSION`.
pub fn initrd(version: &str) -> Vec<u8> {
    format!("initramfs {version}\0").into_bytes()
}
