use rtftp_runtime::history::snapshot::{BoardState, Client, File, State};

use super::*;
use crate::status::{
    history::tests::{client, file},
    table::tests::{hundred, snapshot},
};

/// Returns the rows of a frame, without escape sequences.
fn rows(live: &mut Live, columns: usize, rows: usize) -> Vec<String> {
    let frame = live.frame(&Screen::of_size(columns, rows));
    let text =
        ["\x1b[H", "\x1b[J", "\x1b[7m", "\x1b[0m", "\x1b[27m"].iter().fold(frame, |text, code| text.replace(code, ""));
    text.split("\r\n").map(|row| row.trim_end_matches("\x1b[K").to_owned()).collect()
}

fn selected(live: &mut Live) -> String {
    let frame = live.frame(&Screen::of_size(100, 24));
    let row = frame.split("\r\n").find(|row| row.contains("\x1b[7m")).expect("a selected row");
    row.trim_start_matches("\x1b[H").trim_start_matches("\x1b[7m").split(' ').next().expect("an address").to_owned()
}

fn press(live: &mut Live, keys: &[Key]) {
    for key in keys {
        assert!(!live.press(*key), "{key:?}");
        live.frame(&Screen::of_size(100, 24));
    }
}

fn characters(text: &str) -> Vec<Key> {
    text.chars().map(Key::Character).collect()
}

#[test]
fn clients_stay_in_the_order_of_addresses_whatever_their_state() {
    let mut live = Live::new(hundred(), None);
    let before = rows(&mut live, 100, 24);
    assert!(before[3].starts_with("10.0.0.1 ") && before[4].starts_with("10.0.0.2 "), "{before:?}");
    assert_eq!(before.len(), 24);
    assert!(before[23].ends_with("| 100 of 100 boards"), "{before:?}");
    let mut view = hundred();
    view.clients[99].state = BoardState::Failed;
    view.clients.rotate_left(17);
    live.update(Ok(view));
    let after = rows(&mut live, 100, 24);
    assert_eq!(after[3..23], before[3..23]);
}

#[test]
fn keys_select_and_open_a_client() {
    let mut live = Live::new(hundred(), None);
    assert_eq!(selected(&mut live), "10.0.0.1");
    press(&mut live, &[Key::Down, Key::Down, Key::Up]);
    assert_eq!(selected(&mut live), "10.0.0.2");
    press(&mut live, &[Key::End]);
    assert_eq!(selected(&mut live), "10.0.0.100");
    assert!(rows(&mut live, 100, 24)[22].starts_with("10.0.0.100 "));
    press(&mut live, &[Key::PageUp, Key::Up, Key::Down]);
    assert_eq!(selected(&mut live), "10.0.0.80");
    press(&mut live, &[Key::Enter]);
    assert!(rows(&mut live, 100, 24)[0].starts_with("10.0.0.80: "));
    press(&mut live, &[Key::Escape]);
    assert_eq!(selected(&mut live), "10.0.0.80");
    assert!(live.press(Key::Character('q')) && live.press(Key::Interrupt));
}

#[test]
fn filter_and_search_leave_the_others_out() {
    let mut live = Live::new(hundred(), None);
    press(&mut live, &characters("f"));
    let shown = rows(&mut live, 100, 24);
    let clients: Vec<_> = shown[3..6].iter().map(|row| row.split(' ').next().expect("a word")).collect();
    assert_eq!((clients, shown[6].as_str()), (vec!["10.0.0.30", "10.0.0.50", "10.0.0.70"], ""));
    assert!(shown[23].ends_with("| 3 of 100 boards, only those with problems"), "{shown:?}");
    press(&mut live, &[&characters("/0.70")[..], &[Key::Enter]].concat());
    let shown = rows(&mut live, 200, 24);
    assert!(shown[3].starts_with("10.0.0.70 ") && shown[4].is_empty(), "{shown:?}");
    assert!(shown[23].ends_with("with `0.70`"), "{shown:?}");
    // `q` is a character of a search.
    press(&mut live, &characters("/qf"));
    assert!(rows(&mut live, 100, 24)[23].starts_with("search: 0.70qf_"));
    press(&mut live, &[Key::Backspace, Key::Escape, Key::Escape]);
    assert!(rows(&mut live, 100, 24)[23].contains("100 of 100 boards"));
}

#[test]
fn selected_client_stays_selected_and_visible_in_any_size() {
    let mut live = Live::new(hundred(), None);
    press(&mut live, &[Key::PageDown, Key::PageDown, Key::PageDown]);
    let client = selected(&mut live);
    for (columns, height) in [(100, 24), (40, 9), (20, 4), (200, 99), (5, 3), (0, 0), (1, 1)] {
        let shown = rows(&mut live, columns, height);
        assert!(shown.len() <= height.max(1), "{columns} {height}: {shown:?}");
        assert!(columns < 20 || shown.iter().any(|row| row.starts_with(&client)), "{columns} {height}: {shown:?}");
    }
    assert_eq!(selected(&mut live), client);
}

#[test]
fn reasons_are_wrapped_and_not_cut() {
    let reason = "10.0.0.5.nbd: cannot connect to nbd://nas.example.org/board5: Connection refused (os error 111)";
    let failed = Client {
        summary: format!("kernel failed: {reason}"),
        state: BoardState::Failed,
        ..client(vec![file("kernel", State::Failed)])
    };
    for columns in [80, 100, 200] {
        let mut live = Live::new(snapshot(1020.0, vec![failed.clone()]), None);
        let shown = rows(&mut live, columns, 24);
        let words: Vec<_> = shown.iter().flat_map(|row| row.split_whitespace()).collect();
        assert!(words.join(" ").contains(reason), "{columns}: {shown:?}");
    }
}

#[test]
fn newest_requests_are_shown_until_scrolled() {
    let files: Vec<File> = (0..50).map(|number| file(&format!("file{number}"), State::Complete)).collect();
    let mut client = client(files);
    client.boots.push(client.boots[0].clone());
    let mut live = Live::new(snapshot(1130.0, vec![client]), Some("10.0.0.5"));
    let shown = rows(&mut live, 100, 24);
    assert!(shown[0].starts_with("10.0.0.5: ") && shown[22].contains("file49"), "{shown:?}");
    press(&mut live, &[Key::Home]);
    let shown = rows(&mut live, 100, 24);
    assert!(shown[2].starts_with("boot ") && shown[3].contains("file0"), "{shown:?}");
    press(&mut live, &[Key::End]);
    assert!(rows(&mut live, 100, 24)[22].contains("file49"));
    let mut live = Live::new(snapshot(1130.0, vec![]), Some("10.0.0.6"));
    assert_eq!(rows(&mut live, 100, 24)[0], "10.0.0.6: no requests in the history yet");
}

#[test]
fn failed_query_keeps_the_last_view() {
    let mut live = Live::new(hundred(), None);
    live.update(Err(StatusError::EventsEnded));
    let shown = rows(&mut live, 100, 24);
    assert!(shown[0].starts_with("not up to date: connection closed"), "{shown:?}");
    assert!(shown[4].starts_with("10.0.0.1 "), "{shown:?}");
    live.update(Ok(hundred()));
    assert!(rows(&mut live, 100, 24)[3].starts_with("10.0.0.1 "));
}
