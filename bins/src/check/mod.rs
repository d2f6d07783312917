//! `rtftp check`: checks a root directory and the disks that it describes.

mod cli;
mod json;
mod table;

use std::{
    io::{Write, stdout},
    process::ExitCode,
};

pub(crate) use self::cli::{Job, SECONDS, parse};

/// Runs a check and prints its report. The exit code is 0 without problems and 1 with problems.
pub(crate) fn run(job: &Job) -> ExitCode {
    let mut report = match rtftp_runtime::check::check(&job.root, job.limits) {
        Ok(report) => report,
        Err(error) => {
            eprintln!("rtftp: {}: {error}", job.root.display());
            return ExitCode::FAILURE;
        }
    };
    if let Some((address, prefix)) = &job.http {
        report.add_urls(address, prefix);
    }
    let text = if job.json { json::document(&report) } else { table::text(&report) };
    // A closed standard output does not change the exit code.
    let _ = stdout().write_all(text.as_bytes());
    if report.problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
