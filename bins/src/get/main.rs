//! `rtftp-get`: fetches a file from a TFTP server, completely or not at all.

mod cli;
mod compare;
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

use std::{fmt, future::pending, io, io::Write, process::ExitCode, time::Instant};

use async_signal::{Signal, Signals};
use rtftp_runtime::client::{FetchError, Fetched, Request, fetch, resolve};
use smol::{block_on, future::or, stream::StreamExt};

use crate::{
    cli::Job,
    parser::Parsed,
    report::{Report, print_line, summary},
    sink::Sink,
};

/// An error that determines the exit code.
#[derive(Debug)]
enum GetError {
    Fetch(FetchError),
    /// A local file cannot be written or read.
    Local(String),
    /// The local file differs.
    Differs(String),
}

impl GetError {
    /// Returns the exit code that `--help` lists.
    fn exit_code(&self) -> u8 {
        match self {
            Self::Fetch(FetchError::Refused { .. }) => 1,
            Self::Fetch(FetchError::InvalidPath(_)) => 2,
            Self::Fetch(FetchError::Resolve { error, .. }) if error.kind() == io::ErrorKind::InvalidInput => 2,
            Self::Fetch(FetchError::Sink(_)) | Self::Local(_) => 4,
            Self::Fetch(FetchError::Interrupted) => 130,
            Self::Fetch(_) => 3,
            Self::Differs(_) => 5,
        }
    }
}

impl fmt::Display for GetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fetch(error) => error.fmt(f),
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

/// Fetches the file, completes the output, compares, and prints the summary.
fn get(job: &Job) -> Result<(), GetError> {
    let mut sink = Sink::open(&job.output, job.verify.as_deref()).map_err(GetError::Local)?;
    let mut report = Report::new(job);
    let started = Instant::now();
    let fetched = block_on(transfer(job, &mut sink, &mut report));
    let elapsed = started.elapsed();
    // Erases the progress line.
    drop(report);
    let fetched = fetched.map_err(|error| match sink.take_error() {
        Some(message) => GetError::Local(message),
        None => GetError::Fetch(error),
    })?;
    let difference = sink.finish().map_err(GetError::Local)?;
    if !job.quiet {
        print_line(&summary(job, &fetched, elapsed));
    }
    if let Some(size) = fetched.size.filter(|&size| size > 0 && size != fetched.bytes) {
        print_line(&format!("rtftp-get: warning: the server announced {size} bytes and sent {}", fetched.bytes));
    }
    difference.map_or(Ok(()), |difference| Err(GetError::Differs(difference)))
}

/// Fetches from the first reachable address of the server.
async fn transfer(job: &Job, sink: &mut Sink, report: &mut Report) -> Result<Fetched, FetchError> {
    // Signals are caught only to remove a temporary file: with the default action, a signal also ends a blocked write to a FIFO.
    let mut signals = match sink.is_temporary() {
        true => Some(Signals::new([Signal::Int, Signal::Term, Signal::Hup]).map_err(FetchError::Socket)?),
        false => None,
    };
    let mut interrupted = async || match &mut signals {
        Some(signals) => drop(signals.next().await),
        None => pending().await,
    };
    let servers = or(resolve(&job.server), async {
        interrupted().await;
        Err(FetchError::Interrupted)
    })
    .await?;
    let mut last_error = FetchError::Interrupted;
    for server in servers {
        let request = Request { server, file: &job.file, options: job.options, patience: job.patience };
        match fetch(&request, sink, interrupted(), |receiver, event| report.event(receiver, event)).await {
            Err(error @ FetchError::Unreachable { .. }) => last_error = error,
            result => return result,
        }
    }
    Err(last_error)
}
