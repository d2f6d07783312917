//! Signals that end a transfer.

use std::{future::pending, io};

use async_signal::{Signal, Signals};
use smol::stream::StreamExt;

/// The signals that end a transfer early.
///
/// They are caught only to remove a temporary file: with the default action, a signal also ends a blocked write to a FIFO.
#[derive(Debug)]
pub(crate) struct Interrupt(Option<Signals>);

impl Interrupt {
    /// Catches the signals if there is a temporary file.
    pub(crate) fn new(is_temporary: bool) -> io::Result<Self> {
        let signals = || Signals::new([Signal::Int, Signal::Term, Signal::Hup]);
        is_temporary.then(signals).transpose().map(Self)
    }

    /// Waits for a signal.
    pub(crate) async fn wait(&mut self) {
        match &mut self.0 {
            Some(signals) => drop(signals.next().await),
            None => pending().await,
        }
    }
}
