//! Compares rtftp with other TFTP servers in one run: throughput, processor time, memory, fairness, loss, startup.
//!
//! ```text
//! cargo build --release && cargo bench -p rtftp-tests --bench peers [-- --rounds N] [--only TITLE-OR-PART-OF-IT]
//!     [--also PATH-OF-ANOTHER-RTFTP]
//! ```
//!
//! Method: each figure is the median of several rounds. The rounds are interleaved (A B C, A B C, ...), so that other load on the
//! machine affects all servers alike. Each run starts a new server process, with the file in the page cache, and kills it by its
//! process ID. The client is `rtftp_tests::load_client`, which compares every byte. It shares the processors with the server, so the
//! server's processor time (user and system, including its children) says more than the elapsed time: quote both. Processor time on
//! the loopback interface includes the receiving half of the kernel's work, up to the client's socket. Servers without `windowsize`
//! send block by block. As root the benchmark runs in a network namespace of its own; without root it leaves out dnsmasq, which needs
//! port 69.
//!
//! The client simulates loss: it drops received datagrams and suppresses its own, pseudo-randomly with the same sequence in every run.
//! If too few fetches are complete in time, the median and p99 are `inf`.
//!
//! The results, and where the time goes, are in `tests/benches/README.md`. The benchmark `disks` measures files from disks.

use std::{
    fs, io,
    net::{SocketAddr, UdpSocket},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sched::{CloneFlags, unshare},
    unistd::geteuid,
};
use rtftp_tests::{
    Process, ResourceUsage, binary,
    load_client::Load,
    measured_run::{MeasuredRun, median, mib},
    noise,
    raw_client::rrq,
};

/// Names and sizes in bytes: the file of a single stream, the file of each of many boards, and a file of one or two blocks.
const LARGE: (&str, usize) = ("large", 48 << 20);
const SMALL: (&str, usize) = ("small", 1 << 20);
const TINY: (&str, usize) = ("tiny", 1000);
const TIMEOUT: Duration = Duration::from_millis(1000);
const LIMIT: Duration = Duration::from_secs(60);

/// A server program.
struct Server {
    name: String,
    program: PathBuf,
    /// The arguments, with placeholders `{port}`, `{root}` and `{dir}` (`{root}/default`).
    args: &'static str,
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

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if !args.iter().any(|arg| arg == "--bench") {
        return;
    }
    let after = |name: &str| args.iter().skip_while(|arg| *arg != name).nth(1);
    let rounds: usize = after("--rounds").map_or(3, |count| count.parse().expect("--rounds NUMBER"));
    let only = after("--only").map_or("", String::as_str);
    enter_network_namespace();
    let root = tempfile::tempdir().expect("a temporary directory");
    let directory = root.path().join("default");
    fs::create_dir(&directory).expect("made");
    for path in [root.path(), &directory] {
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("set");
    }
    for (name, size) in [LARGE, SMALL, TINY] {
        fs::write(directory.join(name), noise(size, 1)).expect("written");
    }
    let mut servers = servers(after("--also"));
    servers.retain(|server| {
        let starts = server.start(root.path()).is_some();
        if !starts {
            println!("not compared: {} does not answer", server.name);
        }
        starts
    });
    println!("\nmedians of {rounds} rounds; MB = 10^6 bytes; (x) = ratio to the best other server\n");
    let rows = rows();
    let is_title = rows.iter().any(|(title, ..)| title == only);
    for (title, load, size) in rows.iter().filter(|(title, ..)| title == only || !is_title && title.contains(only)) {
        compare(title, &servers, root.path(), load, *size, rounds);
    }
    print_startup(&servers, root.path(), rounds);
}

/// Returns the rows of the comparison: title, load and the size of the file in bytes.
fn rows() -> Vec<(String, Load, usize)> {
    let load = |clients, times, name, (blksize, windowsize), gro| Load {
        clients,
        times,
        name,
        blksize,
        windowsize,
        gro,
        loss: 0.0,
        timeout: TIMEOUT,
        limit: LIMIT,
    };
    let mut rows = vec![];
    for (blksize, windowsize, gro, times) in [
        (1468, 1, false, 1),
        (1468, 8, false, 2),
        (1468, 64, false, 2),
        (1468, 8, true, 2),
        (1468, 64, true, 4),
        (65464, 1, false, 4),
    ] {
        let title = format!("one stream, {blksize}/{windowsize}{}", if gro { ", client with GRO" } else { "" });
        rows.push((title, load(1, times, LARGE.0, (blksize, windowsize), gro), LARGE.1));
    }
    for (boards, times, blksize, windowsize, gro) in [
        (100, 10, 1468, 1, false),
        (100, 60, 65464, 1, false),
        (100, 30, 8192, 16, true),
        (1000, 1, 1468, 1, false),
        (1000, 1, 1468, 16, false),
        (1000, 1, 1468, 16, true),
    ] {
        let title = format!("{boards} boards, {blksize}/{windowsize}{}", if gro { ", clients with GRO" } else { "" });
        rows.push((title, load(boards, times, SMALL.0, (blksize, windowsize), gro), SMALL.1));
    }
    let title = "100 boards, files of 1000 bytes (MB/s: thousands of files a second)";
    rows.push((title.into(), load(100, 100, TINY.0, (1468, 1), false), TINY.1));
    for (windowsize, percent) in [(1, 1), (1, 5), (1, 10), (16, 1), (16, 5), (16, 10)] {
        let title = format!("100 boards, 1468/{windowsize}, {percent} % loss in both directions");
        let clean = load(100, 1, SMALL.0, (1468, windowsize), false);
        let loss = f64::from(percent) / 100.0;
        rows.push((title, Load { loss, timeout: Duration::from_millis(300), ..clean }, SMALL.1));
    }
    rows
}

/// Prints the time from the start to the first answer and the memory of idle servers.
fn print_startup(servers: &[Server], root: &Path, rounds: usize) {
    println!("startup to first answer, and memory when idle");
    for server in servers {
        let start = || server.start(root).expect("a server that starts");
        let mut times: Vec<Duration> = (0..rounds).map(|_| start().1).collect();
        times.sort();
        let (process, _, _) = start();
        let idle = ResourceUsage::of(process.id()).memory;
        println!("  {:<14} {:8.1} ms {:8.1} MiB", server.name, times[times.len() / 2].as_secs_f64() * 1e3, mib(idle));
    }
}

/// Enters a new network namespace, in which every port is free.
fn enter_network_namespace() {
    if geteuid().is_root() && unshare(CloneFlags::CLONE_NEWNET).is_ok() {
        rtftp_tests::run("ip", ["link", "set", "lo", "up"]);
        // tftpd-hpa does not start if 127.0.0.1 is the only address.
        rtftp_tests::run("ip", ["address", "add", "198.18.0.1/32", "dev", "lo"]);
    } else {
        println!("not root: dnsmasq is not compared, it needs port 69");
    }
}

/// Returns rtftp and the other servers that are installed.
fn servers(also: Option<&String>) -> Vec<Server> {
    let rtftp = |name: &str, program| Server { name: name.into(), program, args: RTFTP, port: None };
    let mut servers = vec![rtftp("rtftp", binary("rtftp"))];
    servers.extend(also.map(|path| rtftp("rtftp (also)", path.into())));
    for (name, program, args, port, hint) in PEERS {
        let found = find(program).filter(|path| name != "busybox" || has_applets(path));
        match found {
            Some(_) if port.is_some() && !geteuid().is_root() => {}
            Some(program) => servers.push(Server { name: name.into(), program, args, port }),
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

impl Server {
    /// Starts the server and waits for its first answer; returns the time to that answer, or `None` if it never answers.
    fn start(&self, root: &Path) -> Option<(Process, Duration, SocketAddr)> {
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
            client.send_to(&rrq(SMALL.0, &[]), address).expect("sent");
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

    /// Starts the server and runs a load of fetches of a file with `size` bytes.
    fn measure(&self, root: &Path, load: &Load, size: usize) -> io::Result<MeasuredRun> {
        let expected = fs::read(root.join("default").join(load.name))?;
        let (process, _, address) = self.start(root).expect("a server that starts");
        MeasuredRun::of(&process, size, || load.run(address, &expected))
    }
}

/// Returns a port that is free at this moment.
fn free_port() -> u16 {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    socket.local_addr().expect("bound").port()
}

/// Measures all servers in interleaved rounds and prints a line for each.
fn compare(title: &str, servers: &[Server], root: &Path, load: &Load, size: usize, rounds: usize) {
    let mut runs: Vec<Vec<MeasuredRun>> = servers.iter().map(|_| vec![]).collect();
    for _ in 0..rounds {
        for (server, runs) in servers.iter().zip(&mut runs) {
            runs.push(server.measure(root, load, size).expect("sockets"));
        }
    }
    let others = servers.iter().zip(&runs).filter(|(server, _)| !server.name.starts_with("rtftp"));
    let fastest = others.map(|(_, runs)| median(runs, MeasuredRun::speed)).fold(0.0, f64::max);
    // The processor time of tftpd-hpa's children is lost when they end: with many clients the sum is incomplete.
    let incomplete_cpu = |server: &Server| server.name == "tftpd-hpa" && load.clients > 1;
    let measured =
        servers.iter().zip(&runs).filter(|(server, _)| !server.name.starts_with("rtftp") && !incomplete_cpu(server));
    let cheapest = measured.map(|(_, runs)| median(runs, MeasuredRun::cost)).fold(f64::INFINITY, f64::min);
    let middle = |run: &MeasuredRun| run.report.percentile(0.5);
    let others = servers.iter().zip(&runs).filter(|(server, _)| !server.name.starts_with("rtftp"));
    let shortest = others.map(|(_, runs)| median(runs, middle)).fold(f64::INFINITY, f64::min);
    println!("{title}");
    println!(
        "                     MB/s          MB per CPU-s    CPU-s/GiB            median s         p99 s  peak MiB  complete"
    );
    for (server, runs) in servers.iter().zip(&runs) {
        let throughput = median(runs, MeasuredRun::speed);
        let cpu = if incomplete_cpu(server) { f64::NAN } else { median(runs, MeasuredRun::cost) };
        println!(
            "  {:<14} {throughput:8.0} ({:4.2})   {:8.0}     {cpu:8.2} ({:4.2})   {:9.3} ({:4.2}) {:8.3} {:9.1}  {}/{}",
            server.name,
            throughput / fastest,
            f64::from(1 << 30) / 1e6 / cpu,
            cpu / cheapest,
            median(runs, middle),
            median(runs, middle) / shortest,
            median(runs, |run| run.report.percentile(0.99)),
            median(runs, MeasuredRun::peak),
            runs.iter().map(|run| run.report.complete.len()).sum::<usize>(),
            runs.len() * usize::from(load.clients) * load.times as usize,
        );
        if let Some(run) = runs.iter().find(|run| run.report.failed.0 > 0) {
            println!("  {:<14} {} failed; first failure: {}", "", run.report.failed.0, run.report.failed.1);
        }
    }
    println!();
}
