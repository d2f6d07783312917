//! Writes the text format 0.0.4 of Prometheus.

use std::fmt::{Display, Write};

use rtftp_runtime::monitor::Distribution;

/// Metrics in the text format. Each has a description, a type, and at most one label, whose values are few and known.
#[derive(Debug, Default)]
pub(super) struct Text(String);

impl Text {
    /// Returns the text.
    pub(super) fn finish(self) -> String {
        self.0
    }

    /// Writes a counter.
    pub(super) fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.head(name, "counter", help);
        self.sample(name, "", value);
    }

    /// Writes a counter with a label.
    pub(super) fn counters(&mut self, name: &str, help: &str, label: &str, values: &[(&str, u64)]) {
        self.head(name, "counter", help);
        values.iter().for_each(|(of, value)| self.sample(name, &labels(&[(label, of)]), value));
    }

    /// Writes a gauge.
    pub(super) fn gauge(&mut self, name: &str, help: &str, value: f64) {
        self.head(name, "gauge", help);
        self.sample(name, "", value);
    }

    /// Writes a gauge with a label.
    pub(super) fn gauges(&mut self, name: &str, help: &str, label: &str, values: &[(&str, f64)]) {
        self.head(name, "gauge", help);
        values.iter().for_each(|(of, value)| self.sample(name, &labels(&[(label, of)]), value));
    }

    /// Writes a histogram.
    pub(super) fn histogram(&mut self, name: &str, help: &str, values: &Distribution) {
        self.head(name, "histogram", help);
        self.buckets(name, &[], values);
    }

    /// Writes a histogram with a label.
    pub(super) fn histograms(&mut self, name: &str, help: &str, label: &str, values: &[(&str, &Distribution)]) {
        self.head(name, "histogram", help);
        values.iter().for_each(|(of, values)| self.buckets(name, &[(label, of)], values));
    }

    fn buckets(&mut self, name: &str, label: &[(&str, &str)], values: &Distribution) {
        let bounds = values.buckets.iter().map(|(bound, count)| (bound.to_string(), *count));
        for (bound, count) in bounds.chain([("+Inf".to_owned(), values.count)]) {
            let labels = labels(&[label, &[("le", &bound)]].concat());
            self.sample(&format!("{name}_bucket"), &labels, count);
        }
        self.sample(&format!("{name}_sum"), &labels(label), values.sum);
        self.sample(&format!("{name}_count"), &labels(label), values.count);
    }

    fn head(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &str, value: impl Display) {
        let _ = writeln!(self.0, "{name}{labels} {value}");
    }
}

/// Returns labels in braces, with their values escaped; nothing if there are none.
fn labels(labels: &[(&str, &str)]) -> String {
    let escape = |value: &str| value.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n");
    let labels: Vec<String> = labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escape(value))).collect();
    if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) }
}
