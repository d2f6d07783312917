//! Where a boot stands or stopped, in a sentence for people.

use std::time::Duration;

use rtftp_core::Instant;

use super::{
    request::File,
    snapshot::{self, State, Wall},
};

/// A transfer in which nothing arrives for this long is stalled, rather than between two packets.
const STALLED: Duration = Duration::from_secs(3);

/// Tells it of the file that matters: the newest of those that are being sent, or else the one that was asked for last.
pub(super) fn place<'a>(files: impl DoubleEndedIterator<Item = &'a File> + Clone, now: Wall) -> String {
    let running = files.clone().rev().find(|file| file.ended().is_none());
    match running.or(files.clone().next_back()) {
        Some(file) => sentence(file, now),
        None => "has not asked for anything".into(),
    }
}

fn sentence(file: &File, now: Wall) -> String {
    let seen = file.snapshot(now);
    let name = &seen.name;
    let ago = seconds(file.began(), now);
    let why = seen.why.as_deref().unwrap_or("no reason is known");
    match seen.state {
        State::Running if !file.is_open() => format!("waits for {name} to be opened for {ago}"),
        State::Running if now.instant().since(file.last_moved()) < STALLED => {
            format!("loads {name}{}", reached(&seen))
        }
        State::Running if file.last_heard().is_none() => {
            format!("asked for {name} {ago} ago, and has not answered since")
        }
        State::Running => format!("stalled in {name}{} for {}", reached(&seen), seconds(file.last_moved(), now)),
        State::Complete => format!("asked last for {name} {ago} ago, complete"),
        State::Probe => format!("asked last for the size of {name} {ago} ago"),
        State::Missing => format!("asked for {name} {ago} ago, which is in none of its roots"),
        State::Refused => format!("asked for {name} {ago} ago, refused: {why}"),
        State::Failed if file.is_open() => {
            let ago = seconds(file.ended().unwrap_or(file.began()), now);
            format!("stopped in {name}{} {ago} ago: {why}", reached(&seen))
        }
        State::Failed => format!("asked for {name} {ago} ago, failed: {why}"),
    }
}

/// How far a transfer is, if that can be told.
fn reached(file: &snapshot::File) -> String {
    match file.size {
        Some(size) if size > 0 => format!(" at {} %", u128::from(file.acknowledged) * 100 / u128::from(size)),
        _ => format!(" at {} bytes", file.acknowledged),
    }
}

fn seconds(since: Instant, now: Wall) -> String {
    span(now.instant().since(since).as_secs())
}

/// A time of so many seconds, in the largest unit that tells something.
pub fn span(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use rtftp_core::wire::options::Settings;

    use super::{super::request::Sending, *};

    /// A request that came at 100 s.
    fn asked(name: &str) -> File {
        File::new(name.as_bytes(), at(100))
    }

    fn at(seconds: u64) -> Instant {
        Instant::from_micros(1_000_000 * seconds)
    }

    fn open(name: &str, size: Option<u64>, acknowledged: u64) -> File {
        let file = asked(name);
        file.sent_as(at(101), Sending { size, settings: Settings::default(), view_age: None });
        if acknowledged > 0 {
            file.heard(at(104));
            file.reached(at(104), acknowledged, 0);
        }
        file
    }

    fn ended(file: File, state: State, why: Option<&str>) -> File {
        file.end(at(105), state, why);
        file
    }

    #[track_caller]
    fn says(files: &[&File], now: u64, expected: &str) {
        assert_eq!(place(files.iter().copied(), Wall::at(at(now))), expected);
    }

    #[test]
    fn every_end_has_its_words() {
        for (file, expected) in [
            (
                ended(asked("start4.elf"), State::Missing, None),
                "asked for start4.elf 12 s ago, which is in none of its roots",
            ),
            (
                ended(open("config.txt", Some(9), 9), State::Complete, None),
                "asked last for config.txt 12 s ago, complete",
            ),
            (ended(open("a", Some(9), 0), State::Probe, None), "asked last for the size of a 12 s ago"),
            (
                ended(asked("a"), State::Refused, Some("access violation")),
                "asked for a 12 s ago, refused: access violation",
            ),
            (
                ended(asked("a"), State::Failed, Some("no route to the disk")),
                "asked for a 12 s ago, failed: no route to the disk",
            ),
            (
                ended(open("a", Some(200), 81), State::Failed, Some("timed out")),
                "stopped in a at 40 % 7 s ago: timed out",
            ),
            (
                ended(open("a", None, 81), State::Failed, Some("timed out")),
                "stopped in a at 81 bytes 7 s ago: timed out",
            ),
        ] {
            says(&[&file], 112, expected);
        }
    }

    #[test]
    fn what_goes_on_is_told_from_what_stalls() {
        says(&[&asked("vmlinuz")], 108, "waits for vmlinuz to be opened for 8 s");
        says(&[&open("vmlinuz", Some(1000), 0)], 103, "loads vmlinuz at 0 %");
        says(&[&open("vmlinuz", Some(1000), 0)], 108, "asked for vmlinuz 8 s ago, and has not answered since");
        says(&[&open("vmlinuz", Some(1000), 400)], 106, "loads vmlinuz at 40 %");
        says(&[&open("vmlinuz", Some(1000), 400)], 112, "stalled in vmlinuz at 40 % for 8 s");
        says(&[&open("empty", Some(0), 0)], 102, "loads empty at 0 bytes");
        let repeated = open("vmlinuz", Some(1000), 400);
        repeated.heard(at(111));
        says(&[&repeated], 112, "stalled in vmlinuz at 40 % for 8 s");
    }

    #[test]
    fn a_transfer_that_runs_counts_more_than_a_later_request_that_is_over() {
        let (kernel, missing) = (open("kernel", Some(10), 5), ended(asked("dtb"), State::Missing, None));
        says(&[&kernel, &missing], 105, "loads kernel at 50 %");
        says(&[], 105, "has not asked for anything");
    }

    #[test]
    fn long_ago_is_told_in_large_units() {
        let file = ended(asked("a"), State::Complete, None);
        for (seconds, expected) in
            [(119, "119 s"), (120, "2 min"), (7199, "119 min"), (7200, "2 h"), (172_800, "2 days")]
        {
            says(&[&file], 100 + seconds, &format!("asked last for a {expected} ago, complete"));
        }
    }

    #[test]
    fn a_hostile_name_is_harmless() {
        says(&[&asked("\u{1b}[2J\nroot")], 101, r"waits for \x1b[2J\nroot to be opened for 1 s");
        let file = ended(asked("a"), State::Failed, Some("the server said: \u{1b}[2J"));
        says(&[&file], 101, "asked for a 1 s ago, failed: the server said:  [2J");
    }
}
