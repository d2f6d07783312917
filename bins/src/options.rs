//! The options of all commands, in one table.
//!
//! `command.rs` makes `--help` from this table. The shell completions, the option tables of the manual pages and those of README.md are
//! generated from it by the tests in `reference.rs`.

use crate::command::{Command, Completion, Flag, flag, option};

const HELP: Flag = flag("--help", "print this help").short("-h");
const VERSION: Flag = flag("--version", "print the version").short("-V");
const OPEN_LIMIT: Flag = option("--open-limit", "SECONDS", "time limit for opening a disk").default("120");
const READ_LIMIT: Flag = option("--read-limit", "SECONDS", "time limit for each answer of an open disk").default("10");

/// The commands of all programs.
pub(crate) static COMMANDS: [Command; 5] = [
    Command {
        name: "rtftp",
        before: "\
rtftp - TFTP boot server that reads the boot files of each machine from its own disk

Usage: rtftp --root-dir DIR [OPTIONS]
       rtftp check DIR [OPTIONS]         check DIR and the disks that it describes
       rtftp status [CLIENT] [OPTIONS]   show the boots that a running server serves

For client X.X.X.X a file is searched in DIR/X.X.X.X/, then on the disk that
DIR/X.X.X.X.nbd describes, then in DIR/default/. Before DIR/default/, the
client's MAC address (aa-bb-cc-dd-ee-ff) and the serial number in the paths of
a Raspberry Pi (9ffefdef) are tried in the same way, then the disks that files
for many boards describe: DIR/10.0.0.0_24.nbd for a network, DIR/default.nbd for
all.
",
        options: &[
            option("--root-dir", "DIR", "the directory to serve").short("-r").completes(Completion::Directory),
            option("--listen-ip", "IP", "listen on this address only").short("-l").default("all, IPv4 and IPv6"),
            option("--listen-port", "PORT", "listen on this UDP port; 0 selects a free one")
                .short("-p")
                .default("69")
                .details("Ports below 1024 need the capability `CAP_NET_BIND_SERVICE`. The log shows the selected port."),
            option("--idle-timeout", "SECONDS", "disconnect a disk after SECONDS without a request")
                .short("-t")
                .default("60"),
            option("--view-gap", "SECONDS", "take a new snapshot of a disk after SECONDS without a request")
                .default("5")
                .details("All files of a boot come from one snapshot. With 0, each request takes a new snapshot."),
            option("--monitor-configs", "[=BOOL]", "connect a disk when its `.nbd` file appears or changes")
                .short("-m")
                .default("true")
                .details("With `false`, a disk is connected at the first request of its client.")
                .completes(Completion::OneOf("true false")),
            option("--max-blksize", "BYTES", "limit the block size").default("65464"),
            flag("--mtu-clamp", "limit the block size to the MTU of the route to the client")
                .details("The kernel's routing table and its path MTU cache are used."),
            option("--max-windowsize", "BLOCKS", "limit the window size in blocks").default("32767"),
            option("--max-window-bytes", "BYTES", "limit the window size in bytes").default("4194304"),
            option("--max-transfers", "N", "limit the number of concurrent transfers").default("4096"),
            option("--max-per-client", "N", "limit the number of concurrent transfers of one address").default("128"),
            option("--port-range", "A-B", "use only these UDP ports for transfers, one for each")
                .default("any")
                .details("While all ports are in use, new requests get no answer and clients retry."),
            flag("--single-port", "serve all transfers from the listening port, for networks that drop replies from other ports")
                .details(
                    "RFC 1350 gives each transfer its own port, which protects running transfers from a flood of requests \
                     and spreads them over several processors. On the listening port windows have at most 128 KiB. \
                     Cannot be combined with `--port-range`.",
                ),
            OPEN_LIMIT,
            READ_LIMIT,
            option("--disk-memory", "MIB", "limit the memory for what is read from all disks")
                .default("256")
                .details(
                    "One disk can use a quarter of it. If memory is short, files are read in smaller pieces, and disks that \
                     are not in use lose their caches; a request for which even that does not suffice gets the ERROR \
                     \"the server is short of memory, try again\". Virtual machines of libguestfs are not counted.",
                ),
            option("--leases", "FILE", "take `{hostname}` in `.nbd` files from these leases of dnsmasq")
                .default("none")
                .details(
                    "FILE is read again when it changes. Boards choose the names in leases themselves, unless the DHCP server assigns \
                     them.",
                )
                .completes(Completion::File),
            option("--ethers", "FILE", "take `{hostname}` from this file with MAC addresses and names, as `/etc/ethers`")
                .default("none")
                .details("Its names go before those of `--leases`. FILE is read again when it changes.")
                .completes(Completion::File),
            option("--status-socket", "PATH", "provide the status at this Unix socket; `none` disables it")
                .default("`/run/rtftp/status.sock`, if its directory is writable")
                .completes(Completion::File),
            option("--status-listen", "IP:PORT", "serve the status over HTTP; PORT alone listens on 127.0.0.1")
                .default("off")
                .details(
                    "Everyone who can connect sees the page at `/`, the history as JSON at `/boots.json`, and metrics for \
                     Prometheus at `/metrics`. `/healthz` and `/readyz` are for probes.",
                ),
            option("--history", "DIR", "record the boots in DIR, so that the status knows them after a restart")
                .default("off")
                .details(
                    "DIR must exist, and is used by this server only. The recorded boots have at most 72 MiB; after that, those recorded first \
                     are removed. `rtftp status --since` lists them. If DIR cannot be written, boots are served without being recorded.",
                )
                .completes(Completion::Directory),
            option("--status-peer", "HOST:PORT", "show the boards of the server with this `--status-listen` on the page, too")
                .default("none")
                .details(
                    "For each further server, the option is repeated. The page names the server of each boot, and the servers \
                     that do not reply. What they reply is limited in size and time, and not trusted.",
                ),
            option("--http", "IP:PORT", "serve the files over HTTP, too; PORT alone listens on all addresses")
                .default("off")
                .details(
                    "For UEFI HTTP boot, iPXE, GRUB and others. A client gets the same files as over TFTP. The log shows the \
                     selected port if PORT is 0.",
                ),
            option("--http-prefix", "PATH", "remove PATH from the start of the paths of HTTP requests")
                .default("none")
                .details("A path without it is used as it is."),
            option("--https", "IP:PORT", "serve the files over HTTPS, too; PORT alone listens on all addresses")
                .default("off")
                .details("Needs `--tls-certificate` and `--tls-key`. The protocol is TLS 1.2 or 1.3."),
            option("--tls-certificate", "FILE", "the server's certificate in the PEM format, followed by intermediate ones")
                .completes(Completion::File)
                .details("SIGHUP reads it and its key again. If they are not valid, those read before stay in use."),
            option("--tls-key", "FILE", "the key of the certificate in the PEM format, not encrypted")
                .completes(Completion::File),
            option("--stop-grace", "SECONDS", "let running transfers complete for SECONDS after SIGTERM")
                .default("3")
                .details(
                    "Requests are not received any more in that time; on a socket of systemd they wait for the next start of the \
                     daemon. A second SIGTERM aborts the transfers.",
                ),
            option("--allow-read", "DIR", "let the sandbox read files below DIR, too")
                .default("none")
                .details(
                    "For a `--root-dir` that is a symbolic link to a directory in DIR: it can then be exchanged for a link to another \
                     one, which is served at once. Clients get no other files than without this option.",
                )
                .completes(Completion::Directory),
            flag("--no-sandbox", "disable the Landlock sandbox"),
            option("--log-level", "LEVEL", "log level: `error`, `warn`, `info`, `debug` or `trace`")
                .default("info")
                .details("At `info` there is one line for each transfer and for each event of a disk.")
                .completes(Completion::OneOf("error warn info debug trace")),
            HELP,
            VERSION,
        ],
        after: "",
    },
    Command {
        name: "rtftp check",
        before: "\
rtftp check - checks a root directory and the disks that it describes

Usage: rtftp check DIR [OPTIONS]

Reads each .nbd file in DIR as the server does, connects to its disk, and prints
a line with the partitions, the mounts and the backend, the number of files that
the client can read, the most likely kernel, and the partitions in use (mounted
elsewhere, or not unmounted cleanly). A line for each problem follows. The check
writes nothing and does not disturb a running server.
",
        options: &[
            option("--root-dir", "DIR", "the same as the operand DIR").short("-r").completes(Completion::Directory),
            flag("--json", "print one JSON document instead"),
            option("--http", "IP:PORT", "show the URLs of a server with this `--http`").default("none").details(
                "For each kernel the URL and the media type are shown. A client gets the same files as over TFTP. If no IP is \
                 given, `SERVER` stands for the address.",
            ),
            option("--https", "IP:PORT", "the same for `--https`").default("none"),
            option("--http-prefix", "PATH", "the same for `--http-prefix`").default("none"),
            OPEN_LIMIT.details("The time limit for connecting to the NBD server is at most 5 seconds."),
            READ_LIMIT,
            HELP,
        ],
        after: "\nExit code 0 without problems, 1 with problems, 2 for wrong arguments.\n",
    },
    Command {
        name: "rtftp status",
        before: "\
rtftp status - shows the boots that a running server serves

Usage: rtftp status [CLIENT] [OPTIONS]

Prints a line for each client and for each running transfer, first those of
clients with problems. For a CLIENT, prints its last boots file by file. On a
terminal the output is updated every second, with clients in the order of their
addresses: arrows select one, Enter shows its boots, / searches, f shows only those
that failed, stalled or miss a file, Escape goes back, q quits. With --once all of
it is shown once, through less(1) if it is long. NO_COLOR disables colours.
",
        options: &[
            option("--socket", "PATH", "the Unix socket of the server")
                .default("`/run/rtftp/status.sock`")
                .completes(Completion::File),
            option("--server", "HOST:PORT", "show the server whose status page has this address; several are shown as one")
                .default("none")
                .details(
                    "Each client is shown once, with the server that answered it. A server that does not answer is named, and the others \
                     are shown.",
                ),
            option("--since", "SPAN", "list the boots of the last SPAN, such as `24h`, `30m` or `7d`")
                .default("off")
                .details(
                    "They are read from the directory of `--history`, also while the server is not running. Each boot is one line; times \
                     are in UTC.",
                ),
            option("--history", "DIR", "the directory in which the server records boots, for `--since`")
                .default("`/var/lib/rtftp`")
                .completes(Completion::Directory),
            flag("--once", "print once, also on a terminal"),
            flag("--json", "print JSON"),
            flag("--csv", "print CSV, with `--since`"),
            flag("--follow", "print each finished request as a line of JSON, until interrupted")
                .details("On a terminal, the status is shown and updated instead, as without this option."),
            HELP,
        ],
        after: "",
    },
    Command {
        name: "rtftp-get",
        before: "\
rtftp-get - fetches files over TFTP or HTTP, completely or not at all

Usage: rtftp-get HOST[:PORT] FILE [OPTIONS]
       rtftp-get URL... [OPTIONS]

HOST is a name or an address; an IPv6 address with a port stands in brackets,
[fe80::1%eth0]:6969. The default port is 69. A URL is http://HOST[:PORT]/PATH
or https://HOST[:PORT]/PATH. Several files of one server come over one connection.
",
        options: &[
            option("--output", "OUT", "write to this file; `-` is standard output")
                .short("-o")
                .default("the last part of FILE or URL, in this directory")
                .completes(Completion::File),
            option("--blksize", "BYTES", "request this block size, 8 to 65464")
                .default("1428")
                .details(
                    "The default fits into an Ethernet frame, also with IPv6 and a tunnel. This option and the three that \
                     follow are for TFTP.",
                ),
            option("--windowsize", "BLOCKS", "request this window size, 1 to 32767").default("16"),
            option("--timeout", "SECONDS", "request this retransmission timeout of the server, 1 to 255")
                .default("not requested")
                .details("`rtftp` grants 10 and more."),
            flag("--no-options", "request no options, as in RFC 1350"),
            option("--patience", "SECONDS", "give up after SECONDS without an answer, 1 to 60").default("60"),
            option("--verify", "LOCAL", "compare with a local file; write nothing unless `-o` is given")
                .completes(Completion::File),
            option("--ca", "FILE", "trust the authorities whose certificates are in this file, in the PEM format")
                .default("`/etc/ssl/certs/ca-certificates.crt`")
                .details("For `https://`. The certificate of a server must be valid, and issued for the HOST of the URL.")
                .completes(Completion::File),
            flag("--trace", "print each packet, or over HTTP each header line, with its time in seconds"),
            flag("--quiet", "print errors only").short("-q"),
            HELP,
            VERSION,
        ],
        after: "
Progress, on a terminal, and all other messages go to standard error.

Exit codes:
  0    fetched, and equal if compared
  1    the server refused; its ERROR or status is printed
  2    wrong arguments
  3    no answer, the transfer failed, or the server violated the protocol
  4    OUT cannot be written, or LOCAL or the file of --ca cannot be read
  5    LOCAL differs
  130  interrupted
",
    },
    Command {
        name: "rtftp-etcd",
        before: "\
rtftp-etcd - keeps the root directory of rtftp equal to a prefix of etcd

Usage: rtftp-etcd --root-dir DIR [OPTIONS]

The value of the key /rtftp/10.0.0.5.nbd becomes the file DIR/10.0.0.5.nbd, that
of /rtftp/default/config.txt becomes DIR/default/config.txt. Each file is replaced
as a whole, and removed with its key. Files that are not from etcd stay as they
are. While etcd is not available, all files stay as they are.
",
        options: &[
            option("--root-dir", "DIR", "the directory to write, which is the root directory of rtftp, too")
                .short("-r")
                .completes(Completion::Directory),
            option("--endpoints", "URLS", "the members of the cluster, separated by commas")
                .default("`http://127.0.0.1:2379`")
                .details("If one does not answer, the next one is asked."),
            option("--prefix", "PREFIX", "the start of the keys, which ends with /").default("`/rtftp/`"),
            option("--ca", "FILE", "trust the authorities whose certificates are in this file, in the PEM format")
                .default("`/etc/ssl/certs/ca-certificates.crt`")
                .details("For `https://`. The files of this option and the next two are read again for each connection.")
                .completes(Completion::File),
            option("--cert", "FILE", "show this certificate to etcd, in the PEM format").completes(Completion::File),
            option("--key", "FILE", "the key of this certificate in the PEM format, not encrypted")
                .completes(Completion::File),
            option("--user", "NAME", "log in to etcd as this user, who must be able to read the prefix"),
            option("--password-file", "FILE", "the password of the user, in the first line of this file")
                .default("the file `password` in `$CREDENTIALS_DIRECTORY`")
                .completes(Completion::File),
            flag("--once", "make DIR equal to the prefix once, and exit"),
            HELP,
            VERSION,
        ],
        after: "
Exit codes:
  0    ended by a signal; with --once, DIR is equal to the prefix
  1    DIR cannot be used; with --once, also: etcd is not available, or a key
       cannot become a file
  2    wrong arguments
",
    },
];
