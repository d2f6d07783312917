//! How fast disks are read natively: `cargo bench -p rtftp-tests --bench disks` prints a table.
//!
//! Everything is on loopback, the NBD server on the same processors; the figures to compare with are of the same run.

use std::{
    fs,
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use rtftp_core::{RequestPath, disk::DiskConfig as Description, uri::NbdUri};
use rtftp_runtime::remote::{native::View, nbd::Nbd};
use rtftp_tests::{Disk, DiskConfig, FileSystem, NbdServer, Rtftp, Tree, client::rrq, noise, run};
use smol::Executor;

/// How long an answer of an NBD server may take.
const LIMIT: Duration = Duration::from_secs(10);
/// How much the daemon reads at once, with one more reading on its way.
const PART: usize = 256 * 1024;
/// How many disks serve at the same time.
const DISKS: u64 = 200;

fn main() {
    // `cargo test --benches` only wants to know whether this builds.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let disk = with_large_files();
    println!("{:<58} {:>12} {:>12}", "", "qemu-nbd", "nbdkit");
    let servers = [NbdServer::qemu(&disk), NbdServer::nbdkit(&disk)];
    row("a disk that is not connected: request to first DATA", &servers, |server| {
        milliseconds(first_data(server, true))
    });
    row("a connected disk, looked at afresh: the same", &servers, |server| milliseconds(first_data(server, false)));
    row("64 MiB in one piece", &servers, |server| speed(read_file(server, "whole")));
    row("64 MiB in 1,000 pieces", &servers, |server| speed(read_file(server, "pieces")));
    let plain = Disk::raw(&noise(64 << 20, 2));
    let servers = [NbdServer::qemu(&plain), NbdServer::nbdkit(&plain)];
    row("nbdcopy of 64 MiB to null:, for comparison", &servers, |server| match nbdcopy(server) {
        Some(seconds) => speed(seconds),
        None => "not there".into(),
    });
    let large = Disk::whole(1 << 20, FileSystem::Ext4(&Tree::new().file("boot/kernel", "kernel")));
    let servers = [NbdServer::qemu(&large), NbdServer::nbdkit(&large)];
    row("an ext4 of 1 TiB: connect, look, find a file", &servers, |server| milliseconds(open_whole(server)));
    let servers = [NbdServer::qemu(&disk), NbdServer::nbdkit(&disk)];
    row("200 disks, all serving: memory a disk", &servers, memory);
}

fn row(name: &str, servers: &[NbdServer], measure: impl Fn(&NbdServer) -> String) {
    let [qemu, nbdkit] = [&servers[0], &servers[1]].map(measure);
    println!("{name:<58} {qemu:>12} {nbdkit:>12}");
}

fn milliseconds(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1e3)
}

/// The speed of 64 MiB in so many seconds.
fn speed(seconds: f64) -> String {
    format!("{:.0} MB/s", f64::from(64 << 20) / seconds / 1e6)
}

fn median<T: Ord>(mut all: Vec<T>) -> T {
    all.sort();
    let middle = all.len() / 2;
    all.swap_remove(middle)
}

/// A disk with one file in one piece and one in a thousand, both of 64 MiB.
fn with_large_files() -> Disk {
    let bytes = noise(64 << 20, 1);
    let disk = Disk::whole(512, FileSystem::Ext4(&Tree::new().file("whole", &bytes).directory("gaps")));
    // What is free is cut up by small files, every second of which goes again: a file that fills the gaps is in pieces.
    let image = disk.path().display().to_string();
    let piece = Tree::new().file("piece", vec![1; (64 << 20) / 1000]).file("pieces", &bytes);
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

fn whole(server: &NbdServer) -> DiskConfig {
    DiskConfig::new(server.url()).partition(0, "/")
}

/// The median time from a request to the first block, over so many clients with a disk of their own each.
fn first_data(server: &NbdServer, cold: bool) -> Duration {
    let daemon = Rtftp::with("127.0.0.1", 3600, &["--monitor-configs", "false", "--view-gap", "0"]);
    let times = (1..=50).map(|client| {
        let address = format!("127.0.1.{client}");
        daemon.put_disk(&address, &whole(server));
        let mut client = daemon.client(&address);
        if !cold {
            assert_eq!(client.ask(&rrq("nothing", &[])).code(), 1);
        }
        let asked = Instant::now();
        assert_eq!(client.ask(&rrq("whole", &[])).block(), 1);
        asked.elapsed()
    });
    median(times.collect())
}

/// The median time, in seconds, of reading a file as the daemon does: in parts, the next of which is on its way already.
fn read_file(server: &NbdServer, name: &str) -> f64 {
    let times = (0..5).map(|_| {
        with_view(server, async |executor, view, _| {
            let file = view.file(&RequestPath::parse(name.as_bytes()).expect("a path")).await.expect("a file");
            let (file, disk) = (Arc::new(file), view.disk());
            let started = Instant::now();
            let read = |part: u64| {
                let (file, disk) = (file.clone(), disk.clone());
                executor.spawn(async move { file.read(&*disk, part * PART as u64, PART).await.expect("bytes").len() })
            };
            let (mut size, mut part, mut coming) = (0, 0, read(0));
            while size < file.size {
                part += 1;
                let next = read(part);
                size += coming.await as u64;
                coming = next;
            }
            started.elapsed()
        })
    });
    median(times.collect()).as_secs_f64()
}

/// The median time of connecting, looking and finding a file.
fn open_whole(server: &NbdServer) -> Duration {
    let times = (0..9).map(|_| {
        with_view(server, async |_, view, started| {
            view.file(&RequestPath::parse(b"boot/kernel").expect("a path")).await.expect("a file");
            started.elapsed()
        })
    });
    median(times.collect())
}

fn with_view<T>(server: &NbdServer, work: impl AsyncFn(&Executor<'static>, &View, Instant) -> T) -> T {
    let description = Description::parse(whole(server).to_string().as_bytes()).expect("a description");
    let url = NbdUri::parse(server.url()).expect("a URI");
    let executor = Executor::new();
    smol::block_on(executor.run(async {
        let started = Instant::now();
        let nbd = Nbd::connect(&url, LIMIT, &executor).await.expect("a connection");
        let view = View::open(Arc::new(nbd), &description).await.expect("a view");
        work(&executor, &view, started).await
    }))
}

/// The median time, in seconds, that nbdcopy takes for an export of 64 MiB.
fn nbdcopy(server: &NbdServer) -> Option<f64> {
    let times = (0..5).map(|_| {
        let started = Instant::now();
        let copied = Command::new("nbdcopy").args([server.url(), "null:"]).status().ok()?;
        copied.success().then(|| started.elapsed())
    });
    times.collect::<Option<Vec<_>>>().map(|times| median(times).as_secs_f64())
}

/// What the daemon's memory grows by for each of 200 disks from which transfers are under way.
fn memory(server: &NbdServer) -> String {
    let daemon = Rtftp::with("127.0.0.1", 3600, &["--monitor-configs", "false"]);
    let before = daemon.process().resident();
    let clients: Vec<_> = (0..DISKS)
        .map(|client| {
            let address = format!("127.0.2.{}", client + 1);
            daemon.put_disk(&address, &whole(server));
            let mut client = daemon.client(&address);
            let mut answer = client.ask(&rrq("whole", &[("blksize", "8192")]));
            // So far that the parts which are kept are all there.
            for block in 0..100 {
                answer = client.acknowledge(block);
            }
            assert_eq!(answer.block(), 100);
            client
        })
        .collect();
    let grown = daemon.process().resident() - before;
    drop(clients);
    format!("{:.2} MiB", grown as f64 / DISKS as f64 / f64::from(1 << 20))
}
