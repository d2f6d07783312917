//! Does nothing: what every program takes.
#![no_std]
#![no_main]

use alone::unknown;
use cortex_m_rt::entry;

#[entry]
fn main() -> ! {
    let mut packet = [0; 600];
    loop {
        unknown(&mut packet);
    }
}
