//! A browser without a screen: Chromium, spoken to over a pipe in the words of the `DevTools` protocol.

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::Duration,
};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::Process;

/// The program, from the Debian package of the same name.
const PROGRAM: &str = "chromium-headless-shell";
/// How long an answer may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// What is told of that a page should not give cause for: errors, broken policies, and whatever it says on the console.
const COMPLAINTS: [&str; 3] = ["Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled"];

/// A running browser with one page; killed when dropped.
#[derive(Debug)]
pub struct Browser {
    commands: ChildStdin,
    messages: Receiver<Value>,
    page: Value,
    sent: u64,
    complaints: Vec<String>,
    _process: Process,
    _profile: TempDir,
}

impl Browser {
    /// Starts it with an empty page; panics when it is not installed.
    #[track_caller]
    pub fn start() -> Self {
        let profile = TempDir::new().expect("a temporary directory");
        // It takes its commands on descriptor 3 and answers on 4.
        let mut command = Command::new("sh");
        command
            .args(["-c", r#"exec "$@" 3<&0 4>&1 </dev/null >/dev/null 2>&1"#, "sh", PROGRAM])
            .args(["--remote-debugging-pipe", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut process = Process::start(&mut command);
        let commands = process.child().stdin.take().expect("a pipe");
        let answers = BufReader::new(process.child().stdout.take().expect("a pipe"));
        let (sender, messages) = channel();
        thread::spawn(move || {
            for message in answers.split(0).map_while(Result::ok) {
                let _ = sender.send(serde_json::from_slice(&message).expect("JSON"));
            }
        });
        let (page, complaints) = (Value::Null, vec![]);
        let mut browser = Self { commands, messages, page, sent: 0, complaints, _process: process, _profile: profile };
        let target = browser.command("Target.createTarget", json!({"url": "about:blank"}))["targetId"].take();
        let session = browser.command("Target.attachToTarget", json!({"targetId": target, "flatten": true}));
        browser.page = session["sessionId"].clone();
        for domain in ["Page", "Runtime", "Log"] {
            browser.command(&format!("{domain}.enable"), json!({}));
        }
        browser
    }

    /// Goes to a page.
    #[track_caller]
    pub fn open(&mut self, url: &str) {
        let answer = self.command("Page.navigate", json!({"url": url}));
        assert_eq!(answer.get("errorText"), None, "{url}");
    }

    /// Gives the page a size, and light or dark colours.
    #[track_caller]
    pub fn show(&mut self, width: u32, height: u32, scheme: &str) {
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600});
        self.command("Emulation.setDeviceMetricsOverride", size);
        let features = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.command("Emulation.setEmulatedMedia", features);
    }

    /// The value of an expression in the page; `null` where it fails.
    #[track_caller]
    pub fn value(&mut self, expression: &str) -> Value {
        let what = json!({"expression": expression, "returnByValue": true, "awaitPromise": true, "silent": true});
        self.command("Runtime.evaluate", what)["result"]["value"].take()
    }

    /// What the page has given cause to complain of so far.
    pub fn complaints(&self) -> &[String] {
        &self.complaints
    }

    /// Takes a picture of the page.
    #[track_caller]
    pub fn picture(&mut self, path: &Path) {
        let picture = self.command("Page.captureScreenshot", json!({"format": "png"}));
        let mut decoder = Command::new("base64");
        decoder.arg("-d").stdin(Stdio::piped()).stdout(std::fs::File::create(path).expect("a file"));
        let mut decoder = Process::start(&mut decoder);
        let text = picture["data"].as_str().expect("a picture");
        decoder.child().stdin.take().expect("a pipe").write_all(text.as_bytes()).expect("written");
        assert!(decoder.wait(PATIENCE).success());
    }

    /// Has a command done and returns its result.
    #[track_caller]
    fn command(&mut self, method: &str, params: Value) -> Value {
        self.sent += 1;
        let mut command = json!({"id": self.sent, "method": method, "params": params});
        if !self.page.is_null() {
            command["sessionId"] = self.page.clone();
        }
        self.commands.write_all(format!("{command}\0").as_bytes()).expect("the browser has ended: is it installed?");
        loop {
            let mut message = self.messages.recv_timeout(PATIENCE).unwrap_or_else(|error| {
                panic!("{PROGRAM}, which must be installed, has no answer to {method}: {error}")
            });
            if message["id"] == self.sent {
                assert_eq!(message.get("error"), None, "{method}");
                return message["result"].take();
            }
            if message["method"].as_str().is_some_and(|method| COMPLAINTS.contains(&method)) {
                self.complaints.push(message.to_string());
            }
        }
    }
}
