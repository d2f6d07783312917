//! A network with a daemon, a DHCP server and an emulated PC that boots from them.

use std::{
    fs,
    panic::resume_unwind,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::sched::{CloneFlags, unshare};
use tempfile::TempDir;

use crate::{Authority, Process, Rtftp, not_tested, poll_until, run};

/// The maximum time for one boot; software emulation on a busy host is slow.
const BOOT_LIMIT: Duration = Duration::from_secs(150);

/// The name of the file with the certificate authorities that the firmware trusts.
const TRUSTED: &str = "trusted";

/// The firmware of an emulated PC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PcFirmware {
    /// BIOS (`SeaBIOS`), with iPXE in the ROM of the network card.
    BiosIpxe,
    /// UEFI (OVMF), which boots over HTTP and IPv4.
    UefiHttp4,
    /// UEFI (OVMF), which boots over HTTP and IPv6.
    UefiHttp6,
}

/// A network namespace with a daemon that serves files over HTTP and HTTPS at 10.0.0.1 and `fd00::1`, and a DHCP server: the network
/// of the guide `first-boot.md`. UEFI firmware trusts the authority of the daemon's certificate.
#[derive(Debug)]
pub struct BootNetwork {
    daemon: Rtftp,
    _dhcp: Process,
    directory: TempDir,
}

impl BootNetwork {
    /// The MAC address of the PC.
    pub const PC_MAC: &str = "52:54:00:aa:bb:06";

    /// Runs a test in a new network with this configuration of dnsmasq, in which the interface is `eth0`.
    ///
    /// Creating network namespaces needs root, and the boot loaders are packaged for x86-64 only: otherwise the test says so, and does
    /// nothing.
    #[track_caller]
    pub fn test(dhcp: &str, test: impl FnOnce(&Self) + Send) {
        if cfg!(not(target_arch = "x86_64")) {
            return not_tested("the boot loaders are packaged for x86-64 only");
        }
        let tested = || match unshare(CloneFlags::CLONE_NEWNET) {
            Ok(()) => {
                test(&Self::create(dhcp));
                Ok(())
            }
            Err(error) => Err(error),
        };
        // The namespace belongs to the thread, so the test gets a thread of its own.
        let tested = thread::scope(|scope| scope.spawn(tested).join());
        if let Err(error) = tested.unwrap_or_else(|panic| resume_unwind(panic)) {
            not_tested(format_args!("no permission to create a network namespace: {error}"));
        }
    }

    /// Starts the servers in the network of this thread.
    fn create(dhcp: &str) -> Self {
        for command in [
            "link set lo up",
            "tuntap add eth0 mode tap",
            "address add 10.0.0.1/24 dev eth0",
            "address add fd00::1/64 dev eth0 nodad",
            "link set eth0 up",
        ] {
            run("ip", command.split(' '));
        }
        let directory = TempDir::new().expect("a temporary directory");
        // Firmware without elliptic curves understands only RSA.
        let authority = Authority::with_rsa("boot authority");
        authority.issue_with_rsa(2100, directory.path());
        fs::write(directory.path().join(TRUSTED), authority.efi_signature_list()).expect("written");
        let [certificate, key] = ["certificate.pem", "key.pem"].map(|name| directory.path().join(name));
        let [certificate, key] = [&certificate, &key].map(|path| path.to_str().expect("UTF-8"));
        let tls = ["--https", "443", "--tls-certificate", certificate, "--tls-key", key];
        let daemon = Rtftp::start_with("::", 3600, &[&tls[..], &["--http", "80", "--view-gap", "1"]].concat());
        let config = directory.path().join("dnsmasq.conf");
        let log = directory.path().join("dnsmasq.log");
        fs::write(&config, dhcp).expect("written");
        let mut dnsmasq = Command::new("dnsmasq");
        dnsmasq
            .args(["--keep-in-foreground", "--log-facility=-", "--log-dhcp", "--pid-file=", "--leasefile-ro"])
            .args(["--user=root", "--no-ping", &format!("--conf-file={}", config.display())])
            // An ordinary user's PATH does not contain it.
            .env("PATH", format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default()))
            .stdin(Stdio::null())
            .stderr(fs::File::create(&log).expect("created"));
        let dhcp = Process::start(&mut dnsmasq);
        poll_until("the start of dnsmasq", Duration::from_secs(10), || {
            let printed = read(&log);
            assert!(!dhcp.has_ended(), "dnsmasq ended: {printed}");
            printed.contains("started, version").then_some(())
        });
        Self { daemon, _dhcp: dhcp, directory }
    }

    /// Returns the daemon.
    pub fn daemon(&self) -> &Rtftp {
        &self.daemon
    }

    /// Starts a PC, waits until its kernel turns it off, and returns what was printed on its serial port.
    #[track_caller]
    pub fn boot(&self, firmware: PcFirmware) -> String {
        let [console, messages, trusted] =
            ["console.log", "qemu.log", TRUSTED].map(|name| self.directory.path().join(name));
        let (network_card, arguments) = firmware.arguments();
        let mut command = Command::new("qemu-system-x86_64");
        command
            .args(["-machine", "q35,graphics=off", "-accel", "tcg", "-m", "256", "-nodefaults", "-no-user-config"])
            .args(["-display", "none", "-no-reboot", "-device", "isa-debug-exit,iobase=0xf4,iosize=1"])
            .args(["-netdev", "tap,id=net,ifname=eth0,script=no,downscript=no"])
            .args(["-device", &format!("virtio-net-pci,netdev=net,mac={},{network_card}", Self::PC_MAC)])
            // Newer firmware has no network without random numbers.
            .args(["-object", "rng-random,id=random,filename=/dev/urandom", "-device", "virtio-rng-pci,rng=random"])
            .args(["-fw_cfg", &format!("name=etc/edk2/https/cacerts,file={}", trusted.display())])
            .args(arguments)
            .arg("-serial")
            .arg(format!("file:{}", console.display()))
            .stdin(Stdio::null())
            // A warning about the name of cacerts.
            .stderr(fs::File::create(&messages).expect("created"));
        let mut pc = Process::start(&mut command);
        let started = Instant::now();
        let ended = loop {
            let ended = pc.child().try_wait().expect("wait for a child");
            if ended.is_some() || started.elapsed() > BOOT_LIMIT {
                break ended;
            }
            thread::sleep(Duration::from_millis(20));
        };
        let printed = read(&console);
        // The exit code of QEMU after the kernel has turned the machine off.
        if ended.and_then(|status| status.code()) != Some(1) {
            let (messages, log) = (read(&messages), read(&self.directory.path().join("dnsmasq.log")));
            let elapsed = started.elapsed();
            panic!("the PC did not boot: {ended:?} after {elapsed:?}\n{messages}{printed}\n--- dnsmasq\n{log}");
        }
        println!("{firmware:?}: {:.1} s from power on to the kernel", started.elapsed().as_secs_f32());
        printed
    }
}

fn read(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}

impl PcFirmware {
    /// Returns the options of the network card and further arguments of QEMU.
    fn arguments(self) -> (&'static str, &'static [&'static str]) {
        // Without an empty ROM, the network card would bring iPXE. OVMF would try PXE first.
        const UEFI: &[&str] = &[
            "-bios",
            "/usr/share/ovmf/OVMF.fd",
            "-fw_cfg",
            "name=opt/org.tianocore/IPv4PXESupport,string=n",
            "-fw_cfg",
            "name=opt/org.tianocore/IPv6PXESupport,string=n",
            "-fw_cfg",
            "name=opt/org.tianocore/IPv4Support,string=n",
            // OVMF gives up if the interface has no IPv6 address yet.
            "-boot",
            "menu=on,splash-time=5000",
        ];
        match self {
            Self::BiosIpxe => ("bootindex=1", &[]),
            Self::UefiHttp4 => ("romfile=", &UEFI[..6]),
            Self::UefiHttp6 => ("romfile=", UEFI),
        }
    }
}
