//! rtftp-get with rtftp and with other servers: fetched files, output, progress and verification.

use std::{
    fs::{self, Permissions},
    os::unix::fs::{PermissionsExt, symlink},
};

use rtftp_tests::{
    ForeignServer, Rtftp, RtftpGet, ScriptedServer, TftpServerProgram, assert_same, noise, raw_client::ack,
};

/// More blocks of 512 bytes than block numbers.
const LARGE: usize = 40 << 20;

/// Sets of options, and the block size of each.
const OPTION_SETS: [(&[&str], usize); 6] = [
    (&[], 1428),
    (&["--no-options"], 512),
    (&["--blksize", "1468", "--windowsize", "64"], 1468),
    (&["--blksize", "512", "--windowsize", "1", "--timeout", "3"], 512),
    (&["--blksize", "1000", "--windowsize", "7"], 1000),
    (&["--blksize", "65464", "--windowsize", "4"], 65_464),
];

/// Returns file sizes at the boundaries of blocks and windows.
fn boundary_sizes(blksize: usize) -> [usize; 7] {
    [0, 1, blksize - 1, blksize, blksize + 1, 16 * blksize, 16 * blksize + 1]
}

/// Fetches a file of each size with each set of options.
#[track_caller]
fn fetch_all(getter: &RtftpGet, server: &str, put: impl Fn(&str, &[u8])) {
    let large = noise(LARGE, 3);
    put("large", &large);
    for (options, blksize) in OPTION_SETS {
        for size in boundary_sizes(blksize) {
            let (name, expected) = (format!("f{size}"), noise(size, 5));
            put(&name, &expected);
            getter.get(&[&[server, &name], options].concat()).assert_exit(0, &[&format!("{name}: {size} bytes in ")]);
            assert_same(&getter.read(&name), &expected, &format!("{options:?} {size}"));
        }
        getter.get(&[&[server, "large"], options].concat()).assert_exit(0, &["large: 41943040 bytes in "]);
        assert_same(&getter.read("large"), &large, &format!("{options:?} large"));
    }
    getter.get(&[server, "missing"]).assert_exit(1, &[": ERROR 1 (file not found)"]);
    assert!(!getter.files().contains(&"missing".to_owned()));
}

/// Starts a daemon with one file of `len` bytes. Returns the daemon, its address and the content of the file.
fn daemon_with_file(len: usize) -> (Rtftp, String, Vec<u8>) {
    let daemon = Rtftp::start();
    let file = noise(len, 9);
    daemon.put("default/dir/f", &file);
    let server = daemon.address().to_string();
    (daemon, server, file)
}

#[test]
fn rtftp() {
    let daemon = Rtftp::start();
    fetch_all(&RtftpGet::new(), &daemon.address().to_string(), |name, bytes| {
        daemon.put(&format!("default/{name}"), bytes);
    });
}

#[test]
fn dnsmasq() {
    let Some(server) = ForeignServer::start(TftpServerProgram::Dnsmasq) else { return };
    fetch_all(&server.getter(), "127.0.0.1", |name, bytes| server.put(name, bytes));
}

#[test]
#[ignore = "needs root, and its Debian package starts a server: tests/run.sh runs it if the program is installed"]
fn tftpd_hpa() {
    let Some(server) = ForeignServer::start(TftpServerProgram::Hpa) else { return };
    fetch_all(&server.getter(), "127.0.0.1", |name, bytes| server.put(name, bytes));
}

#[test]
#[ignore = "its Debian package starts a server and removes tftpd-hpa: tests/run.sh runs it if the program is installed"]
fn atftpd() {
    let Some(server) = ForeignServer::start(TftpServerProgram::Atftpd) else { return };
    fetch_all(&server.getter(), "127.0.0.1", |name, bytes| server.put(name, bytes));
}

#[test]
fn block_numbers_wrap_around() {
    let (_daemon, server, file) = daemon_with_file(8 * 65_536 + 5000);
    let getter = RtftpGet::new();
    getter.get(&[&server, "dir/f", "--blksize", "8"]).assert_exit(0, &["blksize 8, windowsize 16"]);
    assert_same(&getter.read("f"), &file, "across the wrap");
}

#[test]
fn fetches_over_ipv6() {
    let daemon = Rtftp::start_with("::1", 60, &[]);
    daemon.put("default/f", "six");
    let getter = RtftpGet::new();
    getter.get(&[&format!("[::1]:{}", daemon.address().port()), "f"]).assert_exit(0, &["f: 3 bytes"]);
    assert_eq!(getter.read("f"), b"six");
}

#[test]
fn tries_all_addresses_of_a_name() {
    let (daemon, _, file) = daemon_with_file(100);
    let getter = RtftpGet::new();
    // `localhost` usually resolves to ::1 first.
    getter.get(&[&format!("localhost:{}", daemon.address().port()), "dir/f"]).assert_exit(0, &[]);
    assert_eq!(getter.read("f"), file);
}

#[test]
fn summary_lists_negotiated_options() {
    let (_daemon, server, _) = daemon_with_file(100);
    let getter = RtftpGet::new();
    let summary = |options: &[&str], words: &[&str]| {
        let got = getter.get(&[&[&*server, "dir/f"], options].concat());
        got.assert_exit(0, words);
        assert_eq!(got.stderr.lines().count(), 1, "{}", got.stderr);
        assert!(got.stdout.is_empty());
    };
    summary(&[], &["dir/f: 100 bytes in ", " s, ", " MB/s, 0 retransmissions, blksize 1428, windowsize 16\n"]);
    summary(&["--no-options"], &["blksize 512, windowsize 1\n"]);
    summary(&["--timeout", "10"], &["windowsize 16, timeout 10 s\n"]);
    let got = getter.get(&[&server, "dir/f", "--quiet"]);
    got.assert_exit(0, &[]);
    assert_eq!(got.stderr, "");
}

#[test]
fn replaces_existing_file() {
    let (_daemon, server, file) = daemon_with_file(3000);
    let getter = RtftpGet::new();
    fs::write(getter.path("f"), "old").expect("written");
    getter.get(&[&server, "dir/f"]).assert_exit(0, &[]);
    assert_same(&getter.read("f"), &file, "replaced");
    fs::write(getter.path("real"), "old").expect("written");
    symlink("real", getter.path("link")).expect("a link");
    getter.get(&[&server, "dir/f", "-o", "link"]).assert_exit(0, &[]);
    assert_same(&getter.read("real"), &file, "the target of the link");
    assert!(fs::symlink_metadata(getter.path("link")).expect("there").is_symlink());
    assert_eq!(getter.files(), ["f", "link", "real"]);
    // With the permissions of any other new file.
    let plain = getter.path("plain");
    fs::write(&plain, "").expect("written");
    let mode = |name| fs::metadata(getter.path(name)).expect("there").permissions().mode();
    assert_eq!(Permissions::from_mode(mode("f")), Permissions::from_mode(mode("plain")));
}

#[test]
fn writes_only_the_file_to_standard_output() {
    let (_daemon, server, file) = daemon_with_file(200_000);
    let getter = RtftpGet::new();
    let got = getter.get(&[&server, "dir/f", "-o", "-"]);
    got.assert_exit(0, &["200000 bytes"]);
    assert_same(&got.stdout, &file, "standard output");
    assert_eq!(getter.files(), Vec::<String>::new());
}

#[test]
fn verify_compares_without_writing() {
    let (_daemon, server, mut file) = daemon_with_file(5000);
    let getter = RtftpGet::new();
    fs::write(getter.path("local"), &file).expect("written");
    getter.get(&[&server, "dir/f", "--verify", "local"]).assert_exit(0, &["5000 bytes"]);
    file[3210] ^= 1;
    fs::write(getter.path("local"), &file).expect("written");
    getter.get(&[&server, "dir/f", "--verify", "local"]).assert_exit(5, &["local differs at byte 3210"]);
    fs::write(getter.path("local"), &file[..3000]).expect("written");
    getter
        .get(&[&server, "dir/f", "--verify", "local"])
        .assert_exit(5, &["local is shorter: it ends after 3000 bytes"]);
    assert_eq!(getter.files(), ["local"]);
    getter.get(&[&server, "dir/f", "--verify", "local", "-o", "new"]).assert_exit(5, &["local is shorter"]);
    assert_eq!((getter.read("new").len(), getter.read("local").len()), (5000, 3000));
    getter.get(&[&server, "dir/f", "--verify", "nothing"]).assert_exit(4, &["cannot read nothing: No such file"]);
}

#[test]
fn trace_prints_each_packet() {
    let (_daemon, server, _) = daemon_with_file(2500);
    let got = RtftpGet::new().get(&[&server, "dir/f", "--trace", "--blksize", "1000", "--windowsize", "2"]);
    got.assert_exit(0, &[]);
    let lines: Vec<Vec<&str>> = got.stderr.lines().map(|line| line.split_whitespace().collect()).collect();
    let transfer = lines[1][2];
    assert_ne!(transfer, server, "the server answers from a port of its own");
    let expected = [
        format!("-> {server} RRQ dir/f octet tsize=0 blksize=1000 windowsize=2, 48 bytes"),
        format!("<- {transfer} OACK tsize=2500 blksize=1000 windowsize=2, 39 bytes"),
        format!("-> {transfer} ACK 0"),
        format!("<- {transfer} DATA 1, 1000 bytes"),
        format!("<- {transfer} DATA 2, 1000 bytes"),
        format!("-> {transfer} ACK 2"),
        format!("<- {transfer} DATA 3, 500 bytes"),
        format!("-> {transfer} ACK 3"),
    ];
    let packets: Vec<_> = lines.iter().map(|words| words[1..].join(" ")).collect();
    assert_eq!(packets[..8], expected);
    assert!(packets[8].starts_with("2500 bytes in"), "the summary: {}", got.stderr);
    let times: Vec<f64> = lines[..8].iter().map(|words| words[0].parse().expect("seconds")).collect();
    assert!(times.is_sorted() && times[0] >= 0.0, "{times:?}");
}

/// A command that runs another one on a pseudo-terminal and copies its output to standard output.
const TERMINAL: [&str; 4] = ["sh", "-c", "exec script --quiet --return --command \"$*\" /dev/null", "sh"];

/// Fetches 10,000 bytes, with a pause after the first 1,428. Returns the output.
fn output_of_slow_fetch(getter: &RtftpGet, options: &[&str]) -> String {
    let (file, mut server) = (noise(10_000, 1), ScriptedServer::new());
    let running = getter.start(&[&[&*server.address(), "f"], options].concat());
    server.request();
    server.send(b"\0\x06tsize\x0010000\0blksize\x001428\0windowsize\x0016\0");
    assert_eq!(server.receive(), ack(0));
    let mut blocks = file.chunks(1428).zip(1_u16..).map(|(bytes, block)| {
        server.send(&[&[0, 3], &block.to_be_bytes()[..], bytes].concat());
        block
    });
    blocks.next();
    // The ACK is repeated after at least 50 ms, then after 100 ms.
    for _ in 0..3 {
        assert_eq!(server.receive(), ack(1));
    }
    blocks.for_each(drop);
    assert_eq!(server.receive(), ack(8));
    let got = running.end();
    got.assert_exit(0, &[]);
    assert_same(&getter.read("f"), &file, "the file");
    String::from_utf8_lossy(&got.stdout).into_owned() + &got.stderr
}

#[test]
fn shows_progress_only_on_terminals() {
    let terminal = RtftpGet::behind(&TERMINAL);
    let output = output_of_slow_fetch(&terminal, &[]);
    let (progress, summary) = output.rsplit_once("\r\x1b[K").expect("a line that is erased");
    let drawn = progress.split('\r').find(|line| line.contains('%')).expect("percent");
    for part in [" 14% [===                     ] 0.0 MB  ", " MB/s  ", " left"] {
        assert!(drawn.contains(part), "`{part}` is missing in {drawn}");
    }
    assert!(summary.starts_with("f: 10000 bytes in "), "{output}");
    for (getter, options) in [(&terminal, &["--quiet"][..]), (&terminal, &["--trace"]), (&RtftpGet::new(), &[])] {
        let output = output_of_slow_fetch(getter, options);
        assert!(!output.contains(['%', '\x1b']), "{options:?}: {}", output.escape_debug());
    }
}

#[test]
fn help_readme_and_usage_errors_are_complete() {
    let help = RtftpGet::new().get(&["--help"]);
    help.assert_exit(0, &[]);
    let text = String::from_utf8(help.stdout).expect("text");
    let readme = include_str!("../../README.md");
    for option in text.split_whitespace().filter(|word| word.starts_with("--")) {
        let option = option.trim_end_matches(',');
        assert!(
            readme.contains(&format!("`{option}")) || readme.contains(&format!(" `{option}")),
            "{option} in README"
        );
    }
    for code in ["0 ", "1 ", "2 ", "3 ", "4 ", "5 ", "130 "] {
        assert!(text.lines().any(|line| line.trim_start().starts_with(code)), "exit code {code}");
    }
    RtftpGet::new().get(&["127.0.0.1"]).assert_exit(2, &["HOST and FILE", "rtftp-get --help"]);
    RtftpGet::new().get(&["[::1", "f"]).assert_exit(2, &["`[::1`", "HOST:PORT"]);
    RtftpGet::new().get(&["127.0.0.1", &"f".repeat(500)]).assert_exit(2, &["too long"]);
}
