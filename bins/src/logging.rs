//! Lines for people on standard error, and for the journal where that is what takes them.

use std::{
    fs::File,
    io::Write,
    os::{fd::AsFd, unix::fs::MetadataExt},
};

use log::{Level, LevelFilter};

/// Starts logging.
pub(crate) fn start(level: LevelFilter) {
    let mut builder = env_logger::Builder::new();
    builder.filter_level(level);
    if journal_takes_stderr() {
        // The journal notes the time itself, and takes the level from the number in front (sd-daemon(3)).
        builder.format(|out, record| writeln!(out, "<{}>{}", priority(record.level()), record.args()));
    } else {
        builder
            .format(|out, record| writeln!(out, "{} {:5} {}", out.timestamp_millis(), record.level(), record.args()));
    }
    builder.init();
}

/// Whether standard error is the stream to the journal that systemd has named (systemd.exec(5), `JOURNAL_STREAM`).
fn journal_takes_stderr() -> bool {
    let stderr = || File::from(std::io::stderr().as_fd().try_clone_to_owned().ok()?).metadata().ok();
    std::env::var("JOURNAL_STREAM")
        .is_ok_and(|stream| stderr().is_some_and(|stderr| stream == format!("{}:{}", stderr.dev(), stderr.ino())))
}

/// The syslog priority of a level.
fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}
