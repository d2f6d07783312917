//! Transfers of a file while the owner of the disk writes: the client receives one version of it, or an error.

use std::{collections::BTreeSet, sync::Arc};

use rtftp_tests::{
    Answer, DiskConfig, RecordingNbdServer, Rtftp,
    power_cut::{Operation, Random},
};

use crate::{
    can_mount, number,
    recording::Recording,
    seed,
    variants::{BTRFS_ZSTD, Variant, XFS_SMALL_LOG},
};

/// The name of the client, and the file that it fetches. The owner replaces it again and again.
const CLIENT: &str = "127.0.0.1";
const FILE: &str = "vmlinuz";

/// The number of reads of the disk for each operation of the owner.
const READS: [usize; 5] = [1, 2, 4, 8, 16];

/// With fewer operations left, the recording starts again before the next transfer.
const OPERATIONS_LEFT: usize = 200;

/// Returns the version of a file that the owner has written; `None` if it contains several.
fn version(bytes: &[u8]) -> Option<u64> {
    let line = bytes.split(|byte| *byte == b'\n').next()?;
    let text = str::from_utf8(line).ok()?.strip_prefix("vmlinuz version ")?;
    let line = &bytes[..bytes.len().min(line.len() + 1)];
    bytes.chunks(line.len()).all(|chunk| line.starts_with(chunk)).then(|| text.parse().ok())?
}

/// Fetches the file again and again while the recorded writes of the owner go on.
fn fetch_while_the_owner_writes(variant: &Variant, transfers: usize, seed: u64) {
    let Recording { base, operations, mounted } = variant.record(seed);
    let operations: Arc<[Operation]> = operations.into();
    let mut random = Random::new(seed);
    let server = RecordingNbdServer::start(base.clone());
    let daemon = Rtftp::start_with(CLIENT, 3600, &["--view-gap", "0"]);
    let config = DiskConfig::new(server.url()).partition(0, "/").tftp_root("/boot");
    daemon.put_disk(CLIENT, &config.backend("native"));
    let (mut failed, mut during, mut versions) = (0, Vec::new(), BTreeSet::new());
    let mut next = operations.len();
    for _ in 0..transfers {
        if operations.len() - next < OPERATIONS_LEFT {
            let mut disk = base.clone();
            operations[..mounted].iter().for_each(|operation| operation.apply(&mut disk));
            server.replace_disk(disk);
            next = mounted;
        }
        server.play(operations.clone(), next, READS[random.below(READS.len())]);
        match daemon.client(CLIENT).fetch(FILE, &[("blksize", "8192")]) {
            Ok(bytes) => {
                let version = version(&bytes);
                versions.insert(version.unwrap_or_else(|| panic!("a mixture of versions, {} bytes", bytes.len())));
            }
            Err(Answer::Error(0, _)) => failed += 1,
            Err(error) => panic!("{error:?}"),
        }
        let played = server.stop_playing();
        during.push(played - next);
        next = played;
    }
    during.sort_unstable();
    let (kind, received) = (variant.kind.name, transfers - failed);
    println!(
        "{kind}, {}: {received} of {transfers} transfers complete, {failed} ended by an error, {} versions; {} operations of the owner \
         during a transfer (median), {} at most",
        variant.name,
        versions.len(),
        during[transfers / 2],
        during[transfers - 1]
    );
    assert!(received > transfers / 4 && versions.len() > 1, "most transfers fail");
}

fn check(variant: &Variant) {
    if can_mount(variant) {
        fetch_while_the_owner_writes(variant, number("LIVE_TRANSFERS").unwrap_or(1000) as usize, seed());
    }
}

#[test]
#[ignore = "tests/long.sh power-cuts"]
fn no_client_receives_a_mixed_file_while_the_owner_writes_to_xfs() {
    check(&XFS_SMALL_LOG);
}

#[test]
#[ignore = "tests/long.sh power-cuts"]
fn no_client_receives_a_mixed_file_while_the_owner_writes_to_btrfs() {
    check(&BTRFS_ZSTD);
}

#[test]
fn mixed_file_is_detected() {
    let file = |number: u64, len: usize| format!("vmlinuz version {number}\n").into_bytes().repeat(9)[..len].to_vec();
    assert_eq!((version(&file(21, 100)), version(&file(21, 7))), (Some(21), None));
    assert_eq!(version(&[file(21, 76), file(22, 100)].concat()), None);
    assert_eq!(version(&[file(22, 100), file(21, 19)[5..].to_vec()].concat()), None);
}
