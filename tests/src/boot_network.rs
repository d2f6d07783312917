//! A network with a daemon, a DHCP server and an emulated machine that boots from them.

use std::{
    fs,
    process::{Command, Stdio},
    time::Duration,
};

use tempfile::TempDir;

use crate::{
    Authority, Firmware, Process, Rtftp,
    emulated_machine::{EmulatedMachine, read},
    namespace::in_new_network,
    not_tested, poll_until, run,
};

/// The name of the file with the certificate authorities that the firmware trusts.
const TRUSTED: &str = "trusted";

/// A network namespace with a daemon that serves files over TFTP, HTTP and HTTPS at 10.0.0.1 and `fd00::1`, and a DHCP server: the network
/// of the guide `first-boot.md`. UEFI firmware trusts the authority of the daemon's certificate.
#[derive(Debug)]
pub struct BootNetwork {
    daemon: Rtftp,
    _dhcp: Process,
    directory: TempDir,
}

impl BootNetwork {
    /// The MAC address of the machine.
    pub const MAC: &str = "52:54:00:aa:bb:06";

    /// Runs a test in a new network with this configuration of dnsmasq, in which the interface is `eth0`.
    ///
    /// Creating network namespaces needs root, and the boot loaders are packaged for x86-64 only: otherwise the test says so, and does
    /// nothing.
    #[track_caller]
    pub fn test(dhcp: &str, test: impl FnOnce(&Self) + Send) {
        if cfg!(not(target_arch = "x86_64")) {
            return not_tested("the boot loaders are packaged for x86-64 only");
        }
        in_new_network(|| test(&Self::create(dhcp)));
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
        let ports = ["--listen-port", "69", "--http", "80"];
        let daemon = Rtftp::start_with("::", 3600, &[&tls[..], &ports, &["--view-gap", "1"]].concat());
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

    /// Starts a machine, waits until its kernel turns it off, and returns what was printed on its serial port.
    #[track_caller]
    pub fn boot(&self, firmware: Firmware) -> String {
        let mut machine = self.start(firmware);
        let ended = machine.wait_until_off();
        self.printed(&machine, ended)
    }

    /// Starts a machine, waits until it has printed one of these texts, and turns it off. Returns what was printed.
    #[track_caller]
    pub fn boot_until(&self, firmware: Firmware, texts: &[&str]) -> String {
        let mut machine = self.start(firmware);
        let ended = machine.wait_for(texts);
        self.printed(&machine, ended)
    }

    #[track_caller]
    fn start(&self, firmware: Firmware) -> EmulatedMachine {
        let directory = self.directory.path();
        EmulatedMachine::start(firmware, Self::MAC, directory, &directory.join(TRUSTED))
    }

    #[track_caller]
    fn printed(&self, machine: &EmulatedMachine, ended: Result<(), String>) -> String {
        if let Err(error) = ended {
            panic!(
                "the machine did not boot: {error}\n--- dnsmasq\n{}",
                read(&self.directory.path().join("dnsmasq.log"))
            );
        }
        machine.printed()
    }
}
