//! `rtftp status`: shows what a running daemon tells about boots.

mod ask;
mod boots;
mod table;
mod text;

use std::{
    ffi::OsString,
    io::{self, IsTerminal, Write, stdout},
    net::IpAddr,
    path::PathBuf,
    process::ExitCode,
    thread,
    time::Duration,
};

use pico_args::Arguments;
use rtftp_runtime::{history::snapshot::Snapshot, status::DEFAULT_SOCKET};

use crate::{
    args::Action,
    values::{Names::Long, operands, path},
};

/// What `--help` prints.
const HELP: &str = "\
rtftp status - shows who boots, and where boots stopped

Usage: rtftp status [CLIENT] [OPTIONS]

Shows a line for each client and one for each running transfer, again every
second on a terminal, otherwise once; of one CLIENT, its last boots file by file.

Options:
      --socket PATH  where the daemon answers [default: /run/rtftp/status.sock]
      --once         show it once
      --json         print it as JSON
      --follow       print every request that is over, as a line of JSON
  -h, --help         print this
";

/// How often the table is drawn.
const PERIOD: Duration = Duration::from_secs(1);

/// What is to be shown.
#[derive(Debug)]
pub(crate) struct Job {
    client: Option<String>,
    socket: PathBuf,
    form: Form,
    once: bool,
}

/// How it is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Text,
    Json,
    Follow,
}

/// Reads the arguments after `status`.
///
/// # Errors
///
/// What is wrong, in one line.
pub(crate) fn parse(args: Vec<OsString>) -> Result<Action, String> {
    let mut args = Arguments::from_vec(args);
    if args.contains(["-h", "--help"]) {
        return Ok(Action::Print(HELP.into()));
    }
    let socket = path(&mut args, Long("--socket"), "a path")?.unwrap_or_else(|| DEFAULT_SOCKET.into());
    let once = args.contains("--once");
    let form = match (args.contains("--json"), args.contains("--follow")) {
        (false, false) => Form::Text,
        (true, false) => Form::Json,
        (false, true) => Form::Follow,
        (true, true) => return Err("--json and --follow exclude each other: events are JSON anyway".into()),
    };
    let mut rest = operands(args)?.into_iter().map(|arg| arg.to_string_lossy().into_owned());
    let client = rest.next();
    if let Some(unknown) = rest.next() {
        return Err(format!("unknown argument `{unknown}`"));
    }
    // Addresses are shown as they are usually written.
    let client = client.map(|client| client.parse().map_or(client, |ip: IpAddr| ip.to_canonical().to_string()));
    Ok(Action::Status(Job { client, socket, form, once }))
}

/// Shows it.
pub(crate) fn run(job: &Job) -> ExitCode {
    match show(job) {
        // Who reads the output has enough: `rtftp status | head`.
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(Failure::Output(error)) => failed(&format!("cannot write: {error}")),
        Err(Failure::Said(reason)) => failed(&reason),
        Ok(()) => ExitCode::SUCCESS,
    }
}

fn failed(reason: &str) -> ExitCode {
    eprintln!("rtftp: {reason}");
    ExitCode::FAILURE
}

/// Why nothing, or nothing more, is shown.
#[derive(Debug)]
enum Failure {
    /// Standard output does not take it.
    Output(io::Error),
    /// For people.
    Said(String),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

impl From<String> for Failure {
    fn from(reason: String) -> Self {
        Self::Said(reason)
    }
}

fn show(job: &Job) -> Result<(), Failure> {
    match (&job.client, job.form) {
        (client, Form::Follow) => follow(job, client.as_deref()),
        (None, Form::Json) => Ok(stdout().write_all(&ask::json(&job.socket)?)?),
        (None, Form::Text) if job.once || !stdout().is_terminal() => {
            let lines = table::lines(&ask::snapshot(&job.socket)?, None);
            Ok(stdout().write_all((lines.join("\n") + "\n").as_bytes())?)
        }
        (None, Form::Text) => live(job),
        (Some(client), form) => {
            let snapshot = ask::snapshot(&job.socket)?;
            let Some(found) = snapshot.clients.iter().find(|found| found.client == *client) else {
                return Err(format!("{} has not asked for anything that is remembered", text::harmless(client)).into());
            };
            let shown = match form {
                Form::Json => serde_json::to_string(found).map_err(|error| error.to_string())?,
                Form::Text | Form::Follow => boots::lines(found, snapshot.now).join("\n"),
            };
            Ok(stdout().write_all((shown + "\n").as_bytes())?)
        }
    }
}

/// Draws the table again and again, over the one before.
fn live(job: &Job) -> Result<(), Failure> {
    let mut before: Option<Snapshot> = None;
    loop {
        let snapshot = ask::snapshot(&job.socket)?;
        let frame = text::frame(&table::lines(&snapshot, before.as_ref()), text::screen(), before.is_none());
        stdout().write_all(frame.as_bytes())?;
        stdout().flush()?;
        before = Some(snapshot);
        thread::sleep(PERIOD);
    }
}

/// Prints events as they come, all or those of one client.
fn follow(job: &Job, client: Option<&str>) -> Result<(), Failure> {
    for event in ask::events(&job.socket)? {
        let (line, from) = event?;
        if client.is_none_or(|client| client == from) {
            stdout().write_all(line.as_bytes())?;
            stdout().flush()?;
        }
    }
    Err("the daemon tells no more: it has ended, or this was read too slowly".to_owned().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Job, String> {
        match parse(line.split_whitespace().map(OsString::from).collect())? {
            Action::Status(job) => Ok(job),
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn the_client_may_stand_anywhere_and_be_written_in_any_way() {
        for (line, client) in [
            ("", None),
            ("10.0.0.5", Some("10.0.0.5")),
            ("--socket /s ::FFFF:10.0.0.5 --once", Some("10.0.0.5")),
            ("--json FE80:0::1", Some("fe80::1")),
            ("board-7", Some("board-7")),
        ] {
            assert_eq!(parsed(line).expect(line).client.as_deref(), client, "{line}");
        }
        assert_eq!(parsed("").expect("a job").socket, PathBuf::from(DEFAULT_SOCKET));
        assert_eq!(parsed("--follow").expect("a job").form, Form::Follow);
    }

    #[test]
    fn mistakes_are_named() {
        for (line, named) in [("--jsn", "`--jsn`"), ("10.0.0.5 10.0.0.6", "`10.0.0.6`"), ("--json --follow", "--json")]
        {
            let error = parsed(line).expect_err(line);
            assert!(error.contains(named), "{line}: {error}");
        }
    }
}
