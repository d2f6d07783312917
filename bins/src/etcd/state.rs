//! What is known of the prefix, and applied to the root directory.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
};

use rtftp_runtime::text::printable;

use crate::{
    key::{Refusal, path_of},
    message::{KeyValue, Watch},
    root::{Applied, Change, Root, RootError},
};

/// The maximum number of refused keys that are remembered.
const MAX_REFUSED: usize = 1000;
/// The number of files up to which the log names each.
const MAX_NAMED: usize = 8;

/// The reason why all keys must be read again, or the root cannot be used.
#[derive(Debug)]
pub(crate) enum Stale {
    /// The changes are not available any more.
    Compacted,
    /// The store is at an earlier revision than before: it was restored, or the member lags behind.
    Earlier,
    /// A key that was refused may become a file now.
    Unblocked,
    Root(RootError),
    /// The watch was cancelled for this reason.
    Cancelled(String),
}

/// The state.
#[derive(Debug)]
pub(crate) struct State {
    root: Root,
    prefix: String,
    /// The revision from which on changes are not known yet; `None` if all keys must be read.
    next: Option<i64>,
    /// The files of a read of all keys that has begun.
    seen: BTreeSet<String>,
    /// The keys that did not become files.
    refused: BTreeMap<Vec<u8>, Refusal>,
    written: usize,
    removed: usize,
}

impl State {
    pub(crate) fn new(root: Root, prefix: &str) -> Self {
        let (seen, refused) = (BTreeSet::new(), BTreeMap::new());
        Self { root, prefix: prefix.to_owned(), next: None, seen, refused, written: 0, removed: 0 }
    }

    /// Returns the first key of the prefix, and the first one after all its keys.
    pub(crate) fn range(&self) -> [Vec<u8>; 2] {
        let mut end = self.prefix.clone().into_bytes();
        // The prefix ends with `/`.
        if let Some(last) = end.last_mut() {
            *last += 1;
        }
        [self.prefix.clone().into_bytes(), end]
    }

    /// Returns the revision from which on changes are not known yet; `None` if all keys must be read.
    pub(crate) fn next(&self) -> Option<i64> {
        self.next
    }

    /// Returns whether a key was refused that may become a file later.
    pub(crate) fn has_blocked_keys(&self) -> bool {
        self.refused.values().any(|refusal| refusal.may_end())
    }

    /// Returns whether a key was refused.
    pub(crate) fn has_refused_keys(&self) -> bool {
        !self.refused.is_empty()
    }

    /// Requests that all keys are read again.
    pub(crate) fn forget(&mut self) {
        self.next = None;
    }

    /// Begins to read all keys.
    pub(crate) fn begin(&mut self) {
        self.next = None;
        self.seen.clear();
        (self.written, self.removed) = (0, 0);
    }

    /// Takes some of all keys.
    pub(crate) fn add(&mut self, kvs: Vec<KeyValue>) -> Result<(), RootError> {
        let mut changes = BTreeMap::new();
        for KeyValue { key, value, .. } in kvs {
            if let Some(path) = self.path(&key) {
                self.seen.insert(path.clone());
                changes.insert(path, Change::Put(value));
            }
        }
        self.apply(changes).map(drop)
    }

    /// Ends the reading of all keys at this revision: removes the files of other keys. Returns `false` if all keys must be read once
    /// more, because a removed file was in the way of another one.
    pub(crate) fn end(&mut self, revision: i64) -> Result<bool, RootError> {
        let seen = mem::take(&mut self.seen);
        let gone = self.root.files().filter(|path| !seen.contains(*path));
        let gone: BTreeMap<_, _> = gone.map(|path| (path.to_owned(), Change::Delete)).collect();
        let prefix = self.prefix.as_bytes();
        self.refused.retain(|key, refusal| {
            let path = key.strip_prefix(prefix).and_then(|name| str::from_utf8(name).ok());
            !refusal.may_end() || path.is_some_and(|path| seen.contains(path))
        });
        let has_removed = !self.apply(gone)?.removed.is_empty();
        if has_removed && self.has_blocked_keys() {
            return Ok(false);
        }
        self.next = Some(revision + 1);
        if self.written + self.removed > 0 {
            let count = self.root.files().count();
            let (root, written, removed) = (self.root.path().display(), self.written, self.removed);
            log::info!(
                "{root} is equal to {} at revision {revision}: {count} files, {written} written, {removed} removed",
                self.prefix
            );
        }
        Ok(true)
    }

    /// Takes a message of a watch.
    pub(crate) fn watched(&mut self, message: Watch) -> Result<(), Stale> {
        let next = self.next.unwrap_or(0);
        if message.compact_revision > 0 {
            return Err(Stale::Compacted);
        }
        if message.canceled {
            return Err(Stale::Cancelled(printable(message.cancel_reason.as_bytes())));
        }
        if message.created {
            return if message.header.revision + 1 < next { Err(Stale::Earlier) } else { Ok(()) };
        }
        let last = message.events.last().map(|event| event.kv.mod_revision);
        let mut changes = BTreeMap::new();
        for event in message.events {
            let KeyValue { key, value, .. } = event.kv;
            if event.kind != "DELETE" {
                changes.extend(self.path(&key).map(|path| (path, Change::Put(value))));
                continue;
            }
            self.refused.remove(&key);
            let path = key.strip_prefix(self.prefix.as_bytes()).and_then(|name| path_of(name).ok());
            changes.extend(path.map(|path| (path.to_owned(), Change::Delete)));
        }
        let applied = self.apply(changes).map_err(Stale::Root)?;
        if !applied.written.is_empty() || !applied.removed.is_empty() {
            log::info!("revision {}: {}", last.unwrap_or(next), summary(&applied));
        }
        self.next = Some(match last {
            // The rest of this revision may follow, or be lost with the connection.
            Some(last) if message.fragment => next.max(last),
            Some(last) => next.max(last + 1),
            // Nothing up to this revision is missing.
            None => next.max(message.header.revision + 1),
        });
        if !applied.removed.is_empty() && self.has_blocked_keys() { Err(Stale::Unblocked) } else { Ok(()) }
    }

    /// Returns the path of a key's file.
    fn path(&mut self, key: &[u8]) -> Option<String> {
        match path_of(key.strip_prefix(self.prefix.as_bytes())?) {
            Ok(path) => Some(path.to_owned()),
            Err(refusal) => {
                self.refuse(key.to_owned(), refusal);
                None
            }
        }
    }

    /// Remembers that a key was refused, and logs it once.
    fn refuse(&mut self, key: Vec<u8>, refusal: Refusal) {
        if self.refused.get(&key) == Some(&refusal) {
            return;
        }
        if self.refused.len() < MAX_REFUSED {
            log::warn!("key {} ignored: {refusal}", printable(&key));
        } else if self.refused.len() == MAX_REFUSED {
            log::warn!("more than {MAX_REFUSED} keys are ignored: the others are not logged");
        }
        // One more than the maximum, so that the message comes once.
        if self.refused.len() <= MAX_REFUSED {
            self.refused.insert(key, refusal);
        }
    }

    fn apply(&mut self, changes: BTreeMap<String, Change>) -> Result<Applied, RootError> {
        let paths: Vec<String> = if self.refused.is_empty() { vec![] } else { changes.keys().cloned().collect() };
        let mut applied = self.root.apply(changes);
        let refused: BTreeSet<&str> = applied.refused.iter().map(|(path, _)| &**path).collect();
        for path in paths.iter().filter(|path| !refused.contains(&***path)) {
            self.refused.remove([&*self.prefix, path].concat().as_bytes());
        }
        for (path, refusal) in &applied.refused {
            self.refuse([&*self.prefix, path].concat().into_bytes(), *refusal);
        }
        self.written += applied.written.len();
        self.removed += applied.removed.len();
        match applied.error.take() {
            Some(error) => Err(error),
            None => Ok(applied),
        }
    }
}

/// Describes changes: the names of a few files, or their number.
fn summary(applied: &Applied) -> String {
    let describe = |paths: &[String]| match paths.len() {
        1..=MAX_NAMED => paths.join(", "),
        count => format!("{count} files"),
    };
    match (applied.written.is_empty(), applied.removed.is_empty()) {
        (false, true) => format!("wrote {}", describe(&applied.written)),
        (true, _) => format!("removed {}", describe(&applied.removed)),
        (false, false) => format!("wrote {}, removed {}", describe(&applied.written), describe(&applied.removed)),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::message::{Event, Header};

    fn kv(key: &str, value: &str, revision: i64) -> KeyValue {
        KeyValue { key: key.into(), value: value.into(), mod_revision: revision }
    }

    fn put(key: &str, revision: i64) -> Event {
        Event { kind: "PUT".into(), kv: kv(key, "x", revision) }
    }

    fn delete(key: &str, revision: i64) -> Event {
        Event { kind: "DELETE".into(), kv: kv(key, "", revision) }
    }

    /// Returns a message of a watch at a revision of the store.
    fn message(revision: i64, events: Vec<Event>) -> Watch {
        Watch {
            header: Header { revision },
            created: false,
            canceled: false,
            cancel_reason: String::new(),
            compact_revision: 0,
            fragment: false,
            events,
        }
    }

    /// Returns a state that is equal to an empty prefix at revision 9.
    fn state() -> (tempfile::TempDir, State) {
        let directory = tempfile::tempdir().expect("a directory");
        let mut state = State::new(Root::open(directory.path()).expect("a root"), "/p/");
        state.begin();
        assert!(state.end(9).expect("no error"));
        (directory, state)
    }

    #[test]
    fn continues_after_the_last_complete_revision() {
        let (_directory, mut state) = state();
        assert_eq!(state.next(), Some(10));
        state.watched(message(12, vec![put("/p/a", 11), put("/p/b", 12)])).expect("applied");
        assert_eq!(state.next(), Some(13));
        state.watched(Watch { fragment: true, ..message(15, vec![put("/p/c", 15)]) }).expect("applied");
        assert_eq!(state.next(), Some(15));
        state.watched(message(15, vec![put("/p/d", 15)])).expect("applied");
        state.watched(message(20, vec![])).expect("progress");
        assert_eq!(state.next(), Some(21));
        state.watched(Watch { created: true, ..message(20, vec![]) }).expect("nothing is missing");
        let earlier = state.watched(Watch { created: true, ..message(19, vec![]) });
        assert!(matches!(earlier, Err(Stale::Earlier)), "{earlier:?}");
        let compacted = state.watched(Watch { canceled: true, compact_revision: 30, ..message(30, vec![]) });
        assert!(matches!(compacted, Err(Stale::Compacted)), "{compacted:?}");
        let denied = Watch { created: true, canceled: true, cancel_reason: "no\n".into(), ..message(30, vec![]) };
        assert!(matches!(state.watched(denied), Err(Stale::Cancelled(reason)) if reason == "no\\n"));
    }

    #[test]
    fn the_last_change_of_a_key_counts() {
        let (directory, mut state) = state();
        let events = vec![put("/p/a", 10), put("/p/b", 10), delete("/p/a", 11), delete("/p/b", 11), put("/p/b", 12)];
        state.watched(message(12, events)).expect("applied");
        assert_eq!(["a", "b"].map(|name| directory.path().join(name).exists()), [false, true]);
    }

    #[test]
    fn reads_all_keys_again_when_a_refused_key_may_become_a_file() {
        let (directory, mut state) = state();
        state.watched(message(10, vec![put("/p/a", 10), put("/p/a/b", 10), put("/p/../c", 10)])).expect("applied");
        assert!(state.has_blocked_keys());
        let unblocked = state.watched(message(11, vec![delete("/p/a", 11)]));
        assert!(matches!(unblocked, Err(Stale::Unblocked)), "{unblocked:?}");
        state.begin();
        state.add(vec![kv("/p/../c", "x", 10), kv("/p/a/b", "x", 10)]).expect("no error");
        assert!(state.end(11).expect("no error"));
        assert!(!state.has_blocked_keys() && state.has_refused_keys());
        state.watched(message(12, vec![delete("/p/../c", 12)])).expect("applied");
        assert!(!state.has_refused_keys() && directory.path().join("a/b").exists());
    }

    #[test]
    fn a_file_gives_way_to_a_directory_while_all_keys_are_read() {
        let (directory, mut state) = state();
        state.watched(message(10, vec![put("/p/a", 10)])).expect("applied");
        for is_equal in [false, true] {
            state.begin();
            state.add(vec![kv("/p/a/b", "x", 12)]).expect("no error");
            assert_eq!(state.end(12).expect("no error"), is_equal);
        }
        assert_eq!(fs::read_to_string(directory.path().join("a/b")).expect("a file"), "x");
        assert!(!state.has_refused_keys());
    }
}
