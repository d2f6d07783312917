//! The recordings of upgrades that the simulation of disks plays (`runtime-std/src/disk/simulation`).

use std::path::PathBuf;

use rtftp_tests::upgrade_recording::{RECORDED, UpgradeRecording};

fn path_of(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("recordings").join(format!("{name}.xz"))
}

/// `RECORD_ONLY` is the name of a single recording.
#[test]
#[ignore = "writes tests/recordings anew, in some minutes"]
fn records_upgrades() {
    let only = std::env::var("RECORD_ONLY").ok();
    for file_system in RECORDED.into_iter().filter(|recorded| only.as_ref().is_none_or(|only| only == recorded.name)) {
        let recorded = file_system.record();
        let path = path_of(file_system.name);
        recorded.write(&path).expect("written");
        let UpgradeRecording { operations, upgrades, .. } = &recorded;
        println!("{}: {} operations, {} upgrades", file_system.name, operations.len(), upgrades.len());
        assert_eq!(UpgradeRecording::read(&path).expect("read"), recorded);
    }
}
