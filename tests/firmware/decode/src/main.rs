//! Makes text of the log that the firmware writes: one line a message, with its level before it.
//!
//! The firmware sends its messages as numbers (defmt); what they stand for is in its ELF file. Names that as its argument, the
//! log is the standard input.

use std::{
    env,
    error::Error,
    fs,
    io::{Read, stdin},
};

use defmt_decoder::{DecodeError, Table};

fn main() -> Result<(), Box<dyn Error>> {
    let elf = fs::read(env::args_os().nth(1).ok_or("expected the firmware's ELF file as the argument")?)?;
    let table = Table::parse(&elf)?.ok_or("there are no defmt messages in this file")?;
    let mut log = Vec::new();
    stdin().read_to_end(&mut log)?;
    let mut messages = table.new_stream_decoder();
    messages.received(&log);
    loop {
        match messages.decode() {
            Ok(message) => {
                let level = message.level().map_or("", |level| level.as_str());
                println!("{level} {}", message.display_message());
            }
            Err(DecodeError::UnexpectedEof) => return Ok(()),
            Err(DecodeError::Malformed) => return Err("this is not the log of that firmware".into()),
        }
    }
}
