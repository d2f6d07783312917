use super::{snapshot::Event, *};

fn board() -> IpAddr {
    [10, 0, 0, 5].into()
}

/// Records a request from a port of the client whose transfer has started.
fn started(history: &History, name: &str, client_port: u16) -> RequestRecord {
    let record = history.record_request(board(), name.as_bytes());
    record.start_transfer(TransferStart {
        size: Some(1000),
        block_size: 512,
        window_size: 1,
        snapshot_age: None,
        client_port,
    });
    record
}

/// Records a request that the client has answered, so that its address is verified.
fn verified(history: &History, name: &str) -> RequestRecord {
    let record = started(history, name, 1000);
    record.note_activity(clock::now(), 1000, 2);
    record
}

#[test]
fn counts_requests_by_their_outcomes() {
    let history = History::new();
    verified(&history, "a").finish(State::Complete, None);
    let outcomes = [State::Probe, State::Missing, State::Missing, State::Refused, State::Failed];
    outcomes.into_iter().for_each(|state| history.record_request(board(), b"b").finish(state, None));
    let _running = history.record_request(board(), b"c");
    history.record_copy(board(), b"c");
    let expected = Totals {
        requests: 7,
        complete: 1,
        probes: 1,
        missing: 2,
        refused: 1,
        failed: 1,
        bytes: 1000,
        retransmitted: 2,
        copies: 1,
        running: 1,
    };
    assert_eq!(history.totals(), expected);
}

#[test]
fn a_copy_of_an_answered_request_does_not_fail_the_boot() {
    let history = History::new();
    let request = |name, client_port| started(&history, name, client_port);
    let kernel = request("kernel", 1000);
    kernel.note_activity(clock::now(), 1000, 0);
    assert!(!request("kernel", 1000).finish_copy(), "the file is not received yet");
    kernel.finish(State::Complete, None);
    assert!(!request("kernel", 1001).finish_copy() && !request("dtb", 1000).finish_copy());
    let answered = request("kernel", 1000);
    answered.note_activity(clock::now(), 0, 0);
    assert!(!answered.finish_copy());
    drop(answered);
    let before = history.client(board()).expect("the board");
    let subscriber = history.subscribe().expect("subscribed");
    assert!(request("kernel", 1000).finish_copy());
    let mut after = history.client(board()).expect("the board");
    assert_eq!((after.boots[0].files.len(), after.boots[0].files[0].copies), (5, 1));
    after.boots[0].files[0].copies = 0;
    let names = |client: &Client| -> Vec<_> {
        client.boots[0].files.iter().map(|file| (file.name.clone(), file.state)).collect()
    };
    assert_eq!(names(&after), names(&before));
    assert!(subscriber.is_empty());
    let Totals { requests, complete, failed, copies, running, .. } = history.totals();
    assert_eq!((requests, complete, failed, copies, running), (6, 1, 5, 1, 0));
}

#[test]
fn finishes_a_request_once_and_at_the_latest_when_dropped() {
    let history = History::new();
    let record = history.record_request(board(), b"a");
    record.finish(State::Missing, None);
    record.finish(State::Failed, Some("later"));
    drop(record);
    drop(history.record_request(board(), b"b"));
    assert_eq!((history.totals().missing, history.totals().failed, history.totals().running), (1, 1, 0));
    let client = history.snapshot().clients.remove(0);
    let outcomes: Vec<_> = client.boots[0].files.iter().map(|file| (file.state, file.why.as_deref())).collect();
    assert_eq!(outcomes, [(State::Missing, None), (State::Failed, Some("ended by the server"))]);
}

#[test]
fn json_equals_snapshot() {
    let history = History::new();
    assert_eq!(serde_json::from_slice::<Snapshot>(&json(&history)).expect("JSON").clients, []);
    verified(&history, "\"quoted\"\n").finish(State::Complete, None);
    history.record_request([10, 0, 0, 6].into(), b"other").finish(State::Failed, Some("no \u{1b} route"));
    let json = json(&history);
    let parsed: Snapshot = serde_json::from_slice(&json).expect("JSON");
    let snapshot = history.snapshot();
    assert_eq!((parsed.totals, parsed.clients.len(), history.client_count()), (snapshot.totals, 2, 2));
    assert_eq!(parsed.clients[0].boots[0].files[0].why.as_deref(), Some(r"no \u{1b} route"));
    assert_eq!(parsed.clients[1].boots[0].files[0].name, r#""\"quoted\"\n""#);
    assert_eq!(json.iter().filter(|&&byte| byte == b'\n').count(), 1, "one line");
}

/// Other programs depend on these names.
#[test]
fn json_field_names_are_stable() {
    let history = History::new();
    verified(&history, "kernel").finish(State::Complete, None);
    let json: serde_json::Value = serde_json::from_slice(&json(&history)).expect("JSON");
    let fields = |value: &serde_json::Value| -> Vec<String> {
        let mut fields: Vec<_> = value.as_object().expect("an object").keys().cloned().collect();
        fields.sort();
        fields
    };
    assert_eq!(fields(&json), ["clients", "now", "started", "totals", "version"]);
    let client = &json["clients"][0];
    assert_eq!(fields(client), ["boots", "client", "state", "status", "where"]);
    assert_eq!(fields(&client["boots"][0]), ["began", "files", "last", "more"]);
    let file = &client["boots"][0]["files"][0];
    let names = "acknowledged began blksize boot_entry copies name origin protocol retransmitted seconds size state view_age why windowsize";
    assert_eq!(fields(file), names.split(' ').collect::<Vec<_>>());
    assert_eq!((&file["state"], &file["blksize"], &file["origin"]), (&"complete".into(), &512.into(), &().into()));
}

#[test]
fn subscribers_receive_every_event_until_they_are_too_slow() {
    let history = History::new();
    verified(&history, "before").finish(State::Complete, None);
    let (fast, slow) = (history.subscribe().expect("subscribed"), history.subscribe().expect("subscribed"));
    for index in 0..2000 {
        verified(&history, &index.to_string()).finish(State::Complete, None);
        let line = fast.try_recv().expect("a line");
        let event: Event = serde_json::from_str(line.trim_end()).expect("JSON");
        assert_eq!((event.client.as_str(), event.file.name), ("10.0.0.5", index.to_string()));
    }
    assert!(slow.is_closed() && slow.len() < 2000, "{} lines", slow.len());
    assert!(!fast.is_closed());
}

#[test]
fn a_subscriber_that_leaves_makes_room_for_another() {
    let history = History::new();
    let mut subscribers: Vec<_> = std::iter::from_fn(|| history.subscribe()).collect();
    assert_eq!(subscribers.len(), 16);
    subscribers.pop();
    assert!(history.subscribe().is_some());
}

#[test]
fn events_of_unverified_clients_are_limited() {
    let history = History::new();
    let subscriber = history.subscribe().expect("subscribed");
    (0..5000).for_each(|_| history.record_request(board(), b"forged").finish(State::Missing, None));
    assert!((100..300).contains(&subscriber.len()), "{} lines", subscriber.len());
    verified(&history, "honest").finish(State::Complete, None);
    assert!(std::iter::from_fn(|| subscriber.try_recv().ok()).any(|line| line.contains("honest")));
}

/// Returns the history as JSON.
fn json(history: &History) -> Vec<u8> {
    let mut document = history.document();
    history.clients().for_each(|client| document.add(&client));
    document.finish()
}
