//! rtftp-get: fetches a file from a TFTP server, whole or not at all, and shows what happens on the way.

mod args;
#[path = "../bar.rs"]
mod bar;
mod compare;
mod output;
mod progress;
mod report;
mod sink;
#[path = "../values.rs"]
mod values;

use std::{fmt, future::pending, io, io::Write, process::ExitCode, time::Instant};

use async_signal::{Signal, Signals};
use rtftp_runtime::client::{FetchError, Fetched, Request, fetch, resolve};
use smol::{block_on, future::or, stream::StreamExt};

use crate::{
    args::{Action, Job},
    report::{Report, say, summary},
    sink::Sink,
};

/// Why the program ends without success.
#[derive(Debug)]
enum Failure {
    Fetch(FetchError),
    /// A file of this machine cannot be written or read.
    Local(String),
    /// The local file is another one.
    Differs(String),
}

impl Failure {
    /// The exit code, as `--help` has it.
    fn code(&self) -> u8 {
        match self {
            Self::Fetch(FetchError::Refused { .. }) => 1,
            Self::Fetch(FetchError::Name(_)) => 2,
            Self::Fetch(FetchError::Host { error, .. }) if error.kind() == io::ErrorKind::InvalidInput => 2,
            Self::Fetch(FetchError::Sink(_)) | Self::Local(_) => 4,
            Self::Fetch(FetchError::Interrupted) => 130,
            Self::Fetch(_) => 3,
            Self::Differs(_) => 5,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fetch(error) => error.fmt(f),
            Self::Local(text) | Self::Differs(text) => f.write_str(text),
        }
    }
}

fn main() -> ExitCode {
    match args::parse(std::env::args_os().skip(1).collect()) {
        Ok(Action::Print(text)) => {
            let _ = io::stdout().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Ok(Action::Fetch(job)) => match get(&job) {
            Ok(()) => ExitCode::SUCCESS,
            Err(failure) => {
                say(&format!("rtftp-get: {failure}"));
                ExitCode::from(failure.code())
            }
        },
        Err(error) => {
            say(&format!("rtftp-get: {error}\nTry `rtftp-get --help`."));
            ExitCode::from(2)
        }
    }
}

/// Does the whole job: fetches, puts the file in its place, compares, and reports.
fn get(job: &Job) -> Result<(), Failure> {
    let mut sink = Sink::open(&job.output, job.verify.as_deref()).map_err(Failure::Local)?;
    let mut report = Report::new(job);
    let started = Instant::now();
    let fetched = block_on(transfer(job, &mut sink, &mut report));
    let elapsed = started.elapsed();
    drop(report);
    let fetched = fetched.map_err(|error| match sink.take_failure() {
        Some(failure) => Failure::Local(failure),
        None => Failure::Fetch(error),
    })?;
    let difference = sink.finish().map_err(Failure::Local)?;
    if !job.quiet {
        say(&summary(job, &fetched, elapsed));
    }
    if let Some(size) = fetched.size.filter(|&size| size > 0 && size != fetched.bytes) {
        say(&format!("rtftp-get: warning: the server announced {size} bytes and sent {}", fetched.bytes));
    }
    difference.map_or(Ok(()), |difference| Err(Failure::Differs(difference)))
}

/// Fetches from the first of the server's addresses where somebody listens.
async fn transfer(job: &Job, sink: &mut Sink, report: &mut Report) -> Result<Fetched, FetchError> {
    // Only where something is to be cleaned up: a write to a FIFO that nobody reads would outlast a signal that is caught.
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
    let mut last = FetchError::Interrupted;
    for server in servers {
        let request = Request { server, file: &job.file, options: job.wanted, patience: job.patience };
        match fetch(&request, sink, interrupted(), |receiver, event| report.event(receiver, event)).await {
            Err(error @ FetchError::Unreachable { .. }) => last = error,
            ended => return ended,
        }
    }
    Err(last)
}
