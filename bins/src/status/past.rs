//! `rtftp status --since`: the boots that a server has recorded in its `--history`, one line each.

use std::{
    collections::{HashMap, VecDeque},
    fmt::Write as _,
    io,
    str::FromStr,
    time::Duration,
};

use jiff::Timestamp;
use rtftp_runtime::history::{
    PastBoot,
    snapshot::{File, Mount, MountState, State},
};
use serde::Serialize;

use super::{
    screen::{Colour, Line},
    text::escape,
};
use crate::progress_bar::megabytes;

/// The column of the result.
const RESULT_COLUMN: usize = 66;
/// The number of earlier boots with which the mounts of a boot are compared, as on the status page.
const COMPARED_BOOTS: usize = 3;

/// A time span such as `24h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span(pub(super) Duration);

impl FromStr for Span {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let unit = text.chars().next_back().ok_or(())?;
        let seconds = match unit {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86_400,
            _ => return Err(()),
        };
        let number: u32 = text[..text.len() - 1].parse().map_err(drop)?;
        Ok(Self(Duration::from_secs(seconds * u64::from(number))))
    }
}

/// The boots since a time, in seconds since 1970.
#[derive(Debug, Serialize)]
pub(super) struct Past {
    pub(super) now: f64,
    pub(super) since: f64,
    /// The oldest first.
    pub(super) boots: Vec<PastBoot>,
}

impl Past {
    /// Returns the title, and a line for each boot.
    pub(super) fn lines(&self) -> Vec<Line> {
        let is_failed = |past: &&PastBoot| matches!(state(past), State::Failed | State::Refused);
        let (count, failed) = (self.boots.len(), self.boots.iter().filter(is_failed).count());
        let plural = if count == 1 { "" } else { "s" };
        let unmounted = self.unmounted();
        let mut count = format!("{count} boot{plural} since {}, {failed} failed or refused", utc(self.since));
        match unmounted.iter().filter(|is_unmounted| **is_unmounted).count() {
            0 => {}
            number => count += &format!(", {number} not mounted"),
        }
        let titles = format!("{:<20}  {:<15} {:>8} {:>6} {:>10}  RESULT", "TIME", "CLIENT", "SECONDS", "FILES", "MB");
        let boots = self.boots.iter().zip(unmounted).map(|(past, is_unmounted)| line(past, is_unmounted));
        [count, titles].map(Line::cut).into_iter().chain(boots).collect()
    }

    /// Returns for each boot whether its board has not mounted its disk, unlike after an earlier boot.
    fn unmounted(&self) -> Vec<bool> {
        let mut earlier: HashMap<&str, VecDeque<bool>> = HashMap::new();
        let boots = self.boots.iter().map(|past| {
            let state = mount(past).map(|mount| mount.state);
            let mounts = earlier.entry(&past.client).or_default();
            let is_unmounted = state == Some(MountState::Unchanged) && mounts.contains(&true);
            mounts.push_back(state > Some(MountState::Unchanged));
            if mounts.len() > COMPARED_BOOTS {
                mounts.pop_front();
            }
            is_unmounted
        });
        boots.collect()
    }

    /// Returns one line of JSON.
    pub(super) fn json(&self) -> io::Result<String> {
        Ok(serde_json::to_string(self)? + "\n")
    }

    /// Returns a table in the CSV format (RFC 4180).
    pub(super) fn csv(&self) -> String {
        let mut csv = String::from(
            "client,began,seconds,requests,complete,bytes,retransmitted,state,file,origin,reason,mount\r\n",
        );
        for past in &self.boots {
            let last = past.boot.files.last();
            let text = |text: Option<&String>| field(text.map(String::as_str).unwrap_or_default());
            // Writing to a string cannot fail.
            let _ = write!(
                csv,
                "{},{},{:.3},{},{},{},{},{},{},{},{},{}\r\n",
                field(&past.client),
                utc(past.boot.began),
                seconds(past),
                past.boot.files.len(),
                complete(past),
                bytes(past),
                past.boot.files.iter().map(|file| file.retransmitted).fold(0, u64::saturating_add),
                state(past).name(),
                text(last.map(|file| &file.name)),
                text(last.and_then(|file| file.origin.as_ref())),
                text(last.and_then(|file| file.why.as_ref())),
                text(past.boot.mount.as_ref().map(|mount| &mount.text)),
            );
        }
        csv
    }
}

/// Returns the line of a boot.
fn line(past: &PastBoot, is_unmounted: bool) -> Line {
    let mut text = format!(
        "{:<20}  {:<15} {:>8.1} {:>6} {:>10.1}  {}",
        utc(past.boot.began),
        escape(&past.client),
        seconds(past),
        complete(past),
        megabytes(bytes(past) as f64),
        past.boot.files.last().map(result).unwrap_or_default(),
    );
    if let Some(mount) = mount(past) {
        text += "; ";
        text += &escape(&mount.text);
    }
    let colour = match state(past) {
        _ if is_unmounted => Colour::Yellow,
        State::Failed | State::Refused => Colour::Red,
        State::Missing => Colour::Yellow,
        State::Running | State::Complete | State::Probe => Colour::Default,
    };
    Line::wrapped(text, RESULT_COLUMN, colour)
}

/// Returns the result of the last request of a boot.
fn result(file: &File) -> String {
    let mut result = format!("{} {}", escape(&file.name), file.state.name());
    if file.state == State::Failed && file.blksize > 0 {
        result += &match file.size {
            Some(size) if size > 0 => format!(" at {} %", u128::from(file.acknowledged) * 100 / u128::from(size)),
            _ => format!(" at {} bytes", file.acknowledged),
        };
    }
    let reason = [&file.origin, &file.why].map(|text| text.as_deref().map(escape));
    match reason {
        [Some(origin), Some(why)] => result + ": " + &origin + ": " + &why,
        [None, Some(why)] => result + ": " + &why,
        [_, None] => result,
    }
}

fn state(past: &PastBoot) -> State {
    past.boot.files.last().map_or(State::Probe, |file| file.state)
}

/// Returns what the disk has shown after a boot whose last file was delivered, if that is known.
fn mount(past: &PastBoot) -> Option<&Mount> {
    past.boot.mount.as_ref().filter(|mount| mount.state > MountState::Unknown && state(past) == State::Complete)
}

fn seconds(past: &PastBoot) -> f64 {
    (past.boot.last - past.boot.began).max(0.0)
}

fn complete(past: &PastBoot) -> usize {
    past.boot.files.iter().filter(|file| file.state == State::Complete).count()
}

fn bytes(past: &PastBoot) -> u64 {
    past.boot.files.iter().map(|file| file.acknowledged).fold(0, u64::saturating_add)
}

/// Formats seconds since 1970 as `2026-11-29T07:00:00Z`.
fn utc(seconds: f64) -> String {
    let time = Timestamp::from_second(seconds as i64).unwrap_or(Timestamp::UNIX_EPOCH);
    time.to_string()
}

/// Returns a text as a field, in quotes. Spreadsheets do not take it as a formula: names come from the network.
fn field(text: &str) -> String {
    let is_formula = text.starts_with(['=', '+', '-', '@']);
    format!("\"{}{}\"", if is_formula { "'" } else { "" }, escape(text).replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use rtftp_runtime::history::snapshot::Boot;

    use super::*;
    use crate::status::history::tests::file;

    fn past(files: Vec<File>) -> Past {
        let boot = Boot { began: 1_764_000_000.5, last: 1_764_000_010.7, more: 0, files, mount: None };
        Past { now: 1_764_003_600.0, since: 1_763_917_200.0, boots: vec![PastBoot { client: "10.0.0.5".into(), boot }] }
    }

    #[test]
    fn accepts_spans_in_four_units() {
        for (text, seconds) in [("90s", 90), ("5m", 300), ("24h", 86_400), ("7d", 604_800), ("0h", 0)] {
            assert_eq!(text.parse(), Ok(Span(Duration::from_secs(seconds))), "{text}");
        }
        for text in ["", "h", "24", "-1h", "1.5h", "1w", "24 h", "99999999999d", "1\u{e9}"] {
            assert_eq!(text.parse::<Span>(), Err(()), "{text}");
        }
    }

    #[test]
    fn a_boot_is_one_line_with_its_last_result() {
        let complete = File { acknowledged: 1_500_000, blksize: 512, ..file("start4.elf", State::Complete) };
        let failed = File {
            acknowledged: 400_000,
            blksize: 512,
            why: Some("timed out".into()),
            origin: Some("10.0.0.5.nbd".into()),
            ..file("kernel8.img", State::Failed)
        };
        let texts: Vec<_> = past(vec![complete, failed]).lines().into_iter().map(|line| line.text).collect();
        let expected = [
            "1 boot since 2025-11-23T17:00:00Z, 1 failed or refused",
            "TIME                  CLIENT           SECONDS  FILES         MB  RESULT",
            "2025-11-24T16:00:00Z  10.0.0.5            10.2      1        1.9  kernel8.img failed at 40 %: 10.0.0.5.nbd: timed out",
        ];
        assert_eq!(texts, expected);
        assert_eq!(texts[1].find("RESULT"), Some(RESULT_COLUMN));
    }

    #[test]
    fn shows_whether_boards_came_up() {
        let boot = |client: &str, last: File, mount: Option<(MountState, &str)>| {
            let mount = mount.map(|(state, text)| Mount { state, seconds: 12.0, text: text.into() });
            let boot = Boot { began: 1_764_000_000.0, last: 1_764_000_010.0, more: 0, files: vec![last], mount };
            PastBoot { client: client.into(), boot }
        };
        let complete = || file("kernel8.img", State::Complete);
        let mounted = (MountState::Mounted, "ext4 mounted within 12 s");
        let unchanged = (MountState::Unchanged, "ext4 not mounted read-write within 120 s");
        let boots = vec![
            boot("10.0.0.5", complete(), Some(mounted)),
            // Mounted read-only by every boot.
            boot("10.0.0.6", complete(), Some(unchanged)),
            boot("10.0.0.5", complete(), Some((MountState::Unknown, "several boards may use the disk"))),
            boot("10.0.0.5", complete(), Some(unchanged)),
            // The looks belong to the file before.
            boot("10.0.0.5", file("dtb", State::Missing), Some(unchanged)),
            boot("10.0.0.5", complete(), None),
        ];
        let mut lines = Past { now: 1_764_003_600.0, since: 1_763_917_200.0, boots }.lines().into_iter();
        let title = lines.next().expect("the title");
        assert_eq!(title.text, "6 boots since 2025-11-23T17:00:00Z, 0 failed or refused, 1 not mounted");
        let lines: Vec<_> = lines.skip(1).map(|line| (line.text[RESULT_COLUMN..].to_owned(), line.colour)).collect();
        let expected = [
            ("kernel8.img complete; ext4 mounted within 12 s", Colour::Default),
            ("kernel8.img complete; ext4 not mounted read-write within 120 s", Colour::Default),
            ("kernel8.img complete", Colour::Default),
            ("kernel8.img complete; ext4 not mounted read-write within 120 s", Colour::Yellow),
            ("dtb missing", Colour::Yellow),
            ("kernel8.img complete", Colour::Default),
        ];
        assert_eq!(lines, expected.map(|(text, colour)| (text.to_owned(), colour)));
    }

    #[test]
    fn csv_quotes_texts_and_disarms_formulas() {
        let hostile = File { why: Some("a \"b\", c\n".into()), ..file("=1+1", State::Refused) };
        let csv = past(vec![hostile]).csv();
        let (titles, row) = csv.split_once("\r\n").expect("a row");
        assert_eq!(titles.split(',').count(), 12);
        let expected = r#""10.0.0.5",2025-11-24T16:00:00Z,10.200,1,0,0,0,refused,"'=1+1","","a ""b"", c\n","""#;
        assert_eq!(row, format!("{expected}\r\n"));
    }
}
