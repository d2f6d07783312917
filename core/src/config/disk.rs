//! The description of a client's disk: the contents of an `.nbd` file.

mod error;
mod expand;
mod json;
mod locate;
mod model;
mod placeholder;
mod values;

pub use self::{
    error::{ConfigError, Excerpt, FieldPath, Problem},
    model::{
        Backend, BootConfig, BootDefault, ClientIdentity, DiskConfig, DiskPath, MAX_APPEND, MAX_CONFIG, MAX_DISK_PATH,
        MAX_LABEL, MAX_MOUNTS, MAX_PARTITION, MAX_REMOVED, MAX_TIMEOUT, MAX_URL, MAX_WORD, Mount, MountSource,
        TlsConfig, TlsPath, Word,
    },
    placeholder::{Board, Placeholder, Placeholders},
};

impl DiskConfig {
    /// Parses the JSON of an `.nbd` file:
    ///
    /// ```
    /// # use rtftp_core::config::disk::DiskConfig;
    /// let config = DiskConfig::parse(br#"{
    ///     "url": "nbd://10.10.10.10:25000/server_root",
    ///     "mounts": [{"partition": 2, "mountpoint": "/"}, {"partition": 1, "mountpoint": "/boot"}],
    ///     "tftp_root": "/boot"
    /// }"#)?;
    /// assert_eq!(config.mounts[1].mountpoint, "/boot");
    /// # Ok::<(), rtftp_core::config::disk::ConfigError>(())
    /// ```
    ///
    /// A mount without `partition`, or with number 0, is the whole disk; a `device` instead is a device name of libguestfs. A `subvol`
    /// is a subvolume of btrfs.
    /// `tftp_root` is `/` by default. Double and trailing slashes of paths are removed. A `backend` is `"native"` or `"guestfs"`.
    /// `tls` says how the server of an `nbds` URL is verified.
    /// `boot` has `append`, `remove`, `default` and `timeout`, all optional. `label` is a name for people.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] describes the first problem in the file. Unknown fields are problems too, because they are typos.
    pub fn parse(json: &[u8]) -> Result<Self, ConfigError> {
        Self::parse_with(json, None)
    }

    /// Parses the JSON of an `.nbd` file for many boards, and replaces the placeholders in `url` and `append` for one of them.
    /// `{serial}` needs `"trust_serial": true`.
    ///
    /// # Errors
    ///
    /// Those of [`parse`](Self::parse), and [`Problem::NoValue`].
    pub fn parse_for(json: &[u8], board: &Board<'_>) -> Result<Self, ConfigError> {
        Self::parse_with(json, Some(board))
    }

    fn parse_with(json: &[u8], board: Option<&Board<'_>>) -> Result<Self, ConfigError> {
        locate::check_file(json)?;
        let progress = json::Progress::default();
        json::parse(json, board, &progress).map_err(|error| locate::explain(json, board, error, &progress))
    }
}

#[cfg(test)]
mod tests {
    use std::{
        format,
        string::{String as StdString, ToString},
        vec::Vec as StdVec,
    };

    use super::{values::parse_path, *};
    use crate::config::uri::NbdUri;

    const EXAMPLE: &str = r#"{
  "url": "nbd://10.10.10.10:25000/server_root",
  "mounts": [
    {"partition": 2, "mountpoint": "/"},
    {"partition": 1, "mountpoint": "/boot"}
  ],
  "tftp_root": "/boot"
}"#;

    fn parse(json: &str) -> DiskConfig {
        DiskConfig::parse(json.as_bytes()).unwrap_or_else(|error| panic!("{error}\n{json}"))
    }

    /// Returns a description of one line with these mounts, which begin in column 35.
    fn with_mounts(mounts: &str) -> StdString {
        format!(r#"{{"url": "nbd://h/disk", "mounts": {mounts}}}"#)
    }

    #[test]
    fn parses_a_description() {
        let config = parse(EXAMPLE);
        assert_eq!(config.url, NbdUri::parse("nbd://10.10.10.10:25000/server_root").expect("a URI"));
        assert_eq!(config.tftp_root, "/boot");
        let mounts: StdVec<_> =
            config.mounts.iter().map(|mount| (mount.source.clone(), mount.mountpoint.as_str())).collect();
        assert_eq!(mounts, [(MountSource::Partition(2), "/"), (MountSource::Partition(1), "/boot")]);
    }

    #[test]
    fn order_white_space_and_escapes_do_not_matter() {
        for json in [
            &EXAMPLE.replace('\n', "\r\n\t"),
            &EXAMPLE.replace([' ', '\n'], ""),
            &format!(" \r\n\t{EXAMPLE}\r\n\t "),
            &EXAMPLE.replace("\"/boot\"", r#""\/b\u006f\u006Ft""#).replace("mounts", r"\u006dounts"),
            &EXAMPLE.replace("\"/\"", "\"///\"").replace("/boot", "//boot/"),
            r#"{"tftp_root": "/boot", "mounts": [{"mountpoint": "/", "partition": 2}, {"mountpoint": "/boot", "partition": 1}],
                "url": "nbd://10.10.10.10:25000/server_root"}"#,
        ] {
            assert_eq!(parse(json), parse(EXAMPLE), "{json}");
        }
    }

    #[test]
    fn parses_nbd_urls() {
        for url in ["nbd://[fe80::1]:10810/x", "nbd+unix:///?socket=/run/nbd.sock", "nbd://h/", "nbd://h/gr%C3%BCn%20x"]
        {
            let json = with_mounts(r#"[{"partition": 1, "mountpoint": "/"}]"#).replace("nbd://h/disk", url);
            assert_eq!(parse(&json).url, NbdUri::parse(url).expect("a URI"));
        }
    }

    #[test]
    fn mount_has_a_partition_or_a_device() {
        for (source, expected) in [
            (r#""partition": 1"#, MountSource::Partition(1)),
            (r#""partition": 255"#, MountSource::Partition(255)),
            (r#""partition": 0"#, MountSource::Disk),
            (r#""device": "/dev/sda""#, MountSource::Device("/dev/sda".try_into().expect("short"))),
            (
                r#""device": "btrfsvol:/dev/sda2/@home""#,
                MountSource::Device("btrfsvol:/dev/sda2/@home".try_into().expect("short")),
            ),
        ] {
            let config = parse(&with_mounts(&format!(r#"[{{{source}, "mountpoint": "/"}}]"#)));
            assert_eq!(config.mounts[0].source, expected);
            assert_eq!(config.tftp_root, "/");
        }
        assert_eq!(parse(&with_mounts(r#"[{"mountpoint": "/"}]"#)).mounts[0].source, MountSource::Disk);
    }

    #[test]
    fn mount_has_a_subvolume() {
        for (path, expected) in [("@", "/@"), ("/@", "/@"), ("@//.snapshots/1/", "/@/.snapshots/1"), ("/", "/")] {
            for source in [r#""partition": 2"#, r#""device": "/dev/vg/root""#] {
                let config = parse(&with_mounts(&format!(r#"[{{{source}, "subvol": "{path}", "mountpoint": "/"}}]"#)));
                assert_eq!(config.mounts[0].subvolume.as_deref(), Some(expected));
            }
        }
        assert_eq!(parse(EXAMPLE).mounts[0].subvolume, None);
    }

    #[test]
    fn parses_the_backend() {
        for (backend, expected) in [
            ("", None),
            (r#", "backend": "native""#, Some(Backend::Native)),
            (r#", "backend": "guestfs""#, Some(Backend::Guestfs)),
        ] {
            let json = with_mounts(r#"[{"mountpoint": "/"}]"#).replace(']', &format!("]{backend}"));
            assert_eq!(parse(&json).backend, expected);
        }
    }

    #[test]
    fn parses_the_label() {
        let with_label = |label: &str| with_mounts(r#"[{"mountpoint": "/"}]"#).replace(']', &format!("]{label}"));
        assert_eq!(parse(&with_label("")).label, None);
        let longest = "5".repeat(MAX_LABEL);
        for label in ["Rack 3, board 5", "Gr\u{fc}n \u{1f341}", &longest] {
            assert_eq!(parse(&with_label(&format!(r#", "label": "{label}""#))).label.as_deref(), Some(label));
        }
        for (label, problem) in [
            (r#""""#, "expected a name without control characters"),
            (r#""  ""#, "expected a name without control characters"),
            (r#""a\nb""#, "expected a name without control characters"),
            (&format!(r#""{longest}5""#), "64"),
            ("5", "expected a string"),
        ] {
            let error = DiskConfig::parse(with_label(&format!(r#", "label": {label}"#)).as_bytes()).expect_err(label);
            assert!(error.to_string().contains(problem), "{label}: {error}");
        }
    }

    #[test]
    fn parses_tls() {
        let tls = |tls: &str| {
            let json = with_mounts(r#"[{"mountpoint": "/"}]"#).replace("nbd:", "nbds:");
            parse(&json.replace(']', &format!(r#"], "tls": {tls}"#))).tls.expect("tls")
        };
        assert_eq!(tls("{}"), TlsConfig::default());
        let full = tls(r#"{"ca": "/etc/ca.pem", "certificate": "c.pem", "key": "k.pem", "hostname": "nas.lan"}"#);
        let identity =
            ClientIdentity { certificate: "c.pem".try_into().expect("short"), key: "k.pem".try_into().expect("short") };
        assert_eq!(full.ca.as_deref(), Some("/etc/ca.pem"));
        assert_eq!((full.identity, full.hostname.as_deref()), (Some(identity), Some("nas.lan")));
        let digits = "0123456789abcdefABCDEF0123456789".repeat(2);
        let with_colons = digits.as_bytes().chunks(2).map(|pair| str::from_utf8(pair).expect("digits"));
        let with_colons = with_colons.collect::<StdVec<_>>().join(":");
        for digits in [digits.as_str(), &with_colons] {
            let fingerprint =
                tls(&format!(r#"{{"fingerprint": "sha256:{digits}"}}"#)).fingerprint.expect("a fingerprint");
            assert_eq!((fingerprint[0], fingerprint[5], fingerprint[31]), (0x01, 0xab, 0x89));
        }
    }

    #[test]
    fn parses_what_differs_from_the_boot_entries() {
        let boot = |json: &str| parse(&with_mounts(r#"[{"mountpoint": "/"}]"#).replace(']', &format!("]{json}"))).boot;
        assert_eq!(boot(""), BootConfig::default());
        assert_eq!(boot(r#", "boot": {}"#), BootConfig::default());
        let all = boot(
            r#", "boot": {"append": "nbdroot=10.0.0.1,b a=\"b c\"", "remove": ["quiet", "root"], "default": "x-6*", "timeout": 0}"#,
        );
        assert_eq!((&*all.append, all.timeout), ("nbdroot=10.0.0.1,b a=\"b c\"", Some(0)));
        assert_eq!(all.remove.iter().map(|word| word.as_str()).collect::<StdVec<_>>(), ["quiet", "root"]);
        assert_eq!(all.default, BootDefault::Id("x-6*".try_into().expect("short")));
        for (default, expected) in [("saved", BootDefault::Saved), ("newest", BootDefault::Newest)] {
            assert_eq!(boot(&format!(r#", "boot": {{"default": "{default}"}}"#)).default, expected);
        }
    }

    #[test]
    fn normalises_paths() {
        for (path, expected) in
            [("/", "/"), ("//", "/"), ("/srv//tftp/", "/srv/tftp"), ("/...", "/..."), ("/grün €\\\"", "/grün €\\\"")]
        {
            let path = parse_path(path).expect("a path");
            assert_eq!(path, expected);
        }
        let longest = format!("/{}", "a".repeat(254));
        assert_eq!(parse_path(&format!("/{longest}//")).expect("a path"), longest.as_str());
        assert_eq!(parse_path(&format!("{longest}/b")), Err(Problem::TooLong(255)));
    }

    #[test]
    fn rejects_more_than_sixteen_mounts() {
        let mounts = |count: usize| {
            let mount = |index: usize| {
                let mountpoint = if index == 0 { "/".to_string() } else { format!("/{index}") };
                format!(r#"{{"partition": 1, "mountpoint": "{mountpoint}"}}"#)
            };
            with_mounts(&format!("[{}]", (0..count).map(mount).collect::<StdVec<_>>().join(",\n")))
        };
        assert_eq!(parse(&mounts(16)).mounts.len(), 16);
        let error = DiskConfig::parse(mounts(17).as_bytes()).expect_err("too many mounts");
        assert_eq!(error.to_string(), "line 17, column 1: mounts: expected at most 16 mounts, found more");
    }
}
