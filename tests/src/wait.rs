//! Waiting for conditions, never for time.

use std::{
    sync::{Condvar, Mutex, PoisonError},
    thread::sleep,
    time::{Duration, Instant},
};

/// Asks until `condition` gives a value and returns it; panics with `what` after `within`.
#[track_caller]
pub fn poll_until<T>(what: &str, within: Duration, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + within;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited {within:?} in vain: {what}");
        sleep(Duration::from_millis(5));
    }
}

/// The number of appliances that may run at once: each is a virtual machine of half a gigabyte.
const APPLIANCES: u32 = 2;

static FREE: (Mutex<u32>, Condvar) = (Mutex::new(APPLIANCES), Condvar::new());

/// The right to run one appliance; tests of one program that need appliances wait here for each other.
#[derive(Debug)]
pub struct Appliance(());

impl Appliance {
    /// Waits until one more appliance may run; the right is given back on drop.
    pub fn slot() -> Self {
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
