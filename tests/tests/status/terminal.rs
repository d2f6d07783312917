//! `rtftp status` on a terminal.

use std::{
    env, fs,
    io::Read,
    os::unix::fs::PermissionsExt as _,
    process::{ChildStdout, Command, Stdio},
};

use rtftp_runtime::history::snapshot::State;
use rtftp_tests::{Process, binary};

use super::{BOARD, daemon, wait_for_states};

/// Starts `rtftp status` on a terminal of this size, which script(1) provides. Returns its process and what it draws.
fn on_terminal(size: &str, socket: &str, args: &str, environment: &[(&str, &str)]) -> (Process, ChildStdout) {
    let inside = format!(
        "stty {size}; exec timeout --foreground 20 {} status --socket {socket} {args}",
        binary("rtftp").display()
    );
    let mut command = Command::new("script");
    command.args(["--quiet", "--command", &inside, "/dev/null"]);
    command.env_remove("NO_COLOR").env("TERM", "xterm").envs(environment.iter().copied());
    let mut terminal = Process::start(command.stdin(Stdio::null()).stdout(Stdio::piped()));
    let screen = terminal.child().stdout.take().expect("a pipe");
    (terminal, screen)
}

/// Reads the screen, at most for the 20 s that the program runs, until it contains these words, and returns everything that was drawn.
#[track_caller]
fn drawn(screen: &mut impl Read, words: &[&str]) -> String {
    let mut drawn = String::new();
    let mut buf = [0; 4096];
    while !words.iter().all(|word| drawn.contains(word)) {
        let len = screen.read(&mut buf).expect("the screen");
        assert!(len > 0, "no {words:?} in {}", drawn.escape_debug());
        drawn += str::from_utf8(&buf[..len]).expect("ASCII");
    }
    drawn
}

#[test]
fn shows_a_failure_in_red_and_its_whole_reason() {
    let (_directory, socket, daemon) = daemon();
    daemon.put("default/kernel", "a kernel");
    let description = format!("{BOARD}.nbd");
    daemon.put(&description, "not a description");
    assert_eq!(daemon.fetch("127.0.0.1", "kernel").as_deref(), Ok("a kernel"));
    assert_eq!(daemon.fetch(BOARD, "kernel"), Err(0));
    let reason = wait_for_states(&socket, &[State::Failed]).boots[0].files[0].why.clone().expect("a reason");
    let words = [description.as_str(), reason.rsplit(' ').next().expect("a word")];
    let (_terminal, mut screen) = on_terminal("cols 60 rows 24", &socket, "", &[]);
    let seen = drawn(&mut screen, &words);
    assert!(seen.contains(&format!("\x1b[31m{BOARD}")), "{}", seen.escape_debug());
    let (_terminal, mut screen) = on_terminal("cols 60 rows 24", &socket, "", &[("NO_COLOR", "1")]);
    let seen = drawn(&mut screen, &words);
    assert!(!seen.contains("\x1b[3"), "{}", seen.escape_debug());
}

#[test]
fn updates_the_boots_of_one_client_on_a_terminal() {
    let (_directory, socket, daemon) = daemon();
    daemon.put("default/kernel", "a kernel");
    let (_terminal, mut screen) = on_terminal("cols 200 rows 24", &socket, BOARD, &[]);
    drawn(&mut screen, &[BOARD, "no requests in the history yet"]);
    assert_eq!(daemon.fetch(BOARD, "kernel").as_deref(), Ok("a kernel"));
    drawn(&mut screen, &["kernel complete", "from default/"]);
    assert_eq!(daemon.fetch(BOARD, "initrd"), Err(1));
    drawn(&mut screen, &["initrd not found in default/"]);
}

#[test]
fn pages_a_list_that_is_longer_than_the_terminal() {
    let (directory, socket, daemon) = daemon();
    daemon.put("default/kernel", "a kernel");
    for board in 1..=30 {
        assert_eq!(daemon.fetch(&format!("127.0.0.{board}"), "kernel").as_deref(), Ok("a kernel"));
    }
    let less = directory.path().join("less");
    fs::write(&less, "#!/bin/sh\necho \"pager $* LESSSECURE=$LESSSECURE\"; exec cat\n").expect("written");
    fs::set_permissions(&less, fs::Permissions::from_mode(0o755)).expect("a mode");
    let path = format!("{}:{}", directory.path().display(), env::var("PATH").unwrap_or_default());
    let (_terminal, mut screen) = on_terminal("cols 80 rows 24", &socket, "--once", &[("PATH", &path)]);
    let seen = drawn(&mut screen, &["pager --RAW-CONTROL-CHARS LESSSECURE=1", "127.0.0.1 ", "127.0.0.30 "]);
    assert!(!seen.contains("... and"), "{}", seen.escape_debug());
    let (_terminal, mut screen) = on_terminal("cols 80 rows 99", &socket, "--once", &[("PATH", &path)]);
    assert!(!drawn(&mut screen, &["127.0.0.30 "]).contains("pager"), "no pager for what fits");
}
