//! The arguments of the program, from the emulator.

use core::{cell::Cell, str::FromStr};

use cortex_m_semihosting::{nr, syscall};

/// The file to fetch and the loss of the link.
pub struct Arguments<'a> {
    /// The UDP port of the server.
    pub port: u16,
    /// The name of the file.
    pub file: &'a str,
    /// The percentage of frames that are lost.
    pub loss: u32,
    /// The seed that selects them.
    pub seed: u32,
}

impl<'a> Arguments<'a> {
    /// Reads `PORT FILE LOSS SEED` into `buf`. Returns `None` for any other arguments.
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
    // SAFETY: the call takes a buffer and its length, writes at most that many bytes, and returns the length of the text.
    if unsafe { syscall(nr::GET_CMDLINE, &room) } != 0 {
        return None;
    }
    str::from_utf8(buf.get(..room.get()[1])?).ok()
}
