//! The report as one JSON document.

use rtftp_runtime::check::Report;
use serde::Serialize;

/// The document; keys are part of the interface.
#[derive(Serialize)]
struct Document<'a> {
    /// Whether there are no problems.
    well: bool,
    #[serde(flatten)]
    report: &'a Report,
}

/// Returns the JSON document with a final newline.
pub(super) fn document(report: &Report) -> String {
    let document = Document { well: report.problems.is_empty(), report };
    // Strings, numbers and lists always have a form in JSON.
    let json = serde_json::to_string_pretty(&document).unwrap_or_default();
    format!("{json}\n")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{super::table::tests::report, *};

    #[test]
    fn a_report_has_the_documented_keys() {
        let mut report = report();
        report.add_urls("http://SERVER", "/boot");
        let document: Value = serde_json::from_str(&document(&report)).expect("JSON");
        let (url, content_type) = ("http://SERVER/boot/kernel8.img", "application/vnd.efi-img");
        let kernel = json!({ "path": "kernel8.img", "bytes": 9_200_000, "content_type": content_type, "url": url });
        let partitions = json!([
            { "number": 1, "bytes": 64_000_000, "contents": "FAT32", "in_use": false, "subvolumes": [] },
            { "number": 2, "bytes": 32_000_000, "contents": "ext4", "in_use": true, "subvolumes": [] },
        ]);
        let mounts = json!([
            { "source": "partition 2", "subvolume": null, "mountpoint": "/" },
            { "source": "partition 1", "subvolume": null, "mountpoint": "/boot" },
        ]);
        let incomplete = "only the first 20000 names were checked";
        let good = json!({
            "url": "nbd://10.10.10.10/five", "reachable": true, "unreachable": null, "partitions": partitions,
            "mounts": mounts, "tftp_root": "/boot", "backend": "native",
            "files": { "count": 312, "bytes": 58_100_000, "kernel": kernel, "incomplete": incomplete },
            "boot": null,
        });
        let dead = json!({
            "url": "nbd://10.10.10.11/six", "reachable": false, "unreachable": "Connection refused (os error 111)",
            "partitions": [], "mounts": [{ "source": "the whole disk", "subvolume": null, "mountpoint": "/" }], "tftp_root": "/",
            "backend": null, "files": null, "boot": null,
        });
        let expected = json!({
            "well": false,
            "clients": [
                { "client": "10.0.0.5", "disk": good },
                { "client": "10.0.0.6", "disk": dead },
                { "client": "fe80::7", "disk": null },
            ],
            "groups": [{ "file": "default.nbd", "board": "ip 10.0.0.1", "url": "nbd://10.10.10.10/10.0.0.1" }],
            "directories": [
                { "name": "default", "files": { "count": 1, "bytes": 999, "kernel": null, "incomplete": null } },
            ],
            "http": { "url": "http://SERVER/boot/", "prefix": "/boot" },
            "mistakes": [
                { "name": "10.0.0.6.nbd", "mistake": "nbd://10.10.10.11/six: Connection refused (os error 111)" },
                { "name": "fe80::7.nbd", "mistake": "line 2, column 3: url: expected a string, found 1" },
            ],
        });
        assert_eq!(document, expected);
    }

    #[test]
    fn an_empty_report_is_well() {
        let document: Value = serde_json::from_str(&document(&Report::default())).expect("JSON");
        assert_eq!(
            document,
            json!({ "well": true, "clients": [], "groups": [], "directories": [], "http": null, "mistakes": [] })
        );
    }
}
