//! Metrics in the text format 0.0.4 of Prometheus. There is none for each client, since source addresses can be forged.

use std::{fmt::Write, sync::Arc};

use rtftp_runtime::history::snapshot::Snapshot;

use super::response::Response;

/// Returns the response to `/metrics`, from the header of a snapshot and the number of clients in the history.
pub(super) fn response(header: &Snapshot, clients: usize) -> Response {
    Response::new("text/plain; version=0.0.4; charset=utf-8", Arc::new(text(header, clients).into_bytes()))
}

fn text(header: &Snapshot, clients: usize) -> String {
    let totals = &header.totals;
    let results = [
        ("complete", totals.complete),
        ("probe", totals.probes),
        ("missing", totals.missing),
        ("refused", totals.refused),
        ("failed", totals.failed),
    ];
    let results = results.map(|(result, count)| (format!("{{result=\"{result}\"}}"), count as f64));
    let version = format!("{{version=\"{}\"}}", escape(&header.version));
    let counters = [
        ("requests", "Requests, without repeated ones.", totals.requests),
        ("bytes", "Acknowledged bytes of finished transfers.", totals.bytes),
        ("retransmitted_packets", "Retransmitted packets of finished transfers.", totals.retransmitted),
        ("request_copies", "Requests that repeated a running one.", totals.copies),
    ];
    let gauges = [
        ("transfers_running", "Running requests.", totals.running as f64),
        ("clients", "Clients in the history.", clients as f64),
        ("start_time_seconds", "Start time of the daemon in seconds since 1970.", header.started),
    ];

    let mut text = String::new();
    for (name, help, value) in counters {
        metric(&mut text, &format!("{name}_total"), "counter", help, &[(String::new(), value as f64)]);
    }
    metric(&mut text, "transfers_total", "counter", "Finished requests by result.", &results);
    for (name, help, value) in gauges {
        metric(&mut text, name, "gauge", help, &[(String::new(), value)]);
    }
    metric(&mut text, "build_info", "gauge", "The version of the daemon; always 1.", &[(version, 1.0)]);
    text
}

/// Writes a metric: its description, its type, and a line for each set of labels.
fn metric(text: &mut String, name: &str, kind: &str, help: &str, samples: &[(String, f64)]) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "# HELP rtftp_{name} {help}\n# TYPE rtftp_{name} {kind}");
    for (labels, value) in samples {
        let _ = writeln!(text, "rtftp_{name}{labels} {value}");
    }
}

/// Escapes the value of a label.
fn escape(value: &str) -> String {
    value.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n")
}

#[cfg(test)]
mod tests {
    use rtftp_runtime::history::snapshot::Totals;

    use super::*;

    #[test]
    fn writes_the_text_format_of_prometheus() {
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
        let expected = r#"# HELP rtftp_requests_total Requests, without repeated ones.
# TYPE rtftp_requests_total counter
rtftp_requests_total 16
# HELP rtftp_bytes_total Acknowledged bytes of finished transfers.
# TYPE rtftp_bytes_total counter
rtftp_bytes_total 1099511627776
# HELP rtftp_retransmitted_packets_total Retransmitted packets of finished transfers.
# TYPE rtftp_retransmitted_packets_total counter
rtftp_retransmitted_packets_total 7
# HELP rtftp_request_copies_total Requests that repeated a running one.
# TYPE rtftp_request_copies_total counter
rtftp_request_copies_total 8
# HELP rtftp_transfers_total Finished requests by result.
# TYPE rtftp_transfers_total counter
rtftp_transfers_total{result="complete"} 1
rtftp_transfers_total{result="probe"} 2
rtftp_transfers_total{result="missing"} 3
rtftp_transfers_total{result="refused"} 4
rtftp_transfers_total{result="failed"} 5
# HELP rtftp_transfers_running Running requests.
# TYPE rtftp_transfers_running gauge
rtftp_transfers_running 1
# HELP rtftp_clients Clients in the history.
# TYPE rtftp_clients gauge
rtftp_clients 42
# HELP rtftp_start_time_seconds Start time of the daemon in seconds since 1970.
# TYPE rtftp_start_time_seconds gauge
rtftp_start_time_seconds 1500000000.25
# HELP rtftp_build_info The version of the daemon; always 1.
# TYPE rtftp_build_info gauge
rtftp_build_info{version="0.1\"\\\n"} 1
"#;
        assert_eq!(text(&header, 42), expected);
    }
}
