//! The state that all connections share.

use std::sync::Arc;

use parking_lot::Mutex;
use smol::future::yield_now;

use crate::{files::FileStore, history::History, local_fs::SharedRoot};

/// The state that all connections share.
#[derive(Debug)]
pub(super) struct Service {
    /// The start of paths that is removed.
    pub(super) prefix: String,
    pub(super) files: Arc<FileStore>,
    pub(super) history: History,
    /// The root directory for requests that arrive before it is opened.
    next_root: Mutex<Arc<SharedRoot>>,
}

impl Service {
    pub(super) fn new(prefix: String, files: Arc<FileStore>, history: History) -> Self {
        let next_root = Mutex::new(files.share_root());
        Self { prefix, files, history, next_root }
    }

    /// Returns the root directory for a request that has arrived; others that have arrived get the same.
    pub(super) async fn root(&self) -> Arc<SharedRoot> {
        let root = self.next_root.lock().clone();
        // Meanwhile the other tasks that can run receive their requests.
        yield_now().await;
        let mut next = self.next_root.lock();
        // From now on it may be opened, so it is not for requests that arrive later.
        if Arc::ptr_eq(&root, &next) {
            *next = self.files.share_root();
        }
        root
    }
}

#[cfg(test)]
mod tests {
    use smol::{Executor, block_on, future::zip};

    use super::*;

    #[test]
    fn requests_that_have_arrived_share_a_root_directory() {
        let files = Arc::new(FileStore::new("/nonexistent".into(), Arc::new(Executor::new())));
        let service = Service::new(String::new(), files, History::new());
        let (first, second) = block_on(zip(service.root(), service.root()));
        assert!(Arc::ptr_eq(&first, &second));
        let later = block_on(service.root());
        assert!(!Arc::ptr_eq(&first, &later));
    }
}
