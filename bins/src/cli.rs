//! The command line of the daemon.

use std::{ffi::OsString, ops::RangeInclusive, time::Duration};

use log::LevelFilter;
use pico_args::Arguments;
use rtftp::{
    arguments::{flag, number, path, seconds, value},
    options,
};
use rtftp_runtime::{
    server::{Capacity, Config, Limits, MAX_BLKSIZE, MAX_WINDOWSIZE},
    status::StatusSocket,
};

use crate::{check, http::Place, status};

/// The action that the command line requests.
#[derive(Debug)]
pub(crate) enum Action {
    /// Print a text and exit.
    Print(String),
    /// Check a root directory.
    Check(check::Job),
    /// Show the status of a daemon.
    Status(status::Job),
    /// Serve files.
    Serve { config: Config, status_listen: Option<Place>, log_level: LevelFilter, sandbox: bool },
}

/// Parses the arguments after the program name.
///
/// # Errors
///
/// Returns the problem with the arguments in one line.
pub(crate) fn parse(mut args: Vec<OsString>) -> Result<Action, String> {
    if args.first().is_some_and(|arg| arg == "check") {
        return check::parse(args.split_off(1));
    }
    if args.first().is_some_and(|arg| arg == "status") {
        return status::parse(args.split_off(1));
    }
    complete_monitor_option(&mut args);
    let mut args = Arguments::from_vec(args);
    if flag(&mut args, &options::HELP) {
        return Ok(Action::Print(options::RTFTP.help()));
    }
    if flag(&mut args, &options::VERSION) {
        return Ok(Action::Print(format!("rtftp {}\n", env!("CARGO_PKG_VERSION"))));
    }
    let listen_ip = value(&mut args, &options::LISTEN_IP, "an IPv4 or IPv6 address")?;
    let listen_port = number(&mut args, &options::LISTEN_PORT, 0..=u16::MAX)?;
    let root_dir = path(&mut args, &options::ROOT_DIR, "a directory")?;
    let idle_timeout = seconds(&mut args, &options::IDLE_TIMEOUT)?;
    let view_gap = Duration::from_secs(number(&mut args, &options::VIEW_GAP, 0..=1_000_000)?);
    let monitor_configs = value(&mut args, &options::MONITOR_CONFIGS, "true or false")?.unwrap_or(true);
    let limits = Limits {
        blksize: number(&mut args, &options::MAX_BLKSIZE, 8..=MAX_BLKSIZE)?,
        windowsize: number(&mut args, &options::MAX_WINDOWSIZE, 1..=MAX_WINDOWSIZE)?,
        window_bytes: number(&mut args, &options::MAX_WINDOW_BYTES, 1..=1 << 30)?,
    };
    let capacity = Capacity {
        transfers: number(&mut args, &options::MAX_TRANSFERS, 1..=1_000_000)?,
        per_client: number(&mut args, &options::MAX_PER_CLIENT, 1..=1_000_000)?,
    };
    let mtu_clamp = flag(&mut args, &options::MTU_CLAMP);
    let port_range = port_range(&mut args)?;
    let single_port = flag(&mut args, &options::SINGLE_PORT);
    if single_port && port_range.is_some() {
        return Err("--single-port and --port-range exclude each other: give only one of them".into());
    }
    let open_limit = seconds(&mut args, &options::OPEN_LIMIT)?;
    let read_limit = seconds(&mut args, &options::READ_LIMIT)?;
    let status_socket = match path(&mut args, &options::STATUS_SOCKET, "a path")? {
        None => StatusSocket::Default,
        Some(none) if none.as_os_str() == "none" => StatusSocket::Disabled,
        Some(path) => StatusSocket::At(path),
    };
    let status_listen = value(&mut args, &options::STATUS_LISTEN, "IP:PORT or PORT")?;
    let sandbox = !flag(&mut args, &options::NO_SANDBOX);
    let log_level = value(&mut args, &options::LOG_LEVEL, "error, warn, info, debug or trace")?;
    if let Some(unknown) = args.finish().first() {
        return Err(format!("unknown argument `{}`", unknown.to_string_lossy()));
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
        status_socket,
    };
    Ok(Action::Serve { config, status_listen, log_level: log_level.unwrap_or(LevelFilter::Info), sandbox })
}

/// Inserts the value `true` after a `--monitor-configs` without value, so that it parses like other options.
fn complete_monitor_option(args: &mut Vec<OsString>) {
    let is_value = |arg: &OsString| arg == "true" || arg == "false";
    if let Some(at) = args.iter().position(|arg| arg == "-m" || arg == "--monitor-configs")
        && !args.get(at + 1).is_some_and(is_value)
    {
        args.insert(at + 1, "true".into());
    }
}

/// Parses `--port-range`.
fn port_range(args: &mut Arguments) -> Result<Option<RangeInclusive<u16>>, String> {
    let expected = "two ports from 1 to 65535, the lower first, as in 50000-50999";
    let Some(text): Option<String> = value(args, &options::PORT_RANGE, expected)? else { return Ok(None) };
    let range = text.split_once('-').and_then(|(first, last)| Some(first.parse().ok()?..=last.parse().ok()?));
    match range.filter(|range| *range.start() > 0 && !range.is_empty()) {
        None => Err(format!("--port-range: expected {expected}, found `{text}`")),
        range => Ok(range),
    }
}

#[cfg(test)]
mod tests {
    use std::{net::IpAddr, path::PathBuf};

    use super::*;

    fn parsed(line: &str) -> Result<Action, String> {
        parse(line.split_whitespace().map(OsString::from).collect())
    }

    #[track_caller]
    fn config(line: &str) -> Config {
        match parsed(line) {
            Ok(Action::Serve { config, .. }) => config,
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
    }

    #[test]
    fn parses_options_of_ports_and_mtu() {
        let config = config("-r /r --mtu-clamp --port-range 50000-50000");
        assert_eq!((config.mtu_clamp, config.port_range), (true, Some(50_000..=50_000)));
        assert!(self::config("-r /r --single-port").single_port && !config.single_port);
        for value in ["", "1", "-", "1-", "-1", "0-9", "9-1", "1-65536", "1-2-3", "a-b", "1..2"] {
            let message = "--port-range: expected two ports from 1 to 65535, the lower first, as in 50000-50999";
            match parsed(&format!("-r /r --port-range={value}")) {
                Err(error) if error == format!("{message}, found `{value}`") => {}
                // An empty value after `=` is an error of the parser.
                Err(_) if value.is_empty() => {}
                other => panic!("{value}: {other:?}"),
            }
        }
    }

    #[test]
    fn parses_long_short_and_joined_options() {
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
    fn parses_monitor_configs_with_or_without_a_value() {
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
    fn reports_wrong_arguments() {
        for (line, message) in [
            ("", "--root-dir is missing: give the directory to serve"),
            ("-r /r --colour", "unknown argument `--colour`"),
            ("-r /r extra", "unknown argument `extra`"),
            ("-r /r -p 70000", "--listen-port: expected a whole number from 0 to 65535, found `70000`"),
            ("-r /r -l here", "--listen-ip: expected an IPv4 or IPv6 address, found `here`"),
            ("-r /r --status-listen here", "--status-listen: expected IP:PORT or PORT, found `here`"),
            ("-r /r -t 0", "--idle-timeout: expected a whole number from 1 to 1000000, found `0`"),
            ("-r /r -t 1.5", "--idle-timeout: expected a whole number from 1 to 1000000, found `1.5`"),
            ("-r /r -m=maybe", "--monitor-configs: expected true or false, found `maybe`"),
            ("-r /r --log-level loud", "--log-level: expected error, warn, info, debug or trace, found `loud`"),
            ("-r /r --max-blksize 7", "--max-blksize: expected a whole number from 8 to 65464, found `7`"),
            ("-r /r --max-windowsize x", "--max-windowsize: expected a whole number from 1 to 32767, found `x`"),
            (
                "-r /r --port-range 1-9 --single-port",
                "--single-port and --port-range exclude each other: give only one of them",
            ),
            ("-r /r -p", "the '-p' option doesn't have an associated value"),
        ] {
            match parsed(line) {
                Err(error) => assert_eq!(error, message, "{line}"),
                other => panic!("{line}: {other:?}"),
            }
        }
    }
}
