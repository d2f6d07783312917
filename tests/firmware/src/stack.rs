//! How much stack something takes.

use cortex_m::register::msp;

/// What unused stack is filled with.
const PAINT: u32 = 0xa5a5_a5a5;

/// Runs `work` and says how many bytes of stack it took, up to `most`, below the frames of those who called.
///
/// The stack is filled below its end before, and looked at afterwards: what is changed was used. There are no interrupts here,
/// which would use the same stack.
#[inline(never)]
pub fn used_by<T>(most: usize, work: impl FnOnce() -> T) -> (T, usize) {
    let end = msp::read() as usize;
    let places = (end - most..end).step_by(4);
    for place in places.clone() {
        // SAFETY: below its end the stack is nobody's, and there is more of it than anybody asks for.
        unsafe { (place as *mut u32).write_volatile(PAINT) }
    }
    let result = apart(work);
    // SAFETY: as above; it is memory like any other.
    let untouched = places.take_while(|place| unsafe { (*place as *const u32).read_volatile() } == PAINT).count();
    (result, most - untouched * 4)
}

/// Has the variables of `work` in a frame of their own, not in that of the function above.
#[inline(never)]
fn apart<T>(work: impl FnOnce() -> T) -> T {
    work()
}
