//! Thousands of boards: all that the owner has described have a history, in bounded memory, and can be looked at.
//!
//! The tests of the page need Chromium, as those of `page`. `tests/run.sh page` shows 5,000 boards, and `tests/long.sh large-fleet` 50,000.

use std::{
    io::{BufRead, BufReader, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use rtftp_runtime::history::snapshot::{BoardState, Client, Snapshot};
use rtftp_tests::{
    Browser, Disk, DiskConfig, FileSystem, NbdServer, Rtftp, Tree, binary, poll_until, thread_cpu_times,
};
use tempfile::TempDir;

/// The number of boards that boot at the same time.
const AT_ONCE: u32 = 4;
/// The maximum memory of the daemon in bytes for each board beyond the first ones, which have more than their last request.
const MAX_MEMORY: u64 = 2000;
/// The maximum size of the first event in bytes for each board.
const MAX_ROW: usize = 250;
/// The maximum time until all boards are shown, on a busy host.
const MAX_LOAD: Duration = Duration::from_secs(60);
/// The maximum share of a processor that a viewer of the page needs, while its updates take as long as they want.
const MAX_CPU: f64 = 0.5;
/// The processor time is measured for one event for each of this many boards: with more boards, views of them take longer.
const BOARDS_PER_EVENT: u32 = 1000;
/// The number of boards that boot before those whose memory is measured.
const DETAILED: u32 = 3000;

/// A daemon with boards that have booted from the disk of their group.
struct Fleet {
    daemon: Rtftp,
    address: SocketAddr,
    socket: String,
    _server: NbdServer,
    _disk: Disk,
    _directory: TempDir,
}

impl Fleet {
    fn start() -> Self {
        let directory = TempDir::new().expect("a temporary directory");
        let socket = directory.path().join("status.sock").to_str().expect("UTF-8").to_owned();
        let arguments = ["--status-listen", "0", "--status-socket", &socket];
        let daemon = Rtftp::start_with("127.0.0.1", 3600, &arguments);
        let line = daemon.logged(&["status page at http://"]);
        let address = line.split("http://").nth(1).and_then(|rest| rest.trim_end_matches('/').parse().ok());
        let address = address.unwrap_or_else(|| panic!("no address in `{line}`"));
        let disk = Disk::whole(8, FileSystem::Ext4(&Tree::new().file("config.txt", "a").file("kernel8.img", "b")));
        let server = NbdServer::nbdkit(&disk);
        daemon.put_disk("127.1.0.0_16", &DiskConfig::new(server.url()).partition(0, "/"));
        Self { daemon, address, socket, _server: server, _disk: disk, _directory: directory }
    }

    /// Boots the boards with these numbers. The last one misses its kernel.
    fn boot(&self, numbers: std::ops::Range<u32>) {
        let last = numbers.end - 1;
        thread::scope(|scope| {
            for first in 0..AT_ONCE {
                let numbers = numbers.clone().skip(first as usize).step_by(AT_ONCE as usize);
                scope.spawn(move || {
                    for number in numbers {
                        assert!(self.daemon.fetch(&board(number), "config.txt").is_ok(), "{number}");
                        if number != last {
                            assert!(self.daemon.fetch(&board(number), "kernel8.img").is_ok(), "{number}");
                        }
                    }
                });
            }
        });
        assert_eq!(self.daemon.fetch(&board(last), "kernel_2712.img"), Err(1));
    }

    /// Returns the resident memory of the daemon in bytes.
    fn memory(&self) -> u64 {
        self.daemon.process().resident_memory()
    }

    /// Returns the processor time of the daemon.
    fn cpu(&self) -> Duration {
        thread_cpu_times(self.daemon.process().id()).into_iter().map(|(_, time)| time).sum()
    }

    /// Returns the size of the largest of some events in bytes, before each of which boards boot, and the share of a processor that
    /// they take.
    fn watch(&self, events: &mut BufReader<TcpStream>, count: u32, changes: u32) -> (usize, f64) {
        let (started, before) = (Instant::now(), self.cpu());
        let sizes = (0..count).flat_map(|_| {
            (0..changes).for_each(|number| assert!(self.daemon.fetch(&board(number), "kernel8.img").is_ok()));
            next_events(events)
        });
        let largest = sizes.max().unwrap_or_default();
        (largest, (self.cpu() - before).as_secs_f64() / started.elapsed().as_secs_f64())
    }

    /// Requests the events of the page.
    fn events(&self) -> BufReader<TcpStream> {
        let mut stream = TcpStream::connect(self.address).expect("connected");
        stream.set_read_timeout(Some(MAX_LOAD)).expect("a timeout");
        stream.write_all(format!("GET /events HTTP/1.1\r\nHost: {}\r\n\r\n", self.address).as_bytes()).expect("sent");
        BufReader::new(stream)
    }

    /// Runs `rtftp status`, and returns its output and how long it took.
    fn status(&self, arguments: &[&str]) -> (Vec<u8>, Duration) {
        let started = Instant::now();
        let mut command = Command::new(binary("rtftp"));
        let output = command.args(["status", "--socket", &self.socket]).args(arguments).output().expect("started");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        (output.stdout, started.elapsed())
    }
}

/// Returns the address of a board.
fn board(number: u32) -> String {
    Ipv4Addr::from_bits(0x7f01_0000 + number).to_string()
}

/// Reads up to the next event that is not followed by more, and returns the sizes of these events in bytes.
fn next_events(events: &mut BufReader<TcpStream>) -> Vec<usize> {
    let mut sizes = vec![];
    let mut line = String::new();
    loop {
        line.clear();
        assert!(events.read_line(&mut line).expect("an event") > 0, "the connection was closed");
        sizes.extend(line.starts_with("data: ").then_some(line.len()));
        if line.contains(r#","more":false,"#) {
            return sizes;
        }
    }
}

/// Lets boards boot, measures what they cost, and asserts bounds.
fn boot_and_measure(count: u32) -> Fleet {
    let fleet = Fleet::start();
    // Those in detail.
    fleet.boot(0..DETAILED);
    let detailed = fleet.memory();
    let started = Instant::now();
    fleet.boot(DETAILED..count);
    let (all, memory) = (started.elapsed(), fleet.memory());
    let each = memory.saturating_sub(detailed) / u64::from(count - DETAILED);
    println!(
        "{count} boards, the last {} booted in {all:.1?}: {memory} bytes, {each} for each further board",
        count - DETAILED
    );

    // The last acknowledgements may still be on their way.
    let (json, took, clients) = poll_until("the end of all transfers", MAX_LOAD, || {
        let (json, took) = fleet.status(&["--json"]);
        let clients = serde_json::from_slice::<Snapshot>(&json).expect("JSON").clients;
        let is_running = |client: &Client| matches!(client.state, BoardState::Running | BoardState::Stalled);
        (!clients.iter().any(is_running)).then_some((json, took, clients))
    });
    assert_eq!(clients.len(), count as usize, "each board has a history");
    let others = clients.iter().filter(|client| client.state != BoardState::Booted);
    let mut others: Vec<_> = others.map(|client| (client.client.as_str(), client.status.as_str())).collect();
    others.sort_unstable();
    let missing = [board(count - 1), board(DETAILED - 1)];
    let mut expected =
        missing.each_ref().map(|board| (board.as_str(), "kernel_2712.img not found in 127.1.0.0_16.nbd"));
    expected.sort_unstable();
    assert_eq!(others, expected, "those that have not booted");
    println!("`rtftp status --json`: {} bytes in {took:.1?}", json.len());
    let (table, took) = fleet.status(&[]);
    println!("`rtftp status`: {} bytes in {took:.1?}", table.len());
    let (details, took) = fleet.status(&[&board(7)]);
    println!("`rtftp status CLIENT`: {} bytes in {took:.1?}", details.len());
    assert!(String::from_utf8_lossy(&details).contains("kernel8.img complete"));

    let started = Instant::now();
    let mut events = fleet.events();
    let first = next_events(&mut events);
    let (number, largest, first) = (first.len(), first.iter().max().copied(), first.iter().sum::<usize>());
    println!("all boards: {first} bytes in {number} events after {:.1?}", started.elapsed());
    let (idle, idle_cpu) = fleet.watch(&mut events, count / BOARDS_PER_EVENT, 0);
    let (changed, changed_cpu) = fleet.watch(&mut events, count / BOARDS_PER_EVENT, 10);
    println!("events without a change: at most {idle} bytes, {:.1} % of a processor", 100.0 * idle_cpu);
    println!("events with ten changed boards: at most {changed} bytes, {:.1} % of a processor", 100.0 * changed_cpu);
    println!("memory while the page is viewed: {} bytes", fleet.memory());
    assert!(idle_cpu < MAX_CPU && changed_cpu < MAX_CPU, "{idle_cpu}, {changed_cpu}");
    // Of those seen longest ago, some lose the details in their rows meanwhile.
    assert!(idle < 1000 && (1000..1000 * MAX_ROW).contains(&changed), "{idle}, {changed}");
    assert!(largest < Some(1000 * MAX_ROW + 1000), "{largest:?}");
    assert!(first < MAX_ROW * count as usize, "{first}");
    assert!(each < MAX_MEMORY, "{each} bytes a board");
    fleet
}

/// Shows the page, measures it, and asserts bounds.
fn show_and_measure(fleet: &Fleet, count: u32) {
    let mut browser = Browser::start();
    browser.show(1400, 900, "light");
    let started = Instant::now();
    browser.open(&format!("http://{}/", fleet.address));
    browser.wait("document.querySelectorAll('.board').length === 500");
    let loaded = started.elapsed();
    let locale = browser.value(&format!("({count}).toLocaleString()"));
    let locale = locale.as_str().expect("a text");
    browser.wait(&format!("document.getElementById('booted').textContent.includes(' of {locale} boards')"));
    assert_eq!(browser.value("document.querySelector('.board').id"), board(DETAILED - 1), "the worst one first");
    browser.picture(&format!("boards-{count}"));
    let frames = "
        frames = [];
        let last = performance.now();
        const step = () => { const now = performance.now(); frames.push(now - last); last = now; requestAnimationFrame(step); };
        requestAnimationFrame(step);
    ";
    browser.value(frames);
    for number in 0..5 {
        assert_eq!(fleet.daemon.fetch(&board(number), "absent"), Err(1));
        let row = format!("document.getElementById('{}')", board(number));
        browser.wait(&format!("{row}?.textContent.includes('absent not found')"));
    }
    let frames = browser.value("frames.sort((a, b) => a - b)");
    let frames: Vec<f64> = frames.as_array().expect("frames").iter().filter_map(serde_json::Value::as_f64).collect();
    let (median, longest) = (frames[frames.len() / 2], frames[frames.len() - 1]);
    let heap = browser.value("performance.memory?.usedJSHeapSize ?? 0");
    println!(
        "{count} boards on the page after {loaded:.1?}; {} frames, median {median:.1} ms, longest {longest:.0} ms; {heap} bytes of scripts",
        frames.len()
    );
    assert!(loaded < MAX_LOAD && median < 100.0, "{loaded:?}, {median}");

    // Each board is found by its address, a letter at a time, also one that is not drawn.
    let hidden = board(count - 2);
    assert_eq!(browser.value(&format!("document.getElementById('{hidden}')")), serde_json::Value::Null);
    browser.press("/");
    let keystroke = |text: &str| {
        format!(
            "(() => {{ const start = performance.now(), filter = document.activeElement; filter.value = '{text}';
            filter.dispatchEvent(new Event('input')); document.body.offsetHeight; return performance.now() - start; }})()"
        )
    };
    let times: Vec<_> =
        (1..=hidden.len()).filter_map(|len| browser.value(&keystroke(&hidden[..len])).as_f64()).collect();
    println!("search: at most {:.0} ms for a keystroke", times.iter().copied().fold(0.0, f64::max));
    assert_eq!(times.len(), hidden.len());
    assert_eq!(browser.value("[...document.querySelectorAll('.board')].map(row => row.id).join()"), hidden);
    browser.press("Escape");
    // Also by a link.
    browser.value(&format!("location.hash = '#{}'", board(count - 3)));
    browser.wait(&format!("document.getElementById('{}')?.open", board(count - 3)));
    browser.wait(&format!("document.getElementById('{}').querySelector('.facts') !== null", board(count - 3)));
    browser.press("Escape");

    // With the keyboard, more boards are shown, and the focus moves to the first of them.
    browser.wait("document.querySelectorAll('.board').length === 500");
    let more = format!(
        "Show 500 more of {} boards",
        browser.value(&format!("({count} - 500).toLocaleString()")).as_str().expect("a text")
    );
    assert!(browser.accessible().contains(&("button".into(), more)));
    browser.value("document.getElementById('more').focus()");
    browser.press("Enter");
    browser.wait("document.querySelectorAll('.board').length === 1000");
    assert_eq!(browser.value("[...document.querySelectorAll('summary')].indexOf(document.activeElement)"), 500);
    browser.press("ArrowUp");
    assert_eq!(browser.value("[...document.querySelectorAll('summary')].indexOf(document.activeElement)"), 499);
    assert_eq!(browser.errors(), [] as [String; 0]);
    println!("memory of the daemon: {} bytes", fleet.memory());
}

#[test]
fn five_thousand_boards_have_a_history() {
    boot_and_measure(5000);
}

#[test]
#[ignore = "needs Chromium"]
fn five_thousand_boards_are_shown() {
    show_and_measure(&boot_and_measure(5000), 5000);
}

#[test]
#[ignore = "takes minutes, and needs Chromium"]
fn fifty_thousand_boards_are_shown() {
    show_and_measure(&boot_and_measure(50_000), 50_000);
}
