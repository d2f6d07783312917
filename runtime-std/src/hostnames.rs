//! The host names of boards, from a file of DHCP leases and from one like `/etc/ethers`.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, Read},
    net::IpAddr,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use smol::lock::Mutex;

use crate::{clock::within, unsandboxed};

/// The largest part of a file that is read, in bytes: about 100,000 boards.
const MAX_FILE: u64 = 8 << 20;
/// The longest host name, in bytes (RFC 1123 section 2.1).
const MAX_HOSTNAME: usize = 253;
/// The time limit for reading the files: they may be on a file system that hangs.
const READ_LIMIT: Duration = Duration::from_secs(5);
/// The age from which a change of a file also changes its modification time.
const MIN_AGE: Duration = Duration::from_secs(1);

/// The files with host names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostnameFiles {
    /// The leases of dnsmasq. A board chooses the name in its lease itself, unless the DHCP server assigns one.
    pub leases: Option<PathBuf>,
    /// MAC addresses and their host names, as in `/etc/ethers`. Its names go before those of leases.
    pub ethers: Option<PathBuf>,
}

/// The host names of boards. Each file is read again after it was changed.
#[derive(Debug, Default)]
pub(crate) struct Hostnames {
    files: HostnameFiles,
    names: Arc<Mutex<Names>>,
}

#[derive(Debug, Default)]
struct Names {
    leases: Table<IpAddr>,
    ethers: Table<[u8; 6]>,
}

/// The host names in the files as they were at one moment.
#[derive(Debug, Clone, Default)]
pub(crate) struct KnownHostnames {
    pub(crate) leases: Arc<HashMap<IpAddr, Box<str>>>,
    pub(crate) ethers: Arc<HashMap<[u8; 6], Box<str>>>,
}

/// The contents of a file.
#[derive(Debug)]
struct Table<K> {
    /// The version of the file, unless it was changed just before it was read.
    version: Option<Version>,
    /// The last error, which is logged once.
    error: Option<String>,
    names: Arc<HashMap<K, Box<str>>>,
}

/// The inode, the size, and the time of the last change of a file.
type Version = (u64, u64, i64, i64);

impl Hostnames {
    pub(crate) fn new(files: HostnameFiles) -> Self {
        Self { files, names: Arc::default() }
    }

    /// Returns whether a name can depend on the MAC address.
    pub(crate) fn need_mac(&self) -> bool {
        self.files.ethers.is_some()
    }

    /// Returns the host name of a board, if a file has it. An unreadable file has none, which is logged.
    pub(crate) async fn find(&self, ip: IpAddr, mac: Option<[u8; 6]>) -> Option<String> {
        self.read(move |names, files| names.find(files, ip, mac)).await
    }

    /// Returns all host names.
    pub(crate) async fn all(&self) -> KnownHostnames {
        if self.files == HostnameFiles::default() {
            return KnownHostnames::default();
        }
        self.read(Names::all).await
    }

    async fn read<T: Default + Send + 'static>(
        &self,
        read: impl FnOnce(&mut Names, &HostnameFiles) -> T + Send + 'static,
    ) -> T {
        let files = self.files.clone();
        let found = within(READ_LIMIT, async {
            // Held by the thread that reads: there is only one at a time, even if it hangs.
            let mut names = self.names.lock_arc().await;
            // The files lie outside of the root directory, and may be replaced at any time.
            unsandboxed::unblock(move || Ok(read(&mut names, &files))).await
        });
        let found = found.await.unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()));
        found.unwrap_or_else(|error| {
            log::error!("cannot read host names: {error}");
            T::default()
        })
    }
}

impl Names {
    /// Finds a name in the files as they are now. Blocks.
    fn find(&mut self, files: &HostnameFiles, ip: IpAddr, mac: Option<[u8; 6]>) -> Option<String> {
        if let (Some(path), Some(mac)) = (&files.ethers, mac) {
            self.ethers.update(path, parse_ethers_line);
            if let Some(name) = self.ethers.names.get(&mac) {
                return Some(name.to_string());
            }
        }
        self.leases.update(files.leases.as_ref()?, parse_lease);
        self.leases.names.get(&ip.to_canonical()).map(ToString::to_string)
    }

    /// Returns all names in the files as they are now. Blocks.
    fn all(&mut self, files: &HostnameFiles) -> KnownHostnames {
        if let Some(path) = &files.ethers {
            self.ethers.update(path, parse_ethers_line);
        }
        if let Some(path) = &files.leases {
            self.leases.update(path, parse_lease);
        }
        KnownHostnames { leases: self.leases.names.clone(), ethers: self.ethers.names.clone() }
    }
}

impl<K> Default for Table<K> {
    fn default() -> Self {
        Self { version: None, error: None, names: Arc::default() }
    }
}

impl<K: Eq + std::hash::Hash> Table<K> {
    /// Reads a file again if it has changed. Without the file there are no names.
    fn update(&mut self, path: &Path, parse_line: fn(&str) -> Option<(K, &str)>) {
        let error = match self.read(path, parse_line) {
            Ok(()) => None,
            Err(error) => {
                *self = Self { error: self.error.take(), ..Self::default() };
                Some(error.to_string())
            }
        };
        if let Some(error) = error.as_ref().filter(|error| self.error.as_ref() != Some(error)) {
            log::warn!("{}: cannot read host names: {error}", path.display());
        }
        self.error = error;
    }

    fn read(&mut self, path: &Path, parse_line: fn(&str) -> Option<(K, &str)>) -> io::Result<()> {
        // Before it is opened: opening a FIFO would block.
        let file = fs::metadata(path)?;
        if !file.is_file() {
            return Err(io::Error::other("not a regular file"));
        }
        let version = (file.ino(), file.size(), file.ctime(), file.ctime_nsec());
        if self.version == Some(version) {
            return Ok(());
        }
        let is_old = |time: SystemTime| time.elapsed().is_ok_and(|age| age > MIN_AGE);
        let is_reliable = file.modified().is_ok_and(is_old);
        let mut text = Vec::new();
        File::open(path)?.take(MAX_FILE).read_to_end(&mut text)?;
        let text = String::from_utf8_lossy(&text);
        let lines = text.lines().filter_map(parse_line);
        let names = lines.filter(|(_, name)| is_hostname(name)).map(|(key, name)| (key, name.into()));
        self.names = Arc::new(names.collect());
        self.version = Some(version).filter(|_| is_reliable);
        Ok(())
    }
}

/// Parses a lease of dnsmasq: the time of its end, the MAC address, the IP address, the host name or `*`, and the client identifier.
fn parse_lease(line: &str) -> Option<(IpAddr, &str)> {
    let mut fields = line.split_ascii_whitespace();
    fields.next()?.parse::<u64>().ok()?;
    let ip: IpAddr = fields.nth(1)?.parse().ok()?;
    Some((ip.to_canonical(), fields.next()?))
}

/// Parses a line of ethers(5): the MAC address and the host name.
fn parse_ethers_line(line: &str) -> Option<([u8; 6], &str)> {
    let mut fields = line.split('#').next()?.split_ascii_whitespace();
    let (mut mac, mut bytes) = ([0; 6], fields.next()?.split([':', '-']));
    for byte in &mut mac {
        let digits = bytes.next().filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))?;
        *byte = u8::from_str_radix(digits, 16).ok()?;
    }
    let name = fields.next()?;
    // An entry may have an address instead of a name.
    (bytes.next().is_none() && name.parse::<IpAddr>().is_err()).then_some((mac, name))
}

/// Returns whether a text is a host name. It may become a part of a path, which it must not leave.
fn is_hostname(text: &str) -> bool {
    let is_label = |label: &str| {
        label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
            && !label.is_empty()
            && !label.starts_with('-')
    };
    text.len() <= MAX_HOSTNAME && text.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use smol::block_on;

    use super::*;

    const MAC: [u8; 6] = [0xdc, 0xa6, 0x32, 0x01, 0x36, 0xc2];

    #[test]
    fn parses_leases_of_dnsmasq() {
        for (line, expected) in [
            ("1764403200 dc:a6:32:01:36:c2 10.0.0.5 board-5 01:dc:a6:32:01:36:c2", Some(("10.0.0.5", "board-5"))),
            ("0 dc:a6:32:01:36:c2 10.0.0.6 rack.lab *", Some(("10.0.0.6", "rack.lab"))),
            ("1764403200 123456 fd00::5 board6 00:01:00:01", Some(("fd00::5", "board6"))),
            ("duid 00:01:00:01:2a:2b:2c:2d", None),
            ("1764403200 dc:a6:32:01:36:c2 10.0.0", None),
            ("1764403200 dc:a6:32:01:36:c2 10.0.0.5", None),
            ("", None),
        ] {
            let expected = expected.map(|(ip, name)| (ip.parse().expect("an address"), name));
            assert_eq!(parse_lease(line), expected, "{line}");
        }
    }

    #[test]
    fn parses_ethers() {
        for (line, expected) in [
            ("dc:a6:32:01:36:c2 board-5", Some("board-5")),
            ("DC:A6:32:1:36:C2\tboard-5.lab # rack 1", Some("board-5.lab")),
            ("dc:a6:32:01:36:c2 10.0.0.5", None),
            ("# dc:a6:32:01:36:c2 board", None),
            ("dc:a6:32:01:36:c2:00 board", None),
            ("dc:a6:32:01:36 board", None),
            ("+c:a6:32:01:36:c2 board", None),
            ("dc:a6:32:01:36:c2", None),
        ] {
            assert_eq!(parse_ethers_line(line), expected.map(|name| (MAC, name)), "{line}");
        }
    }

    #[test]
    fn accepts_only_valid_host_names() {
        let longest = ["a".repeat(63), "b".repeat(63), "c".repeat(63), "d".repeat(61)].join(".");
        for name in ["a", "board-5", "board_5.rack.lab", "5", longest.as_str()] {
            assert!(is_hostname(name), "{name}");
        }
        let too_long = format!("{longest}e");
        for name in [
            "",
            "*",
            ".",
            "..",
            "../x",
            "a..b",
            ".a",
            "a.",
            "-a",
            "a/b",
            "a%2fb",
            "a?b",
            "a b",
            "{ip}",
            "gr\u{fc}n",
            &too_long,
        ] {
            assert!(!is_hostname(name), "{name}");
        }
    }

    #[test]
    fn reads_changed_files_again() {
        let top = tempfile::tempdir().expect("a directory");
        let (leases, ethers) = (top.path().join("leases"), top.path().join("ethers"));
        let files = HostnameFiles { leases: Some(leases.clone()), ethers: Some(ethers.clone()) };
        let names = Hostnames::new(files);
        let find = |mac| block_on(names.find("10.0.0.5".parse().expect("an address"), mac));
        assert_eq!(find(Some(MAC)), None, "there are no files");
        for name in ["one", "two", "six"] {
            fs::write(&leases, format!("1 dc:a6:32:01:36:c2 10.0.0.5 {name} *\n")).expect("written");
            assert_eq!(find(Some(MAC)).as_deref(), Some(name), "of the same size");
        }
        fs::write(&ethers, "dc:a6:32:01:36:c2 mine\n").expect("written");
        assert_eq!((find(Some(MAC)).as_deref(), find(None).as_deref()), (Some("mine"), Some("six")));
        fs::write(top.path().join("new"), "1 x 10.0.0.5 renamed *\n").expect("written");
        fs::rename(top.path().join("new"), &leases).expect("renamed");
        assert_eq!(find(None).as_deref(), Some("renamed"));
        fs::remove_file(&leases).expect("removed");
        assert_eq!(find(None), None);
    }

    #[test]
    fn hostile_files_are_bounded() {
        let top = tempfile::tempdir().expect("a directory");
        let leases = top.path().join("leases");
        let find = |path: &Path| {
            let names = Hostnames::new(HostnameFiles { leases: Some(path.to_owned()), ethers: None });
            block_on(names.find("10.0.0.5".parse().expect("an address"), None))
        };
        fs::write(&leases, "1 x 10.0.0.5 ../../etc/passwd *\n\0\u{ff}\n1 x 10.0.0.5 good\n").expect("written");
        assert_eq!(find(&leases).as_deref(), Some("good"));
        let file = File::options().append(true).open(&leases).expect("opened");
        file.set_len(1 << 40).expect("a sparse file");
        assert_eq!(find(&leases).as_deref(), Some("good"));
        assert_eq!(find(top.path()), None);
        assert_eq!(find(Path::new("/dev/zero")), None);
    }
}
