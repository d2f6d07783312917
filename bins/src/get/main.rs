//! `rtftp-get`: fetches a file from a TFTP or HTTP server, completely or not at all.

mod cli;
#[path = "../command.rs"]
mod command;
mod compare;
mod http;
mod interrupt;
#[path = "../options.rs"]
mod options;
mod output;
#[path = "../parser.rs"]
mod parser;
mod progress;
#[path = "../progress_bar.rs"]
mod progress_bar;
mod report;
mod sink;
mod tftp;

use std::{fmt, io, io::Write, process::ExitCode};

use rtftp_runtime::client::{
    FetchError,
    http::{HttpClient, HttpError, Trust},
};
use smol::block_on;

use crate::{
    cli::{Destination, Job, Source},
    interrupt::Interrupt,
    parser::Parsed,
    report::{Report, Summary, print_line},
    sink::Sink,
};

/// An error that determines the exit code.
#[derive(Debug)]
enum GetError {
    Fetch(FetchError),
    Http(HttpError),
    /// A local file cannot be written or read.
    Local(String),
    /// The local file differs.
    Differs(String),
}

impl GetError {
    /// Returns the exit code that `--help` lists.
    fn exit_code(&self) -> u8 {
        match self {
            Self::Fetch(FetchError::Refused { .. }) | Self::Http(HttpError::Refused { .. }) => 1,
            Self::Fetch(FetchError::InvalidPath(_)) => 2,
            Self::Fetch(FetchError::Resolve(error)) if error.error.kind() == io::ErrorKind::InvalidInput => 2,
            Self::Fetch(FetchError::Sink(_)) | Self::Http(HttpError::Sink(_)) | Self::Local(_) => 4,
            Self::Fetch(FetchError::Interrupted) | Self::Http(HttpError::Interrupted) => 130,
            Self::Fetch(_) | Self::Http(_) => 3,
            Self::Differs(_) => 5,
        }
    }
}

impl fmt::Display for GetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fetch(error) => error.fmt(f),
            Self::Http(error) => error.fmt(f),
            Self::Local(message) | Self::Differs(message) => f.write_str(message),
        }
    }
}

fn main() -> ExitCode {
    match cli::parse(std::env::args_os().skip(1).collect()) {
        Ok(Parsed::Print(text)) => {
            let _ = io::stdout().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Ok(Parsed::Run(job)) => match get(&job) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                print_line(&format!("rtftp-get: {error}"));
                ExitCode::from(error.exit_code())
            }
        },
        Err(error) => {
            print_line(&format!("rtftp-get: {error}\nTry `rtftp-get --help`."));
            ExitCode::from(2)
        }
    }
}

/// Fetches the files, completes the outputs, compares, and prints summaries. Stops at the first error.
fn get(job: &Job) -> Result<(), GetError> {
    match &job.source {
        Source::Tftp(file, output) => get_one(job, output, |sink, interrupt, report| {
            let transfer = tftp::transfer(file, job.patience, sink, interrupt, report);
            block_on(transfer).map_err(GetError::Fetch)
        }),
        Source::Http(urls) => {
            let is_secure = urls.iter().any(|(url, _)| url.is_secure());
            let trust = is_secure.then(|| Trust::load(&job.ca)).transpose();
            let mut client = HttpClient::new(job.patience, trust.map_err(|error| GetError::Local(error.to_string()))?);
            urls.iter().try_for_each(|(url, output)| {
                get_one(job, output, |sink, interrupt, report| {
                    let transfer = http::transfer(&mut client, url, sink, interrupt, report);
                    block_on(transfer).map_err(GetError::Http)
                })
            })
        }
    }
}

/// Fetches a file, completes its output, compares it, and prints its summary.
fn get_one(
    job: &Job,
    output: &Destination,
    transfer: impl FnOnce(&mut Sink, &mut Interrupt, &mut Report) -> Result<Summary, GetError>,
) -> Result<(), GetError> {
    let mut sink = Sink::open(output, job.verify.as_deref()).map_err(GetError::Local)?;
    let interrupt = Interrupt::new(sink.is_temporary());
    let mut interrupt = interrupt.map_err(|error| GetError::Local(format!("cannot catch signals: {error}")))?;
    let mut report = Report::new(job);
    let result = transfer(&mut sink, &mut interrupt, &mut report);
    let elapsed = report.elapsed();
    // Erases the progress line.
    drop(report);
    // An error of the sink is the reason why the transfer failed.
    let summary = result.map_err(|error| sink.take_error().map_or(error, GetError::Local))?;
    let difference = sink.finish().map_err(GetError::Local)?;
    if !job.quiet {
        print_line(&summary.line(elapsed));
    }
    for warning in summary.warnings {
        print_line(&format!("rtftp-get: warning: {warning}"));
    }
    difference.map_or(Ok(()), |difference| Err(GetError::Differs(difference)))
}
