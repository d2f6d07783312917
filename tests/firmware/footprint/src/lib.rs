//! The parts that the programs in `bin` share. They are built and measured, but not run.
//!
//! With the feature `no-panic`, the panic handler calls an undefined function, so a program links only if no panic is reachable.
//! Values that pass through `opaque` are unknown to the compiler, so it cannot remove any code.
#![no_std]

use core::{hint::black_box, panic::PanicInfo};

use cortex_m as _;

/// Hides a value from the compiler.
pub fn opaque<T>(value: T) -> T {
    black_box(value)
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    #[cfg(feature = "no-panic")]
    {
        unsafe extern "C" {
            safe fn panic_is_reachable() -> !;
        }
        panic_is_reachable()
    }
    #[cfg(not(feature = "no-panic"))]
    loop {}
}
