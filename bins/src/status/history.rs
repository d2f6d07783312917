//! The boot history of one client: one line for each request.

use rtftp_runtime::history::snapshot::{Boot, Client, File, LogLine, Mount, MountState, State};

use super::{
    screen::{Colour, Line},
    text::{age, escape},
};
use crate::{
    advice::advice,
    progress_bar::{megabytes, progress_bar},
};

/// The column of the state of a request.
const STATE_COLUMN: usize = 48;
/// The column of the text of a line of the log, and of what the disk has shown.
const TEXT_COLUMN: usize = 15;

/// Returns the summary of the client and its boots, the newest first.
pub(super) fn lines(client: &Client, now: f64) -> Vec<Line> {
    let mut lines = vec![summary(client)];
    if client.state.is_problem()
        && let Some(advice) = advice(&client.status)
    {
        lines.push(Line::wrapped(format!("    {}", escape(advice)), 4, Colour::Default));
    }
    for boot in &client.boots {
        lines.push(Line::cut(String::new()));
        lines.push(headline(boot, now));
        lines.extend(boot.files.iter().map(|file| request(file, boot)));
        lines.extend(boot.mount.as_ref().map(mount));
    }
    if !client.log.is_empty() {
        lines.extend([Line::cut(String::new()), Line::cut("log".into())]);
        lines.extend(client.log.iter().map(|line| logged(line, now)));
    }
    lines
}

fn summary(client: &Client) -> Line {
    let name = client.name.as_ref().map(|name| format!(" ({})", escape(name))).unwrap_or_default();
    Line::wrapped(format!("{}{name}: {}", escape(&client.client), escape(&client.summary)), 4, Colour::Default)
}

/// Returns a line of the log, with its age.
fn logged(line: &LogLine, now: f64) -> Line {
    let colour = match line.level.as_str() {
        "error" => Colour::Red,
        "warn" => Colour::Yellow,
        _ => Colour::Default,
    };
    Line::wrapped(format!("  {:>7} ago  {}", age(now - line.at), escape(&line.text)), TEXT_COLUMN, colour)
}

/// Returns the line of what the disk has shown after a boot.
fn mount(mount: &Mount) -> Line {
    let text = match mount.state {
        MountState::Unknown => format!("not known whether the board came up: {}", escape(&mount.text)),
        _ => escape(&mount.text),
    };
    Line::wrapped(format!("  {:<1$}{text}", "then", TEXT_COLUMN - 2), TEXT_COLUMN, Colour::Default)
}

/// Returns the line of a request, coloured by its state.
fn request(file: &File, boot: &Boot) -> Line {
    let colour = match file.state {
        State::Failed | State::Refused => Colour::Red,
        State::Missing => Colour::Yellow,
        State::Running | State::Complete | State::Probe => Colour::Default,
    };
    Line::wrapped(line(file, boot), STATE_COLUMN, colour)
}

fn headline(boot: &Boot, now: f64) -> Line {
    let more = if boot.more > 0 { format!(", {} earlier requests omitted", boot.more) } else { String::new() };
    let duration = (boot.last - boot.began).max(0.0);
    let (ago, requests) = (age(now - boot.began), boot.files.len());
    Line::cut(format!("boot {ago} ago, {duration:.1} s, {requests} requests{more}"))
}

/// Returns a line about a request: its time in the boot, its state and the details.
fn line(file: &File, boot: &Boot) -> String {
    let state = file.state.name();
    let mut line = format!("  {:>+9.3} s  {:<32} {state:<8}", file.began - boot.began, escape(&file.name));
    let is_sent = file.blksize > 0;
    if is_sent && file.state == State::Running {
        line += &format!(
            "  {}",
            progress_bar(file.acknowledged, file.size, file.acknowledged as f64 / file.seconds.max(0.001))
        );
    } else if is_sent && file.state != State::Probe {
        let rate = megabytes(file.acknowledged as f64 / file.seconds.max(1e-6));
        let size = file.size.filter(|&size| size != file.acknowledged).map(|size| format!(" of {size}"));
        let size = size.unwrap_or_default();
        line += &format!("  {}{size} bytes in {:.3} s, {rate:.1} MB/s", file.acknowledged, file.seconds);
    } else if file.state == State::Running {
        line += &format!("  for {:.1} s", file.seconds);
    }
    line += &details(file);
    line.trim_end().to_owned()
}

/// Returns the origin of a file, everything unusual about its transfer and, if there are several, its server.
fn details(file: &File) -> String {
    let mut details = vec![];
    if let Some(why) = &file.why {
        details.push(escape(why));
    }
    if file.blksize > 0 {
        details.push(format!("blksize {}, windowsize {}", file.blksize, file.windowsize));
    }
    if file.retransmitted > 0 {
        details.push(format!("{} retransmitted", file.retransmitted));
    }
    if file.copies > 0 {
        details.push(format!("requested {} times", file.copies.saturating_add(1)));
    }
    if let Some(title) = &file.boot_entry {
        details.push(format!("boot entry {}", escape(title)));
    }
    if let Some(origin) = &file.origin {
        let snapshot = file.snapshot_age.map(|age| format!(" (snapshot {age:.1} s old)")).unwrap_or_default();
        details.push(format!("from {}{snapshot}", escape(origin)));
    }
    if let Some(server) = &file.server {
        details.push(format!("by {}", escape(server)));
    }
    if details.is_empty() { String::new() } else { format!("  {}", details.join("; ")) }
}

#[cfg(test)]
pub(super) mod tests {
    use rtftp_runtime::history::snapshot::BoardState;

    use super::*;
    use crate::status::screen::Screen;

    /// Returns a client whose boot began at 1000 s.
    pub(in super::super) fn client(files: Vec<File>) -> Client {
        let boot = Boot { began: 1000.0, last: 1010.5, more: 0, files, mount: None };
        Client {
            client: "10.0.0.5".into(),
            name: None,
            state: BoardState::Running,
            status: "loading kernel8.img at 40 %".into(),
            summary: "loading kernel8.img at 40 %".into(),
            disk: None,
            boots: vec![boot],
            log: vec![],
        }
    }

    /// Returns a request of 2 s for a file of 1 MB, without data sent.
    pub(in super::super) fn file(name: &str, state: State) -> File {
        File {
            protocol: rtftp_runtime::history::snapshot::Protocol::Tftp,
            name: name.into(),
            origin: None,
            boot_entry: None,
            state,
            why: None,
            began: 1000.25,
            seconds: 2.0,
            size: Some(1_000_000),
            acknowledged: 0,
            retransmitted: 0,
            copies: 0,
            blksize: 0,
            windowsize: 0,
            snapshot_age: None,
            server: None,
        }
    }

    #[test]
    fn prints_a_line_for_each_state() {
        let sent = |file: File| File { blksize: 1468, windowsize: 4, origin: Some("10.0.0.5.nbd".into()), ..file };
        let failed = File { acknowledged: 400_000, why: Some("timed out".into()), ..file("initrd", State::Failed) };
        let complete = File { acknowledged: 1_000_000, retransmitted: 3, copies: 1, ..file("kernel", State::Complete) };
        let down = File {
            why: Some("no route\u{1b}".into()),
            origin: Some("10.0.0.5.nbd".into()),
            ..file("a", State::Failed)
        };
        let running = File { acknowledged: 500_000, ..file("dtb", State::Running) };
        let mut client = client(vec![
            file("start4.elf", State::Missing),
            sent(file("config.txt", State::Probe)),
            File { snapshot_age: Some(0.04), server: Some("nas1:8080".into()), ..sent(complete) },
            sent(failed),
            down,
            sent(running),
            file("slow", State::Running),
        ]);
        client.boots[0].more = 7;
        let text = "10.0.0.5.nbd: the server said \u{9b}".into();
        client.log = vec![LogLine { at: 1001.0, level: "error".into(), text }];
        let expected = "\
10.0.0.5: loading kernel8.img at 40 %

boot 2 min ago, 10.5 s, 7 requests, 7 earlier requests omitted
     +0.250 s  start4.elf                       missing
     +0.250 s  config.txt                       probe     blksize 1468, windowsize 4; from 10.0.0.5.nbd
     +0.250 s  kernel                           complete  1000000 bytes in 2.000 s, 0.5 MB/s  \
blksize 1468, windowsize 4; 3 retransmitted; requested 2 times; from 10.0.0.5.nbd (snapshot 0.0 s old); by nas1:8080
     +0.250 s  initrd                           failed    400000 of 1000000 bytes in 2.000 s, 0.2 MB/s  \
timed out; blksize 1468, windowsize 4; from 10.0.0.5.nbd
     +0.250 s  a                                failed    no route\\u{1b}; from 10.0.0.5.nbd
     +0.250 s  dtb                              running    50% [============            ] 0.5 MB  0.2 MB/s  0:02 left  \
blksize 1468, windowsize 4; from 10.0.0.5.nbd
     +0.250 s  slow                             running   for 2.0 s

log
    2 min ago  10.0.0.5.nbd: the server said \\u{9b}";
        assert_eq!(Screen::of_size(80, 24).text(&lines(&client, 1130.0)), format!("{expected}\n"));
    }
}
