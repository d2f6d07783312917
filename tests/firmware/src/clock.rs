//! A clock from the processor's timer.

use cortex_m::peripheral::{SYST, syst::SystClkSource};
use rtftp_core::Instant;

/// The processor's clock on mps2-an386, in MHz.
const TICKS_PER_MICRO: u64 = 25;

/// The largest value of the timer, which has 24 bits and counts down.
const MAX: u32 = 0x00ff_ffff;

/// A clock that must be read at least every 0.67 s, before the timer wraps around.
pub struct Clock {
    last: u32,
    ticks: u64,
}

impl Clock {
    /// Starts the timer.
    pub fn new(mut timer: SYST) -> Self {
        timer.set_clock_source(SystClkSource::Core);
        timer.set_reload(MAX);
        timer.clear_current();
        timer.enable_counter();
        Self { last: SYST::get_current(), ticks: 0 }
    }

    /// Returns the time since the start.
    pub fn now(&mut self) -> Instant {
        let current = SYST::get_current();
        self.ticks += u64::from(self.last.wrapping_sub(current) & MAX);
        self.last = current;
        Instant::from_micros(self.ticks / TICKS_PER_MICRO)
    }
}
