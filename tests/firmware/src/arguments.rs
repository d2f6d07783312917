//! What the emulator was told for this program.

use core::{cell::Cell, str::FromStr};

use cortex_m_semihosting::{nr, syscall};

/// What to fetch, and over what a link.
pub struct Arguments<'a> {
    /// The UDP port of the server.
    pub port: u16,
    /// The name of the file.
    pub file: &'a str,
    /// How many of a hundred frames get lost.
    pub loss: u32,
    /// Which of them.
    pub seed: u32,
}

impl<'a> Arguments<'a> {
    /// Reads `PORT FILE LOSS SEED` into `buf`; `None` when they are not that.
    pub fn read(buf: &'a mut [u8]) -> Option<Self> {
        let mut words = command_line(buf)?.split(' ');
        Some(Self {
            port: number(words.next())?,
            file: words.next()?,
            loss: number(words.next())?,
            seed: number(words.next())?,
        })
    }
}

fn number<T: FromStr>(word: Option<&str>) -> Option<T> {
    word?.parse().ok()
}

fn command_line(buf: &mut [u8]) -> Option<&str> {
    let room = Cell::new([buf.as_mut_ptr() as usize, buf.len()]);
    // SAFETY: the call takes a buffer and its length, writes no more than that, and leaves the length of the text.
    if unsafe { syscall(nr::GET_CMDLINE, &room) } != 0 {
        return None;
    }
    str::from_utf8(buf.get(..room.get()[1])?).ok()
}
