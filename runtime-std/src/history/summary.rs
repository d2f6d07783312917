//! The summary of a boot: one sentence about the request that matters most.

use std::{collections::VecDeque, time::Duration};

use rtftp_core::Instant;

use super::{
    boot::{Boot, MAX_BOOTS},
    request::{Record, most_relevant},
    snapshot::{self, BoardState, MountState, State},
    wall_clock::WallClock,
};

/// A transfer without progress for this long is stalled.
const STALLED_AFTER: Duration = Duration::from_secs(3);

/// A board that starts [`MAX_BOOTS`] times within this time is in a boot loop, until it has made no request for as long.
const MAX_LOOP: Duration = Duration::from_secs(600);

/// The summary of a boot.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Summary {
    pub(super) state: BoardState,
    /// A sentence.
    pub(super) text: String,
    /// The sentence without durations.
    pub(super) status: String,
}

impl Summary {
    /// Adds what the disk has shown after the last of these boots, if its last file was delivered.
    fn add_mount(&mut self, boots: &VecDeque<Boot>) {
        let mut mounts = boots.iter().map(Boot::mount);
        let mount = mounts.next().flatten().filter(|mount| mount.state > MountState::Unknown);
        let Some(mount) = mount.filter(|_| self.state == BoardState::Booted) else { return };
        for sentence in [&mut self.text, &mut self.status] {
            *sentence += "; ";
            *sentence += &mount.text;
        }
        // A board whose disk is mounted read-only never shows more.
        if mount.state == MountState::Unchanged && mounts.flatten().any(|earlier| earlier.state > MountState::Unchanged)
        {
            self.state = BoardState::Unmounted;
        }
    }
}

/// Summarizes the last boot of a client, given its boots from the newest to the oldest. Returns `None` if there is none.
pub(super) fn summarize_client(boots: &VecDeque<Boot>, now: WallClock) -> Option<Summary> {
    let mut last = summarize(boots.front()?.records(), now);
    last.add_mount(boots);
    let is_loading =
        matches!(last.state, BoardState::Running | BoardState::Booted | BoardState::Unmounted | BoardState::Probed);
    let Some(duration) = loop_duration(boots, now).filter(|_| is_loading) else { return Some(last) };
    let words = format!("boot loop, {} boots in {}", boots.len(), format_duration(duration.as_secs()));
    let [text, status] = [last.text, last.status].map(|text| format!("{words}: {text}"));
    Some(Summary { state: BoardState::Looping, text, status })
}

/// Returns the time between the first and the last start of a board in a boot loop.
fn loop_duration(boots: &VecDeque<Boot>, now: WallClock) -> Option<Duration> {
    let (newest, oldest) = (boots.front()?, boots.back()?);
    let duration = newest.began().since(oldest.began());
    let is_loop = boots.len() >= MAX_BOOTS && boots.iter().all(Boot::is_verified) && duration <= MAX_LOOP;
    (is_loop && now.instant().since(newest.last_seen()) <= MAX_LOOP).then_some(duration)
}

/// Summarizes a boot, given its requests from the oldest to the newest: describes the most relevant one.
fn summarize<'a>(records: impl Iterator<Item = &'a Record>, now: WallClock) -> Summary {
    let Some(record) = most_relevant(records) else {
        return Summary { state: BoardState::Probed, text: "no requests".into(), status: "no requests".into() };
    };
    let file = record.snapshot(now);
    let text = describe(record, &file, now, |words, since| words.replace("{}", &elapsed(since, now)));
    let status = describe(record, &file, now, |_, _| String::new());
    Summary { state: state(record, &file, now), text, status }
}

/// Returns whether a running request makes no progress.
fn is_stalled(record: &Record, now: WallClock) -> bool {
    now.instant().since(record.last_progress()) >= STALLED_AFTER
}

fn state(record: &Record, file: &snapshot::File, now: WallClock) -> BoardState {
    match file.state {
        State::Running if is_stalled(record, now) => BoardState::Stalled,
        State::Running => BoardState::Running,
        State::Complete => BoardState::Booted,
        State::Probe => BoardState::Probed,
        State::Missing => BoardState::Missing,
        State::Refused | State::Failed => BoardState::Failed,
    }
}

/// Describes a request. `time` returns words with the duration since an instant in place of `{}`, or nothing.
fn describe(
    record: &Record,
    file: &snapshot::File,
    now: WallClock,
    time: impl Fn(&'static str, Instant) -> String,
) -> String {
    let name = &file.name;
    let requested = time(" (requested {} ago)", record.received());
    let why = file.why.as_deref().unwrap_or("unknown reason");
    match file.state {
        State::Running if !record.has_started() => format!("opening {name}{}", time(" for {}", record.received())),
        State::Running if !is_stalled(record, now) => format!("loading {name}{}", progress(file)),
        State::Running if !record.is_verified() => format!("no acknowledgement for {name}{requested}"),
        State::Running => format!("stalled in {name}{}{}", progress(file), time(" for {}", record.last_progress())),
        State::Complete => format!("{name} complete{requested}"),
        State::Probe => format!("size of {name} queried{}", time(" {} ago", record.received())),
        State::Missing => format!("{name} {}{requested}", file.why.as_deref().unwrap_or("not found")),
        State::Refused => format!("{name} refused{requested}: {}{why}", root(file)),
        State::Failed if record.has_started() => {
            let ago = time(" {} ago", record.finished().unwrap_or(record.received()));
            format!("{name} failed{}{ago}: {why}", progress(file))
        }
        State::Failed => format!("{name} failed{requested}: {}{why}", root(file)),
    }
}

/// Returns the root that a reason is about, such as `10.0.0.5.nbd: `.
fn root(file: &snapshot::File) -> String {
    file.origin.as_ref().map(|origin| format!("{origin}: ")).unwrap_or_default()
}

/// Formats the progress of a transfer in percent, or in bytes if the size of the file is unknown or zero.
fn progress(file: &snapshot::File) -> String {
    match file.size {
        Some(size) if size > 0 => format!(" at {} %", u128::from(file.acknowledged) * 100 / u128::from(size)),
        _ => format!(" at {} bytes", file.acknowledged),
    }
}

fn elapsed(since: Instant, now: WallClock) -> String {
    format_duration(now.instant().since(since).as_secs())
}

/// Formats a duration in the largest unit that gives at least two: seconds, minutes, hours or days.
pub fn format_duration(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{request::TransferStart, snapshot::Protocol},
        *,
    };

    /// A request received at 100 s.
    fn requested(name: &str) -> Record {
        Record::new(Protocol::Tftp, name.as_bytes(), at(100), Default::default())
    }

    fn at(seconds: u64) -> Instant {
        Instant::from_micros(1_000_000 * seconds)
    }

    /// A transfer started at 101 s, with its last progress at 104 s.
    fn started(name: &str, size: Option<u64>, acknowledged: u64) -> Record {
        let record = requested(name);
        let start = TransferStart { size, block_size: 512, window_size: 1, snapshot_age: None, client_port: 0 };
        record.start_transfer(at(101), start);
        if acknowledged > 0 {
            record.note_activity(at(104));
            record.note_progress(at(104), acknowledged, 0);
        }
        record
    }

    /// Finishes a request at 105 s.
    fn finished(record: Record, state: State, reason: Option<&str>) -> Record {
        record.finish(at(105), state, reason);
        record
    }

    #[track_caller]
    fn assert_summary(records: &[&Record], now: u64, expected: &str) {
        assert_eq!(summarize(records.iter().copied(), WallClock::at(at(now))).text, expected);
    }

    #[test]
    fn status_has_a_state_and_no_durations() {
        let opening = requested("a");
        let loading = started("a", Some(200), 81);
        let silent = started("a", Some(200), 0);
        let missing = finished(requested("a"), State::Missing, Some("not found in default/"));
        let failed = finished(started("a", Some(200), 81), State::Failed, Some("timed out"));
        let refused = finished(requested("a"), State::Refused, Some("access violation"));
        let complete = finished(started("a", Some(9), 9), State::Complete, None);
        let probe = finished(started("a", Some(9), 0), State::Probe, None);
        for (record, now, state, status) in [
            (&opening, 102, BoardState::Running, "opening a"),
            (&opening, 112, BoardState::Stalled, "opening a"),
            (&loading, 106, BoardState::Running, "loading a at 40 %"),
            (&loading, 112, BoardState::Stalled, "stalled in a at 40 %"),
            (&silent, 112, BoardState::Stalled, "no acknowledgement for a"),
            (&missing, 112, BoardState::Missing, "a not found in default/"),
            (&failed, 112, BoardState::Failed, "a failed at 40 %: timed out"),
            (&refused, 112, BoardState::Failed, "a refused: access violation"),
            (&complete, 112, BoardState::Booted, "a complete"),
            (&probe, 112, BoardState::Probed, "size of a queried"),
        ] {
            let summary = summarize([record].into_iter(), WallClock::at(at(now)));
            assert_eq!((summary.state, summary.status.as_str()), (state, status));
        }
    }

    #[test]
    fn describes_every_outcome() {
        for (record, expected) in [
            (finished(requested("start4.elf"), State::Missing, None), "start4.elf not found (requested 12 s ago)"),
            (
                finished(requested("dtb"), State::Missing, Some("not found in 10.0.0.5.nbd, default/")),
                "dtb not found in 10.0.0.5.nbd, default/ (requested 12 s ago)",
            ),
            (
                finished(started("config.txt", Some(9), 9), State::Complete, None),
                "config.txt complete (requested 12 s ago)",
            ),
            (finished(started("a", Some(9), 0), State::Probe, None), "size of a queried 12 s ago"),
            (
                finished(requested("a"), State::Refused, Some("access violation")),
                "a refused (requested 12 s ago): access violation",
            ),
            (
                finished(requested("a"), State::Failed, Some("no route to the disk")),
                "a failed (requested 12 s ago): no route to the disk",
            ),
            (
                finished(started("a", Some(200), 81), State::Failed, Some("timed out")),
                "a failed at 40 % 7 s ago: timed out",
            ),
            (
                finished(started("a", None, 81), State::Failed, Some("timed out")),
                "a failed at 81 bytes 7 s ago: timed out",
            ),
        ] {
            assert_summary(&[&record], 112, expected);
        }
    }

    #[test]
    fn distinguishes_progress_from_stalls() {
        assert_summary(&[&requested("vmlinuz")], 108, "opening vmlinuz for 8 s");
        assert_summary(&[&started("vmlinuz", Some(1000), 0)], 103, "loading vmlinuz at 0 %");
        assert_summary(
            &[&started("vmlinuz", Some(1000), 0)],
            108,
            "no acknowledgement for vmlinuz (requested 8 s ago)",
        );
        assert_summary(&[&started("vmlinuz", Some(1000), 400)], 106, "loading vmlinuz at 40 %");
        assert_summary(&[&started("vmlinuz", Some(1000), 400)], 112, "stalled in vmlinuz at 40 % for 8 s");
        assert_summary(&[&started("empty", Some(0), 0)], 102, "loading empty at 0 bytes");
        let repeating = started("vmlinuz", Some(1000), 400);
        repeating.note_activity(at(111));
        assert_summary(&[&repeating], 112, "stalled in vmlinuz at 40 % for 8 s");
    }

    #[test]
    fn prefers_running_transfer_to_later_finished_request() {
        let (kernel, missing) = (started("kernel", Some(10), 5), finished(requested("dtb"), State::Missing, None));
        assert_summary(&[&kernel, &missing], 105, "loading kernel at 50 %");
        assert_summary(&[], 105, "no requests");
    }

    #[test]
    fn formats_durations_in_the_largest_useful_unit() {
        let record = finished(requested("a"), State::Complete, None);
        for (seconds, expected) in
            [(119, "119 s"), (120, "2 min"), (7199, "119 min"), (7200, "2 h"), (172_800, "2 days")]
        {
            assert_summary(&[&record], 100 + seconds, &format!("a complete (requested {expected} ago)"));
        }
    }

    #[test]
    fn names_the_root_that_a_failure_is_about() {
        let record = requested("kernel");
        record.set_origin("10.0.0.5.nbd");
        let failed = finished(record, State::Failed, Some("line 1, column 1: expected `{`"));
        assert_summary(
            &[&failed],
            112,
            "kernel failed (requested 12 s ago): 10.0.0.5.nbd: line 1, column 1: expected `{`",
        );
    }

    #[test]
    fn quotes_and_escapes_control_characters() {
        assert_summary(&[&requested("\u{1b}[2J\nroot")], 101, r#"opening "\x1b[2J\nroot" for 1 s"#);
        let record = finished(requested("a"), State::Failed, Some("the server said: \u{1b}[2J"));
        assert_summary(&[&record], 101, "a failed (requested 1 s ago): the server said: \\u{1b}[2J");
    }
}
