//! The report as text: a table, then a line for each problem.

mod boot;

use std::fmt::Write as _;

use rtftp_runtime::{
    check::{Backend, Client, Directory, Disk, Files, Group, HttpUrls, Mount, Partition, Report},
    text::printable,
};

/// The column titles.
const TITLES: [&str; 8] = ["CLIENT", "URL", "REACHABLE", "PARTITIONS", "MOUNTS", "FILES", "KERNEL", "IN USE"];

/// The maximum number of subvolumes in a cell.
const MAX_SUBVOLUMES: usize = 8;

/// The text of an empty cell.
const EMPTY: &str = "-";

/// The column titles of the table about HTTP.
const HTTP_TITLES: [&str; 3] = ["CLIENT", "URL OVER HTTP", "CONTENT-TYPE"];

type Row = [String; TITLES.len()];

/// Returns the report as text with a final newline.
pub(super) fn text(report: &Report) -> String {
    let mut rows = vec![TITLES.map(str::to_owned)];
    rows.extend(report.clients.iter().map(client));
    rows.extend(report.directories.iter().map(directory));
    let mut text = if rows.len() > 1 { aligned(&rows) } else { "no clients\n".into() };
    let disks = report.clients.iter().filter_map(|client| {
        let files = client.disk.as_ref()?.files.as_ref()?;
        Some((client.name.clone(), files))
    });
    let directories = report.directories.iter().map(|directory| (format!("{}/", directory.name), &directory.files));
    for (name, files) in disks.chain(directories) {
        if let Some(incomplete) = files.incomplete {
            // Writing to a string cannot fail, here and below.
            let _ = writeln!(text, "+ {name}: {incomplete}");
        }
    }
    for Group { name, board, url } in &report.groups {
        let _ = writeln!(text, "+ {name}: a disk for each board, not checked; example: {board} has {url}");
    }
    if let Some(urls) = &report.http {
        text.push_str(&http(report, urls));
    }
    for client in &report.clients {
        if let Some(boot) = client.disk.as_ref().and_then(|disk| disk.boot.as_ref()) {
            text.push_str(&boot::text(&client.name, boot));
        }
    }
    match report.problems.len() {
        0 => text.push_str("\nno problems\n"),
        1 => text.push_str("\n1 problem:\n"),
        count => drop(writeln!(text, "\n{count} problems:")),
    }
    for problem in &report.problems {
        let _ = writeln!(text, "  {problem}");
    }
    text
}

/// Returns a table with the URL of each kernel.
fn http(report: &Report, HttpUrls { url, prefix }: &HttpUrls) -> String {
    let row = |name: String, files: Option<&Files>| {
        let Some(files) = files else { return [name, empty(), empty()] };
        let Some(kernel) = &files.kernel else { return [name, format!("{url}..."), empty()] };
        let content_type = kernel.content_type.unwrap_or(EMPTY);
        [name, kernel.url.clone().unwrap_or_else(empty), content_type.to_owned()]
    };
    let disks = report.clients.iter().map(|client| {
        let files = client.disk.as_ref().and_then(|disk| disk.files.as_ref());
        row(client.name.clone(), files)
    });
    let directories =
        report.directories.iter().map(|directory| row(format!("{}/", directory.name), Some(&directory.files)));
    let rows: Vec<_> = [HTTP_TITLES.map(str::to_owned)].into_iter().chain(disks).chain(directories).collect();
    let mut text = format!("\n{}", aligned(&rows));
    if !prefix.is_empty() {
        let directory = &prefix[1..];
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "{prefix} is removed from the start of paths: the file {directory}/F has the URL {url}{directory}/F"
        );
    }
    text
}

fn client(client: &Client) -> Row {
    let name = client.name.clone();
    let Some(disk) = &client.disk else {
        return [name, empty(), empty(), empty(), empty(), empty(), empty(), empty()];
    };
    let reachable = disk.unreachable.as_ref().map_or("yes".into(), |why| format!("no: {why}"));
    let (count, kernel) = disk.files.as_ref().map_or((empty(), empty()), files);
    [name, disk.url.clone(), reachable, partitions(disk), mounts(disk), count, kernel, in_use(disk)]
}

fn directory(directory: &Directory) -> Row {
    let (count, kernel) = files(&directory.files);
    [format!("{}/", directory.name), empty(), empty(), empty(), empty(), count, kernel, empty()]
}

/// Returns an empty cell.
fn empty() -> String {
    EMPTY.into()
}

/// Returns the cells of a tree's files: their number and total size, and the kernel.
fn files(files: &Files) -> (String, String) {
    let more = if files.incomplete.is_some() { "+" } else { "" };
    let count = format!("{}{more}, {}{more}", files.count, size(files.bytes));
    let kernel = files.kernel.as_ref().map(|kernel| format!("{}, {}", kernel.path, size(kernel.size)));
    (count, kernel.unwrap_or_else(empty))
}

fn partitions(disk: &Disk) -> String {
    let shown = |partition: &Partition| {
        let contents = partition.contents.as_deref().unwrap_or("unknown");
        let subvolumes = match &partition.subvolumes[..] {
            [] => String::new(),
            all if all.len() <= MAX_SUBVOLUMES => format!(" ({})", all.join(", ")),
            all => format!(" ({}, {} more)", all[..MAX_SUBVOLUMES].join(", "), all.len() - MAX_SUBVOLUMES),
        };
        format!("{} {contents}{subvolumes}", number(partition))
    };
    joined(disk.partitions.iter().map(shown))
}

fn mounts(disk: &Disk) -> String {
    let shown = |mount: &Mount| {
        let source = mount.source.strip_prefix("partition ").unwrap_or(&mount.source);
        let subvolume = mount.subvolume.as_ref().map(|path| format!(" {}", path.trim_start_matches('/')));
        format!("{source}{} on {}", subvolume.unwrap_or_default(), mount.mountpoint)
    };
    let mounts = joined(disk.mounts.iter().map(shown));
    match disk.backend {
        Some(Backend::Guestfs) => format!("{mounts} (guestfs)"),
        Some(_) => format!("{mounts} (native)"),
        None => mounts,
    }
}

/// Returns the numbers of the partitions in use.
fn in_use(disk: &Disk) -> String {
    let used = disk.partitions.iter().filter(|partition| partition.in_use == Some(true));
    let used = joined(used.map(number));
    let is_known = disk.partitions.iter().any(|partition| partition.in_use.is_some());
    if used == EMPTY && is_known { "no".into() } else { used }
}

fn number(partition: &Partition) -> String {
    if partition.number == 0 { "whole disk".into() } else { partition.number.to_string() }
}

fn joined(parts: impl Iterator<Item = String>) -> String {
    let parts: Vec<String> = parts.collect();
    if parts.is_empty() { empty() } else { parts.join(", ") }
}

/// Formats a size with a decimal unit.
fn size(bytes: u64) -> String {
    let units = [("GB", 1e9), ("MB", 1e6), ("kB", 1e3)];
    match units.into_iter().find(|(_, unit)| bytes as f64 >= *unit) {
        Some((name, unit)) => format!("{:.1} {name}", bytes as f64 / unit),
        None => format!("{bytes} B"),
    }
}

/// Formats rows as lines with aligned columns.
fn aligned<const N: usize>(rows: &[[String; N]]) -> String {
    // Names of files and labels come from the disks.
    let rows: Vec<_> = rows.iter().map(|row| row.each_ref().map(|cell| printable(cell.as_bytes()))).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
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
    use rtftp_runtime::check::{Backend, Incomplete, Kernel, Problem, ProblemKind};

    use super::*;

    /// Returns a report with a reachable, an unreachable and an invalid client, a directory and problems.
    pub(crate) fn report() -> Report {
        let mount = |source: &str, mountpoint: &str| Mount {
            source: source.into(),
            subvolume: None,
            mountpoint: mountpoint.into(),
        };
        let partition = |number, size, contents: &str, in_use| Partition {
            number,
            size,
            contents: Some(contents.into()),
            in_use: Some(in_use),
            subvolumes: vec![],
        };
        let content_type = Some("application/vnd.efi-img");
        let kernel = Some(Kernel { content_type, ..Kernel::new(b"kernel8.img", 9_200_000) });
        let good = Disk {
            url: "nbd://10.10.10.10/five".into(),
            unreachable: None,
            partitions: vec![partition(1, 64_000_000, "FAT32", false), partition(2, 32_000_000, "ext4", true)],
            mounts: vec![mount("partition 2", "/"), mount("partition 1", "/boot")],
            tftp_root: "/boot".into(),
            backend: Some(Backend::Native),
            files: Some(Files {
                count: 312,
                bytes: 58_100_000,
                kernel,
                incomplete: Some(Incomplete::Names),
                ..Files::default()
            }),
            boot: None,
        };
        let dead = Disk {
            url: "nbd://10.10.10.11/six".into(),
            unreachable: Some("Connection refused (os error 111)".into()),
            partitions: vec![],
            mounts: vec![mount("the whole disk", "/")],
            tftp_root: "/".into(),
            backend: None,
            files: None,
            boot: None,
        };
        let client = |name: &str, disk| Client { name: name.into(), disk };
        let problem = |name: &str, kind| Problem { name: name.into(), kind };
        let refused = ProblemKind::Unreachable {
            url: "nbd://10.10.10.11/six".into(),
            reason: "Connection refused (os error 111)".into(),
        };
        let invalid = ProblemKind::InvalidDescription("line 2, column 3: url: expected a string, found 1".into());
        Report {
            clients: vec![client("10.0.0.5", Some(good)), client("10.0.0.6", Some(dead)), client("fe80::7", None)],
            directories: vec![Directory {
                name: "default".into(),
                files: Files { count: 1, bytes: 999, ..Files::default() },
            }],
            groups: vec![Group {
                name: "default.nbd".into(),
                board: "ip 10.0.0.1".into(),
                url: "nbd://10.10.10.10/10.0.0.1".into(),
            }],
            http: None,
            problems: vec![problem("10.0.0.6.nbd", refused), problem("fe80::7.nbd", invalid)],
        }
    }

    #[test]
    fn prints_a_table_and_a_line_for_each_problem() {
        let expected = "\
CLIENT    URL                     REACHABLE                              PARTITIONS       MOUNTS                        FILES            KERNEL               IN USE
10.0.0.5  nbd://10.10.10.10/five  yes                                    1 FAT32, 2 ext4  2 on /, 1 on /boot (native)   312+, 58.1 MB+   kernel8.img, 9.2 MB  2
10.0.0.6  nbd://10.10.10.11/six   no: Connection refused (os error 111)  -                the whole disk on /           -                -                    -
fe80::7   -                       -                                      -                -                             -                -                    -
default/  -                       -                                      -                -                             1, 999 B         -                    -
+ 10.0.0.5: only the first 20000 names were checked
+ default.nbd: a disk for each board, not checked; example: ip 10.0.0.1 has nbd://10.10.10.10/10.0.0.1

2 problems:
  10.0.0.6.nbd: nbd://10.10.10.11/six: Connection refused (os error 111)
  fe80::7.nbd: line 2, column 3: url: expected a string, found 1
";
        // The widths of the columns are tested below.
        let squeezed = |text: &str| {
            text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>()
        };
        let text = text(&report());
        assert_eq!(squeezed(&text), squeezed(expected));
        let starts: Vec<_> = text.lines().take(2).map(|line| line.find("FILES").or(line.find("312+"))).collect();
        assert_eq!(starts[0], starts[1], "columns are aligned\n{text}");
    }

    #[test]
    fn prints_urls_of_a_server_with_http() {
        let mut report = report();
        report.add_urls("http://10.0.0.1:8080", "boot/");
        let expected = "
CLIENT    URL OVER HTTP                          CONTENT-TYPE
10.0.0.5  http://10.0.0.1:8080/boot/kernel8.img  application/vnd.efi-img
10.0.0.6  -                                      -
fe80::7   -                                      -
default/  http://10.0.0.1:8080/boot/...          -
/boot is removed from the start of paths: the file boot/F has the URL http://10.0.0.1:8080/boot/boot/F

2 problems:
";
        assert!(text(&report).contains(expected), "{}", text(&report));
        report.add_urls("http://SERVER", "");
        let text = text(&report);
        assert!(text.contains(" http://SERVER/kernel8.img ") && !text.contains("removed"), "{text}");
    }

    #[test]
    fn texts_of_disks_stay_in_their_line() {
        let mut report = report();
        let lines = text(&report).lines().count();
        let disk = report.clients[0].disk.as_mut().expect("a disk");
        let hostile = "label \u{1b}[2J\nforged".repeat(1000);
        disk.partitions[0].contents = Some(hostile.clone());
        disk.tftp_root = hostile.clone();
        disk.mounts[0].mountpoint = hostile.clone();
        report.problems[0].kind = ProblemKind::UnreadableDisk(hostile);
        let text = text(&report);
        assert_eq!(text.lines().count(), lines, "{text}");
        assert!(text.chars().all(|character| character == '\n' || !character.is_control()), "{text}");
        assert!(text.contains(r"label \u{1b}[2J\nforgedlabel"), "{text}");
        assert!(text.lines().all(|line| line.len() < 2000), "{text}");
    }

    #[test]
    fn prints_no_table_for_an_empty_root() {
        assert_eq!(text(&Report::default()), "no clients\n\nno problems\n");
    }

    #[test]
    fn shows_whether_partitions_are_in_use() {
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
    fn names_some_subvolumes() {
        let mut disk = report().clients[0].disk.clone().expect("a disk");
        disk.partitions.truncate(1);
        disk.partitions[0].subvolumes = vec!["@".into(), "@home".into()];
        assert_eq!(partitions(&disk), "1 FAT32 (@, @home)");
        disk.partitions[0].subvolumes = (1..=10).map(|number: u8| number.to_string()).collect();
        assert_eq!(partitions(&disk), "1 FAT32 (1, 2, 3, 4, 5, 6, 7, 8, 2 more)");
        disk.mounts[0].subvolume = Some("/@".into());
        assert_eq!(mounts(&disk), "2 @ on /, 1 on /boot (native)");
    }

    #[test]
    fn formats_sizes_with_decimal_units() {
        for (bytes, expected) in
            [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (58_100_000, "58.1 MB"), (2_500_000_000, "2.5 GB")]
        {
            assert_eq!(size(bytes), expected);
        }
    }
}
