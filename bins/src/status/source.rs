//! What the status is read from, and why it cannot be.

use std::{fmt, io, path::PathBuf};

use super::{
    query::{self, QueryError},
    servers::{self, Server},
    text,
    view::View,
};

/// The servers that are queried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    /// The server with this Unix socket.
    Socket(PathBuf),
    /// Servers over HTTP.
    Servers(Vec<Server>),
}

impl Source {
    /// Queries the servers; with a client, only that one is needed. Fails if none answers.
    pub(super) fn view(&self, client: Option<&str>) -> Result<View, StatusError> {
        match self {
            Self::Socket(socket) => Ok(query::snapshot(socket, client)?.into()),
            Self::Servers(servers) => {
                let view = servers::view(servers);
                if view.is_empty() { Err(StatusError::NoServer(view.missing().collect())) } else { Ok(view) }
            }
        }
    }
}

/// An error that ends the output.
#[derive(Debug)]
pub(super) enum StatusError {
    /// Standard output cannot be written.
    Output(io::Error),
    /// The daemon cannot be queried.
    Query(QueryError),
    /// None of the servers answers: a line for each.
    NoServer(Vec<String>),
    /// The recorded boots cannot be read.
    History(PathBuf, io::Error),
    /// The client is not in the history.
    UnknownClient(String),
    /// The daemon closed the connection that sends events.
    EventsEnded,
}

impl fmt::Display for StatusError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Output(error) => write!(f, "cannot write to standard output: {error}"),
            Self::Query(error) => error.fmt(f),
            Self::NoServer(problems) => {
                let problems: Vec<_> = problems.iter().map(|problem| text::escape(problem)).collect();
                f.write_str(&problems.join("\nrtftp: "))
            }
            Self::History(directory, error) => {
                let hint = match error.kind() {
                    io::ErrorKind::NotFound => "no boots are recorded here: does rtftp run with this --history?".into(),
                    io::ErrorKind::PermissionDenied => {
                        format!("{error}: only root, the user of the daemon and its group have access")
                    }
                    _ => error.to_string(),
                };
                write!(f, "{}: {hint}", directory.display())
            }
            Self::UnknownClient(client) => write!(f, "{}: no requests in the history", text::escape(client)),
            Self::EventsEnded => {
                f.write_str("connection closed: the daemon stopped, or the events were read too slowly")
            }
        }
    }
}

impl From<io::Error> for StatusError {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

impl From<QueryError> for StatusError {
    fn from(error: QueryError) -> Self {
        Self::Query(error)
    }
}
