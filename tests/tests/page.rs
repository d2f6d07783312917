//! The status page, in a real browser.
//!
//! It needs Chromium (about 250 MB) and is therefore ignored by default. `tests/run.sh` runs it if the Debian package
//! `chromium-headless-shell` is installed; `cargo test -p rtftp-tests --test page -- --ignored` runs it alone. If the environment
//! variable `PICTURES` names a directory, the test saves screenshots there.

use nix::sys::signal::Signal;
use rtftp_tests::{
    Browser, Disk, DiskConfig, FileSystem, NbdServer, Rtftp, Tree, noise,
    raw_client::{Client, ack, error, rrq},
};
use serde_json::json;

/// A file name that would run a script if the page did not escape it.
const HOSTILE: &str = "<img src=x onerror=alert(1)><script>document.title='taken'</script>";

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

/// Starts a daemon and opens its status page with this address behind the `/`.
fn open_page(target: &str) -> (Rtftp, Browser, String) {
    let daemon = Rtftp::start_with("127.0.0.1", 3600, &["--status-listen", "0"]);
    let line = daemon.logged(&["status page at "]);
    let url = line.split("status page at ").nth(1).expect("an address").to_owned();
    let mut browser = Browser::start();
    browser.show(1400, 900, "light");
    browser.open(&format!("{url}{target}"));
    (daemon, browser, url)
}

/// Returns the expression of a board's element.
fn board(client: &str) -> String {
    format!("document.getElementById('{client}')")
}

/// The expression of the addresses of the visible boards, in their order.
const VISIBLE: &str = "[...document.querySelectorAll('.board')].filter(row => !row.hidden).map(row => row.id)";

#[test]
#[ignore = "needs Chromium"]
fn updates_while_boards_boot() {
    let (daemon, mut browser, _) = open_page("");
    browser.wait("document.getElementById('empty').textContent.includes('No boards yet')");

    daemon.put("127.0.0.20.nbd", "{}");
    browser.wait(&format!("{}?.textContent.includes('no request yet; disk failed: line 1')", board("127.0.0.20")));
    std::fs::remove_file(daemon.path("127.0.0.20.nbd")).expect("removed");
    browser.wait("document.getElementById('empty').textContent.includes('No boards yet')");

    let (_stalled, _server) = boot_many(&daemon);
    let mut loading = load(&daemon, "127.0.0.7", 4);
    let row = board("127.0.0.7");
    browser.wait(&format!("{row}?.querySelector('progress')?.value === {}", 4 * 65536));
    browser.value(&format!("{row}.querySelector('progress').marked = true"));
    take(&mut loading, 5);
    browser.wait(&format!("{row}.querySelector('progress').value === {}", 5 * 65536));
    assert_eq!(browser.value(&format!("{row}.querySelector('progress').max")), 6 << 20);
    assert_eq!(
        browser.value(&format!("{row}.querySelector('progress').marked")),
        true,
        "the progress bar is updated, not replaced"
    );

    // An expanded board shows its boots, with their names escaped.
    browser.value("document.querySelectorAll('details').forEach(row => row.open = true)");
    browser.wait(&format!("{row}.querySelectorAll('tbody tr').length === 7"));
    browser.wait(&format!("{row}.textContent.includes('boot/vmlinuz-6.1boot entry Linux 6.1')"));
    let still = board("127.0.0.4");
    browser.wait(&format!("{still}.querySelector('table') !== null"));
    browser.value(&format!("{still}.querySelector('table').marked = true"));
    browser.wait("document.body.textContent.includes('<img src=x onerror=alert(1)><script>')");
    assert_eq!(browser.value("document.querySelectorAll('img').length + document.scripts.length"), 1);
    browser.wait(&format!("{row}.querySelector('.status').textContent === 'stalled in kernel8.img at 5 %'"));
    browser.wait(&format!("{row}.querySelector('.running').textContent.endsWith('no progress')"));
    browser.wait(&format!("{row}.textContent.includes('What to do: a large block size on a network')"));
    assert_eq!(browser.value(&format!("{row}.querySelector('.times').children.length")), 1);
    assert_eq!(
        browser.value(&format!("{still}.querySelector('table').marked")),
        true,
        "the table was redrawn without a change"
    );
    assert_eq!(
        browser.value(&format!("{row}.querySelector('.log').textContent.includes('127.0.0.7.nbd: connected to ')")),
        true
    );
    browser.value(&format!("{still}.querySelector('.facts button').click()"));
    let text = browser.value(&format!("{still}.querySelector('textarea').value"));
    let text = text.as_str().expect("a text");
    assert!(text.contains("127.0.0.4: probed: size of kernel8.img queried"), "{text}");
    assert!(text.contains("start4.elf  complete  2261000 of 2261000 bytes; "), "{text}");
    assert!(text.contains("\nlog\n") && text.contains("  info   127.0.0.4:"), "{text}");
    browser.picture("open");
    browser.show(1400, 900, "dark");
    browser.picture("dark");

    for (width, scheme) in [(360, "light"), (320, "dark")] {
        browser.show(width, 780, scheme);
        assert_eq!(browser.value("document.documentElement.scrollWidth"), width, "the page scrolls horizontally");
        browser.picture(&format!("phone-{width}-open"));
        browser.value("scrollTo(0, 900)");
        browser.picture(&format!("phone-{width}-down"));
        browser.value("scrollTo(0, 0)");
    }
    browser.value("document.querySelectorAll('details').forEach(row => row.open = false)");
    browser.show(360, 780, "dark");
    browser.picture("phone");
    browser.show(1400, 900, "light");
    browser.picture("closed");

    assert_eq!(browser.errors(), [] as [String; 0]);
    assert_eq!(browser.value("document.title"), "rtftp");
    // The Content Security Policy is in force: an inline handler is reported as a violation.
    browser.value("document.body.setAttribute('onclick', 'alert(1)')");
    assert!(browser.errors().iter().any(|error| error.contains("Content Security Policy")));

    daemon.stop(Signal::SIGTERM);
    browser.wait("!document.getElementById('lost').hidden && document.body.className === 'stale'");
    browser.picture("lost");
}

#[test]
#[ignore = "needs Chromium"]
fn shows_five_hundred_boards() {
    let (daemon, mut browser, url) = open_page("");
    let disk =
        r#"{"url": "nbd+unix:///d?socket=/nowhere", "mounts": [{"mountpoint": "/"}], "label": "Rack 3, board 1"}"#;
    daemon.put("10.1.0.1.nbd", disk);
    for number in 1..440 {
        daemon.put(&format!("10.1.{}.{}/config.txt", 1 + number / 250, 1 + number % 250), "");
    }
    daemon.put("default/kernel8.img", noise(1 << 14, 2));
    (1..=58).for_each(|number| assert!(daemon.fetch(&format!("127.0.1.{number}"), "kernel8.img").is_ok()));
    assert_eq!(daemon.fetch("127.0.1.59", "missing.bin"), Err(1));
    assert_eq!(daemon.fetch("127.0.1.60", "../refused"), Err(2));
    browser.wait("document.querySelectorAll('.board').length === 500");
    browser.wait("document.getElementById('booted').textContent.startsWith('58 of 500 boards booted since ')");
    browser.wait("document.getElementById('others').textContent.endsWith(', 2 failed, 1 missing, 439 never seen')");
    browser.picture("500");

    // The worst first, and a missing file is amber. Buttons have counts.
    assert_eq!(browser.value(&format!("{VISIBLE}.slice(0, 3)")), json!(["10.1.0.1", "127.0.1.60", "127.0.1.59"]));
    assert_eq!(browser.value(&format!("{}.classList.contains('warn')", board("127.0.1.59"))), true);
    let buttons = browser.value("[...document.querySelectorAll('#states button:not([hidden])')].map(x => x.innerText)");
    let expected = [
        "all\n500",
        "problems\n442",
        "failed\n2",
        "stalled\n0",
        "missing\n1",
        "never seen\n439",
        "running\n0",
        "booted\n58",
    ];
    assert_eq!(buttons, json!(expected));

    let advice = |client: &str| format!("getComputedStyle({}.querySelector('.what')).display", board(client));
    assert_eq!(browser.value(&advice("127.0.1.59")), "block", "each problem has its advice");
    assert_eq!(browser.value(&advice("10.1.1.2")), "none", "hundreds of boards without a request have the same");

    // The boot of one board changes no other row. The frames are printed only: they depend on the load of the machine.
    let measure = "
        touched = new Set();
        const row = node => (node.nodeType === 1 ? node : node.parentElement)?.closest('.board');
        new MutationObserver(changes => changes.forEach(({target}) => {
            const isAge = (target.nodeType === 1 ? target : target.parentElement)?.closest('.age');
            if (row(target) && !isAge) touched.add(row(target).id);
        })).observe(document.body, {subtree: true, childList: true, attributes: true, characterData: true});
        frames = [];
        let last = performance.now();
        const step = () => {
            const now = performance.now();
            frames.push(now - last);
            last = now;
            requestAnimationFrame(step);
        };
        requestAnimationFrame(step);
    ";
    browser.value(measure);
    assert_eq!(daemon.fetch("127.0.1.7", "config.txt"), Err(1));
    browser.wait(&format!("{}.textContent.includes('config.txt not found')", board("127.0.1.7")));
    assert_eq!(browser.value("[...touched]"), json!(["127.0.1.7"]));
    assert!(daemon.fetch("127.0.1.7", "kernel8.img").is_ok());
    browser.wait(&format!("{}.textContent.includes('kernel8.img complete')", board("127.0.1.7")));
    let frames = browser.value("frames.sort((a, b) => a - b)");
    let frames: Vec<f64> = frames.as_array().expect("frames").iter().filter_map(serde_json::Value::as_f64).collect();
    let median = frames.get(frames.len() / 2).copied().unwrap_or_default();
    println!(
        "500 boards: {} frames, median {median:.1} ms, longest {:.0} ms",
        frames.len(),
        frames.last().unwrap_or(&0.0)
    );

    // Filters and the open board are in the address, which leads to the same view again.
    let click = |browser: &mut Browser, name: &str| {
        browser.value(&format!(
            "[...document.querySelectorAll('#states button')].find(x => x.innerText.startsWith('{name}')).click()"
        ));
    };
    click(&mut browser, "failed");
    assert_eq!(browser.value(VISIBLE), json!(["10.1.0.1", "127.0.1.60"]));
    browser.value("document.querySelector('#filter').value = 'rack 3'; document.querySelector('#filter').dispatchEvent(new Event('input'))");
    assert_eq!(browser.value(VISIBLE), json!(["10.1.0.1"]));
    browser.value("document.querySelector('.board:not([hidden])').open = true");
    browser.wait("location.search + location.hash === '?state=failed&q=rack+3#10.1.0.1'");
    browser.open("about:blank");
    browser.open(&format!("{url}?state=failed&q=rack+3#10.1.0.1"));
    browser.wait(&format!("{}?.open && {VISIBLE}.join() === '10.1.0.1'", board("10.1.0.1")));
    assert_eq!(browser.value("document.querySelector('[aria-pressed=true]').innerText"), "failed\n2");
    // A link to a board that the filters hide shows all boards.
    browser.value("location.hash = '#127.0.1.7'");
    browser.wait(&format!("{}.open && {VISIBLE}.length === 500", board("127.0.1.7")));

    // The keyboard reaches everything, and everything has a name.
    browser.value("document.activeElement.blur()");
    browser.press("/");
    assert_eq!(browser.value("document.activeElement.id"), "filter");
    browser.press("ArrowDown");
    assert_eq!(browser.value("document.activeElement.parentElement.id"), "10.1.0.1");
    browser.press("ArrowDown");
    browser.press("Enter");
    browser.wait(&format!("{}.open", board("127.0.1.60")));
    let roles = ["button", "searchbox", "combobox", "link", "progressbar", "textbox", "DisclosureTriangle"];
    let unnamed: Vec<_> =
        browser.accessible().into_iter().filter(|(role, name)| roles.contains(&&**role) && name.is_empty()).collect();
    assert_eq!(unnamed, [] as [(String, String); 0]);
    let (_, name) = browser.accessible().into_iter().find(|(_, name)| name.contains("127.0.1.60")).expect("the board");
    assert!(name.starts_with("failed 127.0.1.60"), "the state is in words: {name}");
    assert_eq!(browser.errors(), [] as [String; 0]);
}
