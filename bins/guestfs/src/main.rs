//! The libguestfs helper of rtftp.

use std::{
    io::{IsTerminal, stdin},
    process::ExitCode,
};

const ABOUT: &str = "\
rtftp-guestfs reads one remote disk through libguestfs, for the boot server rtftp.
rtftp starts it when a disk needs it, and speaks to it over stdin and stdout; it is not started by hand.
rtftp looks for it beside its own program, then in PATH.";

fn main() -> ExitCode {
    match std::env::args_os().nth(1) {
        None if !stdin().is_terminal() => rtftp_runtime::guestfs::appliance::run(),
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
