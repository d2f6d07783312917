//! The Linux kernel of this machine and an initramfs, to boot a virtual machine.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::process::{output, run};

/// An installed kernel with its modules.
#[derive(Debug)]
pub(crate) struct Kernel {
    release: String,
}

impl Kernel {
    /// Returns any installed kernel.
    #[track_caller]
    pub(crate) fn installed() -> Self {
        let modules = fs::read_dir("/lib/modules").into_iter().flatten();
        let releases = modules.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let mut kernels = releases.map(|release| Self { release });
        let found = kernels.find(|kernel| kernel.image().exists() && kernel.modules_dir().join("modules.dep").exists());
        found.expect("this test needs a kernel with its modules: the package linux-image-...")
    }

    /// Writes the kernel to a directory in the form that boots fastest, and returns the path.
    ///
    /// An emulated processor needs seconds to decompress a kernel from xz, so this is done here. For the location of the payload see
    /// Documentation/arch/x86/boot.rst, `setup_sects` and `payload_offset`. Kernels in other formats decompress themselves.
    #[track_caller]
    pub(crate) fn write_to(&self, directory: &Path) -> PathBuf {
        let image = read(&self.image());
        let setup = (usize::from(image[0x1f1]) + 1) * 512;
        let payload = u32::from_le_bytes(image[0x248..0x24c].try_into().expect("four bytes"));
        let packed = image.get(setup + payload as usize..).filter(|packed| packed.starts_with(b"\xfd7zXZ\0"));
        let path = directory.join("kernel");
        fs::write(&path, packed.unwrap_or(&image)).expect("write a file");
        if packed.is_some() {
            // The size of the decompressed kernel follows the payload.
            let unpacked = run("xz", ["-dc".as_ref(), "--single-stream".as_ref(), path.as_os_str()]).stdout;
            fs::write(&path, unpacked).expect("write a file");
        }
        path
    }

    /// Returns the version, as `uname -r` prints it.
    pub(crate) fn release(&self) -> &str {
        &self.release
    }

    /// Returns the path of the kernel.
    pub(crate) fn image(&self) -> PathBuf {
        format!("/boot/vmlinuz-{}", self.release).into()
    }

    /// Returns the modules with these names and their dependencies, in the order in which they can be loaded.
    #[track_caller]
    pub(crate) fn modules(&self, names: &[&str]) -> Vec<PathBuf> {
        let list = |file| fs::read_to_string(self.modules_dir().join(file)).expect("a list of modules");
        let (dependencies, builtin) = (list("modules.dep"), list("modules.builtin"));
        let mut found = Vec::new();
        for name in names {
            let line =
                dependencies.lines().find(|line| line.split(':').next().is_some_and(|path| is_module(path, name)));
            let Some(line) = line else {
                assert!(
                    builtin.lines().any(|path| is_module(path, name)),
                    "Linux {} has no module {name}",
                    self.release
                );
                continue;
            };
            // `MODULE: DEPENDENCIES`; dependencies further right must be loaded first.
            for path in line.split([':', ' ']).rev().filter(|path| !path.is_empty()) {
                let path = self.modules_dir().join(path);
                if !found.contains(&path) {
                    found.push(path);
                }
            }
        }
        found
    }

    fn modules_dir(&self) -> PathBuf {
        format!("/lib/modules/{}", self.release).into()
    }
}

/// Returns whether this is the path of the module with this name, compressed or not; `-` and `_` are equivalent.
fn is_module(path: &str, name: &str) -> bool {
    let file = path.rsplit('/').next().unwrap_or(path).replace('-', "_");
    file.split(".ko").next() == Some(name)
}

/// An initramfs: an archive in the "newc" format of cpio.
#[derive(Debug, Default)]
pub(crate) struct Initramfs {
    archive: Vec<u8>,
    inodes: u32,
}

impl Initramfs {
    /// Adds `/init`, a shell script.
    #[must_use]
    pub(crate) fn init(mut self, script: &str) -> Self {
        self.entry("init", 0o100_755, script.as_bytes());
        self
    }

    /// Adds an empty directory.
    #[must_use]
    pub(crate) fn directory(mut self, path: &str) -> Self {
        self.entry(path, 0o040_755, &[]);
        self
    }

    /// Adds a program of this machine as `/bin/NAME`, and its shared libraries at their paths.
    #[must_use]
    #[track_caller]
    pub(crate) fn program(mut self, path: &str) -> Self {
        let path = Path::new(path);
        let name = path.file_name().and_then(|name| name.to_str()).expect("the name of a program");
        self.entry(&format!("bin/{name}"), 0o100_755, &read(path));
        // One line per library, `NAME => PATH (ADDRESS)` or `PATH (ADDRESS)`; none for static programs.
        let libraries = output(Command::new("ldd").arg(path)).stdout;
        for library in String::from_utf8_lossy(&libraries).split_whitespace().filter(|word| word.starts_with('/')) {
            let library = Path::new(library);
            let parents: Vec<_> = library.ancestors().skip(1).collect();
            for parent in parents.iter().rev() {
                self.entry(relative(parent), 0o040_755, &[]);
            }
            self.entry(relative(library), 0o100_755, &read(library));
        }
        self
    }

    /// Adds modules as `/modules/NUMBER.ko`, numbered in this order.
    #[must_use]
    #[track_caller]
    pub(crate) fn modules(mut self, modules: &[PathBuf]) -> Self {
        self = self.directory("modules");
        for (number, path) in modules.iter().enumerate() {
            let module = match path.extension().and_then(|extension| extension.to_str()) {
                Some("xz") => run("xz", ["-dc".as_ref(), path.as_os_str()]).stdout,
                Some("zst") => run("zstd", ["-qdc".as_ref(), path.as_os_str()]).stdout,
                _ => read(path),
            };
            self.entry(&format!("modules/{number:03}.ko"), 0o100_644, &module);
        }
        self
    }

    /// Returns the complete archive.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.archive
    }

    /// Adds an entry. Directories may be repeated.
    fn entry(&mut self, name: &str, mode: u32, bytes: &[u8]) {
        self.inodes += 1;
        let size = u32::try_from(bytes.len()).expect("a file of less than 4 GiB");
        let name_size = u32::try_from(name.len() + 1).expect("a short name");
        // Inode, mode, uid, gid, links, mtime, size, two pairs of device numbers, length of the name, checksum.
        let fields = [self.inodes, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name_size, 0];
        let fields = fields.map(|field| format!("{field:08x}")).concat();
        self.archive.extend_from_slice(format!("070701{fields}{name}\0").as_bytes());
        self.pad();
        self.archive.extend_from_slice(bytes);
        self.pad();
    }

    fn pad(&mut self) {
        self.archive.resize(self.archive.len().next_multiple_of(4), 0);
    }
}

fn relative(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8").trim_start_matches('/')
}

#[track_caller]
fn read(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap_or_else(|error| panic!("this test needs {}: {error}", path.display()))
}
