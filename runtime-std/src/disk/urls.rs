//! Counts the disks with the same URL: what one of them shows may be done by the boards of the others.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    sync::Arc,
};

use parking_lot::Mutex;
use rtftp_core::config::uri::NbdUri;

/// The URLs of all disks. A clone refers to the same disks.
#[derive(Debug, Clone, Default)]
pub(super) struct Urls(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    /// The number of disks by the hash of their URL.
    disks: Mutex<HashMap<u64, usize>>,
    hasher: RandomState,
}

/// The URL of a disk, which is counted until this is dropped.
#[derive(Debug)]
pub(super) struct CountedUrl {
    urls: Urls,
    hash: u64,
}

impl Urls {
    /// Counts a disk with this URL.
    pub(super) fn add(&self, url: &NbdUri) -> CountedUrl {
        let hash = self.0.hasher.hash_one(url.to_string());
        *self.0.disks.lock().entry(hash).or_default() += 1;
        CountedUrl { urls: self.clone(), hash }
    }
}

impl CountedUrl {
    /// Returns whether another disk has the same URL.
    pub(super) fn is_shared(&self) -> bool {
        self.urls.0.disks.lock().get(&self.hash).is_some_and(|count| *count > 1)
    }
}

impl Drop for CountedUrl {
    fn drop(&mut self) {
        let mut disks = self.urls.0.disks.lock();
        match disks.get_mut(&self.hash) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(disks.remove(&self.hash)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn url_is_shared_while_another_disk_has_it() {
        let urls = Urls::default();
        let add = |url: &str| urls.add(&NbdUri::parse(url).expect(url));
        let first = add("nbd://nas/board-1");
        let other = add("nbd://nas/board-2");
        assert!(!first.is_shared() && !other.is_shared());
        let second = add("nbd://nas:10809/board-1");
        assert!(first.is_shared() && second.is_shared() && !other.is_shared());
        drop(first);
        assert!(!second.is_shared());
        drop((second, other));
        assert!(urls.0.disks.lock().is_empty());
    }
}
