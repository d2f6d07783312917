//! Emulated machines that boot from a network.

use std::{
    fs,
    io::{Seek as _, Write as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::Process;

/// The maximum time for one boot; software emulation on a busy host is slow.
const BOOT_LIMIT: Duration = Duration::from_secs(240);

/// The firmware of an emulated machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Firmware {
    /// BIOS (`SeaBIOS`), with iPXE in the ROM of the network card.
    BiosIpxe,
    /// UEFI (OVMF), which boots over HTTP and IPv4.
    UefiHttp4,
    /// UEFI (OVMF), which boots over HTTP and IPv6.
    UefiHttp6,
    /// UEFI (OVMF), which boots over TFTP and IPv4 (PXE).
    UefiTftp4,
    /// UEFI with Secure Boot, which boots over HTTP and IPv4 what is signed with [`SNAKEOIL_KEY`].
    SecureHttp4,
    /// UEFI with Secure Boot, which boots over TFTP and IPv4 (PXE) what is signed with [`SNAKEOIL_KEY`].
    SecureTftp4,
    /// UEFI with Secure Boot as PCs have it, which boots over TFTP and IPv4 (PXE) what Microsoft has signed. The kernel is Debian's.
    MicrosoftTftp4,
    /// U-Boot on a 64-bit ARM board, with these commands.
    UBoot(&'static str),
}

/// The directory of Debian's keys for tests, and their name. The password is `snakeoil`.
pub const SNAKEOIL_KEY: &str = "/usr/share/ovmf/PkKek-1-snakeoil";

/// U-Boot for the emulated board, of the package u-boot-qemu.
pub const U_BOOT: &str = "/usr/lib/u-boot/qemu_arm64/u-boot.bin";

/// OVMF with Secure Boot, and its variables with Debian's keys for tests, and with Microsoft's keys.
const SECURE_CODE: &str = "/usr/share/OVMF/OVMF_CODE_4M.secboot.fd";
const SNAKEOIL_VARIABLES: &str = "/usr/share/OVMF/OVMF_VARS_4M.snakeoil.fd";
const MICROSOFT_VARIABLES: &str = "/usr/share/OVMF/OVMF_VARS_4M.ms.fd";

/// A device of a PC that ends QEMU.
const EXIT_DEVICE: [&str; 2] = ["-device", "isa-debug-exit,iobase=0xf4,iosize=1"];

impl Firmware {
    /// Returns the emulator with the arguments for this firmware, and its network card.
    fn emulator(self, directory: &Path) -> (Command, &'static str) {
        let (program, machine) = match self {
            Self::UBoot(_) => ("qemu-system-aarch64", "virt"),
            _ if self.variables().is_some() => ("qemu-system-x86_64", "q35,graphics=off,smm=on"),
            _ => ("qemu-system-x86_64", "q35,graphics=off"),
        };
        let mut command = Command::new(program);
        command.args(["-machine", machine]);
        let mut disable = |names: &[&str]| {
            for name in names {
                command.args(["-fw_cfg", &format!("name=opt/org.tianocore/{name},string=n")]);
            }
        };
        match self {
            Self::UefiHttp4 | Self::SecureHttp4 => disable(&["IPv4PXESupport", "IPv6PXESupport"]),
            Self::UefiHttp6 => disable(&["IPv4PXESupport", "IPv6PXESupport", "IPv4Support"]),
            Self::UefiTftp4 | Self::SecureTftp4 | Self::MicrosoftTftp4 => disable(&["IPv6PXESupport", "IPv6Support"]),
            Self::BiosIpxe | Self::UBoot(_) => {}
        }
        match self {
            Self::BiosIpxe | Self::SecureHttp4 | Self::SecureTftp4 | Self::MicrosoftTftp4 => {}
            Self::UefiHttp4 | Self::UefiTftp4 => _ = command.args(["-bios", "/usr/share/ovmf/OVMF.fd"]),
            // OVMF gives up if the interface has no IPv6 address yet.
            Self::UefiHttp6 => {
                command.args(["-bios", "/usr/share/ovmf/OVMF.fd", "-boot", "menu=on,splash-time=5000"]);
            }
            Self::UBoot(_) => _ = command.args(["-cpu", "cortex-a57", "-bios", U_BOOT]),
        }
        if let Some(installed) = self.variables() {
            let variables = directory.join("variables");
            fs::copy(installed, &variables).expect("this test needs the package ovmf");
            command.args(["-global", "driver=cfi.pflash01,property=secure,value=on"]);
            command.args(["-drive", &format!("if=pflash,unit=0,format=raw,readonly=on,file={SECURE_CODE}")]);
            command.args(["-drive", &format!("if=pflash,unit=1,format=raw,file={}", variables.display())]);
        }
        if !matches!(self, Self::UBoot(_)) {
            command.args(EXIT_DEVICE);
        }
        let network_card = match self {
            Self::BiosIpxe => "virtio-net-pci,bootindex=1",
            // U-Boot does not read the MAC address of the other one.
            Self::UBoot(_) => "e1000,romfile=",
            _ => "virtio-net-pci,romfile=",
        };
        (command, network_card)
    }

    /// Returns the file with the variables of UEFI firmware with Secure Boot.
    fn variables(self) -> Option<&'static str> {
        match self {
            Self::SecureHttp4 | Self::SecureTftp4 => Some(SNAKEOIL_VARIABLES),
            Self::MicrosoftTftp4 => Some(MICROSOFT_VARIABLES),
            _ => None,
        }
    }

    /// Returns the memory of the machine in MiB.
    fn memory(self) -> &'static str {
        if self == Self::MicrosoftTftp4 { "512" } else { "256" }
    }

    /// Returns the exit code of the emulator after the kernel has turned the machine off.
    fn exit_code(self) -> i32 {
        i32::from(!matches!(self, Self::UBoot(_) | Self::MicrosoftTftp4))
    }

    /// Returns what is typed on the serial port.
    fn typed(self) -> String {
        match self {
            // The first characters stop the automatic boot.
            Self::UBoot(commands) => format!("\n    {commands}\n"),
            _ => String::new(),
        }
    }
}

/// A running machine; killed when dropped.
#[derive(Debug)]
pub(crate) struct EmulatedMachine {
    process: Process,
    firmware: Firmware,
    started: Instant,
    console: PathBuf,
    messages: PathBuf,
}

impl EmulatedMachine {
    /// Starts a machine at the interface `eth0`. `directory` is for its files; its firmware trusts the authorities in the file `trusted`.
    #[track_caller]
    pub(crate) fn start(firmware: Firmware, mac: &str, directory: &Path, trusted: &Path) -> Self {
        let [console, messages] = ["console.log", "qemu.log"].map(|name| directory.join(name));
        let (mut command, network_card) = firmware.emulator(directory);
        let mut typed = tempfile::tempfile().expect("a temporary file");
        typed.write_all(firmware.typed().as_bytes()).and_then(|()| typed.rewind()).expect("written");
        command
            .args(["-accel", "tcg", "-m", firmware.memory(), "-nodefaults", "-no-user-config"])
            .args(["-display", "none", "-no-reboot"])
            .args(["-netdev", "tap,id=net,ifname=eth0,script=no,downscript=no"])
            .args(["-device", &format!("{network_card},netdev=net,mac={mac}")])
            // Newer firmware has no network without random numbers.
            .args(["-object", "rng-random,id=random,filename=/dev/urandom", "-device", "virtio-rng-pci,rng=random"])
            .args(["-fw_cfg", &format!("name=etc/edk2/https/cacerts,file={}", trusted.display())])
            .args(["-serial", "stdio"])
            .stdin(Stdio::from(typed))
            .stdout(fs::File::create(&console).expect("created"))
            // A warning about the name of cacerts.
            .stderr(fs::File::create(&messages).expect("created"));
        Self { process: Process::start(&mut command), firmware, started: Instant::now(), console, messages }
    }

    /// Waits until the kernel turns the machine off.
    ///
    /// # Errors
    ///
    /// What happened instead.
    pub(crate) fn wait_until_off(&mut self) -> Result<(), String> {
        let exit_code = self.firmware.exit_code();
        self.wait(|_, ended| (ended? == exit_code).then_some(()))
    }

    /// Waits until one of these texts is printed.
    ///
    /// # Errors
    ///
    /// What happened instead.
    pub(crate) fn wait_for(&mut self, texts: &[&str]) -> Result<(), String> {
        self.wait(|machine, _| texts.iter().any(|text| machine.printed().contains(text)).then_some(()))
    }

    /// Returns what was printed on the serial port.
    pub(crate) fn printed(&self) -> String {
        read(&self.console)
    }

    /// Polls `condition` with the exit code of the emulator, until that ends.
    fn wait(&mut self, condition: impl Fn(&Self, Option<i32>) -> Option<()>) -> Result<(), String> {
        loop {
            let ended = self.process.child().try_wait().expect("wait for a child").map(|status| status.code());
            if let Some(()) = condition(self, ended.flatten()) {
                return Ok(());
            }
            if ended.is_some() || self.started.elapsed() > BOOT_LIMIT {
                let elapsed = self.started.elapsed();
                let texts = [read(&self.messages), self.printed()].concat();
                return Err(format!("{:?}: {ended:?} after {elapsed:?}\n{texts}", self.firmware));
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Reads a log, whatever a machine has written into it.
pub(crate) fn read(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}
