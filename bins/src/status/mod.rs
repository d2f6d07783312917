//! `rtftp status`: shows the boot history of a running daemon.

mod history;
mod keys;
mod live;
mod merge;
mod past;
mod query;
mod screen;
mod servers;
mod source;
mod table;
mod terminal;
mod text;
mod view;

use std::{
    ffi::OsString,
    io::{self, IsTerminal, Write, stdout},
    iter,
    net::IpAddr,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    time::{SystemTime, UNIX_EPOCH},
};

use rtftp_runtime::{history::boots_since, status::DEFAULT_SOCKET};

pub(crate) use self::{
    merge::merge,
    servers::{Server, snapshot},
    view::View,
};
use self::{
    past::{Past, Span},
    screen::{Line, Screen},
    source::{Source, StatusError},
    table::Table,
};
use crate::parser::{Parsed, Parser, unknown_argument};

/// The directory in which the server of the package records boots.
const DEFAULT_HISTORY: &str = "/var/lib/rtftp";

/// The arguments of `rtftp status`.
#[derive(Debug)]
pub(crate) struct Job {
    client: Option<String>,
    source: Source,
    format: Format,
    once: bool,
    /// Lists the boots that were recorded in a directory in the last span of time, instead of querying a server.
    since: Option<(Span, PathBuf)>,
}

/// The output format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Text,
    Json,
    Csv,
    Events,
}

/// Parses the arguments after `status`.
///
/// # Errors
///
/// Returns the problem with the arguments in one line.
pub(crate) fn parse(args: Vec<OsString>) -> Result<Parsed<Job>, String> {
    let mut parser = Parser::new("rtftp status", args);
    if let Some(text) = parser.help_or_version() {
        return Ok(Parsed::Print(text));
    }
    let socket = parser.path("--socket")?;
    let servers = iter::from_fn(|| parser.value("--server", "HOST:PORT or http://HOST:PORT").transpose());
    let servers: Vec<Server> = servers.collect::<Result<_, _>>()?;
    let once = parser.flag("--once");
    let format = match (parser.flag("--json"), parser.flag("--csv"), parser.flag("--follow")) {
        (false, false, false) => Format::Text,
        (true, false, false) => Format::Json,
        (false, true, false) => Format::Csv,
        (false, false, true) => Format::Events,
        (_, true, _) => return Err("--csv, --json and --follow cannot be combined".into()),
        (true, _, true) => return Err("--json and --follow cannot be combined: --follow prints JSON".into()),
    };
    let since = since(&mut parser)?;
    let needs_server = socket.is_some() || !servers.is_empty() || format == Format::Events;
    if since.is_some() && needs_server {
        return Err(
            "--since reads the files of --history on this machine: run it on the server, without --socket, --server and --follow".into()
        );
    }
    if since.is_none() && format == Format::Csv {
        return Err("--csv needs --since".into());
    }
    let source = match (socket, servers) {
        (Some(_), servers) if !servers.is_empty() => return Err("--socket and --server cannot be combined".into()),
        (None, servers) if !servers.is_empty() => Source::Servers(servers),
        (socket, _) => Source::Socket(socket.unwrap_or_else(|| DEFAULT_SOCKET.into())),
    };
    if let (Source::Servers(_), Format::Events) = (&source, format) {
        return Err("--follow needs the socket of a server: it cannot be combined with --server".into());
    }
    let mut operands = parser.operands()?.into_iter();
    let client = operands.next().map(|client| client.to_string_lossy().into_owned());
    if let Some(second) = operands.next() {
        return Err(unknown_argument(&second));
    }
    // The server reports addresses in canonical notation.
    let client = client.map(|client| client.parse().map_or(client, |ip: IpAddr| ip.to_canonical().to_string()));
    Ok(Parsed::Run(Job { client, source, format, once, since }))
}

/// Returns the values of `--since` and `--history`.
fn since(parser: &mut Parser) -> Result<Option<(Span, PathBuf)>, String> {
    let since = parser.value("--since", "a span of time such as 24h, 30m or 7d")?;
    match (since, parser.path("--history")?) {
        (Some(span), directory) => Ok(Some((span, directory.unwrap_or_else(|| DEFAULT_HISTORY.into())))),
        (None, Some(_)) => Err("--history needs --since".into()),
        (None, None) => Ok(None),
    }
}

/// Runs `rtftp status`. The exit code is 0 if the status was printed and 1 otherwise.
pub(crate) fn run(job: &Job) -> ExitCode {
    match print(job) {
        // The reader has closed the pipe, as `rtftp status | head` does.
        Err(StatusError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rtftp: {error}");
            ExitCode::FAILURE
        }
        Ok(()) => ExitCode::SUCCESS,
    }
}

fn print(job: &Job) -> Result<(), StatusError> {
    if let Some((span, directory)) = &job.since {
        return print_past(*span, directory, job.client.as_deref(), job.format);
    }
    match (&job.source, &job.client, job.format) {
        (source, client, Format::Text | Format::Events) if !job.once && terminal::is_drawable() => {
            return live::show(source, client.as_deref());
        }
        (Source::Socket(socket), client, Format::Events) => return print_events(socket, client.as_deref()),
        (Source::Socket(socket), None, Format::Json) => return Ok(stdout().write_all(&query::json(socket, None)?)?),
        _ => {}
    }
    let view = job.source.view(job.client.as_deref())?;
    let Some(client) = &job.client else {
        let printed = match job.format {
            Format::Text => print_lines(&Table::new(&view).lines()),
            Format::Json | Format::Csv | Format::Events => {
                view.json().map_err(io::Error::from).and_then(|json| stdout().write_all(json.as_bytes()))
            }
        };
        return Ok(printed?);
    };
    // The others may know more about the client.
    view.missing().for_each(|problem| eprintln!("rtftp: {}", text::escape(&problem)));
    let found = view.find(client).ok_or_else(|| StatusError::UnknownClient(client.clone()))?;
    if job.format == Format::Json {
        let json = serde_json::to_string(found).map_err(io::Error::from)?;
        return Ok(stdout().write_all((json + "\n").as_bytes())?);
    }
    Ok(print_lines(&history::lines(found, view.now))?)
}

/// Prints the boots that were recorded in a directory, all or those of one client.
fn print_past(Span(span): Span, directory: &Path, client: Option<&str>, format: Format) -> Result<(), StatusError> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let since = (now - span.as_secs_f64()).max(0.0);
    let read = boots_since(directory, since);
    let mut boots = read.map_err(|error| StatusError::History(directory.to_owned(), error))?;
    boots.retain(|boot| client.is_none_or(|client| client == boot.client));
    let past = Past { now, since, boots };
    match format {
        Format::Text => print_lines(&past.lines())?,
        Format::Csv => stdout().write_all(past.csv().as_bytes())?,
        Format::Json | Format::Events => stdout().write_all(past.json()?.as_bytes())?,
    }
    Ok(())
}

/// Prints lines, through less(1) if they are more than the terminal has.
fn print_lines(lines: &[Line]) -> io::Result<()> {
    let screen = Screen::current();
    let text = screen.text(lines);
    if stdout().is_terminal() && screen.height(lines) > screen.available() {
        let mut less = Command::new("less");
        // Without commands that start other programs: sudo may allow only this one.
        less.arg("--RAW-CONTROL-CHARS").env("LESSSECURE", "1").stdin(Stdio::piped());
        if let Ok(mut less) = less.spawn() {
            // Fails if the reader ends less before its end.
            let _ = less.stdin.take().map(|mut input| input.write_all(text.as_bytes()));
            return less.wait().map(drop);
        }
    }
    stdout().write_all(text.as_bytes())
}

/// Prints events as they arrive, all or those of one client.
fn print_events(socket: &Path, client: Option<&str>) -> Result<(), StatusError> {
    for event in query::events(socket)? {
        let (line, source) = event?;
        if client.is_none_or(|client| client == source) {
            stdout().write_all(line.as_bytes())?;
            stdout().flush()?;
        }
    }
    Err(StatusError::EventsEnded)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Job, String> {
        match parse(line.split_whitespace().map(OsString::from).collect())? {
            Parsed::Run(job) => Ok(job),
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn accepts_a_client_in_any_notation() {
        for (line, client) in [
            ("", None),
            ("10.0.0.5", Some("10.0.0.5")),
            ("--socket /s ::FFFF:10.0.0.5 --once", Some("10.0.0.5")),
            ("--json FE80:0::1", Some("fe80::1")),
            ("board-7", Some("board-7")),
        ] {
            assert_eq!(parsed(line).expect(line).client.as_deref(), client, "{line}");
        }
        assert_eq!(parsed("").expect("a job").source, Source::Socket(DEFAULT_SOCKET.into()));
        let servers = ["nas1:8080", "nas2:8080"].map(|server| server.parse().expect("an address"));
        let job = parsed("--server nas1:8080 10.0.0.5 --server=nas2:8080").expect("a job");
        assert_eq!((job.source, job.client.as_deref()), (Source::Servers(servers.into()), Some("10.0.0.5")));
        assert_eq!(parsed("--follow").expect("a job").format, Format::Events);
    }

    #[test]
    fn reports_wrong_arguments() {
        for (line, problem) in [
            ("--jsn", "`--jsn`"),
            ("10.0.0.5 10.0.0.6", "`10.0.0.6`"),
            ("--json --follow", "--json"),
            ("--csv", "--since"),
            ("--history /h", "--since"),
            ("--since 24h --json --csv", "--csv"),
            ("--since 24h --socket /s", "--since"),
            ("--since 1w", "`1w`"),
            ("--server nas:8080 --follow", "--server"),
            ("--server nas:8080 --socket /s", "--server"),
            ("--server https://nas:8080", "`https://nas:8080`"),
        ] {
            let error = parsed(line).expect_err(line);
            assert!(error.contains(problem), "{line}: {error}");
        }
    }
}
