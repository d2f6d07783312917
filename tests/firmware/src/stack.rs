//! Measures stack usage.

use cortex_m::register::msp;

/// The pattern that fills unused stack.
const PATTERN: u32 = 0xa5a5_a5a5;

/// Runs `work` and returns how many bytes of stack it used below the frames of its callers, up to `max`.
///
/// Fills the unused stack with a pattern before the call, and counts what changed after it. There are no interrupts, which would
/// use the same stack.
#[inline(never)]
pub fn measure<T>(max: usize, work: impl FnOnce() -> T) -> (T, usize) {
    let end = msp::read() as usize;
    let words = (end - max..end).step_by(4);
    for word in words.clone() {
        // SAFETY: memory below the stack pointer is unused, and the stack is larger than every `max`.
        unsafe { (word as *mut u32).write_volatile(PATTERN) }
    }
    let result = separate_frame(work);
    // SAFETY: as above.
    let untouched = words.take_while(|word| unsafe { (*word as *const u32).read_volatile() } == PATTERN).count();
    (result, max - untouched * 4)
}

/// Keeps the variables of `work` out of the frame of the function above.
#[inline(never)]
fn separate_frame<T>(work: impl FnOnce() -> T) -> T {
    work()
}
