//! Converts the firmware's defmt log on standard input to text: one line a message, after its level.
//!
//! The log contains numbers; their texts are in the firmware's ELF file, the argument.

use std::{
    env,
    error::Error,
    fs,
    io::{Read, stdin},
};

use defmt_decoder::{DecodeError, Table};

fn main() -> Result<(), Box<dyn Error>> {
    let elf = fs::read(env::args_os().nth(1).ok_or("expected the firmware's ELF file as the argument")?)?;
    let table = Table::parse(&elf)?.ok_or("no defmt messages in this file")?;
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
            Err(DecodeError::Malformed) => return Err("the log does not belong to this firmware".into()),
        }
    }
}
