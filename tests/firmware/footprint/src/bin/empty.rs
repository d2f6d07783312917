//! Does nothing: the baseline for the sizes of the other programs.
#![no_std]
#![no_main]

use cortex_m_rt::entry;
use footprint::opaque;

#[entry]
fn main() -> ! {
    let mut packet = [0; 600];
    loop {
        opaque(&mut packet);
    }
}
