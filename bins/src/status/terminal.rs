//! The terminal of the live status: single keys, a screen of its own, and the former state at every end of the program.

use std::{
    env,
    io::{self, IsTerminal, Write, stdin, stdout},
    panic,
    sync::mpsc::{Receiver, Sender, channel},
    thread::sleep,
    time::Duration,
};

use async_signal::{Signal, Signals};
use parking_lot::Mutex;
use rtftp_runtime::thread::spawn;
use rustix::{
    io::{read, retry_on_intr},
    termios::{OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr},
};
use smol::{block_on, stream::StreamExt};

use super::{
    keys::{Key, Keys},
    source::{Source, StatusError},
    view::View,
};

/// The interval between two queries of the server.
const REFRESH_INTERVAL: Duration = Duration::from_secs(1);
/// Switches to the alternate screen and hides the cursor.
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[2J";
/// Undoes both, and resets colours.
const LEAVE: &str = "\x1b[0m\x1b[?25h\x1b[?1049l";

/// The former modes of the terminal while they are changed; `None` inside if standard input is not a terminal.
static FORMER: Mutex<Option<Option<Termios>>> = Mutex::new(None);

/// Something to react to.
#[derive(Debug)]
pub(super) enum Event {
    Key(Key),
    /// The size of the terminal has changed.
    Resized,
    /// A signal asks for the end.
    Stop,
    /// The reply to a query.
    View(Result<View, StatusError>),
}

/// Returns whether standard output is a terminal that can be drawn on.
pub(super) fn is_drawable() -> bool {
    stdout().is_terminal() && env::var_os("TERM").is_none_or(|terminal| terminal != "dumb")
}

/// The terminal while it is drawn on. Dropping it restores the former state, and so does a panic.
#[derive(Debug)]
pub(super) struct Terminal {
    events: Receiver<Event>,
}

impl Terminal {
    /// Takes the terminal, and starts to read keys, to catch signals, and to query the server.
    ///
    /// # Errors
    ///
    /// The terminal cannot be set or written, or the system allows no further thread.
    pub(super) fn open(source: Source) -> io::Result<Self> {
        let (sender, events) = channel();
        // Before the terminal is changed: from now on, no signal ends the program without this type.
        let signals = Signals::new([Signal::Hup, Signal::Int, Signal::Quit, Signal::Term, Signal::Winch])?;
        let print_panic = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            restore();
            print_panic(panic);
        }));
        let terminal = Self { events };
        let has_keys = stdin().is_terminal();
        *FORMER.lock() = Some(if has_keys { Some(read_single_keys()?) } else { None });
        write!(stdout(), "{ENTER}")?;
        let (on_signal, on_key) = (sender.clone(), sender.clone());
        spawn("signals", move || receive_signals(signals, &on_signal))?;
        if has_keys {
            spawn("keys", move || read_keys(&on_key))?;
        }
        spawn("queries", move || query(&source, &sender))?;
        Ok(terminal)
    }

    /// Waits for the next event; `None` if there are no more.
    pub(super) fn next(&self) -> Option<Event> {
        self.events.recv().ok()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        restore();
    }
}

/// Restores the former state. Has no effect the second time.
fn restore() {
    let Some(former) = FORMER.lock().take() else { return };
    // Both fail if the terminal is gone.
    let _ = write!(stdout(), "{LEAVE}").and_then(|()| stdout().flush());
    if let Some(former) = former {
        let _ = tcsetattr(stdin(), OptionalActions::Flush, &former);
    }
}

/// Has the terminal pass on each key at once, without echo and signals. Returns the former modes.
fn read_single_keys() -> io::Result<Termios> {
    let former = tcgetattr(stdin())?;
    let mut modes = former.clone();
    modes.make_raw();
    // A read returns nothing after a tenth of a second, so that the key Escape can be told from a sequence.
    modes.special_codes[SpecialCodeIndex::VMIN] = 0;
    modes.special_codes[SpecialCodeIndex::VTIME] = 1;
    tcsetattr(stdin(), OptionalActions::Now, &modes)?;
    Ok(former)
}

/// Passes on keys until the terminal is gone, which a signal reports.
fn read_keys(events: &Sender<Event>) {
    let (mut keys, mut buf) = (Keys::default(), [0; 64]);
    while let Ok(len) = retry_on_intr(|| read(stdin(), &mut buf)) {
        for key in keys.add(&buf[..len]) {
            if events.send(Event::Key(key)).is_err() {
                return;
            }
        }
    }
}

/// Passes on signals.
fn receive_signals(mut signals: Signals, events: &Sender<Event>) {
    while let Some(Ok(signal)) = block_on(signals.next()) {
        let event = if signal == Signal::Winch { Event::Resized } else { Event::Stop };
        if events.send(event).is_err() {
            return;
        }
    }
}

/// Queries the server every second.
fn query(source: &Source, events: &Sender<Event>) {
    while events.send(Event::View(source.view(None))).is_ok() {
        sleep(REFRESH_INTERVAL);
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    /// The environment variable with which this test is the program on the terminal.
    const INSIDE: &str = "RTFTP_TEST_PANIC";

    #[test]
    fn a_panic_restores_the_terminal_before_its_message() {
        if env::var_os(INSIDE).is_some() {
            let _terminal = Terminal::open(Source::Socket("/nowhere".into())).expect("a terminal");
            panic!("a defect");
        }
        let test = env::current_exe().expect("this test");
        let name = "status::terminal::tests::a_panic_restores_the_terminal_before_its_message";
        let inside = format!("{} --exact {name} --nocapture; stty -a", test.display());
        let mut command = Command::new("script");
        command.args(["--quiet", "--command", &inside, "/dev/null"]).env(INSIDE, "1").env("TERM", "xterm");
        let output = command.stdin(Stdio::null()).output().expect("script");
        let drawn = String::from_utf8_lossy(&output.stdout);
        let (_, after) = drawn.split_once(ENTER).unwrap_or_else(|| panic!("never taken: {drawn}"));
        let (before, after) = after.split_once(LEAVE).unwrap_or_else(|| panic!("never left: {drawn}"));
        assert!(!before.contains("a defect") && after.contains("a defect"), "{drawn}");
        let modes: Vec<&str> = after.split_whitespace().collect();
        assert!(["echo", "icanon", "isig"].iter().all(|mode| modes.contains(mode)), "{drawn}");
    }
}
