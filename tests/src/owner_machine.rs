//! The machine that a disk belongs to: a Linux kernel that has it mounted while others read it.

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

/// How long a machine may take to start; software emulation on a busy machine is slow.
const START: Duration = Duration::from_secs(120);

/// How long a command may take.
const COMMAND: Duration = Duration::from_secs(120);

/// What its kernel needs: the disk, the line to the test, file systems and what they need without saying so.
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

/// Its only program: runs the scripts that come over the line, each ended by a line `#run`, in shells of their own. Every
/// answer is what the script wrote, NUL, its exit code, NUL; the first one says that the machine is ready.
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

/// A small machine with a disk of an NBD server as its `/dev/vda`, and an empty directory `/mnt`; killed when dropped.
///
/// It is emulated, so that it runs everywhere. Its disk has no cache outside of it: what its kernel writes is at the server at once,
/// and nothing else is.
#[derive(Debug)]
pub struct OwnerMachine {
    process: Process,
    line: UnixStream,
    directory: TempDir,
}

impl OwnerMachine {
    /// Starts it and waits until it is ready; nothing is mounted yet.
    #[track_caller]
    pub fn boot(server: &NbdServer) -> Self {
        let directory = TempDir::new().expect("a temporary directory");
        let kernel = Kernel::installed();
        let initramfs = directory.path().join("initramfs");
        fs::write(&initramfs, contents(&kernel)).expect("write a file");
        let (line, theirs) = UnixStream::pair().expect("a pair of sockets");
        let (mut command, serial) = emulator();
        command
            .args(["-accel", "tcg", "-m", "256", "-smp", "1", "-nodefaults", "-no-user-config", "-no-reboot"])
            .args(["-display", "none", "-chardev", "stdio,id=line", "-device", "virtio-serial"])
            .args(["-device", "virtserialport,chardev=line", "-drive", &drive(server.url())])
            .arg("-serial")
            .arg(format!("file:{}", console(&directory).display()))
            .arg("-kernel")
            .arg(kernel.write_to(directory.path()))
            .arg("-initrd")
            .arg(&initramfs)
            .args(["-append", &format!("console={serial} panic=-1 mitigations=off")])
            .stdin(OwnedFd::from(theirs.try_clone().expect("a second handle")))
            .stdout(OwnedFd::from(theirs))
            .stderr(Stdio::inherit());
        let mut owner = Self { process: Process::start(&mut command), line, directory };
        let (code, said) = owner.answer("its start", START);
        assert_eq!(code, 0, "{said}");
        owner
    }

    /// Runs a shell script, whatever comes of it; returns its exit code and what it wrote.
    #[track_caller]
    pub fn run_unchecked(&mut self, script: &str) -> (i32, String) {
        self.send(&format!("exec </dev/null\n{script}\n#run\n"), &[]);
        self.answer(script, COMMAND)
    }

    /// Runs a shell script, which must end with 0; returns what it wrote.
    #[track_caller]
    pub fn run(&mut self, script: &str) -> String {
        let (code, said) = self.run_unchecked(script);
        assert_eq!(code, 0, "the owner ran `{script}`:\n{said}");
        said
    }

    /// Writes a file as `cat` would: made or cut to nothing, then written, not flushed.
    #[track_caller]
    pub fn write(&mut self, path: &str, bytes: &[u8]) {
        let script = format!("head -c {} >'{path}'", bytes.len());
        self.send(&format!("{script}\n#run\n"), bytes);
        let (code, said) = self.answer(&script, COMMAND);
        assert_eq!(code, 0, "the owner writes {path}: {said}");
    }

    /// Has its kernel write nothing for being old, from here on: only what is flushed, and what commits of journals write.
    #[track_caller]
    pub fn disable_writeback(&mut self) {
        self.run("echo 0 >/proc/sys/vm/dirty_writeback_centisecs");
    }

    /// Pulls the plug: whatever its kernel has not written yet is lost. It must not be asked for anything afterwards.
    #[track_caller]
    pub fn power_cut(&mut self) {
        self.process.signal(Signal::SIGKILL);
        self.process.wait(Duration::from_secs(10));
    }

    #[track_caller]
    fn send(&mut self, script: &str, input: &[u8]) {
        self.line.set_write_timeout(Some(COMMAND)).expect("a timeout");
        if let Err(error) = self.line.write_all(script.as_bytes()).and_then(|()| self.line.write_all(input)) {
            self.lost(script, &error.to_string());
        }
    }

    /// Waits for an answer: NUL, exit code, NUL after all that was written.
    #[track_caller]
    fn answer(&mut self, script: &str, within: Duration) -> (i32, String) {
        let deadline = Instant::now() + within;
        let mut said = Vec::new();
        let mut buf = vec![0; 65536];
        loop {
            let parts: Vec<_> = said.split(|byte| *byte == 0).collect();
            if let [text, code, _] = parts.as_slice() {
                let code = String::from_utf8_lossy(code).parse().expect("an exit code");
                return (code, String::from_utf8_lossy(text).into_owned());
            }
            let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            self.line.set_read_timeout(Some(left)).expect("a timeout");
            match self.line.read(&mut buf) {
                Ok(0) => self.lost(script, "the emulator has ended"),
                Ok(len) => said.extend_from_slice(&buf[..len]),
                Err(error) => self.lost(script, &format!("{error}, after `{}`", String::from_utf8_lossy(&said))),
            }
        }
    }

    /// Panics with all that its kernel said.
    #[track_caller]
    fn lost(&self, script: &str, why: &str) -> ! {
        let console = fs::read(console(&self.directory)).unwrap_or_default();
        panic!("no answer of the owner to `{script}`: {why}\n{}", String::from_utf8_lossy(&console));
    }
}

fn contents(kernel: &Kernel) -> Vec<u8> {
    let directories = ["bin", "dev", "mnt", "proc", "sys", "tmp"].into_iter();
    directories
        .fold(Initramfs::default(), Initramfs::directory)
        // Before busybox gives its own, lesser one that name.
        .program("/usr/bin/fallocate")
        .program("/bin/busybox")
        .modules(&kernel.modules(&MODULES))
        .init(INIT)
        .finish()
}

/// The emulator of a machine that runs this machine's programs, and the name of its serial port.
fn emulator() -> (Command, &'static str) {
    let (program, machine, serial): (_, &[_], _) = match ARCH {
        "x86_64" => ("qemu-system-x86_64", &["-machine", "q35"], "ttyS0"),
        "aarch64" => ("qemu-system-aarch64", &["-machine", "virt", "-cpu", "max"], "ttyAMA0"),
        other => panic!("no emulated machine is known for {other}"),
    };
    let mut command = Command::new(program);
    command.args(machine);
    (command, serial)
}

/// The disk: every write goes to the server at once, every flush is passed on.
fn drive(url: &str) -> String {
    format!("if=virtio,format=raw,cache=none,file={}", url.replace(',', ",,"))
}

fn console(directory: &TempDir) -> PathBuf {
    directory.path().join("console")
}
