//! The `.nbd` files that describe disks.

use std::{
    fmt,
    fs::File,
    io::{self, IoSliceMut, Read},
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use rtftp_core::config::disk::{Board, ConfigError, DiskConfig, MAX_CONFIG, MountSource, TlsConfig};
use rustix::io::preadv2;
use serde_json::{Value, json};

use crate::{client_name::ClientName, local_fs::OpenRoot, prefix::Prefix};

/// An `.nbd` file. `Display` writes its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NbdFile {
    /// That of a single board: `10.0.0.5.nbd`.
    Client(ClientName),
    /// That of all boards with a prefix: `10.0.0.0_24.nbd`.
    Group(Prefix),
    /// That of all boards: `default.nbd`.
    Default,
}

impl NbdFile {
    /// Parses the name of a file.
    ///
    /// # Errors
    ///
    /// `None` if it is not the name of an `.nbd` file. `Some` with the right name if it is spelled in a form other than the canonical
    /// one, which is the only one looked for.
    pub(crate) fn parse(file_name: &str) -> Result<Self, Option<Self>> {
        let name = file_name.strip_suffix(".nbd").ok_or(None)?;
        if name == "default" {
            return Ok(Self::Default);
        }
        match Prefix::parse(name) {
            Err(None) => ClientName::parse(name).map(Self::Client).map_err(|intended| intended.map(Self::Client)),
            prefix => prefix.map(Self::Group).map_err(|intended| intended.map(Self::Group)),
        }
    }

    /// Returns whether the file describes the disks of many boards.
    pub(crate) fn is_group(self) -> bool {
        !matches!(self, Self::Client(_))
    }

    /// Returns a board of the group, with values for all placeholders.
    pub(crate) fn sample_board(self) -> Board<'static> {
        let ip = match self {
            Self::Group(prefix) => prefix.sample(),
            _ => IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)),
        };
        Board { ip, mac: Some([2, 0, 0, 0, 0, 1]), hostname: Some("board"), serial: Some(1) }
    }

    /// Parses the description of a single board, or that of a group for its sample.
    ///
    /// # Errors
    ///
    /// The first problem in the file.
    pub(crate) fn parse_config(self, json: &[u8]) -> Result<Box<DiskConfig>, ConfigError> {
        let config =
            if self.is_group() { DiskConfig::parse_for(json, &self.sample_board()) } else { DiskConfig::parse(json) };
        config.map(Box::new)
    }
}

impl fmt::Display for NbdFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client(client) => write!(f, "{client}.nbd"),
            Self::Group(prefix) => write!(f, "{prefix}.nbd"),
            Self::Default => f.write_str("default.nbd"),
        }
    }
}

/// Returns the description of a single board that has this contents, without `boot`.
pub(crate) fn to_json(config: &DiskConfig) -> Vec<u8> {
    let mounts: Vec<Value> = config
        .mounts
        .iter()
        .map(|mount| {
            let mountpoint = mount.mountpoint.as_str();
            match &mount.source {
                MountSource::Disk => json!({"mountpoint": mountpoint}),
                MountSource::Partition(number) => json!({"partition": number, "mountpoint": mountpoint}),
                MountSource::Device(device) => json!({"device": device.as_str(), "mountpoint": mountpoint}),
            }
        })
        .collect();
    let mut description =
        json!({"url": config.url.to_string(), "mounts": mounts, "tftp_root": config.tftp_root.as_str()});
    if let Some(backend) = config.backend {
        description["backend"] = match backend {
            rtftp_core::config::disk::Backend::Native => "native".into(),
            rtftp_core::config::disk::Backend::Guestfs => "guestfs".into(),
        };
    }
    if let Some(tls) = &config.tls {
        description["tls"] = tls_to_json(tls);
    }
    description.to_string().into_bytes()
}

fn tls_to_json(tls: &TlsConfig) -> Value {
    let digits = |digest: &[u8; 32]| digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let fields = [
        ("ca", tls.ca.as_deref().map(str::to_owned)),
        ("certificate", tls.identity.as_ref().map(|identity| identity.certificate.as_str().to_owned())),
        ("key", tls.identity.as_ref().map(|identity| identity.key.as_str().to_owned())),
        ("hostname", tls.hostname.as_deref().map(str::to_owned)),
        ("fingerprint", tls.fingerprint.as_ref().map(|digest| format!("sha256:{}", digits(digest)))),
    ];
    fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), Value::String(value?)))).collect()
}

/// Reads an `.nbd` file. Of a file larger than [`MAX_CONFIG`], reads one byte more than that.
///
/// # Errors
///
/// The errors of the file; also if it is not a regular one. [`io::ErrorKind::TimedOut`] if its file system does not answer.
pub(crate) async fn read_description(root: &OpenRoot, name: NbdFile) -> io::Result<Vec<u8>> {
    const MAX_LEN: usize = MAX_CONFIG + 1;
    let file = root.open_named(&name.to_string()).await?;
    if !file.metadata().is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    if file.is_local() {
        let mut content = vec![0; usize::try_from(file.metadata().len()).map_or(MAX_LEN, |len| len.min(MAX_LEN))];
        let flags = file.kind().nonblocking_read_flags();
        if preadv2(file.file(), &mut [IoSliceMut::new(&mut content)], 0, flags) == Ok(content.len()) {
            return Ok(content);
        }
    }
    let read = |file: &File| {
        let mut content = vec![];
        file.take(MAX_LEN as u64).read_to_end(&mut content)?;
        Ok(content)
    };
    Arc::new(file).run(read).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_only_canonical_names() {
        let client = |name| NbdFile::Client(ClientName::parse(name).expect("a name"));
        let group = |name| NbdFile::Group(Prefix::parse(name).expect("a prefix"));
        for (name, file) in [
            ("10.0.0.1.nbd", client("10.0.0.1")),
            ("fe80::1.nbd", client("fe80::1")),
            ("dc-a6-32-01-36-c2.nbd", client("dc-a6-32-01-36-c2")),
            ("9ffefdef.nbd", client("9ffefdef")),
            ("10.0.0.0_24.nbd", group("10.0.0.0_24")),
            ("fd00::_64.nbd", group("fd00::_64")),
            ("default.nbd", NbdFile::Default),
        ] {
            assert_eq!(NbdFile::parse(name), Ok(file));
            assert_eq!(file.to_string(), name);
        }
        for (name, canonical) in [
            ("FE80::1.nbd", "fe80::1.nbd"),
            ("::ffff:10.0.0.1.nbd", "10.0.0.1.nbd"),
            ("dc:a6:32:01:36:c2.nbd", "dc-a6-32-01-36-c2.nbd"),
            ("10.0.0.7_24.nbd", "10.0.0.0_24.nbd"),
        ] {
            assert_eq!(NbdFile::parse(name).expect_err(name).expect(name).to_string(), canonical);
        }
        for name in
            ["10.0.0.1", "10.0.0.1.nbd~", ".10.0.0.1.nbd.swp", "9ffefdef.NBD", "board.nbd", "Default.nbd", ".nbd", ""]
        {
            assert_eq!(NbdFile::parse(name), Err(None), "{name}");
        }
    }

    #[test]
    fn description_of_a_board_has_the_values_of_its_group() {
        let group =
            br#"{"url": "nbd+unix:///{hostname}?socket=/run/{ip}", "backend": "guestfs", "tftp_root": "/boot\"\\",
            "mounts": [{"device": "/dev/vg/root", "mountpoint": "/"}, {"partition": 1, "mountpoint": "/boot"}]}"#;
        let config = NbdFile::Default.parse_config(group).expect("a description");
        let single = DiskConfig::parse(&to_json(&config)).expect("a description");
        assert_eq!(single.url.to_string(), "nbd+unix:///board?socket=/run/10.0.0.1");
        assert_eq!(DiskConfig { placeholders: config.placeholders.clone(), ..single }, *config);
        for tls in [
            r#"{"ca": "a\"b", "certificate": "c", "key": "/k", "hostname": "h"}"#,
            &format!(r#"{{"fingerprint": "sha256:{}"}}"#, "0f".repeat(32)),
            "{}",
        ] {
            let url = "nbds://h/{ip}?tls-certificates=/d&tls-verify-peer=false";
            let group = format!(r#"{{"url": "{url}", "tls": {tls}, "mounts": [{{"mountpoint": "/"}}]}}"#);
            let config = NbdFile::Default.parse_config(group.as_bytes()).expect("a description");
            let single = DiskConfig::parse(&to_json(&config)).expect("a description");
            assert_eq!((single.url, single.tls), (config.url, config.tls));
        }
    }
}
