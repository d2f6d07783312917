//! The helper program of rtftp: reads one disk through libguestfs.

mod appliance;
mod call_error;
mod daemon;
mod mounted;

use std::{
    io::{IsTerminal, stdin},
    process::ExitCode,
};

const ABOUT: &str = "\
rtftp-guestfs reads one disk through libguestfs, for the boot server rtftp.
rtftp starts it for a disk that needs it, and communicates with it over stdin and stdout; it is not started by hand.
rtftp searches for it beside its own program, then in PATH.";

fn main() -> ExitCode {
    match std::env::args_os().nth(1) {
        None if !stdin().is_terminal() => daemon::serve(),
        Some(argument) if argument == "--version" => {
            println!("rtftp-guestfs {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        Some(argument) if argument == "--help" || argument == "-h" => {
            println!("{ABOUT}");
            ExitCode::SUCCESS
        }
        _ => {
            eprintln!("{ABOUT}");
            ExitCode::from(2)
        }
    }
}
