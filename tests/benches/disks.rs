//! Measures native reading and serving of disks: `cargo bench -p rtftp-tests --bench disks` prints a table, and with
//! `-- --only PART-OF-A-TITLE` the matching rows.
//!
//! All connections use loopback, and the NBD server shares the processors. Compare figures of the same run only.

#[path = "disks/other_file_systems.rs"]
mod other_file_systems;
#[path = "disks/tls.rs"]
mod tls;

use std::{
    fs,
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use rtftp_core::{
    RequestPath,
    config::{disk::DiskConfig as Description, uri::NbdUri},
};
use rtftp_runtime::{fs::MountedDisk, nbd::NbdClient};
use rtftp_tests::{
    Disk, DiskConfig, FileSystem, NbdServer, Rtftp, Tree,
    bench_arguments::BenchArguments,
    load_client::{self, Load},
    noise,
    raw_client::rrq,
    run, thread_cpu_times,
};
use smol::Executor;

/// The maximum time until an answer of an NBD server.
const NBD_LIMIT: Duration = Duration::from_secs(10);
/// The size of one read of the daemon in bytes; it keeps one more read in flight.
const READ_SIZE: usize = 256 * 1024;
/// The size of the large files in bytes.
const LARGE_SIZE: usize = 64 << 20;
/// The size of the file of each of many boards in bytes.
const SMALL_SIZE: usize = 1 << 20;
/// The number of disks that are read concurrently.
const DISKS: u16 = 200;
/// The number of fetches from a disk and, interleaved, from a local file.
const ROUNDS: usize = 7;
/// The number of large files in a GiB.
const A_GIB: f64 = ((1 << 30) / LARGE_SIZE) as f64;

fn main() {
    if BenchArguments::parse().is_none() {
        return;
    }
    let disk = with_large_files();
    println!("{:<64} {:>15} {:>15}", "", "qemu-nbd", "nbdkit");
    let servers = [NbdServer::qemu(&disk), NbdServer::nbdkit(&disk)];
    row("disk not connected: request to first DATA", &servers, |server| milliseconds(first_data(server, true)));
    row("disk connected, snapshot refreshed: request to first DATA", &servers, |server| {
        milliseconds(first_data(server, false))
    });
    row("64 MiB of ext4 in one extent", &servers, |server| speed(read_file(server, "whole")));
    row("64 MiB in 1,000 extents", &servers, |server| speed(read_file(server, "pieces")));
    let plain = Disk::raw(&noise(LARGE_SIZE, 2));
    let servers = [NbdServer::qemu(&plain), NbdServer::nbdkit(&plain)];
    row("nbdcopy of 64 MiB to null:, as a reference", &servers, |server| match nbdcopy(server) {
        Some(seconds) => speed(seconds),
        None => "not installed".into(),
    });
    let large = Disk::whole(1 << 20, FileSystem::Ext4(&Tree::new().file("boot/kernel", "kernel")));
    let servers = [NbdServer::qemu(&large), NbdServer::nbdkit(&large)];
    row("ext4 of 1 TiB: connect, open, look up a file", &servers, |server| milliseconds(open_whole(server)));
    let servers = [NbdServer::qemu(&disk), NbdServer::nbdkit(&disk)];
    row("200 disks, all serving: memory per disk", &servers, memory);
    for (gro, client) in [(false, ""), (true, ", client with GRO")] {
        let title = format!("64 MiB at 1468/64, from a disk, from a local file{client}: MB/s");
        row(&title, &servers, |server| served(server, gro, |run| LARGE_SIZE as f64 / run.seconds / 1e6));
        for (index, process) in ["daemon", "NBD server", "client"].iter().enumerate() {
            let title = format!("64 MiB at 1468/64{client}: CPU-s/GiB of the {process}");
            row(&title, &servers, |server| served(server, gro, |run| run.cpu[index] * A_GIB));
        }
    }
    tls::rows();
    other_file_systems::rows();
    for windowsize in [1, 16] {
        let title = format!("200 boards from 200 disks, 1 MiB at 1468/{windowsize}: median, p99");
        row(&title, &servers, |server| boards(server, windowsize));
    }
}

/// Returns whether the arguments select the row with this title.
fn is_selected(name: &str) -> bool {
    BenchArguments::parse().is_some_and(|arguments| name.contains(&arguments.only))
}

/// Prints a row with a figure for qemu-nbd and one for nbdkit.
fn row<S>(name: &str, servers: &[S; 2], measure: impl Fn(&S) -> String) {
    if !is_selected(name) {
        return;
    }
    let [qemu, nbdkit] = servers.each_ref().map(measure);
    println!("{name:<64} {qemu:>15} {nbdkit:>15}");
}

fn milliseconds(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1e3)
}

/// Formats the throughput of [`LARGE_SIZE`] bytes in `seconds`.
fn speed(seconds: f64) -> String {
    format!("{:.0} MB/s", LARGE_SIZE as f64 / seconds / 1e6)
}

fn median<T: Ord>(mut all: Vec<T>) -> T {
    all.sort();
    let middle = all.len() / 2;
    all.swap_remove(middle)
}

/// Builds a disk with two files of 64 MiB, one in a single extent and one in a thousand extents, and a small file.
fn with_large_files() -> Disk {
    let bytes = noise(LARGE_SIZE, 1);
    let tree = Tree::new().file("whole", &bytes).file("small", &bytes[..SMALL_SIZE]).directory("gaps");
    let disk = Disk::whole(512, FileSystem::Ext4(&tree));
    // Small files fill the free space and every second one is removed: a file that fills the gaps is fragmented.
    let image = disk.path().display().to_string();
    let piece = Tree::new().file("piece", vec![1; LARGE_SIZE / 1000]).file("pieces", &bytes);
    let mut script = String::new();
    for index in 0..5200 {
        script += &format!("write {} gaps/{index}\n", piece.path().join("piece").display());
    }
    for index in (0..5200).step_by(2) {
        script += &format!("rm gaps/{index}\n");
    }
    script += &format!("write {} pieces\n", piece.path().join("pieces").display());
    let commands = piece.path().join("commands");
    fs::write(&commands, script).expect("a script");
    run("debugfs", ["-w", "-f", &commands.display().to_string(), &image]);
    disk
}

/// Returns the description of an unpartitioned disk.
fn unpartitioned_config(server: &NbdServer) -> DiskConfig {
    DiskConfig::new(server.url()).partition(0, "/")
}

/// Returns the median time from a request to the first block, over 50 clients with a disk of their own each.
fn first_data(server: &NbdServer, cold: bool) -> Duration {
    let daemon = Rtftp::start_with("127.0.0.1", 3600, &["--monitor-configs", "false", "--view-gap", "0"]);
    let times = (1..=50).map(|client| {
        let address = format!("127.0.1.{client}");
        daemon.put_disk(&address, &unpartitioned_config(server));
        let mut client = daemon.client(&address);
        if !cold {
            assert_eq!(client.exchange(&rrq("nothing", &[])).code(), 1);
        }
        let requested = Instant::now();
        assert_eq!(client.exchange(&rrq("whole", &[])).block(), 1);
        requested.elapsed()
    });
    median(times.collect())
}

/// Returns the median time in seconds of reading a file as the daemon does: in parts, with the next part in flight.
fn read_file(server: &NbdServer, name: &str) -> f64 {
    let times = (0..5).map(|_| {
        with_mounted_disk(server, async |executor, disk, _| {
            let file = disk.find_file(&RequestPath::parse(name.as_bytes()).expect("a path")).await.expect("a file");
            let (file, device) = (Arc::new(file), disk.device());
            let started = Instant::now();
            let read = |part: u64| {
                let (file, device) = (file.clone(), device.clone());
                executor.spawn(async move {
                    file.read(&*device, part * READ_SIZE as u64, READ_SIZE).await.expect("bytes").len()
                })
            };
            let (mut size, mut part, mut in_flight) = (0, 0, read(0));
            while size < file.size {
                part += 1;
                let next = read(part);
                size += in_flight.await as u64;
                in_flight = next;
            }
            started.elapsed()
        })
    });
    median(times.collect()).as_secs_f64()
}

/// Returns the median time to connect, open the file systems and look up a file.
fn open_whole(server: &NbdServer) -> Duration {
    let times = (0..9).map(|_| {
        with_mounted_disk(server, async |_, disk, started| {
            disk.find_file(&RequestPath::parse(b"boot/kernel").expect("a path")).await.expect("a file");
            started.elapsed()
        })
    });
    median(times.collect())
}

fn with_mounted_disk<T>(server: &NbdServer, work: impl AsyncFn(&Executor<'static>, &MountedDisk, Instant) -> T) -> T {
    let description = Description::parse(unpartitioned_config(server).to_string().as_bytes()).expect("a description");
    let url = NbdUri::parse(server.url()).expect("a URI");
    let executor = Executor::new();
    smol::block_on(executor.run(async {
        let started = Instant::now();
        let nbd = NbdClient::connect(&url, NBD_LIMIT, &executor).await.expect("a connection");
        let disk = MountedDisk::open(Arc::new(nbd), &description).await.expect("a mounted disk");
        work(&executor, &disk, started).await
    }))
}

/// Returns the median time in seconds that nbdcopy takes for an export of 64 MiB, or `None` if it is not installed.
fn nbdcopy(server: &NbdServer) -> Option<f64> {
    let times = (0..5).map(|_| {
        let started = Instant::now();
        let copied = Command::new("nbdcopy").args([server.url(), "null:"]).status().ok()?;
        copied.success().then(|| started.elapsed())
    });
    times.collect::<Option<Vec<_>>>().map(|times| median(times).as_secs_f64())
}

/// Returns the growth of the daemon's memory for each of 200 disks with a transfer in progress.
fn memory(server: &NbdServer) -> String {
    let daemon = Rtftp::start_with("127.0.0.1", 3600, &["--monitor-configs", "false"]);
    let before = daemon.process().resident_memory();
    let clients: Vec<_> = (0..DISKS)
        .map(|client| {
            let address = format!("127.0.2.{}", client + 1);
            daemon.put_disk(&address, &unpartitioned_config(server));
            let mut client = daemon.client(&address);
            let mut answer = client.exchange(&rrq("whole", &[("blksize", "8192")]));
            // Far enough to fill the daemon's buffers of the transfer.
            for block in 0..100 {
                answer = client.acknowledge(block);
            }
            assert_eq!(answer.block(), 100);
            client
        })
        .collect();
    let grown = daemon.process().resident_memory() - before;
    drop(clients);
    format!("{:.2} MiB", grown as f64 / f64::from(DISKS) / f64::from(1 << 20))
}

/// One fetch of the large file.
struct Run {
    seconds: f64,
    /// Processor time of the daemon, the NBD server and the client in seconds.
    cpu: [f64; 3],
}

/// Returns the medians of a figure of a fetch: from a disk that is not connected yet, and from a local file.
fn served(server: &NbdServer, gro: bool, figure: impl Fn(Run) -> f64) -> String {
    let (mut disk, mut local) = (vec![], vec![]);
    let bytes = noise(LARGE_SIZE, 1);
    for _ in 0..ROUNDS {
        let daemon = Rtftp::start_with("127.0.0.1", 3600, &["--monitor-configs", "false"]);
        daemon.put("default/whole", &bytes);
        local.push(figure(fetch(&daemon, server, gro, &bytes)));
        daemon.put_disk(&load_client::address(0).to_string(), &unpartitioned_config(server));
        disk.push(figure(fetch(&daemon, server, gro, &bytes)));
    }
    [&mut disk, &mut local].into_iter().for_each(|all| all.sort_by(f64::total_cmp));
    let [disk, local] = [&disk, &local].map(|all| all[all.len() / 2]);
    if local < 10.0 { format!("{disk:.2}, {local:.2}") } else { format!("{disk:.0}, {local:.0}") }
}

fn fetch(daemon: &Rtftp, server: &NbdServer, gro: bool, expected: &[u8]) -> Run {
    let all = [daemon.process().id(), server.process().id(), std::process::id()];
    let used = |pid| thread_cpu_times(pid).iter().map(|(_, time)| time.as_secs_f64()).sum::<f64>();
    let before = all.map(used);
    let load = Load { gro, ..load(1, "whole", 64) };
    let report = load.run(daemon.address(), expected).expect("sockets");
    assert_eq!(report.failed, (0, String::new()));
    let mut cpu = all.map(used);
    cpu.iter_mut().zip(before).for_each(|(cpu, before)| *cpu -= before);
    Run { seconds: report.wall.as_secs_f64(), cpu }
}

/// Returns the times of boards that all begin at once, each from a disk of its own that is not connected yet.
fn boards(server: &NbdServer, windowsize: u16) -> String {
    let daemon = Rtftp::start_with("127.0.0.1", 3600, &["--monitor-configs", "false"]);
    for client in 0..DISKS {
        daemon.put_disk(&load_client::address(client).to_string(), &unpartitioned_config(server));
    }
    let report = load(DISKS, "small", windowsize).run(daemon.address(), &noise(SMALL_SIZE, 1)).expect("sockets");
    assert_eq!(report.failed, (0, String::new()));
    format!("{:.2} s, {:.2} s", report.percentile(0.5), report.percentile(0.99))
}

fn load(clients: u16, name: &'static str, windowsize: u16) -> Load {
    let (timeout, limit) = (Duration::from_secs(1), Duration::from_secs(60));
    Load { clients, times: 1, name, blksize: 1468, windowsize, gro: false, loss: 0.0, timeout, limit }
}
