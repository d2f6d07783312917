//! Boots from disks whose owners upgrade them at the same time, lose power, or are behind an NBD server that fails.
//!
//! The actor of a disk, its snapshots, the journals, the paths, the reads of a file, the NBD client, the admission of requests and the
//! sender are those of the server. They run in virtual time ([`VirtualTime`]), so a server that does not reply for a minute costs
//! nothing. The writes of the owner are those of a Linux kernel, recorded in `tests/recordings`. A seed chooses all else: the file
//! system, the state of the disk, when the owner writes, what fails, the memory, the network, the quirks of the board, a flood of forged
//! requests. `DISK_SIMULATION_SEEDS` is the number of seeds, `DISK_SIMULATION_SEED` the first, or a single one: a failing run prints the
//! command that repeats it.
//!
//! What holds for each file that is received: it is one version of that file, not older than what was on the disk at the request, and
//! not newer than what was written at its end. "Not found" is never the answer. Without a failure of the server, a lack of memory and
//! writes, the file is received within the patience of the board. Opening and reading end in time. At the end no memory, connection,
//! session, socket, task and timer is left.

mod board;
mod datagrams;
#[allow(dead_code, unreachable_pub, reason = "shared with the simulation of the core")]
#[path = "../../../../tests/src/sim/file.rs"]
mod file;
mod history;
#[allow(dead_code, unreachable_pub, reason = "shared with the simulation of the core")]
#[path = "../../../../tests/src/sim/network.rs"]
mod network;
mod paged_disk;
#[allow(dead_code, unreachable_pub, reason = "shared with the recorder")]
#[path = "../../../../tests/src/power_cut.rs"]
mod power_cut;
mod server;
mod tftp_server;
#[allow(dead_code, unreachable_pub, reason = "shared with the recorder")]
#[path = "../../../../tests/src/upgrade_recording.rs"]
mod upgrade_recording;

use std::{
    collections::BTreeMap,
    env,
    net::{IpAddr, Ipv4Addr},
    ops::AddAssign,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use rtftp_core::RequestPath;
use smol::{Executor, future::zip};

use self::{
    board::{Failure, read, transfer},
    datagrams::Network,
    history::{Contents, History},
    power_cut::{Cut, Random},
    server::{Fault, Owner, Server},
    tftp_server::TftpServer,
    upgrade_recording::FILES,
};
use super::{BoardDisk, Connector, Disk, DiskTimeouts, Disks, NbdFile};
use crate::{
    client_name::ClientName,
    clock::{self, Timer, virtual_time::VirtualTime, within},
    guestfs::{HelperTimeouts, Launcher},
    memory::Memory,
    nbd::simulated::serve,
};

/// The default number of seeds.
const SEEDS: u64 = 100;
/// A seed with which a block of a directory, read from the journal, is written over before it is read: none of the first ones has this.
const OVERWRITTEN_DIRECTORY: u64 = 270_804;

/// The time after which a boot counts as endless: each of its reads has a limit.
const BOOT_LIMIT: Duration = Duration::from_secs(3600);

/// The timeouts, the same as the server's defaults.
const TIMEOUTS: DiskTimeouts = DiskTimeouts {
    idle: Duration::from_secs(60),
    view_gap: Duration::from_secs(5),
    open: Duration::from_secs(120),
    connect: Duration::from_secs(10),
    reply: Duration::from_secs(10),
};

/// The address of the TFTP server.
const SERVER_IP: [u8; 4] = [10, 0, 0, 1];

const BOARD: NbdFile = NbdFile::Client(ClientName::Ip(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 5))));
const DESCRIPTION: &[u8] = br#"{"url": "nbd://10.0.0.9/", "mounts": [{"partition": 0, "mountpoint": "/"}],
    "tftp_root": "/boot", "backend": "native"}"#;

/// The memory for disks in bytes: the server's default, and just enough for chunks of 64 KiB, and of 16 KiB.
const MEMORY: [usize; 8] = [256 << 20, 256 << 20, 256 << 20, 256 << 20, 256 << 20, 256 << 20, 4 << 20, 2 << 20];

/// The time between two operations of the owner, in microseconds; a read takes some 100 and the latency of the server.
const INTERVALS: [u64; 8] = [30, 60, 120, 250, 500, 2_000, 20_000, 500_000];

/// What befalls the disk during a boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    /// Its owner goes on with the upgrades.
    Upgrade,
    /// Its owner has been killed.
    Kill,
    /// Its drive has lost power, and with it some of the writes since the last flush.
    PowerCut,
}

/// What happened to the files of boots.
#[derive(Debug, Default, Clone)]
struct Report {
    received: u64,
    /// Those received in a version that was not the oldest possible.
    newer: u64,
    failed: u64,
    /// The simulated time.
    time: Duration,
}

impl AddAssign for Report {
    fn add_assign(&mut self, other: Self) {
        self.received += other.received;
        self.newer += other.newer;
        self.failed += other.failed;
        self.time += other.time;
    }
}

/// What a seed has chosen.
struct Scenario<'a> {
    history: &'a History,
    contents: &'a Contents,
    event: Event,
    fault: Fault,
    memory: usize,
    server: Server,
    tftp: Arc<TftpServer>,
    /// Whether the server receives forged requests.
    is_flooded: bool,
}

impl Scenario<'_> {
    /// Returns whether a file may be unreadable.
    fn may_fail(&self) -> bool {
        self.fault != Fault::Nothing
            || self.event == Event::Upgrade
            || self.memory < MEMORY[0]
            || self.event == Event::PowerCut && self.history.file_system.may_be_refused()
    }

    /// Receives a file, and checks it.
    async fn receive(&self, file: usize, random: &mut Random) -> Result<Report, String> {
        let name = FILES[file];
        let path = RequestPath::parse(name.as_bytes()).expect("a path");
        let before = self.server.played();
        let TftpServer { disks, disk, network, .. } = &*self.tftp;
        let is_over_network = random.below(2) == 0;
        let mut result =
            if is_over_network { transfer(network, &path, random).await } else { read(disks, disk, &path).await };
        // All places are taken, so that a session may lose its own before the board has answered. The board starts again.
        for _ in 0..3 {
            if self.is_flooded && matches!(result, Err(Failure::TimedOut)) {
                result = transfer(network, &path, random).await;
            }
        }
        // The next operation may have been applied in part.
        let after = self.server.played() + 1;
        let context = || format!("{name} from operation {before} to {after}, network: {is_over_network}");
        match result {
            Ok(bytes) => {
                let versions = self.history.versions(before, after);
                match self.contents.version(file, &bytes) {
                    Some(version) if versions.contains(&version) => {
                        let newer = u64::from(version > *versions.start());
                        Ok(Report { received: 1, newer, ..Report::default() })
                    }
                    Some(version) => Err(format!("{}: version {version} is none of {versions:?}", context())),
                    None => {
                        let line = bytes[..bytes.len().min(60)].escape_ascii();
                        Err(format!("{}: {} bytes are no version: {line}", context(), bytes.len()))
                    }
                }
            }
            Err(Failure::NotFound) => Err(format!("{}: not found", context())),
            Err(Failure::Unreadable(error)) if self.may_fail() => {
                log::debug!("{}: {error}", context());
                Ok(Report { failed: 1, ..Report::default() })
            }
            Err(Failure::TimedOut) if self.may_fail() => Ok(Report { failed: 1, ..Report::default() }),
            Err(Failure::TimedOut) => Err(format!("{}: timed out", context())),
            Err(Failure::Unreadable(error) | Failure::Violation(error)) => Err(format!("{}: {error}", context())),
        }
    }

    /// Boots once or twice: files one after the other, some time after the other, or at the same time.
    async fn boot(&self, random: &mut Random) -> Result<Report, String> {
        let mut report = Report::default();
        for boot in 0..1 + random.below(2) {
            if boot > 0 {
                Timer::after(Duration::from_millis(random.below(8000) as u64)).await;
            }
            if random.below(3) == 0 {
                let mut other = Random::new(random.below(usize::MAX) as u64);
                let (one, two) = zip(self.receive(0, random), self.receive(1, &mut other)).await;
                report += one?;
                report += two?;
            } else {
                report += self.receive(0, random).await?;
                if random.below(3) == 0 {
                    Timer::after(Duration::from_millis(random.below(4800) as u64)).await;
                }
                report += self.receive(1, random).await?;
            }
        }
        // The other end of a transfer may wait for a board that has everything.
        while self.tftp.session_count() > 0 {
            Timer::after(Duration::from_secs(1)).await;
        }
        Ok(report)
    }
}

/// Returns what goes wrong at the server, in half of the cases nothing.
fn fault(random: &mut Random) -> Fault {
    let (read, reads) = (random.below(80), [20, 1000][random.below(2)]);
    let seconds = |random: &mut Random, max: usize| Duration::from_millis(random.below(max * 1000) as u64);
    match random.below(14) {
        0 => Fault::Close(read),
        1 => Fault::Hang(read),
        2 => Fault::Late(read..read + 1 + random.below(reads), seconds(random, 12)),
        3 => Fault::Error(read..read + 1 + random.below(3)),
        4 => Fault::Silent(read, seconds(random, 60)),
        5 => Fault::Silent(read, Duration::from_secs(3600)),
        6 => Fault::Restart(read, seconds(random, 20)),
        _ => Fault::Nothing,
    }
}

/// Runs a seed. Returns what must not happen as an error.
fn simulate(seed: u64, histories: &[History], contents: &Contents) -> Result<Report, String> {
    let mut random = Random::new(seed);
    let history = &histories[random.below(histories.len())];
    let start = random.below(history.operations.len());
    let events = match history.file_system.survives_power_cuts() {
        true => &[Event::Upgrade, Event::Upgrade, Event::Kill, Event::PowerCut][..],
        false => &[Event::Upgrade],
    };
    let event = events[random.below(events.len())];
    let cut = if event == Event::PowerCut { Cut::Power { unit: 512 } } else { Cut::Kill };
    let disk = history.cut(start, cut, &mut random);
    let fault = fault(&mut random);
    let interval = Duration::from_micros(INTERVALS[random.below(INTERVALS.len())]);
    let memory = MEMORY[random.below(MEMORY.len())];

    let time = VirtualTime::start();
    let started = clock::instant();
    let interval = (event == Event::Upgrade).then_some(interval);
    let owner = Owner { operations: history.operations.clone(), next: start, interval, last: started };
    let server = Server::new(disk, owner, fault.clone(), Random::new(seed ^ 1));
    let accepting = server.clone();
    let served = serve(move || accepting.connect());
    let executor = Arc::new(Executor::new());
    let memory_of_disks = Memory::new(memory);
    let launcher = Launcher::with_helper("/nonexistent".into(), HelperTimeouts::default());
    let disks = Disks::new("/nonexistent".into(), TIMEOUTS, launcher, executor.clone(), None, memory_of_disks.clone());
    let description = BOARD.description(DESCRIPTION.into());
    let config = description.config().expect("a description");
    let disk = Disk::new(Connector::new(BOARD.to_string(), description, disks.backend.clone()));
    let disk = BoardDisk::new(disk, &config);
    let network = Arc::new(Network::new(&mut random));
    let tftp = TftpServer::new(disks, disk, network.clone(), executor.clone());
    let mut tasks = vec![executor.spawn(tftp.clone().run())];
    let is_flooded = random.below(10) == 0;
    if is_flooded {
        tasks.push(executor.spawn(tftp.clone().receive_forged(Random::new(seed ^ 2))));
    }
    let scenario = Scenario { history, contents, event, fault, memory, server, tftp, is_flooded };
    let boot = scenario.boot(&mut random);
    let result = time.run(&executor, within(BOOT_LIMIT, boot)).flatten();
    let elapsed = clock::elapsed(started);

    drop(tasks);
    let Scenario { fault, server, tftp, .. } = scenario;
    time.run_tasks(&executor);
    let sessions = tftp.session_count();
    if let Some(TftpServer { disks, disk, .. }) = Arc::into_inner(tftp) {
        drop(disk);
        time.run(&executor, disks.close());
    }
    time.run_tasks(&executor);
    let left =
        [server.connection_count(), memory_of_disks.usage().0, sessions, network.socket_count(), time.timer_count()];
    let is_idle = executor.is_empty();
    drop((executor, served));
    let name = history.file_system.name;
    let context = |error| format!("{name}, {event:?} after {start} operations, {fault:?}, {memory} bytes: {error}");
    let report = result.unwrap_or_else(|| Err("never ends".into())).map_err(context)?;
    if left != [0; 5] || !is_idle {
        let left =
            format!("{left:?} connections, bytes, sessions, sockets and timers left at the end; no tasks: {is_idle}");
        return Err(context(left));
    }
    Ok(Report { time: elapsed, ..report })
}

fn number(name: &str) -> Option<u64> {
    env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

#[test]
fn boards_receive_one_version_while_owners_upgrade_lose_power_or_the_server_fails() {
    let (first, count) = (number("DISK_SIMULATION_SEED"), number("DISK_SIMULATION_SEEDS"));
    let count = count.unwrap_or(if first.is_some() { 1 } else { SEEDS });
    let (first, end) = (first.unwrap_or(0), first.unwrap_or(0) + count);
    let histories = History::read_all();
    let contents = Contents::new(&histories);
    let (next, total, violations) = (AtomicU64::new(first), Mutex::new(Report::default()), Mutex::new(BTreeMap::new()));
    if first == 0
        && let Err(violation) = simulate(OVERWRITTEN_DIRECTORY, &histories, &contents)
    {
        violations.lock().insert(OVERWRITTEN_DIRECTORY, violation);
    }
    let started = Instant::now();
    let run = || {
        let mut report = Report::default();
        loop {
            let seed = next.fetch_add(1, Relaxed);
            if seed >= end {
                break;
            }
            match simulate(seed, &histories, &contents) {
                Ok(one) => report += one,
                Err(violation) => {
                    next.store(end, Relaxed);
                    violations.lock().insert(seed, violation);
                }
            }
        }
        *total.lock() += report;
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(run);
        }
    });
    if let Some((seed, violation)) = violations.into_inner().pop_first() {
        panic!(
            "{violation}\nrepeat it with:\nDISK_SIMULATION_SEED={seed} cargo test -p rtftp-runtime --lib disk::simulation"
        );
    }
    let (total, took) = (total.into_inner(), started.elapsed());
    println!("{count} seeds in {took:.1?}, {:.0} a second: {total:?}", count as f64 / took.as_secs_f64());
    if count >= SEEDS {
        assert!(total.received > count && total.newer > 0 && total.failed > 0, "{total:?}");
    }
}

#[test]
fn a_seed_gives_the_same_run_again() {
    let histories = History::read_all();
    let contents = Contents::new(&histories);
    let run = |seed| simulate(seed, &histories, &contents).map(|report| (report.received, report.failed, report.time));
    for seed in 0..20 {
        assert_eq!(run(seed), run(seed), "seed {seed}");
    }
}
