//! Hundreds of disks after a power cut of the machine that had them mounted: the native reader finds the same names, sizes and
//! contents as a mount by Linux. A reader that ignores the log, and GRUB, do not. tests/long.sh runs these tests.
//!
//! `POWER_CUTS` is the number of cuts of each file system, `POWER_CUTS_SEED` the seed, `POWER_CUTS_ONLY` a part of a name. A disk that
//! is read differently is kept, and its path printed.

use std::{
    collections::BTreeMap,
    env, fmt,
    fs::{self, File},
    os::unix::fs::FileExt as _,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant, SystemTime},
};

use rtftp_tests::{
    Content, Disk, FileSystem, KernelMount, OwnerMachine, RecordingNbdServer,
    grub::{self, GrubReport},
    not_tested, poll_until,
    power_cut::{Cut, Operation, Random, apply},
    read_directory, read_image, try_read_image,
};
use tempfile::TempDir;

/// The size of the disks in MiB: `mkfs.xfs` makes none below 300 MiB by default.
const SIZE: u64 = 320;

/// The number of operations to record, and the maximum time for it.
const OPERATIONS: usize = 1000;
const RECORDING_LIMIT: Duration = Duration::from_secs(900);

/// The script that the owner runs, and that makes the files of a new disk.
const WRITER: &str = include_str!("../src/boot_writer.sh");

/// The owner needs a `cp` that shares blocks.
const PROGRAMS: [&str; 1] = ["/bin/cp"];

/// How a file system is mounted.
struct Kind {
    name: &'static str,
    module: &'static str,
    /// Options of `mount` to read it, and to read it without its log.
    mount: &'static [&'static str],
    without_log: &'static [&'static str],
}

const XFS: Kind = Kind {
    name: "XFS",
    module: "xfs",
    mount: &["-t", "xfs", "-o", "noatime,nouuid"],
    without_log: &["-t", "xfs", "-o", "ro,nouuid,norecovery"],
};

/// A file system: its name, options of `mkfs` and `mount`, the size of a sector, and the number of directories that are written to
/// concurrently.
struct Variant {
    name: &'static str,
    kind: &'static Kind,
    mkfs: &'static [&'static str],
    mount: &'static str,
    sector: u32,
    writers: u32,
}

#[rustfmt::skip]
const VARIANTS: [Variant; 8] = [
    Variant { name: "default", kind: &XFS, mkfs: &[], mount: "noatime", sector: 512, writers: 1 },
    Variant { name: "small-log", kind: &XFS, mkfs: &["-l", "size=1400b"], mount: "noatime", sector: 512, writers: 1 },
    Variant {
        name: "old-features", kind: &XFS, mount: "noatime", sector: 512, writers: 1,
        mkfs: &["-m", "finobt=1,rmapbt=0,reflink=0,bigtime=0,inobtcount=0", "-i", "sparse=0", "-l", "size=4m"],
    },
    Variant {
        name: "rmapbt", kind: &XFS, mount: "logbsize=256k", sector: 512, writers: 1,
        mkfs: &["-m", "rmapbt=1", "-l", "size=3100b"],
    },
    Variant {
        name: "1k-blocks", kind: &XFS, mount: "logbsize=64k", sector: 512, writers: 1,
        mkfs: &["-b", "size=1024", "-l", "size=3600b"],
    },
    Variant {
        name: "64k-directories", kind: &XFS, mount: "logbsize=128k", sector: 512, writers: 1,
        mkfs: &["-i", "nrext64=1", "-n", "size=65536", "-l", "size=2400b,su=64k"],
    },
    Variant {
        name: "4k-sectors", kind: &XFS, mount: "noatime", sector: 4096, writers: 1,
        mkfs: &["-s", "size=4096", "-l", "size=1300b"],
    },
    Variant {
        name: "four-writers", kind: &XFS, mount: "noatime", sector: 512, writers: 4,
        mkfs: &["-m", "rmapbt=1", "-l", "size=3100b"],
    },
];

/// A recorded run of an owner.
struct Recording {
    base: Vec<u8>,
    operations: Vec<Operation>,
    /// The number of operations when the disk was mounted.
    mounted: usize,
}

impl Variant {
    /// Creates a disk with an installed system that was unmounted.
    fn install(&self, seed: u64) -> Disk {
        let disk = Disk::whole(SIZE, FileSystem::Xfs(self.mkfs));
        let mounted = KernelMount::new(&disk.path(), self.kind.mount).expect("mount a new file system");
        let script = format!("set -- {seed} 1 20 120; {WRITER}");
        let written = Command::new("sh").args(["-c", &script]).current_dir(mounted.path()).status().expect("sh");
        assert!(written.success(), "{script}");
        disk
    }

    /// Has an owner write to a disk for some time.
    fn record(&self, disk: &Disk, seed: u64) -> Recording {
        let base = fs::read(disk.path()).expect("the image");
        let server = RecordingNbdServer::start(base.clone());
        let mut owner = OwnerMachine::boot_at(server.url(), self.sector, &[self.kind.module], &PROGRAMS);
        owner.run(&format!("mount -t {} -o {} /dev/vda /mnt", self.kind.module, self.mount));
        let mounted = server.len();
        let mut script = String::new();
        for writer in 0..self.writers {
            let directory = if writer == 0 { "/mnt".into() } else { format!("/mnt/{writer}") };
            let seed = seed + u64::from(writer);
            script += &format!(
                "mkdir -p {directory}; (cd {directory}; set -- {seed} 21 999 3600; {WRITER}) >/tmp/{writer} 2>&1 &\n"
            );
        }
        owner.run(&script);
        poll_until("the writes of the owner", RECORDING_LIMIT, || (server.len() > mounted + OPERATIONS).then_some(()));
        owner.power_cut();
        Recording { base, operations: server.take_operations(), mounted }
    }
}

/// What was read from the disks of one file system.
#[derive(Default)]
struct Results {
    cuts: usize,
    /// The disks that the kernel does not read.
    damaged: usize,
    names: usize,
    /// The disks of which a reader that ignores the log reads something else, or nothing.
    differ_without_log: usize,
    grub: GrubReport,
    /// The disks of which GRUB reads a wrong file without an error, a wrong `boot/vmlinuz` among them.
    wrong: usize,
    wrong_kernel: usize,
}

impl Results {
    fn add(&mut self, other: Self) {
        self.cuts += other.cuts;
        self.damaged += other.damaged;
        self.names += other.names;
        self.differ_without_log += other.differ_without_log;
        self.grub.add(other.grub);
        self.wrong += other.wrong;
        self.wrong_kernel += other.wrong_kernel;
    }
}

impl fmt::Display for Results {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cuts, damaged, names, differ_without_log, grub, wrong, wrong_kernel } = self;
        write!(f, "{cuts} disks with {names} names as the kernel reads them, {damaged} that neither reads; ")?;
        write!(f, "{differ_without_log} differ without the log; ")?;
        write!(f, "GRUB: {grub}; on {wrong} disks a wrong file, on {wrong_kernel} a wrong boot/vmlinuz")
    }
}

/// Writes an image without its empty blocks.
fn write_sparse(path: &Path, disk: &[u8]) {
    const BLOCK: usize = 64 << 10;
    let file = File::create(path).expect("a file");
    file.set_len(disk.len() as u64).expect("a sparse file");
    let empty = [0; BLOCK];
    for (number, block) in (0..).zip(disk.chunks(BLOCK)) {
        if *block != empty[..block.len()] {
            file.write_all_at(block, number * BLOCK as u64).expect("space for an image");
        }
    }
}

/// Compares all readers on a disk, of which there are two copies: the mount of one replays the log.
fn compare(kind: &Kind, disk: &[u8], directory: &Path, with_grub: bool, results: &mut Results) {
    let [image, copy] = ["image", "copy"].map(|name| directory.join(name));
    write_sparse(&image, disk);
    write_sparse(&copy, disk);
    let truth = KernelMount::new(&copy, kind.mount)
        .and_then(|mounted| read_directory(mounted.path()).map_err(|error| error.to_string()));
    let Ok(truth) = truth else {
        // Torn metadata that the log does not contain completely is lost for Linux, too, and detected by its checksum.
        results.damaged += 1;
        assert!(try_read_image(disk.to_vec()).is_err(), "the kernel does not read all of the disk: {truth:?}");
        return;
    };
    assert_equal(&read_image(disk.to_vec()), &truth);
    results.cuts += 1;
    results.names += truth.len();
    let without_log = KernelMount::new(&image, kind.without_log)
        .and_then(|mounted| read_directory(mounted.path()).map_err(|error| error.to_string()));
    results.differ_without_log += usize::from(without_log.as_ref() != Ok(&truth));
    if with_grub {
        let report = grub::read_with_grub(&image, &truth, "boot/");
        results.wrong += usize::from(!report.wrong.is_empty());
        results.wrong_kernel += usize::from(report.wrong.iter().any(|path| path == "boot/vmlinuz"));
        results.grub.add(report);
    }
}

fn assert_equal(ours: &BTreeMap<String, Content>, truth: &BTreeMap<String, Content>) {
    let names = |tree: &BTreeMap<String, Content>| tree.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(ours), names(truth), "names");
    for (path, content) in truth {
        assert!(ours.get(path) == Some(content), "{path} differs from what the kernel reads");
    }
}

/// Cuts a recording at `cuts` places and compares the readers on each disk.
fn run_cuts(variant: &Variant, recording: &Recording, cuts: usize, seed: u64) -> Results {
    let mut results = Results::default();
    let directory = TempDir::new().expect("a temporary directory");
    let with_grub = grub::is_installed();
    if !with_grub {
        not_tested("grub-fstest is not installed");
    }
    for number in 0..cuts {
        let mut random = Random::new(seed.wrapping_add(number as u64));
        // The mount writes, too.
        let first = if random.below(10) == 0 { 1 } else { recording.mounted };
        let end = random.within(first..recording.operations.len()) + 1;
        let cut = if random.below(3) == 0 { Cut::Kill } else { Cut::Power };
        let mut disk = recording.base.clone();
        let report = apply(&mut disk, &recording.operations[..end], cut, variant.sector as usize, &mut random);
        let compared =
            catch_unwind(AssertUnwindSafe(|| compare(variant.kind, &disk, directory.path(), with_grub, &mut results)));
        if compared.is_err() {
            let kept: PathBuf = env::temp_dir().join(format!("power-cut-{}-{seed}-{number}.img", variant.name));
            write_sparse(&kept, &disk);
            panic!(
                "{} {}: seed {seed}, cut {number} ({cut:?}): {report}: {}",
                variant.kind.name,
                variant.name,
                kept.display()
            );
        }
    }
    results
}

fn number(name: &str) -> Option<u64> {
    env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

#[test]
#[ignore = "tests/long.sh power-cuts"]
fn native_reader_agrees_with_the_kernel_on_xfs_after_power_cuts() {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a time after 1970").as_secs();
    let seed = number("POWER_CUTS_SEED").unwrap_or(now % 1_000_000);
    let cuts = number("POWER_CUTS").unwrap_or(40) as usize;
    let only = env::var("POWER_CUTS_ONLY").unwrap_or_default();
    println!("seed {seed}");
    let probe = Disk::whole(SIZE, FileSystem::Xfs(&[]));
    if let Err(error) = KernelMount::new(&probe.path(), XFS.mount) {
        not_tested(format!("mounting an image: {error}"));
        return;
    }
    let mut total = Results::default();
    for variant in VARIANTS.iter().filter(|variant| variant.name.contains(&only)) {
        let started = Instant::now();
        let recording = variant.record(&variant.install(seed), seed);
        let (operations, took) = (recording.operations.len(), started.elapsed());
        assert!(operations > recording.mounted + 100, "{}: only {operations} operations", variant.name);
        let results = run_cuts(variant, &recording, cuts, seed);
        println!(
            "XFS, {}: {operations} operations recorded in {took:.0?}; after {:.0?}: {results}",
            variant.name,
            started.elapsed()
        );
        total.add(results);
    }
    println!("all: {total}");
    // A disk that was cut during its mount, before any change, needs no log.
    assert!(total.differ_without_log * 2 > total.cuts, "the comparison must detect a reader that ignores the log");
}
