//! A helper for tests: a script that fails in the way that it is called.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use smol::future;
use tempfile::TempDir;

use super::client::HelperTimeouts;

/// The script, with a directory where it notes what it starts.
pub(super) struct Fake {
    folder: TempDir,
    pub(super) helper: PathBuf,
}

/// Timeouts that never expire in a test that goes well.
pub(super) fn patient() -> HelperTimeouts {
    HelperTimeouts { start: Duration::from_secs(60), reply: Duration::from_secs(60), silence: Duration::from_secs(60) }
}

impl Fake {
    /// Makes a helper with one of the faults that the script knows.
    pub(super) fn new(fault: &str) -> Self {
        let folder = tempfile::tempdir().expect("a directory");
        let helper = folder.path().join(fault);
        symlink(concat!(env!("CARGO_MANIFEST_DIR"), "/src/guestfs/fake-helper.sh"), &helper).expect("a link");
        Self { folder, helper }
    }

    /// The process numbers of the helpers' children, one a helper.
    pub(super) fn children(&self) -> Vec<String> {
        self.notes("children")
    }

    /// Returns when a helper has been asked to start.
    pub(super) async fn has_started(&self) {
        while self.notes("folders").is_empty() {
            future::yield_now().await;
        }
    }

    /// Checks that no child of a helper runs and that no temporary file is left. To die takes a moment, and a zombie that is not
    /// our child is not our business.
    #[track_caller]
    pub(super) fn assert_nothing_is_left(&self) {
        let children = self.children();
        assert!(!children.is_empty(), "no helper was started");
        let until = Instant::now() + Duration::from_secs(10);
        let runs = |pid| fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "));
        while children.iter().any(runs) || self.notes("folders").iter().any(|folder| Path::new(folder).exists()) {
            assert!(Instant::now() < until, "{children:?} run or {:?} exist", self.notes("folders"));
            std::thread::yield_now();
        }
    }

    fn notes(&self, name: &str) -> Vec<String> {
        let notes = fs::read_to_string(self.folder.path().join(name)).unwrap_or_default();
        notes.lines().map(str::to_owned).collect()
    }
}
