//! The table of file systems that are read natively, and the choice between several.

use smol::future::zip;

use super::{
    BoxedFileSystem, Detected, Driver, Error, Problem, Volume, btrfs, ext4, fat, partition::Contents, signatures,
    signatures::Found, xfs,
};

/// The file systems that are read natively, in the order in which they are probed.
///
/// To add a file system, add its directory to this module and its driver to this table.
pub const DRIVERS: &[Driver] = &[ext4::DRIVER, fat::DRIVER, xfs::DRIVER, btrfs::DRIVER];

/// Opens the file system in a volume.
///
/// # Errors
///
/// [`Error::Unsupported`] if no driver supports the file system (its name is in the text if it is known), if it uses features that
/// the driver does not support, or if the volume has the signatures of several file systems; [`Error::Corrupt`], [`Error::Io`].
pub async fn open(volume: Volume) -> Result<BoxedFileSystem, Error> {
    open_with(DRIVERS, volume, Contents::Unknown).await
}

/// Opens the file system in a volume with one of `drivers`.
///
/// A signature may be left over from an earlier use of the volume. As in libblkid, a container (RAID, LVM, encryption) takes
/// precedence over file systems. Of several file systems, the only one whose root directory is readable is opened, or the one
/// that `expected` names.
///
/// # Errors
///
/// Those of [`open`].
pub async fn open_with(drivers: &[Driver], volume: Volume, expected: Contents) -> Result<BoxedFileSystem, Error> {
    Ok(open_known(drivers, volume, expected, None).await?.1)
}

/// Opens the file system in a volume like [`open_with`], and returns the name of its driver, too.
///
/// If `known` names the driver that opened the volume before, searches only the front of the volume, which is read anyway: a program
/// that formats it anew overwrites the superblock of that driver.
///
/// # Errors
///
/// Those of [`open`].
pub(super) async fn open_known(
    drivers: &[Driver],
    volume: Volume,
    expected: Contents,
    known: Option<&str>,
) -> Result<Identified, Error> {
    let is_tried =
        |driver: &&Driver| known.is_none_or(|known| driver.name == known || driver.superblock < signatures::FRONT);
    let drivers = drivers.iter().filter(is_tried);
    let (found, opened) = match known {
        // Not at the same time: both read the front, which is in the cache then.
        Some(_) => (signatures::find_at_front(&volume).await, open_each(drivers, &volume).await),
        None => zip(signatures::find(&volume), open_each(drivers, &volume)).await,
    };
    let (Found { containers, others }, mut opened) = (found?, opened?);
    if let [container, ..] = containers[..] {
        let names: Vec<&str> = opened.iter().map(|(name, _)| *name).collect();
        let leftover = match names[..] {
            [] => String::new(),
            _ => format!(
                " (the signature of {} is probably left over from an earlier use: `wipefs` lists and removes signatures)",
                names.join(" and ")
            ),
        };
        return Err(Error::Unsupported(Problem::new(format!("{container} is not supported natively{leftover}"))));
    }
    match (opened.len(), &others[..]) {
        (1, []) => {
            let (name, filesystem) = opened.remove(0);
            Ok((name, filesystem?))
        }
        (0, []) => Err(Error::Unsupported(Problem::new("no known file system"))),
        (0, [name, ..]) => Err(Error::Unsupported(Problem::new(format!("{name} is not supported natively")))),
        _ => choose(opened, &others, expected).await,
    }
}

/// The name of a driver, and the file system that it has opened.
pub(super) type Identified = (&'static str, BoxedFileSystem);

/// The name of a driver, and the file system that it has recognised, or why it cannot open it.
type Opened = (&'static str, Result<BoxedFileSystem, Error>);

/// Opens a volume with each driver that recognises its file system there.
async fn open_each(drivers: impl Iterator<Item = &Driver>, volume: &Volume) -> Result<Vec<Opened>, Error> {
    let mut opened = Vec::new();
    for driver in drivers {
        match (driver.open)(volume.clone()).await {
            Ok(Some(filesystem)) => opened.push((driver.name, Ok(filesystem))),
            Ok(None) => {}
            Err(error @ (Error::Corrupt(_) | Error::Unsupported(_))) => opened.push((driver.name, Err(error))),
            Err(error) => return Err(error),
        }
    }
    Ok(opened)
}

/// Chooses the only readable one of several file systems, or the expected one.
async fn choose(opened: Vec<Opened>, others: &[&str], expected: Contents) -> Result<Identified, Error> {
    let (mut readable, mut unreadable) = (Vec::new(), Vec::new());
    for (name, filesystem) in opened {
        let checked = match filesystem {
            Ok(filesystem) => filesystem.read_directory(filesystem.root()).await.map(|_| filesystem),
            Err(error) => Err(error),
        };
        match checked {
            Ok(filesystem) => readable.push((name, filesystem)),
            Err(error @ (Error::Corrupt(_) | Error::Unsupported(_))) => unreadable.push(format!("{name} ({error})")),
            Err(error) => return Err(error),
        }
    }
    if let ([_], []) = (&readable[..], others) {
        return Ok(readable.remove(0));
    }
    let mut names: Vec<String> = readable.iter().map(|(name, _)| (*name).to_owned()).chain(unreadable).collect();
    if others.is_empty() || expected == Contents::Fat {
        let is_expected = |name: &str| match expected {
            Contents::Fat => name == fat::DRIVER.name,
            Contents::Linux => name != fat::DRIVER.name,
            Contents::Unknown => false,
        };
        readable.retain(|(name, _)| is_expected(name));
        if let [_] = readable[..] {
            return Ok(readable.remove(0));
        }
    }
    names.extend(others.iter().map(|name| (*name).to_owned()));
    let what = format!(
        "has the signatures of several file systems, {}: remove the wrong one with `wipefs`, or set the type of the partition",
        names.join(" and ")
    );
    Err(Error::Unsupported(Problem::new(what)))
}

/// Recognises the contents of a volume while reading as little as possible; `None` if they are unknown.
///
/// # Errors
///
/// Those of [`open`], except that a file system without a driver is no error.
pub async fn probe(volume: &Volume) -> Result<Option<Detected>, Error> {
    let named = |names: &[&'static str]| names.first().map(|name| Detected { name, in_use: None });
    let found = signatures::find(volume).await?;
    if let Some(container) = named(&found.containers) {
        return Ok(Some(container));
    }
    let mut failed = None;
    for driver in DRIVERS {
        match (driver.probe)(volume).await {
            Ok(Some(detected)) => return Ok(Some(detected)),
            Ok(None) => {}
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    match failed {
        Some(error) => Err(error),
        None => Ok(named(&found.others)),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use smol::block_on;

    use super::*;
    use crate::fs::testing::{Disk, run};

    #[test]
    fn recognises_signatures() {
        for (offset, signature, name) in signatures::CONTAINERS.into_iter().chain(signatures::OTHERS) {
            let mut disk = vec![0; 1 << 17];
            disk[offset as usize..][..signature.len()].copy_from_slice(signature);
            let volume = Volume::new(Arc::new(disk));
            let opened = block_on(open(volume.clone()));
            assert_eq!(
                opened.err(),
                Some(Error::Unsupported(Problem::new(format!("{name} is not supported natively"))))
            );
            assert_eq!(block_on(probe(&volume)), Ok(Some(Detected { name, in_use: None })));
        }
    }

    #[test]
    fn unknown_contents_are_unsupported() {
        for size in [0, 1, 512, 5000, 1 << 17] {
            let opened = block_on(open(Volume::new(Arc::new(vec![0; size]))));
            assert_eq!(opened.err(), Some(Error::Unsupported(Problem::new("no known file system"))), "{size} bytes");
        }
    }

    /// Returns an image that a command has formatted.
    fn formatted(size: usize, command: &str) -> Vec<u8> {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("image");
        std::fs::write(&path, vec![0; size]).expect("space for an image");
        let script = format!("PATH=$PATH:/sbin:/usr/sbin; {command} >/dev/null");
        run("sh", ["-c".as_ref(), script.as_ref(), path.as_os_str()]);
        std::fs::read(&path).expect("an image")
    }

    fn open_image(image: &[u8], expected: Contents) -> Result<&'static str, String> {
        let opened = block_on(open_with(DRIVERS, Volume::new(Arc::new(image.to_vec())), expected));
        opened.map(|filesystem| filesystem.name()).map_err(|error| error.to_string())
    }

    #[test]
    fn containers_take_precedence_over_the_file_system_that_was_there_before() {
        let ext4 = formatted(8 << 20, "mke2fs -q -t ext4 $0");
        assert_eq!(open_image(&ext4, Contents::Unknown), Ok("ext4"));
        for (offset, signature, name) in signatures::CONTAINERS {
            let mut image = ext4.clone();
            image[offset as usize..][..signature.len()].copy_from_slice(signature);
            let error = open_image(&image, Contents::Linux).expect_err(name);
            assert!(error.starts_with(&format!("{name} is not supported natively")), "{error}");
        }
        // An md member of version 0.90, then one of version 1.0.
        for (at, fields) in [((8 << 20) - (64 << 10), vec![(4, 0)]), ((8 << 20) - 8192, vec![(4, 1), (144, 16368)])] {
            let mut image = ext4.clone();
            image[at..at + 4].copy_from_slice(&0xa92b_4efcu32.to_le_bytes());
            for (field, value) in fields {
                image[at + field..][..4].copy_from_slice(&u32::to_le_bytes(value));
            }
            let error = open_image(&image, Contents::Linux).expect_err("a RAID");
            assert!(
                error.starts_with("a member of a RAID (md) is not") && error.contains("signature of ext4"),
                "{error}"
            );
        }
    }

    #[test]
    fn a_known_driver_opens_its_file_system_with_one_read() {
        let reads = |image: &[u8], known| {
            let disk = Disk::new(image.to_vec());
            let opened = block_on(open_known(DRIVERS, disk.volume(), Contents::Unknown, known));
            (opened.map(|(driver, filesystem)| (driver, filesystem.name())).ok(), disk.reads())
        };
        let ext4 = formatted(8 << 20, "mke2fs -q -t ext4 $0");
        let (found, all) = reads(&ext4, None);
        assert_eq!((found, reads(&ext4, Some("ext4"))), (Some(("ext4", "ext4")), (Some(("ext4", "ext4")), 1)));
        assert!(all > 5, "{all} reads without a known driver");
        // What has been written to the front since then is noticed.
        let fat = formatted(8 << 20, "mke2fs -q -t ext4 $0 && mkfs.vfat -F 16 -s 1 $0");
        assert_eq!(reads(&fat, Some("ext4")).0, Some(("fat", "FAT16")));
        let mut encrypted = ext4;
        encrypted[..6].copy_from_slice(b"LUKS\xba\xbe");
        assert_eq!(reads(&encrypted, Some("ext4")).0, None);
        let btrfs = formatted(128 << 20, "mkfs.btrfs -q $0");
        assert_eq!(reads(&btrfs, Some("btrfs")).0, Some(("btrfs", "btrfs")));
    }

    #[test]
    fn the_readable_one_of_two_file_systems_is_opened() {
        // mformat leaves the superblock of ext4 as it is.
        let over_ext4 =
            formatted(40 << 20, "mke2fs -q -t ext4 $0 && mformat -F -R 32 -c 1 -i $0 -T 81920 -h 64 -s 32 ::");
        assert_eq!(&over_ext4[1080..1082], [0x53, 0xef]);
        assert_eq!(open_image(&over_ext4, Contents::Unknown), Ok("FAT32"));
        let mut fat16 = formatted(8 << 20, "mkfs.vfat -F 16 -s 1 $0");
        fat16[1080..1082].copy_from_slice(&[0x53, 0xef]);
        assert_eq!(open_image(&fat16, Contents::Unknown), Ok("FAT16"));
        let mut ext4 = formatted(8 << 20, "mke2fs -q -t ext4 $0");
        ext4[..512].copy_from_slice(&fat16[..512]);
        // Both are readable: an empty FAT and an ext4.
        let undecided = open_image(&ext4, Contents::Unknown).expect_err("two file systems");
        assert!(undecided.contains("several file systems, ext4 and fat"), "{undecided}");
        assert_eq!(open_image(&ext4, Contents::Linux), Ok("ext4"));
        let mut reiser = formatted(8 << 20, "mke2fs -q -t ext4 $0");
        reiser[0x1_0034..][..6].copy_from_slice(b"ReIsEr");
        let undecided = open_image(&reiser, Contents::Linux).expect_err("two file systems");
        assert!(undecided.contains("ext4 and ReiserFS"), "{undecided}");
    }
}
