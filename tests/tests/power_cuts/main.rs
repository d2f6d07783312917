//! Hundreds of disks after a power cut of the machine that had them mounted: the native reader finds the same names, sizes and
//! contents as a mount by Linux. A reader that ignores the log, and GRUB, do not. tests/long.sh runs these tests.
//!
//! `POWER_CUTS` is the number of cuts of each variant of a file system, `POWER_CUTS_SEED` the seed, `POWER_CUTS_ONLY` the
//! names of variants, separated by commas. A disk that is read differently is kept, and its path printed.

mod compare;
mod live;
mod recording;
mod unfinished;
mod variants;
mod version_4;

use std::{
    env,
    panic::{AssertUnwindSafe, catch_unwind},
    time::{Instant, SystemTime},
};

use rtftp_tests::{
    KernelMount, grub, not_tested,
    power_cut::{Cut, CutDisk, Random},
};
use tempfile::TempDir;

use crate::{
    compare::{Results, compare, compare_torn_sectors, write_sparse},
    recording::Recording,
    variants::{BTRFS_VARIANTS, Variant, XFS_VARIANTS},
};

/// GRUB reads one of this many disks: it takes longer than all other readers.
const GRUB_PART: usize = 8;

/// One cut in this many tears writes inside of a sector, and the size of the pieces in bytes.
const TORN_SECTORS_PART: usize = 8;
const TORN_SECTORS_UNIT: usize = 64;

/// Returns the number in an environment variable.
fn number(name: &str) -> Option<u64> {
    env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

/// Returns the seed of this run.
fn seed() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a time after 1970").as_secs();
    let seed = number("POWER_CUTS_SEED").unwrap_or(now % 1_000_000);
    println!("POWER_CUTS_SEED={seed}");
    seed
}

/// Returns whether this machine can mount a file system. Otherwise says that the test does not run.
fn can_mount(variant: &Variant) -> bool {
    let mounted = KernelMount::new(&variant.create().path(), variant.kind.mount);
    if let Err(error) = &mounted {
        not_tested(format!("mounting {}: {error}", variant.kind.name));
    }
    mounted.is_ok()
}

/// Returns the ends of `count` cuts in ascending order, as numbers of operations.
fn ends(recording: &Recording, count: usize, random: &mut Random) -> Vec<usize> {
    let mut ends: Vec<usize> = (0..count)
        .map(|_| {
            // The mount writes, too.
            let first = if random.below(10) == 0 { 1 } else { recording.mounted };
            random.within(first..recording.operations.len()) + 1
        })
        .collect();
    ends.sort_unstable();
    ends
}

/// Cuts a recording `count` times and compares the readers on each disk.
fn run_cuts(variant: &Variant, recording: Recording, count: usize, seed: u64) -> Results {
    let mut results = Results::default();
    let directory = TempDir::new().expect("a temporary directory");
    let mut random = Random::new(seed);
    let ends = ends(&recording, count, &mut random);
    let mut disk = CutDisk::new(recording.base, &recording.operations);
    for (number, end) in ends.into_iter().enumerate() {
        let has_torn_sectors = number % TORN_SECTORS_PART == 1;
        let cut = match random.below(3) {
            _ if has_torn_sectors => Cut::Power { unit: TORN_SECTORS_UNIT },
            0 => Cut::Kill,
            _ => Cut::Power { unit: variant.sector },
        };
        let with_grub = number % GRUB_PART == 0 && grub::is_installed();
        disk.cut(end, cut, &mut random, |disk, report| {
            let compared = catch_unwind(AssertUnwindSafe(|| match has_torn_sectors {
                true => compare_torn_sectors(variant, disk, directory.path(), &mut results),
                false => compare(variant, disk, directory.path(), with_grub, &mut results),
            }));
            if compared.is_err() {
                let (kind, name) = (variant.kind.name, variant.name);
                let kept = env::temp_dir().join(format!("power-cut-{kind}-{name}-{seed}-{number}.img"));
                write_sparse(&kept, disk);
                panic!("{kind}, {name}: seed {seed}, cut {number} ({cut:?}): {report}: {}", kept.display());
            }
        });
    }
    results
}

/// Compares the readers on all variants of a file system.
fn compare_readers(variants: &[Variant]) {
    let seed = seed();
    let count = number("POWER_CUTS").unwrap_or(48) as usize;
    let only = env::var("POWER_CUTS_ONLY").unwrap_or_default();
    if !can_mount(&variants[0]) {
        return;
    }
    if !grub::is_installed() {
        not_tested("grub-fstest is not installed");
    }
    let mut total = Results::default();
    for variant in variants.iter().filter(|variant| only.is_empty() || only.split(',').any(|name| name == variant.name))
    {
        let (kind, name) = (variant.kind.name, variant.name);
        let started = Instant::now();
        let recording = variant.record(seed);
        let (operations, recorded) = (recording.operations.len(), started.elapsed());
        assert!(operations > recording.mounted + 100, "{kind}, {name}: only {operations} operations");
        let started = Instant::now();
        let results = run_cuts(variant, recording, count, seed);
        println!(
            "{kind}, {name}: {operations} operations in {recorded:.0?}, {count} cuts in {:.0?}: {results}",
            started.elapsed()
        );
        total.add(results);
    }
    println!("{}: {total}", variants[0].kind.name);
    // A disk that was cut during its mount, or after a commit and before any change, needs no log.
    assert!(total.different_without_log * 2 > total.equal, "the comparison must detect a reader that ignores the log");
}

#[test]
#[ignore = "tests/long.sh power-cuts"]
fn native_reader_agrees_with_the_kernel_on_xfs_after_power_cuts() {
    compare_readers(&XFS_VARIANTS);
}

#[test]
#[ignore = "tests/long.sh power-cuts"]
fn native_reader_agrees_with_the_kernel_on_btrfs_after_power_cuts() {
    compare_readers(&BTRFS_VARIANTS);
}
