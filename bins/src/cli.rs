//! The command line of the daemon, and the choice of its subcommand.

use std::{ffi::OsString, fmt, iter, ops::RangeInclusive, path::PathBuf, time::Duration};

use log::LevelFilter;
use rtftp_runtime::{
    hostnames::HostnameFiles,
    http::TlsFiles,
    server::{Capacity, Config, Limits, MAX_BLKSIZE, MAX_WINDOWSIZE},
    status::StatusSocket,
};

use crate::{
    check::{self, SECONDS},
    http::{self, HttpOptions},
    parser::{Parsed, Parser, unknown_argument},
    status,
    status_page::ListenAddress,
};

/// The longest time in seconds that running transfers can have to complete.
const MAX_STOP_GRACE: u64 = 3600;

/// The action that a command line requests.
#[derive(Debug)]
pub(crate) enum Action {
    /// Prints a text and exits.
    Print(String),
    /// Checks a root directory.
    Check(check::Job),
    /// Shows the status of a running daemon.
    Status(status::Job),
    /// Runs the daemon.
    Serve(Box<Serve>),
}

/// The arguments of the daemon.
#[derive(Debug)]
pub(crate) struct Serve {
    pub(crate) config: Config,
    pub(crate) http: HttpOptions,
    pub(crate) status_listen: Option<ListenAddress>,
    pub(crate) status_peers: Vec<status::Server>,
    pub(crate) stop_grace: Duration,
    pub(crate) log_level: LevelFilter,
    pub(crate) sandbox: bool,
    pub(crate) allow_read: Option<PathBuf>,
}

/// A problem with the arguments of a command.
#[derive(Debug)]
pub(crate) struct UsageError {
    /// The program and its subcommand.
    command: &'static str,
    /// The problem in one line.
    problem: String,
}

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\nTry `{} --help`.", self.problem, self.command)
    }
}

/// Parses the arguments after the name of the program.
///
/// # Errors
///
/// Returns the problem with the arguments.
pub(crate) fn parse(mut args: Vec<OsString>) -> Result<Action, UsageError> {
    let (command, action) = match args.first().and_then(|first| first.to_str()) {
        Some("check") => ("rtftp check", check::parse(args.split_off(1)).map(|job| action(job, Action::Check))),
        Some("status") => ("rtftp status", status::parse(args.split_off(1)).map(|job| action(job, Action::Status))),
        _ => ("rtftp", parse_serve(args)),
    };
    action.map_err(|problem| UsageError { command, problem })
}

/// Returns the action of a subcommand.
fn action<T>(parsed: Parsed<T>, run: impl FnOnce(T) -> Action) -> Action {
    match parsed {
        Parsed::Print(text) => Action::Print(text),
        Parsed::Run(job) => run(job),
    }
}

/// Parses the arguments of the daemon.
fn parse_serve(mut args: Vec<OsString>) -> Result<Action, String> {
    complete_monitor_configs(&mut args);
    let mut parser = Parser::new("rtftp", args);
    if let Some(text) = parser.help_or_version() {
        return Ok(Action::Print(text));
    }
    let listen_ip = parser.value("--listen-ip", "an IPv4 or IPv6 address")?;
    let listen_port = parser.value_or_default("--listen-port", "a port from 0 to 65535")?;
    let root_dir = parser.path("--root-dir")?;
    let idle_timeout = parser.seconds("--idle-timeout", SECONDS)?;
    let view_gap = parser.seconds("--view-gap", 0..=*SECONDS.end())?;
    let monitor_configs = parser.value_or_default("--monitor-configs", "true or false")?;
    let limits = Limits {
        blksize: parser.number("--max-blksize", 8..=MAX_BLKSIZE)?,
        windowsize: parser.number("--max-windowsize", 1..=MAX_WINDOWSIZE)?,
        window_bytes: parser.number("--max-window-bytes", 1..=1 << 30)?,
    };
    let capacity = Capacity {
        transfers: parser.number("--max-transfers", 1..=1_000_000)?,
        per_client: parser.number("--max-per-client", 1..=1_000_000)?,
    };
    let mtu_clamp = parser.flag("--mtu-clamp");
    let port_range = port_range(&mut parser)?;
    let single_port = parser.flag("--single-port");
    if single_port && port_range.is_some() {
        return Err("--single-port and --port-range cannot be combined".into());
    }
    let open_limit = parser.seconds("--open-limit", SECONDS)?;
    let read_limit = parser.seconds("--read-limit", SECONDS)?;
    let disk_memory = parser.number::<usize>("--disk-memory", 16..=1 << 20)? << 20;
    let hostname_files = HostnameFiles { leases: parser.path("--leases")?, ethers: parser.path("--ethers")? };
    let status_socket = match parser.path("--status-socket")? {
        None => StatusSocket::Default,
        Some(none) if none.as_os_str() == "none" => StatusSocket::Disabled,
        Some(path) => StatusSocket::At(path),
    };
    let status_listen = parser.value("--status-listen", "IP:PORT or PORT")?;
    let history_dir = parser.path("--history")?;
    let status_peers = iter::from_fn(|| parser.value("--status-peer", "HOST:PORT or http://HOST:PORT").transpose());
    let status_peers: Vec<status::Server> = status_peers.collect::<Result<_, _>>()?;
    if !status_peers.is_empty() && status_listen.is_none() {
        return Err("--status-peer needs --status-listen".into());
    }
    let http = HttpOptions {
        listen: parser.value("--http", "IP:PORT or PORT")?,
        tls: tls(&mut parser)?,
        prefix: parser.value("--http-prefix", "a path")?.unwrap_or_default(),
    };
    let stop_grace = parser.seconds("--stop-grace", 0..=MAX_STOP_GRACE)?;
    let sandbox = !parser.flag("--no-sandbox");
    let allow_read = parser.path("--allow-read")?;
    let log_level = parser.value_or_default("--log-level", "error, warn, info, debug or trace")?;
    if let Some(unknown) = parser.operands()?.first() {
        return Err(unknown_argument(unknown));
    }
    let root_dir = root_dir.ok_or("--root-dir is missing: give the directory to serve")?;
    let config = Config {
        listen_ip,
        listen_port,
        root_dir,
        idle_timeout,
        view_gap,
        monitor_configs,
        limits,
        mtu_clamp,
        port_range,
        single_port,
        capacity,
        open_limit,
        read_limit,
        disk_memory,
        hostname_files,
        status_socket,
        history_dir,
        http: None,
    };
    Ok(Action::Serve(Box::new(Serve {
        config,
        http,
        status_listen,
        status_peers,
        stop_grace,
        log_level,
        sandbox,
        allow_read,
    })))
}

/// Inserts the value `true` after a `--monitor-configs` without a value, since pico-args has no optional values.
fn complete_monitor_configs(args: &mut Vec<OsString>) {
    let is_value = |arg: &OsString| arg == "true" || arg == "false";
    if let Some(at) = args.iter().position(|arg| arg == "-m" || arg == "--monitor-configs")
        && !args.get(at + 1).is_some_and(is_value)
    {
        args.insert(at + 1, "true".into());
    }
}

/// Returns the values of `--https` and of the options that it needs.
fn tls(parser: &mut Parser) -> Result<Option<(http::ListenAddress, TlsFiles)>, String> {
    let address = parser.value("--https", "IP:PORT or PORT")?;
    match (address, parser.path("--tls-certificate")?, parser.path("--tls-key")?) {
        (Some(address), Some(certificate), Some(key)) => Ok(Some((address, TlsFiles { certificate, key }))),
        (None, None, None) => Ok(None),
        (Some(_), ..) => Err("--https needs --tls-certificate and --tls-key".into()),
        (None, ..) => Err("--tls-certificate and --tls-key need --https".into()),
    }
}

/// Returns the value of `--port-range`.
fn port_range(parser: &mut Parser) -> Result<Option<RangeInclusive<u16>>, String> {
    let expected = "two ports from 1 to 65535, the lower first, as in 50000-50999";
    let Some(value) = parser.value::<String>("--port-range", expected)? else { return Ok(None) };
    let range = value.split_once('-').and_then(|(first, last)| Some(first.parse().ok()?..=last.parse().ok()?));
    match range.filter(|range| *range.start() > 0 && !range.is_empty()) {
        None => Err(format!("--port-range: expected {expected}, found `{value}`")),
        range => Ok(range),
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn parsed(line: &str) -> Result<Action, UsageError> {
        parse(line.split_whitespace().map(OsString::from).collect())
    }

    #[track_caller]
    fn config(line: &str) -> Config {
        match parsed(line) {
            Ok(Action::Serve(serve)) => serve.config,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn only_the_root_directory_is_required() {
        let config = config("--root-dir /srv/tftp");
        assert_eq!((config.listen_ip, config.listen_port), (None, 69));
        assert_eq!(config.root_dir, PathBuf::from("/srv/tftp"));
        assert_eq!(config.idle_timeout, Duration::from_secs(60));
        assert!(config.monitor_configs);
        assert_eq!((config.mtu_clamp, config.port_range), (false, None));
        assert_eq!(config.disk_memory, 256 << 20);
    }

    #[test]
    fn parses_ports_and_mtu_clamp() {
        let config = config("-r /r --mtu-clamp --port-range 50000-50000");
        assert_eq!((config.mtu_clamp, config.port_range), (true, Some(50_000..=50_000)));
        assert!(self::config("-r /r --single-port").single_port && !config.single_port);
        for value in ["", "1", "-", "1-", "-1", "0-9", "9-1", "1-65536", "1-2-3", "a-b", "1..2"] {
            let message = "--port-range: expected two ports from 1 to 65535, the lower first, as in 50000-50999";
            match parsed(&format!("-r /r --port-range={value}")) {
                Err(error) if error.problem == format!("{message}, found `{value}`") => {}
                // pico-args takes an empty value after `=` for a missing one.
                Err(_) if value.is_empty() => {}
                other => panic!("{value}: {other:?}"),
            }
        }
    }

    #[test]
    fn accepts_long_short_and_joined_options() {
        for line in [
            "--listen-ip 10.0.0.1 --listen-port 6969 --root-dir /r --idle-timeout 5 --monitor-configs false",
            "-l 10.0.0.1 -p 6969 -r /r -t 5 -m false",
            "-m=false -t=5 -r=/r -p=6969 -l=10.0.0.1",
            "--monitor-configs=false --idle-timeout=5 --root-dir=/r --listen-port=6969 --listen-ip=10.0.0.1",
        ] {
            let config = config(line);
            assert_eq!(config.listen_ip, Some(IpAddr::from([10, 0, 0, 1])), "{line}");
            assert_eq!((config.listen_port, config.monitor_configs), (6969, false), "{line}");
            assert_eq!((config.root_dir, config.idle_timeout), (PathBuf::from("/r"), Duration::from_secs(5)), "{line}");
        }
    }

    #[test]
    fn the_value_of_monitor_configs_is_optional() {
        for (line, monitor) in [
            ("-r /r -m", true),
            ("-m -r /r", true),
            ("--monitor-configs -r /r", true),
            ("--monitor-configs true -r /r", true),
            ("--monitor-configs=true -r /r", true),
            ("-r /r -m false", false),
        ] {
            assert_eq!(config(line).monitor_configs, monitor, "{line}");
        }
    }

    #[test]
    fn parses_the_status_socket() {
        for (line, socket) in [
            ("-r /r", StatusSocket::Default),
            ("-r /r --status-socket none", StatusSocket::Disabled),
            ("-r /r --status-socket /s", StatusSocket::At("/s".into())),
            ("-r /r --status-socket=./none", StatusSocket::At("./none".into())),
        ] {
            assert_eq!(config(line).status_socket, socket, "{line}");
        }
    }

    #[test]
    fn points_to_the_help_of_the_command() {
        for (line, command) in
            [("-r /r --colour", "rtftp"), ("check /r --colour", "rtftp check"), ("status --colour", "rtftp status")]
        {
            let error = parsed(line).expect_err(line).to_string();
            assert_eq!(error, format!("unknown argument `--colour`\nTry `{command} --help`."), "{line}");
        }
    }

    #[test]
    fn reports_wrong_arguments() {
        for (line, message) in [
            ("", "--root-dir is missing: give the directory to serve"),
            ("-r /r --colour", "unknown argument `--colour`"),
            ("-r /r extra", "unknown argument `extra`"),
            ("-r /r -p 70000", "--listen-port: expected a port from 0 to 65535, found `70000`"),
            ("-r /r -l here", "--listen-ip: expected an IPv4 or IPv6 address, found `here`"),
            ("-r /r --status-listen here", "--status-listen: expected IP:PORT or PORT, found `here`"),
            ("-r /r -t 0", "--idle-timeout: expected a whole number from 1 to 1000000, found `0`"),
            ("-r /r -t 1.5", "--idle-timeout: expected a whole number from 1 to 1000000, found `1.5`"),
            ("-r /r -m=maybe", "--monitor-configs: expected true or false, found `maybe`"),
            ("-r /r --log-level loud", "--log-level: expected error, warn, info, debug or trace, found `loud`"),
            ("-r /r --max-blksize 7", "--max-blksize: expected a whole number from 8 to 65464, found `7`"),
            ("-r /r --max-windowsize x", "--max-windowsize: expected a whole number from 1 to 32767, found `x`"),
            ("-r /r --stop-grace 3601", "--stop-grace: expected a whole number from 0 to 3600, found `3601`"),
            ("-r /r --disk-memory 15", "--disk-memory: expected a whole number from 16 to 1048576, found `15`"),
            ("-r /r --port-range 1-9 --single-port", "--single-port and --port-range cannot be combined"),
            ("-r /r --https 443 --tls-key k", "--https needs --tls-certificate and --tls-key"),
            ("-r /r --tls-certificate c --tls-key k", "--tls-certificate and --tls-key need --https"),
            ("-r /r -p", "the '-p' option doesn't have an associated value"),
        ] {
            match parsed(line) {
                Err(error) => assert_eq!(error.problem, message, "{line}"),
                other => panic!("{line}: {other:?}"),
            }
        }
    }
}
