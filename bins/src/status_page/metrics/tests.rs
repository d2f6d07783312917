use std::collections::HashSet;

use rtftp_runtime::{
    history::snapshot::Totals,
    monitor::{BootTotals, DiskUsage, Distribution, HistoryMetrics},
};

use super::*;

fn example() -> (Snapshot, Metrics) {
    let totals = Totals {
        requests: 16,
        complete: 1,
        probes: 2,
        missing: 3,
        refused: 4,
        failed: 5,
        bytes: 1 << 40,
        retransmitted: 7,
        copies: 8,
        running: 1,
    };
    let header = Snapshot { now: 2.0, version: "0.1\"\\\n".into(), started: 1.5e9 + 0.25, totals, clients: vec![] };
    let seconds = Distribution { buckets: vec![(0.0005, 1), (2.5, 3)], count: 4, sum: 9.5 };
    let history = HistoryMetrics {
        file_sizes: Distribution { buckets: vec![(1024.0, 1), (1_048_576.0, 1)], count: 1, sum: 11.0 },
        first_data_local: seconds.clone(),
        first_data_disk: Distribution::default(),
        boots: BootTotals { complete: 6, missing: 2, ..BootTotals::default() },
        boot_durations: seconds.clone(),
    };
    let disks = DiskUsage { connected: 3, idle: 2, failed: 1, memory: 1 << 20, max_memory: 256 << 20 };
    (header, Metrics { history, nbd_reads: seconds, disks, max_transfers: 1024 })
}

#[test]
fn writes_the_text_format_of_prometheus() {
    let (header, metrics) = example();
    let text = text(&header, 42, &metrics);
    for expected in [
        "# HELP rtftp_requests_total Requests, without repeated ones.\n# TYPE rtftp_requests_total counter\nrtftp_requests_total 16\n",
        "rtftp_bytes_total 1099511627776\n",
        "# TYPE rtftp_transfers_total counter\nrtftp_transfers_total{result=\"complete\"} 1\n",
        "rtftp_transfers_limit 1024\n",
        "# TYPE rtftp_first_data_seconds histogram\n\
         rtftp_first_data_seconds_bucket{source=\"local\",le=\"0.0005\"} 1\n\
         rtftp_first_data_seconds_bucket{source=\"local\",le=\"2.5\"} 3\n\
         rtftp_first_data_seconds_bucket{source=\"local\",le=\"+Inf\"} 4\n\
         rtftp_first_data_seconds_sum{source=\"local\"} 9.5\n\
         rtftp_first_data_seconds_count{source=\"local\"} 4\n",
        "rtftp_file_size_bytes_bucket{le=\"1048576\"} 1\n",
        "rtftp_file_size_bytes_sum 11\n",
        "rtftp_boots_total{result=\"missing\"} 2\n",
        "rtftp_disks{state=\"failed\"} 1\n",
        "rtftp_disk_memory_bytes 1048576\n",
        "rtftp_start_time_seconds 1500000000.25\n",
        "rtftp_build_info{version=\"0.1\\\"\\\\\\n\"} 1\n",
    ] {
        assert!(text.contains(expected), "`{expected}` in\n{text}");
    }
}

/// The conventions of Prometheus for names, and the limits that keep the number of time series small.
#[test]
fn names_follow_the_conventions_and_series_are_few() {
    let (header, metrics) = example();
    let text = text(&header, 42, &metrics);
    let mut names = HashSet::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, kind) = line.split_once(' ').expect(line);
        assert!(names.insert(name), "{name} is described twice");
        assert!(text.contains(&format!("# HELP {name} ")), "{name} has no description");
        assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{name}");
        assert_eq!(name.ends_with("_total"), kind == "counter", "{name}: {kind}");
        let unit = ["_seconds", "_bytes"].iter().any(|unit| name.ends_with(unit));
        assert!(kind != "histogram" || unit, "{name} has no unit");
    }
    let samples = text.lines().filter(|line| !line.starts_with('#')).count();
    assert!(samples < 150, "{samples} time series");
}
