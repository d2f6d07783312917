//! Compares the HTTP server of rtftp with nginx, lighttpd and Python's http.server in one run: throughput, processor time, memory.
//!
//! ```text
//! cargo build --release && cargo bench -p rtftp-tests --bench http [-- --rounds N] [--only PART-OF-A-TITLE]
//! ```
//!
//! Method: as in the benchmark `peers`. Each figure is the median of several rounds, which are interleaved (A B C, A B C, ...). Each
//! run starts a new server process, with the files in the page cache. The client is `rtftp_tests::http_load`, which compares every
//! byte and has a source address for each connection. It shares the processors with the server. nginx and lighttpd have the
//! configuration of their Debian packages as far as it matters here, without logs of requests and with places for 4,096 connections:
//! nginx has a worker for each processor. rtftp does not log requests either.
//!
//! In the rows "from a disk", rtftp reads from an ext4 behind nbdkit, a connection for each client; the others serve a local file.
//! The processor time is that of the server without the NBD server.

use std::{
    fmt::Write as _,
    fs,
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::{sys::signal::Signal, unistd::geteuid};
use rtftp_tests::{
    Disk, DiskConfig, FileSystem, NbdServer, Process, ResourceUsage, Tree,
    bench_arguments::BenchArguments,
    binary,
    boot_storm::{Boot, BootDisks},
    http_load::HttpLoad,
    load_client::address,
    measured_run::{MeasuredRun, median, settle},
    nbd_program::NbdProgram,
    noise,
};

/// Names and sizes in bytes.
const LARGE: (&str, usize) = ("/large", 48 << 20);
const SMALL: (&str, usize) = ("/small", 1 << 20);
const TINY: (&str, usize) = ("/tiny", 1000);
const LIMIT: Duration = Duration::from_secs(60);
/// The number of clients with a disk.
const DISKS: u16 = 200;

/// Numbers of boards that boot, and the divisors of the sizes of their large files.
const STORMS: [(u16, usize); 2] = [(100, 4), (1000, 16)];

/// The configuration of nginx, with placeholders.
const NGINX: &str = "daemon off; worker_processes auto; pid {work}/nginx.pid; error_log stderr crit; {user}
    events { worker_connections 4096; }
    http {
        sendfile on; tcp_nopush on; access_log off; types_hash_max_size 2048;
        client_body_temp_path {work}/1; proxy_temp_path {work}/2; fastcgi_temp_path {work}/3;
        uwsgi_temp_path {work}/4; scgi_temp_path {work}/5;
        server { listen 127.0.0.1:{port} backlog=4096; root {dir}; keepalive_requests 1000000; }
    }";
/// The configuration of lighttpd, with placeholders.
const LIGHTTPD: &str = "server.document-root = \"{dir}\"
    server.bind = \"127.0.0.1\"
    server.port = {port}
    server.max-connections = 4096
    server.max-fds = 8192
    server.max-keep-alive-requests = 1000000
    server.listen-backlog = 4096
    mimetype.assign = ( \"\" => \"application/octet-stream\" )";

/// A server program: name, program, arguments and the contents of its configuration file, both with placeholders.
struct Server(&'static str, &'static str, &'static str, &'static str);

const SERVERS: [Server; 4] = [
    Server(
        "rtftp",
        "rtftp",
        "--listen-ip 127.0.0.1 --listen-port 0 --root-dir {root} --log-level warn --http 127.0.0.1:{port}",
        "",
    ),
    Server("nginx", "nginx", "-c {work}/config -p {work}", NGINX),
    Server("lighttpd", "lighttpd", "-D -f {work}/config", LIGHTTPD),
    Server("python3", "python3", "-m http.server --bind 127.0.0.1 --directory {dir} {port}", ""),
];

/// A row of the comparison.
struct Row {
    title: &'static str,
    load: HttpLoad,
    size: usize,
    /// Whether rtftp serves the file from disks.
    from_disk: bool,
    /// Whether Python, which starts a thread for each connection, is left out.
    is_heavy: bool,
}

fn main() {
    let Some(BenchArguments { rounds, only, .. }) = BenchArguments::parse() else { return };
    let local = tempfile::tempdir().expect("a temporary directory");
    let (one_disk, disks) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let files = [LARGE, SMALL, TINY];
    for root in [local.path(), one_disk.path(), disks.path()] {
        let directory = root.join("default");
        fs::create_dir(&directory).expect("made");
        for path in [root, &directory] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("set");
        }
    }
    let mut tree = Tree::new();
    for (name, size) in files {
        let contents = noise(size, 1);
        tree = tree.file(&name[1..], &contents);
        fs::write(local.path().join("default").join(&name[1..]), contents).expect("written");
    }
    let disk = Disk::whole(128, FileSystem::Ext4(&tree));
    let nbd = NbdServer::nbdkit(&disk);
    let config = DiskConfig::new(nbd.url()).device("/dev/sda", "/").to_string();
    fs::write(one_disk.path().join(format!("{}.nbd", address(0))), &config).expect("written");
    for client in 0..DISKS {
        fs::write(disks.path().join(format!("{}.nbd", address(client))), &config).expect("written");
    }
    let servers: Vec<_> = SERVERS.iter().filter(|server| server.is_installed()).collect();
    settle();
    println!("medians of {rounds} rounds; MB = 10^6 bytes; (x) = rtftp compared with nginx: more is better\n");
    for row in rows().iter().filter(|row| row.title.contains(&*only)) {
        let servers: Vec<_> = servers.iter().filter(|server| server.0 != "python3" || !row.is_heavy).copied().collect();
        let disks = if row.load.clients == 1 { &one_disk } else { &disks };
        compare(row, &servers, local.path(), disks.path(), rounds);
    }
    for (boards, divisor) in STORMS {
        let title = format!("{boards} boards that boot, large files / {divisor}");
        if title.contains(&*only) {
            storm(&title, &servers, boards, &Boot::new(divisor), rounds);
        }
    }
}

fn rows() -> Vec<Row> {
    let load = |clients, times, (path, _): (&'static str, usize)| HttpLoad { clients, times, path, limit: LIMIT };
    let row = |title, load, size, from_disk, is_heavy| Row { title, load, size, from_disk, is_heavy };
    vec![
        row("one stream, local file", load(1, 40, LARGE), LARGE.1, false, false),
        row("200 clients, local file", load(200, 10, SMALL), SMALL.1, false, false),
        row("1000 clients, local file", load(1000, 2, SMALL), SMALL.1, false, true),
        row("100 clients, files of 1000 bytes", load(100, 200, TINY), TINY.1, false, true),
        row("one stream, from a disk", load(1, 40, LARGE), LARGE.1, true, false),
        row("200 clients, from a disk each", load(DISKS, 10, SMALL), SMALL.1, true, true),
    ]
}

impl Server {
    fn is_installed(&self) -> bool {
        let Self(name, program, ..) = self;
        let path = std::env::var("PATH").unwrap_or_default();
        let is_installed = *name == "rtftp"
            || path.split(':').chain(["/usr/sbin"]).any(|directory| Path::new(directory).join(program).is_file());
        if !is_installed {
            println!("not compared: {name} is not installed (apt install {name})");
        }
        is_installed
    }

    /// Starts the server and waits until it accepts connections. `work` is a directory of its own.
    fn start(&self, root: &Path, work: &Path) -> (Process, SocketAddr) {
        let Self(name, program, args, config) = self;
        // No other program takes the port in the meantime: the benchmark does not start two servers at once.
        let address = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a free port");
        let fill = |text: &str| {
            let user = if geteuid().is_root() { "user root;" } else { "" };
            let dir = root.join("default").display().to_string();
            [
                ("{port}", address.port().to_string().as_str()),
                ("{root}", &root.display().to_string()),
                ("{dir}", &dir),
                ("{work}", &work.display().to_string()),
                ("{user}", user),
            ]
            .iter()
            .fold(text.to_owned(), |text, (name, value)| text.replace(name, value))
        };
        fs::write(work.join("config"), fill(config)).expect("written");
        let mut command = match *name {
            "rtftp" => Command::new(binary("rtftp")),
            _ => Command::new(program),
        };
        let path = format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default());
        command.args(fill(args).split_whitespace()).env("PATH", path);
        let log = fs::File::create(work.join("log")).expect("created");
        let process = Process::start(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log));
        let started = Instant::now();
        while TcpStream::connect(address).is_err() {
            let log = || fs::read_to_string(work.join("log")).unwrap_or_default();
            assert!(!process.has_ended() && started.elapsed() < LIMIT, "{name} does not answer: {}", log());
            thread::sleep(Duration::from_millis(1));
        }
        (process, address)
    }

    /// Starts the server and runs a load of requests of a file with `size` bytes.
    fn measure(&self, root: &Path, row: &Row) -> MeasuredRun {
        let expected = noise(row.size, 1);
        let work = tempfile::tempdir().expect("a temporary directory");
        let (process, address) = self.start(root, work.path());
        let measured = MeasuredRun::of(&process, || row.load.run(address, &expected)).expect("sockets");
        stop(process);
        measured
    }
}

/// Ends a server, and so its workers.
fn stop(mut server: Process) {
    server.signal(Signal::SIGTERM);
    server.wait(LIMIT);
}

/// Measures servers in interleaved rounds and prints a line for each.
fn compare(row: &Row, servers: &[&Server], local: &Path, disks: &Path, rounds: usize) {
    let mut runs: Vec<Vec<MeasuredRun>> = servers.iter().map(|_| vec![]).collect();
    for _ in 0..rounds {
        for (server, runs) in servers.iter().zip(&mut runs) {
            let root = if row.from_disk && server.0 == "rtftp" { disks } else { local };
            runs.push(server.measure(root, row));
        }
    }
    let nginx = servers.iter().zip(&runs).find(|(server, _)| server.0 == "nginx").map(|(_, runs)| runs.as_slice());
    println!("{}", row.title);
    println!("                 MB/s          CPU-s/GiB        median s     p99 s  peak MiB  growth MiB  complete");
    for (server, runs) in servers.iter().zip(&runs) {
        let (mut mb, mut cpu) = (String::new(), String::new());
        if let Some(nginx) = nginx.filter(|_| server.0 == "rtftp") {
            let _ = write!(mb, "({:.2})", median(runs, MeasuredRun::speed) / median(nginx, MeasuredRun::speed));
            let _ = write!(cpu, "({:.2})", median(nginx, MeasuredRun::cost) / median(runs, MeasuredRun::cost));
        }
        println!(
            "  {:<10} {:8.0} {mb:<7} {:8.3} {cpu:<7} {:9.3} {:9.3} {:9.1} {:11.1}  {}/{}",
            server.0,
            median(runs, MeasuredRun::speed),
            median(runs, MeasuredRun::cost),
            median(runs, |run| run.report.percentile(0.5)),
            median(runs, |run| run.report.percentile(0.99)),
            median(runs, MeasuredRun::peak),
            median(runs, MeasuredRun::growth),
            runs.iter().map(|run| run.report.complete.len()).sum::<usize>(),
            runs.len() * usize::from(row.load.clients) * row.load.times as usize,
        );
        if let Some(run) = runs.iter().find(|run| run.report.failed.0 > 0) {
            println!("  {:<10} {} failed; last failure: {}", "", run.report.failed.0, run.report.failed.1);
        }
    }
    println!();
}

/// A run in which boards boot, and the processor time of their NBD server in seconds.
struct Storm {
    measured: MeasuredRun,
    nbd: f64,
}

/// Boots boards over HTTP, as the benchmark `storm` does over TFTP, in interleaved rounds, and prints a line for each server.
fn storm(title: &str, servers: &[&Server], boards: u16, boot: &Boot, rounds: usize) {
    let (local, disks) = (boot.local_files(), BootDisks::new(boot, boards));
    let load = HttpLoad { clients: boards, times: 1, path: "", limit: 3 * LIMIT };
    let contestants = servers.iter().filter(|server| server.0 != "python3").map(|server| (*server, false));
    let contestants: Vec<_> = servers.iter().take(1).map(|server| (*server, true)).chain(contestants).collect();
    let mut runs: Vec<Vec<Storm>> = contestants.iter().map(|_| vec![]).collect();
    settle();
    for _ in 0..rounds {
        for ((server, from_disks), runs) in contestants.iter().zip(&mut runs) {
            let nbd = from_disks.then(|| disks.serve(NbdProgram::Nbdkit));
            let work = tempfile::tempdir().expect("a temporary directory");
            let (process, address) = server.start(if *from_disks { disks.root() } else { local.path() }, work.path());
            let measured = MeasuredRun::of(&process, || load.run_files(address, &boot.requested())).expect("sockets");
            let cpu = |nbd: &NbdServer| ResourceUsage::of(nbd.process().id()).cpu.as_secs_f64();
            runs.push(Storm { measured, nbd: nbd.as_ref().map_or(0.0, cpu) });
            stop(process);
        }
    }
    println!("{title}");
    println!("                       half s     all s      MB/s  CPU-s/GiB  CPU-s of NBD  peak MiB  booted");
    for ((server, from_disks), runs) in contestants.iter().zip(&runs) {
        let booted = |part: f64| {
            let index = (f64::from(boards) * part).ceil() as usize - 1;
            median(runs, |run| run.measured.report.clients.get(index).map_or(f64::INFINITY, Duration::as_secs_f64))
        };
        println!(
            "  {:<17} {:9.3} {:9.3} {:9.0} {:10.2} {:13.2} {:9.1}  {}/{}",
            format!("{}{}", server.0, if *from_disks { ", disks" } else { "" }),
            booted(0.5),
            booted(1.0),
            median(runs, |run| run.measured.speed()),
            median(runs, |run| run.measured.cost()),
            median(runs, |run| run.nbd),
            median(runs, |run| run.measured.peak()),
            runs.iter().map(|run| run.measured.report.clients.len()).sum::<usize>(),
            runs.len() * usize::from(boards),
        );
        if let Some(run) = runs.iter().find(|run| run.measured.report.failed.0 > 0) {
            println!(
                "  {:<17} {} failed; last failure: {}",
                "", run.measured.report.failed.0, run.measured.report.failed.1
            );
        }
    }
    println!();
}
