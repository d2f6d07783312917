//! The log on standard error, in the format of the journal if it is connected to it. Logging never waits for the reader.

mod queue;

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    fs::File,
    io::{self, Write},
    os::{fd::AsFd, unix::fs::MetadataExt},
    panic, thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use env_logger::{Builder, Target};
use log::{Level, LevelFilter, Record};
use rtftp_runtime::{board_log::BOARD_LOG, text::printable_within};

use self::queue::Queue;

/// The number of bytes of lines that wait for the reader of standard error. Further lines are dropped.
const MAX_QUEUED: usize = 512 << 10;
/// The number of characters of a line.
const MAX_LINE: usize = 4096;
/// The time in which the remaining lines must be written when the process ends.
const EXIT_LIMIT: Duration = Duration::from_millis(500);

/// The lines that wait for the writer.
static QUEUE: Queue = Queue::new(MAX_QUEUED);

/// The running log. Dropping it writes the remaining lines, in at most [`EXIT_LIMIT`].
#[derive(Debug)]
pub(crate) struct Log {
    has_writer: bool,
}

/// Starts to collect lines. They are written once [`Log::start_writer`] was called, or the log is dropped.
pub(crate) fn start(level: LevelFilter) -> Log {
    let mut builder = Builder::new();
    builder.filter_level(level).target(Target::Pipe(Box::new(QueueWriter)));
    if stderr_is_journal() {
        // The journal adds the time, and reads the priority from the prefix (sd-daemon(3)).
        builder.format(|out, record| writeln!(out, "<{}>{}", syslog_priority(record.level()), line(record)));
    } else {
        builder.format(|out, record| writeln!(out, "{} {:5} {}", out.timestamp_millis(), record.level(), line(record)));
    }
    builder.init();
    log_panics();
    Log { has_writer: false }
}

/// Waits until all lines are written, at most [`EXIT_LIMIT`]. For the end of the process.
pub(crate) fn flush() {
    QUEUE.flush(EXIT_LIMIT);
}

/// Returns a message as one line, and keeps it if it is about a board. Texts from outside were escaped when they were read; this is
/// for those that were forgotten.
fn line(record: &Record<'_>) -> String {
    let line = printable_within(&record.args().to_string(), MAX_LINE);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    BOARD_LOG.add(now.as_secs_f64(), record.level(), &line);
    line
}

/// Logs panics like all other messages, so that they do not wait for the reader either: a panic must end the process.
fn log_panics() {
    panic::set_hook(Box::new(|panic| {
        log::error!("{panic}");
        let backtrace = Backtrace::capture();
        if backtrace.status() == BacktraceStatus::Captured {
            backtrace.to_string().lines().for_each(|line| log::error!("{line}"));
        }
        flush();
    }));
}

impl Log {
    /// Starts the thread that writes the lines. It is confined if the calling thread is.
    pub(crate) fn start_writer(&mut self) {
        let report = |lines| log::warn!("{lines} log lines were dropped: the reader of standard error was too slow");
        let run = move || QUEUE.write_to(io::stderr(), report);
        // If there is no thread, nobody can be told.
        self.has_writer = thread::Builder::new().name("log".into()).spawn(run).is_ok();
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        if !self.has_writer {
            self.start_writer();
        }
        flush();
    }
}

/// Adds the lines of `env_logger`, which writes each with one call.
struct QueueWriter;

impl Write for QueueWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        QUEUE.add(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Returns whether standard error is connected to the journal (systemd.exec(5), `JOURNAL_STREAM`).
fn stderr_is_journal() -> bool {
    let stderr = || File::from(io::stderr().as_fd().try_clone_to_owned().ok()?).metadata().ok();
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
