//! TFTP servers of the distribution: tftpd-hpa, dnsmasq, atftpd.

use std::{fs, process::Command, time::Duration};

use nix::unistd::geteuid;
use tempfile::TempDir;

use crate::{
    can_unshare, poll_until,
    process::{Process, run},
    rtftp_get::RtftpGet,
};

/// The maximum time to start a server.
const START_LIMIT: Duration = Duration::from_secs(10);

/// A TFTP server program.
#[derive(Debug, Clone, Copy)]
pub enum TftpServerProgram {
    /// tftpd-hpa: `blksize`, `tsize`, `timeout`. It needs the real root user.
    Hpa,
    /// dnsmasq: `blksize`, `tsize`.
    Dnsmasq,
    /// atftpd: `blksize`, `tsize`, `timeout`, `windowsize`.
    Atftpd,
}

/// A running server on port 69 of a network namespace of its own, so that it takes no port of the host.
#[derive(Debug)]
pub struct ForeignServer {
    process: Process,
    root: TempDir,
}

impl ForeignServer {
    /// Starts a server with an empty root directory. Returns `None`, and says so, on a machine that forbids the namespace.
    #[track_caller]
    pub fn start(program: TftpServerProgram) -> Option<Self> {
        let namespaces =
            [user_namespace(&["--user", "--map-root-user"]), &["--net", "--pid", "--fork", "--kill-child"]];
        let namespaces = namespaces.concat();
        if !can_unshare(&namespaces) {
            return None;
        }
        let root = TempDir::new().expect("a temporary directory");
        let directory = root.path().to_str().expect("a temporary directory with a name in UTF-8");
        let tftp_root = format!("--tftp-root={directory}");
        let server = match program {
            TftpServerProgram::Hpa => vec!["in.tftpd", "-L", "--user", "root", "--secure", directory],
            TftpServerProgram::Dnsmasq => vec![
                "dnsmasq",
                "--no-daemon",
                "--conf-file=/dev/null",
                "--pid-file=",
                "--port=0",
                "--enable-tftp",
                &tftp_root,
            ],
            TftpServerProgram::Atftpd => {
                vec!["atftpd", "--daemon", "--no-fork", "--user", "root.root", "--logfile", "/dev/null", directory]
            }
        };
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new("unshare");
        command
            .args(namespaces)
            .args(["--", "sh", "-c", "ip link set lo up && exec \"$@\"", "sh"])
            .args(&server)
            // in.tftpd and dnsmasq are in sbin, which is not in an ordinary user's PATH.
            .env("PATH", format!("{path}:/usr/sbin:/sbin"));
        let process = Process::start_quietly(&mut command);
        let server = Self { process, root };
        poll_until(&format!("{program:?} to listen on port 69"), START_LIMIT, || {
            assert!(!server.process.has_ended(), "{program:?} did not start: {}", server.process.stderr());
            server.listens().then_some(())
        });
        Some(server)
    }

    /// Returns whether a process listens on UDP port 69 of the namespace (proc(5), `/proc/pid/net/udp`).
    fn listens(&self) -> bool {
        ["udp", "udp6"].iter().any(|table| {
            let table = fs::read_to_string(format!("/proc/{}/net/{table}", self.process.id())).unwrap_or_default();
            table.lines().any(|line| line.split_whitespace().nth(1).is_some_and(|local| local.ends_with(":0045")))
        })
    }

    /// Writes a file into the server's root directory.
    pub fn put(&self, name: &str, bytes: impl AsRef<[u8]>) {
        fs::write(self.root.path().join(name), bytes).expect("write a file");
    }

    /// Sends one datagram to the server, whose packets are then answered by nobody.
    pub fn request(&self, datagram: &[u8]) {
        let octal: String = datagram.iter().map(|byte| format!("\\{byte:03o}")).collect();
        let script = "exec >/dev/udp/127.0.0.1/69 && printf \"$1\"";
        let enter = self.enter();
        let args = enter[1..].iter().map(String::as_str).chain(["--", "bash", "-c", script, "bash", &octal]);
        run(&enter[0], args);
    }

    /// Returns the number of datagrams sent in the namespace: those of the server and of its clients.
    pub fn datagrams(&self) -> u64 {
        let counters = fs::read_to_string(format!("/proc/{}/net/snmp", self.process.id())).expect("the counters");
        let mut lines = counters.lines().filter_map(|line| line.strip_prefix("Udp: ")).map(str::split_whitespace);
        let (names, values) = (lines.next().expect("names"), lines.next().expect("values"));
        let sent = names.zip(values).find(|(name, _)| *name == "OutDatagrams").expect("the counter");
        sent.1.parse().expect("a number")
    }

    /// Returns an `rtftp-get` in the server's namespace, where the server has the address 127.0.0.1.
    pub fn getter(&self) -> RtftpGet {
        let enter = self.enter();
        RtftpGet::behind(&enter.iter().map(String::as_str).chain(["--"]).collect::<Vec<_>>())
    }

    /// Returns the command that runs a program in the server's namespace.
    fn enter(&self) -> Vec<String> {
        let target = self.process.id().to_string();
        let enter = [&["nsenter", "--target", &target, "--net"], user_namespace(&["--user", "--preserve-credentials"])];
        enter.concat().into_iter().map(String::from).collect()
    }
}

/// Returns the arguments that create or enter a user namespace; root needs none.
fn user_namespace<'a>(args: &'a [&'a str]) -> &'a [&'a str] {
    if geteuid().is_root() { &[] } else { args }
}
