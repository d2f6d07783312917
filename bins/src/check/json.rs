//! The report for programs: one JSON document.

use rtftp_runtime::check::{Backend, Client, Disk, Files, Mount, Partition, Report};
use serde_json::{Value, json};

/// The document, with a line end. What is not known is `null`.
pub(super) fn document(report: &Report) -> String {
    let document = json!({
        "well": report.mistakes.is_empty(),
        "clients": report.clients.iter().map(client).collect::<Vec<_>>(),
        "directories": report.directories.iter().map(|directory| {
            json!({ "name": directory.name, "files": files(&directory.files) })
        }).collect::<Vec<_>>(),
        "mistakes": report.mistakes.iter().map(|mistake| {
            json!({ "name": mistake.name, "mistake": mistake.what })
        }).collect::<Vec<_>>(),
    });
    format!("{document:#}\n")
}

fn client(client: &Client) -> Value {
    json!({ "client": client.name, "disk": client.disk.as_ref().map(disk) })
}

fn disk(disk: &Disk) -> Value {
    json!({
        "url": disk.url,
        "reachable": disk.unreachable.is_none(),
        "unreachable": disk.unreachable,
        "partitions": disk.partitions.iter().map(partition).collect::<Vec<_>>(),
        "mounts": disk.mounts.iter().map(mount).collect::<Vec<_>>(),
        "tftp_root": disk.tftp_root,
        "backend": disk.backend.map(backend),
        "files": disk.files.as_ref().map(files),
    })
}

/// The name that a backend has in an `.nbd` file.
pub(super) fn backend(backend: Backend) -> &'static str {
    match backend {
        Backend::Native => "native",
        Backend::Guestfs => "guestfs",
    }
}

fn partition(partition: &Partition) -> Value {
    let Partition { number, size, contents, in_use } = partition;
    json!({ "number": number, "bytes": size, "contents": contents, "in_use": in_use })
}

fn mount(mount: &Mount) -> Value {
    json!({ "source": mount.source, "mountpoint": mount.mountpoint })
}

fn files(files: &Files) -> Value {
    json!({
        "count": files.count,
        "bytes": files.bytes,
        "incomplete": files.cut.map(|cut| cut.to_string()),
        "kernel": files.kernel.as_ref().map(|kernel| json!({ "path": kernel.path, "bytes": kernel.size })),
    })
}

#[cfg(test)]
mod tests {
    use super::{super::table::tests::report, *};

    #[test]
    fn a_report_is_one_document() {
        let document: Value = serde_json::from_str(&document(&report())).expect("JSON");
        assert_eq!(document["well"], false);
        let [good, dead, wrong] = [0, 1, 2].map(|index| &document["clients"][index]);
        assert_eq!(good["client"], "10.0.0.5");
        assert_eq!(good["disk"]["reachable"], true);
        assert_eq!(good["disk"]["unreachable"], Value::Null);
        assert_eq!(
            good["disk"]["partitions"][1],
            json!({ "number": 2, "bytes": 32_000_000, "contents": "ext4", "in_use": true })
        );
        assert_eq!(good["disk"]["mounts"][0], json!({ "source": "partition 2", "mountpoint": "/" }));
        assert_eq!(good["disk"]["backend"], "native");
        assert_eq!(good["disk"]["files"]["kernel"], json!({ "path": "kernel8.img", "bytes": 9_200_000 }));
        assert_eq!(good["disk"]["files"]["incomplete"], "only the first 20000 names were looked at");
        assert_eq!(dead["disk"]["unreachable"], "Connection refused (os error 111)");
        assert_eq!(dead["disk"]["files"], Value::Null);
        assert_eq!(wrong["disk"], Value::Null);
        assert_eq!(document["directories"][0]["files"]["count"], 1);
        assert_eq!(document["mistakes"][0]["name"], "10.0.0.6.nbd");
    }

    #[test]
    fn what_is_well_says_so() {
        let document: Value = serde_json::from_str(&document(&Report::default())).expect("JSON");
        assert_eq!(document, json!({ "well": true, "clients": [], "directories": [], "mistakes": [] }));
    }
}
