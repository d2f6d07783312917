//! The log on standard error, in the format of the journal if it is connected to it.

use std::{
    fs::File,
    io::Write,
    os::{fd::AsFd, unix::fs::MetadataExt},
};

use log::{Level, LevelFilter};

/// Starts logging to standard error.
pub(crate) fn start(level: LevelFilter) {
    let mut builder = env_logger::Builder::new();
    builder.filter_level(level);
    if stderr_is_journal() {
        // The journal adds the time, and reads the priority from the prefix (sd-daemon(3)).
        builder.format(|out, record| writeln!(out, "<{}>{}", syslog_priority(record.level()), record.args()));
    } else {
        builder
            .format(|out, record| writeln!(out, "{} {:5} {}", out.timestamp_millis(), record.level(), record.args()));
    }
    builder.init();
}

/// Returns whether standard error is connected to the journal (systemd.exec(5), `JOURNAL_STREAM`).
fn stderr_is_journal() -> bool {
    let stderr = || File::from(std::io::stderr().as_fd().try_clone_to_owned().ok()?).metadata().ok();
    std::env::var("JOURNAL_STREAM")
        .is_ok_and(|stream| stderr().is_some_and(|stderr| stream == format!("{}:{}", stderr.dev(), stderr.ino())))
}

/// Returns the syslog priority of a level.
fn syslog_priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}
