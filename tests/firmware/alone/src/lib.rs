//! What the programs beside this file share. They are linked and looked at, not run.
//!
//! With the feature `no-panic` the panic handler calls a function that is nowhere: then a program links only if no panic can be
//! reached. The compiler sees nothing of what goes through `unknown`, so that it leaves nothing out.
#![no_std]

use core::{hint::black_box, panic::PanicInfo};

use cortex_m as _;

/// Any value: the compiler knows nothing of it.
pub fn unknown<T>(value: T) -> T {
    black_box(value)
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    #[cfg(feature = "no-panic")]
    {
        unsafe extern "C" {
            safe fn a_panic_can_be_reached() -> !;
        }
        a_panic_can_be_reached()
    }
    #[cfg(not(feature = "no-panic"))]
    loop {}
}
