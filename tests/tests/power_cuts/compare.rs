//! What each reader finds on the same disk.

use std::{
    collections::BTreeMap,
    fmt,
    fs::{self, File},
    os::unix::fs::FileExt as _,
    path::Path,
    sync::Arc,
};

use rtftp_tests::{
    Content, KernelMount,
    grub::{GrubReport, read_with_grub},
    read_directory, run, try_read_image,
};

use crate::variants::Variant;

/// What is on a disk by path, or why it is not readable.
pub(crate) type Found = Result<BTreeMap<String, Content>, String>;

/// The numbers of disks by what was read from them.
#[derive(Debug, Default)]
pub(crate) struct Results {
    /// Those that Linux and the native reader read the same.
    pub(crate) equal: usize,
    names: usize,
    /// Those that neither reads.
    unreadable: usize,
    /// Those that the native reader leaves to another one, because a change in the log is not finished.
    left_to_linux: usize,
    /// Those that Linux does not mount because a table is torn that only a writer needs.
    torn_tables: usize,
    /// Those with writes torn inside of a sector, which drives do not do, and those of them that are read differently.
    pub(crate) torn_sectors: usize,
    different_with_torn_sectors: usize,
    /// Those of which a reader that ignores the log reads something else, or nothing.
    pub(crate) different_without_log: usize,
    /// The same of GRUB, which reads only a part of the disks: those that it has read, those with a wrong file without an error, and
    /// those with a wrong `boot/vmlinuz` among them.
    grub_disks: usize,
    grub_wrong: usize,
    grub_wrong_kernel: usize,
    grub_files: GrubReport,
}

impl Results {
    pub(crate) fn add(&mut self, other: Self) {
        self.equal += other.equal;
        self.names += other.names;
        self.unreadable += other.unreadable;
        self.torn_tables += other.torn_tables;
        self.left_to_linux += other.left_to_linux;
        self.torn_sectors += other.torn_sectors;
        self.different_with_torn_sectors += other.different_with_torn_sectors;
        self.different_without_log += other.different_without_log;
        self.grub_disks += other.grub_disks;
        self.grub_wrong += other.grub_wrong;
        self.grub_wrong_kernel += other.grub_wrong_kernel;
        self.grub_files.add(other.grub_files);
    }

    fn add_grub(&mut self, report: GrubReport) {
        self.grub_disks += 1;
        self.grub_wrong += usize::from(!report.wrong.is_empty());
        self.grub_wrong_kernel += usize::from(report.wrong.iter().any(|path| path == "boot/vmlinuz"));
        self.grub_files.add(report);
    }
}

impl fmt::Display for Results {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { equal, names, unreadable, left_to_linux, different_without_log, grub_disks, grub_wrong, .. } = self;
        write!(f, "{equal} disks with {names} names as Linux reads them, {unreadable} that neither reads, ")?;
        write!(f, "{left_to_linux} left to Linux, {} with a torn table of free space; ", self.torn_tables)?;
        write!(f, "{different_without_log} differ without the log; GRUB read {grub_disks}: {}; ", self.grub_files)?;
        write!(f, "{grub_wrong} disks with a wrong file, {} with a wrong boot/vmlinuz; ", self.grub_wrong_kernel)?;
        write!(f, "{} more with torn sectors, {} differ", self.torn_sectors, self.different_with_torn_sectors)
    }
}

/// Compares all readers on a disk. Writes its image to `directory`.
pub(crate) fn compare(
    variant: &Variant,
    disk: &Arc<Vec<u8>>,
    directory: &Path,
    with_grub: bool,
    results: &mut Results,
) {
    let image = directory.join("image");
    write_sparse(&image, disk);
    let ours = try_read_image(disk.clone());
    let without_log = read_by_kernel(&image, variant.kind.without_log);
    let grub = ours
        .as_ref()
        .ok()
        .filter(|_| with_grub)
        .map(|expected| read_with_grub(&image, variant.subvolume, expected, "boot/"));
    // The last reader, because this mount replays the log.
    let truth = read_by_kernel(&image, variant.kind.mount);
    if is_unfinished(&ours) {
        results.left_to_linux += 1;
        return;
    }
    if ours.is_ok() && truth.is_err() && has_torn_table() {
        results.torn_tables += 1;
        return;
    }
    if let Some(difference) = difference(&ours, &truth) {
        panic!("{difference}");
    }
    match &truth {
        Ok(truth) => {
            results.equal += 1;
            results.names += truth.len();
            results.different_without_log += usize::from(without_log.as_ref() != Ok(truth));
            grub.into_iter().for_each(|report| results.add_grub(report));
        }
        Err(_) => results.unreadable += 1,
    }
}

/// Compares the native reader with Linux on a disk with writes that are torn inside of a sector. Linux and the native reader may choose
/// different records as the last ones of a log, but what Linux refuses must not be served.
pub(crate) fn compare_torn_sectors(variant: &Variant, disk: &Arc<Vec<u8>>, directory: &Path, results: &mut Results) {
    let image = directory.join("image");
    write_sparse(&image, disk);
    let (ours, truth) = (try_read_image(disk.clone()), read_by_kernel(&image, variant.kind.mount));
    results.torn_sectors += 1;
    if let Some(difference) = difference(&ours, &truth) {
        results.different_with_torn_sectors += 1;
        println!("{}, {}, torn sectors: {difference}", variant.kind.name, variant.name);
        assert!(truth.is_ok(), "{difference}");
    }
}

/// Returns whether Linux has just found a torn block of a table that only a writer needs, and did not mount the file system.
fn has_torn_table() -> bool {
    const TABLES: [&str; 5] = ["xfs_rmapbt_", "xfs_refcountbt_", "xfs_allocbt_", "xfs_inobt_", "xfs_agfl_"];
    let log = run("dmesg", ["--level", "alert,crit,err,warn"]).stdout;
    let log = String::from_utf8_lossy(&log);
    log.lines().rev().take(20).any(|line| {
        line.contains("error detected at") && TABLES.iter().any(|table| line.contains(&format!("at {table}")))
    })
}

/// Returns whether the native reader refuses a disk because only a mount by Linux completes a change in the log.
pub(crate) fn is_unfinished(ours: &Found) -> bool {
    ours.as_ref().is_err_and(|error| error.contains("unfinished change of the map of a file (BUI)"))
}

pub(crate) fn read_by_kernel(image: &Path, options: &[&str]) -> Found {
    let mounted = KernelMount::new(image, options)?;
    read_directory(mounted.path()).map_err(|error| error.to_string())
}

/// Returns the first difference between what the native reader finds and what Linux finds. It must not read a disk that Linux does not
/// read completely: torn metadata that the log does not repair is detected by its checksum.
fn difference(ours: &Found, truth: &Found) -> Option<String> {
    let (ours, truth) = match (ours, truth) {
        (Ok(ours), Ok(truth)) => (ours, truth),
        (Err(_), Err(_)) => return None,
        (Err(ours), Ok(_)) => return Some(format!("not readable, but Linux reads it: {ours}")),
        (Ok(_), Err(truth)) => return Some(format!("readable, but not for Linux: {truth}")),
    };
    let wrong = truth.iter().find(|(path, content)| ours.get(*path) != Some(content));
    if let Some((path, _)) = wrong {
        return Some(format!(
            "{path} {} Linux reads",
            if ours.contains_key(path) { "differs from what" } else { "is missing, which" }
        ));
    }
    ours.keys().find(|path| !truth.contains_key(*path)).map(|path| format!("{path} does not exist for Linux"))
}

/// Writes an image without its empty blocks, in place of another one.
pub(crate) fn write_sparse(path: &Path, disk: &[u8]) {
    const BLOCK: usize = 64 << 10;
    let _ = fs::remove_file(path);
    let file = File::create(path).expect("a file");
    file.set_len(disk.len() as u64).expect("a sparse file");
    let empty = [0; BLOCK];
    for (number, block) in (0..).zip(disk.chunks(BLOCK)) {
        if *block != empty[..block.len()] {
            file.write_all_at(block, number * BLOCK as u64).expect("space for an image");
        }
    }
}
