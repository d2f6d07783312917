//! Waiting for a condition instead of for a guessed time, and a limit on the number of virtual machines.

use std::{
    sync::{Condvar, Mutex, PoisonError},
    thread::sleep,
    time::{Duration, Instant},
};

/// Polls `condition` until it returns a value. Panics with `what` after `within`.
#[track_caller]
pub fn poll_until<T>(what: &str, within: Duration, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + within;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "timed out after {within:?} waiting for {what}");
        sleep(Duration::from_millis(5));
    }
}

/// The number of libguestfs appliances that may run at once; each is a virtual machine of about 500 MB.
const APPLIANCES: u32 = 2;

static FREE: (Mutex<u32>, Condvar) = (Mutex::new(APPLIANCES), Condvar::new());

/// A permit to run one appliance. Tests in one process wait here for each other.
#[derive(Debug)]
pub struct Appliance(());

impl Appliance {
    /// Waits for a permit, which is returned on drop.
    pub fn permit() -> Self {
        let free = FREE.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut free = FREE.1.wait_while(free, |free| *free == 0).unwrap_or_else(PoisonError::into_inner);
        *free -= 1;
        Self(())
    }
}

impl Drop for Appliance {
    fn drop(&mut self) {
        *FREE.0.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        FREE.1.notify_one();
    }
}
