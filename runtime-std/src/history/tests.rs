use rtftp_core::wire::options::Settings;

use super::{snapshot::Event, *};

fn board() -> IpAddr {
    [10, 0, 0, 5].into()
}

/// A request that has been answered, and so has come from where it says.
fn answered(boots: &Boots, name: &str) -> Entry {
    let entry = boots.asked(board(), name.as_bytes());
    entry.sent_as(Sending { size: Some(1000), settings: Settings::default(), view_age: None });
    entry.file.heard(clock::now());
    entry.file.reached(clock::now(), 1000, 2);
    entry
}

#[test]
fn requests_are_counted_by_their_ends() {
    let boots = Boots::new();
    answered(&boots, "a").end(State::Complete, None);
    let ends = [State::Probe, State::Missing, State::Missing, State::Refused, State::Failed];
    ends.into_iter().for_each(|state| boots.asked(board(), b"b").end(state, None));
    let _running = boots.asked(board(), b"c");
    boots.repeated(board(), b"c");
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
    assert_eq!(boots.totals(), expected);
}

#[test]
fn an_entry_ends_once_and_when_it_is_dropped_at_the_latest() {
    let boots = Boots::new();
    let entry = boots.asked(board(), b"a");
    entry.end(State::Missing, None);
    entry.end(State::Failed, Some("later"));
    drop(entry);
    drop(boots.asked(board(), b"b"));
    assert_eq!((boots.totals().missing, boots.totals().failed, boots.totals().running), (1, 1, 0));
    let client = boots.snapshot().clients.remove(0);
    let ends: Vec<_> = client.boots[0].files.iter().map(|file| (file.state, file.why.as_deref())).collect();
    assert_eq!(ends, [(State::Missing, None), (State::Failed, Some("ended by the server"))]);
}

#[test]
fn the_json_is_the_snapshot() {
    let boots = Boots::new();
    assert_eq!(serde_json::from_slice::<Snapshot>(&boots.json()).expect("JSON").clients, []);
    answered(&boots, "\"quoted\"\n").end(State::Complete, None);
    boots.asked([10, 0, 0, 6].into(), b"other").end(State::Failed, Some("no \u{1b} route"));
    let json = boots.json();
    let read: Snapshot = serde_json::from_slice(&json).expect("JSON");
    let made = boots.snapshot();
    assert_eq!((read.totals, read.clients.len(), boots.known()), (made.totals, 2, 2));
    assert_eq!(read.clients[0].boots[0].files[0].why.as_deref(), Some("no   route"));
    assert_eq!(read.clients[1].boots[0].files[0].name, r#"\"quoted\"\n"#);
    assert_eq!(json.iter().filter(|&&byte| byte == b'\n').count(), 1, "one line");
}

/// Others build on these names.
#[test]
fn the_json_has_its_fields() {
    let boots = Boots::new();
    answered(&boots, "kernel").end(State::Complete, None);
    let json: serde_json::Value = serde_json::from_slice(&boots.json()).expect("JSON");
    let fields = |value: &serde_json::Value| -> Vec<String> {
        let mut fields: Vec<_> = value.as_object().expect("an object").keys().cloned().collect();
        fields.sort();
        fields
    };
    assert_eq!(fields(&json), ["clients", "now", "started", "totals", "version"]);
    let client = &json["clients"][0];
    assert_eq!(fields(client), ["boots", "client", "where"]);
    assert_eq!(fields(&client["boots"][0]), ["began", "files", "last", "more"]);
    let file = &client["boots"][0]["files"][0];
    let names =
        "acknowledged began blksize copies name origin retransmitted seconds size state view_age why windowsize";
    assert_eq!(fields(file), names.split(' ').collect::<Vec<_>>());
    assert_eq!((&file["state"], &file["blksize"], &file["origin"]), (&"complete".into(), &512.into(), &().into()));
}

#[test]
fn followers_are_told_of_every_end_and_slow_ones_dropped() {
    let boots = Boots::new();
    answered(&boots, "before").end(State::Complete, None);
    let (reader, slow) = (boots.follow().expect("a place"), boots.follow().expect("a place"));
    for nth in 0..2000 {
        answered(&boots, &nth.to_string()).end(State::Complete, None);
        let line = reader.try_recv().expect("a line");
        let event: Event = serde_json::from_str(line.trim_end()).expect("JSON");
        assert_eq!((event.client.as_str(), event.file.name), ("10.0.0.5", nth.to_string()));
    }
    assert!(slow.is_closed() && slow.len() < 2000, "{} lines", slow.len());
    assert!(!reader.is_closed());
}

#[test]
fn a_place_that_is_left_is_free_for_another_follower() {
    let boots = Boots::new();
    let mut followers: Vec<_> = std::iter::from_fn(|| boots.follow()).collect();
    assert_eq!(followers.len(), 16);
    followers.pop();
    assert!(boots.follow().is_some());
}

#[test]
fn a_flood_of_strangers_does_not_drown_a_follower() {
    let boots = Boots::new();
    let follower = boots.follow().expect("a place");
    (0..5000).for_each(|_| boots.asked(board(), b"forged").end(State::Missing, None));
    assert!((100..300).contains(&follower.len()), "{} lines", follower.len());
    answered(&boots, "honest").end(State::Complete, None);
    assert!(std::iter::from_fn(|| follower.try_recv().ok()).any(|line| line.contains("honest")));
}
