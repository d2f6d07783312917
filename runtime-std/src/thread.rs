//! Threads that the process cannot do without.

use std::{io, process, thread};

/// Starts a thread. A panic of it aborts the process, as one of the main thread ends it: what the thread serves would otherwise hang
/// unnoticed.
///
/// # Errors
///
/// The system allows no further thread.
pub fn spawn(name: impl Into<String>, run: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let guarded = move || {
        let _abort = AbortOnPanic;
        run();
    };
    thread::Builder::new().name(name.into()).spawn(guarded).map(drop)
}

struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if thread::panicking() {
            process::abort();
        }
    }
}
