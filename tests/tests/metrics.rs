//! The metrics for Prometheus, and the alert rules and the dashboard that use them.

use std::{
    collections::{HashMap, HashSet},
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use rtftp_tests::{Disk, DiskConfig, FileSystem, NbdServer, Rtftp, Tree, noise, poll_until};

const BOARD: &str = "127.0.0.7";
const SOON: Duration = Duration::from_secs(30);

fn daemon() -> (Rtftp, SocketAddr) {
    let daemon = Rtftp::start_with("127.0.0.1", 3600, &["--status-listen", "0"]);
    let line = daemon.logged(&["status page at "]);
    let address = line.split("http://").nth(1).and_then(|rest| rest.trim_end_matches('/').parse().ok());
    (daemon, address.unwrap_or_else(|| panic!("no address in `{line}`")))
}

/// Returns the text of `/metrics`.
#[track_caller]
fn metrics(address: SocketAddr) -> String {
    let mut stream = TcpStream::connect(address).expect("connected");
    stream.set_read_timeout(Some(SOON)).expect("a timeout");
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").expect("written");
    let mut response = String::new();
    stream.read_to_string(&mut response).expect("a response");
    response.split_once("\r\n\r\n").expect("a body").1.to_owned()
}

/// Returns the value of a sample, given its name and labels.
#[track_caller]
fn value(metrics: &str, sample: &str) -> f64 {
    let line = metrics.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
    line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {sample} in\n{metrics}"))
}

/// Waits until samples have these values.
#[track_caller]
fn wait_for(address: SocketAddr, samples: &[(&str, f64)]) -> String {
    poll_until(&format!("{samples:?}"), SOON, || {
        let metrics = metrics(address);
        samples.iter().all(|(sample, expected)| value(&metrics, sample) == *expected).then_some(metrics)
    })
}

/// Returns the metrics by name with their types, after checking each line against the text format 0.0.4.
#[track_caller]
fn parse(metrics: &str) -> HashMap<&str, &str> {
    let mut types = HashMap::new();
    for line in metrics.lines() {
        if let Some(declared) = line.strip_prefix("# TYPE ") {
            let (name, kind) = declared.split_once(' ').expect(line);
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert!(types.insert(name, kind).is_none(), "{name} is declared twice");
        } else if let Some(help) = line.strip_prefix("# HELP ") {
            assert!(help.split_once(' ').is_some_and(|(_, text)| !text.is_empty()), "{line}");
        } else {
            let (sample, number) = line.rsplit_once(' ').expect(line);
            assert!(number.parse::<f64>().is_ok(), "{line}");
            let name = sample.split('{').next().expect(line);
            let part = ["_bucket", "_sum", "_count"].iter().find_map(|part| name.strip_suffix(part));
            let is_histogram = part.is_some_and(|name| types.get(name) == Some(&"histogram"));
            assert!(types.contains_key(name) || is_histogram, "{line} has no type");
        }
    }
    types
}

#[test]
fn histograms_and_gauges_count_a_boot_from_a_disk() {
    let (daemon, address) = daemon();
    let disk = Disk::whole(8, FileSystem::Ext4(&Tree::new().file("kernel", noise(3 << 20, 1))));
    let server = NbdServer::nbdkit(&disk);
    daemon.connect_disk(BOARD, &DiskConfig::new(server.url()).partition(0, "/"));
    daemon.put("127.0.0.9.nbd", "{}");
    daemon.put("default/config.txt", "arm_64bit=1");
    assert_eq!(daemon.fetch(BOARD, "config.txt").as_deref(), Ok("arm_64bit=1"));
    assert_eq!(daemon.client(BOARD).fetch("kernel", &[("blksize", "1468")]).map(|file| file.len()), Ok(3 << 20));
    assert_eq!(daemon.fetch("127.0.0.9", "kernel"), Err(0));

    let metrics = wait_for(
        address,
        &[
            ("rtftp_file_size_bytes_count", 2.0),
            ("rtftp_file_size_bytes_bucket{le=\"1048576\"}", 1.0),
            ("rtftp_file_size_bytes_bucket{le=\"4194304\"}", 2.0),
            ("rtftp_first_data_seconds_count{source=\"local\"}", 1.0),
            ("rtftp_first_data_seconds_count{source=\"disk\"}", 1.0),
            ("rtftp_disks{state=\"connected\"}", 1.0),
            ("rtftp_disks{state=\"failed\"}", 1.0),
            ("rtftp_disks{state=\"idle\"}", 0.0),
        ],
    );
    let types = parse(&metrics);
    assert_eq!(types["rtftp_boot_seconds"], "histogram");
    assert!(value(&metrics, "rtftp_nbd_read_seconds_count") > 5.0, "{metrics}");
    assert!(value(&metrics, "rtftp_nbd_read_seconds_sum") > 0.0, "{metrics}");
    let limit = value(&metrics, "rtftp_disk_memory_limit_bytes");
    assert!((1.0..limit).contains(&value(&metrics, "rtftp_disk_memory_bytes")), "{metrics}");
    assert_eq!(value(&metrics, "rtftp_transfers_limit"), 4096.0);
    assert!(!metrics.contains(BOARD), "a series of one client:\n{metrics}");

    drop(server);
    assert_eq!(value(&metrics, "rtftp_boots_total{result=\"complete\"}"), 0.0, "the boot may go on");
}

/// Returns the directory of the files for Prometheus and Grafana.
fn examples() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../bins/pkg/monitoring")
}

#[test]
fn rules_dashboard_and_guide_name_only_metrics_that_exist() {
    let (_daemon, address) = daemon();
    let metrics = metrics(address);
    let types = parse(&metrics);
    let dashboard = fs::read_to_string(examples().join("grafana-dashboard.json")).expect("a dashboard");
    serde_json::from_str::<serde_json::Value>(&dashboard).expect("JSON");
    let guide = fs::read_to_string(examples().join("../../docs/monitoring.md")).expect("a guide");
    let rules = fs::read_to_string(examples().join("alerts.yml")).expect("rules");
    for text in [&dashboard, &rules, &guide] {
        for word in text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_') {
            let name = ["_bucket", "_sum", "_count"].iter().find_map(|part| word.strip_suffix(part)).unwrap_or(word);
            assert!(!name.starts_with("rtftp_") || types.contains_key(name), "{word} is no metric");
        }
    }
    let described: HashSet<&str> = guide.split('`').collect();
    for name in types.keys() {
        assert!(described.contains(name), "{name} is not in the guide");
    }
}

/// Runs promtool(1), of Debian's package `prometheus`, with `input`.
#[track_caller]
fn promtool(args: &[&str], input: &str) {
    let mut promtool = Command::new("promtool");
    let mut child = promtool.args(args).stdin(Stdio::piped()).spawn().expect("promtool");
    child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("written");
    assert!(child.wait().expect("ended").success(), "promtool {args:?}");
}

#[test]
#[ignore = "needs promtool"]
fn promtool_accepts_metrics_and_rules() {
    let (daemon, address) = daemon();
    daemon.put("default/config.txt", "arm_64bit=1");
    assert_eq!(daemon.fetch(BOARD, "config.txt").as_deref(), Ok("arm_64bit=1"));
    let metrics = wait_for(address, &[("rtftp_first_data_seconds_count{source=\"local\"}", 1.0)]);
    promtool(&["check", "metrics"], &metrics);
    let path = |name: &str| examples().join(name).to_str().expect("UTF-8").to_owned();
    promtool(&["check", "rules", &path("alerts.yml")], "");
    promtool(&["test", "rules", &path("alerts-test.yml")], "");
}
