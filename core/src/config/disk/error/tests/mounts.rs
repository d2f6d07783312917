//! Mounts that are not valid.

use super::*;

#[test]
fn rejects_invalid_mounts() {
    for (mounts, message) in [
        ("[ ]", "line 1, column 35: mounts: expected at least one mount, found an empty list"),
        (
            "[5]",
            r#"line 1, column 36: mounts[0]: expected a mount such as {"partition": 1, "mountpoint": "/"}, found 5"#,
        ),
        (
            "[[]]",
            r#"line 1, column 36: mounts[0]: expected a mount such as {"partition": 1, "mountpoint": "/"}, found an empty list"#,
        ),
        (
            "[null]",
            r#"line 1, column 36: mounts[0]: expected a mount such as {"partition": 1, "mountpoint": "/"}, found null"#,
        ),
        ("[{}]", "line 1, column 37: mounts[0]: expected the field mountpoint, found none"),
        (r#"[{"partition": 1}]"#, "line 1, column 51: mounts[0]: expected the field mountpoint, found none"),
        (
            r#"[{"partition": 1, "device": "/dev/sda", "mountpoint": "/"}]"#,
            "line 1, column 53: mounts[0]: expected either partition or device, found both",
        ),
        (
            r#"[{"device": "/dev/sda", "mountpoint": "/", "partition": 1}]"#,
            "line 1, column 78: mounts[0]: expected either partition or device, found both",
        ),
        (
            r#"[{"partition": 1, "partition": 1}]"#,
            "line 1, column 53: mounts[0].partition: expected the field once, found it a second time",
        ),
        (
            r#"[{"partition": 1, "mountpoint": "/", "type": "ext4"}]"#,
            r#"line 1, column 72: mounts[0]: expected one of the fields partition, device, subvol and mountpoint, found "type""#,
        ),
        (
            r#"[{"subvol": "@", "device": "btrfsvol:/dev/sda2/@", "mountpoint": "/"}]"#,
            "line 1, column 62: mounts[0].device: expected either subvol or a device btrfsvol:..., found both",
        ),
        (
            r#"[{"device": "btrfsvol:/dev/sda2/@", "subvol": "@", "mountpoint": "/"}]"#,
            "line 1, column 71: mounts[0]: expected either subvol or a device btrfsvol:..., found both",
        ),
        (
            r#"[{"subvol": ""}]"#,
            r#"line 1, column 47: mounts[0].subvol: expected the path of a subvolume such as "@", found """#,
        ),
        (
            r#"[{"subvol": "/@/../home"}]"#,
            r#"line 1, column 47: mounts[0].subvol: expected a path without . and .., found "/@/../home""#,
        ),
        (r#"[{"subvol": 256}]"#, "line 1, column 47: mounts[0].subvol: expected a string, found 256"),
        (
            r#"[{"partition": 257}]"#,
            "line 1, column 50: mounts[0].partition: expected a partition number from 0 to 255, found 257",
        ),
        (
            r#"[{"partition": 01}]"#,
            "line 1, column 50: mounts[0].partition: expected a partition number from 0 to 255, found 01",
        ),
        (
            r#"[{"partition": -1}]"#,
            "line 1, column 50: mounts[0].partition: expected a partition number from 0 to 255, found -1",
        ),
        (
            r#"[{"partition": +1}]"#,
            "line 1, column 50: mounts[0].partition: expected a partition number from 0 to 255, found +1",
        ),
        (
            r#"[{"partition": 256}]"#,
            "line 1, column 50: mounts[0].partition: expected a partition number from 0 to 255, found 256",
        ),
        (
            r#"[{"partition": 4294967296}]"#,
            "line 1, column 50: mounts[0].partition: expected a partition number from 0 to 255, found 4294967296",
        ),
        (
            r#"[{"partition": 1.5}]"#,
            "line 1, column 50: mounts[0].partition: expected a partition number from 0 to 255, found 1.5",
        ),
        (
            r#"[{"partition":2e0}]"#,
            "line 1, column 49: mounts[0].partition: expected a partition number from 0 to 255, found 2e0",
        ),
        (
            r#"[{"partition": "1"}]"#,
            r#"line 1, column 50: mounts[0].partition: expected a partition number from 0 to 255, found "1""#,
        ),
        (
            r#"[{"partition": null}]"#,
            "line 1, column 50: mounts[0].partition: expected a partition number from 0 to 255, found null",
        ),
        (
            r#"[{"partition": {}}]"#,
            "line 1, column 50: mounts[0].partition: expected a partition number from 0 to 255, found an object",
        ),
        (
            r#"[{"device": ""}]"#,
            r#"line 1, column 47: mounts[0].device: expected a device such as "/dev/sda", found """#,
        ),
        (
            r#"[{"device": "/dev/sda\n"}]"#,
            r#"line 1, column 47: mounts[0].device: expected a device without control characters, found "/dev/sda\n""#,
        ),
        (r#"[{"device": 1}]"#, "line 1, column 47: mounts[0].device: expected a string, found 1"),
        (r#"[{"mountpoint": ""}]"#, r#"line 1, column 51: mounts[0].mountpoint: expected an absolute path, found """#),
        (
            r#"[{"mountpoint": "boot"}]"#,
            r#"line 1, column 51: mounts[0].mountpoint: expected an absolute path, found "boot""#,
        ),
        (
            r#"[{"mountpoint": "/./a"}]"#,
            r#"line 1, column 51: mounts[0].mountpoint: expected a path without . and .., found "/./a""#,
        ),
        (
            r#"[{"mountpoint": "/a/.."}]"#,
            r#"line 1, column 51: mounts[0].mountpoint: expected a path without . and .., found "/a/..""#,
        ),
        (
            r#"[{"mountpoint": "/a\u0000"}]"#,
            r#"line 1, column 51: mounts[0].mountpoint: expected a path without control characters, found "/a\u0000""#,
        ),
        (
            "[{\"mountpoint\": \"/a\nb\"}]",
            r#"line 1, column 51: mounts[0].mountpoint: expected a path without control characters, found "/a\nb""#,
        ),
        (
            r#"[{"mountpoint": "/a\u007f"}]"#,
            r#"line 1, column 51: mounts[0].mountpoint: expected a path without control characters, found "/a\u007f""#,
        ),
        (
            r#"[{"partition": 1, "mountpoint": "/boot"}, {"partition": 2, "mountpoint": "/"}]"#,
            r#"line 1, column 67: mounts[0].mountpoint: expected "/" as the first mountpoint, found "/boot", whose parent is not mounted"#,
        ),
        (
            r#"[{"partition": 1, "mountpoint": "/"}, {"partition": 2, "mountpoint": "//"}]"#,
            r#"line 1, column 104: mounts[1].mountpoint: expected a mountpoint of its own, found "//", which mounts[0] has"#,
        ),
    ] {
        rejects(with_mounts(mounts), message);
    }
    rejects(
        with_mounts(r#"[{"mountpoint": "/"}], "backend": "kernel""#),
        r#"line 1, column 69: backend: expected "native" or "guestfs", found "kernel""#,
    );
    rejects(
        with_mounts("[\n{\"mountpoint\": \"/\", \"partition\": 1},\n{\"mountpoint\": \"/a\", \"partition\": 256}]"),
        "line 3, column 35: mounts[1].partition: expected a partition number from 0 to 255, found 256",
    );
    rejects(
        with_mounts(&format!(r#"[{{"device": "{}"}}]"#, "a".repeat(256))),
        r#"line 1, column 47: mounts[0].device: expected at most 255 bytes, found "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa..."#,
    );
    rejects(
        with_mounts(&format!(r#"[{{"device": "\u0061{}"}}]"#, "a".repeat(1152))),
        r#"line 1, column 47: mounts[0].device: expected at most 255 bytes, found "\u0061aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa..."#,
    );
}
