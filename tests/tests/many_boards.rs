//! The memory of a daemon with the descriptions of 10,000 boards.

use std::{
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use rtftp_tests::{DiskConfig, Rtftp, closed_port, poll_until};

/// The number of boards.
const BOARDS: u32 = 10_000;
/// The maximum memory of the idle daemon in bytes.
const MAX_MEMORY: u64 = 60 << 20;
/// The maximum time until all descriptions are read.
const LIMIT: Duration = Duration::from_secs(120);

/// Returns the address of a board.
fn board(number: u32) -> String {
    Ipv4Addr::from_bits(0x0a00_0000 + number).to_string()
}

#[test]
fn idle_daemon_with_10000_descriptions_needs_little_memory() {
    let daemon = Rtftp::start_with("127.0.0.1", 3600, &[]);
    let base = daemon.process().resident_memory();
    let started = Instant::now();
    let description = DiskConfig::new(closed_port()).partition(1, "/").partition(2, "/boot");
    for number in 0..BOARDS {
        daemon.put_disk(&board(number), &description);
    }
    daemon.process().signal(Signal::SIGHUP);
    let reloaded = format!("reloaded {BOARDS} .nbd files");
    daemon.wait_for("the descriptions", LIMIT, |line| line.contains(&reloaded));
    // Every disk has tried to connect, and will again.
    let has_tried = || daemon.log_lines(&["Connection refused"]).len() >= BOARDS as usize;
    poll_until("attempts to connect", LIMIT, || has_tried().then_some(()));
    let memory = daemon.process().resident_memory();
    let seconds = started.elapsed().as_secs_f64();
    println!("{BOARDS} descriptions after {seconds:.1} s: {memory} bytes, {base} bytes without them");
    assert!(memory < MAX_MEMORY, "{memory} bytes");
}
