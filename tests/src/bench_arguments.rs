//! The arguments of the benchmarks that compare servers.

use std::env;

/// The arguments of a benchmark that compares servers in rounds.
#[derive(Debug)]
pub struct BenchArguments {
    /// The number of rounds, of which the table shows the medians.
    pub rounds: usize,
    /// A part of the titles of the rows to measure; empty for all.
    pub only: String,
    /// The path of another build of rtftp.
    pub also: Option<String>,
    /// The NBD servers to measure, by their names; empty for the usual one.
    pub nbd: Vec<String>,
    /// Whether rtftp serves all transfers from one port.
    pub single_port: bool,
}

impl BenchArguments {
    /// Parses `[--rounds N] [--only TITLE] [--also PATH] [--nbd NAME,NAME] [--single-port]`. Returns `None` if `cargo test --benches`
    /// only builds the benchmark.
    ///
    /// # Panics
    ///
    /// Panics if the number of rounds is not a number.
    pub fn parse() -> Option<Self> {
        let args: Vec<String> = env::args().skip(1).collect();
        let after = |name: &str| args.iter().skip_while(|arg| *arg != name).nth(1).cloned();
        args.iter().any(|arg| arg == "--bench").then(|| Self {
            rounds: after("--rounds").map_or(3, |count| count.parse().expect("--rounds NUMBER")),
            only: after("--only").unwrap_or_default(),
            also: after("--also"),
            nbd: after("--nbd").iter().flat_map(|names| names.split(',')).map(str::to_owned).collect(),
            single_port: args.iter().any(|arg| arg == "--single-port"),
        })
    }
}
