//! Headless Chromium, controlled over a pipe with the `DevTools` protocol.

use std::{
    env,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::Duration,
};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{Process, poll_until};

/// The program and the Debian package that contains it.
const PROGRAM: &str = "chromium-headless-shell";
/// The maximum time until an answer on a busy host.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);
/// The events that a correct page does not cause: errors, policy violations and console output.
const ERROR_EVENTS: [&str; 3] = ["Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled"];

/// A running browser with one page; killed when dropped.
#[derive(Debug)]
pub struct Browser {
    commands: ChildStdin,
    messages: Receiver<Value>,
    page: Value,
    sent: u64,
    errors: Vec<String>,
    _process: Process,
    _profile: TempDir,
}

impl Browser {
    /// Starts the browser with an empty page. Panics if it is not installed.
    #[track_caller]
    pub fn start() -> Self {
        let profile = TempDir::new().expect("a temporary directory");
        // Commands go to descriptor 3, answers come from descriptor 4.
        let mut command = Command::new("sh");
        command
            .args(["-c", r#"exec "$@" 3<&0 4>&1 </dev/null >/dev/null"#, "sh", PROGRAM])
            .args(["--remote-debugging-pipe", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut process = Process::start_quietly(&mut command);
        let commands = process.child().stdin.take().expect("a pipe");
        let answers = BufReader::new(process.child().stdout.take().expect("a pipe"));
        let (sender, messages) = channel();
        thread::spawn(move || {
            for message in answers.split(0).map_while(Result::ok) {
                let _ = sender.send(serde_json::from_slice(&message).expect("JSON"));
            }
        });
        let (page, errors) = (Value::Null, vec![]);
        let mut browser = Self { commands, messages, page, sent: 0, errors, _process: process, _profile: profile };
        let target = browser.command("Target.createTarget", json!({"url": "about:blank"}))["targetId"].take();
        let session = browser.command("Target.attachToTarget", json!({"targetId": target, "flatten": true}));
        browser.page = session["sessionId"].clone();
        for domain in ["Page", "Runtime", "Log"] {
            browser.command(&format!("{domain}.enable"), json!({}));
        }
        browser
    }

    /// Opens a page.
    #[track_caller]
    pub fn open(&mut self, url: &str) {
        let answer = self.command("Page.navigate", json!({"url": url}));
        assert_eq!(answer.get("errorText"), None, "{url}");
    }

    /// Sets the size of the page and the colour scheme, `light` or `dark`.
    #[track_caller]
    pub fn show(&mut self, width: u32, height: u32, scheme: &str) {
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600});
        self.command("Emulation.setDeviceMetricsOverride", size);
        let features = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.command("Emulation.setEmulatedMedia", features);
    }

    /// Returns the value of an expression in the page, or `null` if it fails.
    #[track_caller]
    pub fn value(&mut self, expression: &str) -> Value {
        let what = json!({"expression": expression, "returnByValue": true, "awaitPromise": true, "silent": true});
        self.command("Runtime.evaluate", what)["result"]["value"].take()
    }

    /// Waits until an expression in the page is true.
    #[track_caller]
    pub fn wait(&mut self, expression: &str) {
        poll_until(expression, ANSWER_LIMIT, || (self.value(expression) == true).then_some(()));
    }

    /// Presses and releases a key: a character, or a name such as `ArrowDown`.
    #[track_caller]
    pub fn press(&mut self, key: &str) {
        let mut down = json!({"type": "keyDown", "key": key});
        if key == "Enter" {
            down["text"] = "\r".into();
            down["windowsVirtualKeyCode"] = 13.into();
        }
        self.command("Input.dispatchKeyEvent", down);
        self.command("Input.dispatchKeyEvent", json!({"type": "keyUp", "key": key}));
    }

    /// Returns the role and the name of each element, as assistive software sees them.
    #[track_caller]
    pub fn accessible(&mut self) -> Vec<(String, String)> {
        let tree = self.command("Accessibility.getFullAXTree", json!({}));
        let nodes = tree["nodes"].as_array().expect("nodes").iter().filter(|node| node["ignored"] == false);
        let text = |node: &Value, field: &str| node[field]["value"].as_str().unwrap_or_default().trim().to_owned();
        nodes.map(|node| (text(node, "role"), text(node, "name"))).collect()
    }

    /// Returns the errors and messages of the page so far.
    pub fn errors(&self) -> &[String] {
        &self.errors
    }

    /// Saves a screenshot if the environment variable `PICTURES` names a directory.
    #[track_caller]
    pub fn picture(&mut self, name: &str) {
        if let Some(directory) = env::var_os("PICTURES") {
            self.screenshot(&Path::new(&directory).join(format!("{name}.png")));
        }
    }

    /// Writes a screenshot of the page as PNG.
    #[track_caller]
    fn screenshot(&mut self, path: &Path) {
        let picture = self.command("Page.captureScreenshot", json!({"format": "png"}));
        let mut decoder = Command::new("base64");
        decoder.arg("-d").stdin(Stdio::piped()).stdout(std::fs::File::create(path).expect("a file"));
        let mut decoder = Process::start(&mut decoder);
        let text = picture["data"].as_str().expect("a picture");
        decoder.child().stdin.take().expect("a pipe").write_all(text.as_bytes()).expect("written");
        assert!(decoder.wait(ANSWER_LIMIT).success());
    }

    /// Sends a command and returns its result.
    #[track_caller]
    fn command(&mut self, method: &str, params: Value) -> Value {
        self.sent += 1;
        let mut command = json!({"id": self.sent, "method": method, "params": params});
        if !self.page.is_null() {
            command["sessionId"] = self.page.clone();
        }
        self.commands.write_all(format!("{command}\0").as_bytes()).expect("the browser has ended");
        loop {
            let mut message = self
                .messages
                .recv_timeout(ANSWER_LIMIT)
                .unwrap_or_else(|error| panic!("no answer from {PROGRAM} to {method}: {error}"));
            if message["id"] == self.sent {
                assert_eq!(message.get("error"), None, "{method}");
                return message["result"].take();
            }
            if message["method"].as_str().is_some_and(|method| ERROR_EVENTS.contains(&method)) {
                self.errors.push(message.to_string());
            }
        }
    }
}
