//! The state that all connections share.

use std::sync::Arc;

use crate::{files::FileStore, history::History};

/// The state that all connections share.
#[derive(Debug)]
pub(super) struct Service {
    /// The start of paths that is removed.
    pub(super) prefix: String,
    pub(super) files: Arc<FileStore>,
    pub(super) history: History,
}
