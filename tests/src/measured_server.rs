//! TFTP servers for comparison in benchmarks.

use std::{
    net::{SocketAddr, UdpSocket},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sched::{CloneFlags, unshare},
    unistd::geteuid,
};

use crate::{Process, bench_arguments::BenchArguments, binary, raw_client::rrq, run};

/// The maximum time to the first answer.
const LIMIT: Duration = Duration::from_secs(60);

/// A TFTP server program.
#[derive(Debug)]
pub struct MeasuredServer {
    /// The name in the tables.
    pub name: String,
    program: PathBuf,
    /// The arguments, with placeholders `{port}`, `{root}` and `{dir}` (`{root}/default`).
    args: String,
    /// The port, if it is fixed.
    port: Option<u16>,
}

/// The servers to compare with: name, program, arguments, fixed port, installation hint.
const PEERS: [(&str, &str, &str, Option<u16>, &str); 6] = [
    ("tftpd-hpa", "in.tftpd", "-L -4 -a 127.0.0.1:{port} --secure -u nobody {dir}", None, "apt install tftpd-hpa"),
    (
        "dnsmasq",
        "dnsmasq",
        "-k -C /dev/null -p 0 --enable-tftp --tftp-root={dir} --tftp-max=4096 --listen-address=127.0.0.1 \
         --bind-interfaces -u root --pid-file",
        Some(69),
        "apt install dnsmasq-base",
    ),
    (
        "atftpd",
        "atftpd",
        // It aborts with more than 480 threads.
        "--daemon --no-fork --port {port} --bind-address 127.0.0.1 --maxthread 480 --user nobody --group nogroup \
         --logfile /dev/null {dir}",
        None,
        "apt install atftpd",
    ),
    (
        "busybox",
        "busybox",
        "udpsvd -E -c 4096 127.0.0.1 {port} busybox tftpd -r -u nobody {dir}",
        None,
        "a busybox with the applets udpsvd and tftpd",
    ),
    ("tftpd", "tftpd", "-i 127.0.0.1 -p {port} -d {dir} -r", None, "cargo install tftpd"),
    (
        "async-tftp",
        "async-tftp",
        "127.0.0.1:{port} {dir}",
        None,
        "a program on the crate async-tftp that takes ADDRESS DIR",
    ),
];
const RTFTP: &str = "--listen-ip 127.0.0.1 --listen-port {port} --root-dir {root} --log-level warn";

/// Enters a new network namespace, in which every port is free.
pub fn enter_network_namespace() {
    if geteuid().is_root() && unshare(CloneFlags::CLONE_NEWNET).is_ok() {
        run("ip", ["link", "set", "lo", "up"]);
        // tftpd-hpa does not start if 127.0.0.1 is the only address.
        run("ip", ["address", "add", "198.18.0.1/32", "dev", "lo"]);
    } else {
        println!("not root: dnsmasq is not compared, it needs port 69");
    }
}

/// Returns rtftp, another build of it, and the other servers that are installed. Prints which are missing.
pub fn measured_servers(arguments: &BenchArguments) -> Vec<MeasuredServer> {
    let args = format!("{RTFTP}{}", if arguments.single_port { " --single-port" } else { "" });
    let rtftp = |name: &str, program| MeasuredServer { name: name.into(), program, args: args.clone(), port: None };
    let mut servers = vec![rtftp("rtftp", binary("rtftp"))];
    servers.extend(arguments.also.iter().map(|path| rtftp("rtftp (also)", path.into())));
    for (name, program, args, port, hint) in PEERS {
        let found = find(program).filter(|path| name != "busybox" || has_applets(path));
        match found {
            Some(_) if port.is_some() && !geteuid().is_root() => {}
            Some(program) => servers.push(MeasuredServer { name: name.into(), program, args: args.into(), port }),
            None => println!("not compared: {name} is not installed ({hint})"),
        }
    }
    servers
}

/// Searches `PATH` and the directories for system programs.
fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':').chain(["/usr/sbin", "/sbin"]).map(|dir| Path::new(dir).join(program)).find(|path| path.is_file())
}

/// Returns whether a busybox has a TFTP server.
fn has_applets(busybox: &Path) -> bool {
    let applets = Command::new(busybox).arg("--list").output().map(|output| output.stdout).unwrap_or_default();
    let applets = String::from_utf8_lossy(&applets).into_owned();
    ["udpsvd", "tftpd"].iter().all(|wanted| applets.lines().any(|applet| applet == *wanted))
}

impl MeasuredServer {
    /// Starts the server with the file `probe`, and waits for its first answer. Returns the time to that answer, or `None` if it never
    /// answers.
    pub fn start(&self, root: &Path, probe: &str) -> Option<(Process, Duration, SocketAddr)> {
        let port = self.port.unwrap_or_else(free_port);
        let (root, dir) = (root.display().to_string(), root.join("default").display().to_string());
        let args = self
            .args
            .split_whitespace()
            .map(|arg| arg.replace("{port}", &port.to_string()).replace("{root}", &root).replace("{dir}", &dir));
        let mut command = Command::new(&self.program);
        command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let started = Instant::now();
        let process = Process::start(&mut command);
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let client = UdpSocket::bind("127.0.0.1:0").expect("a port");
        client.set_read_timeout(Some(Duration::from_millis(1))).expect("set");
        let mut buf = [0; 1024];
        while started.elapsed() < LIMIT && !process.has_ended() {
            client.send_to(&rrq(probe, &[]), address).expect("sent");
            if let Ok((len, from)) = client.recv_from(&mut buf) {
                assert_eq!(buf[..2], [0, 3], "{}: {}", self.name, buf[..len].escape_ascii());
                let time = started.elapsed();
                // Ends the transfer, so that the server does not repeat its block.
                client.send_to(b"\0\x05\0\0done\0", from).expect("sent");
                return Some((process, time, address));
            }
        }
        None
    }
}

/// Returns a port that is free at this moment.
fn free_port() -> u16 {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    socket.local_addr().expect("bound").port()
}
