//! The `.nbd` files that describe disks.

use std::{
    fmt,
    fs::File,
    io::{self, IoSliceMut, Read},
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use rtftp_core::config::disk::{Board, ConfigError, DiskConfig, MAX_CONFIG};
use rustix::io::preadv2;
use serde_json::{Map, Value};

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

    /// Returns the description of a single board's disk, or of that of a group's sample, from the contents of the file.
    pub(crate) fn description(self, json: Arc<[u8]>) -> Description {
        let board = self.is_group().then(|| Box::new(KnownBoard::new(&self.sample_board())));
        Description { json, board }
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

/// The description of one disk. It is parsed for each connection: parsed, it occupies ten times the memory.
#[derive(Debug)]
pub(crate) struct Description {
    json: Arc<[u8]>,
    /// The board whose values replace the placeholders in the description of a group.
    board: Option<Box<KnownBoard>>,
}

/// The values of a board, as in [`Board`].
#[derive(Debug)]
struct KnownBoard {
    ip: IpAddr,
    mac: Option<[u8; 6]>,
    hostname: Option<Box<str>>,
    serial: Option<u32>,
}

impl KnownBoard {
    fn new(board: &Board<'_>) -> Self {
        let Board { ip, mac, hostname, serial } = *board;
        Self { ip, mac, hostname: hostname.map(Box::from), serial }
    }
}

impl Description {
    /// Creates the description of the disk of a board in a group, from the contents of the group's file.
    pub(super) fn of_board(json: Arc<[u8]>, board: &Board<'_>) -> Self {
        Self { json, board: Some(Box::new(KnownBoard::new(board))) }
    }

    /// Parses the description.
    ///
    /// # Errors
    ///
    /// The first problem in the file.
    pub(crate) fn config(&self) -> Result<Box<DiskConfig>, ConfigError> {
        let config = match &self.board {
            None => DiskConfig::parse(&self.json),
            Some(board) => {
                let KnownBoard { ip, mac, ref hostname, serial } = **board;
                DiskConfig::parse_for(&self.json, &Board { ip, mac, hostname: hostname.as_deref(), serial })
            }
        };
        config.map(Box::new)
    }

    /// Returns whether it describes the same disk for all boards of a group.
    pub(super) fn is_of_all_boards(&self) -> bool {
        self.board.is_some() && self.config().is_ok_and(|config| config.placeholders.is_empty())
    }

    /// Returns the description for the helper, which knows no boards: the contents of the file, with the board's own `url`.
    pub(super) fn for_helper(&self, config: &DiskConfig) -> Vec<u8> {
        let parsed = serde_json::from_slice::<Map<String, Value>>(&self.json);
        match (&self.board, parsed) {
            (Some(_), Ok(mut description)) => {
                description.retain(|key, _| key == "mounts" || key == "tftp_root");
                description.insert("url".into(), config.url.to_string().into());
                Value::from(description).to_string().into_bytes()
            }
            _ => self.json.to_vec(),
        }
    }
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

    fn client(name: &str) -> NbdFile {
        NbdFile::Client(ClientName::parse(name).expect("a name"))
    }

    #[test]
    fn accepts_only_canonical_names() {
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
    fn description_of_a_board_has_its_values() {
        let json = br#"{"url": "nbd://nas/{hostname}-{ip}-{serial}", "trust_serial": true, "backend": "guestfs",
            "mounts": [{"device": "/dev/vg/root", "mountpoint": "/"}], "tftp_root": "/boot"}"#;
        let description = NbdFile::Default.description(json[..].into());
        let config = description.config().expect("a description");
        assert_eq!(config.url.to_string(), "nbd://nas/board-10.0.0.1-00000001");
        let in_helper = DiskConfig::parse(&description.for_helper(&config)).expect("a description");
        assert_eq!((in_helper.url, in_helper.mounts), (config.url, config.mounts));
        assert_eq!(in_helper.tftp_root, config.tftp_root);
        assert!(client("10.0.0.1").description(json[..].into()).config().is_err(), "it is for groups only");
    }
}
