//! The machine that owns a disk: an emulated Linux kernel that has it mounted while the daemon reads it.

use std::{
    env::consts::ARCH,
    fs,
    io::{Read as _, Write as _},
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::PathBuf,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::{
    NbdServer, Process,
    kernel::{Initramfs, Kernel},
};

/// The maximum time to start the machine; software emulation on a busy host is slow.
const START_LIMIT: Duration = Duration::from_secs(120);

/// The maximum time for one command.
const COMMAND_LIMIT: Duration = Duration::from_secs(120);

/// Kernel modules: the disk, the console to the test, the file systems and their undeclared dependencies.
const MODULES: [&str; 9] = [
    "virtio_pci",
    "virtio_blk",
    "virtio_console",
    "crc32c_generic",
    "ext4",
    "vfat",
    "nls_cp437",
    "nls_ascii",
    "nls_utf8",
];

/// The modules that [`boot_with_modules`](OwnerMachine::boot_with_modules) needs for btrfs with any checksum.
pub const BTRFS_MODULES: [&str; 3] = ["btrfs", "xxhash_generic", "blake2b_generic"];

/// The init program. It reads scripts from the console, each terminated by a line `#run`, and runs each in a shell of its own. An
/// answer is the output of the script, NUL, the exit code, NUL; the first answer reports that the machine is ready.
const INIT: &str = r##"#!/bin/busybox sh
export PATH=/bin
/bin/busybox --install -s /bin
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
for module in /modules/*.ko; do insmod $module; done
until [ -c /dev/vport0p1 ]; do usleep 10000; done
exec 0<>/dev/vport0p1 1>&0 2>&1
printf '\0%s\0' 0
script=
while IFS= read -r line; do
    if [ "$line" = '#run' ]; then
        sh -c "$script"
        printf '\0%s\0' $?
        script=
    else
        script="$script$line
"
    fi
done
"##;

/// A virtual machine with an NBD export as `/dev/vda` and an empty directory `/mnt`; killed when dropped.
///
/// It is emulated, so it needs no KVM. Its disk is not cached outside of the machine: each write of its kernel reaches the NBD server
/// at once, and nothing else does.
#[derive(Debug)]
pub struct OwnerMachine {
    process: Process,
    console: UnixStream,
    directory: TempDir,
}

impl OwnerMachine {
    /// Starts the machine and waits until it is ready. Nothing is mounted yet.
    #[track_caller]
    pub fn boot(server: &NbdServer) -> Self {
        Self::start(server.url(), 512, &[], &[])
    }

    /// Starts the machine with more kernel modules, such as those of other file systems.
    #[track_caller]
    pub fn boot_with_modules(server: &NbdServer, modules: &[&str]) -> Self {
        Self::start(server.url(), 512, modules, &[])
    }

    /// Does the same with sectors of `sector` bytes.
    #[track_caller]
    pub fn boot_with_sectors(server: &NbdServer, sector: u32) -> Self {
        Self::start(server.url(), sector, &[], &[])
    }

    /// Starts the machine with the disk at this URL, more modules, and more programs of this machine, which precede those of busybox.
    #[track_caller]
    pub fn boot_at(url: &str, sector: u32, modules: &[&str], programs: &[&str]) -> Self {
        Self::start(url, sector, modules, programs)
    }

    #[track_caller]
    fn start(url: &str, sector: u32, modules: &[&str], programs: &[&str]) -> Self {
        let directory = TempDir::new().expect("a temporary directory");
        let kernel = Kernel::installed();
        let initramfs = directory.path().join("initramfs");
        fs::write(&initramfs, contents(&kernel, modules, programs)).expect("write a file");
        let (console, theirs) = UnixStream::pair().expect("a pair of sockets");
        let (mut command, serial) = emulator();
        command
            .args(["-accel", "tcg", "-m", "512", "-smp", "1", "-nodefaults", "-no-user-config", "-no-reboot"])
            .args(["-display", "none", "-chardev", "stdio,id=line", "-device", "virtio-serial"])
            .args(["-device", "virtserialport,chardev=line", "-drive", &drive(url), "-device"])
            .arg(format!("virtio-blk-pci,drive=disk,logical_block_size={sector},physical_block_size={sector}"))
            .arg("-serial")
            .arg(format!("file:{}", kernel_log(&directory).display()))
            .arg("-kernel")
            .arg(kernel.write_to(directory.path()))
            .arg("-initrd")
            .arg(&initramfs)
            .args(["-append", &format!("console={serial} panic=-1 mitigations=off")])
            .stdin(OwnedFd::from(theirs.try_clone().expect("a second handle")))
            .stdout(OwnedFd::from(theirs))
            .stderr(Stdio::inherit());
        let mut owner = Self { process: Process::start(&mut command), console, directory };
        let (code, output) = owner.answer("boot", START_LIMIT);
        assert_eq!(code, 0, "{output}");
        owner
    }

    /// Runs a shell script and returns its exit code and output.
    #[track_caller]
    pub fn run_unchecked(&mut self, script: &str) -> (i32, String) {
        self.send(&format!("exec </dev/null\n{script}\n#run\n"), &[]);
        self.answer(script, COMMAND_LIMIT)
    }

    /// Runs a shell script, asserts that it succeeds and returns its output.
    #[track_caller]
    pub fn run(&mut self, script: &str) -> String {
        let (code, output) = self.run_unchecked(script);
        assert_eq!(code, 0, "the owner ran `{script}`:\n{output}");
        output
    }

    /// Writes a file as `cat >FILE` does: created or truncated, then written, not flushed.
    #[track_caller]
    pub fn write(&mut self, path: &str, bytes: &[u8]) {
        let script = format!("head -c {} >'{path}'", bytes.len());
        self.send(&format!("{script}\n#run\n"), bytes);
        let (code, output) = self.answer(&script, COMMAND_LIMIT);
        assert_eq!(code, 0, "the owner writes {path}: {output}");
    }

    /// Stops the kernel from writing back old dirty pages: from now on only explicit flushes and journal commits write.
    #[track_caller]
    pub fn disable_writeback(&mut self) {
        self.run("echo 0 >/proc/sys/vm/dirty_writeback_centisecs");
    }

    /// Cuts the power: data that the kernel has not written yet is lost. The machine accepts no command afterwards.
    #[track_caller]
    pub fn power_cut(&mut self) {
        self.process.signal(Signal::SIGKILL);
        self.process.wait(Duration::from_secs(10));
    }

    #[track_caller]
    fn send(&mut self, script: &str, input: &[u8]) {
        self.console.set_write_timeout(Some(COMMAND_LIMIT)).expect("a timeout");
        if let Err(error) = self.console.write_all(script.as_bytes()).and_then(|()| self.console.write_all(input)) {
            self.lost(script, &error.to_string());
        }
    }

    /// Waits for an answer: the output, NUL, the exit code, NUL.
    #[track_caller]
    fn answer(&mut self, script: &str, within: Duration) -> (i32, String) {
        let deadline = Instant::now() + within;
        let mut received = Vec::new();
        let mut buf = vec![0; 65536];
        loop {
            let parts: Vec<_> = received.split(|byte| *byte == 0).collect();
            if let [text, code, _] = parts.as_slice() {
                let code = String::from_utf8_lossy(code).parse().expect("an exit code");
                return (code, String::from_utf8_lossy(text).into_owned());
            }
            let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            self.console.set_read_timeout(Some(left)).expect("a timeout");
            match self.console.read(&mut buf) {
                Ok(0) => self.lost(script, "the emulator has ended"),
                Ok(len) => received.extend_from_slice(&buf[..len]),
                Err(error) => self.lost(script, &format!("{error}, after `{}`", String::from_utf8_lossy(&received))),
            }
        }
    }

    /// Panics with the kernel log of the machine.
    #[track_caller]
    fn lost(&self, script: &str, why: &str) -> ! {
        let log = fs::read(kernel_log(&self.directory)).unwrap_or_default();
        panic!("no answer to `{script}`: {why}\n{}", String::from_utf8_lossy(&log));
    }
}

fn contents(kernel: &Kernel, modules: &[&str], programs: &[&str]) -> Vec<u8> {
    let directories = ["bin", "dev", "mnt", "proc", "sys", "tmp"].into_iter();
    let files = directories.fold(Initramfs::default(), Initramfs::directory);
    let btrfs = modules.contains(&"btrfs").then_some("/usr/bin/btrfs");
    programs
        .iter()
        .copied()
        .chain(btrfs)
        .fold(files, Initramfs::program)
        // Installed before busybox, whose own fallocate has fewer options.
        .program("/usr/bin/fallocate")
        .program("/bin/busybox")
        .modules(&kernel.modules(&[&MODULES, modules].concat()))
        .init(INIT)
        .finish()
}

/// Returns the emulator command for this machine's architecture and the name of its serial port.
fn emulator() -> (Command, &'static str) {
    let (program, machine, serial): (_, &[_], _) = match ARCH {
        "x86_64" => ("qemu-system-x86_64", &["-machine", "q35"], "ttyS0"),
        "aarch64" => ("qemu-system-aarch64", &["-machine", "virt", "-cpu", "max"], "ttyAMA0"),
        other => panic!("no emulated machine is configured for {other}"),
    };
    let mut command = Command::new(program);
    command.args(machine);
    (command, serial)
}

/// Returns the drive option: writes go to the server at once, flushes are passed on.
fn drive(url: &str) -> String {
    format!("if=none,id=disk,format=raw,cache=none,file={}", url.replace(',', ",,"))
}

fn kernel_log(directory: &TempDir) -> PathBuf {
    directory.path().join("kernel.log")
}
