//! The history to show: that of one server, or those of several as one.

use rtftp_runtime::history::snapshot::{Client, Snapshot, Totals};
use serde::{Serialize, Serializer};

/// A history at one moment.
#[derive(Debug, Default, Serialize)]
pub(crate) struct View {
    /// The time in seconds since 1970.
    pub(crate) now: f64,
    pub(crate) servers: Vec<Report>,
    /// The clients, the most recently seen first.
    pub(crate) clients: Vec<Client>,
}

/// The answer of a server.
#[derive(Debug)]
pub(crate) struct Report {
    /// The name that the user has given; `None` for the server of the socket.
    pub(super) name: Option<String>,
    /// The summary of the server, or the printable reason why it has not answered.
    pub(super) summary: Result<Summary, String>,
}

/// The server itself, without its clients.
#[derive(Debug, Serialize)]
pub(crate) struct Summary {
    pub(super) version: String,
    pub(super) started: f64,
    pub(super) totals: Totals,
}

impl From<Snapshot> for View {
    fn from(Snapshot { now, version, started, totals, clients }: Snapshot) -> Self {
        let summary = Ok(Summary { version, started, totals });
        Self { now, servers: vec![Report { name: None, summary }], clients }
    }
}

impl View {
    /// Returns the client with this address, or else with this name.
    pub(crate) fn find(&self, client: &str) -> Option<&Client> {
        let by_name = || self.clients.iter().find(|found| found.name.as_deref() == Some(client));
        self.clients.iter().find(|found| found.client == client).or_else(by_name)
    }

    /// Returns a line for each server that has not answered.
    pub(super) fn missing(&self) -> impl Iterator<Item = String> {
        self.servers.iter().filter_map(Report::problem)
    }

    /// Returns whether no server has answered.
    pub(super) fn is_empty(&self) -> bool {
        self.servers.iter().all(|server| server.summary.is_err())
    }

    /// Returns the view of several servers as one line of JSON.
    pub(super) fn json(&self) -> serde_json::Result<String> {
        Ok(serde_json::to_string(self)? + "\n")
    }
}

impl Serialize for Report {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Server<'v> {
            server: Option<&'v str>,
            #[serde(flatten)]
            summary: Option<&'v Summary>,
            #[serde(skip_serializing_if = "Option::is_none")]
            error: Option<&'v String>,
        }
        let summary = self.summary.as_ref();
        Server { server: self.name.as_deref(), summary: summary.ok(), error: summary.err() }.serialize(serializer)
    }
}

impl Report {
    /// Returns why the server has not answered, with its name.
    pub(super) fn problem(&self) -> Option<String> {
        let error = self.summary.as_ref().err()?;
        Some(format!("{}: {error}", self.name.as_deref().unwrap_or_default()))
    }
}
