//! Metrics in the text format 0.0.4 of Prometheus. There is none for each client, since source addresses can be forged.

#[cfg(test)]
mod tests;
mod text;

use std::sync::Arc;

use rtftp_runtime::{
    history::snapshot::Snapshot,
    monitor::{Metrics, Monitor},
};

use self::text::Text;
use super::response::Response;

/// Returns the response to `/metrics`. Blocks for as long as it takes to count the disks.
pub(super) fn response(monitor: &Monitor) -> Response {
    let history = monitor.history();
    let body = text(&history.header(), history.client_count(), &monitor.metrics());
    Response::new("text/plain; version=0.0.4; charset=utf-8", Arc::new(body.into_bytes()))
}

/// Returns all metrics, from the header of a snapshot, the number of clients in the history, and the other figures.
fn text(header: &Snapshot, clients: usize, metrics: &Metrics) -> String {
    let mut text = Text::default();
    requests(&mut text, header, metrics);
    boots(&mut text, metrics);
    disks(&mut text, metrics);
    text.gauge("rtftp_clients", "Clients in the history.", clients as f64);
    text.gauge("rtftp_start_time_seconds", "Start time of the daemon in seconds since 1970.", header.started);
    text.gauges("rtftp_build_info", "The version of the daemon; always 1.", "version", &[(&header.version, 1.0)]);
    text.finish()
}

fn requests(text: &mut Text, header: &Snapshot, metrics: &Metrics) {
    let (totals, history) = (&header.totals, &metrics.history);
    text.counter("rtftp_requests_total", "Requests, without repeated ones.", totals.requests);
    text.counter("rtftp_bytes_total", "Acknowledged bytes of finished transfers.", totals.bytes);
    text.counter(
        "rtftp_retransmitted_packets_total",
        "Retransmitted packets of finished transfers.",
        totals.retransmitted,
    );
    text.counter("rtftp_request_copies_total", "Requests that repeated a running one.", totals.copies);
    let results = [
        ("complete", totals.complete),
        ("probe", totals.probes),
        ("missing", totals.missing),
        ("refused", totals.refused),
        ("failed", totals.failed),
    ];
    text.counters("rtftp_transfers_total", "Finished requests by result.", "result", &results);
    text.gauge("rtftp_transfers_running", "Running requests.", totals.running as f64);
    text.gauge("rtftp_transfers_limit", "The maximum number of transfers at a time.", metrics.max_transfers as f64);
    let sources = [("local", &history.first_data_local), ("disk", &history.first_data_disk)];
    let help = "Time from a request to the first data that the client acknowledged, by where the file is.";
    text.histograms("rtftp_first_data_seconds", help, "source", &sources);
    text.histogram("rtftp_file_size_bytes", "Sizes of the files that were delivered.", &history.file_sizes);
}

fn boots(text: &mut Text, metrics: &Metrics) {
    let (boots, durations) = (&metrics.history.boots, &metrics.history.boot_durations);
    let results = [
        ("complete", boots.complete),
        ("probe", boots.probe),
        ("missing", boots.missing),
        ("refused", boots.refused),
        ("failed", boots.failed),
    ];
    let help = "Boots that have ended, by the result of their last request: 30 s without a packet end a boot.";
    text.counters("rtftp_boots_total", help, "result", &results);
    let help = "Time from the first request of a boot to the last packet of the client, if it received a file.";
    text.histogram("rtftp_boot_seconds", help, durations);
}

fn disks(text: &mut Text, metrics: &Metrics) {
    let disks = &metrics.disks;
    let states = [("connected", disks.connected as f64), ("idle", disks.idle as f64), ("failed", disks.failed as f64)];
    let help = "Disks by state; a failed one could not be opened at the last attempt, or has an invalid description.";
    text.gauges("rtftp_disks", help, "state", &states);
    text.gauge("rtftp_disk_memory_bytes", "Memory for what is read from disks.", disks.memory as f64);
    text.gauge("rtftp_disk_memory_limit_bytes", "The limit of this memory: --disk-memory.", disks.max_memory as f64);
    let help = "Time from a read request to an NBD server to the end of its reply.";
    text.histogram("rtftp_nbd_read_seconds", help, &metrics.nbd_reads);
}
