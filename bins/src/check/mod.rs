//! `rtftp check`: looks for mistakes in a root directory and on the disks that it names.

mod args;
mod json;
mod table;

use std::{
    io::{Write, stdout},
    process::ExitCode,
};

pub(crate) use self::args::{Job, parse};

/// Looks, and prints what was found. The exit code is 0 if all is well and 1 if something is wrong.
pub(crate) fn run(job: &Job) -> ExitCode {
    let report = match rtftp_runtime::check::check(&job.root, job.limits) {
        Ok(report) => report,
        Err(error) => {
            eprintln!("rtftp: {}: {error}", job.root.display());
            return ExitCode::FAILURE;
        }
    };
    let text = if job.json { json::document(&report) } else { table::text(&report) };
    // That nobody is there to read it changes nothing about what was found.
    let _ = stdout().write_all(text.as_bytes());
    if report.mistakes.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
