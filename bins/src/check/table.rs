//! The report for people: a table, and below it a line for every mistake.

use std::fmt::Write as _;

use rtftp_runtime::check::{Client, Directory, Disk, Files, Mount, Partition, Report};

use super::json::backend;

/// The columns.
const HEADS: [&str; 8] = ["CLIENT", "URL", "REACHABLE", "PARTITIONS", "MOUNTS", "FILES", "KERNEL", "IN USE"];

/// What is shown of what is not known.
const UNKNOWN: &str = "-";

type Row = [String; HEADS.len()];

/// The whole text, with a line end.
pub(super) fn text(report: &Report) -> String {
    let mut rows = vec![HEADS.map(str::to_owned)];
    rows.extend(report.clients.iter().map(client));
    rows.extend(report.directories.iter().map(directory));
    let mut text = if rows.len() > 1 { aligned(&rows) } else { "no clients\n".into() };
    let disks = report.clients.iter().filter_map(|client| {
        let files = client.disk.as_ref()?.files.as_ref()?;
        Some((client.name.clone(), files))
    });
    let directories = report.directories.iter().map(|directory| (format!("{}/", directory.name), &directory.files));
    for (name, files) in disks.chain(directories) {
        if let Some(cut) = files.cut {
            // Writing to a string cannot fail, here and below.
            let _ = writeln!(text, "+ {name}: {cut}");
        }
    }
    match report.mistakes.len() {
        0 => text.push_str("\nall is well\n"),
        1 => text.push_str("\n1 mistake:\n"),
        count => drop(writeln!(text, "\n{count} mistakes:")),
    }
    for mistake in &report.mistakes {
        let _ = writeln!(text, "  {mistake}");
    }
    text
}

fn client(client: &Client) -> Row {
    let name = client.name.clone();
    let Some(disk) = &client.disk else {
        return [name, unknown(), unknown(), unknown(), unknown(), unknown(), unknown(), unknown()];
    };
    let reachable = disk.unreachable.as_ref().map_or("yes".into(), |why| format!("no: {why}"));
    let (count, kernel) = disk.files.as_ref().map_or((unknown(), unknown()), files);
    [name, disk.url.clone(), reachable, partitions(disk), mounts(disk), count, kernel, in_use(disk)]
}

fn directory(directory: &Directory) -> Row {
    let (count, kernel) = files(&directory.files);
    [format!("{}/", directory.name), unknown(), unknown(), unknown(), unknown(), count, kernel, unknown()]
}

/// A cell of which nothing is known.
fn unknown() -> String {
    UNKNOWN.into()
}

/// How many files there are and how long they are together, and the kernel among them.
fn files(files: &Files) -> (String, String) {
    let more = if files.cut.is_some() { "+" } else { "" };
    let count = format!("{}{more}, {}{more}", files.count, size(files.bytes));
    let kernel = files.kernel.as_ref().map(|kernel| format!("{}, {}", kernel.path, size(kernel.size)));
    (count, kernel.unwrap_or_else(unknown))
}

fn partitions(disk: &Disk) -> String {
    let shown = |partition: &Partition| {
        let contents = partition.contents.as_deref().unwrap_or("unknown");
        format!("{} {contents}", number(partition))
    };
    joined(disk.partitions.iter().map(shown))
}

fn mounts(disk: &Disk) -> String {
    let shown = |mount: &Mount| {
        let source = mount.source.strip_prefix("partition ").unwrap_or(&mount.source);
        format!("{source} on {}", mount.mountpoint)
    };
    let mounts = joined(disk.mounts.iter().map(shown));
    match disk.backend {
        Some(by) => format!("{mounts} ({})", backend(by)),
        None => mounts,
    }
}

/// The partitions in use.
fn in_use(disk: &Disk) -> String {
    let used = disk.partitions.iter().filter(|partition| partition.in_use == Some(true));
    let used = joined(used.map(number));
    let is_known = disk.partitions.iter().any(|partition| partition.in_use.is_some());
    if used == UNKNOWN && is_known { "no".into() } else { used }
}

fn number(partition: &Partition) -> String {
    if partition.number == 0 { "whole disk".into() } else { partition.number.to_string() }
}

fn joined(parts: impl Iterator<Item = String>) -> String {
    let parts: Vec<String> = parts.collect();
    if parts.is_empty() { unknown() } else { parts.join(", ") }
}

/// A size as people say it.
fn size(bytes: u64) -> String {
    let units = [("GB", 1e9), ("MB", 1e6), ("kB", 1e3)];
    match units.into_iter().find(|(_, unit)| bytes as f64 >= *unit) {
        Some((name, unit)) => format!("{:.1} {name}", bytes as f64 / unit),
        None => format!("{bytes} B"),
    }
}

/// Rows as lines, their cells below each other.
fn aligned(rows: &[Row]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; HEADS.len()] = std::array::from_fn(width);
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            let _ = write!(line, "{cell:width$}  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
pub(super) mod tests {
    use rtftp_runtime::check::{Backend, Cut, Kernel, Mistake};

    use super::*;

    /// A report with a bit of everything.
    pub(crate) fn report() -> Report {
        let mount = |source: &str, mountpoint: &str| Mount { source: source.into(), mountpoint: mountpoint.into() };
        let partition = |number, size, contents: &str, in_use| Partition {
            number,
            size,
            contents: Some(contents.into()),
            in_use: Some(in_use),
        };
        let kernel = Some(Kernel { path: "kernel8.img".into(), size: 9_200_000 });
        let good = Disk {
            url: "nbd://10.10.10.10/five".into(),
            unreachable: None,
            partitions: vec![partition(1, 64_000_000, "FAT32", false), partition(2, 32_000_000, "ext4", true)],
            mounts: vec![mount("partition 2", "/"), mount("partition 1", "/boot")],
            tftp_root: "/boot".into(),
            backend: Some(Backend::Native),
            files: Some(Files { count: 312, bytes: 58_100_000, kernel, cut: Some(Cut::Names), ..Files::default() }),
        };
        let dead = Disk {
            url: "nbd://10.10.10.11/six".into(),
            unreachable: Some("Connection refused (os error 111)".into()),
            partitions: vec![],
            mounts: vec![mount("the whole disk", "/")],
            tftp_root: "/".into(),
            backend: None,
            files: None,
        };
        let client = |name: &str, disk| Client { name: name.into(), disk };
        let mistake = |name: &str, what: &str| Mistake { name: name.into(), what: what.into() };
        Report {
            clients: vec![client("10.0.0.5", Some(good)), client("10.0.0.6", Some(dead)), client("fe80::7", None)],
            directories: vec![Directory {
                name: "default".into(),
                files: Files { count: 1, bytes: 999, ..Files::default() },
            }],
            mistakes: vec![
                mistake("10.0.0.6.nbd", "nbd://10.10.10.11/six: Connection refused (os error 111)"),
                mistake("fe80::7.nbd", "line 2, column 3: url: expected a string, found 1"),
            ],
        }
    }

    #[test]
    fn a_report_is_a_table_and_lines_for_mistakes() {
        let expected = "\
CLIENT    URL                     REACHABLE                              PARTITIONS       MOUNTS                        FILES            KERNEL               IN USE
10.0.0.5  nbd://10.10.10.10/five  yes                                    1 FAT32, 2 ext4  2 on /, 1 on /boot (native)   312+, 58.1 MB+   kernel8.img, 9.2 MB  2
10.0.0.6  nbd://10.10.10.11/six   no: Connection refused (os error 111)  -                the whole disk on /           -                -                    -
fe80::7   -                       -                                      -                -                             -                -                    -
default/  -                       -                                      -                -                             1, 999 B         -                    -
+ 10.0.0.5: only the first 20000 names were looked at

2 mistakes:
  10.0.0.6.nbd: nbd://10.10.10.11/six: Connection refused (os error 111)
  fe80::7.nbd: line 2, column 3: url: expected a string, found 1
";
        // Blanks between columns are not what this is about.
        let squeezed = |text: &str| {
            text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>()
        };
        let text = text(&report());
        assert_eq!(squeezed(&text), squeezed(expected));
        let starts: Vec<_> = text.lines().take(2).map(|line| line.find("FILES").or(line.find("312+"))).collect();
        assert_eq!(starts[0], starts[1], "columns are aligned\n{text}");
    }

    #[test]
    fn an_empty_root_has_no_table() {
        assert_eq!(text(&Report::default()), "no clients\n\nall is well\n");
    }

    #[test]
    fn a_disk_that_nobody_uses_says_so() {
        let report = report();
        let mut disk = report.clients[0].disk.clone().expect("a disk");
        assert_eq!(in_use(&disk), "2");
        disk.partitions.truncate(1);
        assert_eq!(in_use(&disk), "no");
        disk.partitions[0].in_use = None;
        assert_eq!(in_use(&disk), "-");
        disk.partitions[0].number = 0;
        assert_eq!(partitions(&disk), "whole disk FAT32");
    }

    #[test]
    fn sizes_are_as_people_say_them() {
        for (bytes, said) in
            [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (58_100_000, "58.1 MB"), (2_500_000_000, "2.5 GB")]
        {
            assert_eq!(size(bytes), said);
        }
    }
}
