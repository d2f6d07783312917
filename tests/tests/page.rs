//! The status page, in a real browser.
//!
//! It needs Chromium (about 250 MB) and is therefore ignored by default. `tests/run.sh` runs it if the Debian package
//! `chromium-headless-shell` is installed; `cargo test -p rtftp-tests --test page -- --ignored` runs it alone. If the environment
//! variable `PICTURES` names a directory, the test saves screenshots there.

use std::{env, path::Path, time::Duration};

use nix::sys::signal::Signal;
use rtftp_tests::{
    Browser, Disk, DiskConfig, FileSystem, NbdServer, Rtftp, Tree, noise, poll_until,
    raw_client::{Client, ack, error, rrq},
};

const SOON: Duration = Duration::from_secs(30);

/// A file name that would run a script if the page did not escape it.
const HOSTILE: &str = "<img src=x onerror=alert(1)><script>document.title='taken'</script>";

/// Waits until an expression in the page is true.
#[track_caller]
fn wait(browser: &mut Browser, expression: &str) {
    poll_until(expression, SOON, || (browser.value(expression) == true).then_some(()));
}

/// Saves a screenshot if `PICTURES` is set.
fn picture(browser: &mut Browser, name: &str) {
    if let Some(directory) = env::var_os("PICTURES") {
        browser.screenshot(&Path::new(&directory).join(format!("{name}.png")));
    }
}

/// Starts a transfer, and acknowledges the first windows.
fn load(daemon: &Rtftp, board: &str, windows: u16) -> Client {
    let mut client = daemon.client(board);
    client.exchange(&rrq("kernel8.img", &[("blksize", "1024"), ("windowsize", "64"), ("tsize", "0")]));
    client.reply(&ack(0));
    (1..=windows).for_each(|window| take(&mut client, window));
    client
}

/// Receives a window, counted from 1, and acknowledges it.
fn take(client: &mut Client, window: u16) {
    while client.receive().block() != 64 * window {}
    client.reply(&ack(64 * window));
}

/// Boots several boards, with every kind of outcome.
fn boot_many(daemon: &Rtftp) -> (Client, NbdServer) {
    daemon.put("default/config.txt", "arm_64bit=1");
    daemon.put("default/start4.elf", noise(2_261_000, 1));
    daemon.put("default/kernel8.img", noise(1 << 20, 2));
    let tree = Tree::new()
        .file("config.txt", "of the disk")
        .file("kernel8.img", noise(6 << 20, 3))
        .file("boot/vmlinuz-6.1", "a kernel");
    let disk = Disk::whole(32, FileSystem::Ext4(&tree));
    let server = NbdServer::nbdkit(&disk);
    daemon.connect_disk("127.0.0.7", &DiskConfig::new(server.url()).partition(0, "/"));
    daemon.put("127.0.0.9.nbd", "{}");

    for board in ["127.0.0.3", "127.0.0.4", "127.0.0.7"] {
        assert_eq!(daemon.fetch(board, "autoboot.txt"), Err(1));
        assert!(daemon.fetch(board, "config.txt").is_ok());
        assert_eq!(daemon.fetch(board, "armstub8-2711.bin"), Err(1));
        daemon.client(board).fetch("start4.elf", &[("blksize", "1468"), ("windowsize", "1")]).expect("start4.elf");
    }
    for file in ["grub/grub.cfg", "boot/vmlinuz-6.1"] {
        assert!(daemon.fetch("127.0.0.7", file).is_ok(), "{file}");
    }
    let mut probe = daemon.client("127.0.0.4");
    probe.exchange(&rrq("kernel8.img", &[("tsize", "0")]));
    probe.reply(&error(8, "only the size"));
    assert_eq!(daemon.fetch("127.0.0.9", "kernel8.img"), Err(0));
    assert_eq!(daemon.fetch("127.0.0.8", &format!("../{HOSTILE}")), Err(2));
    (load(daemon, "127.0.0.3", 3), server)
}

#[test]
#[ignore = "needs Chromium"]
fn updates_while_boards_boot() {
    let daemon = Rtftp::start_with("127.0.0.1", 3600, &["--status-listen", "0"]);
    let line = daemon.logged(&["status page at "]);
    let url = line.split("status page at ").nth(1).expect("an address").to_owned();
    let mut browser = Browser::start();
    browser.show(1100, 900, "light");
    browser.open(&url);
    wait(&mut browser, "document.getElementById('empty').textContent.includes('No requests yet')");

    daemon.put("127.0.0.20.nbd", "{}");
    let silent = "[...document.querySelectorAll('.client.bad')].find(row => row.textContent.startsWith('127.0.0.20'))";
    wait(&mut browser, &format!("{silent}.textContent.includes('no request yet; disk failed: line 1')"));
    std::fs::remove_file(daemon.path("127.0.0.20.nbd")).expect("removed");
    wait(&mut browser, "document.getElementById('empty').textContent.includes('No requests yet')");

    let (_stalled, _server) = boot_many(&daemon);
    let mut loading = load(&daemon, "127.0.0.7", 4);
    let row = "[...document.querySelectorAll('.client')].find(row => row.textContent.startsWith('127.0.0.7'))";
    wait(&mut browser, &format!("{row}.querySelector('progress').value === {}", 4 * 65536));
    browser.value(&format!("{row}.querySelector('progress').marked = true"));
    take(&mut loading, 5);
    wait(&mut browser, &format!("{row}.querySelector('progress').value === {}", 5 * 65536));
    assert_eq!(browser.value(&format!("{row}.querySelector('progress').max")), 6 << 20);
    assert_eq!(
        browser.value(&format!("{row}.querySelector('progress').marked")),
        true,
        "the progress bar is updated, not replaced"
    );

    // An expanded client shows its files, with their names escaped.
    browser.value("document.querySelectorAll('details').forEach(row => row.open = true)");
    wait(&mut browser, &format!("{row}.querySelectorAll('tbody tr').length === 7"));
    wait(&mut browser, &format!("{row}.textContent.includes('boot/vmlinuz-6.1boot entry Linux 6.1')"));
    let still = row.replace("127.0.0.7", "127.0.0.4");
    browser.value(&format!("{still}.querySelector('table').marked = true"));
    wait(&mut browser, "document.body.textContent.includes('<img src=x onerror=alert(1)><script>')");
    assert_eq!(browser.value("document.querySelectorAll('img').length + document.scripts.length"), 1);
    wait(
        &mut browser,
        &format!("{row}.querySelector('.status').textContent.startsWith('stalled in kernel8.img at 5 %')"),
    );
    wait(&mut browser, "[...document.querySelectorAll('.running')].every(bar => bar.textContent.endsWith(', 0 B/s'))");
    assert_eq!(
        browser.value(&format!("{still}.querySelector('table').marked")),
        true,
        "the table was redrawn without a change"
    );
    picture(&mut browser, "open");
    browser.show(1100, 900, "dark");
    picture(&mut browser, "dark");

    for (width, scheme) in [(360, "light"), (320, "dark")] {
        browser.show(width, 780, scheme);
        assert_eq!(browser.value("document.documentElement.scrollWidth"), width, "the page scrolls horizontally");
        picture(&mut browser, &format!("phone-{width}-open"));
        browser.value("scrollTo(0, 900)");
        picture(&mut browser, &format!("phone-{width}-down"));
        browser.value("scrollTo(0, 0)");
    }
    browser.value("document.querySelectorAll('details').forEach(row => row.open = false)");
    browser.show(360, 780, "dark");
    picture(&mut browser, "phone");
    browser.show(1100, 900, "light");
    picture(&mut browser, "closed");

    browser.value("box = document.getElementById('filter'); box.value = '127.0.0.9 FAILED'");
    browser.value("box.dispatchEvent(new Event('input'))");
    let shown = "[...document.querySelectorAll('.client')].filter(row => !row.hidden)";
    let names = format!("{shown}.map(row => row.querySelector('b').textContent)");
    assert_eq!(browser.value(&names), serde_json::json!(["127.0.0.9"]));

    assert_eq!(browser.errors(), [] as [String; 0]);
    assert_eq!(browser.value("document.title"), "rtftp");
    // The Content Security Policy is in force: an inline handler is reported as a violation.
    browser.value("document.body.setAttribute('onclick', 'alert(1)')");
    assert!(browser.errors().iter().any(|error| error.contains("Content Security Policy")));

    daemon.stop(Signal::SIGTERM);
    wait(&mut browser, "!document.getElementById('lost').hidden && document.body.className === 'stale'");
    picture(&mut browser, "lost");
}
