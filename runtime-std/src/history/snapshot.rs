//! The data model of the history, as it is published in JSON. The names of the fields are an interface: other programs read them.

use serde::{Deserialize, Serialize};

/// The history at one moment. Times are in seconds since 1970 (UTC).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The time of this snapshot.
    pub now: f64,
    /// The version of the server.
    pub version: String,
    /// The time at which the server started.
    pub started: f64,
    /// The totals since then.
    pub totals: Totals,
    /// The clients, the most recently seen first. Those seen before the last 1024 have only one request, and are the last.
    pub clients: Vec<Client>,
}

/// Totals since the start of the server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Requests, without copies.
    pub requests: u64,
    /// Files delivered completely.
    pub complete: u64,
    /// Requests that only queried the existence or size of a file.
    pub probes: u64,
    /// Requests for files that do not exist.
    pub missing: u64,
    /// Requests that were refused.
    pub refused: u64,
    /// Requests that failed: the file could not be read, or the transfer was aborted.
    pub failed: u64,
    /// Bytes acknowledged in finished requests.
    pub bytes: u64,
    /// Packets sent again in finished requests.
    pub retransmitted: u64,
    /// Copies of requests that were being answered already.
    pub copies: u64,
    /// Requests that are being answered now.
    pub running: u64,
}

/// Boots that have ended since the start of the server, by the state of their last request. Boots of clients that never answered are
/// not counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BootTotals {
    /// The last file was delivered completely.
    pub complete: u64,
    /// The last request only queried the existence or size of a file.
    pub probe: u64,
    /// The last file does not exist.
    pub missing: u64,
    /// The last request was refused.
    pub refused: u64,
    /// The last request failed.
    pub failed: u64,
}

/// A client and its last boots.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Client {
    /// The address. That of a board without a request may be a MAC address or a serial number.
    pub client: String,
    /// The label in its description, or else its host name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The state of the last boot.
    #[serde(default)]
    pub state: BoardState,
    /// The same as a sentence without durations: it changes only when something happens.
    #[serde(default)]
    pub status: String,
    /// The state of the last boot, as a sentence.
    #[serde(rename = "where")]
    pub summary: String,
    /// The state of the disk that is described for this address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<DiskStatus>,
    /// The boots, the newest first. A board that has a description or a directory, and has not asked for anything, has none.
    pub boots: Vec<Boot>,
    /// The last lines that the server has logged about the board and its disk, the oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub log: Vec<LogLine>,
}

/// A line of the log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LogLine {
    /// The time in seconds since 1970.
    pub at: f64,
    /// `error`, `warn`, `info`, `debug` or `trace`.
    pub level: String,
    /// The line.
    pub text: String,
}

/// The state of a board: that of its newest running request, or else that of its newest request. The worst is the first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BoardState {
    /// The request failed or was refused; or the board has made none, and its disk cannot be opened.
    Failed,
    /// The request is running, and makes no progress.
    Stalled,
    /// The board has started several times within minutes.
    Looping,
    /// The file does not exist.
    Missing,
    /// The file was delivered completely, but the disk was not mounted or written after that, as it was after an earlier boot.
    Unmounted,
    /// The board has a description or a directory, and has made no request.
    Silent,
    /// The request is running.
    Running,
    /// The file was delivered completely.
    Booted,
    /// The board only queried the existence or size of a file.
    #[default]
    Probed,
}

impl BoardState {
    /// Returns whether the board needs attention.
    pub fn is_problem(self) -> bool {
        self <= Self::Silent
    }
}

/// The state of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DiskStatus {
    /// Connected.
    Connected,
    /// Not connected, and no problem is known.
    Idle,
    /// It could not be opened, or its description is not valid.
    Failed,
}

/// One boot: requests that follow each other closely.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Boot {
    /// The time of the first request.
    pub began: f64,
    /// The time of the last packet from the client.
    pub last: f64,
    /// The number of requests that are not listed in `files`.
    pub more: u64,
    /// The requests, the oldest first.
    pub files: Vec<File>,
    /// What the disk has shown since the last file from it: whether the board came up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mount: Option<Mount>,
}

/// What the disk of a board has shown after a boot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Mount {
    /// The result.
    pub state: MountState,
    /// The time from the last file to the reading of the disk that has shown it, in seconds.
    pub seconds: f64,
    /// The file systems, or why nothing is known: `ext4 on partition 2 mounted within 16 s`.
    pub text: String,
}

/// Whether a board has mounted its disk. The later states say more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MountState {
    /// It is not known.
    Unknown,
    /// No read-write mount, and no write.
    Unchanged,
    /// A file system was written.
    Written,
    /// A file system was mounted read-write.
    Mounted,
}

/// A request for a file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct File {
    /// The requested name: everything but printable ASCII is escaped, a name with blanks or escapes is quoted, and a
    /// long one is cut off.
    pub name: String,
    /// The protocol of the request.
    #[serde(default)]
    pub protocol: Protocol,
    /// The root in which the file was found, or could not be read.
    pub origin: Option<String>,
    /// The title of the boot entry whose kernel the file is, in the menu that was generated from the disk.
    #[serde(default)]
    pub boot_entry: Option<String>,
    /// The state of the request.
    pub state: State,
    /// The reason why it was refused or failed.
    pub why: Option<String>,
    /// The time of the request.
    pub began: f64,
    /// The time from the request to its end, or to now, in seconds.
    pub seconds: f64,
    /// The size of the file in bytes, if it is known.
    pub size: Option<u64>,
    /// Bytes acknowledged by the client.
    pub acknowledged: u64,
    /// Packets sent again.
    pub retransmitted: u64,
    /// Copies of the request that arrived before the client received the first reply.
    pub copies: u64,
    /// The granted block size in bytes, or 0 if no transfer started.
    pub blksize: u16,
    /// The granted window size in blocks, or 0 if no transfer started.
    pub windowsize: u16,
    /// The age of the disk's snapshot when the file was opened, in seconds; only for files on disks.
    #[serde(rename = "view_age")]
    pub snapshot_age: Option<f64>,
    /// The name of the server that answered, where the histories of several are merged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
}

/// The protocol of a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TFTP.
    #[default]
    Tftp,
    /// HTTP.
    Http,
}

/// The state of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// The request is being answered.
    Running,
    /// The client has acknowledged the whole file.
    Complete,
    /// The client only queried the existence or size of the file.
    Probe,
    /// The file does not exist.
    Missing,
    /// The request was refused.
    Refused,
    /// The file could not be read, or the transfer was aborted.
    Failed,
}

impl State {
    /// Returns the name, as in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Complete => "complete",
            Self::Probe => "probe",
            Self::Missing => "missing",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }
}

/// A finished request, as it is sent to subscribers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// The address of the client.
    pub client: String,
    /// The request.
    #[serde(flatten)]
    pub file: File,
}
