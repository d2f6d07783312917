mod mounts;

use std::{
    format,
    string::{String as StdString, ToString},
};

use super::{super::DiskConfig, *};

const GOOD: &str = r#"{"url": "nbd://h/disk", "mounts": [{"partition": 2, "mountpoint": "/"},
{"device": "/dev/sdb", "mountpoint": "/boot"}], "tftp_root": "/boot"}"#;

#[track_caller]
fn rejects(json: impl AsRef<[u8]>, message: &str) {
    let json = json.as_ref();
    let error = DiskConfig::parse(json).expect_err(&json.escape_ascii().to_string());
    assert_eq!(error.to_string(), message, "{}", json.escape_ascii());
}

/// Returns a description of one line with these mounts, which begin in column 35.
fn with_mounts(mounts: &str) -> StdString {
    format!(r#"{{"url": "nbd://h/disk", "mounts": {mounts}}}"#)
}

#[test]
fn rejects_invalid_json() {
    for (json, message) in [
        ("disk", r#"line 1, column 1: expected a description such as {"url": ..., "mounts": [...]}, found disk"#),
        ("", r#"line 1, column 1: expected a description such as {"url": ..., "mounts": [...]}, found an empty file"#),
        (
            " \n\n ",
            r#"line 3, column 2: expected a description such as {"url": ..., "mounts": [...]}, found an empty file"#,
        ),
        ("\u{feff}{}", "line 1, column 1: expected `{`, found a byte order mark (save the file as UTF-8 without one)"),
        ("\n// my disk\n{}", "line 2, column 1: expected JSON, which has no comments, found a comment"),
        ("{\n  # my disk\n}", "line 2, column 3: expected JSON, which has no comments, found a comment"),
        ("{\"url\": /* my disk */ 1}", "line 1, column 9: url: expected JSON, which has no comments, found a comment"),
        (
            "nbd://h/disk",
            r#"line 1, column 1: expected a description such as {"url": ..., "mounts": [...]}, found nbd"#,
        ),
        ("{", "line 1, column 2: expected the closing `}`, found the end of the file"),
        ("{\n", "line 2, column 1: expected the closing `}`, found the end of the file"),
        ("{url: 1}", "line 1, column 2: expected a field name in double quotes, found url"),
        ("{'url': 1}", "line 1, column 2: expected a field name in double quotes, found 'url'"),
        ("{\"url\" \"nbd://h/x\"}", r#"line 1, column 8: url: expected `:`, found "nbd://h/x""#),
        ("{\"url\": \"nbd://h/x\" \"mounts\": []}", r#"line 1, column 21: expected `,` or `}`, found "mounts""#),
        ("{\"url\": \"nbd://h/x\",}", "line 1, column 21: expected another entry after the `,`, found `}`"),
        (
            "{\"url\": \"nbd://h/x\n}",
            r#"line 1, column 9: url: expected a `"` at the end of the string, found "nbd://h/x\n}"#,
        ),
        (
            "{\"url\": \"nbd://h/\\q\"}",
            r#"line 1, column 9: url: expected a string with valid escapes (surrogates such as \ud83d are not supported), found "nbd://h/\q""#,
        ),
        (
            "{\"url\": \"nbd://h/\\ud83d\\ude00\"}",
            r#"line 1, column 9: url: expected a string with valid escapes (surrogates such as \ud83d are not supported), found "nbd://h/\ud83d\ude00""#,
        ),
        ("{,}", "line 1, column 2: expected a field name in double quotes, found `,`"),
        ("{:}", "line 1, column 2: expected a field name in double quotes, found `:`"),
        ("{\"url\"::}", "line 1, column 8: url: expected a string, found `:`"),
        (
            "{\"mounts\":[:",
            r#"line 1, column 12: mounts[0]: expected a mount such as {"partition": 1, "mountpoint": "/"}, found `:`"#,
        ),
        (
            "{\"mounts\": [{\"partition\": 1, \"mountpoint\": \"/\"},]}",
            "line 1, column 49: mounts: expected another entry after the `,`, found `]`",
        ),
        (
            "{\"mounts\": [{\"partition\": 1, \"mountpoint\": \"/\"} 5]}",
            "line 1, column 49: mounts: expected `,` or `]`, found 5",
        ),
        (
            "{\"mounts\": [{\"partition\": 1x, \"mountpoint\": \"/\"}]}",
            "line 1, column 28: mounts[0]: expected `,` or `}`, found x",
        ),
    ] {
        rejects(json, message);
    }
    rejects(
        b"\xff\xfe{\0}\0",
        "line 1, column 1: expected `{`, found a byte order mark (save the file as UTF-8 without one)",
    );
    rejects(
        b"{\"url\": \"nbd://h/\xff\"}",
        r#"line 1, column 9: url: expected a string in UTF-8, found "nbd://h/\xff""#,
    );
    rejects(format!("{GOOD} x"), "line 2, column 71: expected nothing after the closing `}`, found x");
    rejects(format!("{GOOD}\n{GOOD}"), "line 3, column 1: expected nothing after the closing `}`, found an object");
    rejects(format!("{GOOD}\0"), r#"line 2, column 70: expected nothing after the closing `}`, found \x00"#);
}

#[test]
fn rejects_unknown_repeated_and_mistyped_fields() {
    for (json, message) in [
        (
            "[]",
            r#"line 1, column 1: expected a description such as {"url": ..., "mounts": [...]}, found an empty list"#,
        ),
        ("null", r#"line 1, column 1: expected a description such as {"url": ..., "mounts": [...]}, found null"#),
        (
            "\"nbd://h/x\"",
            r#"line 1, column 1: expected a description such as {"url": ..., "mounts": [...]}, found "nbd://h/x""#,
        ),
        ("{}", "line 1, column 2: expected the field url, found none"),
        ("{\n \"url\": \"nbd://h/x\"\n}", "line 3, column 1: expected the field mounts, found none"),
        (
            "{\"mounts\": [{\"partition\": 1, \"mountpoint\": \"/\"}]}",
            "line 1, column 49: expected the field url, found none",
        ),
        ("{\"url\": 5}", "line 1, column 9: url: expected a string, found 5"),
        ("{\"url\": null}", "line 1, column 9: url: expected a string, found null"),
        (
            "{\"url\": \"nbd://h/x\", \"url\": \"nbd://h/x\"}",
            "line 1, column 22: url: expected the field once, found it a second time",
        ),
        ("{\"mounts\": {}}", "line 1, column 12: mounts: expected a list of mounts, found an object"),
        ("{\"tftp_root\": [\"/\"]}", "line 1, column 15: tftp_root: expected a string, found a list"),
        ("{\"tftp_root\": true}", "line 1, column 15: tftp_root: expected a string, found true"),
        (
            "{\"uri\": \"nbd://h/x\"}",
            r#"line 1, column 2: expected one of the fields url, mounts, tftp_root, backend, trust_serial, tls, boot and label, found "uri""#,
        ),
        (
            "{\"URL\": \"nbd://h/x\"}",
            r#"line 1, column 2: expected one of the fields url, mounts, tftp_root, backend, trust_serial, tls, boot and label, found "URL""#,
        ),
        (
            "{\"\": 1}",
            r#"line 1, column 2: expected one of the fields url, mounts, tftp_root, backend, trust_serial, tls, boot and label, found """#,
        ),
        (
            "{\"a\\nb\u{1b}[31m\nINFO \u{202e}\": 1}",
            r#"line 1, column 2: expected one of the fields url, mounts, tftp_root, backend, trust_serial, tls, boot and label, found "a\nb\x1b[31m\nINFO \xe2\x80\xae""#,
        ),
    ] {
        rejects(json, message);
    }
    rejects(
        format!("{{\"{}\": 1}}", "a".repeat(2000)),
        r#"line 1, column 2: expected one of the fields url, mounts, tftp_root, backend, trust_serial, tls, boot and label, found "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa..."#,
    );
    rejects(
        format!("{{\"{}\": 1}}", "\\u0061".repeat(2000)),
        r#"line 1, column 2: expected at most 1152 bytes, found "\u0061\u0061\u0061\u0061\u0061\u0061\u00..."#,
    );
    rejects(
        format!("{{\"url\": \"nbd://h/{}\"}}", "a".repeat(256)),
        r#"line 1, column 9: url: expected an export name of at most 255 bytes, found "nbd://h/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa..."#,
    );
    rejects(
        format!("{{\"url\": \"nbd://h/{}\"}}", "a".repeat(1152)),
        r#"line 1, column 9: url: expected at most 1152 bytes, found "nbd://h/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa..."#,
    );
    rejects(
        format!("{{\"url\": \"nbd:\\/\\/h/{}\"}}", "a".repeat(1152)),
        r#"line 1, column 9: url: expected at most 1152 bytes, found "nbd:\/\/h/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa..."#,
    );
    rejects(
        format!("{{\"tftp_root\": \"/{}\"}}", "a".repeat(255)),
        r#"line 1, column 15: tftp_root: expected at most 255 bytes, found "/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa..."#,
    );
    rejects(
        format!("{{\"tftp_root\": \"\\/{}\"}}", "a".repeat(1152)),
        r#"line 1, column 15: tftp_root: expected at most 255 bytes, found "\/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa..."#,
    );
}

#[test]
fn rejects_invalid_boot_settings() {
    for (boot, message) in [
        ("1", "column 66: boot: expected an object with append, remove, default or timeout, found 1"),
        (
            r#"{"kernel": "x"}"#,
            r#"column 67: boot: expected one of the fields append, remove, default and timeout, found "kernel""#,
        ),
        (r#"{"append": 1}"#, "column 77: boot.append: expected a string, found 1"),
        (r#"{"append": "a\nb"}"#, r#"column 77: boot.append: expected printable ASCII characters, found "a\nb""#),
        (
            r#"{"append": "a=\"b"}"#,
            r#"column 77: boot.append: expected an even number of quotation marks, found "a=\"b""#,
        ),
        (
            r#"{"append": "ip={ip}"}"#,
            r#"column 77: boot.append: expected no placeholder in the file of a single board, found "ip={ip}""#,
        ),
        (r#"{"remove": "quiet"}"#, r#"column 77: boot.remove: expected a list of words, found "quiet""#),
        (
            r#"{"remove": ["a b"]}"#,
            r#"column 78: boot.remove: expected a word of a command line such as "quiet", found "a b""#,
        ),
        (
            r#"{"default": ""}"#,
            r#"column 78: boot.default: expected "saved", "newest" or the identifier of an entry, found """#,
        ),
        (r#"{"timeout": 3601}"#, "column 78: boot.timeout: expected a number of seconds from 0 to 3600, found 3601"),
        (r#"{"timeout": 1.5}"#, "column 78: boot.timeout: expected a number of seconds from 0 to 3600, found 1.5"),
        (r#"{"timeout": "3"}"#, r#"column 78: boot.timeout: expected a number of seconds from 0 to 3600, found "3""#),
        (r#"{"timeout": 1, "timeout": 2}"#, "column 81: boot.timeout: expected the field once, found it a second time"),
    ] {
        rejects(with_mounts(&format!(r#"[{{"mountpoint": "/"}}], "boot": {boot}"#)), &format!("line 1, {message}"));
    }
    let words = ["\"a\""; 17].join(", ");
    rejects(
        with_mounts(&format!(r#"[{{"mountpoint": "/"}}], "boot": {{"remove": [{words}]}}"#)),
        "line 1, column 158: boot.remove: expected at most 16 words, found more",
    );
}

#[test]
fn rejects_invalid_urls() {
    for (url, message) in [
        (
            "http://h/x",
            r#"line 1, column 9: url: expected nbd://HOST[:PORT]/EXPORT, nbd+unix:///EXPORT?socket=PATH or nbd+vsock://CID[:PORT]/EXPORT (with TLS: nbds instead of nbd), found "http://h/x""#,
        ),
        (
            "nbd://h/x?tls-hostname=h",
            r#"line 1, column 9: url: expected nbds:// or nbds+unix:// with parameters of TLS, found "nbd://h/x?tls-hostname=h""#,
        ),
        (
            "nbd://h:0/x",
            r#"line 1, column 9: url: expected a port from 1 to 65535 after the host, found "nbd://h:0/x""#,
        ),
    ] {
        rejects(format!("{{\"url\": \"{url}\"}}"), message);
    }
}

#[test]
fn rejects_invalid_tls() {
    for (tls, message) in [
        (r#""ca.pem""#, r#"column 9: tls: expected an object such as {"ca": "ca.pem"}, found "ca.pem""#),
        (r#"{"ca": 1}"#, "column 16: tls.ca: expected a string, found 1"),
        (r#"{"ca": ""}"#, r#"column 16: tls.ca: expected the path of a file in the PEM format, found """#),
        (r#"{"ca": "a", "ca": "b"}"#, "column 21: tls.ca: expected the field once, found it a second time"),
        (
            r#"{"verify": false}"#,
            r#"column 10: tls: expected one of the fields ca, certificate, key, hostname and fingerprint, found "verify""#,
        ),
        (r#"{"certificate": "a"}"#, "column 28: tls: expected the field key, found none"),
        (r#"{"key": "a"}"#, "column 20: tls: expected the field certificate, found none"),
        (r#"{"hostname": "a b"}"#, r#"column 22: tls.hostname: expected a host name or IP address, found "a b""#),
        (
            r#"{"fingerprint": "12:34"}"#,
            r#"column 25: tls.fingerprint: expected sha256: and 64 hexadecimal digits, as `openssl x509 -fingerprint -sha256` prints them, found "12:34""#,
        ),
    ] {
        rejects(format!("{{\"tls\": {tls}, \"url\": \"nbds://h/x\"}}"), &format!("line 1, {message}"));
    }
    let digits = "0f".repeat(32);
    rejects(
        format!(r#"{{"tls": {{"ca": "a", "fingerprint": "sha256:{digits}"}}}}"#),
        "line 1, column 109: tls: expected either ca or fingerprint, found both",
    );
    rejects(
        r#"{"tls": {}, "url": "nbd://h/x", "mounts": [{"mountpoint": "/"}]}"#,
        "line 1, column 64: url: expected nbds:// or nbds+unix:// in a description with tls",
    );
}

#[test]
fn rejects_files_over_the_maximum_size() {
    let padded = |size: usize| format!("{GOOD}{}", " ".repeat(size - GOOD.len()));
    assert!(DiskConfig::parse(padded(MAX_CONFIG).as_bytes()).is_ok());
    rejects(padded(MAX_CONFIG + 1), "line 2, column 16313: expected at most 16384 bytes, found a larger file");
    rejects("[".repeat(1_000_000), "line 1, column 16385: expected at most 16384 bytes, found a larger file");
}

#[test]
fn deep_nesting_does_not_exhaust_the_stack() {
    let deep = "[".repeat(MAX_CONFIG - 100);
    rejects(&deep, r#"line 1, column 1: expected a description such as {"url": ..., "mounts": [...]}, found a list"#);
    rejects(
        format!("{{\"x\": {deep}"),
        r#"line 1, column 2: expected one of the fields url, mounts, tftp_root, backend, trust_serial, tls, boot and label, found "x""#,
    );
    rejects(format!("{{\"url\": {deep}"), "line 1, column 9: url: expected a string, found a list");
    rejects(
        with_mounts(&deep),
        r#"line 1, column 36: mounts[0]: expected a mount such as {"partition": 1, "mountpoint": "/"}, found a list"#,
    );
    rejects(
        with_mounts(&format!("[{{\"partition\": {}", "{\"partition\":".repeat(1000))),
        "line 1, column 50: mounts[0].partition: expected a partition number from 0 to 255, found an object",
    );
}
