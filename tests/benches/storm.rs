//! Compares TFTP servers while many boards boot at once: the time until half, 99 % and all of them have their files.
//!
//! ```text
//! cargo build --release && cargo bench -p rtftp-tests --bench storm [-- --rounds N] [--only PART-OF-A-TITLE] [--also PATH-OF-ANOTHER-RTFTP] \
//!     [--nbd PROGRAM,PROGRAM]
//! ```
//!
//! A board requests what a Raspberry Pi 4 requests: small files, files that do not exist, a firmware image, a kernel of 10 MB and an
//! initramfs of 40 MB, one after the other; with many boards the large files are smaller. rtftp serves a disk per board from an
//! NBD server, and in a second row local files, as the other servers do. The disks are not connected at the start. All bytes are
//! compared. The method is that of the benchmark `peers`; `tests/benches/README.md` has the results.

use std::{path::Path, time::Duration};

use rtftp_tests::{
    ResourceUsage,
    bench_arguments::BenchArguments,
    boot_storm::{Boot, BootDisks},
    load_client::Load,
    measured_run::{MeasuredRun, median, settle},
    measured_server::{MeasuredServer, enter_network_namespace, measured_servers},
    nbd_program::NbdProgram,
};

/// Number of boards, divisor of the sizes of large files, blocks in a window.
const ROWS: [(u16, usize, u16); 6] = [(1, 1, 1), (1, 1, 4), (100, 4, 1), (100, 4, 4), (1000, 16, 1), (1000, 16, 4)];

const LIMIT: Duration = Duration::from_secs(180);

/// A server with a root directory.
struct Contestant<'s> {
    name: String,
    server: &'s MeasuredServer,
    root: &'s Path,
    /// The program that exports the disks.
    nbd: Option<NbdProgram>,
}

/// One run: the server's part, and the processor time of the NBD server in seconds.
struct Run {
    measured: MeasuredRun,
    nbd: f64,
}

fn main() {
    let Some(arguments) = BenchArguments::parse() else { return };
    let BenchArguments { rounds, only, nbd, .. } = &arguments;
    enter_network_namespace();
    let (servers, nbd) = (measured_servers(&arguments), NbdProgram::named(nbd));
    for (boards, divisor, windowsize) in ROWS {
        let title = format!("{boards} boards, 1468/{windowsize}, large files / {divisor}");
        if title.contains(only.as_str()) {
            row(&title, (&servers, &nbd), Boot::new(divisor), (boards, windowsize), *rounds);
        }
    }
}

/// Measures all servers in interleaved rounds and prints a line for each.
fn row(
    title: &str,
    (servers, programs): (&[MeasuredServer], &[NbdProgram]),
    boot: Boot,
    (boards, windowsize): (u16, u16),
    rounds: usize,
) {
    let (local, disks) = (boot.local_files(), BootDisks::new(&boot, boards));

    let mut contestants = vec![];
    for server in servers {
        if server.name.starts_with("rtftp") {
            for program in programs {
                let name = format!("{}, disks of {}", server.name, program.name());
                contestants.push(Contestant { name, server, root: disks.root(), nbd: Some(*program) });
            }
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
    settle();
    for _ in 0..rounds {
        for (contestant, runs) in contestants.iter().zip(&mut runs) {
            runs.extend(contestant.run(&load, &boot, &disks));
        }
    }
    println!("{title}: medians of {rounds} rounds");
    println!(
        "                                        half s    99 % s     all s      MB/s  CPU-s/GiB  CPU-s of NBD  peak MiB  booted"
    );
    for (contestant, runs) in contestants.iter().zip(&runs) {
        print(&contestant.name, runs, boards);
    }
    println!();
}

impl Contestant<'_> {
    /// Starts the server and boots all boards. Returns `None` if the server does not start.
    fn run(&self, load: &Load, boot: &Boot, disks: &BootDisks) -> Option<Run> {
        let nbd = self.nbd.map(|program| disks.serve(program));
        let nbd_cpu = || nbd.as_ref().map_or(0.0, |nbd| ResourceUsage::of(nbd.process().id()).cpu.as_secs_f64());
        let (process, _, address) = self.server.start(self.root, "config.txt")?;
        let before = nbd_cpu();
        let measured = MeasuredRun::of(&process, || load.run_files(address, &boot.requested())).expect("sockets");
        Some(Run { measured, nbd: nbd_cpu() - before })
    }
}

fn print(name: &str, runs: &[Run], boards: u16) {
    if runs.is_empty() {
        println!("  {name:<34} does not answer");
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
        "  {name:<34} {:9.3} {:9.3} {:9.3} {:9.0} {:10.2} {:13.2} {:9.1}  {}/{}",
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
        println!("  {:<34} {count} requests failed; first failure: {reason}", "");
    }
}
