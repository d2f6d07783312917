//! All boards in one list: those that have made requests, and those that are configured but have not.

use std::collections::HashSet;

use crate::{
    board_log::BOARD_LOG,
    client_name::ClientName,
    disk::{DiskState, NbdFile},
    files::Boards,
    history::{
        History,
        snapshot::{BoardState, Client, DiskStatus},
    },
};

/// The maximum number of boards without a request that are listed.
const MAX_SILENT_BOARDS: usize = 65_536;

/// Calls `add` with each board: first those with requests, the most recently seen first, then the others. Takes some milliseconds
/// for a thousand.
pub(super) fn for_each(history: &History, boards: &Boards, mut add: impl FnMut(Client)) {
    // A board with a MAC address or a serial number is known by the roots of its files.
    let mut known: HashSet<ClientName> = HashSet::new();
    for mut client in history.clients() {
        known.extend(describe(&mut client, boards));
        add(client);
    }
    let silent = boards.disks.iter().filter(|(name, _)| !known.contains(name));
    for (name, disk) in silent.take(MAX_SILENT_BOARDS) {
        add(silent_board(history, boards, *name, disk.as_ref()));
    }
}

/// Returns the board with this address, or else with this name.
pub(super) fn find(history: &History, boards: &Boards, wanted: &str) -> Option<Client> {
    if let Ok(ip) = wanted.parse()
        && let Some(mut client) = history.client(ip)
    {
        describe(&mut client, boards);
        return Some(client);
    }
    let (mut found, mut named) = (None, None);
    for_each(history, boards, |client| {
        if client.client == wanted {
            found = Some(client);
        } else if client.name.as_deref() == Some(wanted) {
            named = Some(client);
        }
    });
    found.or(named)
}

/// Adds what is known about a board with requests beside its history. Returns its names.
fn describe(client: &mut Client, boards: &Boards) -> Vec<ClientName> {
    let own = ClientName::parse(&client.client).ok();
    let origins =
        client.boots.iter().flat_map(|boot| boot.files.iter().rev()).filter_map(|file| file.origin.as_deref());
    let names: Vec<ClientName> = own.into_iter().chain(origins.clone().filter_map(named_board)).collect();
    let file = origins.clone().find_map(|origin| NbdFile::parse(origin).ok());
    let files = own.map(NbdFile::Client).into_iter().chain(file);
    let name = boards.name(files, names.iter().copied());
    client.name = name;
    client.disk = own.and_then(|own| boards.disks.get(&own)).and_then(Option::as_ref).map(status);
    client.log = BOARD_LOG.lines(&names);
    names
}

/// Returns the board of a root: `10.0.0.5/` or `10.0.0.5.nbd`.
fn named_board(origin: &str) -> Option<ClientName> {
    ClientName::parse(origin.strip_suffix('/').or_else(|| origin.strip_suffix(".nbd"))?).ok()
}

/// Returns a board without requests.
fn silent_board(history: &History, boards: &Boards, name: ClientName, disk: Option<&DiskState>) -> Client {
    let request = if history.has_evicted() { "no request in the history" } else { "no request yet" };
    let summary = match disk {
        None => request.into(),
        Some(DiskState::Connected) => format!("{request}; disk connected"),
        Some(DiskState::Idle) => format!("{request}; disk not connected"),
        Some(DiskState::Failed(reason)) => format!("{request}; disk failed: {reason}"),
    };
    let state = if matches!(disk, Some(DiskState::Failed(_))) { BoardState::Failed } else { BoardState::Silent };
    Client {
        client: name.to_string(),
        name: boards.name([NbdFile::Client(name)], [name]),
        state,
        status: summary.clone(),
        summary,
        disk: disk.map(status),
        boots: vec![],
        log: BOARD_LOG.lines(&[name]),
    }
}

fn status(disk: &DiskState) -> DiskStatus {
    match disk {
        DiskState::Connected => DiskStatus::Connected,
        DiskState::Idle => DiskStatus::Idle,
        DiskState::Failed(_) => DiskStatus::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::snapshot::State;

    fn clients(history: &History, boards: &Boards) -> Vec<Client> {
        let mut clients = vec![];
        for_each(history, boards, |client| clients.push(client));
        clients
    }

    fn name(name: &str) -> ClientName {
        ClientName::parse(name).expect("a name")
    }

    fn boards(names: &[(&str, Option<DiskState>)]) -> Boards {
        let disks = names.iter().map(|(text, disk)| (name(text), disk.clone())).collect();
        Boards { disks, ..Boards::default() }
    }

    #[test]
    fn lists_each_board_once_and_those_without_requests_last() {
        let history = History::new();
        history.record_request([10, 0, 0, 5].into(), b"kernel").finish(State::Complete, None);
        let by_mac = history.record_request([10, 0, 0, 6].into(), b"kernel");
        by_mac.set_origin("dc-a6-32-01-36-c2.nbd");
        by_mac.finish(State::Complete, None);
        let failed = DiskState::Failed("connection refused".into());
        let boards = boards(&[
            ("10.0.0.5", Some(DiskState::Connected)),
            ("10.0.0.7", Some(failed)),
            ("10.0.0.8", None),
            ("dc-a6-32-01-36-c2", Some(DiskState::Connected)),
            ("9ffefdef", Some(DiskState::Idle)),
        ]);
        let found = clients(&history, &boards).into_iter().map(|client| {
            let summary = if client.boots.is_empty() { client.summary } else { "booted".into() };
            (client.client, client.disk, client.state, summary)
        });
        let mut found: Vec<_> = found.collect();
        found[..2].sort_by(|a, b| a.0.cmp(&b.0));
        let expected = [
            ("10.0.0.5", Some(DiskStatus::Connected), BoardState::Booted, "booted"),
            ("10.0.0.6", None, BoardState::Booted, "booted"),
            (
                "10.0.0.7",
                Some(DiskStatus::Failed),
                BoardState::Failed,
                "no request yet; disk failed: connection refused",
            ),
            ("10.0.0.8", None, BoardState::Silent, "no request yet"),
            ("9ffefdef", Some(DiskStatus::Idle), BoardState::Silent, "no request yet; disk not connected"),
        ];
        assert_eq!(found, expected.map(|(name, disk, state, summary)| (name.into(), disk, state, summary.into())));
    }

    #[test]
    fn boards_have_their_label_or_that_of_their_group_or_their_host_name() {
        let history = History::new();
        for (number, origin) in [(5, "default/"), (6, "default.nbd"), (7, "dc-a6-32-01-36-c2/"), (8, "default/")] {
            let request = history.record_request([10, 0, 0, number].into(), b"kernel");
            request.set_origin(origin);
            request.finish(State::Complete, None);
        }
        let mut boards = boards(&[("10.0.0.5", None), ("9ffefdef", None), ("dc-a6-32-01-36-c2", None)]);
        boards.labels.insert(NbdFile::Client(name("10.0.0.5")), "Rack 3".into());
        boards.labels.insert(NbdFile::Client(name("9ffefdef")), "Door".into());
        boards.labels.insert(NbdFile::Default, "Lab".into());
        boards.hostnames.leases = std::sync::Arc::new(
            [5, 8].map(|number| ([10, 0, 0, number].into(), "leased".into())).into_iter().collect(),
        );
        boards.hostnames.ethers =
            std::sync::Arc::new([([0xdc, 0xa6, 0x32, 0x01, 0x36, 0xc2], "by-mac".into())].into_iter().collect());
        let mut found: Vec<_> = clients(&history, &boards)
            .into_iter()
            .map(|client| (client.client, client.name.unwrap_or_default()))
            .collect();
        found.sort();
        let expected = [
            ("10.0.0.5", "Rack 3"),
            ("10.0.0.6", "Lab"),
            ("10.0.0.7", "by-mac"),
            ("10.0.0.8", "leased"),
            ("9ffefdef", "Door"),
        ];
        assert_eq!(found, expected.map(|(client, name)| (client.into(), name.into())));
    }

    #[test]
    fn limits_the_boards_without_requests() {
        let disks = (0..70_000_u32).map(|number| (ClientName::Serial(number), Some(DiskState::Idle))).collect();
        let boards = Boards { disks, ..Boards::default() };
        assert_eq!(clients(&History::new(), &boards).len(), MAX_SILENT_BOARDS);
    }
}
