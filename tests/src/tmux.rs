//! A terminal of a given size: tmux(1) without a user.

use std::{process::Command, time::Duration};

use tempfile::TempDir;

use crate::{poll_until, process::output, run};

/// The time in which a program must draw.
const SOON: Duration = Duration::from_secs(20);

/// A terminal that runs a shell command. Dropping it ends the command.
#[derive(Debug)]
pub struct Tmux {
    directory: TempDir,
}

impl Tmux {
    /// Starts a command of sh(1) on a terminal of this size.
    #[track_caller]
    pub fn start(columns: u16, rows: u16, command: &str) -> Self {
        let terminal = Self { directory: TempDir::new().expect("a directory") };
        let (columns, rows) = (columns.to_string(), rows.to_string());
        terminal.run(&["-f", "/dev/null", "new-session", "-d", "-x", &columns, "-y", &rows, "sh", "-c", command]);
        terminal
    }

    #[track_caller]
    fn run(&self, args: &[&str]) -> String {
        let socket = self.socket();
        let output = run("tmux", [&["-S", &*socket], args].concat());
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn socket(&self) -> String {
        self.directory.path().join("socket").to_str().expect("UTF-8").to_owned()
    }

    /// Presses keys, with the names of tmux(1).
    #[track_caller]
    pub fn press(&self, keys: &[&str]) {
        self.run(&[&["send-keys"], keys].concat());
    }

    /// Returns the text on the screen.
    #[track_caller]
    pub fn screen(&self) -> String {
        self.run(&["capture-pane", "-p"])
    }

    /// Returns the text on the screen with the escape sequences of its colours.
    #[track_caller]
    pub fn coloured_screen(&self) -> String {
        self.run(&["capture-pane", "-p", "-e"])
    }

    /// Waits until the screen meets a condition, and returns it.
    #[track_caller]
    pub fn wait_for(&self, what: &str, meets: impl Fn(&str) -> bool) -> String {
        poll_until(what, SOON, || Some(self.screen()).filter(|screen| meets(screen)))
    }

    /// Returns whether the cursor is visible and the screen is the ordinary one.
    #[track_caller]
    pub fn is_ordinary(&self) -> bool {
        self.run(&["display-message", "-p", "#{alternate_on} #{cursor_flag}"]).trim() == "0 1"
    }

    /// Changes the size of the terminal.
    #[track_caller]
    pub fn resize(&self, columns: u16, rows: u16) {
        self.run(&["resize-window", "-x", &columns.to_string(), "-y", &rows.to_string()]);
    }
}

impl Drop for Tmux {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let shown = output(Command::new("tmux").args(["-S", &self.socket(), "capture-pane", "-p"]));
            println!("--- the terminal\n{}\n---", String::from_utf8_lossy(&shown.stdout));
        }
        // Fails if the command has ended.
        output(Command::new("tmux").args(["-S", &self.socket(), "kill-server"]));
    }
}
