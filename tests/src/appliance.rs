//! A limit on the number of virtual machines that run at once.

use parking_lot::{Condvar, Mutex};

/// The number of libguestfs appliances that may run at once; each is a virtual machine of about 500 MB.
const APPLIANCES: u32 = 2;

static AVAILABLE: (Mutex<u32>, Condvar) = (Mutex::new(APPLIANCES), Condvar::new());

/// A permit to run one appliance. Tests in one process wait here for each other.
#[derive(Debug)]
pub struct AppliancePermit(());

impl AppliancePermit {
    /// Waits for a permit, which is returned on drop.
    pub fn acquire() -> Self {
        let mut available = AVAILABLE.0.lock();
        AVAILABLE.1.wait_while(&mut available, |available| *available == 0);
        *available -= 1;
        Self(())
    }
}

impl Drop for AppliancePermit {
    fn drop(&mut self) {
        *AVAILABLE.0.lock() += 1;
        AVAILABLE.1.notify_one();
    }
}
