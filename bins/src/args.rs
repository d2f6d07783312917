//! The command line.

use std::{ffi::OsString, ops::RangeInclusive, time::Duration};

use log::LevelFilter;
use pico_args::Arguments;
use rtftp_runtime::{
    server::{Capacity, Config, Limits, MAX_BLKSIZE, MAX_WINDOWSIZE},
    status::StatusSocket,
};

use crate::{
    check,
    http::Place,
    status,
    values::{
        Names::{self, Both, Long},
        option, path, within,
    },
};

/// What `--help` prints.
const HELP: &str = "\
rtftp - a TFTP boot server that hands every machine the boot files of its own disk

Usage: rtftp --root-dir DIR [OPTIONS]
       rtftp check DIR [OPTIONS]   looks for mistakes in DIR and on its disks; see rtftp check --help
       rtftp status [CLIENT] [OPTIONS]
                            shows who boots, and where boots stopped; see rtftp status --help

For client X.X.X.X a file is looked for in DIR/X.X.X.X/, then on the disk that
DIR/X.X.X.X.nbd describes, then in DIR/default/. Before DIR/default/ the same is
done with the client's MAC address, aa-bb-cc-dd-ee-ff, and with the serial number
that a Raspberry Pi puts in front of its files, 9ffefdef.

Options:
  -r, --root-dir DIR          the directory with all of these
  -l, --listen-ip IP          listen on this address only [default: all, IPv4 and IPv6]
  -p, --listen-port PORT      listen on this UDP port; 0 takes any free one [default: 69]
  -t, --idle-timeout SECONDS  let a disk go that nobody has asked for this long [default: 60]
      --view-gap SECONDS      after this long without a request a boot is over, and the next
                              request sees its disk afresh; 0: every request does [default: 5]
  -m, --monitor-configs[=BOOL]
                              connect disks when their .nbd file appears or changes,
                              true or false [default: true]
      --max-blksize BYTES     grant no larger blocks [default: 65464]
      --mtu-clamp             grant no larger blocks than reach the client in one packet
      --max-windowsize BLOCKS grant no larger windows [default: 32767]
      --max-window-bytes BYTES
                              grant no windows of more bytes [default: 4194304]
      --max-transfers N       serve no more transfers at a time [default: 4096]
      --max-per-client N      serve no more transfers to one address [default: 128]
      --port-range A-B        serve transfers from these UDP ports only, one each [default: any]
      --single-port           serve all transfers from the port that is listened on
      --open-limit SECONDS    how long opening a disk may take in all [default: 120]
      --read-limit SECONDS    how long one answer of an open disk may take [default: 10]
      --status-socket PATH    let rtftp status and others ask at this Unix socket, or `none`
                              [default: /run/rtftp/status.sock, if that directory is there]
      --status-listen IP:PORT show the same on a web page, to everybody who can connect; a PORT
                              alone is one of 127.0.0.1 [default: nowhere]
      --no-sandbox            do not have the kernel refuse all files but those below DIR
      --log-level LEVEL       error, warn, info, debug or trace [default: info]
  -h, --help                  print this
  -V, --version               print the version
";

/// What the command line asks for.
#[derive(Debug)]
pub(crate) enum Action {
    /// Print this and leave.
    Print(String),
    /// Look for mistakes.
    Check(check::Job),
    /// Show what a daemon does.
    Status(status::Job),
    /// Serve.
    Serve { config: Config, status_listen: Option<Place>, log_level: LevelFilter, sandbox: bool },
}

/// Reads the arguments after the program's name.
///
/// # Errors
///
/// What is wrong, in one line.
pub(crate) fn parse(mut args: Vec<OsString>) -> Result<Action, String> {
    if args.first().is_some_and(|arg| arg == "check") {
        return check::parse(args.split_off(1));
    }
    if args.first().is_some_and(|arg| arg == "status") {
        return status::parse(args.split_off(1));
    }
    name_monitor_value(&mut args);
    let mut args = Arguments::from_vec(args);
    if args.contains(["-h", "--help"]) {
        return Ok(Action::Print(HELP.into()));
    }
    if args.contains(["-V", "--version"]) {
        return Ok(Action::Print(format!("rtftp {}\n", env!("CARGO_PKG_VERSION"))));
    }
    let listen_ip = option(&mut args, Both("-l", "--listen-ip"), "an IPv4 or IPv6 address")?;
    let listen_port = option(&mut args, Both("-p", "--listen-port"), "a port from 0 to 65535")?.unwrap_or(69);
    let root_dir = path(&mut args, Both("-r", "--root-dir"), "a directory")?;
    let idle_timeout = seconds(&mut args, Both("-t", "--idle-timeout"), 60)?;
    let view_gap = Duration::from_secs(within(&mut args, Long("--view-gap"), 0..=1_000_000)?.unwrap_or(5));
    let monitor_configs = option(&mut args, Both("-m", "--monitor-configs"), "true or false")?.unwrap_or(true);
    let limits = Limits {
        blksize: within(&mut args, Long("--max-blksize"), 8..=MAX_BLKSIZE)?.unwrap_or(MAX_BLKSIZE),
        windowsize: within(&mut args, Long("--max-windowsize"), 1..=MAX_WINDOWSIZE)?.unwrap_or(MAX_WINDOWSIZE),
        window_bytes: within(&mut args, Long("--max-window-bytes"), 1..=1 << 30)?.unwrap_or(4 << 20),
    };
    let capacity = Capacity {
        transfers: within(&mut args, Long("--max-transfers"), 1..=1_000_000)?.unwrap_or(4096),
        per_client: within(&mut args, Long("--max-per-client"), 1..=1_000_000)?.unwrap_or(128),
    };
    let mtu_clamp = args.contains("--mtu-clamp");
    let port_range = port_range(&mut args)?;
    let single_port = args.contains("--single-port");
    if single_port && port_range.is_some() {
        return Err("--single-port and --port-range exclude each other: leave one of them out".into());
    }
    let open_limit = seconds(&mut args, Long("--open-limit"), 120)?;
    let read_limit = seconds(&mut args, Long("--read-limit"), 10)?;
    let status_socket = match path(&mut args, Long("--status-socket"), "a path")? {
        None => StatusSocket::Default,
        Some(none) if none.as_os_str() == "none" => StatusSocket::Disabled,
        Some(path) => StatusSocket::At(path),
    };
    let status_listen = option(&mut args, Long("--status-listen"), "IP:PORT, or a port of this machine")?;
    let sandbox = !args.contains("--no-sandbox");
    let log_level = option(&mut args, Long("--log-level"), "error, warn, info, debug or trace")?;
    if let Some(unknown) = args.finish().first() {
        return Err(format!("unknown argument `{}`", unknown.to_string_lossy()));
    }
    let root_dir = root_dir.ok_or("--root-dir is missing: which directory is to be served?")?;
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

/// Gives a `--monitor-configs` that stands alone the value it means, so that it is an option with a value like the others.
fn name_monitor_value(args: &mut Vec<OsString>) {
    let is_value = |arg: &OsString| arg == "true" || arg == "false";
    if let Some(at) = args.iter().position(|arg| arg == "-m" || arg == "--monitor-configs")
        && !args.get(at + 1).is_some_and(is_value)
    {
        args.insert(at + 1, "true".into());
    }
}

/// The value of an option that is a time.
pub(crate) fn seconds(args: &mut Arguments, names: Names, default: u64) -> Result<Duration, String> {
    Ok(Duration::from_secs(within(args, names, 1..=1_000_000)?.unwrap_or(default)))
}

/// The value of `--port-range`.
fn port_range(args: &mut Arguments) -> Result<Option<RangeInclusive<u16>>, String> {
    let expected = "two ports from 1 to 65535, the lower first, as in 50000-50999";
    let Some(value): Option<String> = option(args, Long("--port-range"), expected)? else { return Ok(None) };
    let range = value.split_once('-').and_then(|(first, last)| Some(first.parse().ok()?..=last.parse().ok()?));
    match range.filter(|range| *range.start() > 0 && !range.is_empty()) {
        None => Err(format!("--port-range: expected {expected}, found `{value}`")),
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
    fn everything_but_the_root_has_a_default() {
        let config = config("--root-dir /srv/tftp");
        assert_eq!((config.listen_ip, config.listen_port), (None, 69));
        assert_eq!(config.root_dir, PathBuf::from("/srv/tftp"));
        assert_eq!(config.idle_timeout, Duration::from_secs(60));
        assert!(config.monitor_configs);
        assert_eq!((config.mtu_clamp, config.port_range), (false, None));
    }

    #[test]
    fn the_network_can_be_narrowed() {
        let config = config("-r /r --mtu-clamp --port-range 50000-50000");
        assert_eq!((config.mtu_clamp, config.port_range), (true, Some(50_000..=50_000)));
        assert!(self::config("-r /r --single-port").single_port && !config.single_port);
        for value in ["", "1", "-", "1-", "-1", "0-9", "9-1", "1-65536", "1-2-3", "a-b", "1..2"] {
            let message = "--port-range: expected two ports from 1 to 65535, the lower first, as in 50000-50999";
            match parsed(&format!("-r /r --port-range={value}")) {
                Err(error) if error == format!("{message}, found `{value}`") => {}
                // An empty value joined by `=` is none.
                Err(_) if value.is_empty() => {}
                other => panic!("{value}: {other:?}"),
            }
        }
    }

    #[test]
    fn long_short_and_joined_options_are_read() {
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
    fn monitoring_can_be_said_with_or_without_a_value() {
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
    fn the_status_socket_is_where_it_is_said_to_be() {
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
    fn mistakes_are_named() {
        for (line, message) in [
            ("", "--root-dir is missing: which directory is to be served?"),
            ("-r /r --colour", "unknown argument `--colour`"),
            ("-r /r extra", "unknown argument `extra`"),
            ("-r /r -p 70000", "--listen-port: expected a port from 0 to 65535, found `70000`"),
            ("-r /r -l here", "--listen-ip: expected an IPv4 or IPv6 address, found `here`"),
            (
                "-r /r --status-listen here",
                "--status-listen: expected IP:PORT, or a port of this machine, found `here`",
            ),
            ("-r /r -t 0", "--idle-timeout: expected a whole number from 1 to 1000000, found `0`"),
            ("-r /r -t 1.5", "--idle-timeout: expected a whole number from 1 to 1000000, found `1.5`"),
            ("-r /r -m=maybe", "--monitor-configs: expected true or false, found `maybe`"),
            ("-r /r --log-level loud", "--log-level: expected error, warn, info, debug or trace, found `loud`"),
            ("-r /r --max-blksize 7", "--max-blksize: expected a whole number from 8 to 65464, found `7`"),
            ("-r /r --max-windowsize x", "--max-windowsize: expected a whole number from 1 to 32767, found `x`"),
            (
                "-r /r --port-range 1-9 --single-port",
                "--single-port and --port-range exclude each other: leave one of them out",
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
