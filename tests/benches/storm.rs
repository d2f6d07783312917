//! Compares TFTP servers while many boards boot at once: the time until half, 99 % and all of them have their files.
//!
//! ```text
//! cargo build --release && cargo bench -p rtftp-tests --bench storm [-- --rounds N] [--only PART-OF-A-TITLE] [--also PATH-OF-ANOTHER-RTFTP]
//! ```
//!
//! A board requests what a Raspberry Pi 4 requests: small files, files that do not exist, a firmware image, a kernel of 10 MB and an
//! initramfs of 40 MB, one after the other; with many boards the large files are smaller. rtftp serves a disk per board from an
//! NBD server, and in a second row local files, as the other servers do. The disks are not connected at the start. All bytes are
//! compared. The method is that of the benchmark `peers`; `tests/benches/README.md` has the results.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, time::Duration};

use rtftp_tests::{
    Disk, DiskConfig, FileSystem, NbdServer, ResourceUsage, Tree,
    bench_arguments::BenchArguments,
    load_client::{Load, Requested, address},
    measured_run::{MeasuredRun, median},
    measured_server::{MeasuredServer, enter_network_namespace, measured_servers},
    noise,
};
use tempfile::TempDir;

/// The requested files with their sizes in bytes, in the order of the requests. `None` does not exist.
const BOOT: [(&str, Option<usize>); 25] = [
    ("9ffefdef/start4.elf", None),
    ("9ffefdef/start.elf", None),
    ("config.txt", Some(2_000)),
    ("pieeprom.sig", None),
    ("recovery.elf", None),
    ("recover4.elf", None),
    ("start4.elf", Some(2_200_000)),
    ("fixup4.dat", Some(5_400)),
    ("vl805.sig", None),
    ("dt-blob.bin", None),
    ("config.txt", Some(2_000)),
    ("bootcfg.txt", None),
    ("bcm2711-rpi-4-b.dtb", Some(55_000)),
    ("overlays/overlay_map.dtb", Some(5_000)),
    ("overlays/vc4-kms-v3d-pi4.dtbo", Some(4_000)),
    ("overlays/disable-bt.dtbo", Some(1_000)),
    ("cmdline.txt", Some(150)),
    ("armstub8-gic.bin", None),
    ("kernel8.img", Some(10_000_000)),
    ("armstub8.bin", None),
    ("recovery8.img", None),
    ("initramfs8", Some(40_000_000)),
    ("bootconf.txt", None),
    ("autoboot.txt", None),
    ("cmdline.txt", Some(150)),
];

/// The size from which a file is scaled.
const LARGE: usize = 1_000_000;

/// Number of boards, divisor of the sizes of large files, blocks in a window.
const ROWS: [(u16, usize, u16); 6] = [(1, 1, 1), (1, 1, 4), (100, 4, 1), (100, 4, 4), (1000, 16, 1), (1000, 16, 4)];

const LIMIT: Duration = Duration::from_secs(180);

/// The files of a boot.
struct Boot(Vec<(&'static str, Option<Vec<u8>>)>);

impl Boot {
    fn new(divisor: usize) -> Self {
        let contents = |index, size| noise(if size < LARGE { size } else { size / divisor }, index);
        Self(
            (1..)
                .zip(BOOT)
                .map(|(index, (name, size))| (name, size.map(|size| contents(seed(name, index), size))))
                .collect(),
        )
    }

    fn requested(&self) -> Vec<Requested<'_>> {
        self.0.iter().map(|(name, contents)| Requested { name, contents: contents.as_deref() }).collect()
    }

    /// Returns the files that exist.
    fn existing(&self) -> impl Iterator<Item = (&'static str, &[u8])> {
        self.0.iter().filter_map(|(name, contents)| Some((*name, contents.as_deref()?)))
    }
}

/// A file that is requested twice has the same contents both times.
fn seed(name: &str, index: u64) -> u64 {
    (1..).zip(BOOT).find(|(_, (other, _))| *other == name).map_or(index, |(first, _)| first)
}

/// A server with a root directory.
struct Contestant<'s> {
    name: String,
    server: &'s MeasuredServer,
    root: &'s Path,
    nbd: Option<&'s NbdServer>,
}

/// One run: the server's part, and the processor time of the NBD server in seconds.
struct Run {
    measured: MeasuredRun,
    nbd: f64,
}

fn main() {
    let Some(BenchArguments { rounds, only, also }) = BenchArguments::parse() else { return };
    enter_network_namespace();
    let servers = measured_servers(also.as_ref());
    for (boards, divisor, windowsize) in ROWS {
        let title = format!("{boards} boards, 1468/{windowsize}, large files / {divisor}");
        if title.contains(&*only) {
            row(&title, &servers, Boot::new(divisor), (boards, windowsize), rounds);
        }
    }
}

/// Measures all servers in interleaved rounds and prints a line for each.
fn row(title: &str, servers: &[MeasuredServer], boot: Boot, (boards, windowsize): (u16, u16), rounds: usize) {
    let local = local_files(&boot);
    let (_disk, exports) = exports(&boot, boards);
    let nbd = NbdServer::directory(&exports.path().join("exports"), &exports.path().join("nbd.sock"));
    let disks = directory();
    fs::write(disks.path().join("default.nbd"), description(exports.path()).to_string()).expect("a description");

    let mut contestants = vec![];
    for server in servers {
        if server.name.starts_with("rtftp") {
            let name = format!("{}, disks", server.name);
            contestants.push(Contestant { name, server, root: disks.path(), nbd: Some(&nbd) });
        }
        contestants.push(Contestant { name: server.name.clone(), server, root: local.path(), nbd: None });
    }
    let load = Load {
        clients: boards,
        times: 1,
        name: "",
        blksize: 1468,
        windowsize,
        gro: false,
        loss: 0.0,
        timeout: Duration::from_secs(1),
        limit: LIMIT,
    };
    let mut runs: Vec<Vec<Run>> = contestants.iter().map(|_| vec![]).collect();
    for _ in 0..rounds {
        for (contestant, runs) in contestants.iter().zip(&mut runs) {
            runs.extend(contestant.run(&load, &boot));
        }
    }
    println!("{title}: medians of {rounds} rounds");
    println!("                        half s    99 % s     all s      MB/s  CPU-s/GiB  CPU-s of NBD  peak MiB  booted");
    for (contestant, runs) in contestants.iter().zip(&runs) {
        print(&contestant.name, runs, boards);
    }
    println!();
}

impl Contestant<'_> {
    /// Starts the server and boots all boards. Returns `None` if the server does not start.
    fn run(&self, load: &Load, boot: &Boot) -> Option<Run> {
        let nbd_cpu = || self.nbd.map_or(0.0, |nbd| ResourceUsage::of(nbd.process().id()).cpu.as_secs_f64());
        let (process, _, address) = self.server.start(self.root, "config.txt")?;
        let before = nbd_cpu();
        let measured = MeasuredRun::of(&process, || load.run_files(address, &boot.requested())).expect("sockets");
        Some(Run { measured, nbd: nbd_cpu() - before })
    }
}

fn print(name: &str, runs: &[Run], boards: u16) {
    if runs.is_empty() {
        println!("  {name:<18} does not answer");
        return;
    }
    let middle = |of: &dyn Fn(&Run) -> f64| median(runs, of);
    let booted = |part: f64| {
        middle(&|run| {
            let index = (f64::from(boards) * part).ceil() as usize;
            run.measured.report.clients.get(index.max(1) - 1).map_or(f64::INFINITY, Duration::as_secs_f64)
        })
    };
    println!(
        "  {name:<18} {:9.3} {:9.3} {:9.3} {:9.0} {:10.2} {:13.2} {:9.1}  {}/{}",
        booted(0.5),
        booted(0.99),
        booted(1.0),
        middle(&|run| run.measured.speed()),
        middle(&|run| run.measured.cost()),
        middle(&|run| run.nbd),
        middle(&|run| run.measured.peak()),
        runs.iter().map(|run| run.measured.report.clients.len()).sum::<usize>(),
        runs.len() * usize::from(boards),
    );
    if let Some(run) = runs.iter().find(|run| run.measured.report.failed.0 > 0) {
        let (count, reason) = &run.measured.report.failed;
        println!("  {:<18} {count} requests failed; first failure: {reason}", "");
    }
}

/// Returns an empty directory that servers can read without root.
fn directory() -> TempDir {
    let directory = tempfile::tempdir().expect("a temporary directory");
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).expect("set");
    directory
}

/// Returns a root directory with the files of a boot in `default`.
fn local_files(boot: &Boot) -> TempDir {
    let root = directory();
    for (name, bytes) in boot.existing() {
        let path = root.path().join("default").join(name);
        fs::create_dir_all(path.parent().expect("a directory")).expect("made");
        fs::write(path, bytes).expect("written");
    }
    root
}

/// Returns a disk with the files of a boot, and a directory in which `exports` has this disk under the address of each board.
fn exports(boot: &Boot, boards: u16) -> (Disk, TempDir) {
    let tree = boot.existing().fold(Tree::new(), |tree, (name, bytes)| tree.file(name, bytes));
    let disk = Disk::whole(128, FileSystem::Ext4(&tree));
    let directory = tempfile::tempdir_in(disk.path().parent().expect("its directory")).expect("a temporary directory");
    let exports = directory.path().join("exports");
    fs::create_dir(&exports).expect("made");
    // The first answer, which shows that the server has started, is for 127.0.0.1.
    for board in (0..boards).map(|board| address(board).to_string()).chain(["127.0.0.1".into()]) {
        fs::hard_link(disk.path(), exports.join(board)).expect("a hard link");
    }
    (disk, directory)
}

/// Returns the description of the disks of all boards.
fn description(exports: &Path) -> DiskConfig {
    let url = format!("nbd+unix:///{{ip}}?socket={}", exports.join("nbd.sock").display());
    DiskConfig::new(url).partition(0, "/")
}
