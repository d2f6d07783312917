//! The history as JSON.

use super::snapshot::{Client, Snapshot};

/// A snapshot as one line of JSON, written client by client: only one of them is in memory beside the text.
#[derive(Debug)]
pub(crate) struct Document {
    json: Vec<u8>,
    is_first: bool,
}

impl Document {
    /// Starts with a snapshot without clients.
    pub(super) fn new(header: &Snapshot) -> Self {
        let header = serde_json::to_vec(header).unwrap_or_default();
        // The header ends with an empty list of clients, which is filled here.
        Self { json: header.strip_suffix(b"]}").unwrap_or_default().to_vec(), is_first: true }
    }

    /// Adds a client.
    pub(crate) fn add(&mut self, client: &Client) {
        if !self.is_first {
            self.json.push(b',');
        }
        self.is_first = false;
        // Cannot fail: a `Vec` accepts every write, and every field has a JSON form.
        let _ = serde_json::to_writer(&mut self.json, client);
    }

    /// Returns the text.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.json.extend_from_slice(b"]}\n");
        self.json
    }
}
