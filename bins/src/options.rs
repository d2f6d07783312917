//! The options of all commands, declared once.
//!
//! `--help`, the shell completions and the tables in README.md are made from these tables; the manual pages are checked against them.
//! After a change, `UPDATE_OPTIONS=1 cargo test -p rtftp --lib options` rewrites completions and README, and names the entries of
//! manual pages that differ.

mod help;
#[cfg(test)]
mod outputs;

/// A command with its options.
#[derive(Debug)]
pub struct Command {
    /// The words that invoke it, such as `rtftp check`.
    pub name: &'static str,
    /// What it does, in one line.
    pub summary: &'static str,
    /// The arguments of each form of invocation.
    pub usage: &'static [&'static str],
    /// The paragraphs of `--help` before the options.
    pub description: &'static str,
    /// The options in the order of `--help`.
    pub options: &'static [Opt],
    /// The paragraphs of `--help` after the options.
    pub notes: &'static str,
}

/// An option of a command.
#[derive(Debug, Clone, Copy)]
pub struct Opt {
    /// The short form, such as `-r`.
    pub short: Option<&'static str>,
    /// The long form, such as `--root-dir`.
    pub long: &'static str,
    /// The value.
    pub value: Value,
    /// What the option does, in one sentence without capital and full stop.
    pub help: &'static str,
    /// The default as text; empty if there is none.
    pub default: &'static str,
}

/// The value of an option. The text is its name in `--help`.
#[derive(Debug, Clone, Copy)]
pub enum Value {
    /// No value.
    None,
    /// Any text.
    Text(&'static str),
    /// The path of a file.
    File(&'static str),
    /// The path of a directory.
    Directory(&'static str),
    /// One of these words.
    OneOf(&'static str, &'static [&'static str]),
    /// `true` or `false`; the option without a value means `true`.
    OptionalBool(&'static str),
}

impl Value {
    /// Returns the name of the value, if there is one.
    pub fn name(self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::Text(name)
            | Self::File(name)
            | Self::Directory(name)
            | Self::OneOf(name, _)
            | Self::OptionalBool(name) => Some(name),
        }
    }
}

/// Declares an option without default.
const fn option(short: Option<&'static str>, long: &'static str, value: Value, help: &'static str) -> Opt {
    Opt { short, long, value, help, default: "" }
}

/// Declares an option with a default.
const fn with_default(default: &'static str, opt: Opt) -> Opt {
    Opt { default, ..opt }
}

/// `--root-dir` of the daemon.
pub const ROOT_DIR: Opt = option(
    Some("-r"),
    "--root-dir",
    Value::Directory("DIR"),
    "directory with client directories, .nbd files and default/",
);
/// `--listen-ip`
pub const LISTEN_IP: Opt = with_default(
    "all addresses, IPv4 and IPv6",
    option(Some("-l"), "--listen-ip", Value::Text("IP"), "listen on this address only"),
);
/// `--listen-port`
pub const LISTEN_PORT: Opt = with_default(
    "69",
    option(
        Some("-p"),
        "--listen-port",
        Value::Text("PORT"),
        "listen on this UDP port; 0 selects a free port, which the log reports",
    ),
);
/// `--idle-timeout`
pub const IDLE_TIMEOUT: Opt = with_default(
    "60",
    option(Some("-t"), "--idle-timeout", Value::Text("SECONDS"), "disconnect a disk after SECONDS without a request"),
);
/// `--view-gap`
pub const VIEW_GAP: Opt = with_default(
    "5",
    option(
        None,
        "--view-gap",
        Value::Text("SECONDS"),
        "end a boot after SECONDS without a request: the next request reads the disk anew; with 0, each request does",
    ),
);
/// `--monitor-configs`
pub const MONITOR_CONFIGS: Opt = with_default(
    "true",
    option(
        Some("-m"),
        "--monitor-configs",
        Value::OptionalBool("BOOL"),
        "connect a disk when its .nbd file appears or changes",
    ),
);
/// `--max-blksize`
pub const MAX_BLKSIZE: Opt =
    with_default("65464", option(None, "--max-blksize", Value::Text("BYTES"), "largest block size to grant"));
/// `--mtu-clamp`
pub const MTU_CLAMP: Opt =
    option(None, "--mtu-clamp", Value::None, "grant no block size above the path MTU that the kernel knows");
/// `--max-windowsize`
pub const MAX_WINDOWSIZE: Opt =
    with_default("32767", option(None, "--max-windowsize", Value::Text("BLOCKS"), "largest window size to grant"));
/// `--max-window-bytes`
pub const MAX_WINDOW_BYTES: Opt = with_default(
    "4194304",
    option(None, "--max-window-bytes", Value::Text("BYTES"), "largest window to grant, in bytes"),
);
/// `--max-transfers`
pub const MAX_TRANSFERS: Opt =
    with_default("4096", option(None, "--max-transfers", Value::Text("N"), "largest number of concurrent transfers"));
/// `--max-per-client`
pub const MAX_PER_CLIENT: Opt = with_default(
    "128",
    option(None, "--max-per-client", Value::Text("N"), "largest number of concurrent transfers to one address"),
);
/// `--port-range`
pub const PORT_RANGE: Opt = with_default(
    "any",
    option(
        None,
        "--port-range",
        Value::Text("A-B"),
        "serve transfers from these UDP ports, one port each; while all are in use, requests get no answer and clients repeat them",
    ),
);
/// `--single-port`
pub const SINGLE_PORT: Opt = option(
    None,
    "--single-port",
    Value::None,
    "serve all transfers from the listening port, for NAT, firewalls and container networks that drop answers from other ports",
);
/// `--open-limit`
pub const OPEN_LIMIT: Opt =
    with_default("120", option(None, "--open-limit", Value::Text("SECONDS"), "time limit for opening a disk"));
/// `--read-limit`
pub const READ_LIMIT: Opt = with_default(
    "10",
    option(None, "--read-limit", Value::Text("SECONDS"), "time limit for one answer of an open disk"),
);
/// `--status-socket`
pub const STATUS_SOCKET: Opt = with_default(
    "/run/rtftp/status.sock, if that directory exists",
    option(
        None,
        "--status-socket",
        Value::File("PATH"),
        "Unix socket for rtftp status and other programs; none disables it",
    ),
);
/// `--status-listen`
pub const STATUS_LISTEN: Opt = with_default(
    "off",
    option(
        None,
        "--status-listen",
        Value::Text("IP:PORT"),
        "serve the status page at this address, without a password; a PORT alone means 127.0.0.1",
    ),
);
/// `--no-sandbox`
pub const NO_SANDBOX: Opt = option(None, "--no-sandbox", Value::None, "disable the Landlock sandbox");
/// `--log-level`
pub const LOG_LEVEL: Opt = with_default(
    "info",
    option(
        None,
        "--log-level",
        Value::OneOf("LEVEL", &["error", "warn", "info", "debug", "trace"]),
        "log messages of this level and above: error, warn, info, debug or trace",
    ),
);
/// `--help`
pub const HELP: Opt = option(Some("-h"), "--help", Value::None, "print this help");
/// `--version`
pub const VERSION: Opt = option(Some("-V"), "--version", Value::None, "print the version");

/// `--root-dir` of the check.
pub const CHECK_ROOT_DIR: Opt =
    option(Some("-r"), "--root-dir", Value::Directory("DIR"), "the same as the operand DIR");
/// `--json` of the check.
pub const CHECK_JSON: Opt = option(None, "--json", Value::None, "print one JSON document");

/// `--socket`
pub const SOCKET: Opt =
    with_default("/run/rtftp/status.sock", option(None, "--socket", Value::File("PATH"), "socket of the daemon"));
/// `--once`
pub const ONCE: Opt = option(None, "--once", Value::None, "print the status once");
/// `--json` of the status.
pub const JSON: Opt = option(None, "--json", Value::None, "print the status as JSON");
/// `--follow`
pub const FOLLOW: Opt = option(None, "--follow", Value::None, "print each completed request as a line of JSON");

/// `--output`
pub const OUTPUT: Opt = with_default(
    "the last name of FILE, in this directory",
    option(Some("-o"), "--output", Value::File("OUT"), "write to this file; - means standard output"),
);
/// `--blksize`
pub const BLKSIZE: Opt =
    with_default("1428", option(None, "--blksize", Value::Text("BYTES"), "request this block size, 8 to 65464"));
/// `--windowsize`
pub const WINDOWSIZE: Opt =
    with_default("16", option(None, "--windowsize", Value::Text("BLOCKS"), "request this window size"));
/// `--timeout`
pub const TIMEOUT: Opt = with_default(
    "not requested",
    option(None, "--timeout", Value::Text("SECONDS"), "request this retransmission timeout of the server, 1 to 255"),
);
/// `--no-options`
pub const NO_OPTIONS: Opt = option(None, "--no-options", Value::None, "request no options, as in RFC 1350");
/// `--patience`
pub const PATIENCE: Opt =
    with_default("60", option(None, "--patience", Value::Text("SECONDS"), "give up after SECONDS without an answer"));
/// `--verify`
pub const VERIFY: Opt =
    option(None, "--verify", Value::File("LOCAL"), "compare with a local file; writes a file only if -o is given");
/// `--trace`
pub const TRACE: Opt = option(None, "--trace", Value::None, "print each packet with the time since the start");
/// `--quiet`
pub const QUIET: Opt = option(Some("-q"), "--quiet", Value::None, "print errors only");

/// The daemon.
pub const RTFTP: Command = Command {
    name: "rtftp",
    summary: "TFTP boot server that reads each machine's boot files from its own disk",
    usage: &["--root-dir DIR [OPTIONS]", "check DIR [OPTIONS]", "status [CLIENT] [OPTIONS]"],
    description: "\
For client X.X.X.X, rtftp looks for a file in DIR/X.X.X.X/, then on the disk that DIR/X.X.X.X.nbd
describes, then in DIR/default/. Before DIR/default/, it does the same with the MAC address of the
client, aa-bb-cc-dd-ee-ff, and with the serial number that a Raspberry Pi prefixes to its paths,
9ffefdef.

`rtftp check` checks DIR and its disks, `rtftp status` shows the boots of a running daemon; each has
its own --help.
",
    options: &[
        ROOT_DIR,
        LISTEN_IP,
        LISTEN_PORT,
        IDLE_TIMEOUT,
        VIEW_GAP,
        MONITOR_CONFIGS,
        MAX_BLKSIZE,
        MTU_CLAMP,
        MAX_WINDOWSIZE,
        MAX_WINDOW_BYTES,
        MAX_TRANSFERS,
        MAX_PER_CLIENT,
        PORT_RANGE,
        SINGLE_PORT,
        OPEN_LIMIT,
        READ_LIMIT,
        NO_SANDBOX,
        STATUS_SOCKET,
        STATUS_LISTEN,
        LOG_LEVEL,
        HELP,
        VERSION,
    ],
    notes: "",
};

/// `rtftp check`
pub const CHECK: Command = Command {
    name: "rtftp check",
    summary: "checks a root directory and the disks that it describes",
    usage: &["DIR [OPTIONS]"],
    description: "\
Reads each .nbd file in DIR as the daemon does, connects to its disk, and prints a line with the
partitions, the mounts and the backend, the number of files that the client can read, the most
likely kernel, and the partitions in use (mounted elsewhere, or not unmounted cleanly). A line for
each problem follows. The check writes nothing and does not disturb a running daemon.
",
    options: &[CHECK_ROOT_DIR, CHECK_JSON, OPEN_LIMIT, READ_LIMIT, HELP],
    notes: "Exit codes: 0 without problems, 1 with problems, 2 for wrong arguments.\n",
};

/// `rtftp status`
pub const STATUS: Command = Command {
    name: "rtftp status",
    summary: "shows the boots of a running daemon, and where they stopped",
    usage: &["[CLIENT] [OPTIONS]"],
    description: "\
Prints a line for each client and one for each running transfer: every second on a terminal,
otherwise once. For a CLIENT, prints its last boots file by file.
",
    options: &[SOCKET, ONCE, JSON, FOLLOW, HELP],
    notes: "",
};

/// `rtftp-get`
pub const GET: Command = Command {
    name: "rtftp-get",
    summary: "fetches a complete file from a TFTP server",
    usage: &["HOST[:PORT] FILE [OPTIONS]"],
    description: "\
HOST is a name or an address; an IPv6 address with a port is in brackets, [fe80::1%eth0]:6969. The
default of PORT is 69.
",
    options: &[OUTPUT, BLKSIZE, WINDOWSIZE, TIMEOUT, NO_OPTIONS, PATIENCE, VERIFY, TRACE, QUIET, HELP, VERSION],
    notes: "\
Progress (on a terminal) and all other messages go to standard error.

Exit codes:
  0    the file was fetched, and is equal if compared
  1    the server refused with an ERROR
  2    wrong arguments
  3    no answer, the transfer broke off, or the server violated the protocol
  4    OUT cannot be written, or LOCAL cannot be read
  5    LOCAL differs
  130  interrupted
",
};
