//! Compares rtftp with other TFTP servers in one run: throughput, processor time, memory, fairness, loss, startup.
//!
//! ```text
//! cargo build --release && cargo bench -p rtftp-tests --bench peers [-- --rounds N] [--only TITLE-OR-PART-OF-IT]
//!     [--also PATH-OF-ANOTHER-RTFTP] [--single-port]
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

use std::{fs, io, path::Path, time::Duration};

use rtftp_tests::{
    ResourceUsage,
    bench_arguments::BenchArguments,
    load_client::Load,
    measured_run::{MeasuredRun, median, mib, settle},
    measured_server::{MeasuredServer, enter_network_namespace, measured_servers},
    noise,
};

/// Names and sizes in bytes: the file of a single stream, the file of each of many boards, and a file of one or two blocks.
const LARGE: (&str, usize) = ("large", 48 << 20);
const SMALL: (&str, usize) = ("small", 1 << 20);
const TINY: (&str, usize) = ("tiny", 1000);
const TIMEOUT: Duration = Duration::from_millis(1000);
const LIMIT: Duration = Duration::from_secs(60);

fn main() {
    let Some(arguments) = BenchArguments::parse() else { return };
    let BenchArguments { rounds, only, .. } = &arguments;
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
    let mut servers = measured_servers(&arguments);
    servers.retain(|server| {
        let starts = server.start(root.path(), SMALL.0).is_some();
        if !starts {
            println!("not compared: {} does not answer", server.name);
        }
        starts
    });
    settle();
    println!("\nmedians of {rounds} rounds; MB = 10^6 bytes; (x) = ratio to the best other server\n");
    let rows = rows();
    let is_title = rows.iter().any(|(title, _)| title == only);
    for (title, load) in rows.iter().filter(|(title, _)| title == only || !is_title && title.contains(only)) {
        compare(title, &servers, root.path(), load, *rounds);
    }
    print_startup(&servers, root.path(), *rounds);
}

/// Returns the rows of the comparison: title and load.
fn rows() -> Vec<(String, Load)> {
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
        rows.push((title, load(1, times, LARGE.0, (blksize, windowsize), gro)));
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
        rows.push((title, load(boards, times, SMALL.0, (blksize, windowsize), gro)));
    }
    let title = "100 boards, files of 1000 bytes (MB/s: thousands of files a second)";
    rows.push((title.into(), load(100, 100, TINY.0, (1468, 1), false)));
    for (windowsize, percent) in [(1, 1), (1, 5), (1, 10), (16, 1), (16, 5), (16, 10)] {
        let title = format!("100 boards, 1468/{windowsize}, {percent} % loss in both directions");
        let clean = load(100, 1, SMALL.0, (1468, windowsize), false);
        let loss = f64::from(percent) / 100.0;
        rows.push((title, Load { loss, timeout: Duration::from_millis(300), ..clean }));
    }
    rows
}

/// Prints the time from the start to the first answer and the memory of idle servers.
fn print_startup(servers: &[MeasuredServer], root: &Path, rounds: usize) {
    println!("startup to first answer, and memory when idle");
    for server in servers {
        let start = || server.start(root, SMALL.0).expect("a server that starts");
        let mut times: Vec<Duration> = (0..rounds).map(|_| start().1).collect();
        times.sort();
        let (process, _, _) = start();
        let idle = ResourceUsage::of(process.id()).memory;
        println!("  {:<14} {:8.1} ms {:8.1} MiB", server.name, times[times.len() / 2].as_secs_f64() * 1e3, mib(idle));
    }
}

/// Starts a server and runs a load of fetches of a file.
fn measure(server: &MeasuredServer, root: &Path, load: &Load) -> io::Result<MeasuredRun> {
    let expected = fs::read(root.join("default").join(load.name))?;
    let (process, _, address) = server.start(root, SMALL.0).expect("a server that starts");
    MeasuredRun::of(&process, || load.run(address, &expected))
}

/// Measures all servers in interleaved rounds and prints a line for each.
fn compare(title: &str, servers: &[MeasuredServer], root: &Path, load: &Load, rounds: usize) {
    let mut runs: Vec<Vec<MeasuredRun>> = servers.iter().map(|_| vec![]).collect();
    for _ in 0..rounds {
        for (server, runs) in servers.iter().zip(&mut runs) {
            runs.push(measure(server, root, load).expect("sockets"));
        }
    }
    let others = servers.iter().zip(&runs).filter(|(server, _)| !server.name.starts_with("rtftp"));
    let fastest = others.map(|(_, runs)| median(runs, MeasuredRun::speed)).fold(0.0, f64::max);
    // The processor time of tftpd-hpa's children is lost when they end: with many clients the sum is incomplete.
    let incomplete_cpu = |server: &MeasuredServer| server.name == "tftpd-hpa" && load.clients > 1;
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
