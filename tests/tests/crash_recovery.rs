//! Disks after a power cut of the machine that had them mounted: flushed data is intact, and the native reader agrees with the kernel.
//! No daemon runs.

use std::{
    fs::{self, File},
    io::{Read as _, Seek as _, SeekFrom},
    path::PathBuf,
    process::Command,
    sync::Arc,
};

use crc32c::crc32c;
use rtftp_runtime::fs::{self as filesystem, Volume};
use rtftp_tests::{
    BTRFS_MODULES, Content, Disk, Entry, FileSystem, Listing, NbdServer, OwnerMachine, Tree, assert_same, noise,
    read_image, read_natively, run, write_awkward_files,
};
use tempfile::TempDir;

/// A copy of a partition in a file.
struct Partition {
    directory: TempDir,
}

impl Partition {
    /// Copies `size` MiB at offset `start` MiB of a disk.
    fn copy(disk: &Disk, start: u64, size: u64) -> Self {
        let mut image = File::open(disk.path()).expect("the image");
        image.seek(SeekFrom::Start(start << 20)).expect("seek");
        let mut bytes = Vec::new();
        image.take(size << 20).read_to_end(&mut bytes).expect("read the image");
        let partition = Self { directory: TempDir::new().expect("a temporary directory") };
        fs::write(partition.path(), bytes).expect("write a file");
        partition
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("partition.img")
    }

    /// Returns whether the journal must be replayed.
    fn needs_recovery(&self) -> bool {
        let superblock = run("dumpe2fs", ["-h".as_ref(), self.path().as_os_str()]).stdout;
        String::from_utf8_lossy(&superblock).contains("needs_recovery")
    }

    /// Returns the output of a command of debugfs, which ignores the journal.
    fn debugfs(&self, command: &str) -> Vec<u8> {
        run("debugfs", ["-R".as_ref(), command.as_ref(), self.path().as_os_str()]).stdout
    }

    /// Replays the journal with e2fsck, whose code is independent of the kernel's. Returns a directory with all files.
    fn recover_files(&self) -> PathBuf {
        let script = "PATH=$PATH:/sbin:/usr/sbin e2fsck -fy \"$0\"";
        let output = Command::new("sh").args(["-c", script]).arg(self.path()).output().expect("sh starts");
        assert!(output.status.code() <= Some(1), "e2fsck: {}", String::from_utf8_lossy(&output.stdout));
        let files = self.directory.path().join("files");
        fs::create_dir(&files).expect("make a directory");
        self.debugfs(&format!("rdump / {}", files.display()));
        files
    }
}

/// Returns a function that reads files below a directory.
fn reader_below(directory: PathBuf) -> impl FnMut(&str) -> Vec<u8> {
    move |path| fs::read(directory.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn flushed_update_is_only_in_the_journal_after_a_power_cut() {
    let (old, new) = (noise(300_000, 1), noise(299_000, 2));
    let tree = Tree::new().file("vmlinuz", &old);
    let disk = Disk::mbr(&[
        (1, 32, FileSystem::Ext4(&tree)),
        (2, 32, FileSystem::Ext4With(&tree, &["-b", "4096", "-O", "^64bit,^metadata_csum"])),
        (5, 32, FileSystem::Ext("ext3", &tree, &[])),
    ]);
    let server = NbdServer::nbdkit(&disk);
    let mut owner = OwnerMachine::boot(&server);
    owner.disable_writeback();
    assert_eq!(owner.run_unchecked("echo no; exit 7"), (7, "no\n".to_owned()));
    for (number, kind) in [(1, "ext4"), (2, "ext4"), (5, "ext3")] {
        // On a slow machine, the default interval of 5 s would commit the unflushed file before the power cut.
        owner.run(&format!("mkdir /mnt/{number}; mount -t {kind} -o commit=600 /dev/vda{number} /mnt/{number}"));
        owner.write(&format!("/mnt/{number}/vmlinuz.new"), &new);
        owner.run(&format!("cd /mnt/{number}; sync vmlinuz.new; mv vmlinuz.new vmlinuz; sync ."));
        owner.write(&format!("/mnt/{number}/lost"), b"never flushed");
    }
    owner.power_cut();

    for start in [1, 33, 66] {
        let partition = Partition::copy(&disk, start, 32);
        assert!(partition.needs_recovery());
        assert_same(&partition.debugfs("cat /vmlinuz"), &old, "ignoring the journal");
        let files = partition.recover_files();
        assert_same(&fs::read(files.join("vmlinuz")).expect("a file"), &new, "after recovery");
        assert!(!files.join("lost").exists(), "unflushed file");
    }
}

#[test]
fn native_reader_agrees_with_the_kernel_on_xfs() {
    let (old, new) = (noise(300_000, 1), noise(299_000, 2));
    let disk = Disk::mbr(&[
        (1, 64, FileSystem::Xfs(&["-b", "size=1024", "-m", "rmapbt=1"])),
        (2, 64, FileSystem::Xfs(&["-m", "crc=0"])),
    ]);
    let server = NbdServer::qemu(&disk);
    let mut owner = OwnerMachine::boot_with_modules(&server, &["xfs"]);
    let mut listings = Vec::new();
    for number in 1..=2 {
        let directory = format!("/mnt/{number}");
        let (code, output) =
            owner.run_unchecked(&format!("mkdir {directory}; mount -t xfs -o noatime /dev/vda{number} {directory}"));
        if code != 0 && number == 2 {
            println!("not tested: this kernel does not support version 4 of XFS: {output}");
            continue;
        }
        assert_eq!(code, 0, "{output}");
        write_awkward_files(&mut owner, &directory);
        owner.run(&format!("ln -s $(printf '%0900d' 0) {directory}/remote-link"));
        owner.write(&format!("{directory}/vmlinuz"), &old);
        owner.write(&format!("{directory}/vmlinuz.new"), &new);
        owner
            .run(&format!("cd {directory}; sync vmlinuz.new; mv vmlinuz.new vmlinuz; rm -r deep; mkdir other; sync ."));
        listings.push((number, Listing::of(&mut owner, &directory)));
    }
    owner.power_cut();

    for (number, listing) in &listings {
        assert!(listing.0.len() > 4900, "{}", listing.0.len());
        let partition = Partition::copy(&disk, u64::from(number - 1) * 64 + 1, 64);
        let volume = Volume::new(Arc::new(fs::read(partition.path()).expect("a copy")));
        let filesystem = smol::block_on(filesystem::open(volume)).expect("XFS");
        assert!(filesystem.is_in_use(), "the log must be replayed");
        listing.assert_equals(&read_natively(&server, *number));
        let contents = read_natively(&server, *number);
        assert!(matches!(&contents["vmlinuz"], Content::File(bytes) if *bytes == new), "flushed file");
    }
}

#[test]
fn native_reader_agrees_with_the_kernel_on_btrfs() {
    let kernel = noise(299_000, 2);
    let disk = Disk::mbr(&[(1, 128, FileSystem::Btrfs(&[])), (2, 128, FileSystem::Btrfs(&["--csum", "xxhash"]))]);
    let server = NbdServer::qemu(&disk);
    let mut owner = OwnerMachine::boot_with_modules(&server, &BTRFS_MODULES);
    for (number, compression) in [(1, "zstd"), (2, "lzo")] {
        let directory = format!("/mnt/{number}");
        let mount = format!("mount -t btrfs -o noatime,commit=600,compress={compression} /dev/vda{number} {directory}");
        owner.run(&format!("mkdir {directory}; {mount}"));
        if number == 2 {
            let create = format!("btrfs subvolume create {directory}/@ && btrfs subvolume set-default {directory}/@");
            owner.run(&format!("{create} && umount {directory} && {mount}"));
        }
        if number == 1 {
            write_awkward_files(&mut owner, &directory);
        }
        owner.run(&format!("cd {directory}; seq 100000 >text; mkdir boot modules; echo old >boot/cmdline.txt"));
        owner.run(&format!("cd {directory}; btrfs subvolume create nested; echo inner >nested/file"));
        owner.run(&format!(
            "cd {directory}; btrfs subvolume create nested/inner; btrfs subvolume snapshot nested snapshot"
        ));
    }
    owner.run("sync");
    // The rest is only in the log trees.
    let mut listings = Vec::new();
    for number in 1..=2 {
        let directory = format!("/mnt/{number}");
        owner.write(&format!("{directory}/boot/vmlinuz"), &kernel);
        owner.run(&format!("cd {directory}/boot; sync vmlinuz; ln vmlinuz vmlinuz.old; sync vmlinuz"));
        owner.run(&format!("cd {directory}; echo new >boot/cmdline.txt; sync boot/cmdline.txt"));
        // Linux has written the old name to the tree of the subvolume, and delays its deletion: the log has both names.
        owner.run(&format!("cd {directory}/modules; echo new >initrd.tmp; sync initrd.tmp; seq 2000 | xargs touch"));
        owner.run(&format!("cd {directory}/modules; mv initrd.tmp initrd; sync ."));
        owner.run(&format!("cd {directory}; seq 99000 99500 >>text; sync text"));
        listings.push((number, Listing::of(&mut owner, &directory)));
    }
    owner.power_cut();

    for (number, listing) in &listings {
        listing.assert_equals(&read_natively(&server, *number));
        assert_eq!(
            (&listing.0["snapshot/file"], &listing.0["snapshot/inner"]),
            (&listing.0["nested/file"], &Entry::Directory)
        );
    }
    // The comparison detects a reader that ignores the log tree: without it, the flushed files are old or missing.
    let mut bytes = fs::read(Partition::copy(&disk, 1, 128).path()).expect("a copy");
    bytes[0x1_0060..][..8].fill(0);
    let checksum = crc32c(&bytes[0x1_0020..0x1_1000]);
    bytes[0x1_0000..][..4].copy_from_slice(&checksum.to_le_bytes());
    let stale = read_image(bytes);
    assert!(!stale.contains_key("boot/vmlinuz"));
    assert!(matches!(&stale["boot/cmdline.txt"], Content::File(bytes) if bytes == b"old\n"));
}

#[test]
fn either_device_of_a_btrfs_mirror_suffices() {
    let blake2 = FileSystem::Btrfs(&["--csum", "blake2"]);
    let disk = Disk::mbr(&[(1, 256, blake2), (2, 256, FileSystem::Nothing)]);
    let server = NbdServer::qemu(&disk);
    let mut owner = OwnerMachine::boot_with_modules(&server, &BTRFS_MODULES);
    let (old, new) = (noise(700_000, 1), noise(700_000, 2));
    owner.run("mkdir /mnt/1; mount -t btrfs -o compress=zlib /dev/vda1 /mnt/1; seq 100000 >/mnt/1/text");
    let text = owner.run("cat /mnt/1/text").into_bytes();
    owner.run("btrfs device add -f /dev/vda2 /mnt/1");
    owner.run("btrfs balance start -f -mconvert=raid1 -dconvert=raid1 /mnt/1");
    owner.write("/mnt/1/vmlinuz", &old);
    owner.run("umount /mnt/1");
    let read = |number, name| match read_natively(&server, number).remove(name) {
        Some(Content::File(bytes)) => bytes,
        other => panic!("partition {number}: {other:?}"),
    };
    for number in 1..=2 {
        assert_same(&read(number, "vmlinuz"), &old, "kernel on a device");
        assert_same(&read(number, "text"), &text, "compressed file on a device");
    }

    // One is missing while the other is written. What Linux allocates then has no copy.
    owner.run("btrfs device scan --forget; mount -t btrfs -o degraded /dev/vda1 /mnt/1");
    owner.write("/mnt/1/vmlinuz.new", &new);
    owner.run("mv /mnt/1/vmlinuz.new /mnt/1/vmlinuz; umount /mnt/1");
    assert_same(&read(1, "vmlinuz"), &new, "the device that was written");
    assert_same(&read(2, "vmlinuz"), &old, "the device that was missing: all of it is old");
    for start in [1, 257] {
        let volume = Volume::new(Arc::new(fs::read(Partition::copy(&disk, start, 256).path()).expect("a copy")));
        let filesystem = smol::block_on(filesystem::open(volume)).expect("btrfs");
        assert!(filesystem.warning().is_some_and(|text| text.starts_with("btrfs on 2 devices")), "{filesystem:?}");
    }
}

#[test]
fn native_reader_agrees_with_the_kernel_on_awkward_files() {
    let empty = Tree::new();
    let disk = Disk::mbr(&[
        (1, 64, FileSystem::Ext4(&empty)),
        (2, 64, FileSystem::Ext("ext3", &empty, &[])),
        (3, 64, FileSystem::Ext4With(&empty, &["-b", "4096", "-O", "^64bit,^metadata_csum"])),
        (5, 40, FileSystem::VfatWith(&empty, &["-F", "32", "-s", "1"])),
    ]);
    let server = NbdServer::qemu(&disk);
    let mut owner = OwnerMachine::boot(&server);
    let mut listings = Vec::new();
    for (number, options) in
        [(1, "-t ext4 -o noatime"), (2, "-t ext3 -o noatime"), (3, "-t ext4 -o noatime,data=journal")]
    {
        let directory = format!("/mnt/{number}");
        owner.run(&format!("mkdir {directory}; mount {options} /dev/vda{number} {directory}"));
        write_awkward_files(&mut owner, &directory);
        listings.push(Listing::of(&mut owner, &directory));
    }
    owner.run("mkdir /mnt/5; mount -t vfat /dev/vda5 /mnt/5; mkdir /mnt/5/overlays");
    owner.write("/mnt/5/overlays/a long name.dtbo", &noise(77_777, 3));
    let vfat = Listing::of(&mut owner, "/mnt/5");
    owner.run("umount /mnt/5");
    owner.power_cut();

    for (listing, number) in listings.iter().zip([1, 2, 3]) {
        listing.assert_equals(&read_natively(&server, number));
    }
    vfat.assert_equals(&read_natively(&server, 5));
    for (listing, start) in listings.iter().zip([1, 65, 129]) {
        assert!(listing.0.len() > 4900, "{}", listing.0.len());
        assert_eq!(listing.0["deep/link"], Entry::Link("../first".into()));
        assert!(matches!(&listing.0["sparse"], Entry::File { size: 9_000_000, .. }));
        let partition = Partition::copy(&disk, start, 64);
        assert!(partition.needs_recovery());
        if start == 129 {
            let in_place = partition.debugfs("cat /magic");
            assert!(
                !in_place.starts_with(b"\xc0\x3b\x39\x98"),
                "with data=journal, the content is only in the journal"
            );
        }
        listing.assert_files(reader_below(partition.recover_files()));
    }
    let partition = Partition::copy(&disk, 194, 40);
    let image = partition.path();
    vfat.assert_files(|path| run("mtype", ["-i".as_ref(), image.as_os_str(), format!("::{path}").as_ref()]).stdout);
    assert_eq!(vfat.0["overlays"], Entry::Directory);
    let mismatch = std::panic::catch_unwind(|| vfat.assert_files(|_| noise(77_777, 4)));
    assert!(mismatch.is_err(), "the comparison must detect a difference");
}
